"""Plain asyncio works inside a workflow, in the same order every time; what reaches outside is refused."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from aion_es import Context, Engine, EngineOptions, activity, workflow
from aion_es.errors import WorkflowFailedError, WorkflowSandboxError
from aion_es.testing.clock import ManualClock
from tests.e2e.conftest import EngineOpener
from tests.e2e.scenario import SOON, is_recorded, kinds, until


@activity
async def double(number: int) -> int:
    return number * 2


@workflow
async def gathers(ctx: Context) -> list[int]:
    return list(await asyncio.gather(*(ctx.run(double, i) for i in range(5))))


@workflow
async def waits(ctx: Context) -> tuple[int, int]:
    waiting: set[asyncio.Future[Any]] = {
        ctx.run(double, 1),
        asyncio.ensure_future(asyncio.sleep(3_600)),
    }
    done, pending = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    return len(done), len(pending)


@workflow
async def groups(ctx: Context) -> list[int]:
    results: list[int] = []

    async def one(number: int) -> None:
        results.append(await ctx.run(double, number))

    async with asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(one(number))
    return sorted(results)


@workflow
async def group_with_a_failing_member(ctx: Context) -> str:
    async def fails() -> None:
        await ctx.run(double, 1)
        raise KeyError("member")

    async def long() -> None:
        await asyncio.sleep(3_600)

    outcome = "nobody failed"
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(fails())
            group.create_task(long())
            group.create_task(long())
    except* KeyError as error:
        outcome = repr(error.exceptions[0])
    return outcome


@workflow
async def queues(ctx: Context) -> list[int]:
    queue: asyncio.Queue[int] = asyncio.Queue(maxsize=1)

    async def produce() -> None:
        for number in range(3):
            await queue.put(await ctx.run(double, number))

    producer = asyncio.ensure_future(produce())
    taken = [await queue.get() for _ in range(3)]
    await producer
    return taken


@workflow
async def event_and_lock(ctx: Context) -> list[str]:
    opened, lock, log = asyncio.Event(), asyncio.Lock(), list[str]()

    async def worker(name: str) -> None:
        await opened.wait()
        async with lock:
            log.append(f"{name} in")
            await ctx.run(double, 1)
            log.append(f"{name} out")

    workers = [asyncio.get_running_loop().create_task(worker(name)) for name in "ab"]
    await ctx.run(double, 0)
    opened.set()
    await asyncio.gather(*workers)
    return log


@workflow
async def all_at_once(ctx: Context) -> None:
    await asyncio.gather(*(ctx.run(double, i) for i in range(10)))
    await asyncio.sleep(0)
    await ctx.run(double, 10)


@workflow
async def deterministic(ctx: Context) -> tuple[float, str, str]:
    return ctx.random.random(), str(ctx.uuid4()), ctx.now().isoformat()


@pytest.mark.parametrize(
    ("code", "result"),
    [
        (gathers, [0, 2, 4, 6, 8]),
        (waits, (1, 1)),
        (groups, [0, 2, 4, 6]),
        (group_with_a_failing_member, "KeyError('member')"),
        (queues, [0, 2, 4]),
        (event_and_lock, ["a in", "a out", "b in", "b out"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_asyncios_own_tools_work_in_workflow_code(
    open_engine: EngineOpener, code: Callable[[Context], Awaitable[Any]], result: object
) -> None:
    async with open_engine([code], [double]) as engine:
        handle = await engine.start(code)
        assert await handle.result(timeout=SOON) == result


async def test_create_task_works_in_workflow_code(open_engine: EngineOpener) -> None:
    @workflow
    async def spawning(ctx: Context) -> int:
        task = asyncio.create_task(asyncio.sleep(0, 7))  # noqa: TID251 - what an author may write
        return await task

    async with open_engine([spawning]) as engine:
        assert await (await engine.start(spawning)).result(timeout=SOON) == 7


async def test_gathered_activities_are_scheduled_in_one_append_in_their_order(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([all_at_once], [double]) as engine:
        handle = await engine.start(all_at_once)
        await handle.result(timeout=SOON)
        assert (await kinds(handle))[:11] == ["WorkflowStarted"] + ["ActivityScheduled"] * 10
        assert open_engine.store.committed[0].types == tuple(
            ["WorkflowStarted"] + ["ActivityScheduled"] * 10
        )


async def test_randomness_and_time_are_the_same_when_a_run_is_replayed(
    open_engine: EngineOpener,
) -> None:
    @workflow
    async def sleeper(ctx: Context) -> list[str]:
        before = [str(ctx.random.random()), str(ctx.uuid4()), ctx.now().isoformat()]
        await ctx.run(double, 1)
        after = [str(ctx.random.random()), str(ctx.uuid4())]
        seen.append(tuple(before + after))
        await asyncio.sleep(0.05)
        return before + after

    seen: list[tuple[str, ...]] = []
    async with open_engine([sleeper], [double], options=EngineOptions(max_resident=1)) as engine:
        handles = [await engine.start(sleeper) for _ in range(3)]
        results = [tuple(await handle.result(timeout=SOON)) for handle in handles]
    assert set(seen) == set(results)
    assert len(set(results)) == 3
    assert len(seen) > 3  # they were evicted, and replayed


async def _thread(ctx: Context) -> Any:
    return await asyncio.to_thread(len, "x")


async def _connection(ctx: Context) -> Any:
    return await asyncio.open_connection("localhost", 1)


async def _executor(ctx: Context) -> Any:
    return await asyncio.get_running_loop().run_in_executor(None, len, "x")


async def _subprocess(ctx: Context) -> Any:
    return await asyncio.create_subprocess_exec("true")


@pytest.mark.parametrize("code", [_thread, _connection, _executor, _subprocess])
async def test_what_reaches_outside_the_loop_is_refused_and_the_activity_is_named_as_remedy(
    open_engine: EngineOpener, code: Callable[[Context], Awaitable[Any]]
) -> None:
    forbidden = workflow(name="forbidden")(code)
    async with open_engine([forbidden]) as engine:
        handle = await engine.start(forbidden)
        with pytest.raises(WorkflowFailedError) as caught:
            await handle.result(timeout=SOON)
        assert caught.value.type == "WorkflowSandboxError"
        assert "do it in an activity" in caught.value.message


async def test_code_may_catch_a_sandbox_refusal_and_go_on(open_engine: EngineOpener) -> None:
    @workflow
    async def wiser(ctx: Context) -> int:
        try:
            return await asyncio.to_thread(len, "x")
        except WorkflowSandboxError:
            return await ctx.run(double, 4)

    async with open_engine([wiser], [double]) as engine:
        assert await (await engine.start(wiser)).result(timeout=SOON) == 8


async def test_many_workflows_run_side_by_side_each_with_its_own_loop() -> None:
    async with Engine.open("memory://", workflows=[gathers], activities=[double]) as engine:
        handles = [await engine.start(gathers) for _ in range(50)]
        results = await asyncio.gather(*(h.result(timeout=SOON) for h in handles))
        assert results == [[0, 2, 4, 6, 8]] * 50


async def test_an_unawaited_activity_still_runs_before_the_run_is_over(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    ran = asyncio.Event()

    @activity
    async def note() -> None:
        ran.set()

    @workflow
    async def careless(ctx: Context) -> None:
        unawaited = ctx.run(note)
        await asyncio.sleep(3_600)
        assert unawaited.done()

    async with open_engine([careless], [note], clock=clock) as engine:
        handle = await engine.start(careless)
        await until(lambda: is_recorded(handle, "ActivityCompleted"))
        clock.advance(timedelta(hours=1))
        await handle.result(timeout=SOON)
        assert ran.is_set()

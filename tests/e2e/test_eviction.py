"""Nobody can tell whether a run stayed in memory: everything gives the same with room for one run only."""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from aion_es import ActivityError, Context, EngineOptions, RetryPolicy, Signal, activity, workflow
from aion_es.app import Engine
from aion_es.errors import WorkflowCancelledError
from aion_es.testing.clock import ManualClock
from tests.e2e.conftest import EngineOpener, resident
from tests.e2e.scenario import SOON, stream_of

number = Signal("number", int)
MANY = 8
CROWDED = EngineOptions(max_resident=1)
failures: dict[str, int] = {}


@activity
async def double(value: int) -> int:
    await asyncio.sleep(0)
    return value * 2


@activity(retry=RetryPolicy(initial_interval=timedelta(0)))
async def fails_twice() -> int:
    key = activity.info().idempotency_key
    failures[key] = failures.get(key, 0) + 1
    if failures[key] < 3:
        raise RuntimeError("not yet")
    return activity.info().attempt


@workflow
async def steps(ctx: Context) -> int:
    value = 1
    for _ in range(5):
        value = await ctx.run(double, value)
    return value


@workflow
async def fans_out(ctx: Context) -> list[int]:
    return list(await asyncio.gather(*(ctx.run(double, i) for i in range(6))))


@workflow
async def retries(ctx: Context) -> int:
    return await ctx.run(fails_twice)


@workflow
async def naps(ctx: Context) -> str:
    for _ in range(3):
        await asyncio.sleep(0.01)
    return str(ctx.uuid4())[14]  # the version digit


@workflow
async def collects(ctx: Context) -> list[int]:
    return [await ctx.receive(number) for _ in range(4)]


@workflow
async def continues(ctx: Context, count: int = 0) -> int:
    count = await ctx.run(double, count + 1)
    if count > 20:
        return count
    return ctx.continue_as_new(count)


@workflow
async def cleans_up(ctx: Context) -> None:
    try:
        await ctx.receive(number)
    except asyncio.CancelledError:
        await ctx.run(double, 1)
        raise


@workflow
async def times_out(ctx: Context) -> str:
    try:
        await ctx.with_timeout(ctx.receive(number), timedelta(milliseconds=10))
    except TimeoutError:
        return "late"
    return "early"


ALL: list[Any] = [steps, fans_out, retries, naps, collects, continues, cleans_up, times_out]


async def just_start(engine: Engine, code: Any, id: str) -> Any:
    handle = await engine.start(code.__name__, id=id)
    return await handle.result(timeout=SOON)


async def count_up(engine: Engine, code: Any, id: str) -> Any:
    handle = await engine.start(continues, 0, id=id)
    return await handle.result(timeout=SOON)


async def send_numbers(engine: Engine, code: Any, id: str) -> Any:
    handle = await engine.start(code.__name__, id=id)
    for value in range(4):
        await handle.signal(number, value)
        await asyncio.sleep(0)
    return await handle.result(timeout=SOON)


async def cancel_it(engine: Engine, code: Any, id: str) -> Any:
    handle = await engine.start(code.__name__, id=id)
    await handle.cancel("go")
    try:
        return await handle.result(timeout=SOON)
    except WorkflowCancelledError as error:
        return error.reason


@pytest.mark.parametrize(
    ("code", "drive", "result"),
    [
        (steps, just_start, 32),
        (fans_out, just_start, [0, 2, 4, 6, 8, 10]),
        (retries, just_start, 3),
        (naps, just_start, "4"),
        (collects, send_numbers, [0, 1, 2, 3]),
        (continues, count_up, 30),
        (cleans_up, cancel_it, "go"),
        (times_out, just_start, "late"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_with_room_for_one_run_every_run_gives_the_same_result_and_history(
    open_engine: EngineOpener,
    code: Any,
    drive: Callable[[Engine, Any, str], Awaitable[Any]],
    result: object,
) -> None:
    ids = [f"w{i}" for i in range(MANY)]
    async with open_engine(ALL, [double, fails_twice]) as engine:
        assert await drive(engine, code, "alone") == result
        expected = await stream_of(engine, "alone")
    async with open_engine(ALL, [double, fails_twice], options=CROWDED) as engine:
        results = await asyncio.gather(*(drive(engine, code, name) for name in ids))
        assert results == [result] * MANY
        # What comes at the same moment may share an append with something else or not; what is there may not differ.
        assert [sorted(await stream_of(engine, name)) for name in ids] == [sorted(expected)] * MANY


@resident
async def test_only_so_many_runs_stay_in_memory(open_engine: EngineOpener) -> None:
    async with open_engine([collects], options=EngineOptions(max_resident=3)) as engine:
        for index in range(10):
            await engine.start(collects, id=f"w{index}")
        residency = [registration.residency for registration in engine.registry]
        assert residency.count("resident") == 3
        assert residency.count("suspended") == 7


async def test_a_suspended_run_is_woken_by_its_timer(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    @workflow
    async def hour(ctx: Context) -> str:
        await asyncio.sleep(3_600)
        return "woken"

    async with open_engine([hour], options=CROWDED, clock=clock) as engine:
        handles = [await engine.start(hour, id=f"w{i}") for i in range(10)]
        clock.advance(timedelta(hours=1))
        results = await asyncio.gather(*(h.result(timeout=SOON) for h in handles))
        assert results == ["woken"] * 10


async def test_a_suspended_run_gets_the_outcome_of_its_running_activity(
    open_engine: EngineOpener,
) -> None:
    gate = asyncio.Event()

    @activity(retry=RetryPolicy(max_attempts=1))
    async def gated() -> int:
        await gate.wait()
        return activity.info().attempt

    @workflow
    async def waits(ctx: Context) -> int:
        try:
            return await ctx.run(gated)
        except ActivityError:
            return -1

    async with open_engine([waits], [gated], options=CROWDED) as engine:
        handles = [await engine.start(waits, id=f"w{i}") for i in range(5)]
        gate.set()
        results = await asyncio.gather(*(h.result(timeout=SOON) for h in handles))
        assert results == [1] * 5
        assert engine.activities_executed == 5


async def test_async_generators_of_code_that_is_evicted_leave_nothing_behind(
    open_engine: EngineOpener, caplog: pytest.LogCaptureFixture
) -> None:
    async def numbers(ctx: Context) -> AsyncIterator[int]:
        async for value in ctx.signals(number):
            yield value

    @workflow
    async def consumes(ctx: Context) -> int:
        total = 0
        async for value in numbers(ctx):
            total += value
            if total > 2:
                break
        return total

    async with open_engine([consumes], options=EngineOptions(max_resident=1)) as engine:
        handles = [await engine.start(consumes) for _ in range(4)]
        for handle in handles:
            await handle.signal(number, 1)
        for handle in handles:
            await handle.signal(number, 2)
            assert await handle.result(timeout=SOON) == 3
        gc.collect()
        await asyncio.sleep(0)
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []

"""Children are started once, whatever happens; their ends reach their parents, and their parents' ends them."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from aion_es import (
    ChildWorkflowError,
    Context,
    EngineOptions,
    SearchAttribute,
    Signal,
    activity,
    workflow,
)
from aion_es.errors import (
    PendingWorkError,
    UnregisteredAttributeError,
    WorkflowCancelledError,
    WorkflowFailedError,
    WorkflowTypeNotFoundError,
)
from aion_es.events.workflow import (
    ChildWorkflowCancelled,
    ChildWorkflowCancelRequested,
    ChildWorkflowCompleted,
    ChildWorkflowFailed,
    ChildWorkflowStarted,
)
from aion_es.testing.clock import ManualClock
from tests.e2e.conftest import EngineOpener
from tests.e2e.scenario import SOON, events_of, is_recorded, kinds, replayed, stream_of, until

go = Signal("go", int)
calls: list[str] = []


@activity
async def double(number: int) -> int:
    calls.append(f"double {number}")
    return 2 * number


@workflow
async def doubles(ctx: Context, number: int) -> int:
    return await ctx.run(double, number)


@workflow
async def waits(ctx: Context) -> int:
    return await ctx.receive(go)


@workflow
async def sleeps(ctx: Context) -> str:
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        await ctx.run(double, 21)
        raise
    return "slept"


@workflow
async def fails(ctx: Context) -> None:
    raise ValueError("no")


@workflow
async def counts_down(ctx: Context, number: int) -> str:
    if number:
        ctx.continue_as_new(number - 1)
    return "zero"


@workflow
async def parent(ctx: Context, number: int) -> int:
    return await ctx.spawn(doubles, number) + 1


@workflow
async def grandparent(ctx: Context, number: int) -> int:
    return await ctx.spawn(parent, number) + 1


@workflow
async def many(ctx: Context, count: int) -> list[int]:
    return await asyncio.gather(*[ctx.spawn(doubles, n) for n in range(count)])


@workflow
async def named(ctx: Context, id: str) -> int:
    return await ctx.spawn(waits, id=id)


@workflow
async def catches(ctx: Context, kind: str) -> list[Any]:
    try:
        await ctx.spawn(kind, id=f"child-of-{ctx.info.workflow_id}")
    except ChildWorkflowError as error:
        return [error.workflow_type, error.type, error.message]
    return []


@workflow
async def leaves(ctx: Context, policy: Any) -> str:
    _ = ctx.spawn(sleeps, id="left", parent_close=policy)
    await ctx.receive(go)
    return "left it"


@workflow
async def times_out(ctx: Context) -> str:
    try:
        async with asyncio.timeout(5):
            await ctx.spawn(sleeps, id="slow", cancellation="wait")
    except TimeoutError:
        return "gave up"
    return "never"


@workflow
async def follows(ctx: Context, number: int) -> str:
    return await ctx.spawn(counts_down, number)


@workflow
async def hasty(ctx: Context) -> list[str]:
    child = ctx.spawn(waits, id="hasty-child")
    try:
        ctx.continue_as_new()
    except PendingWorkError as error:
        await child.signal(go, 3)
        return [*error.children, str(await child)]


@workflow
async def takes_twice(ctx: Context) -> list[int]:
    child = ctx.spawn(doubles, 4)
    return [await child.result(), await child]


WORKFLOWS = [
    doubles,
    waits,
    sleeps,
    fails,
    counts_down,
    parent,
    grandparent,
    many,
    named,
    catches,
    leaves,
    times_out,
    follows,
    hasty,
    takes_twice,
]


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    calls.clear()


async def test_a_child_runs_and_gives_its_result_to_its_parent(open_engine: EngineOpener) -> None:
    async with open_engine(WORKFLOWS, [double]) as engine:
        handle = await engine.start(parent, 20, id="p")
        assert await handle.result(timeout=SOON) == 41
        started = (await events_of(handle, ChildWorkflowStarted))[0]
        assert (started.workflow_type, started.package_version, started.parent_close) == (
            "doubles",
            "1",
            "cancel",
        )
        child = engine.handle(started.child_workflow_id, doubles)
        assert await child.result(timeout=SOON) == 40
        first = (await child.history())[0].event
        assert first.parent is not None  # type: ignore[union-attr]
        assert first.parent.workflow_id == "p"  # type: ignore[union-attr]


async def test_recursion_goes_three_deep(open_engine: EngineOpener) -> None:
    async with open_engine(WORKFLOWS, [double]) as engine:
        handle = await engine.start(grandparent, 20)
        assert await handle.result(timeout=SOON) == 42


async def test_children_that_are_gathered_answer_in_order(open_engine: EngineOpener) -> None:
    async with open_engine(WORKFLOWS, [double]) as engine:
        handle = await engine.start(many, 25)
        assert await handle.result(timeout=SOON) == [2 * n for n in range(25)]


async def test_a_child_may_be_awaited_twice(open_engine: EngineOpener) -> None:
    async with open_engine(WORKFLOWS, [double]) as engine:
        assert await (await engine.start(takes_twice)).result(timeout=SOON) == [8, 8]


@pytest.mark.parametrize("max_resident", [1, 10_000])
async def test_a_child_outlives_the_engine_and_tells_its_parent_in_the_next(
    open_engine: EngineOpener, max_resident: int
) -> None:
    options = EngineOptions(max_resident=max_resident)
    async with open_engine(WORKFLOWS, options=options) as engine:
        await engine.start(named, "c", id="p")
        await until(lambda: stream_is(engine, "c", ["WorkflowStarted"]))
    async with open_engine(WORKFLOWS, options=options) as engine:
        await engine.handle("c").signal(go, 7)
        assert await engine.handle("p").result(timeout=SOON) == 7
        assert await stream_of(engine, "p") == [
            "WorkflowStarted",
            "ChildWorkflowStarted",
            "ChildWorkflowCompleted",
            "WorkflowCompleted",
        ]


async def stream_is(engine: Any, workflow_id: str, expected: list[str]) -> bool:
    return await stream_of(engine, workflow_id) == expected


async def test_a_failed_child_is_an_error_with_its_type(open_engine: EngineOpener) -> None:
    async with open_engine(WORKFLOWS) as engine:
        handle = await engine.start(catches, "fails")
        assert await handle.result(timeout=SOON) == ["fails", "ValueError", "no"]
        assert [e.error.traceback for e in await events_of(handle, ChildWorkflowFailed)] == [None]


async def test_a_terminated_child_is_an_error(open_engine: EngineOpener) -> None:
    async with open_engine(WORKFLOWS) as engine:
        handle = await engine.start(catches, "waits", id="p")
        await until(lambda: stream_is(engine, "child-of-p", ["WorkflowStarted"]))
        await engine.handle("child-of-p").terminate("enough")
        assert await handle.result(timeout=SOON) == ["waits", "WorkflowTerminated", "enough"]


async def test_a_child_that_is_cancelled_by_somebody_else_is_an_error(
    open_engine: EngineOpener,
) -> None:
    async with open_engine(WORKFLOWS) as engine:
        handle = await engine.start(catches, "waits", id="p")
        await until(lambda: stream_is(engine, "child-of-p", ["WorkflowStarted"]))
        await engine.handle("child-of-p").cancel("not now")
        assert await handle.result(timeout=SOON) == ["waits", "WorkflowCancelled", "not now"]
        assert await events_of(handle, ChildWorkflowCancelled) == [
            ChildWorkflowCancelled(child_workflow_id="child-of-p", reason="not now")  # type: ignore[arg-type]
        ]


async def test_an_id_that_is_taken_refuses_the_child(open_engine: EngineOpener) -> None:
    async with open_engine(WORKFLOWS) as engine:
        await engine.start(waits, id="child-of-p")
        handle = await engine.start(catches, "waits", id="p")
        result = await handle.result(timeout=SOON)
        assert result[:2] == ["waits", "WorkflowAlreadyStartedError"]
        assert await stream_of(engine, "child-of-p") == ["WorkflowStarted"]


async def test_an_unknown_type_is_refused_in_the_code(open_engine: EngineOpener) -> None:
    async with open_engine(WORKFLOWS) as engine:
        handle = await engine.start(catches, "nobody")
        with pytest.raises(WorkflowFailedError) as caught:
            await handle.result(timeout=SOON)
        assert caught.value.type == "WorkflowTypeNotFoundError"


async def test_a_child_that_continues_as_new_is_followed_to_the_end_of_its_chain(
    open_engine: EngineOpener,
) -> None:
    async with open_engine(WORKFLOWS) as engine:
        handle = await engine.start(follows, 5)
        assert await handle.result(timeout=SOON) == "zero"
        assert len(await events_of(handle, ChildWorkflowCompleted)) == 1


async def test_cancelling_the_parent_cancels_the_child_it_awaits(open_engine: EngineOpener) -> None:
    async with open_engine(WORKFLOWS) as engine:
        handle = await engine.start(named, "c", id="p")
        await until(lambda: stream_is(engine, "c", ["WorkflowStarted"]))
        await handle.cancel("stop")
        with pytest.raises(WorkflowCancelledError):
            await handle.result(timeout=SOON)
        with pytest.raises(WorkflowCancelledError):
            await engine.handle("c").result(timeout=SOON)
        assert len(await events_of(handle, ChildWorkflowCancelRequested)) == 1


async def test_a_timeout_around_a_child_waits_for_its_clean_up_if_it_is_asked_to(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine(WORKFLOWS, [double], clock=clock) as engine:
        handle = await engine.start(times_out)
        await until(lambda: stream_is(engine, "slow", ["WorkflowStarted", "TimerStarted"]))
        clock.advance(timedelta(seconds=6))
        assert await handle.result(timeout=SOON) == "gave up"
        assert calls == ["double 21"]
        assert (await kinds(handle))[-3:] == [
            "ChildWorkflowCancelRequested",
            "ChildWorkflowCancelled",
            "WorkflowCompleted",
        ]


@pytest.mark.parametrize(
    ("policy", "last"),
    [
        ("cancel", "WorkflowCancelled"),
        ("terminate", "WorkflowTerminated"),
        ("abandon", "TimerStarted"),
    ],
)
@pytest.mark.parametrize("end", ["complete", "terminate", "cancel", "time out"])
async def test_a_child_that_is_left_is_dealt_with_as_its_parent_close_says(
    open_engine: EngineOpener, clock: ManualClock, policy: str, last: str, end: str
) -> None:
    async with open_engine(WORKFLOWS, [double], clock=clock) as engine:
        handle = await engine.start(leaves, policy, id="p", run_timeout=timedelta(minutes=1))
        await until(lambda: stream_is(engine, "left", ["WorkflowStarted", "TimerStarted"]))
        if end == "complete":
            await handle.signal(go, 1)
        elif end == "terminate":
            await handle.terminate()
        elif end == "cancel":
            await handle.cancel()
        else:
            clock.advance(timedelta(minutes=2))
        await until(lambda: closed(engine, "p"))

        async def is_last() -> bool:
            return (await stream_of(engine, "left"))[-1] == last

        await until(is_last)


async def closed(engine: Any, workflow_id: str) -> bool:
    return not (await engine.handle(workflow_id).describe()).status.is_open


async def test_a_parent_that_ended_before_its_child_leaves_an_engine_that_rests(
    open_engine: EngineOpener,
) -> None:
    """Parent and child, both closed, once told each other of their ends again and again, for ever."""
    async with open_engine(WORKFLOWS) as engine:
        handle = await engine.start(named, "c", id="p")
        await until(lambda: stream_is(engine, "c", ["WorkflowStarted"]))
        await handle.terminate()
        await until(lambda: closed(engine, "c"))
        await engine.projections.wait_until_caught_up()
        await until(lambda: _is_at_rest(open_engine))


async def _is_at_rest(open_engine: EngineOpener) -> bool:
    """Return whether nothing is written for as long as many rounds between parent and child would take."""
    before = open_engine.store.called["append"]
    await asyncio.sleep(0.1)
    return open_engine.store.called["append"] == before


async def test_a_reopened_parent_is_told_how_its_children_ended_while_it_was_closed(
    open_engine: EngineOpener,
) -> None:
    async with open_engine(WORKFLOWS) as engine:
        handle = await engine.start(catches, "waits", id="p")
        await until(lambda: stream_is(engine, "child-of-p", ["WorkflowStarted"]))
        await handle.terminate()
        await until(lambda: closed(engine, "child-of-p"))
        await handle.reopen()
        assert await handle.result(timeout=SOON) == [
            "waits",
            "WorkflowCancelled",
            "its parent closed",
        ]


async def test_a_parent_that_is_replaced_closes_its_children(open_engine: EngineOpener) -> None:
    async with open_engine(WORKFLOWS, [double]) as engine:
        await engine.start(leaves, "terminate", id="p")
        await until(lambda: stream_is(engine, "left", ["WorkflowStarted", "TimerStarted"]))
        await engine.start(waits, id="p", on_conflict="terminate_existing")
        await until(lambda: closed(engine, "left"))


async def test_continue_as_new_names_the_child_that_is_pending(open_engine: EngineOpener) -> None:
    async with open_engine(WORKFLOWS) as engine:
        handle = await engine.start(hasty)
        assert await handle.result(timeout=SOON) == ["hasty-child", "3"]


@pytest.mark.parametrize("known_later", [True, False])
async def test_a_child_that_was_refused_is_refused_again_in_replay(
    open_engine: EngineOpener, known_later: bool
) -> None:
    """What is known grows: the type, or the search attribute, may be there when the code is replayed."""
    region = SearchAttribute("region", str)

    @workflow
    async def late(ctx: Context) -> str:
        return "there"

    @workflow
    async def dares(ctx: Context) -> list[str]:
        refused: list[str] = []
        for kind, named in (("late", False), ("doubles", True)):
            try:
                await ctx.spawn(kind, 1, attributes={"region": "eu"} if named else {})
            except (WorkflowTypeNotFoundError, UnregisteredAttributeError) as error:
                refused.append(type(error).__name__)
        await ctx.receive(go)
        refused.append(str(await ctx.spawn(doubles, 4)))
        return refused

    async with open_engine([*WORKFLOWS, dares], [double]) as engine:
        handle = await engine.start(dares, id="w")
        await until(lambda: is_recorded(handle, "MarkerRecorded", 2))
    more, attributes = ([late], [region]) if known_later else ([], [])
    async with open_engine(
        [*WORKFLOWS, dares, *more], [double], search_attributes=attributes
    ) as engine:
        handle = engine.handle("w", dares)
        await handle.signal(go, 1)
        assert await handle.result(timeout=SOON) == [
            "WorkflowTypeNotFoundError",
            "UnregisteredAttributeError",
            "8",
        ]
        replayed(await handle.history(), dares)

"""A run that ended without completing goes on where it stood: exactly what failed is tried again."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from aion_es import ActivityError, Context, RetryPolicy, Signal, WorkflowHandle, activity, workflow
from aion_es.errors import (
    InvalidStateError,
    WorkflowNotFoundError,
    WorkflowTerminatedError,
    WorkflowTimedOutError,
)
from aion_es.events.workflow import (
    ActivityCompleted,
    ActivityScheduled,
    ActivityStarted,
    TimerStarted,
    WorkflowReopened,
)
from aion_es.testing.clock import ManualClock
from tests.e2e.conftest import EngineOpener
from tests.e2e.scenario import (
    SOON,
    cancelled,
    events_of,
    failed,
    is_recorded,
    kinds,
    replayed,
    until,
)

ONCE = RetryPolicy(max_attempts=1)
note = Signal("note", str)
go = Signal("go")


class Outside:
    """What the activities depend on, and what they did."""

    def __init__(self) -> None:
        self.broken = True
        self.done: list[str] = []


outside = Outside()


@pytest.fixture(autouse=True)
def _fresh_outside() -> None:
    outside.__init__()  # type: ignore[misc]


@activity
async def works(name: str) -> str:
    outside.done.append(name)
    return name


@activity(retry=ONCE)
async def breaks(name: str) -> str:
    outside.done.append(f"try {name}")
    if outside.broken:
        raise ValueError(name)
    return name


@workflow
async def three_steps(ctx: Context) -> list[str]:
    return [await ctx.run(works, "a"), await ctx.run(breaks, "b"), await ctx.run(works, "c")]


@workflow
async def saga(ctx: Context) -> str:
    await ctx.run(works, "book")
    try:
        await ctx.run(breaks, "charge")
    except ActivityError:
        await ctx.run(works, "unbook")
        raise
    return await ctx.run(works, "ship")


@workflow
async def falls_back(ctx: Context) -> list[str]:
    try:
        first = await ctx.run(breaks, "best")
    except ActivityError:
        first = await ctx.run(works, "second best")
    return [first, await ctx.run(breaks, "last")]


@workflow
async def together(ctx: Context) -> list[str]:
    names = ctx.run(works, "a"), ctx.run(breaks, "b"), ctx.run(works, "c")
    return [*await asyncio.gather(*names)]


@workflow
async def in_a_group(ctx: Context) -> list[str]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(wait_for(ctx.run(breaks, name))) for name in ("x", "y")]
    return [task.result() for task in tasks]


async def wait_for(future: "asyncio.Future[str]") -> str:
    return await future


@workflow
async def bounded(ctx: Context) -> str:
    async with asyncio.timeout(600):
        return await ctx.run(breaks, "b")


@workflow
async def compensates_late(ctx: Context) -> str:
    timer = ctx.start_timer("deadline", timedelta(hours=1))
    try:
        return await ctx.run(breaks, "b")
    except ActivityError:
        timer.cancel()
        await ctx.run(works, "undo")
        raise
    finally:
        if not timer.done():
            timer.cancel()


@workflow
async def sleeps(ctx: Context) -> str:
    started = ctx.now()
    await asyncio.sleep(3600)
    return f"{(ctx.now() - started).total_seconds():.0f}"


@workflow
async def cleans_up(ctx: Context) -> str:
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        await ctx.run(works, "clean up")
        raise
    return await ctx.run(works, "woke")


@workflow
async def listens(ctx: Context) -> list[str]:
    await ctx.run(breaks, "b")
    return [await ctx.receive(note), await ctx.receive(note)]


@workflow
async def waits(ctx: Context) -> str:
    await ctx.receive(go)
    return await ctx.run(works, "went")


@workflow
async def listens_for_its_end(ctx: Context) -> str:
    try:
        await ctx.receive(go)
    except asyncio.CancelledError:
        await ctx.run(works, await ctx.receive(note))
        raise
    return "went"


@workflow
async def patched(ctx: Context) -> str:
    try:
        await ctx.run(breaks, "b")
    except ActivityError:
        if ctx.patched("undo"):
            await ctx.run(works, "undo")
        raise
    return "patched" if ctx.patched("undo") else "old"


WORKFLOWS = [
    three_steps,
    saga,
    falls_back,
    together,
    in_a_group,
    bounded,
    compensates_late,
    sleeps,
    cleans_up,
    listens,
    waits,
    listens_for_its_end,
    patched,
]
ACTIVITIES = [works, breaks]


async def fails_and_is_reopened_mended(handle: WorkflowHandle[Any]) -> None:
    """Let the run fail, then mend what its activities depend on and reopen it."""
    await failed(handle)
    outside.broken = False
    await handle.reopen()


async def test_only_the_failed_activity_is_tried_again(open_engine: EngineOpener) -> None:
    async with open_engine(WORKFLOWS, ACTIVITIES) as engine:
        handle = await engine.start(three_steps)
        await fails_and_is_reopened_mended(handle)
        assert await handle.result(timeout=SOON) == ["a", "b", "c"]
        assert outside.done == ["a", "try b", "try b", "c"]
        assert [e.reopened for e in await events_of(handle, WorkflowReopened)] == [(1,)]
        attempts = [e.attempt for e in await events_of(handle, ActivityStarted)]
        assert attempts == [1, 1, 2, 1]


async def test_a_run_that_ends_and_is_reopened_in_one_step_goes_on(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    """Both commands wait when the engine takes them, so that one append records the end and its being void."""
    async with open_engine(WORKFLOWS, ACTIVITIES, clock=clock) as engine:
        handle = await engine.start(sleeps)
        await asyncio.gather(handle.cancel(), handle.reopen())
        clock.advance(timedelta(hours=1))
        assert await handle.result(timeout=SOON) == "3600"


async def test_code_that_was_asked_to_end_is_told_nothing_once_the_run_is_reopened(
    open_engine: EngineOpener,
) -> None:
    """What it did because of the end is void, and so is what it would do now."""
    async with open_engine(WORKFLOWS, ACTIVITIES) as engine:
        handle = await engine.start(listens_for_its_end)
        await handle.cancel()
        await asyncio.gather(handle.terminate(), handle.reopen(), handle.signal(note, "undo it"))
        await handle.signal(go)
        assert await handle.result(timeout=SOON) == "went"
        assert outside.done == []


async def test_fail_reopen_fail_reopen(open_engine: EngineOpener) -> None:
    async with open_engine(WORKFLOWS, ACTIVITIES) as engine:
        handle = await engine.start(three_steps)
        await failed(handle)
        await handle.reopen()
        await until(lambda: is_recorded(handle, "WorkflowFailed", 2))
        outside.broken = False
        await handle.reopen()
        assert await handle.result(timeout=SOON) == ["a", "b", "c"]
        assert outside.done == ["a", "try b", "try b", "try b", "c"]


@pytest.mark.parametrize("code", [three_steps, saga, together, in_a_group, bounded, patched])
async def test_a_reopened_run_is_replayed_by_the_next_engine(
    open_engine: EngineOpener, code: Any
) -> None:
    async with open_engine(WORKFLOWS, ACTIVITIES) as engine:
        handle = await engine.start(code, id="w")
        await fails_and_is_reopened_mended(handle)
        result = await handle.result(timeout=SOON)
        recorded = await kinds(handle)
    async with open_engine(WORKFLOWS, ACTIVITIES) as engine:
        handle = engine.handle("w")
        assert await handle.result(timeout=SOON) == result
        assert await kinds(handle) == recorded
        history = await handle.history()
        replayed(history, code)


async def test_compensation_is_void_and_the_code_goes_on_from_the_failure(
    open_engine: EngineOpener,
) -> None:
    async with open_engine(WORKFLOWS, ACTIVITIES) as engine:
        handle = await engine.start(saga)
        await fails_and_is_reopened_mended(handle)
        assert await handle.result(timeout=SOON) == "ship"
        assert outside.done == ["book", "try charge", "unbook", "try charge", "ship"]
        assert [e.activity_id for e in await events_of(handle, ActivityScheduled)] == [0, 1, 2, 3]


async def test_a_failure_that_the_code_dealt_with_stays_dealt_with(
    open_engine: EngineOpener,
) -> None:
    async with open_engine(WORKFLOWS, ACTIVITIES) as engine:
        handle = await engine.start(falls_back)
        await fails_and_is_reopened_mended(handle)
        assert await handle.result(timeout=SOON) == ["second best", "last"]
        assert [e.reopened for e in await events_of(handle, WorkflowReopened)] == [(0, 2)]
        assert outside.done.count("second best") == 1


async def test_what_completed_beside_the_failure_is_not_run_again(
    open_engine: EngineOpener,
) -> None:
    async with open_engine(WORKFLOWS, ACTIVITIES) as engine:
        handle = await engine.start(together)
        await fails_and_is_reopened_mended(handle)
        assert await handle.result(timeout=SOON) == ["a", "b", "c"]
        completed = [e.activity_id for e in await events_of(handle, ActivityCompleted)]
        assert sorted(completed) == [0, 1, 2]


async def test_failures_of_a_task_group_are_both_tried_again(open_engine: EngineOpener) -> None:
    async with open_engine(WORKFLOWS, ACTIVITIES) as engine:
        handle = await engine.start(in_a_group)
        await fails_and_is_reopened_mended(handle)
        assert await handle.result(timeout=SOON) == ["x", "y"]


async def test_a_timer_that_the_failing_code_disarmed_is_due_when_it_was(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine(WORKFLOWS, ACTIVITIES, clock=clock) as engine:
        handle = await engine.start(compensates_late)
        await failed(handle)
        first = (await handle.history())[1].event
        clock.advance(timedelta(minutes=5))
        outside.broken = False
        await handle.reopen()
        assert await handle.result(timeout=SOON) == "b"
        assert await events_of(handle, TimerStarted) == [first, first]


async def test_a_cancelled_sleep_ends_at_its_original_time(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine(WORKFLOWS, ACTIVITIES, clock=clock) as engine:
        handle = await engine.start(sleeps)
        await handle.cancel()
        await cancelled(handle)
        clock.advance(timedelta(minutes=30))
        await handle.reopen()
        clock.advance(timedelta(minutes=31))
        assert await handle.result(timeout=SOON) == "3660"


async def test_clean_up_after_a_cancellation_is_void(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine(WORKFLOWS, ACTIVITIES, clock=clock) as engine:
        handle = await engine.start(cleans_up)
        await handle.cancel()
        await cancelled(handle)
        await handle.reopen()
        clock.advance(timedelta(hours=2))
        assert await handle.result(timeout=SOON) == "woke"
        assert outside.done == ["clean up", "woke"]


async def test_signals_that_came_meanwhile_are_there(open_engine: EngineOpener) -> None:
    async with open_engine(WORKFLOWS, ACTIVITIES) as engine:
        handle = await engine.start(listens)
        await fails_and_is_reopened_mended(handle)
        await handle.signal(note, "one")
        await handle.signal(note, "two")
        assert await handle.result(timeout=SOON) == ["one", "two"]


@pytest.mark.parametrize("end", ["terminated", "timed out"])
async def test_a_run_that_was_ended_from_outside_goes_on_waiting(
    open_engine: EngineOpener, clock: ManualClock, end: str
) -> None:
    async with open_engine(WORKFLOWS, ACTIVITIES, clock=clock) as engine:
        handle = await engine.start(waits, run_timeout=timedelta(minutes=1))
        if end == "terminated":
            await handle.terminate()
            with pytest.raises(WorkflowTerminatedError):
                await handle.result(timeout=SOON)
        else:
            clock.advance(timedelta(minutes=2))
            with pytest.raises(WorkflowTimedOutError):
                await handle.result(timeout=SOON)
        await handle.reopen()
        await handle.signal(go)
        assert await handle.result(timeout=SOON) == "went"


async def test_code_that_failed_by_itself_goes_on_when_it_is_mended(
    open_engine: EngineOpener,
) -> None:
    @workflow(name="mended")
    async def bad(ctx: Context) -> str:
        await ctx.run(works, "a")
        raise ValueError("a bug")

    @workflow(name="mended")
    async def good(ctx: Context) -> str:
        await ctx.run(works, "a")
        return await ctx.run(works, "b")

    async with open_engine([bad], ACTIVITIES) as engine:
        handle = await engine.start(bad, id="w")
        await failed(handle)
        await handle.reopen()
        await until(lambda: is_recorded(handle, "WorkflowFailed", 2))
    async with open_engine([good], ACTIVITIES) as engine:
        handle = engine.handle("w", good)
        await handle.reopen()
        assert await handle.result(timeout=SOON) == "b"
        assert outside.done == ["a", "b"]
        replayed(await handle.history(), good)


async def test_a_patch_that_was_taken_in_what_is_void_is_taken_again(
    open_engine: EngineOpener,
) -> None:
    async with open_engine(WORKFLOWS, ACTIVITIES) as engine:
        handle = await engine.start(patched)
        await fails_and_is_reopened_mended(handle)
        assert await handle.result(timeout=SOON) == "patched"


async def test_a_run_that_is_open_or_completed_is_not_reopened(open_engine: EngineOpener) -> None:
    outside.broken = False
    async with open_engine(WORKFLOWS, ACTIVITIES) as engine:
        handle = await engine.start(waits, id="w")
        with pytest.raises(InvalidStateError):
            await handle.reopen()
        await handle.signal(go)
        await handle.result(timeout=SOON)
        with pytest.raises(InvalidStateError):
            await handle.reopen()
        with pytest.raises(WorkflowNotFoundError):
            await engine.handle("nobody").reopen()
        assert "WorkflowReopened" not in await kinds(handle)


async def test_a_deadline_that_a_reopening_has_lifted_does_not_end_the_run_again(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    """It may have been armed twice: when the run began, and from its row."""
    async with open_engine(WORKFLOWS, ACTIVITIES, clock=clock) as engine:
        handle = await engine.start(waits, run_timeout=timedelta(minutes=1))
        deadline = clock.now() + timedelta(minutes=1)
        clock.advance(timedelta(minutes=2))
        with pytest.raises(WorkflowTimedOutError):
            await handle.result(timeout=SOON)
        await handle.reopen()
        assert handle.run_id is not None
        engine._core.effects.arm_deadline(handle.workflow_id, handle.run_id, "run", deadline)
        clock.advance(timedelta(seconds=1))
        await handle.signal(go)
        assert await handle.result(timeout=SOON) == "went"

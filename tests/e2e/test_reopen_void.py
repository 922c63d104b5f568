"""What a reopening makes void: the code knows nothing of it, nothing of it goes on, and its names stay taken."""

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from aion_es import (
    ActivityError,
    ChildWorkflowError,
    Context,
    Engine,
    RetryPolicy,
    Signal,
    SignalDeliveryError,
    WorkflowHandle,
    activity,
    workflow,
)
from aion_es.errors import (
    ChildAlreadyStartedError,
    WorkflowFailedError,
    WorkflowTerminatedError,
)
from aion_es.events.workflow import ActivityScheduled, ActivityStarted, WorkflowReopened
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
go = Signal("go")
number = Signal("number", int)


class Outside:
    """What the activities depend on, and what they did."""

    def __init__(self) -> None:
        self.broken = {"pay"}
        self.done: list[str] = []
        self.open: asyncio.Event | None = None

    @property
    def gate(self) -> asyncio.Event:
        if self.open is None:
            self.open = asyncio.Event()
        return self.open


outside = Outside()


@pytest.fixture(autouse=True)
def _fresh_outside() -> None:
    outside.__init__()  # type: ignore[misc]


@activity(retry=ONCE)
async def step(name: str) -> str:
    if name in outside.broken:
        raise ConnectionError(name)
    outside.done.append(name)
    return name


@activity(retry=ONCE)
async def gated(name: str) -> str:
    outside.done.append(f"begin {name}")
    await outside.gate.wait()
    outside.done.append(f"end {name}")
    return name


@workflow
async def noted(ctx: Context, text: str) -> str:
    return text


@workflow
async def listens(ctx: Context) -> str:
    await ctx.receive(go)
    return "went"


@workflow
async def adds(ctx: Context) -> int:
    return await ctx.receive(number) + await ctx.receive(number)


@workflow
async def spawns_again(ctx: Context) -> str:
    try:
        await ctx.run(step, "pay")
    except ActivityError:
        await ctx.spawn(noted, "failed", id="note")
        raise
    try:
        return await ctx.spawn(noted, "paid", id="note")
    except ChildAlreadyStartedError as error:
        return f"{error.child_workflow_id} is taken"


@workflow
async def arms_again(ctx: Context) -> str:
    try:
        await ctx.run(step, "pay")
    except ActivityError:
        _ = ctx.start_timer("reminder", timedelta(hours=9))
        await ctx.run(step, "undo")
        raise
    await ctx.start_timer("reminder", timedelta(hours=1))
    return ctx.now().isoformat()


@workflow
async def arms_anew(ctx: Context) -> str:
    timer = ctx.start_timer("reminder", timedelta(hours=1))
    try:
        await ctx.run(step, "pay")
    except ActivityError:
        timer.cancel()
        _ = ctx.start_timer("reminder", timedelta(hours=9))
        await ctx.run(step, "undo")
        raise
    await timer
    return ctx.now().isoformat()


@workflow
async def sends_again(ctx: Context, target: str) -> str:
    try:
        await ctx.run(step, "pay")
    except ActivityError:
        with suppress(SignalDeliveryError):
            await ctx.send(target, number, 1, signal_id="once")
        raise
    try:
        await ctx.send(target, number, 2, signal_id="once")
    except SignalDeliveryError as error:
        return f"no {error.target_workflow_id}"
    await ctx.send(target, number, 20)
    return "sent"


@workflow
async def watched(ctx: Context, left: int) -> str:
    if not left:
        return "continued"
    try:
        await ctx.run(step, "pay")
    except ActivityError:
        _ = ctx.spawn(listens, id="watch", parent_close="abandon")
        raise
    return ctx.continue_as_new(left - 1)


@workflow
async def cleans_up_slowly(ctx: Context) -> str:
    try:
        await ctx.receive(go)
    except asyncio.CancelledError:
        await ctx.run(gated, "clean up")
        raise
    return await ctx.run(step, "go on")


@workflow
async def cannot_undo(ctx: Context) -> str:
    try:
        await ctx.run(step, "pay")
    except ActivityError:
        await ctx.run(step, "undo")
        raise
    return "paid"


@workflow
async def side_by_side(ctx: Context) -> list[str]:
    async def sibling() -> str:
        try:
            return await ctx.run(gated, "sibling")
        finally:
            await ctx.run(step, "sibling's end")

    async def pays() -> str:
        return await ctx.run(step, "pay")

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(sibling()), group.create_task(pays())]
    return [task.result() for task in tasks]


@workflow
async def tidy(ctx: Context) -> str:
    try:
        return await ctx.run(gated, "work")
    except asyncio.CancelledError:
        await ctx.run(step, "tidy up")
        raise


@workflow
async def patient(ctx: Context) -> str:
    return await ctx.run(gated, "work", cancellation="wait")


@workflow
async def parent(ctx: Context) -> str:
    return await ctx.spawn(listens, id="child", cancellation="wait")


@workflow
async def impatient_parent(ctx: Context) -> str:
    return await ctx.spawn(listens, id="child")


@activity(retry=ONCE)
async def stubborn() -> None:
    outside.done.append("begin")
    while not outside.gate.is_set():
        with suppress(asyncio.CancelledError):
            await outside.gate.wait()


@workflow
async def keeps_child(ctx: Context) -> str:
    child = ctx.spawn(listens, id="child")
    await ctx.run(step, "pay")
    return await child


@workflow
async def gave_up_before(ctx: Context) -> str:
    unwanted = ctx.run(stubborn)
    await ctx.receive(go)
    unwanted.cancel()
    await ctx.run(step, "pay")
    await ctx.receive(go)
    return "paid"


@workflow
async def swallows(ctx: Context) -> str:
    try:
        await ctx.receive(go)
    except asyncio.CancelledError:
        await ctx.run(step, "one")
    await ctx.run(step, "pay")
    return f"paid, {ctx.cancel_reason}"


@workflow
async def gives_back(ctx: Context) -> str:
    await ctx.run(step, "take")
    try:
        await ctx.receive(go)
    finally:
        await ctx.run(step, "give back")
    return "kept"


@workflow
async def draws(ctx: Context) -> str:
    first = ctx.random.random()
    try:
        await ctx.run(step, "pay")
    except ActivityError:
        await ctx.run(step, f"undo {ctx.uuid4()}")
        raise
    await ctx.run(step, f"ship {ctx.uuid4()}")
    return f"{first} {ctx.random.random()}"


WORKFLOWS: list[Any] = [
    noted,
    listens,
    adds,
    spawns_again,
    arms_again,
    arms_anew,
    sends_again,
    watched,
    cleans_up_slowly,
    cannot_undo,
    side_by_side,
    tidy,
    patient,
    parent,
    impatient_parent,
    keeps_child,
    gave_up_before,
    swallows,
    gives_back,
    draws,
]
ACTIVITIES = [step, gated, stubborn]


async def fails_and_is_reopened_mended(handle: WorkflowHandle[Any]) -> None:
    """Let the run fail, then mend every step that was broken and reopen it."""
    await failed(handle)
    outside.broken.clear()
    await handle.reopen()


async def cancelled_at_work(engine: Engine, code: Any) -> WorkflowHandle[Any]:
    """Start the code and cancel it once its work has begun; return the run at its end."""
    handle = await engine.start(code)
    await until(lambda: outside.done == ["begin work"])
    await handle.cancel()
    await cancelled(handle)
    return handle


async def cancelled_with_its_child(engine: Engine, code: Any) -> WorkflowHandle[Any]:
    """Start the code as `w` and cancel it once its child has begun; return the run at its end."""
    handle = await engine.start(code, id="w")
    await until(lambda: is_recorded(handle, "ChildWorkflowStarted"))
    await handle.cancel()
    await cancelled(handle)
    return handle


async def cancelled_at_the_second_try(engine: Engine) -> WorkflowHandle[str]:
    """Cancel a run whose clean-up fails, and reopen it mended; return it when it has ended as cancelled."""
    outside.broken.add("give back")
    handle = await engine.start(gives_back)
    await until(lambda: is_recorded(handle, "ActivityCompleted"))
    await handle.cancel()
    await fails_and_is_reopened_mended(handle)
    await cancelled(handle)
    return handle


async def replays(handle: Any, code: Any) -> None:
    replayed(await handle.history(), code)


async def test_the_id_of_a_void_child_is_taken(open_engine: EngineOpener) -> None:
    async with open_engine(WORKFLOWS, ACTIVITIES) as engine:
        handle = await engine.start(spawns_again)
        await fails_and_is_reopened_mended(handle)
        assert await handle.result(timeout=SOON) == "note is taken"
        await replays(handle, spawns_again)


async def test_a_void_timer_is_not_armed_again_and_its_name_is_free(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine(WORKFLOWS, ACTIVITIES, clock=clock) as engine:
        handle = await engine.start(arms_again)
        await fails_and_is_reopened_mended(handle)
        await until(lambda: is_recorded(handle, "TimerStarted", 2))
        due_at = clock.now() + timedelta(hours=1)
        assert (await handle.describe()).live_timers == {"reminder": due_at}
        clock.advance(timedelta(hours=1))
        assert await handle.result(timeout=SOON) == due_at.isoformat()
        await replays(handle, arms_again)


async def test_a_timer_whose_name_was_used_anew_by_what_is_void_is_due_when_it_was(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine(WORKFLOWS, ACTIVITIES, clock=clock) as engine:
        due_at = clock.now() + timedelta(hours=1)
        handle = await engine.start(arms_anew)
        await failed(handle)
        outside.broken.clear()
        clock.advance(timedelta(minutes=5))
        await handle.reopen()
        await until(lambda: is_recorded(handle, "ActivityCompleted", 2))
        assert (await handle.describe()).live_timers == {"reminder": due_at}
        clock.advance(timedelta(minutes=55))
        assert await handle.result(timeout=SOON) == due_at.isoformat()
        await replays(handle, arms_anew)


async def test_a_void_signal_was_sent_and_is_not_sent_again(open_engine: EngineOpener) -> None:
    async with open_engine(WORKFLOWS, ACTIVITIES) as engine:
        target = await engine.start(adds, id="sum")
        handle = await engine.start(sends_again, "sum")
        await fails_and_is_reopened_mended(handle)
        assert await handle.result(timeout=SOON) == "sent"
        assert await target.result(timeout=SOON) == 21
        await replays(handle, sends_again)


async def test_a_void_signal_that_could_not_be_delivered_still_is_not(
    open_engine: EngineOpener,
) -> None:
    async with open_engine(WORKFLOWS, ACTIVITIES) as engine:
        handle = await engine.start(sends_again, "nobody")
        await fails_and_is_reopened_mended(handle)
        assert await handle.result(timeout=SOON) == "no nobody"
        await replays(handle, sends_again)


async def test_a_void_child_is_not_in_the_way_of_continue_as_new(
    open_engine: EngineOpener,
) -> None:
    async with open_engine(WORKFLOWS, ACTIVITIES) as engine:
        handle = await engine.start(watched, 1)
        await fails_and_is_reopened_mended(handle)
        assert await handle.result(timeout=SOON) == "continued"
        assert (await engine.handle("watch").describe()).status.is_open


async def test_a_void_activity_that_the_end_interrupted_is_not_run_again(
    open_engine: EngineOpener,
) -> None:
    async with open_engine(WORKFLOWS, ACTIVITIES) as engine:
        handle = await engine.start(cleans_up_slowly, id="w")
        await handle.cancel()
        await until(lambda: outside.done == ["begin clean up"])
        await handle.terminate()
        with pytest.raises(WorkflowTerminatedError):
            await handle.result(timeout=SOON)
        await handle.reopen()
    async with open_engine(WORKFLOWS, ACTIVITIES) as engine:
        await engine.wait_recovered(SOON)
        handle = engine.handle("w")
        await handle.signal(go)
        assert await handle.result(timeout=SOON) == "go on"
        assert outside.done == ["begin clean up", "go on"]
        await replays(handle, cleans_up_slowly)


async def test_a_void_activity_that_failed_is_not_run_again(open_engine: EngineOpener) -> None:
    outside.broken.add("undo")
    async with open_engine(WORKFLOWS, ACTIVITIES) as engine:
        handle = await engine.start(cannot_undo)
        await fails_and_is_reopened_mended(handle)
        assert await handle.result(timeout=SOON) == "paid"
        assert outside.done == ["pay"]
        assert [e.reopened for e in await events_of(handle, WorkflowReopened)] == [(0,)]
        await replays(handle, cannot_undo)


async def test_what_was_cancelled_because_of_the_failure_runs_again(
    open_engine: EngineOpener,
) -> None:
    async with open_engine(WORKFLOWS, ACTIVITIES) as engine:
        handle = await engine.start(side_by_side)
        await failed(handle)
        assert outside.done == ["begin sibling", "sibling's end"]
        outside.broken.clear()
        outside.gate.set()
        await handle.reopen()
        assert await handle.result(timeout=SOON) == ["sibling", "pay"]
        assert outside.done.count("end sibling") == 1
        assert [e.reopened for e in await events_of(handle, WorkflowReopened)] == [(0, 1)]
        await replays(handle, side_by_side)


@pytest.mark.parametrize("code", [tidy, patient])
async def test_what_was_cancelled_with_the_run_is_waited_for_again(
    open_engine: EngineOpener, code: Any
) -> None:
    async with open_engine(WORKFLOWS, ACTIVITIES) as engine:
        handle = await cancelled_at_work(engine, code)
        await until(lambda: is_recorded(handle, "ActivityCancelRequested"))
        await handle.reopen()
        await until(lambda: outside.done.count("begin work") == 2)
        outside.gate.set()
        assert await handle.result(timeout=SOON) == "work"
        assert outside.done.count("tidy up") == (1 if code is tidy else 0)
        await replays(handle, code)


@pytest.mark.parametrize("code", [parent, impatient_parent])
async def test_a_child_that_was_cancelled_with_its_parent_and_reopened_is_waited_for_again(
    open_engine: EngineOpener, code: Any
) -> None:
    async with open_engine(WORKFLOWS, ACTIVITIES) as engine:
        handle = await cancelled_with_its_child(engine, code)
        child = engine.handle("child")
        await cancelled(child)
        await child.reopen()
        await handle.reopen()
    async with open_engine(WORKFLOWS, ACTIVITIES) as engine:
        handle = engine.handle("w", code)
        await engine.handle("child").signal(go)
        assert await handle.result(timeout=SOON) == "went"
        await replays(handle, code)


async def test_a_child_that_was_closed_with_its_parent_and_reopened_is_waited_for_again(
    open_engine: EngineOpener,
) -> None:
    async with open_engine(WORKFLOWS, ACTIVITIES) as engine:
        handle = await engine.start(keeps_child, id="w")
        await failed(handle)
        child = engine.handle("child")
        await cancelled(child)
        await child.reopen()
        await until(lambda: is_recorded(child, "WorkflowReopened"))
    outside.broken.clear()
    async with open_engine(WORKFLOWS, ACTIVITIES) as engine:
        handle = engine.handle("w", keeps_child)
        assert (await engine.handle("child").describe()).status.is_open
        await handle.reopen()
        await engine.handle("child").signal(go)
        assert await handle.result(timeout=SOON) == "went"
        await replays(handle, keeps_child)


async def test_what_the_code_had_given_up_before_the_failure_is_not_run_again(
    open_engine: EngineOpener,
) -> None:
    async with open_engine(WORKFLOWS, ACTIVITIES) as engine:
        handle = await engine.start(gave_up_before)
        await until(lambda: outside.done == ["begin"])
        await handle.signal(go)
        await failed(handle)
        outside.broken.clear()
        outside.gate.set()
        await handle.reopen()
        await until(lambda: is_recorded(handle, "ActivityCancelled"))
        await handle.signal(go)
        assert await handle.result(timeout=SOON) == "paid"
        assert outside.done == ["begin", "pay"]
        await replays(handle, gave_up_before)


async def test_a_child_that_stays_cancelled_is_what_its_reopened_parent_is_told(
    open_engine: EngineOpener,
) -> None:
    async with open_engine(WORKFLOWS, ACTIVITIES) as engine:
        handle = await cancelled_with_its_child(engine, parent)
        await handle.reopen()
        with pytest.raises(WorkflowFailedError) as caught:
            await handle.result(timeout=SOON)
        assert caught.value.type == ChildWorkflowError.__name__
        await replays(handle, parent)


async def test_what_was_done_after_a_cancellation_that_was_swallowed_is_not_done_again(
    open_engine: EngineOpener,
) -> None:
    async with open_engine(WORKFLOWS, ACTIVITIES) as engine:
        handle = await engine.start(swallows)
        await handle.cancel("enough")
        await fails_and_is_reopened_mended(handle)
        assert await handle.result(timeout=SOON) == "paid, enough"
        assert outside.done == ["one", "pay"]
        await replays(handle, swallows)


async def test_clean_up_that_failed_goes_on_and_the_run_ends_as_cancelled(
    open_engine: EngineOpener,
) -> None:
    async with open_engine(WORKFLOWS, ACTIVITIES) as engine:
        handle = await cancelled_at_the_second_try(engine)
        assert outside.done == ["take", "give back"]
        await replays(handle, gives_back)


async def test_a_run_that_ended_as_cancelled_only_at_the_second_try_goes_on_from_the_cancellation(
    open_engine: EngineOpener,
) -> None:
    """What is void then holds a reopening, and the ordinals of all that was ever scheduled stay taken."""
    async with open_engine(WORKFLOWS, ACTIVITIES) as engine:
        handle = await cancelled_at_the_second_try(engine)
        await handle.reopen()
        await handle.signal(go)
        assert await handle.result(timeout=SOON) == "kept"
        assert outside.done == ["take", "give back", "give back"]
        assert [e.activity_id for e in await events_of(handle, ActivityScheduled)] == [0, 1, 2]
        await replays(handle, gives_back)


async def test_what_is_void_shares_no_draw_with_what_comes(open_engine: EngineOpener) -> None:
    async with open_engine(WORKFLOWS, ACTIVITIES) as engine:
        handle = await engine.start(draws)
        await fails_and_is_reopened_mended(handle)
        await handle.result(timeout=SOON)
        undone, _, shipped = outside.done
        assert undone.removeprefix("undo ") != shipped.removeprefix("ship ")
        await replays(handle, draws)


async def test_an_activity_that_is_run_again_is_called_with_what_it_was(
    open_engine: EngineOpener,
) -> None:
    async with open_engine(WORKFLOWS, ACTIVITIES) as engine:
        handle = await cancelled_at_work(engine, patient)
        assert "ActivityCancelled" in await kinds(handle)
        outside.gate.set()
        await handle.reopen()
        assert await handle.result(timeout=SOON) == "work"
        assert [e.attempt for e in await events_of(handle, ActivityStarted)] == [1, 2]

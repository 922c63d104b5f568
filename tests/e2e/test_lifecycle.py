"""How runs are ended and held from outside: cancel, terminate, pause, resume, timeouts."""

import asyncio
from datetime import timedelta

import pytest

from aion_es import ActivityError, Context, Query, Signal, activity, workflow
from aion_es.errors import (
    InvalidStateError,
    RunClosedError,
    WorkflowCancelledError,
    WorkflowNotFoundError,
    WorkflowTerminatedError,
    WorkflowTimedOutError,
)
from aion_es.events.workflow import (
    TimerCancelled,
    WorkflowCancelled,
    WorkflowCancelRequested,
    WorkflowPaused,
    WorkflowResumed,
    WorkflowTerminated,
    WorkflowTimedOut,
)
from aion_es.ids import TimerId
from aion_es.testing.clock import ManualClock
from tests.e2e.conftest import EngineOpener
from tests.e2e.scenario import SOON, events_of, is_recorded, kinds, stored, stream_of, until

go = Signal("go")
number = Signal("number", int)
state = Query("state", str)
HOUR = timedelta(hours=1)


@activity
async def release(what: str) -> str:
    return f"released {what}"


@activity
async def endless() -> None:
    await asyncio.sleep(3_600)


@workflow
async def waits(ctx: Context) -> str:
    await ctx.receive(go)
    return "done"


@workflow
async def sleeps(ctx: Context) -> None:
    await asyncio.sleep(3_600)


@workflow
async def cleans_up(ctx: Context) -> str:
    try:
        await ctx.receive(go)
    except asyncio.CancelledError:
        await ctx.run(release, "stock")
        await ctx.sleep(1)
        raise
    return "done"


@workflow
async def swallows(ctx: Context) -> str:
    try:
        await ctx.receive(go)
    except asyncio.CancelledError:
        return "I would rather not"
    return "done"


@workflow
async def quick(ctx: Context) -> str:
    return "done"


@workflow
async def runs_endless(ctx: Context) -> None:
    await ctx.run(endless)


@workflow
async def collects(ctx: Context) -> list[int]:
    return [await ctx.receive(number) for _ in range(3)]


@workflow
async def chain(ctx: Context, count: int) -> int:
    await asyncio.sleep(60)
    return ctx.continue_as_new(count + 1)


async def test_a_cancelled_run_ends_with_the_reason(open_engine: EngineOpener) -> None:
    async with open_engine([waits]) as engine:
        handle = await engine.start(waits)
        await handle.cancel("no more")
        with pytest.raises(WorkflowCancelledError) as caught:
            await handle.result(timeout=SOON)
        assert caught.value.reason == "no more"
        assert [e.event for e in (await handle.history())[1:]] == [
            WorkflowCancelRequested(reason="no more"),
            WorkflowCancelled(reason="no more"),
        ]


async def test_cancelling_tears_live_timers_down(open_engine: EngineOpener) -> None:
    async with open_engine([sleeps]) as engine:
        handle = await engine.start(sleeps)
        await handle.cancel()
        with pytest.raises(WorkflowCancelledError):
            await handle.result(timeout=SOON)
        assert await kinds(handle) == [
            "WorkflowStarted",
            "TimerStarted",
            "WorkflowCancelRequested",
            "TimerCancelled",
            "WorkflowCancelled",
        ]
        assert await events_of(handle, TimerCancelled) == [
            TimerCancelled(timer_id=TimerId("0"), cause="teardown")
        ]


async def test_a_cancelled_run_may_clean_up_with_activities_and_timers_first(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine([cleans_up], [release], clock=clock) as engine:
        handle = await engine.start(cleans_up)
        await handle.cancel("stop")
        await until(lambda: is_recorded(handle, "TimerStarted"))
        clock.advance(timedelta(seconds=1))
        with pytest.raises(WorkflowCancelledError):
            await handle.result(timeout=SOON)
        assert await kinds(handle) == [
            "WorkflowStarted",
            "WorkflowCancelRequested",
            "ActivityScheduled",
            "ActivityStarted",
            "ActivityCompleted",
            "TimerStarted",
            "TimerFired",
            "WorkflowCancelled",
        ]


async def test_clean_up_goes_on_after_a_restart(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine([cleans_up], [release], clock=clock) as engine:
        handle = await engine.start(cleans_up, id="w")
        await handle.cancel("stop")
        await until(lambda: is_recorded(handle, "TimerStarted"))
    clock.advance(HOUR)
    async with open_engine([cleans_up], [release], clock=clock) as engine:
        with pytest.raises(WorkflowCancelledError, match="stop"):
            await engine.handle("w").result(timeout=SOON)


async def test_code_that_swallows_the_cancellation_completes(open_engine: EngineOpener) -> None:
    async with open_engine([swallows]) as engine:
        handle = await engine.start(swallows)
        await handle.cancel()
        assert await handle.result(timeout=SOON) == "I would rather not"
        assert await kinds(handle) == [
            "WorkflowStarted",
            "WorkflowCancelRequested",
            "WorkflowCompleted",
        ]


async def test_cancelling_twice_is_recorded_once(open_engine: EngineOpener) -> None:
    async with open_engine([cleans_up], [release]) as engine:
        handle = await engine.start(cleans_up)
        await handle.cancel("first")
        await handle.cancel("second")
        assert await events_of(handle, WorkflowCancelRequested) == [
            WorkflowCancelRequested(reason="first")
        ]
        await handle.terminate()


async def test_a_running_activity_is_cancelled_with_its_run(open_engine: EngineOpener) -> None:
    stopped = asyncio.Event()

    @activity
    async def watched() -> None:
        try:
            await asyncio.sleep(3_600)
        finally:
            stopped.set()

    @workflow
    async def runs_watched(ctx: Context) -> None:
        await ctx.run(watched)

    async with open_engine([runs_watched], [watched]) as engine:
        handle = await engine.start(runs_watched)
        await until(lambda: engine.activities_executed == 1)
        await handle.cancel()
        with pytest.raises(WorkflowCancelledError):
            await handle.result(timeout=SOON)
        await asyncio.wait_for(stopped.wait(), 5)
        assert await kinds(handle) == [
            "WorkflowStarted",
            "ActivityScheduled",
            "WorkflowCancelRequested",
            "ActivityCancelRequested",
            "WorkflowCancelled",
        ]


async def test_cancelling_an_unknown_or_closed_workflow_is_refused(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([quick]) as engine:
        with pytest.raises(WorkflowNotFoundError):
            await engine.handle("nobody").cancel()
        handle = await engine.start(quick)
        await handle.result(timeout=SOON)
        with pytest.raises(RunClosedError):
            await handle.cancel()
        assert await stored(engine) == 2


async def test_start_and_cancel_at_the_same_moment_end_cancelled(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([waits]) as engine:
        starting = asyncio.ensure_future(engine.start(waits, id="w"))
        await asyncio.sleep(0)
        await engine.handle("w").cancel("too soon")
        with pytest.raises(WorkflowCancelledError, match="too soon"):
            await (await starting).result(timeout=SOON)
        assert await stream_of(engine, "w") == [
            "WorkflowStarted",
            "WorkflowCancelRequested",
            "WorkflowCancelled",
        ]


async def test_terminating_does_not_ask_the_code(open_engine: EngineOpener) -> None:
    async with open_engine([cleans_up], [release]) as engine:
        handle = await engine.start(cleans_up)
        await handle.terminate("enough")
        with pytest.raises(WorkflowTerminatedError) as caught:
            await handle.result(timeout=SOON)
        assert caught.value.reason == "enough"
        assert [e.event for e in (await handle.history())[1:]] == [
            WorkflowTerminated(reason="enough")
        ]
        with pytest.raises(RunClosedError):
            await handle.terminate()


async def test_terminating_stops_what_still_runs_and_nothing_is_recorded_after_it(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine([runs_endless, sleeps], [endless], clock=clock) as engine:
        busy = await engine.start(runs_endless)
        asleep = await engine.start(sleeps)
        await until(lambda: engine.activities_executed == 1)
        await busy.terminate()
        await asleep.terminate()
        clock.advance(2 * HOUR)
        await asyncio.sleep(0.05)
        assert await kinds(busy) == [
            "WorkflowStarted",
            "ActivityScheduled",
            "WorkflowTerminated",
        ]
        assert await kinds(asleep) == ["WorkflowStarted", "TimerStarted", "WorkflowTerminated"]


async def test_a_paused_run_records_what_arrives_and_its_code_is_held(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([collects]) as engine:
        handle = await engine.start(collects)
        await handle.signal(number, 1)
        await handle.pause("audit")
        for value in (2, 3):
            await handle.signal(number, value)
        assert await kinds(handle) == [
            "WorkflowStarted",
            "SignalReceived",
            "WorkflowPaused",
            "SignalReceived",
            "SignalReceived",
        ]
        assert (await handle.describe()).status == "Paused"
        await handle.resume("audited")
        assert await handle.result(timeout=SOON) == [1, 2, 3]
        assert [e.reason for e in await events_of(handle, WorkflowPaused)] == ["audit"]
        assert [e.reason for e in await events_of(handle, WorkflowResumed)] == ["audited"]


async def test_a_timer_that_falls_due_while_paused_is_recorded_and_wakes_the_code_at_resume(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine([sleeps], clock=clock) as engine:
        handle = await engine.start(sleeps)
        await handle.pause()
        clock.advance(HOUR)
        await until(lambda: is_recorded(handle, "TimerFired"))
        assert (await kinds(handle))[-1] == "TimerFired"
        await handle.resume()
        await handle.result(timeout=SOON)


async def test_activities_are_held_while_a_run_is_paused(open_engine: EngineOpener) -> None:
    @workflow
    async def then_releases(ctx: Context) -> str:
        await ctx.receive(go)
        return await ctx.run(release, "stock")

    async with open_engine([then_releases], [release]) as engine:
        handle = await engine.start(then_releases, id="w")
        await handle.pause()
        await handle.signal(go)
        assert engine.activities_executed == 0
        assert (await kinds(handle))[-1] == "SignalReceived"
        await handle.resume()
        assert await handle.result(timeout=SOON) == "released stock"


async def test_a_retry_that_falls_due_while_paused_comes_after_resume(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    runs: list[int] = []

    @activity
    async def once_bad() -> int:
        runs.append(1)
        if len(runs) == 1:
            raise RuntimeError("once")
        return len(runs)

    @workflow
    async def tries(ctx: Context) -> int:
        return await ctx.run(once_bad)

    async with open_engine([tries], [once_bad], clock=clock) as engine:
        handle = await engine.start(tries)
        await until(lambda: is_recorded(handle, "ActivityFailed"))
        await handle.pause()
        clock.advance(HOUR)
        await asyncio.sleep(0.05)
        assert len(runs) == 1
        await handle.resume()
        assert await handle.result(timeout=SOON) == 2


async def test_a_pause_survives_a_restart(open_engine: EngineOpener) -> None:
    async with open_engine([collects]) as engine:
        handle = await engine.start(collects, id="w")
        await handle.pause()
        await handle.signal(number, 1)
    async with open_engine([collects]) as engine:
        handle = engine.handle("w", collects)
        await handle.signal(number, 2)
        await handle.signal(number, 3)
        assert (await kinds(handle))[-1] == "SignalReceived"
        assert (await handle.describe()).status == "Paused"
        await handle.resume()
        assert await handle.result(timeout=SOON) == [1, 2, 3]


async def test_pausing_twice_and_resuming_what_runs_are_refused(open_engine: EngineOpener) -> None:
    async with open_engine([waits]) as engine:
        handle = await engine.start(waits)
        with pytest.raises(InvalidStateError):
            await handle.resume()
        await handle.pause()
        with pytest.raises(InvalidStateError):
            await handle.pause()
        assert await kinds(handle) == ["WorkflowStarted", "WorkflowPaused"]


async def test_a_paused_run_can_be_cancelled_and_ends_when_it_is_resumed(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([waits]) as engine:
        handle = await engine.start(waits)
        await handle.pause()
        await handle.cancel("while paused")
        assert (await kinds(handle))[-1] == "WorkflowCancelRequested"
        await handle.resume()
        with pytest.raises(WorkflowCancelledError, match="while paused"):
            await handle.result(timeout=SOON)


async def test_a_run_timeout_ends_the_run(open_engine: EngineOpener, clock: ManualClock) -> None:
    async with open_engine([waits], clock=clock) as engine:
        handle = await engine.start(waits, run_timeout=HOUR)
        clock.advance(HOUR - timedelta(seconds=1))
        await asyncio.sleep(0.01)
        assert await kinds(handle) == ["WorkflowStarted"]
        clock.advance(timedelta(seconds=1))
        with pytest.raises(WorkflowTimedOutError) as caught:
            await handle.result(timeout=SOON)
        assert caught.value.timeout == "run"
        assert [e.event for e in (await handle.history())[1:]] == [WorkflowTimedOut(timeout="run")]


async def test_a_run_timeout_is_kept_across_a_restart(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine([waits], clock=clock) as engine:
        await engine.start(waits, id="w", run_timeout=timedelta(days=100))
    clock.advance(timedelta(days=99))
    async with open_engine([waits], clock=clock) as engine:
        await engine.wait_recovered(SOON)
        handle = engine.handle("w")
        assert await kinds(handle) == ["WorkflowStarted"]
        clock.advance(timedelta(days=1))
        with pytest.raises(WorkflowTimedOutError):
            await handle.result(timeout=SOON)


async def test_an_overdue_run_timeout_ends_the_run_when_an_engine_opens(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine([waits], clock=clock) as engine:
        await engine.start(waits, id="w", run_timeout=HOUR)
    clock.advance(2 * HOUR)
    async with open_engine([waits], clock=clock) as engine:
        with pytest.raises(WorkflowTimedOutError):
            await engine.handle("w").result(timeout=SOON)


async def test_an_execution_timeout_ends_the_whole_chain(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine([chain], clock=clock) as engine:
        first = await engine.start(chain, 0, id="w", execution_timeout=timedelta(seconds=150))
        for _ in range(3):
            await asyncio.sleep(0.03)
            clock.advance(timedelta(seconds=60))
        with pytest.raises(WorkflowTimedOutError) as caught:
            await first.result(timeout=SOON)
        assert caught.value.timeout == "execution"
        assert [k for k in await stream_of(engine, "w") if not k.startswith("Timer")] == [
            "WorkflowStarted",
            "WorkflowContinuedAsNew",
            "WorkflowStarted",
            "WorkflowContinuedAsNew",
            "WorkflowStarted",
            "WorkflowTimedOut",
        ]


async def test_a_cancelled_handle_of_an_activity_is_seen_by_a_thread(
    open_engine: EngineOpener,
) -> None:
    seen: list[bool] = []

    @activity
    def in_thread() -> str:
        import time

        deadline = time.monotonic() + 5
        while not activity.is_cancelled() and time.monotonic() < deadline:
            time.sleep(0.005)
        seen.append(activity.is_cancelled())
        return "stopped"

    @workflow
    async def stops_it(ctx: Context) -> str:
        running = ctx.run(in_thread, cancellation="wait")
        await ctx.receive(go)
        running.cancel()
        try:
            return await running
        except (asyncio.CancelledError, ActivityError) as error:
            return type(error).__name__

    async with open_engine([stops_it], [in_thread]) as engine:
        handle = await engine.start(stops_it)
        await until(lambda: engine.activities_executed == 1)
        await handle.signal(go)
        assert await handle.result(timeout=SOON) == "stopped"
        assert seen == [True]

"""Durable timers: due once, at their recorded instant, whoever is there to fire them."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from aion_es import (
    ActivityError,
    Context,
    Engine,
    RetryPolicy,
    Signal,
    WorkflowHandle,
    activity,
    workflow,
)
from aion_es.errors import TimerAlreadyStartedError, WorkflowFailedError
from aion_es.events.workflow import TimerCancelled, TimerFired, TimerStarted, WithTimeoutCompleted
from aion_es.ids import TimerId
from aion_es.testing.clock import ManualClock
from tests.e2e.conftest import EngineOpener
from tests.e2e.scenario import SOON, events_of, is_recorded, kinds, until

HOUR = timedelta(hours=1)
go = Signal("go")


@activity
async def quick() -> str:
    return "quick"


@workflow
async def sleeps(ctx: Context, seconds: float) -> str:
    await asyncio.sleep(seconds)
    return ctx.now().isoformat()


@workflow
async def sleeps_by_context(ctx: Context) -> None:
    await ctx.sleep(HOUR)
    await ctx.sleep(1.5)


@workflow
async def bounded_wait(ctx: Context) -> str:
    try:
        async with asyncio.timeout(3_600):
            await ctx.receive(go)
    except TimeoutError:
        return "too late"
    return "in time"


@workflow
async def bounded_activity(ctx: Context) -> str:
    async with asyncio.timeout(3_600):
        return await ctx.run(quick)


@workflow
async def with_limit(ctx: Context) -> str:
    try:
        await ctx.with_timeout(ctx.receive(go), HOUR)
    except TimeoutError:
        return "too late"
    return "in time"


@workflow
async def named(ctx: Context) -> str:
    first = ctx.start_timer("tea", HOUR)
    with pytest.raises(TimerAlreadyStartedError) as caught:
        await ctx.start_timer("tea", HOUR)
    await first
    again = ctx.start_timer("tea", HOUR)  # fired, so the name is free again
    return f"{caught.value}, {again.done()}"


@workflow
async def cancels_timer(ctx: Context) -> str:
    timer = ctx.start_timer("tea", HOUR)
    await ctx.run(quick)
    timer.cancel()
    return "cancelled"


@workflow
async def changes_its_mind(ctx: Context) -> None:
    ctx.start_timer("never", HOUR).cancel()
    await ctx.run(quick)


@workflow
async def three_alarms(ctx: Context) -> list[str]:
    order: list[str] = []

    async def alarm(name: str, delay: int) -> None:
        await asyncio.sleep(delay)
        order.append(name)

    await asyncio.gather(alarm("late", 30), alarm("early", 10), alarm("middle", 20))
    return order


async def met(engine: Engine, code: Any) -> WorkflowHandle[str]:
    """Start the code and give it its signal within its limit; return the run at its end."""
    handle = await engine.start(code)
    await handle.signal(go)
    assert await handle.result(timeout=SOON) == "in time"
    return handle


async def missed(engine: Engine, code: Any, clock: ManualClock) -> WorkflowHandle[str]:
    """Start the code and let its limit pass; return the run at its end."""
    handle = await engine.start(code)
    clock.advance(HOUR)
    assert await handle.result(timeout=SOON) == "too late"
    return handle


async def test_a_sleep_is_a_timer_with_a_recorded_instant(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine([sleeps], clock=clock) as engine:
        start = clock.now()
        handle = await engine.start(sleeps, 3_600)
        clock.advance(timedelta(minutes=59, seconds=59))
        for _ in range(50):
            await asyncio.sleep(0)
        assert await kinds(handle) == ["WorkflowStarted", "TimerStarted"]
        assert (await handle.describe()).live_timers == {"0": start + HOUR}
        clock.advance(timedelta(seconds=1))
        assert await handle.result(timeout=SOON) == (start + HOUR).isoformat()
        assert await kinds(handle) == [
            "WorkflowStarted",
            "TimerStarted",
            "TimerFired",
            "WorkflowCompleted",
        ]
        assert await events_of(handle, TimerStarted) == [
            TimerStarted(timer_id=TimerId("0"), fire_at=start + HOUR)
        ]


async def test_the_contexts_sleep_takes_a_timedelta_or_seconds(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine([sleeps_by_context], clock=clock) as engine:
        start = clock.now()
        handle = await engine.start(sleeps_by_context)
        clock.advance(HOUR)
        await until(lambda: is_recorded(handle, "TimerStarted", 2))
        clock.advance(HOUR)
        await handle.result(timeout=SOON)
        assert [e.fire_at - start for e in await events_of(handle, TimerStarted)] == [
            HOUR,
            HOUR + timedelta(seconds=1.5),
        ]


async def test_a_sleep_of_nothing_needs_no_timer(open_engine: EngineOpener) -> None:
    async with open_engine([sleeps]) as engine:
        handle = await engine.start(sleeps, 0)
        await handle.result(timeout=SOON)
        assert await kinds(handle) == ["WorkflowStarted", "WorkflowCompleted"]


async def test_a_timeout_that_is_met_cancels_its_timer(open_engine: EngineOpener) -> None:
    async with open_engine([bounded_activity], [quick]) as engine:
        handle = await engine.start(bounded_activity)
        assert await handle.result(timeout=SOON) == "quick"
        assert await kinds(handle) == [
            "WorkflowStarted",
            "TimerStarted",
            "ActivityScheduled",
            "ActivityStarted",
            "ActivityCompleted",
            "TimerCancelled",
            "WorkflowCompleted",
        ]
        assert await events_of(handle, TimerCancelled) == [
            TimerCancelled(timer_id=TimerId("0"), cause="workflow")
        ]


async def test_a_timeout_that_passes_raises_in_the_code(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine([bounded_wait], clock=clock) as engine:
        handle = await missed(engine, bounded_wait, clock)
        assert await kinds(handle) == [
            "WorkflowStarted",
            "TimerStarted",
            "TimerFired",
            "WorkflowCompleted",
        ]


async def test_a_signal_before_the_timeout_cancels_it(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine([bounded_wait], clock=clock) as engine:
        handle = await met(engine, bounded_wait)
        assert await kinds(handle) == [
            "WorkflowStarted",
            "TimerStarted",
            "SignalReceived",
            "TimerCancelled",
            "WorkflowCompleted",
        ]


async def test_with_timeout_records_that_the_operation_came_first(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine([with_limit], clock=clock) as engine:
        handle = await met(engine, with_limit)
        assert await kinds(handle) == [
            "WorkflowStarted",
            "TimerStarted",
            "SignalReceived",
            "TimerCancelled",
            "WithTimeoutCompleted",
            "WorkflowCompleted",
        ]
        assert await events_of(handle, WithTimeoutCompleted) == [
            WithTimeoutCompleted(timer_id=TimerId("with_timeout-0"), outcome="operation_completed")
        ]


async def test_with_timeout_records_that_the_limit_came_first(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine([with_limit], clock=clock) as engine:
        handle = await missed(engine, with_limit, clock)
        assert await kinds(handle) == [
            "WorkflowStarted",
            "TimerStarted",
            "TimerFired",
            "WithTimeoutCompleted",
            "MarkerRecorded",
            "WorkflowCompleted",
        ]
        assert await events_of(handle, WithTimeoutCompleted) == [
            WithTimeoutCompleted(timer_id=TimerId("with_timeout-0"), outcome="timed_out")
        ]


async def test_when_signal_and_limit_are_both_there_the_earlier_in_the_stream_decides(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine([with_limit], clock=clock) as engine:
        handle = await engine.start(with_limit, id="w")
        await handle.pause()
        await handle.signal(go)
        clock.advance(HOUR)
        await until(lambda: is_recorded(handle, "TimerFired"))
        await handle.resume()
        assert await handle.result(timeout=SOON) == "in time"
        assert [k for k in await kinds(handle) if k in {"SignalReceived", "TimerFired"}] == [
            "SignalReceived",
            "TimerFired",
        ]


async def test_the_name_of_a_live_timer_is_taken_and_free_again_once_it_fired(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine([named], clock=clock) as engine:
        handle = await engine.start(named)
        clock.advance(HOUR)
        assert await handle.result(timeout=SOON) == "timer 'tea' is already live, False"
        assert [e.timer_id for e in await events_of(handle, TimerStarted)] == ["tea", "tea"]


async def test_cancelling_a_named_timer_is_recorded(open_engine: EngineOpener) -> None:
    async with open_engine([cancels_timer], [quick]) as engine:
        handle = await engine.start(cancels_timer)
        await handle.result(timeout=SOON)
        assert await events_of(handle, TimerCancelled) == [
            TimerCancelled(timer_id=TimerId("tea"), cause="workflow")
        ]


async def test_a_timer_that_is_cancelled_in_the_step_that_started_it_never_was(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([changes_its_mind], [quick]) as engine:
        handle = await engine.start(changes_its_mind)
        await handle.result(timeout=SOON)
        assert await events_of(handle, TimerStarted) == []
        assert await events_of(handle, TimerCancelled) == []


async def test_due_timers_fire_in_the_order_of_their_instants(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine([three_alarms], clock=clock) as engine:
        handle = await engine.start(three_alarms)
        clock.advance(HOUR)
        assert await handle.result(timeout=SOON) == ["early", "middle", "late"]
        assert [e.timer_id for e in await events_of(handle, TimerFired)] == ["1", "2", "0"]


async def test_overdue_timers_fire_at_once_and_in_order_when_an_engine_opens(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine([three_alarms], clock=clock) as engine:
        await engine.start(three_alarms, id="alarms")
    clock.advance(timedelta(days=400))
    async with open_engine([three_alarms], clock=clock) as engine:
        handle = engine.handle("alarms", three_alarms)
        assert await handle.result(timeout=SOON) == ["early", "middle", "late"]
        assert [e.timer_id for e in await events_of(handle, TimerFired)] == ["1", "2", "0"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(timedelta(minutes=30), timedelta(minutes=30), id="half an hour before"),
        pytest.param(timedelta(days=199), timedelta(days=1), id="a day before, months later"),
    ],
)
async def test_a_timer_is_not_fired_early_by_a_restart(
    open_engine: EngineOpener, clock: ManualClock, before: timedelta, after: timedelta
) -> None:
    async with open_engine([sleeps], clock=clock) as engine:
        await engine.start(sleeps, (before + after).total_seconds(), id="sleeper")
    clock.advance(before)
    async with open_engine([sleeps], clock=clock) as engine:
        handle = engine.handle("sleeper", sleeps)
        await engine.wait_recovered(SOON)
        assert await kinds(handle) == ["WorkflowStarted", "TimerStarted"]
        clock.advance(after)
        await handle.result(timeout=SOON)
        assert (await kinds(handle)).count("TimerFired") == 1


MONTHS = 200 * 86_400


async def test_a_timer_months_away_fires_when_the_clock_gets_there_in_jumps(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine([sleeps], clock=clock) as engine:
        start = clock.now()
        handle = await engine.start(sleeps, MONTHS)
        await engine.wait_recovered(SOON)
        for days in (30, 100, 69):
            clock.advance(timedelta(days=days))
            await asyncio.sleep(0.05)
        assert await kinds(handle) == ["WorkflowStarted", "TimerStarted"]
        clock.advance(timedelta(days=1))
        assert await handle.result(timeout=SOON) == (start + timedelta(days=200)).isoformat()


async def test_a_timer_months_away_fires_within_small_steps_near_its_instant(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine([sleeps], clock=clock) as engine:
        start = clock.now()
        handle = await engine.start(sleeps, MONTHS)
        await engine.wait_recovered(SOON)
        clock.advance(timedelta(seconds=MONTHS - 900))
        for _ in range(5):
            await asyncio.sleep(0.03)
            assert not await is_recorded(handle, "TimerFired")
            clock.advance(timedelta(minutes=3))
        assert await handle.result(timeout=SOON) == (start + timedelta(days=200)).isoformat()


async def test_a_thousand_timers_within_one_second_fire_once_each(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    @workflow
    async def thousand(ctx: Context) -> int:
        await asyncio.gather(*(asyncio.sleep(10 + i / 1_000) for i in range(1_000)))
        return 1_000

    async with open_engine([thousand], clock=clock) as engine:
        handle = await engine.start(thousand)
        clock.advance(timedelta(seconds=11))
        assert await handle.result(timeout=timedelta(seconds=30)) == 1_000
        fired = [e.timer_id for e in await events_of(handle, TimerFired)]
        assert fired == [str(i) for i in range(1_000)]


async def test_a_thousand_workflows_that_sleep_wake_once_each(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine([sleeps], clock=clock) as engine:
        handles = [await engine.start(sleeps, 10 + i / 1_000) for i in range(1_000)]
        clock.advance(timedelta(seconds=11))
        await asyncio.gather(*(h.result(timeout=timedelta(seconds=30)) for h in handles))
        stored = [event.type async for event in engine.store.read_all()]
        assert {kind: stored.count(kind) for kind in set(stored)} == {
            "WorkflowStarted": 1_000,
            "TimerStarted": 1_000,
            "TimerFired": 1_000,
            "WorkflowCompleted": 1_000,
        }


async def test_a_delay_that_no_calendar_holds_fails_the_code_that_asked_for_it(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([sleeps]) as engine:
        handle = await engine.start(sleeps, 1e18)
        with pytest.raises(WorkflowFailedError, match="not on any calendar"):
            await handle.result(timeout=SOON)


async def test_cancelling_the_await_of_an_activity_asks_the_activity_to_end(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    stopped = asyncio.Event()

    @activity(retry=RetryPolicy(max_attempts=1))
    async def endless() -> None:
        try:
            await asyncio.sleep(3_600)
        except asyncio.CancelledError:
            stopped.set()
            raise

    @workflow
    async def impatient(ctx: Context) -> str:
        try:
            async with asyncio.timeout(3_600):
                await ctx.run(endless)
        except TimeoutError:
            await ctx.sleep(1)
            return "gave up"
        except ActivityError:
            return "failed"
        return "done"

    async with open_engine([impatient], [endless], clock=clock) as engine:
        handle = await engine.start(impatient)
        clock.advance(HOUR)
        await stopped.wait()
        await until(lambda: is_recorded(handle, "ActivityCancelled"))
        clock.advance(timedelta(seconds=1))
        assert await handle.result(timeout=SOON) == "gave up"
        assert await kinds(handle) == [
            "WorkflowStarted",
            "TimerStarted",
            "ActivityScheduled",
            "ActivityStarted",
            "TimerFired",
            "ActivityCancelRequested",
            "TimerStarted",
            "ActivityCancelled",
            "TimerFired",
            "WorkflowCompleted",
        ]

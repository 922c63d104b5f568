"""The four timeouts of an activity, by the engine's clock, live and across restarts."""

import asyncio
import threading
from datetime import timedelta
from typing import Any

import pytest

from aion_es import (
    ActivityError,
    Context,
    EngineOptions,
    QueueOptions,
    RetryPolicy,
    WorkflowHandle,
    activity,
    workflow,
)
from aion_es.events.workflow import ActivityFailed
from aion_es.testing.clock import ManualClock
from tests.e2e.conftest import EngineOpener
from tests.e2e.scenario import SOON, events_of, is_recorded, kinds, until

MINUTE = timedelta(minutes=1)
ONCE = RetryPolicy(max_attempts=1)
AT_ONCE = RetryPolicy(initial_interval=timedelta(0))
IMPATIENT = EngineOptions(shutdown_grace=timedelta(0))


class Gated:
    """An activity that runs until the test opens its gate, and a workflow that tells how it ended."""

    def __init__(self, *, name: str = "gated", thread: bool = False, **options: Any) -> None:
        self.attempts: list[int] = []
        self.cancelled = 0
        self.gate = asyncio.Event()
        self.thread_gate = threading.Event()

        @activity(name=name, **options)
        async def in_loop() -> str:
            self.attempts.append(activity.info().attempt)
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            return "done"

        @activity(name=name, **options)
        def in_thread() -> str:
            self.attempts.append(activity.info().attempt)
            self.thread_gate.wait(20)
            self.cancelled += activity.is_cancelled()
            return "done"

        self.activity = in_thread if thread else in_loop

        @workflow(name=f"runs {name}")
        async def runs(ctx: Context) -> str:
            try:
                return await ctx.run(in_thread if thread else in_loop)
            except ActivityError as error:
                return f"{error.type} {error.attempts}"

        self.workflow = runs


async def _settle() -> None:
    for _ in range(100):
        await asyncio.sleep(0)


async def _has_ended_a_minute_later(handle: WorkflowHandle[Any], clock: ManualClock) -> bool:
    """Wait and backoff are a minute each, and nothing is recorded of where a wait begins: so let minutes pass."""
    clock.advance(MINUTE)
    return not (await handle.describe()).status.is_open


FULL = EngineOptions(queues={"narrow": QueueOptions(max_concurrent=1)})


async def test_an_attempt_that_waits_too_long_for_a_full_queue_times_out_at_its_instant(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    busy = Gated(name="busy", task_queue="narrow")
    late = Gated(name="late", task_queue="narrow", schedule_to_start=MINUTE, retry=ONCE)
    async with open_engine(
        [busy.workflow, late.workflow], [busy.activity, late.activity], clock=clock, options=FULL
    ) as engine:
        first = await engine.start(busy.workflow)
        await until(lambda: busy.attempts == [1])
        handle = await engine.start(late.workflow)
        clock.advance(MINUTE - timedelta(microseconds=1))
        await _settle()
        assert await kinds(handle) == ["WorkflowStarted", "ActivityScheduled"]
        clock.advance(timedelta(microseconds=1))
        assert await handle.result(timeout=SOON) == "ScheduleToStartTimeout 1"
        busy.gate.set()
        await first.result(timeout=SOON)
        await _settle()
        assert late.attempts == []


async def test_a_timed_out_wait_is_retried_by_the_policy_and_waits_anew(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    busy = Gated(name="busy", task_queue="narrow")
    retry = RetryPolicy(initial_interval=MINUTE, backoff=1.0, max_attempts=2)
    late = Gated(name="late", task_queue="narrow", schedule_to_start=MINUTE, retry=retry)
    async with open_engine(
        [busy.workflow, late.workflow], [busy.activity, late.activity], clock=clock, options=FULL
    ) as engine:
        await engine.start(busy.workflow)
        await until(lambda: busy.attempts == [1])
        handle = await engine.start(late.workflow)
        await until(lambda: _has_ended_a_minute_later(handle, clock))
        assert await handle.result(timeout=SOON) == "ScheduleToStartTimeout 2"
        busy.gate.set()


async def test_an_attempt_that_begins_in_time_is_not_timed_out(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    gated = Gated(schedule_to_start=MINUTE)
    async with open_engine([gated.workflow], [gated.activity], clock=clock) as engine:
        handle = await engine.start(gated.workflow)
        await until(lambda: gated.attempts == [1])
        clock.advance(MINUTE * 2)
        await _settle()
        assert len(engine._core.timers) == 0
        gated.gate.set()
        assert await handle.result(timeout=SOON) == "done"


async def test_an_attempt_of_a_queue_that_nobody_serves_times_out(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    gated = Gated(task_queue="gpu", schedule_to_start=MINUTE, retry=ONCE)
    options = EngineOptions(serves=frozenset({"default"}))
    async with open_engine(
        [gated.workflow], [gated.activity], clock=clock, options=options
    ) as engine:
        handle = await engine.start(gated.workflow)
        await until(lambda: is_recorded(handle, "ActivityScheduled"))
        clock.advance(MINUTE)
        assert await handle.result(timeout=SOON) == "ScheduleToStartTimeout 1"
        assert gated.attempts == []


async def test_a_wait_that_became_too_long_while_no_engine_ran_times_out_at_recovery(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    gated = Gated(task_queue="gpu", schedule_to_start=MINUTE, retry=ONCE)
    options = EngineOptions(serves=frozenset({"default"}))
    async with open_engine(
        [gated.workflow], [gated.activity], clock=clock, options=options
    ) as engine:
        await engine.start(gated.workflow, id="w")
    clock.advance(MINUTE * 2)
    async with open_engine(
        [gated.workflow],
        [gated.activity],
        clock=clock,
        options=EngineOptions(serves=frozenset({"default", "gpu"}), max_activities=1),
    ) as engine:
        # Who serves the queue now may begin it before it looks at the clock: either is right.
        result = engine.handle("w", gated.workflow).result(timeout=SOON)
        gated.gate.set()
        assert await result in {"ScheduleToStartTimeout 1", "done"}


async def test_schedule_to_close_ends_a_running_attempt_for_good(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    gated = Gated(schedule_to_close=MINUTE)
    async with open_engine([gated.workflow], [gated.activity], clock=clock) as engine:
        handle = await engine.start(gated.workflow)
        await until(lambda: gated.attempts == [1])
        clock.advance(MINUTE)
        assert await handle.result(timeout=SOON) == "ScheduleToCloseTimeout 1"
        await until(lambda: gated.cancelled == 1)
        await _settle()
        assert await kinds(handle) == [
            "WorkflowStarted",
            "ActivityScheduled",
            "ActivityFailed",
            "WorkflowCompleted",
        ]


async def test_schedule_to_close_counts_over_all_attempts(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    gated = Gated(start_to_close=MINUTE, schedule_to_close=MINUTE * 3, retry=AT_ONCE)
    async with open_engine([gated.workflow], [gated.activity], clock=clock) as engine:
        handle = await engine.start(gated.workflow)
        for attempt in (1, 2, 3):
            await until(lambda expected=attempt: len(gated.attempts) == expected)
            clock.advance(MINUTE)
        assert await handle.result(timeout=SOON) in {
            "ScheduleToCloseTimeout 3",
            "StartToCloseTimeout 3",
        }
        assert gated.attempts == [1, 2, 3]


async def test_a_backoff_is_ended_by_schedule_to_close_also_after_a_restart(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    retry = RetryPolicy(initial_interval=MINUTE, backoff=1.0)
    gated = Gated(start_to_close=MINUTE, schedule_to_close=MINUTE * 3, retry=retry)
    async with open_engine([gated.workflow], [gated.activity], clock=clock) as engine:
        handle = await engine.start(gated.workflow, id="w")
        await until(lambda: gated.attempts == [1])
        clock.advance(MINUTE)
        await until(lambda: is_recorded(handle, "ActivityFailed"))
    clock.advance(MINUTE)
    async with open_engine(
        [gated.workflow], [gated.activity], clock=clock, options=IMPATIENT
    ) as engine:
        await until(lambda: gated.attempts == [1, 2])
        handle = engine.handle("w", gated.workflow)
        await until(lambda: is_recorded(handle, "ActivityStarted", 2))
    clock.advance(MINUTE * 2)
    async with open_engine([gated.workflow], [gated.activity], clock=clock) as engine:
        handle = engine.handle("w", gated.workflow)
        result = await handle.result(timeout=SOON)
        assert result in {"ScheduleToCloseTimeout 2", "WorkerLost 2"}
        assert gated.attempts == [1, 2]


async def test_an_activity_that_ends_in_time_leaves_no_timer_behind(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    gated = Gated(
        schedule_to_start=MINUTE, start_to_close=MINUTE, schedule_to_close=MINUTE, heartbeat=MINUTE
    )
    async with open_engine([gated.workflow], [gated.activity], clock=clock) as engine:
        handle = await engine.start(gated.workflow)
        await until(lambda: gated.attempts == [1])
        assert len(engine._core.timers) == 3
        gated.gate.set()
        assert await handle.result(timeout=SOON) == "done"
        await until(lambda: len(engine._core.timers) == 0)


async def test_an_activity_without_bounds_arms_no_timer(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    gated = Gated()
    async with open_engine([gated.workflow], [gated.activity], clock=clock) as engine:
        handle = await engine.start(gated.workflow)
        await until(lambda: gated.attempts == [1])
        assert len(engine._core.timers) == 0
        gated.gate.set()
        await handle.result(timeout=SOON)


async def test_start_to_close_goes_by_the_engines_clock(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    gated = Gated(start_to_close=timedelta(days=1), retry=ONCE)
    async with open_engine([gated.workflow], [gated.activity], clock=clock) as engine:
        handle = await engine.start(gated.workflow)
        await until(lambda: gated.attempts == [1])
        clock.advance(timedelta(days=1))
        assert await handle.result(timeout=SOON) == "StartToCloseTimeout 1"
        assert gated.cancelled == 1


async def test_a_thread_that_is_too_late_is_recorded_at_once_keeps_its_place_and_changes_nothing(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    late = Gated(name="late", thread=True, task_queue="narrow", start_to_close=MINUTE, retry=ONCE)
    after = Gated(name="after", task_queue="narrow")
    after.gate.set()
    async with open_engine(
        [late.workflow, after.workflow], [late.activity, after.activity], clock=clock, options=FULL
    ) as engine:
        handle = await engine.start(late.workflow)
        await until(lambda: late.attempts == [1])
        clock.advance(MINUTE)
        assert await handle.result(timeout=SOON) == "StartToCloseTimeout 1"
        recorded = await kinds(handle)
        second = await engine.start(after.workflow)
        await _settle()
        assert after.attempts == []
        late.thread_gate.set()
        assert await second.result(timeout=SOON) == "done"
        assert late.cancelled == 1
        assert await kinds(handle) == recorded


async def test_an_attempt_that_ignores_its_cancellation_does_not_hold_up_the_next(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    attempts: list[int] = []
    gate = asyncio.Event()

    @activity(start_to_close=MINUTE, retry=AT_ONCE)
    async def stubborn() -> int:
        attempts.append(activity.info().attempt)
        if attempts == [1]:
            try:
                await gate.wait()
            except asyncio.CancelledError:
                await gate.wait()
        return len(attempts)

    @workflow
    async def waits(ctx: Context) -> int:
        return await ctx.run(stubborn)

    async with open_engine([waits], [stubborn], clock=clock) as engine:
        handle = await engine.start(waits)
        await until(lambda: attempts == [1])
        clock.advance(MINUTE)
        assert await handle.result(timeout=SOON) == 2
        gate.set()


@pytest.mark.parametrize("listed", ["HeartbeatTimeout", "StartToCloseTimeout"])
async def test_a_timeout_can_be_listed_as_final(
    open_engine: EngineOpener, clock: ManualClock, listed: str
) -> None:
    bounds: Any = (
        {"heartbeat": MINUTE} if listed == "HeartbeatTimeout" else {"start_to_close": MINUTE}
    )
    gated = Gated(retry=RetryPolicy(non_retryable=(listed,)), **bounds)
    async with open_engine([gated.workflow], [gated.activity], clock=clock) as engine:
        handle = await engine.start(gated.workflow)
        await until(lambda: gated.attempts == [1])
        clock.advance(MINUTE)
        assert await handle.result(timeout=SOON) == f"{listed} 1"
        (failed,) = await events_of(handle, ActivityFailed)
        assert failed.error.kind == "terminal"

"""Retries are the engine's, recorded and durable: neither a restart nor a failure loses a count or an instant."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from aion_es import (
    ActivityError,
    Context,
    EngineOptions,
    NonRetryableError,
    RetryableError,
    RetryPolicy,
    activity,
    workflow,
)
from aion_es.errors import WorkflowFailedError
from aion_es.events.workflow import ActivityFailed, ActivityStarted
from aion_es.testing.clock import ManualClock
from tests.e2e.conftest import EngineOpener
from tests.e2e.scenario import SOON, events_of, is_recorded, kinds, until

AT_ONCE = timedelta(0)


class Flaky:
    """An activity that fails a number of times, and counts."""

    def __init__(self, failures: int, error: Exception, **options: Any) -> None:
        self.runs = 0
        self.attempts: list[int] = []

        @activity(name="flaky", **options)
        async def flaky() -> str:
            self.runs += 1
            self.attempts.append(activity.info().attempt)
            if self.runs <= failures:
                raise error
            return f"after {self.runs}"

        @workflow(name="tries")
        async def tries(ctx: Context) -> str:
            try:
                return await ctx.run(flaky)
            except ActivityError as failed:
                return f"{failed.type}|{failed.message}|{failed.details}|{failed.attempts}"

        self.activity, self.workflow = flaky, tries


async def test_each_failure_records_when_the_next_attempt_comes(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    flaky = Flaky(3, RuntimeError("not yet"), retry=RetryPolicy(max_interval=timedelta(seconds=3)))
    async with open_engine([flaky.workflow], [flaky.activity], clock=clock) as engine:
        start = clock.now()
        handle = await engine.start(flaky.workflow)
        for count in (1, 2, 3):
            await _until_recorded(handle, "ActivityFailed", count)
            clock.advance(timedelta(seconds=3))
        assert await handle.result(timeout=SOON) == "after 4"
        failed = await events_of(handle, ActivityFailed)
        assert [(e.attempt, e.retry_at) for e in failed] == [
            (1, start + timedelta(seconds=1)),
            (2, start + timedelta(seconds=3 + 2)),
            (3, start + timedelta(seconds=6 + 3)),
        ]
        assert [(e.error.kind, e.error.type, e.error.message) for e in failed] == [
            ("retryable", "RuntimeError", "not yet")
        ] * 3
        assert flaky.attempts == [1, 2, 3, 4]


async def _until_recorded(handle: Any, kind: str, times: int = 1) -> None:
    await until(lambda: is_recorded(handle, kind, times))


async def test_no_attempt_comes_before_its_recorded_instant(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    flaky = Flaky(1, RuntimeError("not yet"))
    async with open_engine([flaky.workflow], [flaky.activity], clock=clock) as engine:
        handle = await engine.start(flaky.workflow)
        await _until_recorded(handle, "ActivityFailed")
        clock.advance(timedelta(milliseconds=999))
        for _ in range(50):
            await asyncio.sleep(0)
        assert await kinds(handle) == [
            "WorkflowStarted",
            "ActivityScheduled",
            "ActivityStarted",
            "ActivityFailed",
        ]
        clock.advance(timedelta(milliseconds=1))
        assert await handle.result(timeout=SOON) == "after 2"


async def test_max_attempts_ends_in_an_activity_error_with_all_that_is_known(
    open_engine: EngineOpener,
) -> None:
    flaky = Flaky(
        9,
        RetryableError("busy", details={"queue": 7}),
        retry=RetryPolicy(max_attempts=3, initial_interval=AT_ONCE),
    )
    async with open_engine([flaky.workflow], [flaky.activity]) as engine:
        handle = await engine.start(flaky.workflow)
        assert await handle.result(timeout=SOON) == "RetryableError|busy|{'queue': 7}|3"
        failed = await events_of(handle, ActivityFailed)
        assert [(e.attempt, e.retry_at is None) for e in failed] == [
            (1, False),
            (2, False),
            (3, True),
        ]
        assert flaky.runs == 3


async def test_a_non_retryable_error_ends_the_attempts_at_once_and_keeps_its_details(
    open_engine: EngineOpener,
) -> None:
    flaky = Flaky(9, NonRetryableError("card stolen", details=["call", "police"]))
    async with open_engine([flaky.workflow], [flaky.activity]) as engine:
        handle = await engine.start(flaky.workflow)
        assert await handle.result(timeout=SOON) == (
            "NonRetryableError|card stolen|['call', 'police']|1"
        )
        failed = await events_of(handle, ActivityFailed)
        assert [(e.error.kind, e.retry_at) for e in failed] == [("terminal", None)]


class CardError(Exception):
    pass


class ExpiredCardError(CardError):
    pass


@pytest.mark.parametrize("listed", [CardError, "CardError", "ExpiredCardError"])
async def test_a_listed_error_is_not_retried_and_neither_are_its_subclasses(
    open_engine: EngineOpener, listed: type[Exception] | str
) -> None:
    flaky = Flaky(9, ExpiredCardError("2019"), retry=RetryPolicy(non_retryable=(listed,)))
    async with open_engine([flaky.workflow], [flaky.activity]) as engine:
        handle = await engine.start(flaky.workflow)
        assert await handle.result(timeout=SOON) == "ExpiredCardError|2019|None|1"


async def test_an_uncaught_activity_error_fails_the_run(open_engine: EngineOpener) -> None:
    @activity
    async def refuses() -> None:
        raise NonRetryableError("never", details=1)

    @workflow
    async def fails(ctx: Context) -> None:
        await ctx.run(refuses)

    async with open_engine([fails], [refuses]) as engine:
        handle = await engine.start(fails)
        with pytest.raises(WorkflowFailedError) as caught:
            await handle.result(timeout=SOON)
        assert (caught.value.type, caught.value.details) == ("ActivityError", 1)
        assert (await kinds(handle))[-2:] == ["ActivityFailed", "WorkflowFailed"]


async def test_an_attempt_that_takes_too_long_fails_and_is_retried(
    open_engine: EngineOpener,
) -> None:
    attempts: list[int] = []

    @activity(
        start_to_close=timedelta(milliseconds=30), retry=RetryPolicy(initial_interval=AT_ONCE)
    )
    async def slow() -> int:
        attempts.append(activity.info().attempt)
        if len(attempts) == 1:
            await asyncio.sleep(3_600)
        return len(attempts)

    @workflow
    async def waits(ctx: Context) -> int:
        return await ctx.run(slow)

    async with open_engine([waits], [slow]) as engine:
        handle = await engine.start(waits)
        assert await handle.result(timeout=SOON) == 2
        (failed,) = await events_of(handle, ActivityFailed)
        assert (failed.attempt, failed.error.type) == (1, "StartToCloseTimeout")


async def test_the_engines_own_start_to_close_bounds_activities_that_set_none(
    open_engine: EngineOpener,
) -> None:
    @activity(retry=RetryPolicy(max_attempts=1))
    async def slow() -> None:
        await asyncio.sleep(3_600)

    @workflow
    async def waits(ctx: Context) -> str:
        try:
            await ctx.run(slow)
        except ActivityError as error:
            return error.type
        return "in time"

    options = EngineOptions(start_to_close=timedelta(milliseconds=30))
    async with open_engine([waits], [slow], options=options) as engine:
        handle = await engine.start(waits)
        assert await handle.result(timeout=SOON) == "StartToCloseTimeout"


async def test_a_timeout_error_of_the_activitys_own_is_told_as_such(
    open_engine: EngineOpener,
) -> None:
    flaky = Flaky(9, TimeoutError("the bank's"), retry=RetryPolicy(max_attempts=1))
    async with open_engine([flaky.workflow], [flaky.activity]) as engine:
        handle = await engine.start(flaky.workflow)
        assert await handle.result(timeout=SOON) == "TimeoutError|the bank's|None|1"


async def test_a_backoff_survives_a_restart_and_ends_at_its_recorded_instant(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    policy = RetryPolicy(initial_interval=timedelta(hours=2), max_interval=timedelta(hours=2))
    flaky = Flaky(1, RuntimeError("later"), retry=policy)
    async with open_engine([flaky.workflow], [flaky.activity], clock=clock) as engine:
        handle = await engine.start(flaky.workflow, id="patient")
        await _until_recorded(handle, "ActivityFailed")
    clock.advance(timedelta(hours=1))
    async with open_engine([flaky.workflow], [flaky.activity], clock=clock) as engine:
        handle = engine.handle("patient", flaky.workflow)
        await engine.wait_recovered(SOON)
        clock.advance(timedelta(minutes=59))
        for _ in range(100):
            await asyncio.sleep(0)
        assert flaky.runs == 1
        clock.advance(timedelta(minutes=1))
        assert await handle.result(timeout=SOON) == "after 2"
        started = await events_of(handle, ActivityStarted)
        (failed,) = await events_of(handle, ActivityFailed)
        assert [e.attempt for e in started] == [1, 2]
        at = {type(e.event).__name__: e.recorded_at for e in await handle.history()}
        assert at["ActivityStarted"] == failed.retry_at


async def test_an_overdue_backoff_ends_at_once_when_an_engine_opens(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    flaky = Flaky(1, RuntimeError("later"))
    async with open_engine([flaky.workflow], [flaky.activity], clock=clock) as engine:
        handle = await engine.start(flaky.workflow, id="patient")
        await _until_recorded(handle, "ActivityFailed")
    clock.advance(timedelta(days=30))
    async with open_engine([flaky.workflow], [flaky.activity], clock=clock) as engine:
        assert await engine.handle("patient").result(timeout=SOON) == "after 2"
        assert flaky.attempts == [1, 2]


async def test_an_unfinished_attempt_is_run_again_after_a_restart_and_counts_as_recorded(
    open_engine: EngineOpener,
) -> None:
    began = asyncio.Event()
    attempts: list[int] = []

    @activity(retry=RetryPolicy(max_attempts=2, initial_interval=AT_ONCE))
    async def interrupted() -> int:
        attempts.append(activity.info().attempt)
        began.set()
        if len(attempts) == 1:
            await asyncio.sleep(3_600)
        return len(attempts)

    @workflow
    async def waits(ctx: Context) -> int:
        return await ctx.run(interrupted)

    impatient = EngineOptions(shutdown_grace=timedelta(0))
    async with open_engine([waits], [interrupted], options=impatient) as engine:
        await engine.start(waits, id="w")
        await began.wait()
    async with open_engine([waits], [interrupted]) as engine:
        handle = engine.handle("w", waits)
        assert await handle.result(timeout=SOON) == 2
        assert attempts == [1, 2]
        assert await kinds(handle) == [
            "WorkflowStarted",
            "ActivityScheduled",
            "ActivityStarted",
            "ActivityFailed",
            "ActivityStarted",
            "ActivityCompleted",
            "WorkflowCompleted",
        ]
        (lost,) = await events_of(handle, ActivityFailed)
        assert (lost.attempt, lost.error.type) == (1, "WorkerLost")


async def test_an_attempt_that_died_with_its_process_counts_against_max_attempts(
    open_engine: EngineOpener,
) -> None:
    began = asyncio.Event()

    @activity(retry=RetryPolicy(max_attempts=1))
    async def interrupted() -> None:
        began.set()
        await asyncio.sleep(3_600)

    @workflow
    async def waits(ctx: Context) -> str:
        try:
            await ctx.run(interrupted)
        except ActivityError as error:
            return f"{error.type} {error.attempts}"
        return "done"

    impatient = EngineOptions(shutdown_grace=timedelta(0))
    async with open_engine([waits], [interrupted], options=impatient) as engine:
        await engine.start(waits, id="w")
        await began.wait()
    async with open_engine([waits], [interrupted]) as engine:
        assert await engine.handle("w").result(timeout=SOON) == "WorkerLost 1"


async def test_a_call_may_override_the_options_of_the_decorator(open_engine: EngineOpener) -> None:
    flaky = Flaky(9, RuntimeError("no"), retry=RetryPolicy(max_attempts=5))

    @workflow
    async def once(ctx: Context) -> int:
        try:
            await ctx.run(flaky.activity, retry=RetryPolicy(max_attempts=1))
        except ActivityError as error:
            return error.attempts
        return 0

    async with open_engine([once], [flaky.activity]) as engine:
        assert await (await engine.start(once)).result(timeout=SOON) == 1


async def test_running_activities_are_given_the_shutdown_grace_and_their_outcome_is_recorded(
    open_engine: EngineOpener,
) -> None:
    began = asyncio.Event()

    @activity
    async def short() -> str:
        began.set()
        await asyncio.sleep(0.05)
        return "done"

    @workflow
    async def waits(ctx: Context) -> str:
        return await ctx.run(short)

    async with open_engine([waits], [short]) as engine:
        await engine.start(waits, id="w")
        await began.wait()
    async with open_engine([waits], [short]) as engine:
        assert engine.activities_executed == 0
        assert await engine.handle("w").result(timeout=SOON) == "done"
        assert engine.activities_executed == 0

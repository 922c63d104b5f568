"""Histories of a time when a WorkflowReopened did not say what is void: they mean what they did."""

import asyncio
import uuid
from datetime import timedelta

import pytest

from aion_es import ActivityError, Context, Signal, activity, workflow
from aion_es.aggregates import Workflow
from aion_es.events import workflow as ev
from aion_es.events.metadata import Envelope, EventMetadata
from aion_es.events.values import ActivityFailure, Failure
from aion_es.ids import ActivityId, RunId, StreamName, TimerId, WorkflowId
from aion_es.testing.clock import ManualClock
from tests.e2e.scenario import replayed

R = RunId("r")
GO = Signal("go")
FIRST, SECOND, THIRD = ActivityId(0), ActivityId(1), ActivityId(2)
DEAD = ActivityFailure(kind="terminal", type="ConnectionError")


@activity
async def work() -> None: ...


@activity
async def tidy_up() -> None: ...


@workflow
async def tidy(ctx: Context) -> None:
    try:
        await ctx.run(work)
    except asyncio.CancelledError:
        await ctx.run(tidy_up)
        raise


@workflow
async def swallows(ctx: Context) -> None:
    try:
        await ctx.receive(GO)
    except asyncio.CancelledError:
        await ctx.run(tidy_up)
    await ctx.run(work)


@workflow
async def draws(ctx: Context) -> None:
    try:
        await ctx.run(work)
    except ActivityError:
        _ = ctx.start_timer(str(ctx.uuid4()), timedelta(hours=1))
        raise
    _ = ctx.start_timer(str(ctx.uuid4()), timedelta(hours=1))
    await ctx.receive(GO)


def recorded(code: str, *events: ev.WorkflowEvent) -> list[Envelope[ev.WorkflowEvent]]:
    start = ev.WorkflowStarted(workflow_type=code, run_id=R, first_run_id=R, package_version="1")
    at = ManualClock().now()
    return [
        Envelope(
            event, StreamName("w"), revision, None, uuid.UUID(int=revision), EventMetadata(at), 0
        )
        for revision, event in enumerate((start, *events))
    ]


def scheduled(ordinal: ActivityId, kind: str) -> ev.ActivityScheduled:
    return ev.ActivityScheduled(activity_id=ordinal, activity_type=kind)


def completed(ordinal: ActivityId) -> ev.ActivityCompleted:
    return ev.ActivityCompleted(activity_id=ordinal, attempt=1)


def test_an_activity_that_was_cancelled_with_the_run_stays_cancelled() -> None:
    history = recorded(
        "tidy",
        scheduled(FIRST, "work"),
        ev.WorkflowCancelRequested(),
        ev.ActivityCancelRequested(activity_id=FIRST),
        scheduled(SECOND, "tidy_up"),
        ev.ActivityCancelled(activity_id=FIRST, attempt=1),
        completed(SECOND),
        ev.WorkflowCancelled(),
        ev.WorkflowReopened(run_id=R),
        scheduled(THIRD, "tidy_up"),
        completed(THIRD),
        ev.WorkflowFailed(error=Failure(type="CancelledError")),
    )
    replayed(history, tidy)


def test_the_request_to_end_is_the_cut_also_of_a_run_that_failed_later() -> None:
    history = recorded(
        "swallows",
        ev.WorkflowCancelRequested(),
        scheduled(FIRST, "tidy_up"),
        completed(FIRST),
        scheduled(SECOND, "work"),
        ev.ActivityFailed(activity_id=SECOND, attempt=1, error=DEAD),
        ev.WorkflowFailed(error=Failure(type="ActivityError"), failed_activities=(SECOND,)),
        ev.WorkflowReopened(run_id=R, reopened=(SECOND,)),
        ev.ActivityCompleted(activity_id=SECOND, attempt=2),
        ev.SignalReceived(signal_id="s", name="go"),  # type: ignore[arg-type]  # a literal id
        scheduled(THIRD, "work"),
        completed(THIRD),
        ev.WorkflowCompleted(),
    )
    replayed(history, swallows)


def test_what_is_void_shares_its_draws_with_what_comes() -> None:
    drawn = TimerId("to be found out")
    events: list[ev.WorkflowEvent] = [
        scheduled(FIRST, "work"),
        ev.ActivityFailed(activity_id=FIRST, attempt=1, error=DEAD),
        ev.TimerStarted(timer_id=drawn, fire_at=ManualClock().now()),
        ev.WorkflowFailed(error=Failure(type="ActivityError"), failed_activities=(FIRST,)),
        ev.WorkflowReopened(run_id=R, reopened=(FIRST,)),
        ev.ActivityCompleted(activity_id=FIRST, attempt=2),
    ]
    with pytest.raises(Exception, match="commanded: timer") as caught:
        replayed(recorded("draws", *events[:4]), draws)
    name = TimerId(caught.value.commanded.split("'")[1])  # type: ignore[attr-defined]  # NonDeterminismError
    armed = ev.TimerStarted(timer_id=name, fire_at=ManualClock().now())
    replayed(recorded("draws", *events[:2], armed, *events[3:], armed), draws)


def test_all_timers_that_were_torn_down_are_live_again() -> None:
    timer = ev.TimerStarted(timer_id=TimerId("t"), fire_at=ManualClock().now())
    aggregate = Workflow(WorkflowId("w"))
    for envelope in recorded(
        "w",
        ev.WorkflowCancelRequested(),
        timer,
        ev.TimerCancelled(timer_id=TimerId("t"), cause="teardown"),
        ev.WorkflowCancelled(),
        ev.WorkflowReopened(run_id=R),
    ):
        aggregate.replay(envelope)
    assert aggregate.state.live_timers == {"t": timer.fire_at}
    assert aggregate.state.cancel_requested is None

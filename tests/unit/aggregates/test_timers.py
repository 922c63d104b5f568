"""start_timer, fire_timer, cancel_timer, complete_with_timeout."""

from collections.abc import Callable
from datetime import datetime, timezone

import pytest

from aion_es.aggregates import Workflow
from aion_es.errors import (
    InvalidArgumentError,
    InvalidIdError,
    RunClosedError,
    TimerAlreadyStartedError,
    TimerNotStartedError,
    WorkflowNotFoundError,
)
from aion_es.events import workflow as ev
from aion_es.ids import TimerId
from aion_es.testing.aggregates import given
from tests.unit.aggregates.histories import (
    CLOSED,
    HOUR,
    NEXT,
    NOON,
    TICK,
    armed,
    fired,
    started,
)

Command = Callable[[Workflow], object]
STOPPED = ev.TimerCancelled(timer_id=TICK)
DECIDED = ev.WithTimeoutCompleted(timer_id=TICK, outcome="timed_out")

COMMANDS: dict[str, Command] = {
    "start": lambda wf: wf.start_timer(TICK, NOON + HOUR, at=NOON),
    "fire": lambda wf: wf.fire_timer(TICK, at=NOON),
    "cancel": lambda wf: wf.cancel_timer(TICK, at=NOON),
    "complete": lambda wf: wf.complete_with_timeout(TICK, "timed_out", at=NOON),
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_closed_run_records_nothing_about_timers(command: Command) -> None:
    given(started(), armed(), CLOSED).when(command).then_refused(RunClosedError)


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_an_unknown_workflow_has_no_timers(command: Command) -> None:
    given().when(command).then_refused(WorkflowNotFoundError)


def test_a_timer_is_armed_with_the_instant_from_which_it_is_due() -> None:
    given(started()).when(COMMANDS["start"]).then(armed())


def test_a_live_timer_is_not_armed_again() -> None:
    given(started(), armed()).when(COMMANDS["start"]).then_refused(
        TimerAlreadyStartedError, timer_id="tick"
    )


@pytest.mark.parametrize("end", [fired(), STOPPED])
def test_a_name_is_free_again_once_its_timer_ended(end: ev.WorkflowEvent) -> None:
    given(started(), armed(), end).when(COMMANDS["start"]).then(armed())


@pytest.mark.parametrize(
    "fire_at", [datetime(2026, 11, 24, 13, 0), datetime(2026, 11, 24, 13, 0, tzinfo=timezone(HOUR))]
)
def test_a_timer_is_due_at_an_instant_in_utc(fire_at: datetime) -> None:
    given(started()).when(lambda wf: wf.start_timer(TICK, fire_at, at=NOON)).then_refused(
        InvalidArgumentError, argument="fire_at"
    )


def test_a_timer_needs_a_name_that_can_be_recorded() -> None:
    given(started()).when(lambda wf: wf.start_timer(TimerId(""), NOON, at=NOON)).then_refused(
        InvalidIdError, kind="timer_id"
    )


def test_a_live_timer_fires_once() -> None:
    given(started(), armed()).when(COMMANDS["fire"]).then(fired())
    given(started(), armed(), fired()).when(COMMANDS["fire"]).then_nothing()


def test_a_timer_that_was_cancelled_or_never_armed_does_not_fire() -> None:
    given(started(), armed(), STOPPED).when(COMMANDS["fire"]).then_nothing()
    given(started()).when(COMMANDS["fire"]).then_nothing()


def test_a_live_timer_is_cancelled_once() -> None:
    given(started(), armed()).when(COMMANDS["cancel"]).then(
        ev.TimerCancelled(timer_id=TICK, cause="workflow")
    )
    given(started(), armed(), STOPPED).when(COMMANDS["cancel"]).then_nothing()


def test_a_timer_that_fired_is_not_cancelled() -> None:
    given(started(), armed(), fired()).when(COMMANDS["cancel"]).then_nothing()


def test_what_decided_a_with_timeout_is_recorded_with_its_result() -> None:
    given(started(), armed()).when(
        lambda wf: wf.complete_with_timeout(TICK, "operation_completed", NEXT, at=NOON)
    ).then(ev.WithTimeoutCompleted(timer_id=TICK, outcome="operation_completed", result=NEXT))


def test_a_with_timeout_needs_its_timer() -> None:
    given(started()).when(COMMANDS["complete"]).then_refused(TimerNotStartedError, timer_id="tick")


def test_a_with_timeout_is_decided_once() -> None:
    given(started(), armed(), fired(), DECIDED).when(
        lambda wf: wf.complete_with_timeout(TICK, "operation_completed", at=NOON)
    ).then_nothing()


def test_a_name_that_is_armed_anew_is_decided_anew() -> None:
    given(started(), armed(), fired(), DECIDED, armed(), fired()).when(COMMANDS["complete"]).then(
        DECIDED
    )

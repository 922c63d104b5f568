"""start, complete, fail, time_out, request_cancel, cancel, terminate, pause, resume, reopen."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from aion_es.aggregates import Workflow, WorkflowStatus
from aion_es.errors import (
    AttributeTypeError,
    InvalidArgumentError,
    InvalidIdError,
    InvalidStateError,
    RunClosedError,
    RunNotFoundError,
    UnregisteredAttributeError,
    WorkflowAlreadyStartedError,
    WorkflowNotFoundError,
    WorkflowTypeNotFoundError,
)
from aion_es.events import workflow as ev
from aion_es.events.values import TakenBack
from aion_es.ids import ScheduleId, TimerId, WorkflowId
from aion_es.testing.aggregates import given
from tests.unit.aggregates.histories import (
    CANCELLED,
    CLOSED,
    FAILED,
    HOUR,
    NEXT,
    NEXT_RUN,
    NOON,
    OOPS,
    RUN,
    TERMINALS,
    TERMINATED,
    TIMED_OUT,
    armed,
    completed,
    failed,
    fired,
    scheduled,
    schema,
    start,
    started,
    text,
    whole,
)

Command = Callable[[Workflow], object]

# ------------------------------------------------------------------------------------------ start


def test_start_records_one_event_with_everything_it_was_given() -> None:
    command = start(
        input=NEXT,
        task_queue="slow",
        schedule_id=ScheduleId("nightly"),
        run_timeout=HOUR,
        execution_timeout=2 * HOUR,
        attributes={"customer": text("ana")},
        request_id="req",
        memo=NEXT,
        code_hash="abc",
    )
    given(schema=schema()).when(lambda wf: wf.start(command, at=NOON)).then(
        started(
            input=NEXT,
            task_queue="slow",
            schedule_id="nightly",
            run_deadline=NOON + HOUR,
            execution_deadline=NOON + 2 * HOUR,
            attributes={"customer": text("ana")},
            request_id="req",
            memo=NEXT,
            code_hash="abc",
        )
    )


def test_a_start_on_an_open_run_is_refused_with_that_runs_id() -> None:
    given(started()).when(lambda wf: wf.start(start(run_id=NEXT_RUN), at=NOON)).then_refused(
        WorkflowAlreadyStartedError, workflow_id="order-42", run_id=RUN, status="Running"
    )


def test_a_start_may_use_the_run_that_is_open() -> None:
    given(started()).when(
        lambda wf: wf.start(start(run_id=NEXT_RUN, on_conflict="use_existing"), at=NOON)
    ).then_nothing()


def test_a_start_may_replace_the_run_that_is_open_in_one_append() -> None:
    command = start(run_id=NEXT_RUN, on_conflict="terminate_existing")
    given(started(), scheduled(0)).when(lambda wf: wf.start(command, at=NOON)).then(
        ev.WorkflowTerminated(reason="replaced by a new run (terminate_existing)"),
        started(run_id=NEXT_RUN, first_run_id=NEXT_RUN),
    )


@pytest.mark.parametrize("terminal", TERMINALS)
def test_an_id_may_be_taken_again_after_its_run_closed(terminal: ev.WorkflowEvent) -> None:
    given(started(), terminal).when(lambda wf: wf.start(start(run_id=NEXT_RUN), at=NOON)).then(
        started(run_id=NEXT_RUN, first_run_id=NEXT_RUN)
    )


@pytest.mark.parametrize("terminal", [FAILED, CANCELLED, TERMINATED, TIMED_OUT])
def test_allow_if_failed_takes_an_id_again_whose_run_did_not_complete(
    terminal: ev.WorkflowEvent,
) -> None:
    command = start(run_id=NEXT_RUN, reuse="allow_if_failed")
    given(started(), terminal).when(lambda wf: wf.start(command, at=NOON)).then(
        started(run_id=NEXT_RUN, first_run_id=NEXT_RUN)
    )


def test_allow_if_failed_refuses_an_id_whose_run_completed() -> None:
    command = start(run_id=NEXT_RUN, reuse="allow_if_failed")
    given(started(), CLOSED).when(lambda wf: wf.start(command, at=NOON)).then_refused(
        WorkflowAlreadyStartedError, run_id=RUN, status="Completed"
    )


def test_reject_refuses_an_id_that_was_ever_used() -> None:
    command = start(run_id=NEXT_RUN, reuse="reject")
    given(started(), FAILED).when(lambda wf: wf.start(command, at=NOON)).then_refused(
        WorkflowAlreadyStartedError, run_id=RUN, status="Failed"
    )


@pytest.mark.parametrize("history", [(), (scheduled(0),), (CLOSED,)])
def test_the_same_request_again_is_the_run_that_it_started(
    history: tuple[ev.WorkflowEvent, ...],
) -> None:
    command = start(run_id=NEXT_RUN, request_id="req", reuse="reject")
    outcome = (
        given(started(request_id="req"), *history)
        .when(lambda wf: wf.start(command, at=NOON))
        .then_nothing()
    )
    assert outcome.aggregate.state.run_id == RUN


def test_a_start_repeated_with_its_own_run_id_adds_nothing() -> None:
    given(started()).when(lambda wf: wf.start(start(), at=NOON)).then_nothing()


def test_a_start_of_a_type_that_is_not_routed_is_refused() -> None:
    given().when(lambda wf: wf.start(start(package_version=None), at=NOON)).then_refused(
        WorkflowTypeNotFoundError, workflow_type="checkout"
    )


@pytest.mark.parametrize("name", ["custmer", "Customer", "CUSTMER"])
def test_a_start_with_an_unknown_attribute_names_the_near_ones(name: str) -> None:
    given(schema=schema()).when(
        lambda wf: wf.start(start(attributes={name: text("ana")}), at=NOON)
    ).then_refused(UnregisteredAttributeError, name=name, near=("customer",))


def test_a_start_with_a_mistyped_attribute_is_refused() -> None:
    given(schema=schema()).when(
        lambda wf: wf.start(start(attributes={"customer": whole(1)}), at=NOON)
    ).then_refused(AttributeTypeError, name="customer", expected="String", actual="Int")


@pytest.mark.parametrize("timeout", [timedelta(0), -HOUR, timedelta.max])
@pytest.mark.parametrize("name", ["run_timeout", "execution_timeout"])
def test_a_start_with_an_impossible_timeout_is_refused(name: str, timeout: timedelta) -> None:
    given().when(lambda wf: wf.start(start(**{name: timeout}), at=NOON)).then_refused(
        InvalidArgumentError, argument=name
    )


@pytest.mark.parametrize("workflow_id", ["", "x" * 256, "a\nb", "\ud800"])
def test_an_id_that_cannot_be_recorded_is_refused(workflow_id: str) -> None:
    with pytest.raises(InvalidIdError):
        Workflow(WorkflowId(workflow_id))


# ------------------------------------------------------------------------------------ the guards

ON_AN_OPEN_RUN: dict[str, Command] = {
    "complete": lambda wf: wf.complete(at=NOON),
    "fail": lambda wf: wf.fail(OOPS, at=NOON),
    "time_out": lambda wf: wf.time_out("run", at=NOON),
    "request_cancel": lambda wf: wf.request_cancel(at=NOON),
    "cancel": lambda wf: wf.cancel(at=NOON),
    "terminate": lambda wf: wf.terminate(at=NOON),
    "pause": lambda wf: wf.pause(at=NOON),
    "resume": lambda wf: wf.resume(at=NOON),
}


@pytest.mark.parametrize("terminal", TERMINALS)
@pytest.mark.parametrize("command", ON_AN_OPEN_RUN.values(), ids=ON_AN_OPEN_RUN)
def test_a_closed_run_takes_no_command(command: Command, terminal: ev.WorkflowEvent) -> None:
    status = WorkflowStatus(type(terminal).__name__.removeprefix("Workflow"))
    given(started(), terminal).when(command).then_refused(
        RunClosedError, workflow_id="order-42", run_id=RUN, status=status
    )


@pytest.mark.parametrize("command", ON_AN_OPEN_RUN.values(), ids=ON_AN_OPEN_RUN)
def test_an_unknown_workflow_takes_no_command_but_start(command: Command) -> None:
    given().when(command).then_refused(WorkflowNotFoundError, workflow_id="order-42")


WITH_A_RUN_ID: dict[str, Callable[[Workflow, str], object]] = {
    "request_cancel": lambda wf, run: wf.request_cancel(run_id=run, at=NOON),
    "terminate": lambda wf, run: wf.terminate(run_id=run, at=NOON),
    "pause": lambda wf, run: wf.pause(run_id=run, at=NOON),
    "resume": lambda wf, run: wf.resume(run_id=run, at=NOON),
    "reopen": lambda wf, run: wf.reopen(run_id=run, at=NOON),
    "update_attributes": lambda wf, run: wf.update_attributes({}, run_id=run, at=NOON),
}


@pytest.mark.parametrize("command", WITH_A_RUN_ID.values(), ids=WITH_A_RUN_ID)
def test_a_run_id_that_is_not_the_current_one_is_refused(
    command: Callable[[Workflow, str], object],
) -> None:
    given(started()).when(lambda wf: command(wf, "run-0")).then_refused(
        RunNotFoundError, workflow_id="order-42", run_id="run-0"
    )


@pytest.mark.parametrize("command", WITH_A_RUN_ID.values(), ids=WITH_A_RUN_ID)
def test_the_run_that_continued_as_the_current_one_is_closed(
    command: Callable[[Workflow, str], object],
) -> None:
    given(started(run_id=NEXT_RUN, parent_run_id=RUN)).when(
        lambda wf: command(wf, RUN)
    ).then_refused(RunClosedError, run_id=RUN, status="ContinuedAsNew")


def test_a_naive_instant_is_refused() -> None:
    naive = datetime(2026, 11, 24, 12, 0)
    given(started()).when(lambda wf: wf.complete(at=naive)).then_refused(
        InvalidArgumentError, argument="at"
    )


def test_an_instant_with_another_offset_is_refused() -> None:
    local = datetime(2026, 11, 24, 13, 0, tzinfo=timezone(HOUR))
    given().when(lambda wf: wf.start(start(), at=local)).then_refused(
        InvalidArgumentError, argument="at"
    )


def test_any_name_of_utc_is_taken_and_recorded_as_utc() -> None:
    outcome = given(started()).when(
        lambda wf: wf.complete(at=NOON.replace(tzinfo=ZoneInfo("Europe/Lisbon")))
    )
    outcome.then(CLOSED)
    assert [pending.at.tzinfo for pending in outcome.aggregate.uncommitted] == [UTC]


# ---------------------------------------------------------------------------------------- the end


def test_complete_records_the_result() -> None:
    given(started()).when(lambda wf: wf.complete(NEXT, at=NOON)).then(
        ev.WorkflowCompleted(result=NEXT)
    )


def test_complete_settles_live_timers_by_the_fold_and_not_by_events() -> None:
    outcome = given(started(), armed()).when(lambda wf: wf.complete(at=NOON)).then(CLOSED)
    assert outcome.aggregate.state.live_timers == {}


def test_fail_records_the_error() -> None:
    given(started(), scheduled(0)).when(lambda wf: wf.fail(OOPS, at=NOON)).then(
        ev.WorkflowFailed(error=OOPS)
    )


def test_time_out_records_which_deadline_passed() -> None:
    given(started()).when(lambda wf: wf.time_out("execution", at=NOON)).then(
        ev.WorkflowTimedOut(timeout="execution")
    )


def test_a_cancel_is_requested_once() -> None:
    given(started()).when(lambda wf: wf.request_cancel("late", "ana", at=NOON)).then(
        ev.WorkflowCancelRequested(reason="late", operator="ana")
    )
    given(started(), ev.WorkflowCancelRequested()).when(
        lambda wf: wf.request_cancel("again", at=NOON)
    ).then_nothing()


def test_cancel_tears_down_each_live_timer_first() -> None:
    first, second, third = TimerId("a"), TimerId("b"), TimerId("c")
    given(started(), armed(first), armed(second), fired(first), armed(third)).when(
        lambda wf: wf.cancel("late", at=NOON)
    ).then(
        ev.TimerCancelled(timer_id=second, cause="teardown"),
        ev.TimerCancelled(timer_id=third, cause="teardown"),
        ev.WorkflowCancelled(reason="late"),
    )


def test_terminate_ends_a_run_whatever_it_waits_for() -> None:
    given(started(), scheduled(0), armed()).when(
        lambda wf: wf.terminate("gone", "ana", run_id=RUN, at=NOON)
    ).then(ev.WorkflowTerminated(reason="gone", operator="ana"))


def test_a_paused_run_may_end() -> None:
    outcome = (
        given(started(), ev.WorkflowPaused(run_id=RUN))
        .when(lambda wf: wf.complete(at=NOON))
        .then(CLOSED)
    )
    assert outcome.aggregate.state.status is WorkflowStatus.COMPLETED


# ---------------------------------------------------------------------------------- pause, resume


def test_a_running_run_is_paused_and_a_paused_one_resumed() -> None:
    paused = ev.WorkflowPaused(run_id=RUN, reason="look", operator="ana")
    given(started()).when(lambda wf: wf.pause("look", "ana", at=NOON)).then(paused)
    given(started(), paused).when(lambda wf: wf.resume(operator="ana", at=NOON)).then(
        ev.WorkflowResumed(run_id=RUN, operator="ana")
    )


def test_a_paused_run_is_not_paused_again() -> None:
    given(started(), ev.WorkflowPaused(run_id=RUN)).when(lambda wf: wf.pause(at=NOON)).then_refused(
        InvalidStateError, status="Paused", command="pause"
    )


def test_a_running_run_is_not_resumed() -> None:
    given(started()).when(lambda wf: wf.resume(at=NOON)).then_refused(
        InvalidStateError, status="Running", command="resume"
    )


# ----------------------------------------------------------------------------------------- reopen


@pytest.mark.parametrize("terminal", [FAILED, CANCELLED, TERMINATED, TIMED_OUT])
def test_a_run_that_did_not_complete_is_reopened(terminal: ev.WorkflowEvent) -> None:
    outcome = (
        given(started(), terminal)
        .when(lambda wf: wf.reopen("ana", at=NOON))
        .then(ev.WorkflowReopened(run_id=RUN, operator="ana", taken_back=TakenBack(since=1)))
    )
    assert outcome.aggregate.state.status is WorkflowStatus.RUNNING
    assert outcome.aggregate.state.is_open


@pytest.mark.parametrize(
    ("history", "status"),
    [((), "Running"), ((ev.WorkflowPaused(run_id=RUN),), "Paused"), ((CLOSED,), "Completed")],
)
def test_no_other_run_is_reopened(history: tuple[ev.WorkflowEvent, ...], status: str) -> None:
    given(started(), *history).when(lambda wf: wf.reopen(at=NOON)).then_refused(
        InvalidStateError, workflow_id="order-42", status=status, command="reopen"
    )


def test_an_unknown_workflow_is_not_reopened() -> None:
    given().when(lambda wf: wf.reopen(at=NOON)).then_refused(WorkflowNotFoundError)


def test_reopen_names_exactly_the_activities_whose_last_outcome_is_a_terminal_failure() -> None:
    retried = failed(1, retry_at=NOON)
    history: list[ev.WorkflowEvent] = [scheduled(ordinal) for ordinal in range(5)]
    history += [failed(0), retried, completed(2), failed(4)]
    given(started(), *history, FAILED).when(lambda wf: wf.reopen(at=NOON)).then(
        ev.WorkflowReopened(
            run_id=RUN,
            reopened=(scheduled(0).activity_id, scheduled(4).activity_id),
            taken_back=TakenBack(since=10),
        )
    )


def test_a_second_reopening_names_only_what_failed_since() -> None:
    reopened = ev.WorkflowReopened(run_id=RUN, reopened=(scheduled(0).activity_id,))
    given(
        started(), scheduled(0), failed(0), FAILED, reopened, scheduled(1), failed(1), FAILED
    ).when(lambda wf: wf.reopen(at=NOON)).then(
        ev.WorkflowReopened(
            run_id=RUN, reopened=(scheduled(1).activity_id,), taken_back=TakenBack(since=7)
        )
    )


def test_reopening_arms_torn_down_timers_at_their_original_time() -> None:
    other = TimerId("other")
    torn = ev.TimerCancelled(timer_id=armed().timer_id, cause="teardown")
    outcome = given(started(), armed(), torn, CANCELLED).when(lambda wf: wf.reopen(at=NOON))
    assert outcome.aggregate.state.live_timers == {"tick": NOON + HOUR}
    outcome = given(started(), armed(), armed(other), fired(other), TERMINATED).when(
        lambda wf: wf.reopen(at=NOON)
    )
    assert outcome.aggregate.state.live_timers == {"tick": NOON + HOUR}


def test_a_timer_that_the_code_cancelled_stays_cancelled_after_reopening() -> None:
    outcome = given(started(), armed(), ev.TimerCancelled(timer_id=armed().timer_id), FAILED).when(
        lambda wf: wf.reopen(at=NOON)
    )
    assert outcome.aggregate.state.live_timers == {}


def test_reopening_forgets_the_request_to_cancel_and_the_deadlines_that_passed() -> None:
    opened = started(run_deadline=NOON, execution_deadline=NOON + HOUR)
    state = (
        given(opened, ev.WorkflowCancelRequested(), CANCELLED)
        .when(lambda wf: wf.reopen(at=NOON))
        .aggregate.state
    )
    assert state.cancel_requested is None
    assert state.run_deadline is None
    assert state.execution_deadline == NOON + HOUR

"""schedule, start, complete, fail, cancel, and the four timeouts of an activity."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from aion_es.aggregates import Workflow
from aion_es.errors import (
    ActivityNotFoundError,
    InvalidArgumentError,
    RunClosedError,
    StaleAttemptError,
    WorkflowNotFoundError,
)
from aion_es.events import workflow as ev
from aion_es.events.values import ActivityFailure, ActivityTimeouts, RetryPolicy
from aion_es.payload import NOTHING
from aion_es.testing.aggregates import GIVEN_AT, given
from tests.unit.aggregates.histories import (
    CLOSED,
    FAILED,
    HOUR,
    NEXT,
    NOON,
    RUN,
    SECOND,
    act,
    activity_cancelled,
    begun,
    completed,
    error,
    failed,
    scheduled,
    started,
)

Command = Callable[[Workflow], object]
REOPENED = ev.WorkflowReopened(run_id=RUN, reopened=(act(0),))
CANCEL_REQUESTED = ev.ActivityCancelRequested(activity_id=act(0))

COMMANDS: dict[str, Command] = {
    "start": lambda wf: wf.start_activity(act(0), 1, at=NOON),
    "complete": lambda wf: wf.complete_activity(act(0), 1, at=NOON),
    "fail": lambda wf: wf.fail_activity(act(0), 1, error(), at=NOON),
    "cancel": lambda wf: wf.cancel_activity(act(0), 1, at=NOON),
    "request_cancel": lambda wf: wf.request_cancel_activity(act(0), at=NOON),
    "heartbeat": lambda wf: wf.heartbeat_timeout(act(0), 1, at=NOON),
    "schedule_to_start": lambda wf: wf.schedule_to_start_timeout(act(0), 1, at=NOON),
    "start_to_close": lambda wf: wf.start_to_close_timeout(act(0), 1, at=NOON),
    "schedule_to_close": lambda wf: wf.schedule_to_close_timeout(act(0), 1, at=NOON),
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_an_activity_that_was_never_scheduled_is_not_found(command: Command) -> None:
    given(started()).when(command).then_refused(
        ActivityNotFoundError, workflow_id="order-42", activity_id=0
    )


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_closed_run_records_nothing_about_activities(command: Command) -> None:
    given(started(), scheduled(0), begun(0), CLOSED).when(command).then_refused(RunClosedError)


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_an_unknown_workflow_has_no_activities(command: Command) -> None:
    given().when(command).then_refused(WorkflowNotFoundError)


# --------------------------------------------------------------------------------------- schedule


def test_schedule_records_all_that_dispatch_needs() -> None:
    retry, timeouts = RetryPolicy(max_attempts=3), ActivityTimeouts(start_to_close=HOUR)
    given(started()).when(
        lambda wf: wf.schedule_activity(
            act(0),
            "charge_card",
            NEXT,
            task_queue="slow",
            retry=retry,
            timeouts=timeouts,
            heartbeat=SECOND,
            at=NOON,
        )
    ).then(
        ev.ActivityScheduled(
            activity_id=act(0),
            activity_type="charge_card",
            input=NEXT,
            task_queue="slow",
            retry=retry,
            timeouts=timeouts,
            heartbeat=SECOND,
        )
    )


def test_the_same_activity_is_scheduled_once() -> None:
    given(started(), scheduled(0)).when(
        lambda wf: wf.schedule_activity(act(0), "charge_card", at=NOON)
    ).then_nothing()


def test_an_ordinal_is_not_taken_by_another_activity() -> None:
    given(started(), scheduled(0)).when(
        lambda wf: wf.schedule_activity(act(0), "refund", at=NOON)
    ).then_refused(InvalidArgumentError, argument="activity_id")


def test_ordinals_count_from_0() -> None:
    given(started()).when(lambda wf: wf.schedule_activity(act(-1), "refund", at=NOON)).then_refused(
        InvalidArgumentError, argument="activity_id"
    )


def test_a_paused_run_still_takes_facts() -> None:
    given(started(), scheduled(0), begun(0), ev.WorkflowPaused(run_id=RUN)).when(
        lambda wf: wf.complete_activity(act(0), 1, NEXT, at=NOON)
    ).then(completed(0, result=NEXT))


# ------------------------------------------------------------------------------------------ start


def test_the_first_attempt_is_number_1() -> None:
    given(started(), scheduled(0)).when(
        lambda wf: wf.start_activity(act(0), 1, "w1", at=NOON)
    ).then(begun(0, 1, "w1"))


def test_the_next_attempt_follows_a_retryable_failure() -> None:
    given(started(), scheduled(0), begun(0), failed(0, retry_at=NOON)).when(
        lambda wf: wf.start_activity(act(0), 2, "w2", at=NOON)
    ).then(begun(0, 2, "w2"))


def test_the_same_worker_starts_an_attempt_once() -> None:
    given(started(), scheduled(0), begun(0, 1, "w1")).when(
        lambda wf: wf.start_activity(act(0), 1, "w1", at=NOON)
    ).then_nothing()


def test_two_workers_do_not_get_the_same_attempt() -> None:
    given(started(), scheduled(0), begun(0, 1, "w1")).when(
        lambda wf: wf.start_activity(act(0), 1, "w2", at=NOON)
    ).then_refused(StaleAttemptError, activity_id=0, attempt=1, current=1)


@pytest.mark.parametrize("attempt", [0, 2, 7])
def test_no_attempt_is_left_out(attempt: int) -> None:
    given(started(), scheduled(0)).when(
        lambda wf: wf.start_activity(act(0), attempt, at=NOON)
    ).then_refused(StaleAttemptError, attempt=attempt, current=1)


@pytest.mark.parametrize("outcome", [completed(0), failed(0), activity_cancelled(0)])
def test_a_settled_activity_is_not_started_again(outcome: ev.WorkflowEvent) -> None:
    given(started(), scheduled(0), begun(0), outcome).when(
        lambda wf: wf.start_activity(act(0), 2, at=NOON)
    ).then_refused(StaleAttemptError, attempt=2, current=1)


def test_attempts_go_on_counting_after_a_reopening() -> None:
    history = (started(), scheduled(0), begun(0), failed(0), FAILED, REOPENED)
    given(*history).when(lambda wf: wf.start_activity(act(0), 2, at=NOON)).then(begun(0, 2))
    given(*history).when(lambda wf: wf.start_activity(act(0), 1, at=NOON)).then_refused(
        StaleAttemptError, attempt=1, current=2
    )


def test_a_reopened_activity_is_called_with_its_input_again() -> None:
    state = given(
        started(), scheduled(0, input=NEXT), begun(0), failed(0), FAILED, REOPENED
    ).aggregate.state
    assert state.activities[act(0)].input == NEXT
    assert state.activities[act(0)].phase == "scheduled"


# --------------------------------------------------------------------------------------- complete


def test_complete_settles_the_running_attempt() -> None:
    outcome = (
        given(started(), scheduled(0, input=NEXT), begun(0))
        .when(lambda wf: wf.complete_activity(act(0), 1, NEXT, at=NOON))
        .then(completed(0, result=NEXT))
    )
    assert outcome.aggregate.state.activities[act(0)].input == NOTHING


def test_a_first_attempt_is_recorded_as_started_together_with_its_result() -> None:
    given(started(), scheduled(0)).when(
        lambda wf: wf.complete_activity(act(0), 1, NEXT, worker="w1", at=NOON)
    ).then(begun(0, 1, "w1"), completed(0, result=NEXT))


def test_a_later_attempt_must_be_recorded_as_started_first() -> None:
    given(started(), scheduled(0), begun(0), failed(0, retry_at=NOON)).when(
        lambda wf: wf.complete_activity(act(0), 2, at=NOON)
    ).then_refused(StaleAttemptError, attempt=2, current=2)


def test_the_first_attempt_after_a_reopening_must_be_recorded_as_started_first() -> None:
    given(started(), scheduled(0), begun(0), failed(0), FAILED, REOPENED).when(
        lambda wf: wf.complete_activity(act(0), 2, at=NOON)
    ).then_refused(StaleAttemptError, attempt=2, current=2)


def test_a_result_that_is_recorded_adds_nothing() -> None:
    given(started(), scheduled(0), begun(0), completed(0)).when(
        lambda wf: wf.complete_activity(act(0), 1, NEXT, at=NOON)
    ).then_nothing()


@pytest.mark.parametrize("attempt", [0, 2])
def test_an_outcome_of_an_attempt_that_never_was_is_stale(attempt: int) -> None:
    given(started(), scheduled(0), begun(0), completed(0)).when(
        lambda wf: wf.complete_activity(act(0), attempt, at=NOON)
    ).then_refused(StaleAttemptError, attempt=attempt, current=1)


@pytest.mark.parametrize("outcome", [failed(0), activity_cancelled(0)])
def test_another_outcome_of_a_settled_activity_is_stale(outcome: ev.WorkflowEvent) -> None:
    given(started(), scheduled(0), begun(0), outcome).when(
        lambda wf: wf.complete_activity(act(0), 1, at=NOON)
    ).then_refused(StaleAttemptError, activity_id=0, attempt=1, current=1)


def test_the_result_of_a_superseded_attempt_is_stale() -> None:
    given(started(), scheduled(0), begun(0), failed(0, retry_at=NOON), begun(0, 2)).when(
        lambda wf: wf.complete_activity(act(0), 1, at=NOON)
    ).then_refused(StaleAttemptError, attempt=1, current=2)


def test_a_result_that_comes_in_the_backoff_after_its_timeout_is_stale() -> None:
    given(started(), scheduled(0), begun(0), failed(0, retry_at=NOON)).when(
        lambda wf: wf.complete_activity(act(0), 1, at=NOON)
    ).then_refused(StaleAttemptError, attempt=1, current=2)


# ------------------------------------------------------------------------------------------- fail


def test_a_retryable_failure_says_when_the_next_attempt_comes() -> None:
    given(started(), scheduled(0), begun(0)).when(
        lambda wf: wf.fail_activity(act(0), 1, error(), at=NOON)
    ).then(failed(0, retry_at=NOON + SECOND))


def test_a_first_attempt_is_recorded_as_started_together_with_its_failure() -> None:
    given(started(), scheduled(0)).when(
        lambda wf: wf.fail_activity(act(0), 1, error(), worker="w1", at=NOON)
    ).then(begun(0, 1, "w1"), failed(0, retry_at=NOON + SECOND))


def test_the_wait_grows_with_the_attempts_up_to_its_bound() -> None:
    retry = RetryPolicy(initial_interval=SECOND, backoff=3.0, max_interval=10 * SECOND)
    wf = given(started(), scheduled(0, retry=retry)).aggregate
    waits: list[float] = []
    for attempt in range(1, 6):
        wf.start_activity(act(0), attempt, at=NOON)
        wf.fail_activity(act(0), attempt, error(), at=NOON)
        retry_at = wf.state.activities[act(0)].retry_at
        assert retry_at is not None
        waits.append((retry_at - NOON).total_seconds())
    assert waits == [1.0, 3.0, 9.0, 10.0, 10.0]


def test_a_terminal_failure_ends_the_attempts() -> None:
    given(started(), scheduled(0), begun(0)).when(
        lambda wf: wf.fail_activity(act(0), 1, error("terminal"), at=NOON)
    ).then(failed(0))


def test_a_failure_of_a_listed_type_ends_the_attempts() -> None:
    retry = RetryPolicy(non_retryable=("ValueError",))
    given(started(), scheduled(0, retry=retry), begun(0)).when(
        lambda wf: wf.fail_activity(act(0), 1, error(type="ValueError"), at=NOON)
    ).then(failed(0, because=error(type="ValueError")))


def test_the_last_allowed_attempt_ends_the_attempts() -> None:
    retry = RetryPolicy(max_attempts=2)
    history = (
        started(),
        scheduled(0, retry=retry),
        begun(0),
        failed(0, retry_at=NOON),
        begun(0, 2),
    )
    given(*history).when(lambda wf: wf.fail_activity(act(0), 2, error(), at=NOON)).then(
        failed(0, 2, because=error())
    )


def test_a_reopening_grants_the_allowed_attempts_anew_and_starts_the_backoff_over() -> None:
    retry = RetryPolicy(max_attempts=2)
    history = (
        started(),
        scheduled(0, retry=retry),
        begun(0),
        failed(0, retry_at=NOON),
        begun(0, 2),
        failed(0, 2, because=error()),
        FAILED,
        REOPENED,
        begun(0, 3),
    )
    given(*history).when(lambda wf: wf.fail_activity(act(0), 3, error(), at=NOON)).then(
        failed(0, 3, retry_at=NOON + SECOND)
    )
    given(*history, failed(0, 3, retry_at=NOON), begun(0, 4)).when(
        lambda wf: wf.fail_activity(act(0), 4, error(), at=NOON)
    ).then(failed(0, 4, because=error()))


def test_no_attempt_is_promised_past_schedule_to_close() -> None:
    timeouts = ActivityTimeouts(schedule_to_close=10 * SECOND)
    history = (started(), scheduled(0, timeouts=timeouts), begun(0))
    given(*history).when(
        lambda wf: wf.fail_activity(act(0), 1, error(), at=GIVEN_AT + 8 * SECOND)
    ).then(failed(0, retry_at=GIVEN_AT + 9 * SECOND))
    given(*history).when(
        lambda wf: wf.fail_activity(act(0), 1, error(), at=GIVEN_AT + 9 * SECOND)
    ).then(failed(0, because=error()))


def test_an_activity_that_is_no_longer_wanted_is_not_tried_again() -> None:
    given(started(), scheduled(0), begun(0), CANCEL_REQUESTED).when(
        lambda wf: wf.fail_activity(act(0), 1, error(), at=NOON)
    ).then(failed(0, because=error()))


@pytest.mark.parametrize("retry_at", [None, NOON])
def test_a_failure_that_is_recorded_adds_nothing(retry_at: datetime | None) -> None:
    given(started(), scheduled(0), begun(0), failed(0, retry_at=retry_at)).when(
        lambda wf: wf.fail_activity(act(0), 1, error(), at=NOON)
    ).then_nothing()


def test_a_reopened_activity_is_wanted_again() -> None:
    given(
        *(started(), scheduled(0), begun(0), CANCEL_REQUESTED, failed(0)),
        *(FAILED, REOPENED, begun(0, 2)),
    ).when(lambda wf: wf.fail_activity(act(0), 2, error(), at=NOON)).then(
        failed(0, 2, retry_at=NOON + SECOND)
    )


def test_a_failure_of_a_completed_activity_is_stale() -> None:
    given(started(), scheduled(0), begun(0), completed(0)).when(
        lambda wf: wf.fail_activity(act(0), 1, error(), at=NOON)
    ).then_refused(StaleAttemptError)


def test_a_wait_past_the_end_of_time_ends_there() -> None:
    retry = RetryPolicy(
        initial_interval=HOUR, backoff=1e30, max_interval=timedelta(days=400 * 365 * 30)
    )
    history = (started(), scheduled(0, retry=retry), *_tries(20))
    outcome = given(*history).when(lambda wf: wf.fail_activity(act(0), 20, error(), at=NOON))
    outcome.then(failed(0, 20, retry_at=datetime.max.replace(tzinfo=UTC)))


def _tries(last: int) -> list[ev.WorkflowEvent]:
    events: list[ev.WorkflowEvent] = []
    for attempt in range(1, last):
        events += [begun(0, attempt), failed(0, attempt, retry_at=NOON)]
    return [*events, begun(0, last)]


# ----------------------------------------------------------------------------------------- cancel


def test_a_request_to_cancel_is_recorded_once() -> None:
    given(started(), scheduled(0)).when(
        lambda wf: wf.request_cancel_activity(act(0), at=NOON)
    ).then(CANCEL_REQUESTED)
    given(started(), scheduled(0), CANCEL_REQUESTED).when(
        lambda wf: wf.request_cancel_activity(act(0), at=NOON)
    ).then_nothing()


def test_a_settled_activity_is_not_asked_to_end() -> None:
    given(started(), scheduled(0), begun(0), completed(0)).when(
        lambda wf: wf.request_cancel_activity(act(0), at=NOON)
    ).then_nothing()


@pytest.mark.parametrize(
    ("history", "attempt"),
    [
        ((), 1),
        ((begun(0),), 1),
        ((begun(0), failed(0, retry_at=NOON)), 1),
        ((begun(0), failed(0, retry_at=NOON)), 2),
    ],
)
def test_a_pending_activity_is_cancelled_whether_or_not_an_attempt_runs(
    history: tuple[ev.WorkflowEvent, ...], attempt: int
) -> None:
    given(started(), scheduled(0), *history).when(
        lambda wf: wf.cancel_activity(act(0), attempt, at=NOON)
    ).then(activity_cancelled(0, attempt))


def test_a_cancellation_that_is_recorded_adds_nothing() -> None:
    given(started(), scheduled(0), activity_cancelled(0)).when(
        lambda wf: wf.cancel_activity(act(0), 1, at=NOON)
    ).then_nothing()


@pytest.mark.parametrize("outcome", [completed(0), failed(0)])
def test_a_settled_activity_is_not_cancelled(outcome: ev.WorkflowEvent) -> None:
    given(started(), scheduled(0), begun(0), outcome).when(
        lambda wf: wf.cancel_activity(act(0), 1, at=NOON)
    ).then_refused(StaleAttemptError)


# --------------------------------------------------------------------------------------- timeouts


def timed_out(
    type: str, message: str, *, attempt: int = 1, retry_at: datetime | None = None
) -> ev.ActivityFailed:
    return ev.ActivityFailed(
        activity_id=act(0),
        attempt=attempt,
        error=ActivityFailure(
            kind="terminal" if retry_at is None else "retryable", type=type, message=message
        ),
        retry_at=retry_at,
    )


SILENT = ("HeartbeatTimeout", "the attempt was silent for longer than its heartbeat allows")
SLOW = ("StartToCloseTimeout", "the attempt took longer than it may")
UNCLAIMED = ("ScheduleToStartTimeout", "no worker began the attempt in time")
OVERDUE = ("ScheduleToCloseTimeout", "the activity took longer than it may over all its attempts")
ONCE = RetryPolicy(max_attempts=1)


@pytest.mark.parametrize(
    ("command", "what"),
    [(COMMANDS["heartbeat"], SILENT), (COMMANDS["start_to_close"], SLOW)],
)
def test_a_running_attempt_that_times_out_fails_by_the_policy(
    command: Command, what: tuple[str, str]
) -> None:
    given(started(), scheduled(0), begun(0)).when(command).then(
        timed_out(*what, retry_at=NOON + SECOND)
    )
    given(started(), scheduled(0, retry=ONCE), begun(0)).when(command).then(timed_out(*what))
    listed = RetryPolicy(non_retryable=(what[0],))
    given(started(), scheduled(0, retry=listed), begun(0)).when(command).then(timed_out(*what))


def test_a_first_attempt_is_recorded_as_started_together_with_its_timeout() -> None:
    given(started(), scheduled(0)).when(COMMANDS["start_to_close"]).then(
        begun(0), timed_out(*SLOW, retry_at=NOON + SECOND)
    )


@pytest.mark.parametrize("command", [COMMANDS["heartbeat"], COMMANDS["start_to_close"]])
def test_a_timeout_of_a_superseded_attempt_is_stale(command: Command) -> None:
    given(started(), scheduled(0), begun(0), failed(0, retry_at=NOON), begun(0, 2)).when(
        command
    ).then_refused(StaleAttemptError, attempt=1, current=2)


@pytest.mark.parametrize("command", [COMMANDS["heartbeat"], COMMANDS["start_to_close"]])
def test_a_timeout_of_a_completed_attempt_is_stale(command: Command) -> None:
    given(started(), scheduled(0), begun(0), completed(0)).when(command).then_refused(
        StaleAttemptError
    )


def test_an_attempt_that_nobody_begins_fails_by_the_policy() -> None:
    command = COMMANDS["schedule_to_start"]
    given(started(), scheduled(0)).when(command).then(timed_out(*UNCLAIMED, retry_at=NOON + SECOND))
    given(started(), scheduled(0, retry=ONCE)).when(command).then(timed_out(*UNCLAIMED))


def test_a_retry_that_nobody_begins_fails_too() -> None:
    given(started(), scheduled(0), begun(0), failed(0, retry_at=NOON)).when(
        lambda wf: wf.schedule_to_start_timeout(act(0), 2, at=NOON)
    ).then(timed_out(*UNCLAIMED, attempt=2, retry_at=NOON + 2 * SECOND))


@pytest.mark.parametrize("history", [(begun(0),), (begun(0), completed(0)), (failed(0),)])
def test_schedule_to_start_leaves_an_attempt_alone_that_has_begun_or_failed(
    history: tuple[ev.WorkflowEvent, ...],
) -> None:
    given(started(), scheduled(0), *history).when(COMMANDS["schedule_to_start"]).then_nothing()


def test_schedule_to_start_of_another_attempt_is_stale() -> None:
    given(started(), scheduled(0)).when(
        lambda wf: wf.schedule_to_start_timeout(act(0), 2, at=NOON)
    ).then_refused(StaleAttemptError, attempt=2, current=1)


@pytest.mark.parametrize(
    ("history", "attempt"),
    [
        ((), 1),
        ((begun(0),), 1),
        ((begun(0), failed(0, retry_at=NOON)), 1),
        ((begun(0), failed(0, retry_at=NOON)), 2),
        ((begun(0), failed(0, retry_at=NOON), begun(0, 2)), 2),
    ],
)
def test_schedule_to_close_ends_a_pending_activity_whatever_the_policy_says(
    history: tuple[ev.WorkflowEvent, ...], attempt: int
) -> None:
    given(started(), scheduled(0), *history).when(
        lambda wf: wf.schedule_to_close_timeout(act(0), attempt, at=NOON)
    ).then(timed_out(*OVERDUE, attempt=attempt))


def test_schedule_to_close_of_a_failed_activity_adds_nothing() -> None:
    given(started(), scheduled(0), begun(0), failed(0)).when(
        COMMANDS["schedule_to_close"]
    ).then_nothing()


def test_schedule_to_close_of_a_completed_activity_is_stale() -> None:
    given(started(), scheduled(0), begun(0), completed(0)).when(
        COMMANDS["schedule_to_close"]
    ).then_refused(StaleAttemptError)

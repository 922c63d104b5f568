"""Decisions on activities: schedule, start, settle, retry, time out.

An attempt counts while it is the current one. The `ActivityStarted` of a first attempt may be recorded
together with its outcome; every later attempt is recorded before its code runs.
"""

from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from aion_es.aggregates.guards import require_activity, require_open
from aion_es.aggregates.state import ActivityPhase, ActivityState, WorkflowState
from aion_es.errors import InvalidArgumentError, StaleAttemptError
from aion_es.events import workflow as ev
from aion_es.events.values import ActivityFailure, ActivityTimeouts, RetryPolicy
from aion_es.events.workflow import WorkflowEvent
from aion_es.ids import ActivityId
from aion_es.payload import Payload

DEFAULT_RETRY: Final = RetryPolicy.model_construct()
NO_TIMEOUTS: Final = ActivityTimeouts.model_construct()

HEARTBEAT_TIMEOUT: Final = "HeartbeatTimeout"
SCHEDULE_TO_START_TIMEOUT: Final = "ScheduleToStartTimeout"
START_TO_CLOSE_TIMEOUT: Final = "StartToCloseTimeout"
SCHEDULE_TO_CLOSE_TIMEOUT: Final = "ScheduleToCloseTimeout"

_FAILED: Final[frozenset[ActivityPhase]] = frozenset({"failed", "backoff"})
_COMPLETED: Final[frozenset[ActivityPhase]] = frozenset({"completed"})
_LAST: Final = datetime.max.replace(tzinfo=UTC)


def schedule_activity(
    state: WorkflowState,
    activity_id: ActivityId,
    activity_type: str,
    input: Payload,
    task_queue: str,
    retry: RetryPolicy,
    timeouts: ActivityTimeouts,
    heartbeat: timedelta | None,
    offered: bool,
    summary: str,
) -> tuple[WorkflowEvent, ...]:
    """Ask for an activity; the same ordinal again, for the same type, adds nothing."""
    require_open(state)
    if activity_id < 0:
        raise InvalidArgumentError("activity_id", f"counts from 0, got {activity_id}")
    known = state.activities.get(activity_id)
    if known is not None:
        if (known.activity_type, known.task_queue) == (activity_type, task_queue):
            return ()
        raise InvalidArgumentError(
            "activity_id", f"{activity_id} is taken by activity {known.activity_type!r}"
        )
    return (
        ev.ActivityScheduled(
            activity_id=activity_id,
            activity_type=activity_type,
            input=input,
            task_queue=task_queue,
            retry=retry,
            timeouts=timeouts,
            heartbeat=heartbeat,
            offered=offered,
            summary=summary,
        ),
    )


def start_activity(
    state: WorkflowState, activity_id: ActivityId, attempt: int, worker: str
) -> tuple[WorkflowEvent, ...]:
    """Begin the next attempt; the same worker beginning it again adds nothing, another one is refused."""
    activity = require_activity(state, activity_id)
    if activity.phase == "started":
        if (attempt, worker) == (activity.attempt, activity.worker):
            return ()
        raise _stale(activity_id, attempt, activity)
    if not activity.is_pending or attempt != activity.attempt + 1:
        raise _stale(activity_id, attempt, activity)
    return (ev.ActivityStarted(activity_id=activity_id, attempt=attempt, worker=worker),)


def complete_activity(
    state: WorkflowState, activity_id: ActivityId, attempt: int, result: Payload, worker: str
) -> tuple[WorkflowEvent, ...]:
    """Settle an activity with its result."""
    activity = _running(state, activity_id, attempt, _COMPLETED)
    if activity is None:
        return ()
    outcome = ev.ActivityCompleted(activity_id=activity_id, attempt=attempt, result=result)
    return _with_start(activity, outcome, worker)


def fail_activity(
    state: WorkflowState,
    activity_id: ActivityId,
    attempt: int,
    error: ActivityFailure,
    heartbeat_details: Payload | None,
    worker: str,
    at: datetime,
) -> tuple[WorkflowEvent, ...]:
    """Record a failed attempt, and whether and when another will come."""
    activity = _running(state, activity_id, attempt, _FAILED)
    if activity is None:
        return ()
    outcome = ev.ActivityFailed(
        activity_id=activity_id,
        attempt=attempt,
        error=error,
        retry_at=_retry_at(activity, attempt, error.kind, error.type, at),
        heartbeat_details=heartbeat_details,
    )
    return _with_start(activity, outcome, worker)


def time_out_attempt(
    state: WorkflowState,
    activity_id: ActivityId,
    attempt: int,
    timeout: str,
    heartbeat_details: Payload | None,
    worker: str,
    at: datetime,
) -> tuple[WorkflowEvent, ...]:
    """Fail a running attempt that was silent, or took, for too long; the policy says whether another comes."""
    activity = _running(state, activity_id, attempt, _FAILED)
    if activity is None:
        return ()
    outcome = _timed_out(activity, activity_id, attempt, timeout, at, heartbeat_details)
    return _with_start(activity, outcome, worker)


def schedule_to_start_timeout(
    state: WorkflowState, activity_id: ActivityId, attempt: int, at: datetime
) -> tuple[WorkflowEvent, ...]:
    """Fail an attempt that nobody began in time; one that has begun by now is left alone."""
    activity = require_activity(state, activity_id)
    if attempt == activity.attempt and activity.phase != "cancelled":
        return ()  # begun, or failed by an earlier delivery: the fact is already in the stream
    if not activity.is_pending or attempt != _awaited(activity):
        raise _stale(activity_id, attempt, activity)
    return (_timed_out(activity, activity_id, attempt, SCHEDULE_TO_START_TIMEOUT, at),)


def schedule_to_close_timeout(
    state: WorkflowState, activity_id: ActivityId, attempt: int
) -> tuple[WorkflowEvent, ...]:
    """Fail an activity for good whose time over all attempts is up, whatever the policy says."""
    activity = require_activity(state, activity_id)
    if activity.phase == "failed" and attempt == activity.attempt:
        return ()
    if not _is_current(activity, attempt):
        raise _stale(activity_id, attempt, activity)
    error = ActivityFailure(
        kind="terminal",
        type=SCHEDULE_TO_CLOSE_TIMEOUT,
        message=_MESSAGES[SCHEDULE_TO_CLOSE_TIMEOUT],
    )
    return (ev.ActivityFailed(activity_id=activity_id, attempt=attempt, error=error),)


def request_cancel_activity(
    state: WorkflowState, activity_id: ActivityId
) -> tuple[WorkflowEvent, ...]:
    """Say that the activity is no longer wanted; of a settled one, and the second time, that says nothing."""
    activity = require_activity(state, activity_id)
    if activity.cancel_requested or not activity.is_pending:
        return ()
    return (ev.ActivityCancelRequested(activity_id=activity_id),)


def cancel_activity(
    state: WorkflowState, activity_id: ActivityId, attempt: int
) -> tuple[WorkflowEvent, ...]:
    """Settle an activity without an outcome, whether or not an attempt runs."""
    activity = require_activity(state, activity_id)
    if activity.phase == "cancelled" and attempt == activity.attempt:
        return ()
    if not _is_current(activity, attempt):
        raise _stale(activity_id, attempt, activity)
    return (ev.ActivityCancelled(activity_id=activity_id, attempt=attempt),)


def _running(
    state: WorkflowState,
    activity_id: ActivityId,
    attempt: int,
    repeated: frozenset[ActivityPhase],
) -> ActivityState | None:
    """Return the activity whose attempt this is, `None` if its outcome is recorded, in a `repeated` phase."""
    activity = require_activity(state, activity_id)
    if activity.phase == "started" and attempt == activity.attempt:
        return activity
    if activity.phase == "scheduled" and attempt == 1 == activity.first_attempt:
        return activity  # its ActivityStarted is recorded now, with the outcome
    if attempt == activity.attempt and activity.phase in repeated:
        return None
    raise _stale(activity_id, attempt, activity)


def _with_start(
    activity: ActivityState, outcome: ev.ActivityCompleted | ev.ActivityFailed, worker: str
) -> tuple[WorkflowEvent, ...]:
    if activity.phase == "started":
        return (outcome,)
    begun = ev.ActivityStarted(
        activity_id=outcome.activity_id, attempt=outcome.attempt, worker=worker
    )
    return begun, outcome


def _awaited(activity: ActivityState) -> int:
    """Return the attempt that runs or is awaited; of a settled activity, its last."""
    waits = activity.phase in {"scheduled", "backoff"}
    return activity.attempt + 1 if waits else activity.attempt


def _is_current(activity: ActivityState, attempt: int) -> bool:
    """True if `attempt` is the awaited one, or in a backoff the one that failed last."""
    return activity.is_pending and (
        attempt == _awaited(activity)
        or (activity.phase == "backoff" and attempt == activity.attempt)
    )


def _stale(activity_id: ActivityId, attempt: int, activity: ActivityState) -> StaleAttemptError:
    return StaleAttemptError(activity_id, attempt, _awaited(activity))


def _retry_at(
    activity: ActivityState,
    attempt: int,
    kind: Literal["retryable", "terminal"],
    type: str,
    at: datetime,
) -> datetime | None:
    """Return when the next attempt comes, `None` if none will.

    None comes after a terminal error, one of a listed type, the last allowed attempt, a request to
    cancel, or when it would begin past `schedule_to_close`.
    """
    policy = activity.retry
    tries = attempt - activity.first_attempt + 1
    if kind == "terminal" or type in policy.non_retryable or activity.cancel_requested:
        return None
    if policy.max_attempts is not None and tries >= policy.max_attempts:
        return None
    due = _after(at, policy, tries)
    limit = activity.timeouts.schedule_to_close
    if limit is not None and due - activity.scheduled_at >= limit:
        return None
    return due


def _after(at: datetime, policy: RetryPolicy, tries: int) -> datetime:
    try:
        return at + policy.delay_after(tries)
    except OverflowError:
        return _LAST


def _timed_out(
    activity: ActivityState,
    activity_id: ActivityId,
    attempt: int,
    timeout: str,
    at: datetime,
    heartbeat_details: Payload | None = None,
) -> ev.ActivityFailed:
    retry_at = _retry_at(activity, attempt, "retryable", timeout, at)
    error = ActivityFailure(
        kind="terminal" if retry_at is None else "retryable",
        type=timeout,
        message=_MESSAGES[timeout],
    )
    return ev.ActivityFailed(
        activity_id=activity_id,
        attempt=attempt,
        error=error,
        retry_at=retry_at,
        heartbeat_details=heartbeat_details,
    )


_MESSAGES: Final = {
    HEARTBEAT_TIMEOUT: "the attempt was silent for longer than its heartbeat allows",
    SCHEDULE_TO_START_TIMEOUT: "no worker began the attempt in time",
    START_TO_CLOSE_TIMEOUT: "the attempt took longer than it may",
    SCHEDULE_TO_CLOSE_TIMEOUT: "the activity took longer than it may over all its attempts",
}

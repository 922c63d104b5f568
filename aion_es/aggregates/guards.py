"""The conditions that several commands share: each returns, or raises the refusal."""

from datetime import UTC, datetime, timedelta

from aion_es.aggregates.state import ActivityState, WorkflowState
from aion_es.aggregates.status import WorkflowStatus
from aion_es.errors import (
    ActivityNotFoundError,
    InvalidArgumentError,
    RunClosedError,
    RunNotFoundError,
)
from aion_es.ids import ActivityId

_ZERO = timedelta(0)


def require_utc(name: str, value: datetime) -> datetime:
    """Return `value` if it is an instant in UTC.

    Raises:
        InvalidArgumentError: It is naive, or has another offset.
    """
    if value.tzinfo is UTC:
        return value
    offset = value.utcoffset()
    if offset is None:
        raise InvalidArgumentError(
            name, f"must be timezone-aware, got naive {value.isoformat()}; use datetime.now(UTC)"
        )
    if offset != _ZERO:
        raise InvalidArgumentError(name, f"must be in UTC, got {value.isoformat()}")
    return value.replace(tzinfo=UTC)


def require_run(state: WorkflowState, run_id: str | None) -> None:
    """Check that `run_id`, if one is given, is the current run.

    Raises:
        RunClosedError: It is the run that continued as this one, or the first of its chain.
        RunNotFoundError: It is none that the current run knows of.
    """
    if run_id is None or run_id == state.run_id:
        return
    if run_id in {state.parent_run_id, state.first_run_id}:
        raise RunClosedError(state.workflow_id, run_id, WorkflowStatus.CONTINUED_AS_NEW)
    raise RunNotFoundError(state.workflow_id, run_id)


def require_open(state: WorkflowState, run_id: str | None = None) -> None:
    """Check that the run may still record facts.

    Raises:
        RunClosedError: It has recorded a terminal event.
        RunNotFoundError: `run_id` is given and not the current run.
    """
    if run_id is not None:
        require_run(state, run_id)
    if state.terminal is not None:
        raise RunClosedError(state.workflow_id, state.run_id, state.status)


def require_activity(state: WorkflowState, activity_id: ActivityId) -> ActivityState:
    """Return the activity of an open run.

    Raises:
        RunClosedError: The run has recorded a terminal event.
        ActivityNotFoundError: It never scheduled this activity.
    """
    require_open(state)
    activity = state.activities.get(activity_id)
    if activity is None:
        raise ActivityNotFoundError(state.workflow_id, activity_id)
    return activity

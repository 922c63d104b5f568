"""A run's status, and the fold that gives it: the last lifecycle event wins."""

from enum import StrEnum
from typing import assert_never

from aion_es.events import workflow as ev


class WorkflowStatus(StrEnum):
    """Where a run stands."""

    RUNNING = "Running"
    PAUSED = "Paused"
    COMPLETED = "Completed"
    FAILED = "Failed"
    CANCELLED = "Cancelled"
    TERMINATED = "Terminated"
    TIMED_OUT = "TimedOut"
    CONTINUED_AS_NEW = "ContinuedAsNew"

    @property
    def is_open(self) -> bool:
        """True while the run may still record facts: Running or Paused."""
        return self in _OPEN


_OPEN = frozenset({WorkflowStatus.RUNNING, WorkflowStatus.PAUSED})

REOPENABLE = frozenset(
    {
        WorkflowStatus.FAILED,
        WorkflowStatus.TIMED_OUT,
        WorkflowStatus.CANCELLED,
        WorkflowStatus.TERMINATED,
    }
)
"""The closed statuses from which a run may be taken back to Running: it did not do what it was asked."""


def status_after(event: ev.WorkflowEvent) -> WorkflowStatus | None:
    """Return the status that `event` gives its run, `None` if it leaves the status as it was."""
    status: WorkflowStatus | None
    match event:
        case (
            ev.ActivityScheduled()
            | ev.ActivityStarted()
            | ev.ActivityCompleted()
            | ev.ActivityFailed()
            | ev.ActivityCancelRequested()
            | ev.ActivityCancelled()
            | ev.TimerStarted()
            | ev.TimerFired()
            | ev.TimerCancelled()
            | ev.WithTimeoutCompleted()
            | ev.SignalReceived()
            | ev.SignalSent()
            | ev.SignalDelivered()
            | ev.SignalSendFailed()
            | ev.ChildWorkflowStarted()
            | ev.ChildWorkflowCancelRequested()
            | ev.ChildWorkflowCompleted()
            | ev.ChildWorkflowFailed()
            | ev.ChildWorkflowCancelled()
            | ev.MarkerRecorded()
            | ev.SearchAttributesUpdated()
            | ev.WorkflowCancelRequested()
        ):
            status = None
        case ev.WorkflowStarted() | ev.WorkflowResumed() | ev.WorkflowReopened():
            status = WorkflowStatus.RUNNING
        case ev.WorkflowPaused():
            status = WorkflowStatus.PAUSED
        case ev.WorkflowCompleted():
            status = WorkflowStatus.COMPLETED
        case ev.WorkflowFailed():
            status = WorkflowStatus.FAILED
        case ev.WorkflowCancelled():
            status = WorkflowStatus.CANCELLED
        case ev.WorkflowTerminated():
            status = WorkflowStatus.TERMINATED
        case ev.WorkflowTimedOut():
            status = WorkflowStatus.TIMED_OUT
        case ev.WorkflowContinuedAsNew():
            status = WorkflowStatus.CONTINUED_AS_NEW
        case _:
            assert_never(event)
    return status

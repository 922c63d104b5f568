"""Pending work: what a run still waits for, whose outcomes its successor could not receive.

One fold, used by the guard of continue-as-new and by the projection that recovery and the task queues
read. Timers and unread signals are not pending work.
"""

from collections.abc import Iterable
from typing import assert_never

from aion_es.events import workflow as ev
from aion_es.ids import ActivityId, WorkflowId


class PendingWork:
    """The fold, one event at a time, over the events of one run."""

    __slots__ = ("_activities", "_children")

    def __init__(self) -> None:
        # Dicts as ordered sets: membership at once, iteration in the order of scheduling.
        self._activities: dict[ActivityId, None] = {}
        self._children: dict[WorkflowId, None] = {}

    @property
    def activities(self) -> tuple[ActivityId, ...]:
        """Activities without a final outcome, in the order in which they were scheduled."""
        return tuple(self._activities)

    @property
    def children(self) -> tuple[WorkflowId, ...]:
        """Children without an outcome, in the order in which they were started."""
        return tuple(self._children)

    def __bool__(self) -> bool:
        return bool(self._activities or self._children)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PendingWork):
            return NotImplemented
        return self.activities == other.activities and self.children == other.children

    __hash__ = None  # type: ignore[assignment] # mutable

    def __repr__(self) -> str:
        return f"PendingWork(activities={self.activities}, children={self.children})"

    def apply(self, event: ev.WorkflowEvent) -> None:
        """Take in one event of the run. Total: an event that makes no sense here changes nothing."""
        match event:
            case ev.ActivityCompleted() | ev.ActivityCancelled():
                self._activities.pop(event.activity_id, None)
            case ev.ActivityStarted() | ev.ActivityScheduled():
                self._activities[event.activity_id] = None
            case ev.ActivityFailed():
                if event.retry_at is None:
                    self._activities.pop(event.activity_id, None)
            case ev.ChildWorkflowStarted():
                self._children[event.child_workflow_id] = None
            case (
                ev.ChildWorkflowCompleted() | ev.ChildWorkflowFailed() | ev.ChildWorkflowCancelled()
            ):
                self._children.pop(event.child_workflow_id, None)
            case ev.WorkflowReopened():
                self._reopen(event)
            case (
                ev.WorkflowStarted()
                | ev.WorkflowCompleted()
                | ev.WorkflowFailed()
                | ev.WorkflowCancelRequested()
                | ev.WorkflowCancelled()
                | ev.WorkflowTerminated()
                | ev.WorkflowTimedOut()
                | ev.WorkflowContinuedAsNew()
                | ev.WorkflowPaused()
                | ev.WorkflowResumed()
                | ev.SearchAttributesUpdated()
                | ev.ActivityCancelRequested()
                | ev.TimerStarted()
                | ev.TimerFired()
                | ev.TimerCancelled()
                | ev.WithTimeoutCompleted()
                | ev.SignalReceived()
                | ev.SignalSent()
                | ev.SignalDelivered()
                | ev.SignalSendFailed()
                | ev.ChildWorkflowCancelRequested()
                | ev.MarkerRecorded()
            ):
                pass
            case _:
                assert_never(event)

    def _reopen(self, event: ev.WorkflowReopened) -> None:
        self._activities.update(dict.fromkeys(event.reopened))
        # An activity's id is the ordinal of its scheduling, so this is the order of scheduling again.
        self._activities = dict.fromkeys(sorted(self._activities))
        void = event.taken_back
        if void is None:
            return
        for activity_id in void.activities:
            self._activities.pop(activity_id, None)
        for child_id in void.children:
            self._children.pop(child_id, None)
        self._children.update(dict.fromkeys(void.awaited))


def pending_work(events: Iterable[ev.WorkflowEvent]) -> PendingWork:
    """Return what the run with these events, oldest first, still waits for."""
    pending = PendingWork()
    for event in events:
        pending.apply(event)
    return pending

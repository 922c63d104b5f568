"""What workflow code commands: each knows the event that records it, and how to have it recorded.

Matching is strict and by identity (kind, ordinal or name, target), never by content: an input that was
computed differently is the author's to change, a step that was taken differently is not.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, Protocol

from aion_es.aggregates.workflow import Workflow
from aion_es.authoring.definitions import ActivitySettings
from aion_es.events.values import AttributeUpdate, AttributeValue, Failure, ParentClose
from aion_es.events.workflow import (
    ActivityCancelRequested,
    ActivityScheduled,
    ChildWorkflowCancelRequested,
    ChildWorkflowStarted,
    MarkerRecorded,
    SearchAttributesUpdated,
    SignalSent,
    TimerCancelled,
    TimerStarted,
    WithTimeoutCompleted,
    WorkflowCancelled,
    WorkflowCompleted,
    WorkflowContinuedAsNew,
    WorkflowEvent,
    WorkflowFailed,
)
from aion_es.ids import ActivityId, SignalId, TimerId, WorkflowId
from aion_es.payload import Payload


class Command(Protocol):
    """One thing that the code asked for."""

    def matches(self, event: WorkflowEvent) -> bool:
        """Return whether `event` is the record of this command."""
        ...

    def apply(self, workflow: Workflow, at: datetime) -> None:
        """Have it recorded by the aggregate."""
        ...

    def __str__(self) -> str:
        """Return the command as a person reads it in a diff."""
        ...


@dataclass(frozen=True, slots=True)
class ScheduleActivity:
    """Run an activity; one that is `offered` is run by another engine, which serves its queue."""

    activity_id: ActivityId
    activity_type: str
    input: Payload
    settings: ActivitySettings
    offered: bool = False

    def matches(self, event: WorkflowEvent) -> bool:
        """See `Command`."""
        return (
            type(event) is ActivityScheduled
            and event.activity_id == self.activity_id
            and event.activity_type == self.activity_type
        )

    def apply(self, workflow: Workflow, at: datetime) -> None:
        """See `Command`."""
        settings = self.settings
        workflow.schedule_activity(
            self.activity_id,
            self.activity_type,
            self.input,
            task_queue=settings.task_queue,
            retry=settings.retry,
            timeouts=settings.timeouts,
            heartbeat=settings.heartbeat,
            offered=self.offered,
            summary=settings.summary,
            at=at,
        )

    def __str__(self) -> str:
        return f"activity {self.activity_id} {self.activity_type!r}"


@dataclass(frozen=True, slots=True)
class RequestActivityCancel:
    """Tell an activity that it is no longer wanted."""

    activity_id: ActivityId

    def matches(self, event: WorkflowEvent) -> bool:
        """See `Command`."""
        return type(event) is ActivityCancelRequested and event.activity_id == self.activity_id

    def apply(self, workflow: Workflow, at: datetime) -> None:
        """See `Command`."""
        workflow.request_cancel_activity(self.activity_id, at=at)

    def __str__(self) -> str:
        return f"cancel activity {self.activity_id}"


@dataclass(frozen=True, slots=True)
class StartChild:
    """Start a child."""

    child_workflow_id: WorkflowId
    workflow_type: str
    input: Payload
    package_version: str
    parent_close: ParentClose
    task_queue: str
    attributes: Mapping[str, AttributeValue]

    def matches(self, event: WorkflowEvent) -> bool:
        """See `Command`."""
        return (
            type(event) is ChildWorkflowStarted
            and event.child_workflow_id == self.child_workflow_id
            and event.workflow_type == self.workflow_type
        )

    def apply(self, workflow: Workflow, at: datetime) -> None:
        """See `Command`."""
        workflow.start_child(
            self.child_workflow_id,
            self.workflow_type,
            self.input,
            package_version=self.package_version,
            parent_close=self.parent_close,
            task_queue=self.task_queue,
            attributes=self.attributes,
            at=at,
        )

    def __str__(self) -> str:
        return f"child {self.child_workflow_id!r} of type {self.workflow_type!r}"


@dataclass(frozen=True, slots=True)
class RequestChildCancel:
    """Say that a child is no longer wanted."""

    child_workflow_id: WorkflowId
    reason: str

    def matches(self, event: WorkflowEvent) -> bool:
        """See `Command`."""
        return (
            type(event) is ChildWorkflowCancelRequested
            and event.child_workflow_id == self.child_workflow_id
        )

    def apply(self, workflow: Workflow, at: datetime) -> None:
        """See `Command`."""
        workflow.request_cancel_child(self.child_workflow_id, self.reason, at=at)

    def __str__(self) -> str:
        return f"cancel child {self.child_workflow_id!r}"


@dataclass(frozen=True, slots=True)
class SendSignal:
    """Send a signal to another workflow."""

    signal_id: SignalId
    target_workflow_id: WorkflowId
    name: str
    payload: Payload

    def matches(self, event: WorkflowEvent) -> bool:
        """See `Command`."""
        return (
            type(event) is SignalSent
            and event.signal_id == self.signal_id
            and event.target_workflow_id == self.target_workflow_id
            and event.name == self.name
        )

    def apply(self, workflow: Workflow, at: datetime) -> None:
        """See `Command`."""
        workflow.send_signal(
            self.signal_id, self.target_workflow_id, self.name, self.payload, at=at
        )

    def __str__(self) -> str:
        return f"signal {self.name!r} to {self.target_workflow_id!r}"


@dataclass(frozen=True, slots=True)
class StartTimer:
    """Arm a durable timer."""

    timer_id: TimerId
    fire_at: datetime

    def matches(self, event: WorkflowEvent) -> bool:
        """See `Command`."""
        return type(event) is TimerStarted and event.timer_id == self.timer_id

    def apply(self, workflow: Workflow, at: datetime) -> None:
        """See `Command`."""
        workflow.start_timer(self.timer_id, self.fire_at, at=at)

    def __str__(self) -> str:
        return f"timer {self.timer_id!r}"


@dataclass(frozen=True, slots=True)
class CancelTimer:
    """Disarm a durable timer."""

    timer_id: TimerId

    def matches(self, event: WorkflowEvent) -> bool:
        """See `Command`."""
        return type(event) is TimerCancelled and event.timer_id == self.timer_id

    def apply(self, workflow: Workflow, at: datetime) -> None:
        """See `Command`."""
        workflow.cancel_timer(self.timer_id, at=at)

    def __str__(self) -> str:
        return f"cancel timer {self.timer_id!r}"


@dataclass(frozen=True, slots=True)
class CompleteWithTimeout:
    """Record what decided a `with_timeout`."""

    timer_id: TimerId
    outcome: Literal["operation_completed", "timed_out"]

    def matches(self, event: WorkflowEvent) -> bool:
        """See `Command`."""
        return (
            type(event) is WithTimeoutCompleted
            and event.timer_id == self.timer_id
            and event.outcome == self.outcome
        )

    def apply(self, workflow: Workflow, at: datetime) -> None:
        """See `Command`."""
        workflow.complete_with_timeout(self.timer_id, self.outcome, at=at)

    def __str__(self) -> str:
        return f"with_timeout {self.timer_id!r} {self.outcome}"


@dataclass(frozen=True, slots=True)
class SetAttributes:
    """Set search attributes."""

    attributes: Mapping[str, AttributeUpdate]

    def matches(self, event: WorkflowEvent) -> bool:
        """See `Command`."""
        return (
            type(event) is SearchAttributesUpdated
            and event.request_id is None
            and event.attributes.keys() == self.attributes.keys()
        )

    def apply(self, workflow: Workflow, at: datetime) -> None:
        """See `Command`."""
        workflow.update_attributes(self.attributes, at=at)

    def __str__(self) -> str:
        return f"set attributes {', '.join(sorted(self.attributes))}"


@dataclass(frozen=True, slots=True)
class RecordMarker:
    """Remember something that the code learned once."""

    kind: Literal["patch", "side_effect"]
    name: str
    value: Payload | None = None

    def matches(self, event: WorkflowEvent) -> bool:
        """See `Command`."""
        return type(event) is MarkerRecorded and event.kind == self.kind and event.name == self.name

    def apply(self, workflow: Workflow, at: datetime) -> None:
        """See `Command`."""
        workflow.record_marker(self.kind, self.name, self.value, at=at)

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r}"


@dataclass(frozen=True, slots=True)
class CompleteRun:
    """The code returned."""

    result: Payload

    def matches(self, event: WorkflowEvent) -> bool:
        """See `Command`."""
        return type(event) is WorkflowCompleted

    def apply(self, workflow: Workflow, at: datetime) -> None:
        """See `Command`."""
        workflow.complete(self.result, at=at)

    def __str__(self) -> str:
        return "complete the run"


@dataclass(frozen=True, slots=True)
class FailRun:
    """The code raised."""

    error: Failure
    failed_activities: tuple[ActivityId, ...] = ()
    failed_children: tuple[WorkflowId, ...] = ()

    def matches(self, event: WorkflowEvent) -> bool:
        """See `Command`."""
        return type(event) is WorkflowFailed and event.error.type == self.error.type

    def apply(self, workflow: Workflow, at: datetime) -> None:
        """See `Command`."""
        workflow.fail(self.error, self.failed_activities, self.failed_children, at=at)

    def __str__(self) -> str:
        return f"fail the run with {self.error.type}"


@dataclass(frozen=True, slots=True)
class CancelRun:
    """The code ended as it was asked to."""

    reason: str

    def matches(self, event: WorkflowEvent) -> bool:
        """See `Command`."""
        return type(event) is WorkflowCancelled

    def apply(self, workflow: Workflow, at: datetime) -> None:
        """See `Command`."""
        workflow.cancel(self.reason, at=at)

    def __str__(self) -> str:
        return "end the run as cancelled"


@dataclass(frozen=True, slots=True)
class ContinueRunAsNew:
    """The code goes on as a new run."""

    input: Payload
    package_version: str | None

    def matches(self, event: WorkflowEvent) -> bool:
        """See `Command`."""
        return type(event) is WorkflowContinuedAsNew

    def apply(self, workflow: Workflow, at: datetime) -> None:
        """See `Command`."""
        workflow.continue_as_new(self.input, package_version=self.package_version, at=at)

    def __str__(self) -> str:
        return "continue as new"


def describe(event: WorkflowEvent) -> str:
    """Return a recorded command as a person reads it in a diff: as the command itself would say it."""
    describe_it = _DESCRIPTIONS.get(type(event))
    return type(event).__name__ if describe_it is None else describe_it(event)


_DESCRIPTIONS: Final[dict[type[Any], Callable[[Any], str]]] = {
    ActivityScheduled: lambda e: f"activity {e.activity_id} {e.activity_type!r}",
    ActivityCancelRequested: lambda e: f"cancel activity {e.activity_id}",
    ChildWorkflowStarted: lambda e: f"child {e.child_workflow_id!r} of type {e.workflow_type!r}",
    ChildWorkflowCancelRequested: lambda e: f"cancel child {e.child_workflow_id!r}",
    SignalSent: lambda e: f"signal {e.name!r} to {e.target_workflow_id!r}",
    TimerStarted: lambda e: f"timer {e.timer_id!r}",
    TimerCancelled: lambda e: f"cancel timer {e.timer_id!r}",
    WithTimeoutCompleted: lambda e: f"with_timeout {e.timer_id!r} {e.outcome}",
    SearchAttributesUpdated: lambda e: f"set attributes {', '.join(sorted(e.attributes))}",
    MarkerRecorded: lambda e: f"{e.kind} {e.name!r}",
    WorkflowCompleted: lambda _e: "complete the run",
    WorkflowFailed: lambda e: f"fail the run with {e.error.type}",
    WorkflowCancelled: lambda _e: "end the run as cancelled",
    WorkflowContinuedAsNew: lambda _e: "continue as new",
}

COMMAND_EVENTS: Final = frozenset(_DESCRIPTIONS)
"""The types of the events that record commands."""

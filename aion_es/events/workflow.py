"""What can happen in the life of a workflow: every event of a workflow's stream, as a frozen model."""

from datetime import timedelta
from typing import ClassVar, Literal, TypeAlias

from pydantic import Field

from aion_es.events.base import Attempt, Event, Instant
from aion_es.events.values import (
    ActivityFailure,
    ActivityTimeouts,
    AttributeUpdate,
    AttributeValue,
    Failure,
    ParentClose,
    RetryPolicy,
    SignalMessage,
    TakenBack,
    WorkflowRef,
)
from aion_es.ids import (
    DEFAULT_TASK_QUEUE,
    ActivityId,
    RunId,
    ScheduleId,
    SignalId,
    TimerId,
    WorkflowId,
)
from aion_es.payload import NOTHING, Payload

# ---------------------------------------------------------------------------------- lifecycle


class WorkflowStarted(Event):
    """A run began; the first event of every run.

    Attributes:
        first_run_id: The run that began the chain of continue-as-new.
        parent_run_id: The run that continued as this one.
        package_version: The version of the code, pinned for the whole run.
        parent: The workflow that started this one as its child.
        run_deadline: From here on the run is timed out.
        execution_deadline: From here on the chain is timed out.
        attributes: Search attributes, handed over by the predecessor or given at the start.
        carried_signals: Signals that the predecessor received and did not read.
        read_signals: Ids of the newest signals that were read before, so that one of them that is sent again
            is known again; see `MAX_READ_SIGNALS`.
        request_id: Makes starting idempotent: the same request gives the same run.
        memo: Anything the starter wants to keep beside the run.
        code_hash: Content hash of the code's source, for information only.
    """

    workflow_type: str
    input: Payload = NOTHING
    run_id: RunId
    first_run_id: RunId
    parent_run_id: RunId | None = None
    package_version: str
    task_queue: str = DEFAULT_TASK_QUEUE
    parent: WorkflowRef | None = None
    schedule_id: ScheduleId | None = None
    run_deadline: Instant | None = None
    execution_deadline: Instant | None = None
    attributes: dict[str, AttributeValue] = Field(default_factory=dict)
    carried_signals: tuple[SignalMessage, ...] = ()
    read_signals: tuple[SignalId, ...] = ()
    request_id: str | None = None
    memo: Payload | None = None
    code_hash: str | None = None


class WorkflowCompleted(Event):
    """The code returned. Terminal."""

    result: Payload = NOTHING


class WorkflowFailed(Event):
    """The code raised. Terminal.

    Attributes:
        failed_activities: Those whose failure the error came from, directly or as a cause: where the code
            takes up again if the run is reopened. Empty if the code itself is what failed.
        failed_children: The same of children that ended without a result.
    """

    LATER: ClassVar[tuple[str, ...]] = ("failed_activities", "failed_children")

    error: Failure
    failed_activities: tuple[ActivityId, ...] = ()
    failed_children: tuple[WorkflowId, ...] = ()


class WorkflowCancelRequested(Event):
    """Somebody asks the run to end; its code sees it at its await, and may clean up."""

    reason: str = ""
    operator: str | None = None


class WorkflowCancelled(Event):
    """The run ended as asked. Terminal."""

    reason: str = ""


class WorkflowTerminated(Event):
    """The run was ended from outside without asking its code. Terminal."""

    reason: str = ""
    operator: str | None = None


class WorkflowTimedOut(Event):
    """A deadline passed. Terminal."""

    timeout: Literal["run", "execution"]


class WorkflowContinuedAsNew(Event):
    """The run closed and its successor begins in the same append. Terminal for this run.

    Attributes:
        parent_run_id: The run being closed.
        new_run_id: Its successor.
    """

    input: Payload = NOTHING
    workflow_type: str | None = None
    parent_run_id: RunId
    new_run_id: RunId


class WorkflowPaused(Event):
    """Dispatch, timers' wake-ups and activations are held; facts are still recorded."""

    run_id: RunId
    reason: str | None = None
    operator: str | None = None


class WorkflowResumed(Event):
    """What was held goes on."""

    run_id: RunId
    reason: str | None = None
    operator: str | None = None


class WorkflowReopened(Event):
    """A Failed, TimedOut, Cancelled or Terminated run is Running again.

    Attributes:
        reopened: The activities that run again although they had an outcome: it was a terminal failure, or they
            were cancelled because of what is taken back.
        taken_back: What is void; `None` in a history of a time when that followed from the events.
    """

    LATER: ClassVar[tuple[str, ...]] = ("taken_back",)

    run_id: RunId
    reopened: tuple[ActivityId, ...] = ()
    operator: str | None = None
    taken_back: TakenBack | None = None


class SearchAttributesUpdated(Event):
    """Search attributes were set; `None` removes one.

    Attributes:
        request_id: Set when the update came from outside; `None` when the run's own code commanded it.
    """

    attributes: dict[str, AttributeUpdate]
    request_id: str | None = None


# --------------------------------------------------------------------------------- activities


class ActivityScheduled(Event):
    """The code asks for an activity.

    Attributes:
        activity_id: Ordinal of the scheduling command among the run's activities, from 0.
        heartbeat: An attempt that is silent for longer has failed.
        offered: The engine that recorded this does not serve the queue: whoever does takes the activity up.
        summary: What the call is about, for people.
    """

    LATER: ClassVar[tuple[str, ...]] = ("offered", "summary")

    activity_id: ActivityId
    activity_type: str
    input: Payload = NOTHING
    task_queue: str = DEFAULT_TASK_QUEUE
    retry: RetryPolicy = RetryPolicy.model_construct()
    timeouts: ActivityTimeouts = ActivityTimeouts.model_construct()
    heartbeat: timedelta | None = None
    offered: bool = False
    summary: str = ""


class ActivityStarted(Event):
    """An attempt began. For a first attempt it may be recorded together with its outcome."""

    activity_id: ActivityId
    attempt: Attempt
    worker: str = ""


class ActivityCompleted(Event):
    """The activity returned."""

    activity_id: ActivityId
    attempt: Attempt
    result: Payload = NOTHING


class ActivityFailed(Event):
    """An attempt failed.

    Attributes:
        retry_at: Another attempt will come at this instant, and the activity stays pending;
            `None`: it has failed for good.
        heartbeat_details: What the attempt said last with `activity.heartbeat`; the next one is told.
            `None` if it said nothing.
    """

    LATER: ClassVar[tuple[str, ...]] = ("heartbeat_details",)

    activity_id: ActivityId
    attempt: Attempt
    error: ActivityFailure
    retry_at: Instant | None = None
    heartbeat_details: Payload | None = None


class ActivityCancelRequested(Event):
    """The code no longer wants the activity; the running attempt learns of it."""

    activity_id: ActivityId


class ActivityCancelled(Event):
    """The activity ended without an outcome."""

    activity_id: ActivityId
    attempt: Attempt


# -------------------------------------------------------------------------------------- timers


class TimerStarted(Event):
    """A durable timer was armed; it is still due after a crash.

    Attributes:
        timer_id: A name of the author's, or an ordinal.
        fire_at: UTC instant from which the timer is due. Fixed here, so that replay never computes it again.
    """

    timer_id: TimerId
    fire_at: Instant


class TimerFired(Event):
    """The timer was due."""

    timer_id: TimerId


class TimerCancelled(Event):
    """The timer will not fire.

    Attributes:
        cause: `workflow`: the code no longer needs it; `teardown`: the run was cancelled, and the timer
            is armed again, at its original time, if the run is reopened.
    """

    timer_id: TimerId
    cause: Literal["workflow", "teardown"] = "workflow"


class WithTimeoutCompleted(Event):
    """What decided a `with_timeout`: the operation, or its limit."""

    timer_id: TimerId
    outcome: Literal["operation_completed", "timed_out"]
    result: Payload | None = None


# ------------------------------------------------------------------------------------- signals


class SignalReceived(Event):
    """A message for the code; recorded before it is delivered."""

    signal_id: SignalId
    name: str
    payload: Payload = NOTHING
    sender: WorkflowRef | None = None


class SignalSent(Event):
    """The code sends a message to another workflow."""

    signal_id: SignalId
    target_workflow_id: WorkflowId
    name: str
    payload: Payload = NOTHING


class SignalDelivered(Event):
    """The message that the run sent is recorded in its target's stream."""

    signal_id: SignalId


class SignalSendFailed(Event):
    """The message could not be delivered: its target is unknown or closed."""

    signal_id: SignalId
    reason: str


# ------------------------------------------------------------------------------------ children


class ChildWorkflowStarted(Event):
    """The code asks for a child; the start itself follows, exactly once."""

    child_workflow_id: WorkflowId
    workflow_type: str
    input: Payload = NOTHING
    package_version: str
    parent_close: ParentClose = "cancel"
    task_queue: str = DEFAULT_TASK_QUEUE
    attributes: dict[str, AttributeValue] = Field(default_factory=dict)


class ChildWorkflowCancelRequested(Event):
    """The code no longer wants the child; the child is asked to end."""

    child_workflow_id: WorkflowId
    reason: str = ""


class ChildWorkflowCompleted(Event):
    """The child returned."""

    child_workflow_id: WorkflowId
    result: Payload = NOTHING


class ChildWorkflowFailed(Event):
    """The child failed; one that timed out or was terminated has that as its error's type."""

    child_workflow_id: WorkflowId
    error: Failure


class ChildWorkflowCancelled(Event):
    """The child ended as Cancelled."""

    child_workflow_id: WorkflowId
    reason: str = ""


# ------------------------------------------------------------------------------------- markers


class MarkerRecorded(Event):
    """Something that the code learned once and must learn again in replay.

    Attributes:
        kind: `patch`: the code after a change took its new path; `side_effect`: a value made outside replay.
    """

    kind: Literal["patch", "side_effect"]
    name: str
    value: Payload | None = None


WorkflowEvent: TypeAlias = (
    WorkflowStarted
    | WorkflowCompleted
    | WorkflowFailed
    | WorkflowCancelRequested
    | WorkflowCancelled
    | WorkflowTerminated
    | WorkflowTimedOut
    | WorkflowContinuedAsNew
    | WorkflowPaused
    | WorkflowResumed
    | WorkflowReopened
    | SearchAttributesUpdated
    | ActivityScheduled
    | ActivityStarted
    | ActivityCompleted
    | ActivityFailed
    | ActivityCancelRequested
    | ActivityCancelled
    | TimerStarted
    | TimerFired
    | TimerCancelled
    | WithTimeoutCompleted
    | SignalReceived
    | SignalSent
    | SignalDelivered
    | SignalSendFailed
    | ChildWorkflowStarted
    | ChildWorkflowCancelRequested
    | ChildWorkflowCompleted
    | ChildWorkflowFailed
    | ChildWorkflowCancelled
    | MarkerRecorded
)
"""Every event of a workflow's stream. A `match` over it ends in `assert_never`."""

TerminalEvent: TypeAlias = (
    WorkflowCompleted
    | WorkflowFailed
    | WorkflowCancelled
    | WorkflowTerminated
    | WorkflowTimedOut
    | WorkflowContinuedAsNew
)
"""After one of these only WorkflowReopened, or the WorkflowStarted of a new run, may follow."""

"""The state of one run, and `evolve`, the fold that makes it from recorded events.

`evolve` is total: it never refuses history. What may happen is decided by the guards, before anything
is recorded; what has happened is taken as it is, and an event that makes no sense changes nothing.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, TypeAlias, assert_never

from aion_es.aggregates.pending_work import PendingWork
from aion_es.aggregates.status import WorkflowStatus, status_after
from aion_es.events import workflow as ev
from aion_es.events.values import (
    ActivityTimeouts,
    AttributeValue,
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

ActivityPhase: TypeAlias = Literal[
    "scheduled", "started", "backoff", "completed", "failed", "cancelled"
]
"""Pending: `scheduled`, `started`, `backoff`. Settled: `completed`, `failed` (for good), `cancelled`."""

ChildPhase: TypeAlias = Literal["started", "completed", "failed", "cancelled"]


@dataclass(slots=True)
class ActivityState:
    """One activity of the run.

    Attributes:
        scheduled_place: How many events of the run were recorded before it was scheduled.
        input: What it is called with; let go (`NOTHING`) once it completed. One that failed or was cancelled
            keeps it, because reopening the run may call it again.
        scheduled_at: When it was scheduled, or reopened: `schedule_to_close` counts from here.
        attempt: Number of the last attempt that is recorded; 0 for none.
        worker: Who runs that attempt.
        retry_at: When the next attempt is due; set in phase `backoff` only.
        cancel_requested: The code no longer wants it.
        cancel_place: How many events of the run were recorded before the code said so.
        failed_place: How many were before its last failure.
        first_attempt: Number of the first attempt since it was scheduled or last reopened: attempts go on
            counting up, and `max_attempts` counts from here.
        offered: Who scheduled it does not serve its queue.
        heartbeat_details: What the last failed attempt that said anything said last; let go once it
            completed or was cancelled.
    """

    activity_type: str
    task_queue: str
    retry: RetryPolicy
    timeouts: ActivityTimeouts
    heartbeat: timedelta | None
    input: Payload
    scheduled_at: datetime
    scheduled_place: int
    attempt: int = 0
    phase: ActivityPhase = "scheduled"
    worker: str = ""
    retry_at: datetime | None = None
    cancel_requested: bool = False
    cancel_place: int = -1
    failed_place: int = -1
    first_attempt: int = 1
    offered: bool = False
    heartbeat_details: Payload | None = None

    @property
    def is_pending(self) -> bool:
        """True until it has a final outcome."""
        return self.phase in _PENDING


_PAUSED = WorkflowStatus.PAUSED  # a member looked up in its class costs ten times a global
_PENDING = frozenset({"scheduled", "started", "backoff"})


@dataclass(slots=True)
class ChildState:
    """One child of the run.

    Attributes:
        started_place: How many events of the run were recorded before it was started.
        request: What it is started with; let go once it completed.
        cancel_requested: Why the code no longer wants it; `None` if it does.
        cancel_place: How many events of the run were recorded before the code said so.
        end_place: How many were before its last end was; -1 if it never had one. A child that is waited for
            again has one.
    """

    workflow_type: str
    parent_close: ParentClose
    started_place: int
    task_queue: str = DEFAULT_TASK_QUEUE
    phase: ChildPhase = "started"
    request: ev.ChildWorkflowStarted | None = None
    cancel_requested: str | None = None
    cancel_place: int = -1
    end_place: int = -1


@dataclass(slots=True)
class WorkflowState:
    """What is known of the current run. Belongs to `evolve`: others read it.

    Attributes:
        first_run_id: The run that began the chain of continue-as-new.
        parent_run_id: The run that continued as this one.
        started_revision: Place in the stream of the run's WorkflowStarted.
        run_timeout: Length from start to `run_deadline`; a successor gets the same.
        run_deadline: From here on the run is timed out. Gone if it had passed when the run was reopened.
        execution_deadline: The same over the chain.
        request_id: Of the start; carried along the chain, so that a repeated start finds its chain.
        attributes: Search attributes as they are now.
        activities: Every activity of the run, in the order of scheduling.
        pending: Which activities and children have no outcome yet.
        live_timers: When each armed timer is due, in the order of arming.
        torn_timers: Timers that ended with the run, and are armed again if it is reopened.
        timers_started: Every timer name that was ever armed in this run, and how many of its events were
            recorded before it was armed last.
        timeouts_decided: Timers whose `with_timeout` is decided.
        unread_signals: Received or carried, and not yet read by the code, in the order of arrival.
        signal_ids: Of every signal that reached this run, and of the newest that its predecessors read; in
            the order of arrival.
        sent_signals: Every signal that the run sent, until its delivery is known: then how that ended.
        cancel_requested: The reason that was given (perhaps empty), `None` if nobody asked.
        cancel_place: How many events of the run were recorded before it was asked to end.
        terminal: The event that closed the run, `None` while it is open.
        end_place: How many events of the run were recorded before it ended last.
        ended_at: When it ended last; `None` if it never did.
        reopened_at: When it was reopened last; `None` if it never was.
        requests: Request ids of attribute updates that were applied.
        patches: Names of the patch markers that were recorded.
    """

    workflow_id: WorkflowId
    run_id: RunId
    first_run_id: RunId
    parent_run_id: RunId | None
    workflow_type: str
    package_version: str
    task_queue: str
    started_at: datetime
    started_revision: int
    status: WorkflowStatus
    run_timeout: timedelta | None
    run_deadline: datetime | None
    execution_deadline: datetime | None
    parent: WorkflowRef | None
    schedule_id: ScheduleId | None
    request_id: str | None
    memo: Payload | None
    code_hash: str | None
    attributes: dict[str, AttributeValue]
    activities: dict[ActivityId, ActivityState]
    pending: PendingWork
    live_timers: dict[TimerId, datetime]
    torn_timers: dict[TimerId, datetime]
    timers_started: dict[TimerId, int]
    timeouts_decided: set[TimerId]
    unread_signals: dict[SignalId, SignalMessage]
    signal_ids: dict[SignalId, None]
    sent_signals: dict[SignalId, ev.SignalSent | Literal["delivered", "failed"]]
    children: dict[WorkflowId, ChildState]
    cancel_requested: str | None
    cancel_place: int
    terminal: ev.TerminalEvent | None
    end_place: int
    ended_at: datetime | None
    reopened_at: datetime | None
    requests: set[str]
    patches: set[str]

    @property
    def is_open(self) -> bool:
        """True until a terminal event is recorded, and again after a reopening."""
        return self.terminal is None

    @property
    def paused(self) -> bool:
        """True between WorkflowPaused and what ends the pause."""
        return self.status is _PAUSED


def evolve(
    state: WorkflowState | None,
    event: ev.WorkflowEvent,
    *,
    workflow_id: WorkflowId,
    at: datetime,
    revision: int,
) -> WorkflowState:
    """Return the state after `event`. Changes `state` in place, except that a WorkflowStarted makes a new one.

    Args:
        state: Before the event; `None` before the first.
        event: What happened.
        workflow_id: Whose history this is.
        at: When it was recorded, UTC.
        revision: Its place in the stream.
    """
    if state is None:
        if isinstance(event, ev.WorkflowStarted):
            return _started(event, workflow_id, at, revision)
        state = _cut_off(workflow_id, at, revision)
    match event:  # what is frequent comes first: the patterns are tried one after the other
        case ev.ActivityCompleted():
            _completed(state, event)
        case ev.ActivityStarted():
            _begun(state, event)
        case ev.ActivityScheduled():
            _scheduled(state, event, at, revision)
        case ev.WorkflowStarted():
            return _started(event, workflow_id, at, revision)
        case ev.ActivityFailed() | ev.ActivityCancelRequested() | ev.ActivityCancelled():
            _activity(state, event, revision)
        case ev.TimerStarted() | ev.TimerFired() | ev.TimerCancelled() | ev.WithTimeoutCompleted():
            _timer(state, event, revision)
        case ev.SignalReceived() | ev.SignalSent() | ev.SignalDelivered() | ev.SignalSendFailed():
            _signal(state, event)
        case (
            ev.ChildWorkflowStarted()
            | ev.ChildWorkflowCancelRequested()
            | ev.ChildWorkflowCompleted()
            | ev.ChildWorkflowFailed()
            | ev.ChildWorkflowCancelled()
        ):
            _child(state, event, revision)
        case ev.MarkerRecorded() | ev.SearchAttributesUpdated():
            _note(state, event)
        case _:
            _lifecycle(state, event, at, revision)
    return state


def _started(
    event: ev.WorkflowStarted, workflow_id: WorkflowId, at: datetime, revision: int
) -> WorkflowState:
    carried = {signal.signal_id: signal for signal in event.carried_signals}
    return WorkflowState(
        workflow_id=workflow_id,
        run_id=event.run_id,
        first_run_id=event.first_run_id,
        parent_run_id=event.parent_run_id,
        workflow_type=event.workflow_type,
        package_version=event.package_version,
        task_queue=event.task_queue,
        started_at=at,
        started_revision=revision,
        status=WorkflowStatus.RUNNING,
        run_timeout=None if event.run_deadline is None else event.run_deadline - at,
        run_deadline=event.run_deadline,
        execution_deadline=event.execution_deadline,
        parent=event.parent,
        schedule_id=event.schedule_id,
        request_id=event.request_id,
        memo=event.memo,
        code_hash=event.code_hash,
        attributes=dict(event.attributes),
        activities={},
        pending=PendingWork(),
        live_timers={},
        torn_timers={},
        timers_started={},
        timeouts_decided=set(),
        unread_signals=carried,
        signal_ids=dict.fromkeys((*event.read_signals, *carried)),
        sent_signals={},
        children={},
        cancel_requested=None,
        cancel_place=-1,
        terminal=None,
        end_place=-1,
        ended_at=None,
        reopened_at=None,
        requests=set(),
        patches=set(),
    )


def _cut_off(workflow_id: WorkflowId, at: datetime, revision: int) -> WorkflowState:
    """Return the state of a run whose beginning cannot be read: the stream's limits hide it."""
    unknown = ev.WorkflowStarted(
        workflow_type="", run_id=RunId(""), first_run_id=RunId(""), package_version=""
    )
    return _started(unknown, workflow_id, at, revision)


def _scheduled(
    state: WorkflowState, event: ev.ActivityScheduled, at: datetime, revision: int
) -> None:
    state.pending.apply(event)
    state.activities[event.activity_id] = ActivityState(
        event.activity_type,
        event.task_queue,
        event.retry,
        event.timeouts,
        event.heartbeat,
        event.input,
        at,
        revision - state.started_revision,
        offered=event.offered,
    )


def _begun(state: WorkflowState, event: ev.ActivityStarted) -> None:
    state.pending.apply(event)
    activity = state.activities.get(event.activity_id)
    if activity is not None:
        activity.attempt = event.attempt
        activity.phase = "started"
        activity.worker = event.worker
        activity.retry_at = None


def _completed(state: WorkflowState, event: ev.ActivityCompleted) -> None:
    state.pending.apply(event)
    activity = state.activities.get(event.activity_id)
    if activity is not None:
        activity.attempt = event.attempt
        activity.phase = "completed"
        activity.retry_at = None
        _let_go(activity)


def _activity(
    state: WorkflowState,
    event: ev.ActivityFailed | ev.ActivityCancelRequested | ev.ActivityCancelled,
    revision: int,
) -> None:
    state.pending.apply(event)
    activity = state.activities.get(event.activity_id)
    if activity is None:
        return
    match event:
        case ev.ActivityFailed():
            activity.attempt = event.attempt
            activity.phase = "failed" if event.retry_at is None else "backoff"
            activity.retry_at = event.retry_at
            activity.failed_place = revision - state.started_revision
            if event.heartbeat_details is not None:
                activity.heartbeat_details = event.heartbeat_details
        case ev.ActivityCancelRequested():
            activity.cancel_requested = True
            activity.cancel_place = revision - state.started_revision
        case ev.ActivityCancelled():
            activity.attempt = event.attempt
            activity.phase = "cancelled"
            activity.retry_at = None
            activity.heartbeat_details = None
        case _:
            assert_never(event)


def _let_go(activity: ActivityState) -> None:
    """Forget what it is called with: it never is again, and a long history must not hold every input."""
    activity.input = NOTHING
    activity.heartbeat_details = None


def _timer(
    state: WorkflowState,
    event: ev.TimerStarted | ev.TimerFired | ev.TimerCancelled | ev.WithTimeoutCompleted,
    revision: int,
) -> None:
    timer_id = event.timer_id
    match event:
        case ev.TimerStarted():
            state.live_timers[timer_id] = event.fire_at
            state.timers_started[timer_id] = revision - state.started_revision
            state.timeouts_decided.discard(timer_id)  # the name is used anew
        case ev.TimerFired():
            state.live_timers.pop(timer_id, None)
        case ev.TimerCancelled():
            fire_at = state.live_timers.pop(timer_id, None)
            if event.cause == "teardown" and fire_at is not None:
                state.torn_timers[timer_id] = fire_at
        case ev.WithTimeoutCompleted():
            state.timeouts_decided.add(timer_id)
        case _:
            assert_never(event)


def _signal(
    state: WorkflowState,
    event: ev.SignalReceived | ev.SignalSent | ev.SignalDelivered | ev.SignalSendFailed,
) -> None:
    match event:
        case ev.SignalReceived():
            state.signal_ids[event.signal_id] = None
            state.unread_signals[event.signal_id] = SignalMessage.model_construct(
                signal_id=event.signal_id,
                name=event.name,
                payload=event.payload,
                sender=event.sender,
            )
        case ev.SignalSent():
            state.sent_signals[event.signal_id] = event
        case ev.SignalDelivered():
            state.sent_signals[event.signal_id] = "delivered"
        case ev.SignalSendFailed():
            state.sent_signals[event.signal_id] = "failed"
        case _:
            assert_never(event)


def _child(
    state: WorkflowState,
    event: ev.ChildWorkflowStarted
    | ev.ChildWorkflowCancelRequested
    | ev.ChildWorkflowCompleted
    | ev.ChildWorkflowFailed
    | ev.ChildWorkflowCancelled,
    revision: int,
) -> None:
    state.pending.apply(event)
    place = revision - state.started_revision
    if isinstance(event, ev.ChildWorkflowStarted):
        state.children[event.child_workflow_id] = ChildState(
            event.workflow_type, event.parent_close, place, event.task_queue, request=event
        )
        return
    child = state.children.get(event.child_workflow_id)
    if child is None:
        return
    if isinstance(event, ev.ChildWorkflowCancelRequested):
        child.cancel_requested = event.reason
        child.cancel_place = place
        return
    child.end_place = place
    match event:
        case ev.ChildWorkflowCompleted():
            child.phase, child.request = "completed", None
        case ev.ChildWorkflowFailed():
            child.phase = "failed"
        case ev.ChildWorkflowCancelled():
            child.phase = "cancelled"
        case _:
            assert_never(event)


def _note(state: WorkflowState, event: ev.MarkerRecorded | ev.SearchAttributesUpdated) -> None:
    match event:
        case ev.MarkerRecorded():
            if event.kind == "patch":
                state.patches.add(event.name)
        case ev.SearchAttributesUpdated():
            _attributes(state, event)
        case _:
            assert_never(event)


def _attributes(state: WorkflowState, event: ev.SearchAttributesUpdated) -> None:
    for name, value in event.attributes.items():
        if value is None:
            state.attributes.pop(name, None)
        else:
            state.attributes[name] = value
    if event.request_id is not None:
        state.requests.add(event.request_id)


def _lifecycle(
    state: WorkflowState,
    event: ev.TerminalEvent
    | ev.WorkflowPaused
    | ev.WorkflowResumed
    | ev.WorkflowReopened
    | ev.WorkflowCancelRequested,
    at: datetime,
    revision: int,
) -> None:
    state.status = status_after(event) or state.status
    match event:
        case (
            ev.WorkflowCompleted()
            | ev.WorkflowFailed()
            | ev.WorkflowCancelled()
            | ev.WorkflowTerminated()
            | ev.WorkflowTimedOut()
            | ev.WorkflowContinuedAsNew()
        ):
            state.terminal = event
            state.end_place = revision - state.started_revision
            state.ended_at = at
            state.torn_timers.update(state.live_timers)
            state.live_timers.clear()
        case ev.WorkflowCancelRequested():
            state.cancel_requested = event.reason
            state.cancel_place = revision - state.started_revision
        case ev.WorkflowReopened():
            _reopened(state, event, at)
        case ev.WorkflowPaused() | ev.WorkflowResumed():
            pass  # the status says it all
        case _:
            assert_never(event)


def _reopened(state: WorkflowState, event: ev.WorkflowReopened, at: datetime) -> None:
    void = event.taken_back or TakenBack(since=0)
    state.pending.apply(event)
    state.terminal = None
    state.reopened_at = at
    if state.cancel_place >= void.since:
        state.cancel_requested = None
    live = {t: due for t, due in state.torn_timers.items() if t not in void.timers}
    state.live_timers.update(live)
    state.torn_timers.clear()
    # A deadline that has passed would close the run again at once, and reopening would mean nothing.
    if state.run_deadline is not None and state.run_deadline <= at:
        state.run_deadline = None
    if state.execution_deadline is not None and state.execution_deadline <= at:
        state.execution_deadline = None
    for activity_id, activity in state.activities.items():
        if activity_id in void.activities:
            activity.phase = "cancelled"
            activity.retry_at = None
            _let_go(activity)
        elif activity_id in event.reopened or activity.is_pending:
            # What the end of the run interrupted is driven again, as is what had failed.
            activity.phase = "scheduled"
            activity.first_attempt = activity.attempt + 1
            activity.scheduled_at = at
            activity.retry_at = None
            if activity.cancel_place >= void.since:
                activity.cancel_requested = False
    if event.taken_back is None:
        return
    for child_id, child in state.children.items():
        if child_id in void.awaited:
            child.phase = "started"
        if child.phase == "started" and child.cancel_place >= void.since:
            child.cancel_requested = None

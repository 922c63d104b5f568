"""The workflow aggregate: every command that may change a run, guarded, as a pure decision on its state."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Concatenate, Literal, ParamSpec, TypeAlias

from aion_es.aggregates import (
    activities,
    attributes,
    children,
    continue_as_new,
    lifecycle,
    markers,
    reopening,
    signals,
    timers,
)
from aion_es.aggregates.aggregate import Aggregate
from aion_es.aggregates.attributes import AttributeSchema
from aion_es.aggregates.guards import require_utc
from aion_es.aggregates.history_size import HistorySize
from aion_es.aggregates.lifecycle import StartWorkflow
from aion_es.aggregates.state import WorkflowState, evolve
from aion_es.errors import WorkflowNotFoundError
from aion_es.events.metadata import Envelope
from aion_es.events.values import (
    ActivityFailure,
    ActivityTimeouts,
    AttributeUpdate,
    AttributeValue,
    Failure,
    ParentClose,
    RetryPolicy,
    SignalMessage,
)
from aion_es.events.workflow import WorkflowEvent, WorkflowStarted
from aion_es.ids import (
    DEFAULT_TASK_QUEUE,
    ActivityId,
    RunId,
    SignalId,
    TimerId,
    WorkflowId,
    check_id,
)
from aion_es.payload import NOTHING, Payload

P = ParamSpec("P")
Events: TypeAlias = tuple[WorkflowEvent, ...]

_NO_ATTRIBUTES: Mapping[str, AttributeValue] = {}


class Workflow(Aggregate[WorkflowEvent]):
    """One workflow id: the state of its current run, and the commands that may change it.

    Every command takes `at`, the present instant in UTC, and returns the events that it adds, which are
    then in `uncommitted` too; a command that has already had its effect returns `()`. It raises, and
    changes nothing, with these on every command that does not say otherwise:

    - `InvalidArgumentError`: `at` is naive or not in UTC.
    - `WorkflowNotFoundError`: no run was ever started under this id.
    - `RunClosedError`: the run has recorded a terminal event.
    - `RunNotFoundError`: a `run_id` is given that is not the current one. (`RunClosedError`, if it is
      known to be an earlier run of the chain.)
    - `ActivityNotFoundError`: the run never scheduled the activity that is named.
    - `StaleAttemptError`: the attempt that is named is not the one that runs or is awaited, or another
      worker has it.
    - `ChildNotFoundError`: the run has no such child.

    Attributes:
        workflow_id: Whose history this is.
        schema: The search attributes that may be set.
    """

    __slots__ = ("_size", "_state", "schema", "workflow_id")

    def __init__(self, workflow_id: WorkflowId, *, schema: AttributeSchema | None = None) -> None:
        """Begin with no history.

        Args:
            workflow_id: 1–255 printable characters.
            schema: Default: an empty one, which refuses every search attribute.

        Raises:
            InvalidIdError: The id has another form.
        """
        super().__init__(check_id("workflow_id", workflow_id))
        self.workflow_id = workflow_id
        self.schema = schema if schema is not None else AttributeSchema()
        self._state: WorkflowState | None = None
        self._size = HistorySize()

    @property
    def exists(self) -> bool:
        """True once a run was started, also if it is closed."""
        return self._state is not None

    @property
    def state(self) -> WorkflowState:
        """The current run. Read it; only events change it.

        Raises:
            WorkflowNotFoundError: No run was ever started.
        """
        if self._state is None:
            raise WorkflowNotFoundError(self.workflow_id)
        return self._state

    def mark_saved(self, revision: int, count: int | None = None) -> None:
        """Say that the first `count` uncommitted events (default: all) were appended, the last at `revision`."""
        appended = len(self.uncommitted) if count is None else count
        shift = revision - self.revision - appended
        if shift and self.state.started_revision > self.revision:
            # A deleted stream was begun again: its revisions go on where it ended.
            self.state.started_revision += shift
        if appended:
            self.data_of(appended - 1)  # encoded for the append; if not, now
            self._add_sizes([len(data) for data in self._encoded[:appended]], revision)
        super().mark_saved(revision, appended)

    def replay(self, envelope: Envelope[WorkflowEvent]) -> None:
        """Take in one recorded event; they come in the order of the stream."""
        super().replay(envelope)
        if type(envelope.event) is WorkflowStarted:
            self._size.clear()
        self._size.add((envelope.size,))

    def history_bytes(self, length: int) -> int:
        """Return the bytes of the data of the first `length` events of the current run, uncommitted ones included.

        It follows from the events alone: before and after their append, and read again, it is the same.
        """
        started = self.state.started_revision
        recorded = max(0, self.revision - started + 1)
        if length <= recorded:
            return self._size.of_first(max(0, length))
        # Uncommitted ones before the first are of an earlier run.
        first = max(0, started - self.revision - 1)
        waiting = range(first, first + length - recorded)
        before = self._size.of_first(recorded) if recorded else 0
        return before + sum(len(self.data_of(ordinal)) for ordinal in waiting)

    def _add_sizes(self, sizes: list[int], revision: int) -> None:
        """Take in the sizes of what was recorded, up to `revision`; what is of an earlier run no longer counts."""
        own = revision - self.state.started_revision + 1
        if own <= len(sizes):
            self._size.clear()
            sizes = sizes[len(sizes) - max(0, own) :]
        self._size.add(sizes)

    def signal_read(self, signal_id: SignalId) -> None:
        """Say that the code took a signal: it is not carried into the next run. Not an event; replay repeats it."""
        self.state.unread_signals.pop(signal_id, None)

    # ------------------------------------------------------------------------------ lifecycle

    def start(self, command: StartWorkflow, *, at: datetime) -> Events:
        """Start a run, in one event that carries its search attributes too.

        The same `request_id`, or `run_id`, as the current run's adds nothing: `state` is the run that it
        started. A request id is handed on by continue-as-new, so a repeated start finds its chain.

        Raises:
            WorkflowAlreadyStartedError: A run is open and `on_conflict` is `fail`, or the last one is closed
                and `reuse` does not let its id go.
            WorkflowTypeNotFoundError: The type is not routed.
            UnregisteredAttributeError, AttributeTypeError: A search attribute is unknown or mistyped.
            InvalidArgumentError: A timeout is not positive.
        """
        at = require_utc("at", at)
        events = lifecycle.start(self._state, self.workflow_id, self.schema, command, at)
        return self._record(events, at)

    def complete(self, result: Payload = NOTHING, *, at: datetime) -> Events:
        """Close the run with its result."""
        return self._do(at, lifecycle.complete, result)

    def fail(
        self,
        error: Failure,
        failed_activities: tuple[ActivityId, ...] = (),
        failed_children: tuple[WorkflowId, ...] = (),
        *,
        at: datetime,
    ) -> Events:
        """Close the run with what its code raised, and the activities and children whose failure that came from."""
        return self._do(at, lifecycle.fail, error, failed_activities, failed_children)

    def time_out(self, timeout: Literal["run", "execution"], *, at: datetime) -> Events:
        """Close the run because its deadline, or its chain's, passed."""
        return self._do(at, lifecycle.time_out, timeout)

    def request_cancel(
        self,
        reason: str = "",
        operator: str | None = None,
        *,
        run_id: str | None = None,
        at: datetime,
    ) -> Events:
        """Ask the run to end; its code sees it and may clean up. Asked again, it adds nothing."""
        return self._do(at, lifecycle.request_cancel, reason, operator, run_id)

    def cancel(self, reason: str = "", *, at: datetime) -> Events:
        """Close the run as Cancelled, after a TimerCancelled(teardown) for each live timer."""
        return self._do(at, lifecycle.cancel, reason)

    def terminate(
        self,
        reason: str = "",
        operator: str | None = None,
        *,
        run_id: str | None = None,
        at: datetime,
    ) -> Events:
        """Close the run without asking its code."""
        return self._do(at, lifecycle.terminate, reason, operator, run_id)

    def continue_as_new(
        self,
        input: Payload,
        *,
        package_version: str | None,
        at: datetime,
        workflow_type: str | None = None,
        run_id: str | None = None,
        new_run_id: RunId | None = None,
        code_hash: str | None = None,
    ) -> Events:
        """Close the run and start its successor: WorkflowContinuedAsNew, WorkflowStarted, for one append.

        The successor gets the search attributes, the unread signals, memo, parent, schedule, task queue
        and request id of the run, a run deadline of the same length, and the chain's execution deadline.

        Args:
            input: Of the successor.
            package_version: The version that is routed now; `None` if the type is not routed.
            at: Now.
            workflow_type: If given, must be the type of the run.
            run_id: If given, must be the current run.
            new_run_id: Default: derived from the run's id, so that no run has two successors.
            code_hash: Content hash of the version's code, for information only.

        Raises:
            ContinueAsNewError: `workflow_type` is another one.
            WorkflowTypeNotFoundError: The type is not routed.
            PendingWorkError: Activities or children have no outcome yet; the run stays as it is.
        """
        return self._do(
            at,
            continue_as_new.continue_as_new,
            input,
            package_version,
            workflow_type,
            run_id,
            new_run_id,
            code_hash,
            at,
        )

    def pause(
        self,
        reason: str | None = None,
        operator: str | None = None,
        *,
        run_id: str | None = None,
        at: datetime,
    ) -> Events:
        """Hold a Running run; facts are still recorded.

        Raises:
            InvalidStateError: It is Paused.
        """
        return self._do(at, lifecycle.pause, reason, operator, run_id)

    def resume(
        self,
        reason: str | None = None,
        operator: str | None = None,
        *,
        run_id: str | None = None,
        at: datetime,
    ) -> Events:
        """Let a Paused run go on.

        Raises:
            InvalidStateError: It is not Paused.
        """
        return self._do(at, lifecycle.resume, reason, operator, run_id)

    def reopen(
        self, operator: str | None = None, *, run_id: str | None = None, at: datetime
    ) -> Events:
        """Take a closed run back to Running, with exactly the activities that failed for good, or were cancelled by it.

        Raises:
            InvalidStateError: It is neither Failed, TimedOut, Cancelled nor Terminated.
        """
        return self._do(at, reopening.reopen, operator, run_id)

    # ----------------------------------------------------------------------------- activities

    def schedule_activity(
        self,
        activity_id: ActivityId,
        activity_type: str,
        input: Payload = NOTHING,
        *,
        task_queue: str = DEFAULT_TASK_QUEUE,
        retry: RetryPolicy = activities.DEFAULT_RETRY,
        timeouts: ActivityTimeouts = activities.NO_TIMEOUTS,
        heartbeat: timedelta | None = None,
        offered: bool = False,
        summary: str = "",
        at: datetime,
    ) -> Events:
        """Ask for an activity. The same id with the same type and queue again adds nothing.

        With `offered`, whoever serves its queue takes it up: the engine that asks does not.

        Raises:
            InvalidArgumentError: The id is negative, or taken by another activity.
        """
        return self._do(
            at,
            activities.schedule_activity,
            activity_id,
            activity_type,
            input,
            task_queue,
            retry,
            timeouts,
            heartbeat,
            offered,
            summary,
        )

    def start_activity(
        self, activity_id: ActivityId, attempt: int, worker: str = "", *, at: datetime
    ) -> Events:
        """Begin the next attempt. The same worker beginning it again adds nothing."""
        return self._do(at, activities.start_activity, activity_id, attempt, worker)

    def complete_activity(
        self,
        activity_id: ActivityId,
        attempt: int,
        result: Payload = NOTHING,
        *,
        worker: str = "",
        at: datetime,
    ) -> Events:
        """Settle an activity with its result. The same outcome of the same attempt again adds nothing.

        A first attempt that is not yet recorded as started is so now, by `worker`.
        """
        return self._do(at, activities.complete_activity, activity_id, attempt, result, worker)

    def fail_activity(
        self,
        activity_id: ActivityId,
        attempt: int,
        error: ActivityFailure,
        *,
        heartbeat_details: Payload | None = None,
        worker: str = "",
        at: datetime,
    ) -> Events:
        """Record a failed attempt. Repeats and a first attempt are taken as by `complete_activity`.

        `retry_at` is set, and the activity stays pending, unless the error is terminal or of a type in
        `non_retryable`, no attempt is left, the code asked to cancel, or the next attempt would begin
        past `schedule_to_close`. The next attempt is told `heartbeat_details`, what this one said last.
        """
        return self._do(
            at,
            activities.fail_activity,
            activity_id,
            attempt,
            error,
            heartbeat_details,
            worker,
            at,
        )

    def cancel_activity(self, activity_id: ActivityId, attempt: int, *, at: datetime) -> Events:
        """Settle an activity without an outcome; `attempt` is the one that runs or is awaited."""
        return self._do(at, activities.cancel_activity, activity_id, attempt)

    def request_cancel_activity(self, activity_id: ActivityId, *, at: datetime) -> Events:
        """Say that the code no longer wants an activity. Of a settled one, or again, adds nothing."""
        return self._do(at, activities.request_cancel_activity, activity_id)

    def heartbeat_timeout(
        self,
        activity_id: ActivityId,
        attempt: int,
        *,
        heartbeat_details: Payload | None = None,
        worker: str = "",
        at: datetime,
    ) -> Events:
        """Fail the running attempt: it was silent for too long. The retry policy decides what follows."""
        return self._do(
            at,
            activities.time_out_attempt,
            activity_id,
            attempt,
            activities.HEARTBEAT_TIMEOUT,
            heartbeat_details,
            worker,
            at,
        )

    def start_to_close_timeout(
        self,
        activity_id: ActivityId,
        attempt: int,
        *,
        heartbeat_details: Payload | None = None,
        worker: str = "",
        at: datetime,
    ) -> Events:
        """Fail the running attempt: it took too long. The retry policy decides what follows."""
        return self._do(
            at,
            activities.time_out_attempt,
            activity_id,
            attempt,
            activities.START_TO_CLOSE_TIMEOUT,
            heartbeat_details,
            worker,
            at,
        )

    def schedule_to_start_timeout(
        self, activity_id: ActivityId, attempt: int, *, at: datetime
    ) -> Events:
        """Fail an attempt that nobody began in time; once it has begun, adds nothing."""
        return self._do(at, activities.schedule_to_start_timeout, activity_id, attempt, at)

    def schedule_to_close_timeout(
        self, activity_id: ActivityId, attempt: int, *, at: datetime
    ) -> Events:
        """Fail an activity for good: its time over all attempts is up."""
        return self._do(at, activities.schedule_to_close_timeout, activity_id, attempt)

    # --------------------------------------------------------------------------------- timers

    def start_timer(self, timer_id: TimerId, fire_at: datetime, *, at: datetime) -> Events:
        """Arm a timer that is due from `fire_at` (UTC) on.

        Raises:
            TimerAlreadyStartedError: A live timer has this name.
            InvalidArgumentError: `fire_at` is naive or not in UTC.
        """
        return self._do(at, timers.start_timer, timer_id, fire_at)

    def fire_timer(self, timer_id: TimerId, *, at: datetime) -> Events:
        """Fire a timer; one that is not live adds nothing."""
        return self._do(at, timers.fire_timer, timer_id)

    def cancel_timer(self, timer_id: TimerId, *, at: datetime) -> Events:
        """Disarm a timer; one that is not live adds nothing."""
        return self._do(at, timers.cancel_timer, timer_id)

    def complete_with_timeout(
        self,
        timer_id: TimerId,
        outcome: Literal["operation_completed", "timed_out"],
        result: Payload | None = None,
        *,
        at: datetime,
    ) -> Events:
        """Record what decided a `with_timeout`; decided once, it adds nothing.

        Raises:
            TimerNotStartedError: Its timer was never armed.
        """
        return self._do(at, timers.complete_with_timeout, timer_id, outcome, result)

    # -------------------------------------------------------------------------------- signals

    def receive_signal(
        self, signal: SignalMessage, *, run_id: str | None = None, at: datetime
    ) -> Events:
        """Take in a message; the same `signal_id` again adds nothing, also after the run closed."""
        return self._do(at, signals.receive_signal, signal, run_id)

    def send_signal(
        self,
        signal_id: SignalId,
        target_workflow_id: WorkflowId,
        name: str,
        payload: Payload = NOTHING,
        *,
        at: datetime,
    ) -> Events:
        """Send a message to another workflow; the same `signal_id` again adds nothing."""
        return self._do(at, signals.send_signal, signal_id, target_workflow_id, name, payload)

    def confirm_signal(self, signal_id: SignalId, *, at: datetime) -> Events:
        """Record that a message that this run sent has arrived; one whose fate is known adds nothing.

        Raises:
            InvalidArgumentError: The run sent no such message.
        """
        return self._do(at, signals.confirm_signal, signal_id)

    def fail_signal(self, signal_id: SignalId, reason: str, *, at: datetime) -> Events:
        """Record that a message that this run sent cannot be delivered.

        Raises:
            InvalidArgumentError: The run sent no such message.
        """
        return self._do(at, signals.fail_signal, signal_id, reason)

    # ------------------------------------------------------------------------------- children

    def start_child(
        self,
        child_workflow_id: WorkflowId,
        workflow_type: str,
        input: Payload = NOTHING,
        *,
        package_version: str | None,
        parent_close: ParentClose = "cancel",
        task_queue: str = DEFAULT_TASK_QUEUE,
        attributes: Mapping[str, AttributeValue] = _NO_ATTRIBUTES,
        at: datetime,
    ) -> Events:
        """Ask for a child.

        Raises:
            ChildAlreadyStartedError: This run has, or had, a child with this id.
            WorkflowTypeNotFoundError: `package_version` is `None`: the type is not routed.
            UnregisteredAttributeError, AttributeTypeError: A search attribute is unknown or mistyped.
        """
        return self._do(
            at,
            children.start_child,
            self.schema,
            child_workflow_id,
            workflow_type,
            input,
            package_version,
            parent_close,
            task_queue,
            attributes,
        )

    def request_cancel_child(
        self, child_workflow_id: WorkflowId, reason: str = "", *, at: datetime
    ) -> Events:
        """Say that the code no longer wants a child. Of a settled one, or again, adds nothing."""
        return self._do(at, children.request_cancel_child, child_workflow_id, reason)

    def complete_child(
        self, child_workflow_id: WorkflowId, result: Payload = NOTHING, *, at: datetime
    ) -> Events:
        """Record the child's result; a child that has an outcome adds nothing."""
        return self._do(at, children.complete_child, child_workflow_id, result)

    def fail_child(self, child_workflow_id: WorkflowId, error: Failure, *, at: datetime) -> Events:
        """Record the child's failure; a child that has an outcome adds nothing."""
        return self._do(at, children.fail_child, child_workflow_id, error)

    def cancel_child(
        self, child_workflow_id: WorkflowId, reason: str = "", *, at: datetime
    ) -> Events:
        """Record that the child ended as Cancelled; a child that has an outcome adds nothing."""
        return self._do(at, children.cancel_child, child_workflow_id, reason)

    # ----------------------------------------------------------------- attributes and markers

    def update_attributes(
        self,
        attributes: Mapping[str, AttributeUpdate],
        *,
        request_id: str | None = None,
        run_id: str | None = None,
        at: datetime,
    ) -> Events:
        """Set search attributes, `None` removes; the same `request_id` again adds nothing.

        Raises:
            UnregisteredAttributeError: A name is not registered.
            AttributeTypeError: A value has another type.
        """
        return self._do(at, _update_attributes, self.schema, attributes, request_id, run_id)

    def record_marker(
        self,
        kind: Literal["patch", "side_effect"],
        name: str,
        value: Payload | None = None,
        *,
        at: datetime,
    ) -> Events:
        """Record what the code learned; a patch of the same name again adds nothing."""
        return self._do(at, markers.record_marker, kind, name, value)

    # --------------------------------------------------------------------------------- within

    def _do(
        self,
        at: datetime,
        decide: Callable[Concatenate[WorkflowState, P], Events],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Events:
        at = require_utc("at", at)
        return self._record(decide(self.state, *args, **kwargs), at)

    def _evolve(self, event: WorkflowEvent, at: datetime, revision: int) -> RunId:
        state = self._state = evolve(
            self._state, event, workflow_id=self.workflow_id, at=at, revision=revision
        )
        return state.run_id


_update_attributes = attributes.update_attributes  # inside, `attributes` is the argument

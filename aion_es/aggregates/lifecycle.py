"""Decisions on the life of a run: start, end, cancel, pause."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal, TypeAlias

from aion_es.aggregates.attributes import AttributeSchema, start_attributes
from aion_es.aggregates.guards import require_open
from aion_es.aggregates.state import WorkflowState
from aion_es.aggregates.status import REOPENABLE
from aion_es.errors import (
    InvalidArgumentError,
    InvalidStateError,
    WorkflowAlreadyStartedError,
    WorkflowTypeNotFoundError,
)
from aion_es.events import workflow as ev
from aion_es.events.values import AttributeValue, Failure, WorkflowRef
from aion_es.events.workflow import WorkflowEvent
from aion_es.ids import DEFAULT_TASK_QUEUE, ActivityId, RunId, ScheduleId, WorkflowId
from aion_es.payload import NOTHING, Payload

OnConflict: TypeAlias = Literal["fail", "use_existing", "terminate_existing"]
"""What a start does when a run is open under its id."""
Reuse: TypeAlias = Literal["allow", "allow_if_failed", "reject"]
"""Whether an id may be taken again after its run closed."""

REPLACED = "replaced by a new run (terminate_existing)"


@dataclass(frozen=True, slots=True, kw_only=True)
class StartWorkflow:
    """What a run is started with.

    Attributes:
        package_version: The version of the code that is routed now; `None` if the type is not routed.
        run_id: Of the new run.
        parent: The run that starts this one as its child.
        run_timeout: From the start; a successor by continue-as-new gets the same length.
        execution_timeout: From the start, over the whole chain.
        attributes: Search attributes to begin with. They are recorded in WorkflowStarted itself.
        request_id: Makes the start idempotent.
        memo: Anything to keep beside the run.
        code_hash: Content hash of the code, for information only.
        on_conflict: If a run is open: `fail`, `use_existing` (add nothing), or `terminate_existing`.
        reuse: If the last run is closed: `allow`, `allow_if_failed` (it did not complete), or `reject`.
    """

    workflow_type: str
    package_version: str | None
    run_id: RunId
    input: Payload = NOTHING
    task_queue: str = DEFAULT_TASK_QUEUE
    parent: WorkflowRef | None = None
    schedule_id: ScheduleId | None = None
    run_timeout: timedelta | None = None
    execution_timeout: timedelta | None = None
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict[str, AttributeValue])
    request_id: str | None = None
    memo: Payload | None = None
    code_hash: str | None = None
    on_conflict: OnConflict = "fail"
    reuse: Reuse = "allow"


def start(
    state: WorkflowState | None,
    workflow_id: WorkflowId,
    schema: AttributeSchema,
    command: StartWorkflow,
    at: datetime,
) -> tuple[WorkflowEvent, ...]:
    """Start a run, unless the same request has; replaces an open run only if that is asked for."""
    if state is not None and _is_repeated(state, command):
        return ()
    if command.package_version is None:
        raise WorkflowTypeNotFoundError(command.workflow_type)
    started = _started(command, command.package_version, schema, at)
    if state is None:
        return (started,)
    if state.is_open:
        return _on_conflict(state, command, started)
    if command.reuse == "allow" or (
        command.reuse == "allow_if_failed" and state.status in REOPENABLE
    ):
        return (started,)
    raise WorkflowAlreadyStartedError(workflow_id, state.run_id, state.status)


def _is_repeated(state: WorkflowState, command: StartWorkflow) -> bool:
    """A start is known again by its request id, and by the run id that it made."""
    return command.run_id == state.run_id or (
        command.request_id is not None and command.request_id == state.request_id
    )


def _on_conflict(
    state: WorkflowState, command: StartWorkflow, started: ev.WorkflowStarted
) -> tuple[WorkflowEvent, ...]:
    if command.on_conflict == "use_existing":
        return ()
    if command.on_conflict == "terminate_existing":
        return (ev.WorkflowTerminated(reason=REPLACED), started)
    raise WorkflowAlreadyStartedError(state.workflow_id, state.run_id, state.status)


def _started(
    command: StartWorkflow, version: str, schema: AttributeSchema, at: datetime
) -> ev.WorkflowStarted:
    return ev.WorkflowStarted(
        workflow_type=command.workflow_type,
        input=command.input,
        run_id=command.run_id,
        first_run_id=command.run_id,
        package_version=version,
        task_queue=command.task_queue,
        parent=command.parent,
        schedule_id=command.schedule_id,
        run_deadline=deadline("run_timeout", command.run_timeout, at),
        execution_deadline=deadline("execution_timeout", command.execution_timeout, at),
        attributes=start_attributes(schema, command.attributes) if command.attributes else {},
        request_id=command.request_id,
        memo=command.memo,
        code_hash=command.code_hash,
    )


def deadline(name: str, timeout: timedelta | None, at: datetime) -> datetime | None:
    """Return when a timeout ends that begins at `at`; `None` for none.

    Raises:
        InvalidArgumentError: It is not positive, or ends past the year 9999; names `name`.
    """
    if timeout is None:
        return None
    if timeout <= timedelta(0):
        raise InvalidArgumentError(name, f"must be positive, got {timeout}")
    try:
        return at + timeout
    except OverflowError as error:
        raise InvalidArgumentError(name, f"ends past the year 9999, got {timeout}") from error


def complete(state: WorkflowState, result: Payload) -> tuple[WorkflowEvent, ...]:
    """Close an open run with its result; live timers are settled by the fold."""
    require_open(state)
    return (ev.WorkflowCompleted(result=result),)


def fail(
    state: WorkflowState,
    error: Failure,
    failed_activities: tuple[ActivityId, ...],
    failed_children: tuple[WorkflowId, ...],
) -> tuple[WorkflowEvent, ...]:
    """Close an open run with what its code raised."""
    require_open(state)
    return (
        ev.WorkflowFailed(
            error=error, failed_activities=failed_activities, failed_children=failed_children
        ),
    )


def time_out(
    state: WorkflowState, timeout: Literal["run", "execution"]
) -> tuple[WorkflowEvent, ...]:
    """Close an open run whose deadline passed."""
    require_open(state)
    return (ev.WorkflowTimedOut(timeout=timeout),)


def request_cancel(
    state: WorkflowState, reason: str, operator: str | None, run_id: str | None
) -> tuple[WorkflowEvent, ...]:
    """Ask an open run to end; asked once, it is asked."""
    require_open(state, run_id)
    if state.cancel_requested is not None:
        return ()
    return (ev.WorkflowCancelRequested(reason=reason, operator=operator),)


def cancel(state: WorkflowState, reason: str) -> tuple[WorkflowEvent, ...]:
    """Close an open run as Cancelled; its live timers are torn down first, so that reopening re-arms them."""
    require_open(state)
    torn_down = (ev.TimerCancelled(timer_id=t, cause="teardown") for t in state.live_timers)
    return (*torn_down, ev.WorkflowCancelled(reason=reason))


def terminate(
    state: WorkflowState, reason: str, operator: str | None, run_id: str | None
) -> tuple[WorkflowEvent, ...]:
    """Close an open run without asking its code."""
    require_open(state, run_id)
    return (ev.WorkflowTerminated(reason=reason, operator=operator),)


def pause(
    state: WorkflowState, reason: str | None, operator: str | None, run_id: str | None
) -> tuple[WorkflowEvent, ...]:
    """Hold a Running run."""
    require_open(state, run_id)
    if state.paused:
        raise InvalidStateError(state.workflow_id, state.status, "pause")
    return (ev.WorkflowPaused(run_id=state.run_id, reason=reason, operator=operator),)


def resume(
    state: WorkflowState, reason: str | None, operator: str | None, run_id: str | None
) -> tuple[WorkflowEvent, ...]:
    """Let a Paused run go on."""
    require_open(state, run_id)
    if not state.paused:
        raise InvalidStateError(state.workflow_id, state.status, "resume")
    return (ev.WorkflowResumed(run_id=state.run_id, reason=reason, operator=operator),)

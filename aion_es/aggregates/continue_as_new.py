"""The decision to close a run and begin its successor, in one append."""

import uuid
from datetime import datetime
from typing import Final

from aion_es.aggregates.guards import require_open, require_run
from aion_es.aggregates.state import WorkflowState
from aion_es.errors import ContinueAsNewError, PendingWorkError, WorkflowTypeNotFoundError
from aion_es.events.workflow import WorkflowContinuedAsNew, WorkflowEvent, WorkflowStarted
from aion_es.ids import RunId, SignalId
from aion_es.payload import Payload

_SUCCESSORS = uuid.UUID("3f1d8c5e-1f0b-5c43-8a39-5f6f1e0c7a52")

MAX_READ_SIGNALS: Final = 128
"""How many ids of read signals a run hands on. A signal is sent again within seconds of the first time, if at all;
so many ids cost less than 5 KiB in each run of a chain."""


def successor_of(run_id: RunId) -> RunId:
    """Return the id of the run that continues `run_id`: one and the same, whoever asks and how often."""
    return RunId(str(uuid.uuid5(_SUCCESSORS, run_id)))


def continue_as_new(
    state: WorkflowState,
    input: Payload,
    package_version: str | None,
    workflow_type: str | None,
    run_id: str | None,
    new_run_id: RunId | None,
    code_hash: str | None,
    at: datetime,
) -> tuple[WorkflowEvent, ...]:
    """Close the current run and start its successor with what the run hands over."""
    require_run(state, run_id)
    if workflow_type is not None and workflow_type != state.workflow_type:
        raise ContinueAsNewError(
            "must restart the same workflow type: "
            f"current={state.workflow_type}, requested={workflow_type}"
        )
    if package_version is None:
        raise WorkflowTypeNotFoundError(state.workflow_type)
    require_open(state)
    if state.pending:
        raise PendingWorkError(state.pending.activities, state.pending.children)
    successor = new_run_id if new_run_id is not None else successor_of(state.run_id)
    closed = WorkflowContinuedAsNew(
        input=input,
        workflow_type=state.workflow_type,
        parent_run_id=state.run_id,
        new_run_id=successor,
    )
    return closed, _successor(state, input, package_version, successor, code_hash, at)


def _successor(
    state: WorkflowState,
    input: Payload,
    package_version: str,
    run_id: RunId,
    code_hash: str | None,
    at: datetime,
) -> WorkflowStarted:
    return WorkflowStarted(
        workflow_type=state.workflow_type,
        input=input,
        run_id=run_id,
        first_run_id=state.first_run_id,
        parent_run_id=state.run_id,
        package_version=package_version,
        task_queue=state.task_queue,
        parent=state.parent,
        schedule_id=state.schedule_id,
        run_deadline=None if state.run_timeout is None else at + state.run_timeout,
        execution_deadline=state.execution_deadline,
        attributes=dict(state.attributes),
        carried_signals=tuple(state.unread_signals.values()),
        read_signals=_read_signals(state),
        request_id=state.request_id,
        memo=state.memo,
        code_hash=code_hash,
    )


def _read_signals(state: WorkflowState) -> tuple[SignalId, ...]:
    read = [signal_id for signal_id in state.signal_ids if signal_id not in state.unread_signals]
    return tuple(read[-MAX_READ_SIGNALS:])

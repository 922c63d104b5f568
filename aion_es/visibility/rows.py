"""What a query gives: one run, as a typed row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Final

from pydantic_core import from_json

from aion_es.aggregates.status import WorkflowStatus
from aion_es.events.attributes import AttributeScalar, scalar_of
from aion_es.events.values import WorkflowRef
from aion_es.ids import RunId, ScheduleId, WorkflowId
from aion_es.projections.instants import from_micros
from aion_es.projections.visibility_tables import EXECUTIONS


@dataclass(frozen=True, slots=True)
class WorkflowExecution:
    """One run, as the read model shows it.

    Attributes:
        first_run_id: The run that began the chain of continue-as-new.
        parent_run_id: The run that continued as this one.
        parent: The run that started this one as its child.
        root_workflow_id: The workflow at the top of the tree of parents; its own id if it has none.
        stuck_reason: Why the engine cannot go on with it; `None` if it can.
        close_time: `None` while it is open.
        execution_duration: From start to close; `None` while it is open.
        history_length: Events of this run.
        history_bytes: Bytes of their data and metadata.
        failed_step: Type of the activity whose failure ended the run.
        failure_type: Class name of the error that ended it; set for Failed only.
        failure_reason: Its message, or what was given as the reason, or which timeout it was.
        search_attributes: By name: str, int, float, bool, aware datetime, or tuple of str.
    """

    workflow_id: WorkflowId
    run_id: RunId
    first_run_id: RunId
    parent_run_id: RunId | None
    parent: WorkflowRef | None
    root_workflow_id: WorkflowId
    schedule_id: ScheduleId | None
    workflow_type: str
    package_version: str
    task_queue: str
    status: WorkflowStatus
    stuck_reason: str | None
    start_time: datetime
    close_time: datetime | None
    execution_duration: timedelta | None
    history_length: int
    history_bytes: int
    failed_step: str | None
    failure_type: str | None
    failure_reason: str | None
    search_attributes: Mapping[str, AttributeScalar]


def execution_from(row: Sequence[Any]) -> WorkflowExecution:
    """Return the run of one row that ends with the columns of the `visibility` table."""
    # By place, all at once: a page is a hundred rows, and looking columns up by name doubles its cost.
    (
        _,
        workflow_id,
        run_id,
        first_run_id,
        parent_run_id,
        parent_workflow_id,
        parent_workflow_run_id,
        root_workflow_id,
        schedule_id,
        workflow_type,
        package_version,
        task_queue,
        start_time,
        stuck_reason,
        status,
        close_time,
        duration,
        history_length,
        history_bytes,
        _,
        failed_step,
        failure_type,
        failure_reason,
        attributes,
        _,
    ) = row[-_WIDTH:]
    parent = None
    if parent_workflow_id is not None:
        parent = WorkflowRef(workflow_id=parent_workflow_id, run_id=parent_workflow_run_id)
    return WorkflowExecution(
        workflow_id,
        run_id,
        first_run_id,
        parent_run_id,
        parent,
        root_workflow_id,
        schedule_id,
        workflow_type,
        package_version,
        task_queue,
        _STATUSES[status],
        stuck_reason,
        from_micros(start_time),
        None if close_time is None else from_micros(close_time),
        None if duration is None else timedelta(microseconds=duration),
        history_length,
        history_bytes,
        failed_step,
        failure_type,
        failure_reason,
        _attributes(attributes),
    )


_WIDTH: Final = len(EXECUTIONS.columns)
_STATUSES: Final = {str(status): status for status in WorkflowStatus}


def _attributes(text: str) -> Mapping[str, AttributeScalar]:
    if text == "{}":
        return _NONE
    found = from_json(text)
    return MappingProxyType({name: scalar_of(kind, value) for name, (kind, value) in found.items()})


_NONE: Mapping[str, AttributeScalar] = MappingProxyType({})

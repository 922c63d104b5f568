"""What is shown of a run: the fold of its events, in the form of a `visibility` row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, TypeAlias

from pydantic_core import from_json, to_json

from aion_es.aggregates.status import WorkflowStatus
from aion_es.events import workflow as ev
from aion_es.events.attributes import from_attribute
from aion_es.events.values import AttributeUpdate, AttributeValue
from aion_es.projections.changes import Rows
from aion_es.projections.instants import to_micros

Value: TypeAlias = tuple[str, Any]
"""Type and JSON value of a search attribute."""
_LIST: Final = "KeywordList"


def _no_steps() -> Rows[int, str]:
    return Rows()


@dataclass(slots=True)
class Execution:
    """One run's row; its fields are the columns, in order, down to `attributes`.

    Attributes:
        attributes: Search attributes, as recorded.
        changed: Names of attributes that the database has yet to learn of.
        steps: The types of the activities that have not succeeded.
        fresh: The database has no row of this run.
    """

    run_key: int
    workflow_id: str
    run_id: str
    first_run_id: str
    parent_run_id: str | None
    parent_workflow_id: str | None
    parent_workflow_run_id: str | None
    root_workflow_id: str | None
    schedule_id: str | None
    workflow_type: str
    package_version: str
    task_queue: str
    start_time: int
    stuck_reason: str | None = None
    status: WorkflowStatus = WorkflowStatus.RUNNING
    close_time: int | None = None
    execution_duration: int | None = None
    history_length: int = 0
    history_bytes: int = 0
    last_failed_step: str | None = None
    failed_step: str | None = None
    failure_type: str | None = None
    failure_reason: str | None = None
    attributes: dict[str, Value] = field(default_factory=dict[str, Value])
    changed: frozenset[str] = frozenset()
    steps: Rows[int, str] = field(default_factory=_no_steps)
    fresh: bool = True

    def row(self) -> tuple[Any, ...]:
        """Return the row of `visibility`."""
        return (
            self.run_key,
            self.workflow_id,
            self.run_id,
            self.first_run_id,
            self.parent_run_id,
            self.parent_workflow_id,
            self.parent_workflow_run_id,
            self.root_workflow_id,
            self.schedule_id,
            self.workflow_type,
            self.package_version,
            self.task_queue,
            self.start_time,
            self.stuck_reason,
            str(self.status),
            self.close_time,
            self.execution_duration,
            self.history_length,
            self.history_bytes,
            self.last_failed_step,
            self.failed_step,
            self.failure_type,
            self.failure_reason,
            to_json(self.attributes).decode() if self.attributes else "{}",
            self._names() if self.attributes else "",
        )

    def _names(self) -> str:
        """Return the attributes that have a value, as the column holds them; an empty list is none."""
        valued = (name for name, (kind, v) in self.attributes.items() if kind != _LIST or v)
        names = sorted(valued)
        return f" {' '.join(names)} " if names else ""


_STATUS: Final = 14
_ATTRIBUTES: Final = 23


def execution_of(row: Sequence[Any], steps: Rows[int, str]) -> Execution:
    """Return the run that `Execution.row` wrote."""
    columns: list[Any] = list(row[: _ATTRIBUTES + 1])
    columns[_STATUS] = WorkflowStatus(columns[_STATUS])
    columns[_ATTRIBUTES] = {
        name: (kind, value) for name, (kind, value) in from_json(columns[_ATTRIBUTES]).items()
    }
    run = Execution(*columns)
    run.steps, run.fresh = steps, False
    return run


def begun(
    workflow_id: str, event: ev.WorkflowStarted, run_key: int, recorded_at: datetime
) -> Execution:
    """Return the run that `event` begins; its root is yet to be found if it has a parent."""
    parent = event.parent
    run = Execution(
        run_key,
        workflow_id,
        event.run_id,
        event.first_run_id,
        event.parent_run_id,
        None if parent is None else parent.workflow_id,
        None if parent is None else parent.run_id,
        workflow_id if parent is None else None,
        event.schedule_id,
        event.workflow_type,
        event.package_version,
        event.task_queue,
        to_micros(recorded_at),
    )
    if event.attributes:
        set_attributes(run, event.attributes)
    return run


def set_attributes(run: Execution, attributes: Mapping[str, AttributeUpdate]) -> None:
    """Set some search attributes; `None` removes one."""
    for name, attribute in attributes.items():
        run.changed |= {name}
        if attribute is None:
            run.attributes.pop(name, None)
        else:
            run.attributes[name] = (attribute.type, attribute.value)


def reopened(run: Execution) -> None:
    """Take in that a closed run runs again."""
    run.status = WorkflowStatus.RUNNING
    run.close_time = run.execution_duration = None
    run.failed_step = run.failure_type = run.failure_reason = run.last_failed_step = None


def closed(run: Execution, status: WorkflowStatus, recorded_at: datetime) -> None:
    """Take in that the run closed."""
    run.status = status
    run.close_time = to_micros(recorded_at)
    run.execution_duration = run.close_time - run.start_time


def explained(run: Execution, event: ev.TerminalEvent) -> None:
    """Take in why the run closed without completing."""
    match event:
        case ev.WorkflowFailed():
            run.failed_step = run.last_failed_step
            run.failure_type, run.failure_reason = event.error.type, event.error.message
        case ev.WorkflowTimedOut():
            run.failure_reason = f"{event.timeout} timeout"
        case ev.WorkflowCancelled() | ev.WorkflowTerminated():
            run.failure_reason = event.reason or None
        case _:
            pass


def attribute_rows(run: Execution, name: str) -> list[tuple[Any, ...]]:
    """Return the rows of `search_attributes` for one attribute of the run; none if it has no such."""
    found = run.attributes.get(name)
    if found is None:
        return []
    kind, value = found
    elements = list(dict.fromkeys(value)) if kind == _LIST else [value]
    return [
        (run.run_key, name, element, *_column_values(kind, one), run.start_time, run.run_id)
        for element, one in enumerate(elements)
    ]


def _column_values(kind: str, value: Any) -> tuple[str | None, int | None, float | None]:
    """Return text, number and float column of one value."""
    match kind:
        case "String" | "KeywordList":
            return value, None, None
        case "Float":
            return None, None, float(value)
        case "Datetime":
            instant = from_attribute(AttributeValue(type="Datetime", value=value))
            assert isinstance(instant, datetime)  # noqa: S101 - what the type promises
            return None, to_micros(instant), None
        case _:
            return None, int(value), None

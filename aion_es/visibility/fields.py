"""What a filter may name: the fields that every run has, under Temporal's names, and search attributes."""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final, Literal, TypeAlias

from aion_es.events.values import AttributeType
from aion_es.projections.visibility_tables import FIXED

Kind: TypeAlias = Literal["text", "words", "int", "float", "bool", "time", "duration", "status"]
"""How a field's values are written in a filter, and compared."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a run.

    Attributes:
        column: Of the `visibility` table; `None` for a search attribute.
    """

    name: str
    kind: Kind
    column: str | None = None

    @property
    def is_fixed(self) -> bool:
        """Whether a run has the same value from its start to its end, or none all the time."""
        return self.column in FIXED and self.column != "stuck_reason"


BUILT_IN: Final[Mapping[str, Field]] = {
    field.name: field
    for field in (
        Field("WorkflowId", "text", "workflow_id"),
        Field("RunId", "text", "run_id"),
        Field("WorkflowType", "text", "workflow_type"),
        Field("ExecutionStatus", "status", "status"),
        Field("StartTime", "time", "start_time"),
        Field("CloseTime", "time", "close_time"),
        Field("ExecutionDuration", "duration", "execution_duration"),
        Field("HistoryLength", "int", "history_length"),
        Field("HistorySizeBytes", "int", "history_bytes"),
        Field("ParentWorkflowId", "text", "parent_workflow_id"),
        Field("RootWorkflowId", "text", "root_workflow_id"),
        Field("TaskQueue", "text", "task_queue"),
        Field("BuildId", "text", "package_version"),
        Field("ScheduleId", "text", "schedule_id"),
        Field("FirstRunId", "text", "first_run_id"),
        Field("ParentRunId", "text", "parent_run_id"),
        Field("StuckReason", "text", "stuck_reason"),
        Field("FailedStep", "text", "failed_step"),
        Field("FailureType", "text", "failure_type"),
        Field("FailureReason", "text", "failure_reason"),
    )
}

_KINDS: Final[Mapping[AttributeType, Kind]] = {
    "String": "text",
    "Int": "int",
    "Float": "float",
    "Bool": "bool",
    "Datetime": "time",
    "KeywordList": "words",
}


def find_field(name: str, attributes: Mapping[str, AttributeType]) -> Field | None:
    """Return the built-in field or the search attribute of this name, `None` if there is none."""
    built_in = BUILT_IN.get(name)
    if built_in is not None:
        return built_in
    attribute_type = attributes.get(name)
    return None if attribute_type is None else Field(name, _KINDS[attribute_type])


def near_fields(name: str, attributes: Mapping[str, AttributeType]) -> list[str]:
    """Return up to three field names that look like `name`, nearest first."""
    folded = {known.casefold(): known for known in (*attributes, *BUILT_IN)}
    return [folded[near] for near in get_close_matches(name.casefold(), folded, n=3)]

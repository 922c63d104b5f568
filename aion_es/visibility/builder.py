"""Filters written in Python: the fields of a run, to be compared as in `WorkflowType == "checkout"`."""

from datetime import datetime, timedelta
from typing import Any, Final, TypeVar, overload

from aion_es.events.attributes import SearchAttribute, check_attribute_name
from aion_es.events.conditions import Comparable, Condition, RelativeTime, Value, compared

V = TypeVar("V")


class FieldOf(Comparable[V]):
    """A field of a run, or a search attribute, to be compared with values of type `V`."""

    __slots__ = ("name",)
    __hash__ = None  # type: ignore[assignment] # equality makes a condition: no set or dict can hold one

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"FieldOf({self.name!r})"

    def __eq__(self, value: V) -> Condition:  # type: ignore[override] # as every query builder does
        return compared(self.name, "=", value)

    def __ne__(self, value: V) -> Condition:  # type: ignore[override] # as every query builder does
        return compared(self.name, "!=", value)


@overload
def attribute(key: SearchAttribute[datetime]) -> FieldOf[datetime | RelativeTime]: ...
@overload
def attribute(key: SearchAttribute[list[str]]) -> FieldOf[str]: ...
@overload
def attribute(key: SearchAttribute[bool]) -> FieldOf[bool]: ...
@overload
def attribute(key: SearchAttribute[int]) -> FieldOf[int]: ...
@overload
def attribute(key: SearchAttribute[float]) -> FieldOf[float]: ...
@overload
def attribute(key: SearchAttribute[str]) -> FieldOf[str]: ...
@overload
def attribute(key: str) -> FieldOf[Value]: ...
def attribute(key: SearchAttribute[Any] | str) -> FieldOf[Any]:
    """Return a search attribute to compare: `attribute("customer").in_(["ana", "bo"])`.

    A key can be compared itself; through this a type checker knows which values it takes.

    Args:
        key: As declared, so that values are checked against its type; or a name.

    Raises:
        InvalidArgumentError: The name cannot be one.
    """
    return FieldOf(key.name if isinstance(key, SearchAttribute) else check_attribute_name(key))


WorkflowId: Final = FieldOf[str]("WorkflowId")
RunId: Final = FieldOf[str]("RunId")
WorkflowType: Final = FieldOf[str]("WorkflowType")
ExecutionStatus: Final = FieldOf[str]("ExecutionStatus")
StartTime: Final = FieldOf[datetime | RelativeTime]("StartTime")
CloseTime: Final = FieldOf[datetime | RelativeTime]("CloseTime")
ExecutionDuration: Final = FieldOf[timedelta]("ExecutionDuration")
HistoryLength: Final = FieldOf[int]("HistoryLength")
HistorySizeBytes: Final = FieldOf[int]("HistorySizeBytes")
ParentWorkflowId: Final = FieldOf[str]("ParentWorkflowId")
RootWorkflowId: Final = FieldOf[str]("RootWorkflowId")
TaskQueue: Final = FieldOf[str]("TaskQueue")
BuildId: Final = FieldOf[str]("BuildId")
ScheduleId: Final = FieldOf[str]("ScheduleId")
FirstRunId: Final = FieldOf[str]("FirstRunId")
ParentRunId: Final = FieldOf[str]("ParentRunId")
StuckReason: Final = FieldOf[str]("StuckReason")
FailedStep: Final = FieldOf[str]("FailedStep")
FailureType: Final = FieldOf[str]("FailureType")
FailureReason: Final = FieldOf[str]("FailureReason")

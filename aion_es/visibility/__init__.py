"""What a person may ask: list filters and queries over the read model."""

from aion_es.events.conditions import Condition, now
from aion_es.visibility.attributes import SearchAttributes
from aion_es.visibility.builder import (
    BuildId,
    CloseTime,
    ExecutionDuration,
    ExecutionStatus,
    FailedStep,
    FailureReason,
    FailureType,
    FirstRunId,
    HistoryLength,
    HistorySizeBytes,
    ParentRunId,
    ParentWorkflowId,
    RootWorkflowId,
    RunId,
    ScheduleId,
    StartTime,
    StuckReason,
    TaskQueue,
    WorkflowId,
    WorkflowType,
    attribute,
)
from aion_es.visibility.query import Page, Visibility
from aion_es.visibility.rows import WorkflowExecution
from aion_es.visibility.watching import VisibilityChange

__all__ = [
    "BuildId",
    "CloseTime",
    "Condition",
    "ExecutionDuration",
    "ExecutionStatus",
    "FailedStep",
    "FailureReason",
    "FailureType",
    "FirstRunId",
    "HistoryLength",
    "HistorySizeBytes",
    "Page",
    "ParentRunId",
    "ParentWorkflowId",
    "RootWorkflowId",
    "RunId",
    "ScheduleId",
    "SearchAttributes",
    "StartTime",
    "StuckReason",
    "TaskQueue",
    "Visibility",
    "VisibilityChange",
    "WorkflowExecution",
    "WorkflowId",
    "WorkflowType",
    "attribute",
    "now",
]

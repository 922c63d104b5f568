"""What may happen: aggregates that decide, purely, which events a command adds; `WorkflowRepository` loads and saves them.

The embedded aggregate API: a service may use it without the engine.
"""

from aion_es.aggregates.aggregate import Aggregate, Pending
from aion_es.aggregates.attributes import AttributeSchema
from aion_es.aggregates.continue_as_new import successor_of
from aion_es.aggregates.lifecycle import OnConflict, Reuse, StartWorkflow
from aion_es.aggregates.pending_work import PendingWork, pending_work
from aion_es.aggregates.repository import ReadWriteStore, Saved
from aion_es.aggregates.retries import RetrySettings
from aion_es.aggregates.schedule import Schedule
from aion_es.aggregates.schedule_repository import ExecutedSchedule, ScheduleRepository
from aion_es.aggregates.schedule_state import ScheduleState
from aion_es.aggregates.state import ActivityState, ChildState, WorkflowState, evolve
from aion_es.aggregates.status import WorkflowStatus, status_after
from aion_es.aggregates.workflow import Workflow
from aion_es.aggregates.workflow_repository import Executed, WorkflowRepository

__all__ = [
    "ActivityState",
    "Aggregate",
    "AttributeSchema",
    "ChildState",
    "Executed",
    "ExecutedSchedule",
    "OnConflict",
    "Pending",
    "PendingWork",
    "ReadWriteStore",
    "RetrySettings",
    "Reuse",
    "Saved",
    "Schedule",
    "ScheduleRepository",
    "ScheduleState",
    "StartWorkflow",
    "Workflow",
    "WorkflowRepository",
    "WorkflowState",
    "WorkflowStatus",
    "evolve",
    "pending_work",
    "status_after",
    "successor_of",
]

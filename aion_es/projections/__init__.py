"""What is known: the projection runner, its checkpoints, and the read model."""

from aion_es.projections.failures import Skipped
from aion_es.projections.pending_index import (
    OpenVersion,
    PendingChild,
    PendingDeadline,
    PendingSignal,
    PendingTimer,
    PendingWorkIndex,
)
from aion_es.projections.pending_work import PendingWorkProjection
from aion_es.projections.projection import Projection
from aion_es.projections.read_model import ReadModel
from aion_es.projections.runner import ProjectionRunner
from aion_es.projections.schedule_index import ScheduleIndex, ScheduleSummary
from aion_es.projections.schedules import SchedulesProjection
from aion_es.projections.status import ProjectionStatus
from aion_es.projections.visibility import VisibilityProjection, set_stuck

__all__ = [
    "OpenVersion",
    "PendingChild",
    "PendingDeadline",
    "PendingSignal",
    "PendingTimer",
    "PendingWorkIndex",
    "PendingWorkProjection",
    "Projection",
    "ProjectionRunner",
    "ProjectionStatus",
    "ReadModel",
    "ScheduleIndex",
    "ScheduleSummary",
    "SchedulesProjection",
    "Skipped",
    "VisibilityProjection",
    "set_stuck",
]

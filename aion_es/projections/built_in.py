"""The projections that every engine keeps: the engine feeds them, and whoever examines a store looks at them."""

from aion_es.ids import Namespace
from aion_es.projections.pending_work import PendingWorkProjection
from aion_es.projections.projection import Projection
from aion_es.projections.schedules import SchedulesProjection
from aion_es.projections.visibility import VisibilityProjection


def built_in(namespace: Namespace) -> list[Projection]:
    """Return those of a namespace, new and not yet fed."""
    return [
        PendingWorkProjection(namespace),
        VisibilityProjection(namespace),
        SchedulesProjection(namespace),
    ]

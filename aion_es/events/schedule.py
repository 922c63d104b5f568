"""What can happen in the life of a schedule: every event of a schedule's stream, as a frozen model."""

from typing import Any, Literal, TypeAlias

from aion_es.events.base import Event, Instant
from aion_es.ids import RunId, WorkflowId


class ScheduleCreated(Event):
    """The schedule exists.

    Attributes:
        config: Specification, action and policies, as plain JSON values.
    """

    config: dict[str, Any]


class ScheduleUpdated(Event):
    """The whole configuration was replaced."""

    config: dict[str, Any]


class SchedulePaused(Event):
    """No action is taken until it is resumed."""

    reason: str | None = None


class ScheduleResumed(Event):
    """Actions are taken again."""


class ScheduleDeleted(Event):
    """The schedule is gone. Terminal."""


class ScheduleTriggered(Event):
    """An action was taken for a due time.

    Attributes:
        scheduled_for: The due time.
        manual: Asked for by a person, outside the specification.
    """

    scheduled_for: Instant
    workflow_id: WorkflowId
    run_id: RunId
    manual: bool = False


class ScheduleSkipped(Event):
    """No action was taken for a due time; says why."""

    scheduled_for: Instant
    reason: Literal["overlap", "catch_up"]


ScheduleEvent: TypeAlias = (
    ScheduleCreated
    | ScheduleUpdated
    | SchedulePaused
    | ScheduleResumed
    | ScheduleDeleted
    | ScheduleTriggered
    | ScheduleSkipped
)
"""Every event of a schedule's stream. A `match` over it ends in `assert_never`."""

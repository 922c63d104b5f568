"""What can happen in the life of a schedule: every event of a schedule's stream, as a frozen model."""

from typing import Any, ClassVar, Literal, TypeAlias

from aion_es.events.base import Event, Instant, RecordedModel
from aion_es.ids import RunId, WorkflowId

Previous: TypeAlias = Literal["wait", "cancel", "terminate"]
"""What is done to the actions that still run when another one waits for their end."""


class TakenAction(RecordedModel):
    """A workflow that a schedule started, or is about to start.

    Attributes:
        scheduled_for: The due time.
        manual: Asked for by a person, outside the specification.
    """

    scheduled_for: Instant
    workflow_id: WorkflowId
    run_id: RunId
    manual: bool = False


class WaitingAction(RecordedModel):
    """A due time whose action waits for the end of earlier ones.

    Attributes:
        manual: Asked for by a person, outside the specification.
        previous: What is done to those meanwhile.
    """

    scheduled_for: Instant
    manual: bool = False
    previous: Previous = "wait"


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
        beside: The earlier actions that still ran then; `None` if that was not looked at.
    """

    LATER: ClassVar[tuple[str, ...]] = ("beside",)

    scheduled_for: Instant
    workflow_id: WorkflowId
    run_id: RunId
    manual: bool = False
    beside: tuple[WorkflowId, ...] | None = None


class ScheduleSkipped(Event):
    """No action was taken for a due time; says why.

    Attributes:
        scheduled_for: The due time.
        until: Set when many due times were skipped at once: all from `scheduled_for` up to this instant.
    """

    LATER: ClassVar[tuple[str, ...]] = ("until",)

    scheduled_for: Instant
    reason: Literal["overlap", "catch_up"]
    until: Instant | None = None


class ScheduleBuffered(Event):
    """A due time came while an earlier action ran; its action waits for the end of that.

    Attributes:
        scheduled_for: The due time.
        manual: Asked for by a person, outside the specification.
        previous: What is done to the earlier actions meanwhile.
    """

    scheduled_for: Instant
    manual: bool = False
    previous: Previous = "wait"


class ScheduleCheckpointed(Event):
    """Everything about the schedule up to here, so that nobody needs to read what lies before.

    Attributes:
        config: Specification, action and policies, as plain JSON values.
        created_at: When it was created.
        updated_at: When it was created, changed, paused or resumed last.
        decided_until: Every due time up to this instant is decided, or came while it was paused.
        buffered: What waits, in the order in which it will be taken.
        open: Actions that are not known to have ended.
        recent: The last actions, oldest first.
        remaining: So many more will be taken by themselves; `None` for no limit.
        actions: How often an action was taken.
        skipped: How often it was recorded that none was.
        last_scheduled_for: The latest due time that was decided.
    """

    config: dict[str, Any]
    created_at: Instant
    updated_at: Instant
    decided_until: Instant
    paused: bool = False
    pause_reason: str | None = None
    buffered: tuple[WaitingAction, ...] = ()
    open: tuple[TakenAction, ...] = ()
    recent: tuple[TakenAction, ...] = ()
    remaining: int | None = None
    actions: int = 0
    skipped: int = 0
    last_scheduled_for: Instant | None = None


ScheduleEvent: TypeAlias = (
    ScheduleCreated
    | ScheduleUpdated
    | SchedulePaused
    | ScheduleResumed
    | ScheduleDeleted
    | ScheduleTriggered
    | ScheduleSkipped
    | ScheduleBuffered
    | ScheduleCheckpointed
)
"""Every event of a schedule's stream. A `match` over it ends in `assert_never`."""

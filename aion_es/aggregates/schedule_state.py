"""The state of a schedule and the fold that makes it; bounded, however often the schedule was triggered."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, assert_never

from aion_es.errors import DomainError
from aion_es.events.schedule import (
    ScheduleBuffered,
    ScheduleCheckpointed,
    ScheduleCreated,
    ScheduleDeleted,
    ScheduleEvent,
    SchedulePaused,
    ScheduleResumed,
    ScheduleSkipped,
    ScheduleTriggered,
    ScheduleUpdated,
    TakenAction,
    WaitingAction,
)
from aion_es.ids import ScheduleId, WorkflowId
from aion_es.schedules.config import ScheduleConfig
from aion_es.schedules.times import due_times, fire_time

RECENT: Final = 10
"""So many of the last actions are remembered."""
MOST_OPEN: Final = 1_000
"""So many actions that are not known to have ended are remembered: the newest."""


@dataclass(slots=True)
class ScheduleState:
    """What is known of a schedule. Belongs to `evolve_schedule`: others read it.

    Attributes:
        config: Specification, action and policies, as plain JSON values.
        updated_at: When it was created, changed, paused or resumed last.
        decided_until: Every due time up to this instant is decided, or came while it was paused.
        deleted: Gone; its id may be taken again.
        buffered: Due times whose action waits for the end of earlier ones, in the order in which they are taken.
        open: Actions that are not known to have ended, oldest first.
        recent: The last actions, oldest first.
        remaining: So many more will be taken by themselves; `None` for no limit.
        actions: How often an action was taken.
        skipped: How often it was recorded that none was.
        last_scheduled_for: The latest due time that was decided.
        length: Events that were folded: from the beginning, or from the last checkpoint.
    """

    config: dict[str, Any]
    created_at: datetime
    updated_at: datetime
    decided_until: datetime
    paused: bool = False
    pause_reason: str | None = None
    deleted: bool = False
    buffered: list[WaitingAction] = field(default_factory=list[WaitingAction])
    open: list[TakenAction] = field(default_factory=list[TakenAction])
    recent: list[TakenAction] = field(default_factory=list[TakenAction])
    remaining: int | None = None
    actions: int = 0
    skipped: int = 0
    last_scheduled_for: datetime | None = None
    length: int = 1
    _read_config: "tuple[ScheduleConfig | None] | None" = field(
        default=None, compare=False, repr=False
    )

    @property
    def plan(self) -> ScheduleConfig | None:
        """The configuration; `None` if it is of no form that this program knows: then nothing is ever due."""
        if self._read_config is None:
            self._read_config = (self.read_config(self.config),)
        return self._read_config[0]

    @staticmethod
    def read_config(config: dict[str, Any]) -> ScheduleConfig | None:
        """Return what a recorded configuration says; `None` if it is of no form that this program knows."""
        try:
            return ScheduleConfig.read(config)
        except DomainError:
            return None

    def configure(self, config: dict[str, Any]) -> None:
        """Take `config` instead of the former one; its limit counts from here."""
        self.config, self._read_config = config, None
        self.remaining = None if self.plan is None else self.plan.spec.limit

    @property
    def open_ids(self) -> tuple[WorkflowId, ...]:
        """The workflow ids of `open`."""
        return tuple(action.workflow_id for action in self.open)

    @property
    def budget(self) -> int | None:
        """How many more due times may be taken or buffered; `None` for any number."""
        if self.remaining is None:
            return None
        return max(0, self.remaining - sum(not waiting.manual for waiting in self.buffered))

    def next_due(self, schedule_id: ScheduleId) -> tuple[datetime, datetime] | None:
        """Return the next due time and when its action is to be taken; `None` if none comes."""
        plan = self.plan
        if plan is None or self.paused or self.deleted or self.budget == 0:
            return None
        for due in due_times(plan.spec, self.decided_until):
            return due, fire_time(plan.spec, schedule_id, due)
        return None


def evolve_schedule(
    state: ScheduleState | None, event: ScheduleEvent, *, at: datetime
) -> ScheduleState:
    """Return the state after `event`. Total; changes `state` in place, but a beginning makes a new one."""
    if isinstance(event, ScheduleCreated):
        created = ScheduleState(event.config, at, at, at)
        created.configure(event.config)
        return created
    if isinstance(event, ScheduleCheckpointed):
        return _restored(event)
    if state is None:  # its beginning cannot be read
        state = ScheduleState({}, at, at, at)
    state.length += 1
    match event:
        case ScheduleTriggered():
            _triggered(state, event)
        case ScheduleSkipped():
            state.skipped += 1
            _decided(state, event.scheduled_for, event.until)
        case ScheduleBuffered():
            waiting = WaitingAction.model_construct(
                scheduled_for=event.scheduled_for, manual=event.manual, previous=event.previous
            )
            state.buffered.append(waiting)
            if not event.manual:
                _reached(state, event.scheduled_for)
        case ScheduleUpdated():
            state.configure(event.config)
            _changed(state, at)
        case SchedulePaused():
            state.paused, state.pause_reason, state.updated_at = True, event.reason, at
        case ScheduleResumed():
            state.paused, state.pause_reason = False, None
            _changed(state, at)
        case ScheduleDeleted():
            state.deleted = True
        case _:
            assert_never(event)
    return state


def checkpoint(state: ScheduleState) -> ScheduleCheckpointed:
    """Return the event from which `evolve_schedule` makes this state again."""
    return ScheduleCheckpointed(
        config=state.config,
        created_at=state.created_at,
        updated_at=state.updated_at,
        decided_until=state.decided_until,
        paused=state.paused,
        pause_reason=state.pause_reason,
        buffered=tuple(state.buffered),
        open=tuple(state.open),
        recent=tuple(state.recent),
        remaining=state.remaining,
        actions=state.actions,
        skipped=state.skipped,
        last_scheduled_for=state.last_scheduled_for,
    )


def _restored(event: ScheduleCheckpointed) -> ScheduleState:
    return ScheduleState(
        config=event.config,
        created_at=event.created_at,
        updated_at=event.updated_at,
        decided_until=event.decided_until,
        paused=event.paused,
        pause_reason=event.pause_reason,
        buffered=list(event.buffered),
        open=list(event.open),
        recent=list(event.recent),
        remaining=event.remaining,
        actions=event.actions,
        skipped=event.skipped,
        last_scheduled_for=event.last_scheduled_for,
    )


def _changed(state: ScheduleState, at: datetime) -> None:
    """Begin anew from `at`: what was due before is not made up for."""
    state.updated_at = at
    _reached(state, at)


def _triggered(state: ScheduleState, event: ScheduleTriggered) -> None:
    taken = TakenAction.model_construct(
        scheduled_for=event.scheduled_for,
        workflow_id=event.workflow_id,
        run_id=event.run_id,
        manual=event.manual,
    )
    state.actions += 1
    if event.beside is not None:
        state.open = [action for action in state.open if action.workflow_id in event.beside]
    state.open = [*state.open[1 - MOST_OPEN :], taken]
    state.recent = [*state.recent[1 - RECENT :], taken]
    if event.manual:
        state.buffered = _without(state.buffered, event.scheduled_for)
        return
    if state.remaining is not None:
        state.remaining = max(0, state.remaining - 1)
    _decided(state, event.scheduled_for)


def _decided(state: ScheduleState, scheduled_for: datetime, until: datetime | None = None) -> None:
    state.buffered = _without(state.buffered, scheduled_for)
    if state.last_scheduled_for is None or scheduled_for > state.last_scheduled_for:
        state.last_scheduled_for = scheduled_for
    _reached(state, scheduled_for if until is None else until)


def _without(buffered: list[WaitingAction], scheduled_for: datetime) -> list[WaitingAction]:
    return [w for w in buffered if w.scheduled_for != scheduled_for] if buffered else buffered


def _reached(state: ScheduleState, instant: datetime) -> None:
    state.decided_until = max(state.decided_until, instant)

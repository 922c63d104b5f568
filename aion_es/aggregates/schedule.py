"""The schedule aggregate: its state, the fold that makes it, and every command that may change it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Concatenate, Literal, ParamSpec, TypeAlias, assert_never

from aion_es.aggregates.aggregate import Aggregate
from aion_es.aggregates.guards import require_utc
from aion_es.errors import (
    InvalidArgumentError,
    PayloadError,
    ScheduleAlreadyExistsError,
    ScheduleNotFoundError,
    SchedulePausedError,
)
from aion_es.events.schedule import (
    ScheduleCreated,
    ScheduleDeleted,
    ScheduleEvent,
    SchedulePaused,
    ScheduleResumed,
    ScheduleSkipped,
    ScheduleTriggered,
    ScheduleUpdated,
)
from aion_es.ids import RunId, ScheduleId, WorkflowId, check_id
from aion_es.payload import Payload

P = ParamSpec("P")
Events: TypeAlias = tuple[ScheduleEvent, ...]


@dataclass(slots=True)
class ScheduleState:
    """What is known of a schedule. Belongs to `evolve_schedule`: others read it.

    Attributes:
        config: Specification, action and policies, as plain JSON values.
        deleted: Gone; its id may be taken again.
        decided: Every due time that was triggered or skipped.
        last_scheduled_for: The latest of them.
        actions: How often it was triggered.
    """

    config: dict[str, Any]
    created_at: datetime
    paused: bool = False
    pause_reason: str | None = None
    deleted: bool = False
    decided: set[datetime] = field(default_factory=set[datetime])
    last_scheduled_for: datetime | None = None
    actions: int = 0


def evolve_schedule(
    state: ScheduleState | None, event: ScheduleEvent, *, at: datetime
) -> ScheduleState:
    """Return the state after `event`. Total; changes `state` in place, but ScheduleCreated makes a new one."""
    if isinstance(event, ScheduleCreated):
        return ScheduleState(event.config, at)
    if state is None:  # its beginning cannot be read
        state = ScheduleState({}, at)
    match event:
        case ScheduleTriggered():
            state.actions += 1
            _decided(state, event.scheduled_for)
        case ScheduleSkipped():
            _decided(state, event.scheduled_for)
        case ScheduleUpdated():
            state.config = event.config
        case SchedulePaused():
            state.paused, state.pause_reason = True, event.reason
        case ScheduleResumed():
            state.paused, state.pause_reason = False, None
        case ScheduleDeleted():
            state.deleted = True
        case _:
            assert_never(event)
    return state


def _decided(state: ScheduleState, scheduled_for: datetime) -> None:
    state.decided.add(scheduled_for)
    if state.last_scheduled_for is None or scheduled_for > state.last_scheduled_for:
        state.last_scheduled_for = scheduled_for


class Schedule(Aggregate[ScheduleEvent]):
    """One schedule: its state, and the commands that may change it.

    Every command takes `at`, the present instant in UTC, and returns the events that it adds; one that
    has already had its effect returns `()`. It raises, and changes nothing, with `InvalidArgumentError`
    if an instant is naive or not in UTC, and, but for `create`, with `ScheduleNotFoundError` if there is no
    such schedule or it was deleted.
    """

    __slots__ = ("_state", "schedule_id")

    def __init__(self, schedule_id: ScheduleId) -> None:
        """Begin with no history.

        Args:
            schedule_id: 1–255 printable characters.

        Raises:
            InvalidIdError: The id has another form.
        """
        super().__init__(check_id("schedule_id", schedule_id))
        self.schedule_id = schedule_id
        self._state: ScheduleState | None = None

    @property
    def exists(self) -> bool:
        """True once it was created, until it is deleted."""
        return self._state is not None and not self._state.deleted

    @property
    def state(self) -> ScheduleState:
        """The schedule as it is. Read it; only events change it.

        Raises:
            ScheduleNotFoundError: It was never created, or was deleted.
        """
        if self._state is None or self._state.deleted:
            raise ScheduleNotFoundError(self.schedule_id)
        return self._state

    def create(self, config: dict[str, Any], *, at: datetime) -> Events:
        """Create the schedule; the id of a deleted one may be taken again.

        Raises:
            ScheduleAlreadyExistsError: There is one.
            InvalidArgumentError: `config` is not plain JSON.
        """
        at = require_utc("at", at)
        if self.exists:
            raise ScheduleAlreadyExistsError(self.schedule_id)
        return self._record((ScheduleCreated(config=_plain(config)),), at)

    def update(self, config: dict[str, Any], *, at: datetime) -> Events:
        """Replace the whole configuration; the same again adds nothing.

        Raises:
            InvalidArgumentError: `config` is not plain JSON.
        """
        return self._do(at, _update, config)

    def pause(self, reason: str | None = None, *, at: datetime) -> Events:
        """Take no action until it is resumed; a paused one stays as it is."""
        return self._do(at, _pause, reason)

    def resume(self, *, at: datetime) -> Events:
        """Take actions again; one that is not paused stays as it is."""
        return self._do(at, _resume)

    def delete(self, *, at: datetime) -> Events:
        """Delete the schedule; what it started goes on."""
        return self._do(at, _delete)

    def trigger(
        self,
        scheduled_for: datetime,
        workflow_id: WorkflowId,
        run_id: RunId,
        manual: bool = False,
        *,
        at: datetime,
    ) -> Events:
        """Record that an action was taken for a due time; a due time that is decided adds nothing.

        Raises:
            SchedulePausedError: It is paused and nobody asked for this action (`manual`).
        """
        return self._do(at, _trigger, self.schedule_id, scheduled_for, workflow_id, run_id, manual)

    def skip(
        self, scheduled_for: datetime, reason: Literal["overlap", "catch_up"], *, at: datetime
    ) -> Events:
        """Record that no action was taken for a due time; a due time that is decided adds nothing."""
        return self._do(at, _skip, scheduled_for, reason)

    def _do(
        self,
        at: datetime,
        decide: Callable[Concatenate[ScheduleState, P], Events],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Events:
        at = require_utc("at", at)
        return self._record(decide(self.state, *args, **kwargs), at)

    def _evolve(self, event: ScheduleEvent, at: datetime, revision: int) -> None:  # noqa: ARG002 - the fold needs no place
        self._state = evolve_schedule(self._state, event, at=at)


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    try:
        return dict(Payload.of(config, dict[str, Any], "config").data)
    except PayloadError as error:
        raise InvalidArgumentError("config", f"at {error.path}: {error.reason}") from error


def _update(state: ScheduleState, config: dict[str, Any]) -> Events:
    plain = _plain(config)
    return () if plain == state.config else (ScheduleUpdated(config=plain),)


def _pause(state: ScheduleState, reason: str | None) -> Events:
    return () if state.paused else (SchedulePaused(reason=reason),)


def _resume(state: ScheduleState) -> Events:
    return (ScheduleResumed(),) if state.paused else ()


def _delete(_state: ScheduleState) -> Events:
    return (ScheduleDeleted(),)


def _trigger(
    state: ScheduleState,
    schedule_id: ScheduleId,
    scheduled_for: datetime,
    workflow_id: WorkflowId,
    run_id: RunId,
    manual: bool,
) -> Events:
    scheduled_for = require_utc("scheduled_for", scheduled_for)
    check_id("workflow_id", workflow_id)
    if scheduled_for in state.decided:
        return ()
    if state.paused and not manual:
        raise SchedulePausedError(schedule_id)
    return (
        ScheduleTriggered(
            scheduled_for=scheduled_for, workflow_id=workflow_id, run_id=run_id, manual=manual
        ),
    )


def _skip(
    state: ScheduleState, scheduled_for: datetime, reason: Literal["overlap", "catch_up"]
) -> Events:
    scheduled_for = require_utc("scheduled_for", scheduled_for)
    if scheduled_for in state.decided:
        return ()
    return (ScheduleSkipped(scheduled_for=scheduled_for, reason=reason),)

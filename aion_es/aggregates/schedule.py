"""The schedule aggregate: its state, the fold that makes it, and every command that may change it."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Concatenate, Final, Literal, ParamSpec, TypeAlias

from aion_es.aggregates import schedule_decisions as decisions
from aion_es.aggregates.aggregate import Aggregate
from aion_es.aggregates.guards import require_utc
from aion_es.aggregates.schedule_decisions import Moment
from aion_es.aggregates.schedule_state import ScheduleState, checkpoint, evolve_schedule
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
from aion_es.schedules.config import ScheduleConfig
from aion_es.schedules.naming import check_schedule_id
from aion_es.schedules.policies import Overlap

P = ParamSpec("P")
Events: TypeAlias = tuple[ScheduleEvent, ...]


CHECKPOINT_EVERY: Final = 64
"""Events after which a command adds a checkpoint: a load reads no more, however often the schedule was due."""


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
            schedule_id: 1–230 printable characters.

        Raises:
            InvalidIdError: The id has another form.
        """
        super().__init__(check_schedule_id(schedule_id))
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

    def create(self, config: Mapping[str, Any], *, at: datetime) -> Events:
        """Create the schedule; the id of a deleted one may be taken again. Nothing is due before `at`.

        Raises:
            ScheduleAlreadyExistsError: There is one.
            ScheduleSpecError: A cron expression, a calendar's field or a time zone is not understood.
            InvalidArgumentError: `config` is not plain JSON, or not of the form of `ScheduleConfig`.
        """
        at = require_utc("at", at)
        if self.exists:
            raise ScheduleAlreadyExistsError(self.schedule_id)
        return self._record((ScheduleCreated(config=_checked(config)),), at)

    def update(self, config: Mapping[str, Any], *, at: datetime) -> Events:
        """Replace the whole configuration; the same again adds nothing.

        What was due before `at` and is not decided is not made up for. What is buffered stays so, and will be
        taken as the new configuration says. The limit counts anew.

        Raises:
            ScheduleSpecError: A cron expression, a calendar's field or a time zone is not understood.
            InvalidArgumentError: `config` is not plain JSON, or not of the form of `ScheduleConfig`.
        """
        return self._do(at, _update, config)

    def pause(self, reason: str | None = None, *, at: datetime) -> Events:
        """Take no action until it is resumed; a paused one stays as it is. What is buffered waits."""
        return self._do(at, _pause, reason)

    def resume(self, *, at: datetime) -> Events:
        """Take actions again; one that is not paused stays as it is. What was due meanwhile is not made up for."""
        return self._do(at, _resume)

    def delete(self, *, at: datetime) -> Events:
        """Delete the schedule; what it started goes on."""
        return self._do(at, _delete)

    def take_due(self, moment: Moment, *, at: datetime) -> Events:
        """Decide what is due by the policies; see `schedule_decisions.take_due`."""
        return self._do(at, decisions.take_due, self.schedule_id, moment)

    def backfill(
        self, times: Iterable[datetime], overlap: Overlap, moment: Moment, *, at: datetime
    ) -> Events:
        """Take actions for due times of the past; see `schedule_decisions.backfill`."""
        return self._do(at, decisions.backfill, self.schedule_id, times, overlap, moment)

    def trigger(
        self,
        scheduled_for: datetime,
        workflow_id: WorkflowId,
        run_id: RunId,
        manual: bool = False,
        *,
        at: datetime,
    ) -> Events:
        """Record that an action was taken for a due time, whatever the policies; a decided one adds nothing.

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
        events = self._record(decide(self.state, *args, **kwargs), at)
        if events and self.exists and self.state.length >= CHECKPOINT_EVERY:
            events += self._record((checkpoint(self.state),), at)
        return events

    def _evolve(self, event: ScheduleEvent, at: datetime, revision: int) -> None:  # noqa: ARG002 - the fold needs no place
        self._state = evolve_schedule(self._state, event, at=at)


def _checked(config: Mapping[str, Any]) -> dict[str, Any]:
    try:
        plain: dict[str, Any] = Payload.of(dict(config), dict[str, Any], "config").data
    except PayloadError as error:
        raise InvalidArgumentError("config", f"at {error.path}: {error.reason}") from error
    ScheduleConfig.read(plain)
    return plain


def _update(state: ScheduleState, config: Mapping[str, Any]) -> Events:
    plain = _checked(config)
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
    if _is_decided(state, scheduled_for, workflow_id if manual else None):
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
    if _is_decided(state, scheduled_for, None):
        return ()
    return (ScheduleSkipped(scheduled_for=scheduled_for, reason=reason),)


def _is_decided(state: ScheduleState, due: datetime, asked_for: WorkflowId | None) -> bool:
    """Whether nothing is to be decided about a due time, or about an action that a person asked for."""
    if asked_for is not None:
        taken = (*state.open, *state.recent)
        return any(action.workflow_id == asked_for for action in taken)
    waits = any(waiting.scheduled_for == due for waiting in state.buffered)
    return due <= state.decided_until and not waits

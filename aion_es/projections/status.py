"""How projections stand: what an operator sees, from the process that feeds them or from any other."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Connection

from aion_es.projections.checkpoints import CHECKPOINTS, REBUILDS, Checkpoint, checkpoints
from aion_es.projections.failures import Failure, failures
from aion_es.projections.instants import to_micros
from aion_es.projections.members import Member
from aion_es.store.port import START, Position, RecordedEvent


@dataclass(frozen=True, slots=True)
class ProjectionStatus:
    """How one projection stands.

    Attributes:
        version: Of the rows.
        position: Everything up to here is in the rows.
        caught_up: All that was stored is in them, and they are fed live; by this process, or else, as far
            as can be seen from here, by another.
        events: Handled since this process began to feed it.
        lag: How far the store's end is ahead, in the store's positions (the embedded store counts
            events, EventStoreDB bytes); `None` where the store does not answer.
        lag_time: How much later than the last event in the rows the last one in the store was recorded;
            `None` where that is not known.
        rate: Positions per second, over the last seconds in which it was looked at; `None` at first.
        time_to_catch_up: At this rate; `None` where there is none.
        error: Why it stands still; `None` if it does not.
        failed_event: Type, stream and revision of the event that it cannot handle.
        failed_position: The place of that event in the store; what `skip` takes.
        is_active: This process feeds it.
        rebuild: How the new rows stand that are being made beside these; `None` if there are none.
    """

    name: str
    version: int
    position: Position
    caught_up: bool
    events: int
    lag: int | None
    error: str | None
    failed_event: str | None
    failed_position: Position | None
    lag_time: timedelta | None = None
    rate: float | None = None
    time_to_catch_up: timedelta | None = None
    is_active: bool = False
    rebuild: "ProjectionStatus | None" = None


@dataclass(frozen=True, slots=True)
class StoredState:
    """What the read model itself says of its projections, by name."""

    answering: dict[str, Checkpoint]
    beside: dict[str, Checkpoint]
    failures: dict[tuple[str, bool], Failure]


def stored_state(connection: Connection) -> StoredState:
    """Read it."""
    return StoredState(
        checkpoints(connection, CHECKPOINTS),
        checkpoints(connection, REBUILDS),
        failures(connection),
    )


@dataclass(frozen=True, slots=True)
class StoreEnd:
    """Where the store ends: its last position, and the last event that projections want."""

    position: Position
    last: RecordedEvent | None


def statuses(
    members: Iterable[Member],
    twins: dict[str, Member],
    stored: StoredState,
    end: StoreEnd | None,
    *,
    is_active: bool,
) -> list[ProjectionStatus]:
    """Return how each member stands, in their order.

    Args:
        members: One per projection.
        twins: Those that make rows anew, by name.
        stored: What the read model says.
        end: `None` where the store does not answer.
        is_active: This process feeds them.
    """
    view = _View(stored, end, is_active)
    return [view.status(member, twins.get(member.projection.name)) for member in members]


class _View:
    def __init__(self, stored: StoredState, end: StoreEnd | None, is_active: bool) -> None:
        self._stored = stored
        self._end = end
        self._is_active = is_active

    def status(self, member: Member, twin: Member | None) -> ProjectionStatus:
        name = member.projection.name
        beside = self._stored.beside.get(name)
        rebuild = None
        if beside is not None:
            making = member if member.is_beside else twin
            rebuild = self._status(name, beside, making, None, is_beside=True)
        found = self._stored.answering.get(name)
        stored = found or Checkpoint(member.projection.version, START, None)
        answering = None if member.is_beside else member
        return self._status(name, stored, answering, rebuild, is_beside=False)

    def _status(
        self,
        name: str,
        stored: Checkpoint,
        member: Member | None,
        rebuild: ProjectionStatus | None,
        *,
        is_beside: bool,
    ) -> ProjectionStatus:
        position = stored.position
        if member is not None:
            position = max(position, member.position) if self._is_active else position
            if not self._is_active:
                member.pace.note(position)
        failure = self._stored.failures.get((name, is_beside))
        if self._is_active and member is not None:
            failure = member.failure
        lag = None if self._end is None else max(0, self._end.position.commit - position.commit)
        rate = None if member is None else member.pace.rate
        return ProjectionStatus(
            name=name,
            version=stored.version,
            position=position,
            caught_up=self._is_caught_up(position, member, failure),
            events=0 if member is None else member.events,
            lag=lag,
            error=None if failure is None else failure.error,
            failed_event=None if failure is None else failure.event,
            failed_position=None if failure is None else failure.position,
            lag_time=self._lag_time(position, stored, member),
            rate=rate,
            time_to_catch_up=_time(lag, rate),
            is_active=self._is_active and member is not None,
            rebuild=rebuild,
        )

    def _is_caught_up(
        self, position: Position, member: Member | None, failure: Failure | None
    ) -> bool:
        if self._is_active:
            return member is not None and member.caught_up
        if self._end is None or failure is not None:
            return False
        return self._end.last is None or position >= self._end.last.position

    def _lag_time(
        self, position: Position, stored: Checkpoint, member: Member | None
    ) -> timedelta | None:
        if self._end is None:
            return None
        last = self._end.last
        if last is None or position >= last.position:
            return timedelta(0)
        known = stored.recorded_at
        if member is not None and member.recorded_at is not None:
            known = max(known or 0, member.recorded_at)
        if known is None:
            return None
        return timedelta(microseconds=max(0, to_micros(last.recorded_at) - known))


def _time(lag: int | None, rate: float | None) -> timedelta | None:
    if lag == 0:
        return timedelta(0)
    return timedelta(seconds=lag / rate) if lag is not None and rate else None

"""What stopped a projection, for every process to see, and which events an operator had it skip."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import BigInteger, Column, Connection, Integer, MetaData, Table, delete, select

from aion_es.errors import InvalidArgumentError
from aion_es.projections.columns import Text
from aion_es.projections.instants import from_micros, to_micros
from aion_es.store.port import Position

_METADATA: Final = MetaData()

FAILURES: Final = Table(
    "projection_failures",
    _METADATA,
    Column("projection", Text, primary_key=True),
    Column("beside", Integer, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("error", Text, nullable=False),
    Column("event", Text),
    Column("position_commit", BigInteger),
    Column("position_prepare", BigInteger),
    Column("failed_at", BigInteger, nullable=False),
)
"""One row per projection that stands still; `beside`: it is the making of its new rows that does."""

SKIPS: Final = Table(
    "projection_skips",
    _METADATA,
    Column("projection", Text, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("position_commit", BigInteger, primary_key=True),
    Column("position_prepare", BigInteger, primary_key=True),
    Column("event", Text),
    Column("error", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("skipped_at", BigInteger, nullable=False),
)
"""One row per event that an operator had a version of a projection skip. A raised version tries it again."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a projection stands still.

    Attributes:
        event: Type, stream and revision of the event that it cannot handle; `None` if no event is to blame.
        position: The place of that event in the store.
    """

    error: str
    event: str | None
    position: Position | None


@dataclass(frozen=True, slots=True)
class Skipped:
    """An event that a projection did not handle, because an operator said so.

    Attributes:
        event: Its type, stream and revision.
        error: Why the projection could not handle it.
        reason: What the operator gave as the reason.
    """

    projection: str
    version: int
    position: Position
    event: str | None
    error: str
    reason: str
    skipped_at: datetime


def record_failure(
    connection: Connection,
    projection: str,
    version: int,
    failure: Failure,
    *,
    is_beside: bool,
    at: datetime,
) -> None:
    """Write down why the projection stands still, in place of what was written before."""
    clear_failure(connection, projection, is_beside=is_beside)
    place = failure.position
    connection.execute(
        FAILURES.insert().values(
            projection=projection,
            beside=int(is_beside),
            version=version,
            error=failure.error,
            event=failure.event,
            position_commit=None if place is None else place.commit,
            position_prepare=None if place is None else place.prepare,
            failed_at=to_micros(at),
        )
    )


def clear_failure(connection: Connection, projection: str, *, is_beside: bool) -> None:
    """Take away what was written; the projection goes on."""
    connection.execute(
        delete(FAILURES).where(
            FAILURES.c.projection == projection, FAILURES.c.beside == int(is_beside)
        )
    )


def failures(connection: Connection) -> dict[tuple[str, bool], Failure]:
    """Return why projections stand still, by name, and whether it is the rows beside that do."""
    return {
        (row.projection, bool(row.beside)): Failure(
            row.error,
            row.event,
            None
            if row.position_commit is None
            else Position(row.position_commit, row.position_prepare),
        )
        for row in connection.execute(select(FAILURES))
    }


def record_skip(
    connection: Connection, projection: str, position: Position, *, reason: str, at: datetime
) -> None:
    """Have the projection skip the event that it stands still at.

    Raises:
        InvalidArgumentError: It does not stand still at `position`; nothing was recorded.
    """
    found = connection.execute(
        select(FAILURES).where(
            FAILURES.c.projection == projection,
            FAILURES.c.position_commit == position.commit,
            FAILURES.c.position_prepare == position.prepare,
        )
    ).first()
    if found is None:
        raise InvalidArgumentError(
            "position", f"projection {projection!r} does not stand still at {position}"
        )
    key = (projection, found.version, *position)
    connection.execute(
        delete(SKIPS).where(
            *(column == value for column, value in zip(SKIPS.primary_key, key, strict=True))
        )
    )
    connection.execute(
        SKIPS.insert().values(
            projection=projection,
            version=found.version,
            position_commit=position.commit,
            position_prepare=position.prepare,
            event=found.event,
            error=found.error,
            reason=reason,
            skipped_at=to_micros(at),
        )
    )


def skipped_positions(connection: Connection, projection: str, version: int) -> frozenset[Position]:
    """Return the events that this version of the projection is to skip."""
    query = select(SKIPS.c.position_commit, SKIPS.c.position_prepare).where(
        SKIPS.c.projection == projection, SKIPS.c.version == version
    )
    return frozenset(Position(commit, prepare) for commit, prepare in connection.execute(query))


def skips(connection: Connection, projection: str) -> list[Skipped]:
    """Return every skip that was recorded for the projection, in the order of the events."""
    query = (
        select(SKIPS)
        .where(SKIPS.c.projection == projection)
        .order_by(SKIPS.c.version, SKIPS.c.position_commit, SKIPS.c.position_prepare)
    )
    return [
        Skipped(
            row.projection,
            row.version,
            Position(row.position_commit, row.position_prepare),
            row.event,
            row.error,
            row.reason,
            from_micros(row.skipped_at),
        )
        for row in connection.execute(query)
    ]

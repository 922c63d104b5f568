"""How far each projection has come, and how far its new rows: moved in the same transaction as the rows."""

from typing import Final, NamedTuple

from sqlalchemy import BigInteger, Column, Connection, Integer, MetaData, Table, inspect, select

from aion_es.errors import UnsupportedStoreVersionError
from aion_es.projections import beside
from aion_es.projections.columns import Text
from aion_es.projections.migrations import alone
from aion_es.projections.projection import Projection
from aion_es.store.port import START, Position

_METADATA: Final = MetaData()


def _checkpoint_table(name: str) -> Table:
    return Table(
        name,
        _METADATA,
        Column("projection", Text, primary_key=True),
        Column("version", Integer, nullable=False),
        Column("position_commit", BigInteger, nullable=False),
        Column("position_prepare", BigInteger, nullable=False),
        Column("recorded_at", BigInteger),
    )


CHECKPOINTS: Final = _checkpoint_table("checkpoints")
"""Of the rows that answer: one row per projection. Made by the read model's migrations.

`recorded_at` is when the store recorded the last event of the rows, in microseconds.
"""

REBUILDS: Final = _checkpoint_table("projection_rebuilds")
"""Of the rows that are being made beside them, while there are any."""


class Standing(NamedTuple):
    """Where a projection goes on.

    Attributes:
        position: Everything up to here is in its rows.
        is_beside: These are rows of a raised version that do not answer yet; older ones do.
    """

    position: Position
    is_beside: bool


class Checkpoint(NamedTuple):
    """One checkpoint as it is stored; `recorded_at` in microseconds, `None` before the first event."""

    version: int
    position: Position
    recorded_at: int | None


def install(connection: Connection, projection: Projection) -> Standing:
    """Return where `projection` goes on, after making its tables if there are none.

    A version that was raised begins anew, beside the older version's rows, which go on answering until
    `swap`. If the older tables lack a column that the new version declares, they could not: then they are
    dropped here, and the new rows answer, however many there are.

    Raises:
        UnsupportedStoreVersionError: A newer program's version of the projection is there; nothing changed.
    """
    alone(connection)
    standing = installed(connection, projection)
    if standing is not None:
        return standing
    found = checkpoint_of(connection, CHECKPOINTS, projection.name)
    if found is not None and found.version == projection.version:
        _forget_abandoned(connection, projection)
        return Standing(found.position, False)
    if found is not None and found.version > projection.version:
        raise UnsupportedStoreVersionError(
            f"projection {projection.name!r}", str(found.version), str(projection.version)
        )
    if found is not None and _can_answer(connection, projection):
        return Standing(begin_rebuild(connection, projection), True)
    beside.drop(connection, projection.tables)
    for table in reversed(projection.tables):
        table.drop(connection, checkfirst=True)
    for table in projection.tables:
        table.create(connection)
    _remove(connection, REBUILDS, projection.name)
    _put(connection, CHECKPOINTS, projection)
    return Standing(START, False)


def installed(connection: Connection, projection: Projection) -> Standing | None:
    """Return what `install` would return if it had nothing to write; `None` if it had."""
    found = checkpoint_of(connection, CHECKPOINTS, projection.name)
    made = checkpoint_of(connection, REBUILDS, projection.name)
    is_of_ours = made is not None and made.version == projection.version
    if found is None or found.version > projection.version:
        return None
    if found.version == projection.version:
        return Standing(found.position, False) if made is None or is_of_ours else None
    if made is not None and is_of_ours and _can_answer(connection, projection):
        return Standing(made.position, True)
    return None


def make_anew(connection: Connection, projection: Projection) -> None:
    """Have the rows of `projection` made anew: beside the old ones, or, where it has none yet, in their place.

    Raises:
        UnsupportedStoreVersionError: A newer program's version of the projection is there; nothing changed.
    """
    found = checkpoint_of(connection, CHECKPOINTS, projection.name)
    if found is None or found.version != projection.version:
        install(connection, projection)  # which makes them anew in any case
    else:
        begin_rebuild(connection, projection)


def begin_rebuild(connection: Connection, projection: Projection) -> Position:
    """Begin to make the rows of `projection` anew beside the old ones; return where it goes on.

    One that was begun goes on where it was, unless it was for another version.
    """
    alone(connection)
    found = checkpoint_of(connection, REBUILDS, projection.name)
    if found is not None and found.version == projection.version:
        return found.position
    beside.create(connection, projection.tables)
    _remove(connection, REBUILDS, projection.name)
    _put(connection, REBUILDS, projection)
    return START


def swap(connection: Connection, projection: Projection, position: Position) -> bool:
    """Let the rows that were made beside, and reach up to `position`, answer; the old ones are gone.

    False if the old ones are ahead of them: nobody may read backwards in time.

    Raises:
        UnsupportedStoreVersionError: Nothing was made beside for this version up to `position`.
    """
    alone(connection)
    old = checkpoint_of(connection, CHECKPOINTS, projection.name)
    made = _require(connection, REBUILDS, projection)
    if old is not None and old.position > position:
        return False
    if made.position != position:
        raise _missing(projection, made)
    beside.swap(connection, projection.tables)
    _remove(connection, REBUILDS, projection.name)
    _put(connection, CHECKPOINTS, projection, made.position, made.recorded_at)
    return True


def checkpoint_of(connection: Connection, table: Table, projection: str) -> Checkpoint | None:
    """Return a projection's row of `CHECKPOINTS` or `REBUILDS`."""
    return checkpoints(connection, table, projection).get(projection)


def checkpoints(
    connection: Connection, table: Table, projection: str | None = None
) -> dict[str, Checkpoint]:
    """Return the rows of `CHECKPOINTS` or `REBUILDS`, all of them or one projection's, by its name."""
    query = select(table)
    if projection is not None:
        query = query.where(table.c.projection == projection)
    return {
        row.projection: Checkpoint(
            row.version, Position(row.position_commit, row.position_prepare), row.recorded_at
        )
        for row in connection.execute(query)
    }


def position_of(
    connection: Connection, projection: Projection, *, is_beside: bool = False
) -> Position:
    """Return the position up to which the rows of `projection` reach.

    Raises:
        UnsupportedStoreVersionError: This version is not the one that the read model holds now.
    """
    return _require(connection, REBUILDS if is_beside else CHECKPOINTS, projection).position


def advance(
    connection: Connection,
    projection: Projection,
    expected: Position,
    position: Position,
    *,
    recorded_at: int | None = None,
    is_beside: bool = False,
) -> bool:
    """Move the checkpoint from `expected` to `position`; False if it is not at `expected`.

    Two processes that run one projection read the same events; whoever comes second finds the
    checkpoint moved, and must roll back, so that no event counts twice.
    """
    table = REBUILDS if is_beside else CHECKPOINTS
    values = {"position_commit": position.commit, "position_prepare": position.prepare}
    if recorded_at is not None:
        values["recorded_at"] = recorded_at
    moved = connection.execute(
        table.update()
        .where(
            table.c.projection == projection.name,
            table.c.version == projection.version,
            table.c.position_commit == expected.commit,
            table.c.position_prepare == expected.prepare,
        )
        .values(values)
    )
    return moved.rowcount == 1


def _can_answer(connection: Connection, projection: Projection) -> bool:
    """Tell whether the tables that are there have every column that the projection declares."""
    inspector = inspect(connection)
    for table in projection.tables:
        if not inspector.has_table(table.name):
            return False
        there = {column["name"] for column in inspector.get_columns(table.name)}
        if not there.issuperset(column.name for column in table.columns):
            return False
    return True


def _forget_abandoned(connection: Connection, projection: Projection) -> None:
    """Drop what a newer version began to make beside, before it was taken back."""
    begun = checkpoint_of(connection, REBUILDS, projection.name)
    if begun is not None and begun.version != projection.version:
        beside.drop(connection, projection.tables)
        _remove(connection, REBUILDS, projection.name)


def _require(connection: Connection, table: Table, projection: Projection) -> Checkpoint:
    found = checkpoint_of(connection, table, projection.name)
    if found is None or found.version != projection.version:
        raise _missing(projection, found)
    return found


def _missing(projection: Projection, found: Checkpoint | None) -> UnsupportedStoreVersionError:
    return UnsupportedStoreVersionError(
        f"projection {projection.name!r}",
        "none" if found is None else str(found.version),
        str(projection.version),
    )


def _remove(connection: Connection, table: Table, projection: str) -> None:
    connection.execute(table.delete().where(table.c.projection == projection))


def _put(
    connection: Connection,
    table: Table,
    projection: Projection,
    position: Position = START,
    recorded_at: int | None = None,
) -> None:
    _remove(connection, table, projection.name)
    connection.execute(
        table.insert().values(
            projection=projection.name,
            version=projection.version,
            position_commit=position.commit,
            position_prepare=position.prepare,
            recorded_at=recorded_at,
        )
    )

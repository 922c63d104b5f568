"""How far each projection has come: one row per projection, moved in the same transaction as its rows."""

from typing import Final

from sqlalchemy import BigInteger, Column, Connection, Integer, MetaData, Table, Text, select

from aion_es.errors import UnsupportedStoreVersionError
from aion_es.projections.projection import Projection
from aion_es.store.port import START, Position

CHECKPOINTS: Final = Table(
    "checkpoints",
    MetaData(),
    Column("projection", Text, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("position_commit", BigInteger, nullable=False),
    Column("position_prepare", BigInteger, nullable=False),
)
"""Made by the read model's migrations. A raised version replaces the row of the older one."""


def install(connection: Connection, projection: Projection) -> Position:
    """Return where `projection` goes on, after making its tables if this version has none yet.

    A version that was raised starts anew: the older version's tables are dropped, made again and
    empty, and the checkpoint is `START`, all in this transaction.

    Raises:
        UnsupportedStoreVersionError: A newer program's version of the projection is there; nothing changed.
    """
    found = connection.execute(
        select(CHECKPOINTS.c.version).where(CHECKPOINTS.c.projection == projection.name)
    ).scalar_one_or_none()
    if found == projection.version:
        return position_of(connection, projection)
    if found is not None and found > projection.version:
        raise UnsupportedStoreVersionError(
            f"projection {projection.name!r}", str(found), str(projection.version)
        )
    for table in reversed(projection.tables):
        table.drop(connection, checkfirst=True)
    for table in projection.tables:
        table.create(connection)
    connection.execute(CHECKPOINTS.delete().where(CHECKPOINTS.c.projection == projection.name))
    connection.execute(
        CHECKPOINTS.insert().values(
            projection=projection.name,
            version=projection.version,
            position_commit=START.commit,
            position_prepare=START.prepare,
        )
    )
    return START


def position_of(connection: Connection, projection: Projection) -> Position:
    """Return the position up to which `projection` has handled everything.

    Raises:
        UnsupportedStoreVersionError: This version is not the one that the read model holds now.
    """
    row = connection.execute(
        select(
            CHECKPOINTS.c.version, CHECKPOINTS.c.position_commit, CHECKPOINTS.c.position_prepare
        ).where(CHECKPOINTS.c.projection == projection.name)
    ).one_or_none()
    if row is None or row.version != projection.version:
        raise UnsupportedStoreVersionError(
            f"projection {projection.name!r}",
            "none" if row is None else str(row.version),
            str(projection.version),
        )
    return Position(row.position_commit, row.position_prepare)


def advance(
    connection: Connection, projection: Projection, expected: Position, position: Position
) -> bool:
    """Move the checkpoint from `expected` to `position`; False if it is not at `expected`.

    Two processes that run one projection read the same events; whoever comes second finds the
    checkpoint moved, and must roll back, so that no event counts twice.
    """
    moved = connection.execute(
        CHECKPOINTS.update()
        .where(
            CHECKPOINTS.c.projection == projection.name,
            CHECKPOINTS.c.version == projection.version,
            CHECKPOINTS.c.position_commit == expected.commit,
            CHECKPOINTS.c.position_prepare == expected.prepare,
        )
        .values(position_commit=position.commit, position_prepare=position.prepare)
    )
    return moved.rowcount == 1

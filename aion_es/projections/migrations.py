"""The read model's own schema by number; a projection's tables go by the projection's version instead.

A projection's rows can be made again from the events, so a changed projection needs no migration:
its version is raised. What is left here is what cannot be made again: the checkpoints, and the version itself.
"""

from typing import Final

from sqlalchemy import Connection, inspect, text

from aion_es.errors import StoreCorruptError, UnsupportedStoreVersionError

APPLICATION_ID: Final = 0x61657072
"""Marks an SQLite file as a read model of ours ("aepr" in its header)."""

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        "CREATE TABLE read_model (version INTEGER NOT NULL)",
        "INSERT INTO read_model (version) VALUES (0)",
        "CREATE TABLE checkpoints (projection TEXT NOT NULL PRIMARY KEY, version INTEGER NOT NULL,"
        " position_commit BIGINT NOT NULL, position_prepare BIGINT NOT NULL)",
    ),
)
"""Statements that lead from version n to n + 1. Released ones are never edited."""

VERSION: Final = len(MIGRATIONS)


def migrate(connection: Connection, where: str) -> None:
    """Bring the schema to `VERSION`, in the transaction of `connection`.

    Args:
        connection: In a transaction that its owner commits.
        where: Names the database in errors.

    Raises:
        StoreCorruptError: The database holds somebody else's tables; it was left as it is.
        UnsupportedStoreVersionError: A newer program wrote it; it was left as it is.
    """
    found = _found_version(connection, where)
    if found > VERSION:
        raise UnsupportedStoreVersionError(f"read model {where}", str(found), f"{VERSION} or older")
    if found == VERSION:
        return
    for statements in MIGRATIONS[found:]:
        for statement in statements:
            connection.execute(text(statement))
    connection.execute(text("UPDATE read_model SET version = :version"), {"version": VERSION})
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")


def _found_version(connection: Connection, where: str) -> int:
    """Return the version of the schema, 0 for an empty database."""
    tables = inspect(connection).get_table_names()
    if connection.dialect.name == "sqlite":
        mark = connection.exec_driver_sql("PRAGMA application_id").scalar_one()
        foreign = mark != APPLICATION_ID and (mark != 0 or bool(tables))
    else:
        foreign = bool(tables) and "read_model" not in tables
    if foreign:
        raise StoreCorruptError(where, "the database is not a read model of aion-es")
    if not tables:
        return 0
    version: int = connection.execute(text("SELECT version FROM read_model")).scalar_one()
    return version

"""The read model's own schema by number; a projection's tables go by the projection's version instead.

A projection's rows can be made again from the events, so a changed projection needs no migration:
its version is raised. What is left here is what cannot be made again: the checkpoints, what operators
decided, and the version itself.
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
    (
        "ALTER TABLE checkpoints ADD COLUMN recorded_at BIGINT",
        "CREATE TABLE projection_rebuilds (projection TEXT NOT NULL PRIMARY KEY, version INTEGER NOT NULL,"
        " position_commit BIGINT NOT NULL, position_prepare BIGINT NOT NULL, recorded_at BIGINT)",
        "CREATE TABLE projection_failures (projection TEXT NOT NULL, beside INTEGER NOT NULL,"
        " version INTEGER NOT NULL, error TEXT NOT NULL, event TEXT, position_commit BIGINT,"
        " position_prepare BIGINT, failed_at BIGINT NOT NULL, PRIMARY KEY (projection, beside))",
        "CREATE TABLE projection_skips (projection TEXT NOT NULL, version INTEGER NOT NULL,"
        " position_commit BIGINT NOT NULL, position_prepare BIGINT NOT NULL, event TEXT,"
        " error TEXT NOT NULL, reason TEXT NOT NULL, skipped_at BIGINT NOT NULL,"
        " PRIMARY KEY (projection, version, position_commit, position_prepare))",
        "CREATE TABLE runner_lease (id INTEGER NOT NULL PRIMARY KEY, holder TEXT NOT NULL,"
        " process TEXT NOT NULL, heartbeat_at BIGINT NOT NULL)",
        "CREATE TABLE workers (worker TEXT NOT NULL PRIMARY KEY, process TEXT NOT NULL, seen_at BIGINT NOT NULL)",
        "CREATE TABLE registered_attributes (name TEXT NOT NULL PRIMARY KEY, type TEXT NOT NULL)",
    ),
    (
        "CREATE TABLE activity_heartbeats (workflow_id TEXT NOT NULL, run_id TEXT NOT NULL,"
        " activity_id INTEGER NOT NULL, attempt INTEGER NOT NULL, details TEXT NOT NULL,"
        " seen_at BIGINT NOT NULL, PRIMARY KEY (workflow_id, run_id, activity_id))",
    ),
    (
        "CREATE TABLE worker_code (worker TEXT NOT NULL, workflow_type TEXT NOT NULL,"
        " package_version TEXT NOT NULL, PRIMARY KEY (worker, workflow_type, package_version))",
    ),
)
"""Statements that lead from version n to n + 1, on both databases. Released ones are never edited."""

VERSION: Final = len(MIGRATIONS)

TABLES: Final = frozenset(
    {
        "read_model",
        "checkpoints",
        "projection_rebuilds",
        "projection_failures",
        "projection_skips",
        "runner_lease",
        "workers",
        "registered_attributes",
        "activity_heartbeats",
        "worker_code",
    }
)
"""What the migrations make."""

SCHEMA_LOCK: Final = 0x61657072_0001
"""PostgreSQL's advisory lock for changes of tables; taken within the current schema's name."""


def migrate(connection: Connection, where: str) -> None:
    """Bring the schema to `VERSION`, in the transaction of `connection`.

    Args:
        connection: In a transaction that its owner commits.
        where: Names the database in errors.

    Raises:
        StoreCorruptError: The database holds somebody else's tables; it was left as it is.
        UnsupportedStoreVersionError: A newer program wrote it; it was left as it is.
    """
    alone(connection)
    if is_current(connection, where):
        return
    found = _found_version(connection, where)
    for statements in MIGRATIONS[found:]:
        for statement in statements:
            connection.execute(text(statement))
    connection.execute(text("UPDATE read_model SET version = :version"), {"version": VERSION})
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")


def is_current(connection: Connection, where: str) -> bool:
    """Return whether the schema is at `VERSION`, so that `migrate` has nothing to do.

    Raises:
        StoreCorruptError: The database holds somebody else's tables.
        UnsupportedStoreVersionError: A newer program wrote it.
    """
    found = _found_version(connection, where)
    if found > VERSION:
        raise UnsupportedStoreVersionError(f"read model {where}", str(found), f"{VERSION} or older")
    return found == VERSION


def alone(connection: Connection) -> None:
    """Let nobody else change the schema until this transaction ends; waits for whoever does it now.

    SQLite's write transaction is alone anyway.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(
            text("SELECT pg_advisory_xact_lock(hashtextextended(current_schema(), :lock))"),
            {"lock": SCHEMA_LOCK},
        )


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

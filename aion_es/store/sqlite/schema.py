"""The database file: how it is recognised, its tables, and how an older file becomes a newer one."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from aion_es.errors import StoreCorruptError, StoreUnavailableError, UnsupportedStoreVersionError

APPLICATION_ID: Final = 0x41494F4E
"""`AION`: written into the file's header before anything else, so that a foreign file is known."""

MINIMUM_SQLITE: Final = (3, 35, 0)

_MAGIC: Final = b"SQLite format 3\x00"
_HEADER_BYTES: Final = 100
_APPLICATION_ID_AT: Final = 68

# Expressions that several queries share; `s` is a row of streams.

HEAD: Final = """
    max(s.reclaimed, coalesce((SELECT max(revision) FROM events WHERE stream_id = s.stream_id), -1))
"""
"""The stream's last revision ever, whether it is still there or not."""

NAME_MATCHES: Final = "(:length = 0 OR substr(CAST(s.name AS BLOB), 1, :length) = :prefix)"
"""The stream's name begins with the bytes `:prefix`, `:length` of them; nothing in them is special."""

# Version 1.
#
# events.position is the store's order: assigned by the writer, without gaps, never used twice.
# A stream's head is its highest revision in events; streams.reclaimed keeps it where compaction took
# that event away. streams.born is the first revision of the stream's present life: deletion sets it
# past the head, so "deleted" is `born > head` and an append brings the stream back without a write here.
_VERSION_1: Final = (
    """
    CREATE TABLE streams (
        stream_id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        reclaimed INTEGER NOT NULL DEFAULT -1,
        born INTEGER NOT NULL DEFAULT 0,
        truncate_before INTEGER,
        max_count INTEGER,
        max_age INTEGER
    )
    """,
    """
    CREATE TABLE events (
        position INTEGER PRIMARY KEY,
        stream_id INTEGER NOT NULL,
        revision INTEGER NOT NULL,
        event_id BLOB NOT NULL,
        type TEXT NOT NULL,
        recorded_at INTEGER NOT NULL,
        metadata BLOB NOT NULL,
        data BLOB NOT NULL
    )
    """,
    "CREATE UNIQUE INDEX events_by_stream ON events (stream_id, revision)",
    """
    CREATE TABLE consumer_groups (
        group_id INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL UNIQUE,
        prefix TEXT NOT NULL,
        strategy TEXT NOT NULL,
        message_timeout INTEGER NOT NULL,
        max_retries INTEGER NOT NULL,
        buffer_size INTEGER NOT NULL,
        taken_through INTEGER NOT NULL
    )
    """,
    """
    CREATE TABLE consumers (
        consumer_id INTEGER PRIMARY KEY AUTOINCREMENT,
        group_id INTEGER NOT NULL,
        alive_until INTEGER NOT NULL
    )
    """,
    """
    CREATE TABLE deliveries (
        group_id INTEGER NOT NULL,
        position INTEGER NOT NULL,
        stream_id INTEGER NOT NULL,
        attempt INTEGER NOT NULL,
        consumer_id INTEGER,
        due_at INTEGER,
        parked INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (group_id, position)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE pins (
        group_id INTEGER NOT NULL,
        bucket INTEGER NOT NULL,
        consumer_id INTEGER NOT NULL,
        PRIMARY KEY (group_id, bucket)
    ) WITHOUT ROWID
    """,
)

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (_VERSION_1,)
"""What leads from version n to n + 1, each in one transaction. Only ever appended to."""


def check_library(version: tuple[int, ...] = sqlite3.sqlite_version_info) -> None:
    """Return if the SQLite library is new enough.

    Raises:
        UnsupportedStoreVersionError: It is older than 3.35.
    """
    if version < MINIMUM_SQLITE:
        found, needed = (".".join(map(str, v)) for v in (version, MINIMUM_SQLITE))
        raise UnsupportedStoreVersionError("the SQLite library", found, f"{needed} or newer")


def check_json(connection: sqlite3.Connection) -> None:
    """Return if the SQLite library can write JSON, which before 3.38 was left to whoever built it.

    Raises:
        UnsupportedStoreVersionError: It cannot.
    """
    try:
        connection.execute("SELECT json_array()").fetchone()
    except sqlite3.OperationalError as error:
        raise UnsupportedStoreVersionError(
            "the SQLite library", f"{sqlite3.sqlite_version} without JSON", "one with JSON"
        ) from error


def check_file(path: Path) -> None:
    """Return if `path` can be opened as a store: it is one, is empty, or is not there yet.

    Only reads the header, so that a foreign file stays as it is.

    Raises:
        StoreUnavailableError: Its directory is missing, it is a directory, or it may not be read.
        StoreCorruptError: It is something else.
    """
    if path.is_dir():
        raise StoreUnavailableError(f"{path} is a directory, not a file")
    if not path.parent.is_dir():
        raise StoreUnavailableError(f"{path}: the directory {path.parent} does not exist")
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreUnavailableError(f"{path} cannot be read: {error.strerror}") from error
    if not header:
        return
    if len(header) < _HEADER_BYTES or not header.startswith(_MAGIC):
        raise StoreCorruptError(str(path), "is not an SQLite database; it was left untouched")
    found = int.from_bytes(header[_APPLICATION_ID_AT : _APPLICATION_ID_AT + 4], "big")
    if found != APPLICATION_ID:
        raise StoreCorruptError(
            str(path),
            "is an SQLite database of another program "
            f"(application_id {found}, not {APPLICATION_ID}); it was left untouched",
        )


def migrate(
    connection: sqlite3.Connection,
    where: str,
    migrations: Sequence[Sequence[str]] = MIGRATIONS,
) -> None:
    """Bring the file to the newest version.

    Raises:
        UnsupportedStoreVersionError: A newer program wrote it; nothing was changed.
    """
    while True:
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > len(migrations):
            raise UnsupportedStoreVersionError(
                f"the schema of {where}", str(version), f"{len(migrations)} or older"
            )
        if version == len(migrations):
            return
        _apply(connection, version, migrations[version])


def _apply(connection: sqlite3.Connection, version: int, statements: Sequence[str]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have done it while this one waited for the lock.
        if connection.execute("PRAGMA user_version").fetchone()[0] == version:
            for statement in statements:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {version + 1}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise

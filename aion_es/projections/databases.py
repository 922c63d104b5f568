"""The databases that a read model may live in: their engines, and their errors in our words."""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import QueuePool, StaticPool

from aion_es.errors import (
    AccessDeniedError,
    StoreCorruptError,
    StoreError,
    StoreUnavailableError,
    UnknownStoreURLError,
)

_UNAVAILABLE: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
    }
)
_CORRUPT: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_CONNECT_TIMEOUT: Final = 10
"""Seconds, for PostgreSQL, unless the URL says otherwise."""


@dataclass(frozen=True, slots=True)
class Database:
    """One database, with an engine for the one writer and one for the readers.

    Attributes:
        name: The URL, without its password.
        in_memory: It lives in its one connection, which both engines share.
        in_our_words: Returns what a driver's error means, `None` if nothing of the database's doing.
    """

    name: str
    in_memory: bool
    write_engine: Engine
    read_engine: Engine
    in_our_words: Callable[[DBAPIError], StoreError | None]


def open_database(url: str, *, readers: int, busy_timeout: timedelta) -> Database:
    """Return the database at `url`; it is not connected to yet.

    Raises:
        UnknownStoreURLError: The URL names no database that is known or whose driver is installed.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise UnknownStoreURLError(url, "not a URL; try sqlite:///read-model.db") from error
    shown = parsed.render_as_string()
    if parsed.drivername == "sqlite":
        if parsed.query or parsed.host:
            reason = "a read model in SQLite takes neither host nor options in its URL"
            raise UnknownStoreURLError(shown, reason)
        return _sqlite(parsed, readers, busy_timeout)
    if parsed.drivername == "postgresql+psycopg":
        return _postgresql(parsed, readers, busy_timeout)
    raise UnknownStoreURLError(
        shown,
        f"no read model on {parsed.drivername!r}; known: sqlite:///path.db, sqlite://, "
        "postgresql+psycopg://user@host/database",
    )


# ------------------------------------------------------------------------------------------ SQLite


def _sqlite(url: URL, readers: int, busy_timeout: timedelta) -> Database:
    name = url.render_as_string()

    def in_our_words(error: DBAPIError) -> StoreError | None:
        code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
        if code in _UNAVAILABLE:
            return StoreUnavailableError(f"{name}: {error.orig}")
        return StoreCorruptError(name, str(error.orig)) if code in _CORRUPT else None

    in_memory = url.database in {None, "", ":memory:"}
    writer = _sqlite_engine(url, in_memory, busy_timeout, "BEGIN IMMEDIATE", 1)
    reader = writer if in_memory else _sqlite_engine(url, False, busy_timeout, "BEGIN", readers)
    return Database(name, in_memory, writer, reader, in_our_words)


def _sqlite_engine(
    url: URL, in_memory: bool, busy_timeout: timedelta, begin: str, pool_size: int
) -> Engine:
    arguments = {"check_same_thread": False, "timeout": busy_timeout.total_seconds()}
    if in_memory:
        engine = create_engine(url, poolclass=StaticPool, connect_args=arguments)
    else:
        engine = create_engine(
            url, poolclass=QueuePool, pool_size=pool_size, max_overflow=0, connect_args=arguments
        )

    def connected(raw: sqlite3.Connection, _record: object) -> None:
        raw.isolation_level = None  # the driver must not begin transactions of its own
        raw.execute("PRAGMA synchronous = NORMAL").close()

    def began(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", began)
    return engine


# -------------------------------------------------------------------------------------- PostgreSQL


def _postgresql(url: URL, readers: int, busy_timeout: timedelta) -> Database:
    name = url.render_as_string()
    try:
        import psycopg
    except ImportError as error:
        reason = "needs psycopg: pip install 'aion-es[postgresql]'"
        raise UnknownStoreURLError(name, reason) from error

    def in_our_words(error: DBAPIError) -> StoreError | None:
        cause = error.orig
        state = getattr(cause, "sqlstate", None) or ""
        if state.startswith("28") or state == "42501":
            return AccessDeniedError(f"{name}: {cause}")
        if state in {"XX001", "XX002"}:
            return StoreCorruptError(name, str(cause))
        if state.startswith("54"):  # more than the server can hold: the same again is refused again
            return None
        # Of these two classes is whatever has to do with the connection, the server's state and locks.
        away = isinstance(cause, psycopg.OperationalError | psycopg.InterfaceError)
        return StoreUnavailableError(f"{name}: {cause}") if away else None

    writer = _postgresql_engine(url, busy_timeout, 1, read_only=False)
    reader = _postgresql_engine(url, busy_timeout, readers, read_only=True)
    return Database(name, False, writer, reader, in_our_words)


def _postgresql_engine(
    url: URL, busy_timeout: timedelta, pool_size: int, *, read_only: bool
) -> Engine:
    from psycopg.types.string import StrDumperUnknown

    class WithoutNul(StrDumperUnknown):
        """Writes U+FFFD for NUL, which PostgreSQL's text cannot hold: no message may stop a projection."""

        def dump(self, obj: str) -> Any:
            return super().dump(obj.replace("\0", "\ufffd") if "\0" in obj else obj)

    arguments: dict[str, Any] = {"fallback_application_name": "aion-es"}
    if "connect_timeout" not in url.query:
        arguments["connect_timeout"] = _CONNECT_TIMEOUT
    engine = create_engine(
        url,
        poolclass=QueuePool,
        pool_size=pool_size,
        max_overflow=0,
        # A reader's connection that broke meanwhile is replaced; the writer's failure is seen and retried.
        pool_pre_ping=read_only,
        isolation_level="REPEATABLE READ" if read_only else "READ COMMITTED",
        connect_args=arguments,
    )
    patience = f"SET lock_timeout = {int(busy_timeout.total_seconds() * 1000)}"

    def connected(raw: Any, _record: object) -> None:
        connection = getattr(raw, "driver_connection", raw)
        connection.adapters.register_dumper(str, WithoutNul)
        connection.execute(patience)
        connection.commit()
        connection.read_only = read_only or None

    event.listen(engine, "connect", connected)
    return engine

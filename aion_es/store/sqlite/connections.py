"""Connections to one database: one that writes, some that read, and what their errors mean."""

import contextlib
import enum
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import quote

from aion_es.errors import InternalError, StoreCorruptError, StoreError, StoreUnavailableError
from aion_es.store.sqlite.schema import (
    APPLICATION_ID,
    check_file,
    check_json,
    check_library,
    migrate,
)

T = TypeVar("T")

BUSY_TIMEOUT: Final = 5.0
"""Seconds to wait for another process's write lock."""

_BUSY_POLL: Final = 0.001

_CORRUPT: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_UNAVAILABLE: Final = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_AUTH,
    sqlite3.SQLITE_NOLFS,
}


class Durability(enum.Enum):
    """What an acknowledged append survives."""

    FULL = "full"
    """A power loss: every commit is synced to the disk."""
    NORMAL = "normal"
    """A crash of the process; a power loss may take the newest commits, never tear one."""


def translated(
    where: str, error: sqlite3.Error, *, outcome_unknown: bool = False
) -> StoreError | InternalError:
    """Return what an error of SQLite means to the store's user, by its code."""
    code = getattr(error, "sqlite_errorcode", None)
    primary = None if code is None else code & 0xFF
    if primary in _CORRUPT:
        return StoreCorruptError(where, str(error))
    if primary in _UNAVAILABLE:
        return StoreUnavailableError(f"{where}: {error}", outcome_unknown)
    return InternalError(f"{where}: {type(error).__name__}: {error}")


class Connections:
    """All connections to one database; opened in one thread, used from several.

    A memory database has a single connection, so there reading and writing exclude each other.

    Args:
        path: The file; None for a database in memory.
        durability: See `Durability`.
        busy_timeout: Seconds to wait for another process's write lock.

    Raises:
        StoreUnavailableError: The file cannot be opened.
        StoreCorruptError: It is damaged or not a store; a foreign file is left untouched.
        UnsupportedStoreVersionError: It, or the SQLite library, has the wrong version.
    """

    def __init__(self, path: Path | None, durability: Durability, busy_timeout: float) -> None:
        check_library()
        with contextlib.closing(sqlite3.connect(":memory:")) as library:
            check_json(library)  # not in the file, which another process may have locked just now
        self.where = "sqlite memory store" if path is None else str(path)
        self._path = path
        self._durability = durability
        self._busy_timeout = busy_timeout
        self._lock = threading.Lock()
        self._idle: queue.LifoQueue[sqlite3.Connection] = queue.LifoQueue()
        if path is not None:
            check_file(path)
        with self.errors():
            self._writer = self._connect(timeout=0)  # see `patiently`
            try:
                self._prepare()
            except BaseException:
                self._writer.close()
                raise

    @property
    def in_file(self) -> bool:
        """True if other processes can open the same database."""
        return self._path is not None

    @contextlib.contextmanager
    def errors(self) -> Generator[None, None, None]:
        """Translate SQLite's errors."""
        try:
            yield
        except sqlite3.Error as error:
            raise translated(self.where, error) from error

    @contextlib.contextmanager
    def writing(self) -> Generator[sqlite3.Connection, None, None]:
        """Lend the writing connection; the caller begins and ends transactions."""
        with self._lock:
            yield self._writer

    @contextlib.contextmanager
    def reading(self) -> Generator[sqlite3.Connection, None, None]:
        """Lend a connection for reading."""
        if self._path is None:
            with self._lock:
                yield self._writer
            return
        try:
            connection = self._idle.get_nowait()
        except queue.Empty:
            connection = self.reader()
        try:
            yield connection
        finally:
            self._idle.put(connection)

    def reader(self) -> sqlite3.Connection:
        """Open one more connection that cannot write; its user closes it."""
        connection = self._connect(timeout=self._busy_timeout)
        try:
            connection.execute("PRAGMA query_only = ON")
        except BaseException:
            connection.close()
            raise
        return connection

    def close(self) -> None:
        """Bring everything into the main file and close; nobody may be using a connection."""
        while not self._idle.empty():
            self._idle.get_nowait().close()
        try:
            if self._path is not None:
                # Another process that is reading keeps the log: then it is left to that process.
                with contextlib.suppress(sqlite3.Error):
                    self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        finally:
            self._writer.close()

    def _connect(self, timeout: float) -> sqlite3.Connection:
        target = ":memory:" if self._path is None else f"file:{quote(str(self._path.absolute()))}"
        return sqlite3.connect(
            target,
            uri=self._path is not None,
            timeout=timeout,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )

    def _prepare(self) -> None:
        connection = self._writer
        self.patiently(self._mark)
        if self._path is not None:
            (mode,) = self.patiently(
                lambda: connection.execute("PRAGMA journal_mode = WAL").fetchone()
            )
            if mode != "wal":
                raise StoreUnavailableError(
                    f"{self.where}: the file system cannot share memory between processes, "
                    "which SQLite's write-ahead log needs; choose a local disk"
                )
            # 4 MiB, then its pages move to the main file and it is written over from the start: on a
            # log that still grows each sync costs half as much again, so a longer one is slower.
            connection.execute("PRAGMA wal_autocheckpoint = 1000")
            # A log that grew behind a long read is cut back to this size.
            connection.execute("PRAGMA journal_size_limit = 16777216").fetchone()
        if self._durability is Durability.FULL:
            # On macOS only this makes the drive write; without effect elsewhere.
            connection.execute("PRAGMA fullfsync = ON")
        connection.execute(f"PRAGMA synchronous = {self._durability.name}")
        connection.execute("PRAGMA cache_size = -16000")
        self.patiently(lambda: migrate(connection, self.where))

    def _mark(self) -> None:
        """Write whose file this is into its header, before a write-ahead log exists: see `check_file`."""
        if self._writer.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            self._writer.execute(f"PRAGMA application_id = {APPLICATION_ID}")

    def patiently(self, attempt: Callable[[], T]) -> T:
        """Repeat `attempt` while another process holds the lock that it needs.

        SQLite's own way of waiting looks every 100 ms in the end; beside a process that writes all
        the time it would hardly ever find the lock free, and some things it does not wait for at all.
        """
        give_up_at = time.monotonic() + self._busy_timeout
        while True:
            try:
                return attempt()
            except sqlite3.OperationalError as error:
                busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                if not busy or time.monotonic() > give_up_at:
                    raise
                time.sleep(_BUSY_POLL)

"""The read model: the database that projections write and queries read, and the threads that reach it."""

import asyncio
import sqlite3
from collections.abc import Callable, Generator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Final, Self, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import QueuePool, StaticPool

from aion_es.errors import (
    StoreClosedError,
    StoreCorruptError,
    StoreUnavailableError,
    UnknownStoreURLError,
)
from aion_es.projections.migrations import migrate

T = TypeVar("T")

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


class ReadModel:
    """Rows that follow from the events, in SQLite: one writer on a thread of its own, readers beside it.

    The file is in WAL mode with `synchronous=NORMAL`: rows and checkpoint are committed together, so a
    power loss can only take both back to an earlier commit, from which the runner reads the events again.
    """

    def __init__(self, url: URL, *, readers: int, busy_timeout: timedelta) -> None:
        """Use `ReadModel.open`."""
        self._name = url.render_as_string()
        self._memory = url.database in {None, "", ":memory:"}
        self._closed = False
        self._write_engine = _engine(url, self._memory, busy_timeout, begin="BEGIN IMMEDIATE")
        self._write_thread = ThreadPoolExecutor(1, "aion-read-model-writer")
        # A memory database lives in its one connection, which belongs to the writer's thread.
        self._read_engine = (
            self._write_engine
            if self._memory
            else _engine(url, False, busy_timeout, begin="BEGIN", pool_size=readers)
        )
        self._read_threads: Executor = (
            self._write_thread
            if self._memory
            else ThreadPoolExecutor(readers, "aion-read-model-reader")
        )

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        readers: int = 4,
        busy_timeout: timedelta = timedelta(seconds=5),
    ) -> Self:
        """Return the read model at `url`, made or migrated if need be.

        Args:
            url: `sqlite:///relative.db`, `sqlite:////absolute.db`, or `sqlite://` for one in memory that
                is gone when closed.
            readers: So many reads run at once.
            busy_timeout: A write waits so long for another process's.

        Raises:
            UnknownStoreURLError: The URL names no read model that this release knows.
            StoreUnavailableError: The file cannot be opened or written.
            StoreCorruptError: The file is not a read model of ours; it was left as it is.
            UnsupportedStoreVersionError: A newer program wrote it; it was left as it is.
        """
        model = cls(_parse(url), readers=readers, busy_timeout=busy_timeout)
        try:
            await model.write(partial(migrate, where=model._name))
            await model._on_writer(model._set_wal)
        except BaseException:
            await model.aclose()
            raise
        return model

    @property
    def name(self) -> str:
        """The URL, without its password."""
        return self._name

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Return what `query` gives, run on a reader's thread in one consistent snapshot.

        Raises:
            StoreClosedError: The read model was closed.
            StoreUnavailableError: The database does not answer.
            StoreCorruptError: The database is damaged.
        """
        self._require_open()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._read_threads, self._run, self._read_engine, query)

    async def write(self, change: Callable[[Connection], T]) -> T:
        """Return what `change` gives, run on the writer's thread in one transaction.

        What `change` raises rolls everything back and is raised here. Cancelling the call never tears a
        transaction: it is committed whole, or not at all.

        Raises:
            StoreClosedError: The read model was closed; nothing was written.
            StoreUnavailableError: The database cannot be written now; nothing was written.
            StoreCorruptError: The database is damaged; nothing was written.
        """
        self._require_open()
        return await self._on_writer(partial(self._run, self._write_engine, change))

    async def aclose(self) -> None:
        """Finish what runs, then close. Afterwards every call is `StoreClosedError`; twice is fine."""
        if self._closed:
            return
        self._closed = True
        await asyncio.to_thread(self._close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def _require_open(self) -> None:
        if self._closed:
            raise StoreClosedError(self._name)

    async def _on_writer(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._write_thread, work)

    def _run(self, engine: Engine, work: Callable[[Connection], T]) -> T:
        with self._translated(), engine.begin() as connection:
            return work(connection)

    def _set_wal(self) -> None:
        """Set the journal mode, which outlives the connection; only once the file is known to be ours."""
        if self._memory:
            return
        with self._translated():
            raw = self._write_engine.raw_connection()
            try:
                raw.cursor().execute("PRAGMA journal_mode = WAL").close()
            finally:
                raw.close()

    @contextmanager
    def _translated(self) -> Generator[None]:
        try:
            yield
        except DBAPIError as error:
            code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
            if code in _UNAVAILABLE:
                raise StoreUnavailableError(f"{self._name}: {error.orig}") from error
            if code in _CORRUPT:
                raise StoreCorruptError(self._name, str(error.orig)) from error
            raise

    def _close(self) -> None:
        self._read_threads.shutdown(wait=True)
        self._write_thread.shutdown(wait=True)
        self._read_engine.dispose()
        self._write_engine.dispose()


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise UnknownStoreURLError(url, "not a URL; try sqlite:///read-model.db") from error
    if parsed.drivername != "sqlite":
        raise UnknownStoreURLError(
            url,
            f"no read model on {parsed.drivername!r} in this release; known: sqlite:///path.db, sqlite://",
        )
    if parsed.query or parsed.host:
        raise UnknownStoreURLError(url, "a read model takes neither host nor options in its URL")
    return parsed


def _engine(
    url: URL, memory: bool, busy_timeout: timedelta, *, begin: str, pool_size: int = 1
) -> Engine:
    arguments = {"check_same_thread": False, "timeout": busy_timeout.total_seconds()}
    if memory:
        engine = create_engine(url, poolclass=StaticPool, connect_args=arguments)
    else:
        engine = create_engine(
            url,
            poolclass=QueuePool,
            pool_size=pool_size,
            max_overflow=0,
            connect_args=arguments,
        )

    def connected(raw: sqlite3.Connection, _record: object) -> None:
        raw.isolation_level = None  # the driver must not begin transactions of its own
        raw.execute("PRAGMA synchronous = NORMAL").close()

    def began(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", began)
    return engine

"""The read model: the database that projections write and queries read, and the threads that reach it."""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Generator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from typing import Any, Final, Self, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from aion_es.errors import StoreClosedError, StoreUnavailableError
from aion_es.projections.databases import Database, open_database
from aion_es.projections.migrations import is_current, migrate
from aion_es.store.closing import ClosesOnExit

T = TypeVar("T")


class ReadModel(ClosesOnExit):
    """Rows that follow from the events: one writer on a thread of its own, readers beside it.

    An SQLite file is in WAL mode with `synchronous=NORMAL`: rows and checkpoint are committed together, so
    a power loss can only take both back to an earlier commit, from which the runner reads the events again.
    """

    def __init__(self, database: Database, *, readers: int) -> None:
        """Use `ReadModel.open`."""
        self._database = database
        self._closed = False
        self._held = 0.0  # seconds of long transactions since others last had their chance
        self._write_thread = ThreadPoolExecutor(1, "aion-read-model-writer")
        # A memory database lives in its one connection, which belongs to the writer's thread.
        self._read_threads: Executor = (
            self._write_thread
            if database.in_memory
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
                is gone when closed; `postgresql+psycopg://user:password@host:port/database`, whose
                current schema must hold nothing else (`?options=-csearch_path%3Dname` names another).
            readers: So many reads run at once.
            busy_timeout: A write waits so long for another process's.

        Raises:
            UnknownStoreURLError: The URL names no read model that is known or whose driver is installed.
            StoreUnavailableError: The database cannot be opened or written.
            AccessDeniedError: PostgreSQL refuses the credentials, or what they may do.
            StoreCorruptError: The database is not a read model of ours; it was left as it is.
            UnsupportedStoreVersionError: A newer program wrote it; it was left as it is.
        """
        database = open_database(url, readers=readers, busy_timeout=busy_timeout)
        model = cls(database, readers=readers)
        try:
            # A look first: SQLite has one writer at a time, and another process may be writing for long.
            if not await model.read(partial(is_current, where=database.name)):
                await model.insist(partial(migrate, where=database.name))
            if database.write_engine.dialect.name == "sqlite" and not database.in_memory:
                await model._on_writer(model._set_wal)
        except BaseException:
            await model.aclose()
            raise
        return model

    @property
    def name(self) -> str:
        """The URL, without its password."""
        return self._database.name

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self._database.write_engine.dialect.name

    @property
    def is_private(self) -> bool:
        """True if no other process, and nobody else in this one, can open the same rows: it is in memory."""
        return self._database.in_memory

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Return what `query` gives, run on a reader's thread in one consistent snapshot.

        Raises:
            StoreClosedError: The read model was closed.
            StoreUnavailableError: The database does not answer.
            AccessDeniedError: PostgreSQL refuses it.
            StoreCorruptError: The database is damaged.
        """
        self._require_open()
        engine = self._database.read_engine
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._read_threads, self._run, engine, query)

    async def write(self, change: Callable[[Connection], T]) -> T:
        """Return what `change` gives, run on the writer's thread in one transaction.

        What `change` raises rolls everything back and is raised here. Cancelling the call never tears a
        transaction: it is committed whole, or not at all.

        Raises:
            StoreClosedError: The read model was closed; nothing was written.
            StoreUnavailableError: The database cannot be written now; nothing was written, unless
                PostgreSQL went away while it committed.
            AccessDeniedError: PostgreSQL refuses it; nothing was written.
            StoreCorruptError: The database is damaged; nothing was written.
        """
        self._require_open()
        return await self._on_writer(partial(self._run_writing, change))

    async def insist(self, change: Callable[[Connection], T]) -> T:
        """As `write`, but where another process may hold SQLite's lock for long, try so often as may be needed.

        For what must be written before anything else can be done. It is tried six times, each of which
        waits for its `busy_timeout`.

        Raises:
            StoreError: As `write`; nothing was written.
        """
        if self.dialect == "sqlite":
            for _ in range(_TRIES - 1):
                with suppress(StoreUnavailableError):
                    return await self.write(change)
        return await self.write(change)

    async def aclose(self) -> None:
        """Finish what runs, then close. Afterwards every call is `StoreClosedError`; twice is fine."""
        if self._closed:
            return
        self._closed = True
        await asyncio.to_thread(self._close)

    def _require_open(self) -> None:
        if self._closed:
            raise StoreClosedError(self.name)

    async def _on_writer(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._write_thread, work)

    def _run(self, engine: Engine, work: Callable[[Connection], T]) -> T:
        with self._translated(), engine.begin() as connection:
            return work(connection)

    def _run_writing(self, change: Callable[[Connection], T]) -> T:
        began = time.monotonic()
        try:
            return self._run(self._database.write_engine, change)
        finally:
            self._let_others_write(time.monotonic() - began)

    def _let_others_write(self, took: float) -> None:
        """Leave SQLite's lock alone for a moment after it was held long.

        Who waits for it looks every tenth of a second at most, and would never meet the moment between
        one long transaction and the next.
        """
        if took < _SHORT or self.is_private or self.dialect != "sqlite":
            return
        self._held += took
        if self._held >= _FAIR:
            self._held = 0.0
            with suppress(RuntimeError):  # it is being closed, and will write no more
                self._write_thread.submit(time.sleep, _LOOK)

    def _set_wal(self) -> None:
        """Set the journal mode, which outlives the connection; only once the file is known to be ours."""
        with self._translated():
            raw = self._database.write_engine.raw_connection()
            try:
                _enter_wal(raw.cursor())
            finally:
                raw.close()

    @contextmanager
    def _translated(self) -> Generator[None]:
        try:
            yield
        except DBAPIError as error:
            ours = self._database.in_our_words(error)
            if ours is None:
                raise
            raise ours from error

    def _close(self) -> None:
        self._read_threads.shutdown(wait=True)
        self._write_thread.shutdown(wait=True)
        self._database.read_engine.dispose()
        self._database.write_engine.dispose()


def _enter_wal(cursor: Any) -> None:
    """Switch to WAL, patiently: SQLite does not wait by itself when another process is in the file just then.

    Raises:
        StoreUnavailableError: Somebody else kept it from that for five seconds.
    """
    for _ in range(_WAL_TRIES):
        try:
            cursor.execute("PRAGMA journal_mode = WAL").close()
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_BUSY:
                raise StoreUnavailableError(f"the read model cannot be opened: {error}") from error
            time.sleep(_WAL_PAUSE)
        else:
            return
    raise StoreUnavailableError("the read model is locked by another process")


_WAL_PAUSE: Final = 0.01
_WAL_TRIES: Final = 500
_TRIES: Final = 6
_SHORT: Final = 0.1
"""Seconds; such transactions come one by one, with time for others between them."""
_FAIR: Final = 2.0
"""Seconds of longer transactions until others have their chance."""
_LOOK: Final = 0.12
"""Seconds, a little more than SQLite's longest pause between two looks whether a lock is free."""

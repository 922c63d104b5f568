"""The few threads that read, so that a slow disk never holds up the event loop."""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from aion_es.errors import StoreClosedError
from aion_es.store.sqlite.connections import Connections

T = TypeVar("T")

_THREADS: Final = 3


class ReaderPool:
    """Runs reads in threads, each with a connection of its own; knows whether the store is open."""

    def __init__(self, connections: Connections, loop: asyncio.AbstractEventLoop) -> None:
        self._connections = connections
        self._loop = loop
        self._threads = ThreadPoolExecutor(_THREADS, "aion-es-sqlite-reader")
        self._is_open = True

    @property
    def is_open(self) -> bool:
        """False once the store is being closed."""
        return self._is_open

    def require_open(self) -> None:
        """Return if the store is open.

        Raises:
            StoreClosedError: It is not.
        """
        if not self._is_open:
            raise StoreClosedError(self._connections.where)

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return what `work` reads.

        Raises:
            StoreClosedError: The store is closed.
            StoreUnavailableError: The file cannot be read now.
            StoreCorruptError: It is damaged.
        """
        self.require_open()
        return await self._loop.run_in_executor(self._threads, self._read, work)

    def refuse(self) -> None:
        """Take no more reads."""
        self._is_open = False

    def join(self) -> None:
        """Wait until the reads that were accepted are done and the threads have ended; blocks."""
        self._threads.shutdown(wait=True)

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._connections.errors(), self._connections.reading() as connection:
            return work(connection)

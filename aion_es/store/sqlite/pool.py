"""The few threads that read, so that a slow disk never holds up the event loop."""

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeAlias, TypeVar

from aion_es.errors import StoreClosedError
from aion_es.store.sqlite.connections import Connections

T = TypeVar("T")

_Answered: TypeAlias = "tuple[asyncio.Future[Any], Any, BaseException | None]"

_THREADS: Final = 3


class ReaderPool:
    """Runs reads in threads, each with a connection of its own; knows whether the store is open."""

    def __init__(self, connections: Connections, loop: asyncio.AbstractEventLoop) -> None:
        self._connections = connections
        self._loop = loop
        self._threads = ThreadPoolExecutor(_THREADS, "aion-es-sqlite-reader")
        self._is_open = True
        self._answered: deque[_Answered] = deque()
        self._is_told = False

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
        answer: asyncio.Future[T] = self._loop.create_future()
        self._threads.submit(self._read, work, answer)
        return await answer

    def refuse(self) -> None:
        """Take no more reads."""
        self._is_open = False

    def join(self) -> None:
        """Wait until the reads that were accepted are done and the threads have ended; blocks."""
        self._threads.shutdown(wait=True)

    def _read(self, work: Callable[[sqlite3.Connection], T], answer: "asyncio.Future[T]") -> None:
        result: T | None = None
        failure: BaseException | None = None
        try:
            with self._connections.errors(), self._connections.reading() as connection:
                result = work(connection)
        except BaseException as error:  # noqa: BLE001 - it belongs to who asked
            failure = error
        self._answered.append((answer, result, failure))
        if not self._is_told:
            self._is_told = True
            self._loop.call_soon_threadsafe(self._answer)

    def _answer(self) -> None:
        """Give the answers; those that are ready together share one waking of the loop."""
        self._is_told = False  # first: what is ready from here on asks for another
        while self._answered:
            answer, result, failure = self._answered.popleft()
            if answer.done():
                continue  # nobody waits any more
            if failure is None:
                answer.set_result(result)
            else:
                answer.set_exception(failure)

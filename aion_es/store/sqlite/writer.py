"""The one thread that writes: it commits all appends that wait in one transaction, each with its own answer."""

import asyncio
import copy
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

from aion_es.clock import Clock
from aion_es.errors import ConcurrencyConflictError, StoreClosedError, StreamDeletedError
from aion_es.ids import StreamName
from aion_es.store.port import Appended, ExpectedRevision, NewEvent
from aion_es.store.sqlite.appends import Append, Group, Heads, Transaction
from aion_es.store.sqlite.connections import Connections, translated

T = TypeVar("T")

MAX_GROUP_EVENTS: Final = 8192
MAX_GROUP_BYTES: Final = 16 * 1024 * 1024
"""A group is closed at either, so that the first in it does not wait for ever for the last."""
_ORPHAN_CHECK: Final = 1.0
"""Seconds between two looks at whether the program ended without closing the store."""


class Call(NamedTuple):
    """Other work for the writing connection, in a transaction of its own unless it says otherwise."""

    work: "Callable[[sqlite3.Connection], Any]"
    answer: "asyncio.Future[Any]"
    transaction: bool
    forget_heads: bool


_Answer: TypeAlias = "tuple[asyncio.Future[Any], Any, BaseException | None]"


class Writer:
    """The writing thread and the queue in front of it.

    Args:
        connections: Whose writing connection it uses, alone while the store is open.
        clock: Stamps what is recorded.
        loop: Where answers are delivered.
        published: Called on the loop with what each commit added, before its answers are delivered.
    """

    def __init__(
        self,
        connections: Connections,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        published: Callable[[Group], None],
    ) -> None:
        self._connections = connections
        self._clock = clock
        self._loop = loop
        self._published = published
        self._heads = Heads()
        self._is_open = True
        self.committed = -1
        """Position of the last event that this process committed; set by the thread."""
        self._queue: queue.SimpleQueue[Append | Call | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="aion-es-sqlite-writer")
        self._thread.start()

    # ---------------------------------------------------------------- on the event loop

    def append(
        self,
        stream: StreamName,
        events: Sequence[NewEvent],
        expected: ExpectedRevision,
        size: int,
    ) -> "asyncio.Future[Appended]":
        """Queue an append, now; the order of calls is the order of writing.

        Raises:
            StoreClosedError: The writer was stopped; nothing was queued.
        """
        self._require_open()
        answer: asyncio.Future[Appended] = self._loop.create_future()
        self._queue.put(Append(stream, events, expected, size, answer))
        return answer

    def call(
        self,
        work: Callable[[sqlite3.Connection], T],
        *,
        transaction: bool = True,
        forget_heads: bool = False,
    ) -> "asyncio.Future[T]":
        """Queue other work for the writing connection, in order with the appends.

        Args:
            work: What to do.
            transaction: Commit it, or roll back if it raises. False: it sees to that itself.
            forget_heads: It may change what the writer remembers of streams.

        Raises:
            StoreClosedError: The writer was stopped; nothing was queued.
        """
        self._require_open()
        answer: asyncio.Future[T] = self._loop.create_future()
        self._queue.put(Call(work, answer, transaction, forget_heads))
        return answer

    def stop(self) -> None:
        """Take no more work; ask the thread to do what was queued and then to end."""
        if self._is_open:
            self._is_open = False
            self._queue.put(None)

    def join(self) -> None:
        """Wait until it has; blocks."""
        self._thread.join()

    def _require_open(self) -> None:
        if not self._is_open:
            raise StoreClosedError(self._connections.where)

    # ---------------------------------------------------------------- in the thread

    def _run(self) -> None:
        carried: Append | Call | None = None
        while True:
            job = carried or self._next()
            carried = None
            if job is None:
                break
            if isinstance(job, Call):
                self._deliver(None, [self._called(job)])
                continue
            jobs, carried, last = self._gather(job)
            self._write(jobs)
            if last:
                break

    def _next(self) -> Append | Call | None:
        """Wait for work; None is the end, also if the program ended without closing the store."""
        while True:
            try:
                return self._queue.get(timeout=_ORPHAN_CHECK)
            except queue.Empty:
                if not threading.main_thread().is_alive():
                    return None

    def _gather(self, first: Append) -> tuple[list[Append], Call | None, bool]:
        """Return all appends that wait, what comes after them, and whether that is the end."""
        jobs, events, size = [first], len(first.events), first.size
        while events < MAX_GROUP_EVENTS and size < MAX_GROUP_BYTES:
            try:
                job = self._queue.get_nowait()
            except queue.Empty:
                break
            if job is None:
                return jobs, None, True
            if isinstance(job, Call):
                return jobs, job, False
            jobs.append(job)
            events += len(job.events)
            size += job.size
        return jobs, None, False

    def _write(self, jobs: list[Append]) -> None:
        """Commit a group and answer each of its appends."""
        answers: list[_Answer] = []
        try:
            with self._connections.writing() as connection:
                group = self._in_transaction(
                    connection, lambda: self._appended(connection, jobs, answers)
                )
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait must be told
            # Refusals were decided on heads of a transaction that did not happen: ask again.
            failure = self._failure(error)
            answers = [(job.answer, None, _twin(failure)) for job in jobs]
            group = None
        if group is not None:
            self.committed = group.end
        self._deliver(group, answers)

    def _appended(
        self, connection: sqlite3.Connection, jobs: list[Append], answers: list[_Answer]
    ) -> Group | None:
        heads = self._heads
        heads.refresh(connection)
        heads.load(connection, [job.stream for job in jobs])
        transaction = Transaction(connection, heads, self._clock.now())
        for job in jobs:
            try:
                answers.append((job.answer, transaction.append(job), None))
            except (ConcurrencyConflictError, StreamDeletedError) as refusal:
                answers.append((job.answer, None, refusal))
        return transaction.group if transaction.flush() else None

    def _called(self, job: Call) -> _Answer:
        try:
            with self._connections.writing() as connection:
                if job.transaction:
                    result = self._in_transaction(connection, lambda: job.work(connection))
                else:
                    result = self._connections.patiently(lambda: job.work(connection))
        except Exception as error:  # noqa: BLE001 - whatever it is, the one who waits must be told
            self._heads.forget()
            return job.answer, None, self._failure(error)
        if job.forget_heads:
            self._heads.forget()
        return job.answer, result, None

    def _in_transaction(self, connection: sqlite3.Connection, work: Callable[[], T]) -> T:
        committing = False
        try:
            if connection.in_transaction:  # an earlier rollback failed too: the disk was away
                connection.execute("ROLLBACK")
            self._connections.patiently(lambda: connection.execute("BEGIN IMMEDIATE"))
            result = work()
            committing = True
            connection.execute("COMMIT")
        except BaseException as error:
            self._heads.forget()
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                # An I/O error in the midst of a commit: the log may hold all of it, and a crash
                # now would bring it back. Any other failure leaves nothing behind.
                primary = getattr(error, "sqlite_errorcode", 0) & 0xFF
                unknown = committing and primary == sqlite3.SQLITE_IOERR
                raise translated(self._connections.where, error, outcome_unknown=unknown) from error
            raise
        return result

    def _failure(self, error: Exception) -> Exception:
        if isinstance(error, sqlite3.Error):
            return translated(self._connections.where, error)
        return error

    def _deliver(self, group: Group | None, answers: list[_Answer]) -> None:
        self._on_loop(self._answer, group, answers)

    def _answer(self, group: Group | None, answers: list[_Answer]) -> None:
        try:
            if group is not None:
                self._published(group)
        finally:
            for answer in answers:
                _resolve(*answer)

    def _on_loop(self, callback: Callable[..., None], *args: Any) -> None:
        # The loop may be closed by a program that did not close the store: then nobody waits.
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            if not self._loop.is_closed():
                raise


def _twin(error: Exception) -> Exception:
    """Return an error of one's own: each of those that it is raised to adds its traceback."""
    twin = copy.copy(error)
    twin.__cause__ = error.__cause__
    return twin


def _resolve(answer: "asyncio.Future[Any]", result: Any, error: BaseException | None) -> None:
    """Give an answer to whoever still waits for it; a cancelled call does not."""
    if answer.done():
        return
    if error is None:
        answer.set_result(result)
    else:
        answer.set_exception(error)

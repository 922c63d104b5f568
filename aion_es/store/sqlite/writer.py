"""The one thread that writes: it commits all appends that wait in one transaction, each with its own answer.

Between two steps of a statement Python gives up its global lock, and to take it back from a busy
event loop can cost a whole switch interval. So this module counts steps: rows are inserted many to
a statement, heads are remembered, and what has to be looked up comes as one row.
"""

import asyncio
import copy
import json
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

from aion_es.clock import Clock
from aion_es.errors import (
    ConcurrencyConflictError,
    StoreClosedError,
    StreamDeletedError,
)
from aion_es.ids import StreamName
from aion_es.store.port import (
    Appended,
    Expected,
    ExpectedRevision,
    NewEvent,
    Position,
    RecordedEvent,
)
from aion_es.store.sqlite.connections import Connections, translated

T = TypeVar("T")

MAX_GROUP_EVENTS: Final = 8192
MAX_GROUP_BYTES: Final = 16 * 1024 * 1024
"""A group is closed at either, so that the first in it does not wait for ever for the last."""
MAX_HEADS: Final = 32_768
"""Streams whose heads are remembered, about 300 bytes each."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_ORPHAN_CHECK: Final = 1.0

_EVENT_COLUMNS: Final = "position, stream_id, revision, event_id, type, recorded_at, metadata, data"
_ROWS_AT_ONCE: Final = tuple(2**n for n in range(8, -1, -1))


def _insert(table: str, columns: str, rows: int) -> str:
    row = f"({', '.join('?' * (columns.count(',') + 1))})"
    return f"INSERT INTO {table} ({columns}) VALUES {', '.join([row] * rows)}"  # noqa: S608 - constants


_INSERT_EVENTS: Final = {n: _insert("events", _EVENT_COLUMNS, n) for n in _ROWS_AT_ONCE}
_INSERT_STREAMS: Final = {n: _insert("streams", "stream_id, name", n) for n in _ROWS_AT_ONCE}

# CROSS JOIN fixes the order: each name is looked up in the index, nothing is scanned.
_HEADS: Final = """
    SELECT json_group_array(json_array(
        s.name, s.stream_id, s.born,
        max(s.reclaimed, coalesce((SELECT max(revision) FROM events WHERE stream_id = s.stream_id), -1))
    ))
    FROM json_each(?) AS wanted CROSS JOIN streams AS s ON s.name = wanted.value
"""
_ENDS: Final = """
    SELECT coalesce((SELECT max(position) FROM events), -1),
        coalesce((SELECT max(stream_id) FROM streams), 0)
"""
_IDS: Final = """
    SELECT json_group_array(hex(event_id)), max(position) FROM (
        SELECT event_id, position FROM events
        WHERE stream_id = ? AND revision > ? ORDER BY revision LIMIT ?
    )
"""


class Append(NamedTuple):
    """One append that waits to be written."""

    stream: StreamName
    events: Sequence[NewEvent]
    expected: ExpectedRevision
    size: int
    answer: "asyncio.Future[Appended]"


class Call(NamedTuple):
    """Other work for the writing connection, in a transaction of its own unless it says otherwise."""

    work: "Callable[[sqlite3.Connection], Any]"
    answer: "asyncio.Future[Any]"
    transaction: bool
    forget_heads: bool


class Written(NamedTuple):
    """Events of one stream as one append wrote them."""

    stream: StreamName
    events: Sequence[NewEvent]
    revision: int
    position: int


class Group(NamedTuple):
    """What one commit added to the store: positions after `after` up to and with `end`."""

    after: int
    end: int
    size: int
    recorded_at: datetime
    appends: Sequence[Written]

    def recorded(self) -> "list[RecordedEvent]":
        """Return the events as a read would give them."""
        at = self.recorded_at
        return [
            RecordedEvent(
                event.event_id,
                event.type,
                event.data,
                event.metadata,
                stream,
                revision,
                Position(position, position),
                at,
            )
            for stream, events, first_revision, first_position in self.appends
            for revision, position, event in zip(
                range(first_revision, first_revision + len(events)),
                range(first_position, first_position + len(events)),
                events,
                strict=True,
            )
        ]


class Head(NamedTuple):
    """What the writer knows of a stream; see `schema.py` for `born`."""

    stream_id: int
    born: int
    revision: int

    @property
    def visible(self) -> int:
        """The revision that readers see as the head: -1 for a deleted stream."""
        return self.revision if self.revision >= self.born else -1


_Answer: TypeAlias = "tuple[asyncio.Future[Any], Any, BaseException | None]"


class Heads:
    """The heads of the streams and the ends of the tables, as they are inside the present transaction.

    Remembered from one transaction to the next; `refresh` forgets them when another process wrote.
    """

    def __init__(self) -> None:
        self._known: dict[str, Head] = {}
        self._data_version = -1
        self.position = -1
        self.stream_id = 0

    def forget(self) -> None:
        """Forget everything: the last transaction did not happen, or changed streams."""
        self._known.clear()
        self._data_version = -1

    def refresh(self, connection: sqlite3.Connection) -> None:
        """Make sure that what is remembered still holds; inside a write transaction."""
        (version,) = connection.execute("PRAGMA data_version").fetchone()
        if version != self._data_version:
            self._known.clear()
            self.position, self.stream_id = connection.execute(_ENDS).fetchone()
            self._data_version = version

    def load(self, connection: sqlite3.Connection, streams: Sequence[str]) -> None:
        """Look up those of `streams` that are not remembered."""
        if len(self._known) > MAX_HEADS:
            self._known.clear()
        known = self._known
        missing = [stream for stream in streams if stream not in known]
        if missing:
            (found,) = connection.execute(_HEADS, (json.dumps(missing),)).fetchone()
            for name, stream_id, born, revision in json.loads(found):
                known[name] = Head(stream_id, born, revision)

    def get(self, stream: str) -> Head | None:
        """Return what is known of a stream; None if it has no row."""
        return self._known.get(stream)

    def put(self, stream: str, head: Head) -> None:
        """Note what the present transaction makes of a stream."""
        self._known[stream] = head


def check_expected(stream: StreamName, head: Head | None, expected: ExpectedRevision) -> None:
    """Return if `expected` holds.

    Raises:
        ConcurrencyConflictError: It does not.
        StreamDeletedError: EXISTS on a deleted stream.
    """
    visible = -1 if head is None else head.visible
    holds = True
    match expected:
        case Expected.ANY:
            pass
        case Expected.NO_STREAM:
            holds = visible < 0
        case Expected.EXISTS:
            holds = visible >= 0
            if not holds and head is not None and head.revision >= 0:
                raise StreamDeletedError(stream)
        case int():
            # After a deletion both the old head and "nothing there" are right: revisions go on.
            holds = expected == visible or (head is not None and expected == head.revision)
    if not holds:
        raise ConcurrencyConflictError(
            stream, expected if isinstance(expected, int) else expected.value, visible
        )


class _Transaction:
    """One group of appends inside one transaction: decides each, collects rows, inserts them."""

    def __init__(self, connection: sqlite3.Connection, heads: Heads, at: datetime) -> None:
        self._connection = connection
        self._heads = heads
        self._at = at
        self._stamp = (at - _EPOCH) // _MICROSECOND
        self._after = heads.position
        self._size = 0
        self._streams: list[Any] = []
        self._rows: list[Any] = []
        self._written: list[Written] = []

    @property
    def group(self) -> Group:
        """What the transaction adds."""
        return Group(self._after, self._heads.position, self._size, self._at, self._written)

    def append(self, job: Append) -> Appended:
        """Take one append in.

        Raises:
            ConcurrencyConflictError: `expected` does not hold, and it is no repetition.
            StreamDeletedError: EXISTS on a deleted stream.
        """
        heads = self._heads
        head = heads.get(job.stream)
        try:
            check_expected(job.stream, head, job.expected)
        except ConcurrencyConflictError:
            repeated = None if head is None else self._repeated(job, head)
            if repeated is None:
                raise
            return repeated
        if not job.events:
            end = heads.position
            return Appended(-1 if head is None else head.visible, Position(end, end))
        return self._add(job, head)

    def _add(self, job: Append, head: Head | None) -> Appended:
        heads = self._heads
        if head is None:
            heads.stream_id += 1
            head = Head(heads.stream_id, 0, -1)
            self._streams += (head.stream_id, job.stream)
        stream_id, born, revision = head
        position = heads.position
        self._written.append(Written(job.stream, job.events, revision + 1, position + 1))
        stamp, rows = self._stamp, self._rows
        for event_id, kind, data, metadata in job.events:
            revision += 1
            position += 1
            rows += (position, stream_id, revision, event_id.bytes, kind, stamp, metadata, data)
        heads.position = position
        self._size += job.size
        heads.put(job.stream, Head(stream_id, born, revision))
        return Appended(revision, Position(position, position))

    def _repeated(self, job: Append, head: Head) -> Appended | None:
        """Return the first answer if exactly these events are already stored at that place."""
        if job.expected in (Expected.NO_STREAM, -1):
            after = head.born - 1
        elif isinstance(job.expected, int):
            after = job.expected
        else:
            return None
        count = len(job.events)
        if not count or not -1 <= after <= head.revision - count:
            return None
        self.flush()  # the first of the two may be in this very group
        ids, position = self._connection.execute(_IDS, (head.stream_id, after, count)).fetchone()
        if json.loads(ids) != [event.event_id.hex.upper() for event in job.events]:
            return None
        return Appended(after + count, Position(position, position))

    def flush(self) -> bool:
        """Insert what was collected; say whether the transaction has added anything."""
        self._insert(_INSERT_STREAMS, self._streams, 2)
        self._insert(_INSERT_EVENTS, self._rows, 8)
        return bool(self._written)

    def _insert(self, statements: dict[int, str], values: list[Any], width: int) -> None:
        start, rest = 0, len(values) // width
        for rows in _ROWS_AT_ONCE:
            while rest >= rows:
                stop = start + rows * width
                self._connection.execute(statements[rows], values[start:stop])
                start, rest = stop, rest - rows
        values.clear()


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
        transaction = _Transaction(connection, heads, self._clock.now())
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

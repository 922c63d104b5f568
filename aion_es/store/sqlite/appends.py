"""Appends inside one transaction: whether each may be written, and the rows that they become.

Between two steps of a statement Python gives up its global lock, and to take it back from a busy
event loop can cost a whole switch interval. So this module counts steps: rows are inserted many to
a statement, heads are remembered, and what has to be looked up comes as one row.
"""

import asyncio
import json
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from aion_es.errors import ConcurrencyConflictError, StreamDeletedError
from aion_es.ids import StreamName
from aion_es.store.port import (
    Appended,
    Expected,
    ExpectedRevision,
    NewEvent,
    Position,
    RecordedEvent,
)
from aion_es.store.sqlite.schema import HEAD

MAX_HEADS: Final = 32_768
"""Streams whose heads are remembered, about 300 bytes each."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

_EVENT_COLUMNS: Final = "position, stream_id, revision, event_id, type, recorded_at, metadata, data"
_ROWS_AT_ONCE: Final = tuple(2**n for n in range(8, -1, -1))


def _insert(table: str, columns: str, rows: int) -> str:
    row = f"({', '.join('?' * (columns.count(',') + 1))})"
    return f"INSERT INTO {table} ({columns}) VALUES {', '.join([row] * rows)}"  # noqa: S608 - constants


_INSERT_EVENTS: Final = {n: _insert("events", _EVENT_COLUMNS, n) for n in _ROWS_AT_ONCE}
_INSERT_STREAMS: Final = {n: _insert("streams", "stream_id, name", n) for n in _ROWS_AT_ONCE}

_HEAD: Final = f"SELECT s.stream_id, s.born, {HEAD} FROM streams AS s WHERE s.name = ?"  # noqa: S608 - constants
# CROSS JOIN fixes the order: each name is looked up in the index, nothing is scanned.
_HEADS: Final = f"""
    SELECT json_group_array(json_array(s.name, s.stream_id, s.born, {HEAD}))
    FROM json_each(?) AS wanted CROSS JOIN streams AS s ON s.name = wanted.value
"""  # noqa: S608 - constants
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


def load_head(connection: sqlite3.Connection, stream: StreamName) -> Head | None:
    """Return what the file says of one stream; None if it has no row."""
    row: tuple[int, int, int] | None = connection.execute(_HEAD, (stream,)).fetchone()
    return None if row is None else Head(*row)


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


class Transaction:
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

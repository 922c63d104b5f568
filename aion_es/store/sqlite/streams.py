"""What is kept about a stream beside its events: its limits, and whether it was deleted."""

import sqlite3
from datetime import timedelta
from typing import Final

from aion_es.ids import StreamName
from aion_es.store.port import ExpectedRevision, StreamMetadata
from aion_es.store.sqlite.appends import check_expected, load_head

_MICROSECOND: Final = timedelta(microseconds=1)

_SET: Final = """
    INSERT INTO streams (name, truncate_before, max_count, max_age) VALUES (?, ?, ?, ?)
    ON CONFLICT (name) DO UPDATE SET truncate_before = excluded.truncate_before,
        max_count = excluded.max_count, max_age = excluded.max_age
"""


def metadata(connection: sqlite3.Connection, stream: StreamName) -> StreamMetadata:
    """Return the stream's limits; the empty ones for an unknown stream."""
    row: tuple[int | None, int | None, int | None] | None = connection.execute(
        "SELECT truncate_before, max_count, max_age FROM streams WHERE name = ?", (stream,)
    ).fetchone()
    if row is None:
        return StreamMetadata()
    truncate_before, max_count, max_age = row
    return StreamMetadata(
        max_count=max_count,
        max_age=None if max_age is None else max_age * _MICROSECOND,
        truncate_before=truncate_before,
    )


def set_metadata(
    connection: sqlite3.Connection, stream: StreamName, metadata: StreamMetadata
) -> None:
    """Replace the stream's limits; inside a write transaction."""
    age = None if metadata.max_age is None else metadata.max_age // _MICROSECOND
    connection.execute(_SET, (stream, metadata.truncate_before, metadata.max_count, age))


def delete(connection: sqlite3.Connection, stream: StreamName, expected: ExpectedRevision) -> None:
    """Delete the stream softly; inside a write transaction.

    Raises:
        ConcurrencyConflictError: `expected` does not hold.
        StreamDeletedError: EXISTS on a deleted stream.
    """
    head = load_head(connection, stream)
    check_expected(stream, head, expected)
    if head is not None and head.visible >= 0:
        connection.execute(
            "UPDATE streams SET born = ? WHERE stream_id = ?", (head.revision + 1, head.stream_id)
        )

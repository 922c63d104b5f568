"""Reading by the page: one hop into a thread and one row out of SQLite for up to 1024 events.

A page comes as a single row, its small columns as one JSON text and its bytes end to end as one
blob: a step per event would give up and take back Python's global lock each time, and under a busy
event loop that costs up to a switch interval per event.
"""

import json
import sqlite3
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from aion_es.ids import StreamName
from aion_es.store.port import Position, RecordedEvent
from aion_es.store.sqlite.schema import HEAD, NAME_MATCHES

PAGE_EVENTS: Final = 1024
SCAN_POSITIONS: Final = 20_000
"""A filtered read looks at so many positions per page, so that no page takes for ever."""
INLINE_BYTES: Final = 8_192
"""Larger events are not put into the page's blob but fetched one by one."""
PAGE_BYTES: Final = 8 * 1024 * 1024
"""Large events close a page at this size; with the small ones it holds at most twice as much."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

# Both aggregates see the rows in the subquery's order: it has a LIMIT, so SQLite runs it as it
# stands. group_concat joins the bytes as they are, since the database's encoding is UTF-8 and no
# conversion takes place (a test feeds it every byte).
_PACKED: Final = f"""
    SELECT
        json_group_array(json_array(
            position, name, revision, type, recorded_at, length(metadata), length(data)
        )),
        CAST(group_concat(
            CASE WHEN length(data) + length(metadata) <= {INLINE_BYTES}
            THEN event_id || metadata || data END, ''
        ) AS BLOB),
        (SELECT coalesce(max(position), -1) FROM events)
    FROM (%s)
"""  # noqa: S608 - constants

_COLUMNS: Final = (
    "e.position, s.name, e.revision, e.type, e.recorded_at, e.event_id, e.metadata, e.data"
)

# CROSS JOIN fixes the order of the loops: events by position, never streams by name and then a sort.
_ALL: Final = f"""
    SELECT {_COLUMNS} FROM events AS e CROSS JOIN streams AS s ON s.stream_id = e.stream_id
    WHERE e.position > :low AND e.position < :high
        AND {NAME_MATCHES}
    ORDER BY e.position %s LIMIT :limit
"""  # noqa: S608 - constants

# The lowest revision that deletion, truncation and max_count leave; the head is only looked up if
# there is a max_count.
_LOWEST: Final = f"""
    max(:low, s.born, coalesce(s.truncate_before, 0),
        CASE WHEN s.max_count IS NULL THEN 0 ELSE {HEAD} - s.max_count + 1 END)
"""
_STREAM: Final = f"""
    SELECT {_COLUMNS} FROM streams AS s CROSS JOIN events AS e ON e.stream_id = s.stream_id
    WHERE s.name = :stream AND e.revision >= {_LOWEST} AND e.revision <= :high
        AND (s.max_age IS NULL OR e.recorded_at > :now - s.max_age)
    ORDER BY e.revision %s LIMIT :limit
"""  # noqa: S608 - constants

_POSITIONS: Final = f"""
    SELECT {_COLUMNS} FROM json_each(:positions) AS wanted
    CROSS JOIN events AS e ON e.position = wanted.value
    CROSS JOIN streams AS s ON s.stream_id = e.stream_id
    LIMIT :limit
"""  # noqa: S608 - constants

_AT: Final = _PACKED % _POSITIONS
_ALL_FORWARDS: Final = _PACKED % (_ALL % "ASC")
_ALL_BACKWARDS: Final = _PACKED % (_ALL % "DESC")
_STREAM_FORWARDS: Final = _PACKED % (_STREAM % "ASC")
_STREAM_BACKWARDS: Final = _PACKED % (_STREAM % "DESC")

_LARGE: Final = "SELECT event_id, metadata, data FROM events WHERE position = ?"
_END: Final = "SELECT coalesce(max(position), -1) FROM events"
BEYOND: Final = 2**63 - 1
"""Higher than every position and revision."""


class Packed(NamedTuple):
    """One page.

    Attributes:
        events: In the order that was asked for.
        full: There may be more where these came from.
        end: The position of the store's last event when the page was read.
    """

    events: list[RecordedEvent]
    full: bool
    end: int


def read_all(
    connection: sqlite3.Connection,
    *,
    low: int,
    high: int,
    prefix: bytes,
    backwards: bool,
    limit: int,
) -> Packed:
    """Return a page of the events between two positions, both exclusive, of matching streams."""
    return _page(
        connection,
        _ALL_BACKWARDS if backwards else _ALL_FORWARDS,
        {"low": low, "high": high, "prefix": prefix, "length": len(prefix), "limit": limit},
    )


def read_stream(
    connection: sqlite3.Connection,
    stream: StreamName,
    *,
    low: int,
    high: int,
    backwards: bool,
    limit: int,
    now: int,
) -> Packed:
    """Return a page of one stream's events between two revisions, both inclusive.

    Args:
        connection: To read with.
        stream: Whose events.
        low: Lowest revision.
        high: Highest revision.
        backwards: Newest first.
        limit: At most so many.
        now: The present time, in microseconds: `max_age` counts from it.
    """
    return _page(
        connection,
        _STREAM_BACKWARDS if backwards else _STREAM_FORWARDS,
        {"stream": stream, "low": low, "high": high, "limit": limit, "now": now},
    )


def end(connection: sqlite3.Connection) -> int:
    """Return the position of the last event, -1 if there is none."""
    position: int = connection.execute(_END).fetchone()[0]
    return position


def events_at(connection: sqlite3.Connection, positions: Sequence[int]) -> list[RecordedEvent]:
    """Return the events at these ascending positions, at most a page; what is gone is left out."""
    parameters = {"positions": json.dumps(positions), "limit": PAGE_EVENTS}
    return _page(connection, _AT, parameters).events


def exists(connection: sqlite3.Connection, position: int) -> bool:
    """Say whether there is an event at this position."""
    found = connection.execute("SELECT 1 FROM events WHERE position = ?", (position,)).fetchone()
    return found is not None


def _page(connection: sqlite3.Connection, query: str, parameters: dict[str, Any]) -> Packed:
    listed, blob, last = connection.execute(query, parameters).fetchone()
    rows: list[tuple[int, str, int, str, int, int, int]] = json.loads(listed)
    events, complete = _unpack(connection, rows, blob or b"")
    return Packed(events, not complete or len(rows) == parameters["limit"], last)


def _unpack(
    connection: sqlite3.Connection,
    rows: list[tuple[int, str, int, str, int, int, int]],
    blob: bytes,
) -> tuple[list[RecordedEvent], bool]:
    events: list[RecordedEvent] = []
    at = large = 0
    stamp, recorded_at = 0, _EPOCH
    for position, stream, revision, kind, micros, metadata_size, data_size in rows:
        if micros != stamp:  # one commit stamps all its events alike
            stamp, recorded_at = micros, _EPOCH + timedelta(microseconds=micros)
        if metadata_size + data_size <= INLINE_BYTES:
            middle = at + 16 + metadata_size
            stop = middle + data_size
            event_id, metadata, data = blob[at : at + 16], blob[at + 16 : middle], blob[middle:stop]
            at = stop
        else:
            if large > PAGE_BYTES:
                return events, False
            row = connection.execute(_LARGE, (position,)).fetchone()
            if row is None:
                continue  # hidden, and compacted away since the page was read
            event_id, metadata, data = row
            large += metadata_size + data_size
        events.append(
            RecordedEvent(
                uuid.UUID(bytes=event_id),
                kind,
                data,
                metadata,
                StreamName(stream),
                revision,
                Position(position, position),
                recorded_at,
            )
        )
    return events, True

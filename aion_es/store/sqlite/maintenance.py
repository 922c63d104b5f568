"""Upkeep of the file: compaction, checking, copying."""

import contextlib
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from aion_es.errors import StoreCorruptError, StoreUnavailableError
from aion_es.store.sqlite.schema import HEAD

COMPACT_STEP: Final = 1000
"""Events that one transaction of a compaction takes away, and streams that it goes through."""

# The events that no read shows any more. Always the beginning of a stream, so that what is left has
# no gap: with max_age it ends at the first event that is young enough.
_HIDDEN_BELOW: Final = """
    SELECT max(s.born, coalesce(s.truncate_before, 0),
        CASE WHEN s.max_count IS NULL THEN 0 ELSE :head - s.max_count + 1 END,
        CASE WHEN s.max_age IS NULL THEN 0 ELSE coalesce(
            (SELECT min(revision) FROM events
             WHERE stream_id = s.stream_id AND recorded_at > :now - s.max_age),
            :head + 1) END)
    FROM streams AS s WHERE s.stream_id = :stream
"""
_LIMITED: Final = """
    SELECT stream_id FROM streams AS s
    WHERE max_count IS NOT NULL OR max_age IS NOT NULL OR EXISTS (
        SELECT 1 FROM events AS e WHERE e.stream_id = s.stream_id
            AND e.revision < max(s.born, coalesce(s.truncate_before, 0))
    )
"""
_HEAD: Final = f"SELECT {HEAD} FROM streams AS s WHERE s.stream_id = ?"  # noqa: S608 - constants
_DELETE: Final = """
    DELETE FROM events WHERE position IN (
        SELECT position FROM events WHERE stream_id = :stream AND revision < :below
            AND position < (SELECT max(position) FROM events)
        ORDER BY revision LIMIT :limit
    )
"""
_GAPS: Final = """
    SELECT stream_id, min(revision), max(revision), count(*) FROM events
    GROUP BY stream_id HAVING count(*) <> max(revision) - min(revision) + 1 LIMIT 1
"""
_UNORDERED: Final = """
    SELECT stream_id, revision FROM (
        SELECT stream_id, revision, position,
            lag(position) OVER (PARTITION BY stream_id ORDER BY revision) AS before
        FROM events
    ) WHERE before > position LIMIT 1
"""
_ORPHANS: Final = """
    SELECT position FROM events
    WHERE NOT EXISTS (SELECT 1 FROM streams AS s WHERE s.stream_id = events.stream_id) LIMIT 1
"""


def limited_streams(connection: sqlite3.Connection) -> list[int]:
    """Return the streams that have something hidden, or may have."""
    return [stream_id for (stream_id,) in connection.execute(_LIMITED)]


def compact(
    connection: sqlite3.Connection, streams: Sequence[int], now: int
) -> tuple[int, Sequence[int]]:
    """Take away about `COMPACT_STEP` hidden events; inside a write transaction.

    Args:
        connection: The writing one.
        streams: Ids of the streams to go through.
        now: The present time, in microseconds.

    Returns:
        How many were taken away, and the streams that are left to be gone through.
    """
    removed = 0
    for done, stream_id in enumerate(streams):
        removed += _compact_stream(connection, stream_id, now, COMPACT_STEP - removed)
        if removed >= COMPACT_STEP:
            return removed, streams[done:]  # this one may have more
        if done >= COMPACT_STEP:
            return removed, streams[done + 1 :]
    return removed, ()


def _compact_stream(connection: sqlite3.Connection, stream_id: int, now: int, limit: int) -> int:
    (head,) = connection.execute(_HEAD, (stream_id,)).fetchone()
    (below,) = connection.execute(
        _HIDDEN_BELOW, {"stream": stream_id, "now": now, "head": head}
    ).fetchone()
    removed = connection.execute(
        _DELETE, {"stream": stream_id, "below": below, "limit": limit}
    ).rowcount
    if removed:
        connection.execute(
            "UPDATE streams SET reclaimed = ? WHERE stream_id = ?", (head, stream_id)
        )
    return removed


def check(connection: sqlite3.Connection, where: str) -> None:
    """Return if the file is whole and every stream has consecutive revisions in the store's order.

    Raises:
        StoreCorruptError: Something is not so; says what.
    """
    (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if verdict != "ok":
        raise StoreCorruptError(where, verdict)
    for query, problem in (
        (_GAPS, "stream {}: revisions {} to {} are {} events"),
        (_UNORDERED, "stream {}: revision {} lies before its predecessor"),
        (_ORPHANS, "the event at position {} belongs to no stream"),
    ):
        row = connection.execute(query).fetchone()
        if row is not None:
            raise StoreCorruptError(where, problem.format(*row))


def vacuum(connection: sqlite3.Connection) -> None:
    """Rewrite the file without its free space; outside of any transaction."""
    connection.execute("VACUUM")


def backup(connection: sqlite3.Connection, target: Path) -> None:
    """Write a consistent copy to `target`, complete or not at all.

    Raises:
        StoreUnavailableError: It exists, or cannot be written.
    """
    if target.exists():
        raise StoreUnavailableError(f"{target} exists; a backup never replaces a file")
    partial = target.with_name(f"{target.name}.partial")
    try:
        partial.unlink(missing_ok=True)
        _copy(connection, partial)
        _sync(partial)
        # A link fails where the name was taken meanwhile; a rename would replace that file.
        target.hardlink_to(partial)
        _sync(target.parent)
    except OSError as error:
        raise StoreUnavailableError(f"{target} cannot be written: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _copy(connection: sqlite3.Connection, target: Path) -> None:
    # A reading connection refuses even to write elsewhere.
    (query_only,) = connection.execute("PRAGMA query_only").fetchone()
    connection.execute("PRAGMA query_only = OFF")
    try:
        connection.execute("VACUUM INTO ?", (str(target),))
    finally:
        connection.execute(f"PRAGMA query_only = {query_only}")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

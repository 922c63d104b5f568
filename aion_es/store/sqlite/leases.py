"""What the file remembers of consumer groups: how far each is, and who holds which event until when.

An event of a group is *not yet taken* (beyond `taken_through`), *waiting* (a row without consumer),
*held* (with a consumer and the time at which it is due back), *parked*, or *done* (no row any more).
Every function runs inside a write transaction unless it says otherwise. Times are microseconds.
"""

import sqlite3
from datetime import timedelta
from typing import Final, NamedTuple

from aion_es.errors import ConsumerGroupExistsError, ConsumerGroupNotFoundError
from aion_es.store.port import (
    ConsumerGroupChanges,
    ConsumerGroupSettings,
    ConsumerStrategy,
    NackAction,
    RecordedEvent,
)
from aion_es.store.sqlite import reader
from aion_es.store.sqlite.schema import NAME_MATCHES

SCAN_EVENTS: Final = 256
"""Matching events that one take looks at."""
BUCKETS: Final = 1024
"""Streams are pinned by bucket, as EventStoreDB does it, so that pins do not grow without end."""
SHORTEST_LIFE: Final = 1_000_000
"""A consumer that was silent for this time, or the message timeout if longer, counts as gone."""

_MICROSECOND: Final = timedelta(microseconds=1)

_MATCHING: Final = f"""
    SELECT e.position, e.stream_id FROM events AS e
    CROSS JOIN streams AS s ON s.stream_id = e.stream_id
    WHERE e.position > :low AND e.position <= :high
        AND {NAME_MATCHES}
    ORDER BY e.position LIMIT :limit
"""  # noqa: S608 - constants
# One stream's waiting events are this consumer's if their bucket is pinned to it, or to nobody.
_WAITING: Final = f"""
    SELECT d.position, d.stream_id FROM deliveries AS d
    LEFT JOIN pins AS p ON :pinned AND p.group_id = d.group_id AND p.bucket = d.stream_id % {BUCKETS}
    WHERE d.group_id = :group AND d.consumer_id IS NULL AND NOT d.parked
        AND coalesce(p.consumer_id, :consumer) = :consumer
    ORDER BY d.position LIMIT :limit
"""  # noqa: S608 - constants
_LEAST_PINNED: Final = """
    SELECT c.consumer_id FROM consumers AS c
    LEFT JOIN pins AS p ON p.group_id = c.group_id AND p.consumer_id = c.consumer_id
    WHERE c.group_id = ? GROUP BY c.consumer_id ORDER BY count(p.bucket), c.consumer_id LIMIT 1
"""


class Group(NamedTuple):
    """A consumer group's settings, as stored."""

    group_id: int
    prefix: bytes
    pinned: bool
    message_timeout: int
    max_retries: int
    buffer_size: int

    @property
    def lifetime(self) -> int:
        """For how long a consumer is believed to live after its last sign."""
        return max(self.message_timeout, SHORTEST_LIFE)


class Taken(NamedTuple):
    """What one consumer was given: events with the number of the attempt, to be answered by `due_at`."""

    deliveries: list[tuple[RecordedEvent, int]]
    due_at: int


class Look(NamedTuple):
    """What a look at the file found.

    Attributes:
        due: Taking may give something.
        scanned_through: Nothing that matches lies between what is taken and here.
        wake_at: When the next held event is due back, if any is held.
        group: Its settings as they are now.
    """

    due: bool
    scanned_through: int
    wake_at: int | None
    group: Group


def create(connection: sqlite3.Connection, name: str, settings: ConsumerGroupSettings) -> None:
    """Create a group.

    Raises:
        ConsumerGroupExistsError: There is one of this name.
    """
    if connection.execute("SELECT 1 FROM consumer_groups WHERE name = ?", (name,)).fetchone():
        raise ConsumerGroupExistsError(name)
    connection.execute(
        "INSERT INTO consumer_groups"
        " (name, prefix, strategy, message_timeout, max_retries, buffer_size, taken_through)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            name,
            settings.prefix,
            settings.strategy.value,
            settings.message_timeout // _MICROSECOND,
            settings.max_retries,
            settings.buffer_size,
            settings.from_position.commit,
        ),
    )


def update(connection: sqlite3.Connection, name: str, changes: ConsumerGroupChanges) -> None:
    """Change a group's settings; what is held stays held, until the time that it was given.

    Raises:
        ConsumerGroupNotFoundError: There is none of this name.
    """
    group_id = find(connection, name).group_id
    timeout = changes.message_timeout
    connection.execute(
        "UPDATE consumer_groups SET strategy = coalesce(?, strategy),"
        " message_timeout = coalesce(?, message_timeout), max_retries = coalesce(?, max_retries),"
        " buffer_size = coalesce(?, buffer_size) WHERE group_id = ?",
        (
            None if changes.strategy is None else changes.strategy.value,
            None if timeout is None else timeout // _MICROSECOND,
            changes.max_retries,
            changes.buffer_size,
            group_id,
        ),
    )
    if changes.strategy is not None:
        connection.execute("DELETE FROM pins WHERE group_id = ?", (group_id,))


def find(connection: sqlite3.Connection, name: str) -> Group:
    """Return a group; in any transaction.

    Raises:
        ConsumerGroupNotFoundError: There is none of this name.
    """
    group = _group(connection, "name = ?", name)
    if group is None:
        raise ConsumerGroupNotFoundError(name)
    return group


def _group(connection: sqlite3.Connection, condition: str, value: str | int) -> Group | None:
    row = connection.execute(
        "SELECT group_id, prefix, strategy, message_timeout, max_retries, buffer_size"  # noqa: S608 - constants
        f" FROM consumer_groups WHERE {condition}",
        (value,),
    ).fetchone()
    if row is None:
        return None
    group_id, prefix, strategy, *numbers = row
    return Group(group_id, prefix.encode(), strategy == ConsumerStrategy.PINNED.value, *numbers)


def _as_it_is_now(connection: sqlite3.Connection, group: Group) -> Group | None:
    """Return a group with the settings that it has now; None if it was deleted."""
    return _group(connection, "group_id = ?", group.group_id)


def delete(connection: sqlite3.Connection, name: str) -> None:
    """Delete a group and what it remembers.

    Raises:
        ConsumerGroupNotFoundError: There is none of this name.
    """
    group_id = find(connection, name).group_id
    for table in ("deliveries", "pins", "consumers", "consumer_groups"):
        connection.execute(f"DELETE FROM {table} WHERE group_id = ?", (group_id,))  # noqa: S608 - constants


def replay_parked(connection: sqlite3.Connection, name: str) -> int:
    """Make the parked events wait again, as if never delivered; return how many.

    Raises:
        ConsumerGroupNotFoundError: There is no group of this name.
    """
    return connection.execute(
        "UPDATE deliveries SET parked = 0, attempt = 0 WHERE group_id = ? AND parked",
        (find(connection, name).group_id,),
    ).rowcount


def join(connection: sqlite3.Connection, name: str, now: int) -> tuple[Group, int]:
    """Add a consumer to a group; return the group and the consumer's number.

    Raises:
        ConsumerGroupNotFoundError: There is no group of this name.
    """
    group = find(connection, name)
    cursor = connection.execute(
        "INSERT INTO consumers (group_id, alive_until) VALUES (?, ?)",
        (group.group_id, now + group.lifetime),
    )
    assert cursor.lastrowid is not None  # noqa: S101 - an INSERT just succeeded
    return group, cursor.lastrowid


def leave(
    connection: sqlite3.Connection, group: Group, consumer_id: int, unseen: list[int]
) -> None:
    """Remove a consumer; what it holds waits for the others.

    Args:
        connection: The writing one.
        group: Which group.
        consumer_id: Who leaves.
        unseen: Positions that it took but never handed out: that attempt does not count.
    """
    connection.executemany(
        "UPDATE deliveries SET attempt = attempt - 1"
        " WHERE group_id = ? AND position = ? AND consumer_id = ?",
        [(group.group_id, position, consumer_id) for position in unseen],
    )
    connection.execute("DELETE FROM consumers WHERE consumer_id = ?", (consumer_id,))
    _release_of_the_gone(connection, group)


def sign_of_life(
    connection: sqlite3.Connection, name: str, group: Group, consumer_id: int, now: int
) -> None:
    """Say that a consumer lives; also if it was already counted as gone.

    Raises:
        ConsumerGroupNotFoundError: The group was deleted.
    """
    known = connection.execute(
        "SELECT 1 FROM consumer_groups WHERE group_id = ?", (group.group_id,)
    ).fetchone()
    if known is None:
        raise ConsumerGroupNotFoundError(name)
    connection.execute(
        "INSERT INTO consumers (consumer_id, group_id, alive_until) VALUES (?, ?, ?)"
        " ON CONFLICT (consumer_id) DO UPDATE SET alive_until = excluded.alive_until",
        (consumer_id, group.group_id, now + group.lifetime),
    )


def look(
    connection: sqlite3.Connection, group: Group, consumer_id: int, scanned: int, now: int
) -> Look:
    """Find out, by reading only, whether taking may give something."""
    current = _as_it_is_now(connection, group)
    if current is None:
        return Look(True, scanned, None, group)  # deleted: taking will say so
    group = current
    row = connection.execute(
        "SELECT taken_through, (SELECT coalesce(max(position), -1) FROM events),"
        " (SELECT min(due_at) FROM deliveries WHERE group_id = g.group_id),"
        " (SELECT count(*) FROM deliveries WHERE group_id = g.group_id AND consumer_id = ?)"
        " FROM consumer_groups AS g WHERE group_id = ?",
        (consumer_id, group.group_id),
    ).fetchone()
    taken, end, wake_at, held = row
    if wake_at is not None and wake_at <= now:
        return Look(True, scanned, wake_at, group)
    if held >= group.buffer_size:
        return Look(False, scanned, wake_at, group)
    if _waiting(connection, group, consumer_id, 1):
        return Look(True, scanned, wake_at, group)
    low = max(taken, scanned)
    high = min(low + reader.SCAN_POSITIONS, end)
    found = low < high and bool(_matching(connection, group, low, high, 1))
    # Far beyond what the file says is taken: take, so that it is not gone through after a restart.
    behind = high < end or high - taken >= reader.SCAN_POSITIONS
    return Look(found or behind, low if found else max(low, high), wake_at, group)


def take(
    connection: sqlite3.Connection, name: str, group: Group, consumer_id: int, now: int
) -> Taken:
    """Give a consumer what waits for it, as far as it has room.

    Raises:
        ConsumerGroupNotFoundError: The group was deleted.
    """
    current = _as_it_is_now(connection, group)
    if current is None:
        raise ConsumerGroupNotFoundError(name)
    group = current
    sign_of_life(connection, name, group, consumer_id, now)
    _take_back(connection, group, now)
    (held,) = connection.execute(
        "SELECT count(*) FROM deliveries WHERE group_id = ? AND consumer_id = ?",
        (group.group_id, consumer_id),
    ).fetchone()
    share = min(group.buffer_size - held, _share(connection, group), reader.PAGE_EVENTS)
    due_at = now + group.message_timeout
    if share <= 0:
        return Taken([], due_at)
    if len(_waiting(connection, group, consumer_id, share)) < share:
        _advance(connection, group, share)
    positions: list[int] = []
    for position, stream_id in _waiting(connection, group, consumer_id, share):
        if not group.pinned or _pin(connection, group, stream_id) == consumer_id:
            positions.append(position)
    return Taken(_hold(connection, group, consumer_id, positions, due_at), due_at)


def done(connection: sqlite3.Connection, group: Group, position: int) -> None:
    """Forget an event that was handled or is to be skipped."""
    connection.execute(
        "DELETE FROM deliveries WHERE group_id = ? AND position = ?", (group.group_id, position)
    )


def refused(
    connection: sqlite3.Connection,
    group: Group,
    consumer_id: int,
    position: int,
    action: NackAction,
) -> None:
    """Take an event back from the consumer that holds it, as the action says."""
    if action == "skip":
        done(connection, group, position)
        return
    connection.execute(
        "UPDATE deliveries SET consumer_id = NULL, due_at = NULL, parked = ? OR attempt >"
        " (SELECT max_retries FROM consumer_groups AS g WHERE g.group_id = deliveries.group_id)"
        " WHERE group_id = ? AND position = ? AND consumer_id = ?",
        (action == "park", group.group_id, position, consumer_id),
    )


# ------------------------------------------------------------------------------------ inside


def _take_back(connection: sqlite3.Connection, group: Group, now: int) -> None:
    """Let wait again what is overdue or held by the gone; park what was tried too often."""
    connection.execute(
        "DELETE FROM consumers WHERE group_id = ? AND alive_until <= ?", (group.group_id, now)
    )
    _release_of_the_gone(connection, group)
    connection.execute(
        "UPDATE deliveries SET consumer_id = NULL, due_at = NULL WHERE group_id = ? AND due_at <= ?",
        (group.group_id, now),
    )
    connection.execute(
        "UPDATE deliveries SET parked = 1"
        " WHERE group_id = ? AND consumer_id IS NULL AND NOT parked AND attempt > ?",
        (group.group_id, group.max_retries),
    )


def _release_of_the_gone(connection: sqlite3.Connection, group: Group) -> None:
    living = "SELECT consumer_id FROM consumers WHERE group_id = ?"
    both = (group.group_id, group.group_id)
    connection.execute(
        f"DELETE FROM pins WHERE group_id = ? AND consumer_id NOT IN ({living})",  # noqa: S608 - constants
        both,
    )
    connection.execute(
        "UPDATE deliveries SET consumer_id = NULL, due_at = NULL"  # noqa: S608 - constants
        f" WHERE group_id = ? AND consumer_id NOT IN ({living})",
        both,
    )


def _share(connection: sqlite3.Connection, group: Group) -> int:
    """Return how much one take may give, so that the members of a group come to be served in turn."""
    row: tuple[int, int] = connection.execute(
        "SELECT (SELECT count(*) FROM consumers WHERE group_id = g.group_id),"
        " (SELECT coalesce(max(position), -1) FROM events) - taken_through"
        " + (SELECT count(*) FROM deliveries WHERE group_id = g.group_id AND consumer_id IS NULL)"
        " FROM consumer_groups AS g WHERE group_id = ?",
        (group.group_id,),
    ).fetchone()
    members, backlog = row
    if members <= 1 or group.pinned:
        return group.buffer_size
    return max(1, backlog // (4 * members))


def _waiting(
    connection: sqlite3.Connection, group: Group, consumer_id: int, limit: int
) -> list[tuple[int, int]]:
    return connection.execute(
        _WAITING,
        {
            "group": group.group_id,
            "pinned": group.pinned,
            "consumer": consumer_id,
            "limit": limit,
        },
    ).fetchall()


def _matching(
    connection: sqlite3.Connection, group: Group, low: int, high: int, limit: int
) -> list[tuple[int, int]]:
    return connection.execute(
        _MATCHING,
        {
            "low": low,
            "high": high,
            "length": len(group.prefix),
            "prefix": group.prefix,
            "limit": limit,
        },
    ).fetchall()


def _advance(connection: sqlite3.Connection, group: Group, wanted: int) -> None:
    """Let the next events that match wait."""
    taken, end = connection.execute(
        "SELECT taken_through, (SELECT coalesce(max(position), -1) FROM events)"
        " FROM consumer_groups WHERE group_id = ?",
        (group.group_id,),
    ).fetchone()
    high = min(taken + reader.SCAN_POSITIONS, end)
    # Pinned: some of what comes next belongs to others, so look further.
    limit = SCAN_EVENTS if group.pinned else wanted
    found = _matching(connection, group, taken, high, limit)
    connection.executemany(
        "INSERT INTO deliveries (group_id, position, stream_id, attempt) VALUES (?, ?, ?, 0)",
        [(group.group_id, position, stream_id) for position, stream_id in found],
    )
    connection.execute(
        "UPDATE consumer_groups SET taken_through = ? WHERE group_id = ?",
        (found[-1][0] if len(found) == limit else max(high, taken), group.group_id),
    )


def _pin(connection: sqlite3.Connection, group: Group, stream_id: int) -> int:
    """Return whose a stream is; one that is nobody's becomes the least burdened consumer's."""
    bucket = stream_id % BUCKETS
    row: tuple[int] | None = connection.execute(
        "SELECT consumer_id FROM pins WHERE group_id = ? AND bucket = ?", (group.group_id, bucket)
    ).fetchone()
    if row is None:
        (owner,) = connection.execute(_LEAST_PINNED, (group.group_id,)).fetchone()
        connection.execute("INSERT INTO pins VALUES (?, ?, ?)", (group.group_id, bucket, owner))
        return int(owner)
    return row[0]


def _hold(
    connection: sqlite3.Connection,
    group: Group,
    consumer_id: int,
    positions: list[int],
    due_at: int,
) -> list[tuple[RecordedEvent, int]]:
    """Give these waiting events to a consumer; those that compaction took away are done."""
    held: list[tuple[RecordedEvent, int]] = []
    events = {event.position.commit: event for event in reader.events_at(connection, positions)}
    for position in positions:
        event = events.get(position)
        if event is None:
            if not reader.exists(connection, position):
                done(connection, group, position)
            continue
        (attempt,) = connection.execute(
            "UPDATE deliveries SET consumer_id = ?, due_at = ?, attempt = attempt + 1"
            " WHERE group_id = ? AND position = ? RETURNING attempt",
            (consumer_id, due_at, group.group_id, position),
        ).fetchone()
        held.append((event, attempt))
    return held

"""The embedded event store: one SQLite file, used by any number of processes of one machine."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, Self

from aion_es.clock import Clock, SystemClock
from aion_es.errors import AppendTooLargeError, StoreClosedError
from aion_es.ids import StreamName
from aion_es.store.arguments import (
    check_changes,
    check_expected,
    check_group,
    check_limit,
    check_metadata,
    check_name,
    check_position,
    check_prefix,
    check_revision,
    check_type,
)
from aion_es.store.closing import ClosesOnExit
from aion_es.store.feed import CatchUpSubscription, LiveFeed, Page, PrefixSource, StreamSource
from aion_es.store.port import (
    START,
    Appended,
    ConsumerGroupChanges,
    ConsumerGroupSettings,
    ExpectedRevision,
    NewEvent,
    Position,
    RecordedEvent,
    StoreLimits,
    StreamMetadata,
)
from aion_es.store.sqlite import leases, maintenance, reader, streams
from aion_es.store.sqlite.appends import Group, load_head
from aion_es.store.sqlite.connections import BUSY_TIMEOUT, Connections, Durability
from aion_es.store.sqlite.groups import SQLiteConsumer
from aion_es.store.sqlite.pool import ReaderPool
from aion_es.store.sqlite.reader import Packed
from aion_es.store.sqlite.watcher import Watcher
from aion_es.store.sqlite.writer import Writer

LIMITS: Final = StoreLimits(max_event_bytes=1_048_576, max_append_bytes=16 * 1_048_576)
"""Of one event as EventStoreDB's default, so that what works here works on a cluster."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class SQLiteEventStore(ClosesOnExit):
    """Implements `EventStore` on one SQLite database; open it with `SQLiteEventStore.open`."""

    def __init__(self, opened: "_Opened", clock: Clock) -> None:
        connections, end, watching = opened
        loop = asyncio.get_running_loop()
        self._connections = connections
        self._clock = clock
        self._loop = loop
        self._feed = LiveFeed(end)
        self._pool = ReaderPool(connections, loop)
        self._writer = Writer(connections, clock, loop, self._published)
        self._watcher = (
            None if watching is None else Watcher(watching, loop, self._feed, self._writer)
        )
        self._closer = ThreadPoolExecutor(1, "aion-es-sqlite-closer")  # starts no thread yet
        self._closing: asyncio.Future[None] | None = None

    @classmethod
    async def open(
        cls,
        path: Path | str | None,
        *,
        durability: Durability = Durability.FULL,
        clock: Clock | None = None,
        busy_timeout: timedelta = timedelta(seconds=BUSY_TIMEOUT),
    ) -> Self:
        """Open the store, creating the file if there is none.

        Args:
            path: The file, in a directory that exists; None for a private store in memory.
            durability: What an acknowledged append survives; default: a power loss.
            clock: Stamps events and decides `max_age` and redeliveries. Default: the machine's.
            busy_timeout: How long to wait while another process writes.

        Raises:
            StoreUnavailableError: The file cannot be opened, read or created.
            StoreCorruptError: It is not a store, and was left untouched; or it is damaged.
            UnsupportedStoreVersionError: A newer program wrote it, or the SQLite library is too old.
        """
        where = None if path is None else Path(path)
        opening = asyncio.get_running_loop().run_in_executor(
            None, _open, where, durability, busy_timeout / timedelta(seconds=1)
        )
        try:
            opened = await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_unused)
            raise
        return cls(opened, clock or SystemClock())

    # ---------------------------------------------------------------- writing

    @property
    def limits(self) -> StoreLimits:
        """1 MiB per event, 16 MiB per append."""
        return LIMITS

    async def append(
        self, stream: StreamName, events: Sequence[NewEvent], expected: ExpectedRevision
    ) -> Appended:
        """Append all of `events`, or none; see `EventWriter.append`.

        The append is queued before this first gives way to others, so that appends are written in the
        order of the calls. Once queued it is written even if the caller is cancelled.

        Raises:
            InvalidArgumentError: The name of the stream or of a type cannot be stored as text.
        """
        return await self.submit(stream, events, expected)

    def submit(
        self, stream: StreamName, events: Sequence[NewEvent], expected: ExpectedRevision
    ) -> "asyncio.Future[Appended]":
        """Queue an append; see `EventWriter.submit`."""
        self._pool.require_open()
        check_expected(expected)
        batch = tuple(events)  # a generator must not be consumed elsewhere meanwhile
        size = _checked_size(stream, batch)
        return self._writer.append(stream, batch, expected, size)

    async def set_metadata(self, stream: StreamName, metadata: StreamMetadata) -> None:
        """Replace the stream's metadata; the stream need not exist.

        Raises:
            InvalidArgumentError: A limit is negative, or `max_count` or `max_age` is not positive.
        """
        self._pool.require_open()
        check_metadata(metadata)
        check_name("stream", stream)
        await self._writer.call(
            lambda connection: streams.set_metadata(connection, stream, metadata),
            forget_heads=True,
        )

    async def metadata(self, stream: StreamName) -> StreamMetadata:
        """Return the stream's metadata; without any, the empty one."""
        check_name("stream", stream)
        return await self._pool.run(lambda connection: streams.metadata(connection, stream))

    async def delete(self, stream: StreamName, expected: ExpectedRevision) -> None:
        """Delete the stream softly; an unknown or deleted one stays as it is."""
        self._pool.require_open()
        check_name("stream", stream)
        check_expected(expected)
        await self._writer.call(
            lambda connection: streams.delete(connection, stream, expected), forget_heads=True
        )

    # ---------------------------------------------------------------- reading

    async def read(
        self,
        stream: StreamName,
        *,
        from_revision: int | None = None,
        backwards: bool = False,
        limit: int | None = None,
    ) -> AsyncIterator[RecordedEvent]:
        """Yield the stream's events, in pages of up to 1024."""
        check_name("stream", stream)
        check_revision(from_revision)
        check_limit(limit)
        low, high = 0, reader.BEYOND
        if from_revision is not None:
            at = min(from_revision, reader.BEYOND)
            low, high = (0, at) if backwards else (at, high)
        left = reader.BEYOND if limit is None else limit
        while left > 0 and high >= 0:
            page = await self._stream_page(stream, low, high, backwards, left)
            for event in page.events:
                yield event
            left -= len(page.events)
            if not page.full or not page.events:
                return
            last = page.events[-1].revision
            low, high = (low, last - 1) if backwards else (last + 1, high)

    async def read_all(
        self,
        *,
        from_position: Position = START,
        prefix: str = "",
        backwards: bool = False,
        limit: int | None = None,
    ) -> AsyncIterator[RecordedEvent]:
        """Yield the events of matching streams in the store's order.

        Like EventStoreDB's `$all`, this still shows what deletion and metadata hide, until
        `compact()` takes it away.

        Raises:
            InvalidArgumentError: No stream's name can begin with `prefix`: it has a NUL or half of a
                surrogate pair.
        """
        check_prefix(prefix)
        check_position(from_position)
        check_limit(limit)
        left = reader.BEYOND if limit is None else limit
        at = from_position.commit
        if backwards:
            beyond = (await self.end_position()).commit + 1
            # From far beyond the end a filtered read would go through every position in between.
            at = beyond if from_position == START else min(at, beyond)
        while left > 0 and not (backwards and at <= 0):
            page = await self._all_page(at, prefix, left, backwards=backwards)
            for event in page.events:
                yield event
            left -= len(page.events)
            if page.complete:
                return
            at = page.through

    async def head(self, stream: StreamName) -> int:
        """Return the revision of the stream's last event, -1 if it has none or was deleted."""
        check_name("stream", stream)
        head = await self._pool.run(lambda connection: load_head(connection, stream))
        return -1 if head is None else head.visible

    async def end_position(self) -> Position:
        """Return the position of the last event in the store, `START` if it is empty."""
        position = await self._pool.run(reader.end)
        return Position(position, position)

    # ---------------------------------------------------------------- subscribing

    def subscribe_all(
        self, *, from_position: Position = START, prefix: str = ""
    ) -> CatchUpSubscription:
        """Subscribe to matching streams, after `from_position`; see `EventSubscriber`."""
        self._pool.require_open()
        check_prefix(prefix)
        check_position(from_position)

        async def page(after: int) -> Page:
            return await self._all_page(after, prefix, reader.PAGE_EVENTS, backwards=False)

        return self._feed.subscribe(PrefixSource(prefix, page), after=from_position.commit)

    def subscribe(self, stream: StreamName, *, from_revision: int = 0) -> CatchUpSubscription:
        """Subscribe to one stream, from `from_revision` on; see `EventSubscriber`."""
        self._pool.require_open()
        check_name("stream", stream)
        check_revision(from_revision)
        begin = min(max(from_revision, 0), reader.BEYOND)

        async def page(revision: int) -> Page:
            got = await self._stream_page(
                stream, revision, reader.BEYOND, False, reader.PAGE_EVENTS
            )
            if got.full and got.events:
                return Page(got.events, got.events[-1].position.commit, complete=False)
            return Page(got.events, got.end, complete=True)

        return self._feed.subscribe(StreamSource(stream, page), revision=begin)

    # ---------------------------------------------------------------- consumer groups

    async def create_consumer_group(
        self, name: str, settings: ConsumerGroupSettings | None = None
    ) -> None:
        """Create a group; it is remembered in the file.

        Raises:
            ConsumerGroupExistsError: There is one of this name.
            InvalidArgumentError: The name or a setting makes no sense.
        """
        self._pool.require_open()
        wanted = settings or ConsumerGroupSettings()
        check_group(name, wanted)
        await self._writer.call(partial(leases.create, name=name, settings=wanted))

    async def update_consumer_group(self, name: str, changes: ConsumerGroupChanges) -> None:
        """Change how a group delivers; what is held stays held, until the time that it was given."""
        self._pool.require_open()
        check_changes(name, changes)
        await self._writer.call(partial(leases.update, name=name, changes=changes))
        self._feed.changed()

    async def delete_consumer_group(self, name: str) -> None:
        """Delete a group and what it remembers."""
        self._pool.require_open()
        await self._writer.call(partial(leases.delete, name=name))
        self._feed.changed()

    async def replay_parked(self, name: str) -> int:
        """Deliver the parked events again; return how many."""
        self._pool.require_open()
        replayed = await self._writer.call(partial(leases.replay_parked, name=name))
        self._feed.changed()
        return replayed

    def consume(self, name: str) -> SQLiteConsumer:
        """Join a group; members may live in several processes."""
        self._pool.require_open()
        return SQLiteConsumer(name, self._writer, self._pool, self._feed, self._micros)

    # ---------------------------------------------------------------- upkeep

    async def health(self) -> None:
        """Return if the store answers a read."""
        await self._pool.run(reader.end)

    async def compact(self) -> int:
        """Take away the events that deletion and metadata hide; return how many.

        The newest event of the store stays in any case: its position must not be given out again.
        Runs in steps between which appends are written. Space is reused; `vacuum` gives it back.
        """
        removed = 0
        left: Sequence[int] = await self._pool.run(maintenance.limited_streams)
        while left:
            self._pool.require_open()
            step, left = await self._writer.call(
                partial(maintenance.compact, streams=left, now=self._micros())
            )
            removed += step
        return removed

    async def integrity_check(self) -> None:
        """Return if every page and every promise of the file holds.

        Raises:
            StoreCorruptError: One does not; says which.
        """
        where = self._connections.where
        await self._pool.run(lambda connection: maintenance.check(connection, where))

    async def vacuum(self) -> None:
        """Rewrite the file without its free space; appends wait meanwhile."""
        self._pool.require_open()
        await self._writer.call(maintenance.vacuum, transaction=False, forget_heads=True)

    async def backup(self, path: Path | str) -> None:
        """Write a copy of the store as it is now to `path`, while it is in use.

        The file appears under its name only when it is complete and synced to the disk.

        Raises:
            StoreUnavailableError: There is a file of that name, or it cannot be written.
        """
        target = Path(path)
        await self._pool.run(lambda connection: maintenance.backup(connection, target))

    async def aclose(self) -> None:
        """Write what was accepted, end subscriptions and threads, close the file."""
        if self._closing is None:
            self._pool.refuse()
            self._writer.stop()
            self._feed.close(StoreClosedError(self._connections.where))
            # A thread does it: it goes on if this call is cancelled, and the loop does not wait.
            self._closing = self._loop.run_in_executor(self._closer, self._shut)
        await asyncio.shield(self._closing)
        self._closer.shutdown(wait=True)

    def _shut(self) -> None:
        """End the threads, the writer after what was accepted; then close the file."""
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.join()
        self._writer.join()
        self._pool.join()
        self._connections.close()

    # ---------------------------------------------------------------- inside

    def _published(self, group: Group) -> None:
        self._feed.publish(group.after, group.end, group.size, group.recorded)

    def _micros(self) -> int:
        return (self._clock.now() - _EPOCH) // timedelta(microseconds=1)

    async def _stream_page(
        self, stream: StreamName, low: int, high: int, backwards: bool, limit: int
    ) -> Packed:
        now = self._micros()
        return await self._pool.run(
            lambda connection: reader.read_stream(
                connection,
                stream,
                low=low,
                high=high,
                backwards=backwards,
                limit=min(limit, reader.PAGE_EVENTS),
                now=now,
            )
        )

    async def _all_page(self, at: int, prefix: str, limit: int, *, backwards: bool) -> Page:
        span = reader.SCAN_POSITIONS if prefix else reader.BEYOND // 2
        low, high = (max(at - span - 1, -1), at)
        if not backwards:
            low, high = at, min(at + span + 1, reader.BEYOND)
        got = await self._pool.run(
            lambda connection: reader.read_all(
                connection,
                low=low,
                high=high,
                prefix=prefix.encode(),
                backwards=backwards,
                limit=min(limit, reader.PAGE_EVENTS),
            )
        )
        if got.full and got.events:
            return Page(got.events, got.events[-1].position.commit, complete=False)
        if backwards:
            return Page(got.events, low + 1, complete=low < 0)
        if high <= got.end:
            return Page(got.events, high - 1, complete=False)
        return Page(got.events, max(got.end, at), complete=True)


class _Opened(NamedTuple):
    connections: Connections
    end: int
    watching: sqlite3.Connection | None


def _open(path: Path | None, durability: Durability, busy_timeout: float) -> _Opened:
    connections = Connections(path, durability, busy_timeout)
    try:
        with connections.errors(), connections.writing() as connection:
            end = reader.end(connection)
            return _Opened(connections, end, connections.reader() if connections.in_file else None)
    except BaseException:
        connections.close()
        raise


def _close_unused(opening: "asyncio.Future[_Opened]") -> None:
    """Close what was opened for a caller that was cancelled meanwhile."""
    if opening.exception() is None:
        connections, _, watching = opening.result()
        if watching is not None:
            watching.close()
        connections.close()


def _checked_size(stream: StreamName, events: Sequence[NewEvent]) -> int:
    """Return how many bytes an append has.

    Raises:
        AppendTooLargeError: It, or one of its events, is over the limits.
        InvalidArgumentError: A name cannot be stored as text.
    """
    check_name("stream", stream)
    total = 0
    for event in events:
        size = event.size
        if size > LIMITS.max_event_bytes:
            raise AppendTooLargeError(size, LIMITS.max_event_bytes)
        check_type(event.type)
        total += size
    if total > LIMITS.max_append_bytes:
        raise AppendTooLargeError(total, LIMITS.max_append_bytes)
    return total

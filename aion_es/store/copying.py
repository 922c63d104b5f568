"""Copies streams from one store into another: how a workflow moves from SQLite to a cluster, or back.

Nothing may be writing to what is copied, in either store: stop the engines first.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Final, NamedTuple, Protocol

from aion_es.errors import AppendTooLargeError, StoreCorruptError
from aion_es.ids import StreamName
from aion_es.store.port import (
    NO_STREAM,
    START,
    EventReader,
    EventStore,
    NewEvent,
    Position,
    RecordedEvent,
    StreamMetadata,
)

MAX_BATCH_EVENTS: Final = 500
"""Events of one append; bytes are bounded by the destination's limits."""


class CopySource(EventReader, Protocol):
    """What is read of the store that is copied from."""

    async def metadata(self, stream: StreamName) -> StreamMetadata:
        """Return the stream's limits."""
        ...


@dataclass(frozen=True, slots=True)
class CopyProgress:
    """How far a copy is; also its result.

    Attributes:
        streams: Met so far.
        copied: Events that were appended now.
        found: Events that an earlier copy had brought.
        verified: Events that were read back from both stores and compared; the copy is complete when
            this has reached the sum of the two before.
        size: Bytes appended now.
        position: In the source, of the last event that was met.
    """

    streams: int = 0
    copied: int = 0
    found: int = 0
    verified: int = 0
    size: int = 0
    position: Position = START


ProgressCallback = Callable[[CopyProgress], Awaitable[None] | None]


class _Target(NamedTuple):
    """A stream on its way: revision of its first event in the source, and head in the destination."""

    first: int
    head: int


async def copy_streams(
    source: CopySource,
    destination: EventStore,
    *,
    prefix: str = "",
    verify: bool = True,
    progress: ProgressCallback | None = None,
) -> CopyProgress:
    """Copy every event that can be read, in the source's order, with its id, type, data and metadata.

    A server's own streams, whose names begin with `$`, stay behind unless `prefix` begins so too.

    A copy that was interrupted goes on when it is called again: what is there is compared and left.
    A stream whose beginning is hidden in the source (deleted before, or cut off by its limits) begins
    with revision 0 in the destination. Limits on count and age come along. The time that a store
    stamps is the destination's; the time that replay reads is part of the event.

    Args:
        source: Copied from; nobody writes to it meanwhile.
        destination: Copied into.
        prefix: Only the streams whose name begins so.
        verify: Read everything back in the end, from both.
        progress: Called after each batch, and while verifying.

    Returns:
        What was done.

    Raises:
        StoreCorruptError: A stream of that name is in the destination and holds something else, or
            what was read back is not what was copied; names stream and revision. Nothing was
            overwritten.
        AppendTooLargeError: An event is over the destination's limit; what came before it is copied.
        ConcurrencyConflictError: Somebody writes to the destination.
        StoreUnavailableError: One of the two is away; call again.
    """
    copy = _Copy(source, destination, progress)
    return await copy.run(_copied(source.read_all(prefix=prefix), prefix), verify=verify)


async def copy_stream(
    source: CopySource,
    destination: EventStore,
    stream: StreamName,
    *,
    verify: bool = True,
    progress: ProgressCallback | None = None,
) -> CopyProgress:
    """Copy the one stream that has exactly this name; everything else is as with `copy_streams`.

    A stream that is unknown in the source, or deleted, is no stream to be copied: nothing is done.

    Raises:
        StoreCorruptError, AppendTooLargeError, ConcurrencyConflictError, StoreUnavailableError: As there.
    """
    copy = _Copy(source, destination, progress)
    return await copy.run(source.read(stream), verify=verify)


class _Copy:
    def __init__(
        self, source: CopySource, destination: EventStore, callback: ProgressCallback | None
    ) -> None:
        self._source = source
        self._destination = destination
        self._callback = callback
        self._targets: dict[StreamName, _Target | None] = {}
        self.progress = CopyProgress()

    async def run(self, events: AsyncIterator[RecordedEvent], *, verify: bool) -> CopyProgress:
        async for batch in self._batches(events):
            await self._copy(batch)
        for stream, target in self._targets.items():
            if target is not None:
                await self._copy_limits(stream)
        if verify:
            await self._verify()
        return self.progress

    async def _verify(self) -> None:
        for stream, target in self._targets.items():
            if target is not None:
                count = await self._compare(stream, target.first, target.head)
                await self._tell(replace(self.progress, verified=self.progress.verified + count))

    async def _batches(
        self, events: AsyncIterator[RecordedEvent]
    ) -> AsyncIterator[list[RecordedEvent]]:
        """Yield the source's events in order, cut where the stream changes and by what an append may hold."""
        most = self._destination.limits.max_append_bytes
        batch: list[RecordedEvent] = []
        size = 0
        async for event in events:
            bytes_more = _as_new(event).size
            if batch and (
                event.stream != batch[-1].stream
                or len(batch) >= MAX_BATCH_EVENTS
                or size + bytes_more > most
            ):
                yield batch
                batch, size = [], 0
            batch.append(event)
            size += bytes_more
        if batch:
            yield batch

    async def _copy(self, batch: Sequence[RecordedEvent]) -> None:
        stream = batch[0].stream
        if stream not in self._targets:
            self._targets[stream] = await self._meet(stream)
        target = self._targets[stream]
        met = replace(self.progress, position=batch[-1].position)
        new = [event for event in batch if target and event.revision - target.first > target.head]
        if target is None or not new:
            await self._tell(met)
            return
        events = [_as_new(event) for event in new]
        self._check_sizes(events)
        expected = target.head if target.head >= 0 else NO_STREAM
        appended = await self._destination.append(stream, events, expected)
        if appended.revision != new[-1].revision - target.first:
            raise StoreCorruptError(
                f"{stream}@{appended.revision}",
                "the destination had a stream of this name and deleted it, so revisions go on there; "
                "copy into a store where it never was",
            )
        self._targets[stream] = target._replace(head=appended.revision)
        await self._tell(
            replace(
                met,
                copied=self.progress.copied + len(events),
                size=self.progress.size + sum(event.size for event in events),
            )
        )

    async def _meet(self, stream: StreamName) -> _Target | None:
        """Look at a stream for the first time; None if all of it is hidden in the source.

        Raises:
            StoreCorruptError: The destination holds something else under this name.
        """
        first = [event async for event in self._source.read(stream, limit=1)]
        if not first:
            return None
        head = await self._destination.head(stream)
        found = 0
        if head >= 0:
            found = await self._compare(stream, first[0].revision, head)
        await self._tell(
            replace(
                self.progress,
                streams=self.progress.streams + 1,
                found=self.progress.found + found,
            )
        )
        return _Target(first[0].revision, head)

    async def _compare(self, stream: StreamName, first: int, head: int) -> int:
        """Return how many events the destination has of a stream, each the same as in the source.

        Raises:
            StoreCorruptError: One is not, or there are more than in the source.
        """
        ours = self._source.read(stream, limit=head + 1)
        theirs = self._destination.read(stream)
        count = 0
        async for left, right in _pairs(ours, theirs):
            if (
                left is None
                or right is None
                or _as_new(left) != _as_new(right)
                or left.revision - first != right.revision
            ):
                place = right.revision if right is not None else count
                raise StoreCorruptError(
                    f"{stream}@{place}",
                    "the destination holds something else than the source; copy into streams that "
                    "do not exist, or that an earlier copy began",
                )
            count += 1
        return count

    async def _copy_limits(self, stream: StreamName) -> None:
        limits = await self._source.metadata(stream)
        wanted = StreamMetadata(max_count=limits.max_count, max_age=limits.max_age)
        if wanted != StreamMetadata() and await self._destination.metadata(stream) != wanted:
            await self._destination.set_metadata(stream, wanted)

    def _check_sizes(self, events: Sequence[NewEvent]) -> None:
        most = self._destination.limits.max_event_bytes
        for event in events:
            if event.size > most:
                raise AppendTooLargeError(event.size, most)

    async def _tell(self, progress: CopyProgress) -> None:
        self.progress = progress
        if self._callback is not None:
            told = self._callback(progress)
            if told is not None:
                await told


async def _copied(
    events: AsyncIterator[RecordedEvent], prefix: str
) -> AsyncIterator[RecordedEvent]:
    """Yield those of all events that are to be copied: a server's own only if they were asked for."""
    async for event in events:
        if prefix.startswith("$") or not event.stream.startswith("$"):
            yield event


def _as_new(event: RecordedEvent) -> NewEvent:
    return NewEvent(event.event_id, event.type, event.data, event.metadata)


async def _pairs(
    left: AsyncIterator[RecordedEvent], right: AsyncIterator[RecordedEvent]
) -> AsyncIterator[tuple[RecordedEvent | None, RecordedEvent | None]]:
    """Yield what two iterators give, side by side, in blocks; None where one has ended before the other."""
    while True:
        ours = [event async for event in _some(left)]
        theirs = [event async for event in _some(right)]
        if not ours and not theirs:
            return
        for pair in zip_longest(ours, theirs):
            yield pair


async def _some(events: AsyncIterator[RecordedEvent]) -> AsyncIterator[RecordedEvent]:
    for _ in range(MAX_BATCH_EVENTS):
        try:
            yield await anext(events)
        except StopAsyncIteration:
            return

"""EventStoreDB's rules for writing, over any event store.

The store behind keeps events, revisions and positions. What EventStoreDB adds lives in streams of
its own, as it does there, and so survives with the store: metadata in `$$name`, tombstones in
`$tombstones`. Both are held in memory as well; this server must be the only one to write them.
"""

import asyncio
import contextlib
import uuid
from collections import OrderedDict
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager
from typing import Final, NamedTuple, TypeAlias

import uuid_utils

from aion_es.errors import ConcurrencyConflictError
from aion_es.ids import StreamName
from aion_es.store.port import (
    ANY,
    EXISTS,
    NO_STREAM,
    START,
    EventStore,
    Expected,
    ExpectedRevision,
    NewEvent,
    Position,
    RecordedEvent,
    StreamMetadata,
)
from aion_es.testing.eventstoredb.refusals import StreamDeleted, WrongExpectedVersion
from aion_es.testing.eventstoredb.stream_metadata import (
    METADATA_TYPE,
    NOTHING,
    Metadata,
    is_metastream,
    metastream,
)
from aion_es.testing.eventstoredb.wire import DELETED_REVISION, STREAM_DELETED

TOMBSTONES: Final = StreamName("$tombstones")
RECENT_IDS: Final = 100_000
"""Event ids that an append without an exact revision is compared with."""

_NUMBERS: Final = {NO_STREAM: -1, ANY: -2, EXISTS: -4}
_Place: TypeAlias = tuple[str, int, Position]


class Written(NamedTuple):
    """The answer to an append; `position` is None if the server would not tell one."""

    revision: int
    position: Position | None


class _Turn:
    """A stream that is being changed, and how many want to change it."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0


def number(expected: ExpectedRevision) -> int:
    """Return an expectation as the protocol numbers it."""
    return _NUMBERS[expected] if isinstance(expected, Expected) else expected


def is_tombstone(event: RecordedEvent) -> bool:
    """Say whether an event of the store stands for the end of another stream."""
    return event.stream == TOMBSTONES


def as_seen(event: RecordedEvent) -> RecordedEvent:
    """Return the event as clients see it: a tombstone is the last event of the stream it ends."""
    if event.stream != TOMBSTONES:
        return event
    return event._replace(
        stream=StreamName(event.metadata.decode()), revision=DELETED_REVISION, metadata=b""
    )


class Ledger:
    """Appends, deletes and tombstones by EventStoreDB's rules; knows what is deleted.

    Appends are written in the order of the calls. What changes a stream's state (deletion, its being
    written again, a tombstone, metadata) has the stream to itself meanwhile.

    Args:
        store: Where everything is kept; its owner closes it.
    """

    def __init__(self, store: EventStore) -> None:
        self.store = store
        self._metadata: dict[str, Metadata] = {}
        self._tombstones: set[str] = set()
        self._recent: OrderedDict[uuid.UUID, _Place] = OrderedDict()
        self._changing: dict[str, _Turn] = {}
        self._endings: dict[str, set[asyncio.Future[None]]] = {}

    async def load(self) -> None:
        """Learn from the store what was deleted and limited before.

        A new store gets an event of the server's own first, as on the real one: clients that read
        everything count on finding some.
        """
        if await self.store.end_position() == START:
            epoch = NewEvent(fresh_id(), "$EpochInformation", b'{"epochNumber": 0}', b"")
            await self.store.append(StreamName("$epoch-information"), (epoch,), NO_STREAM)
        async for event in self.store.read(TOMBSTONES):
            self._tombstones.add(event.metadata.decode())
        async for event in self.store.read_all(prefix="$$"):
            await self._learn(event.stream[2:], Metadata.parse(event.data))

    # ---------------------------------------------------------------- what is known

    def metadata(self, stream: str) -> Metadata:
        """Return the stream's metadata."""
        return self._metadata.get(stream, NOTHING)

    def is_deleted(self, stream: str) -> bool:
        """Say whether the stream is deleted and may be written again."""
        found = self._metadata.get(stream)
        return found is not None and found.is_deleted

    def require_readable(self, stream: str) -> None:
        """Return if neither the stream nor, of a metastream, its owner was ended for good.

        Raises:
            StreamDeleted: One was.
        """
        owner = stream[2:] if is_metastream(stream) else stream
        if owner in self._tombstones or stream in self._tombstones:
            raise StreamDeleted(stream)

    @contextlib.contextmanager
    def ending(self, stream: str) -> Generator["asyncio.Future[None]", None, None]:
        """Give a future that is done when the stream has been ended for good."""
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._endings.setdefault(stream, set())
        waiting.add(ended)
        try:
            yield ended
        finally:
            waiting.discard(ended)
            if not waiting:
                self._endings.pop(stream, None)

    # ---------------------------------------------------------------- writing

    async def append(
        self, stream: StreamName, events: Sequence[NewEvent], expected: ExpectedRevision
    ) -> Written:
        """Append all of `events`, or none.

        Raises:
            WrongExpectedVersion: `expected` does not hold, and these events are not there already.
            StreamDeleted: The stream was ended for good; or EXISTS, and it is deleted.
        """
        special = is_metastream(stream) or self.is_deleted(stream) or stream in self._changing
        if not special:
            return await self._append(stream, events, expected)
        async with self._alone(stream[2:] if is_metastream(stream) else stream):
            if self.is_deleted(stream):
                return await self._append_again(stream, events, expected)
            written = await self._append(stream, events, expected)
            if is_metastream(stream) and events:
                await self._take_over(StreamName(stream[2:]), written.revision, events[-1].data)
            return written

    async def delete(self, stream: StreamName, expected: ExpectedRevision) -> Position | None:
        """Delete the stream softly; return the position of the event that says so.

        Nothing is left of its metadata.

        Raises:
            WrongExpectedVersion: `expected` does not hold; or the stream has neither events nor metadata.
            StreamDeleted: The stream was ended for good; or EXISTS, and it is deleted already.
        """
        async with self._alone(stream):
            if await self._require(stream, expected) < 0 and stream not in self._metadata:
                raise WrongExpectedVersion("Delete", stream, number(expected), -1)
            return await self._write_metadata(stream, NOTHING.truncated(DELETED_REVISION))

    async def tombstone(self, stream: StreamName, expected: ExpectedRevision) -> Position | None:
        """End the stream for good; return the position of the event that says so.

        Raises:
            WrongExpectedVersion: `expected` does not hold.
            StreamDeleted: The stream was ended before; or EXISTS, and it is deleted.
        """
        async with self._alone(stream):
            await self._require(stream, expected)
            event = NewEvent(fresh_id(), STREAM_DELETED, b"", stream.encode())
            written = await self._append(TOMBSTONES, (event,), ANY)
            self._tombstones.add(stream)
            for ended in self._endings.get(stream, ()):
                ended.set_result(None)
            return written.position

    async def truncate(self, stream: StreamName, before: int) -> None:
        """Let reads of the stream begin at the revision `before`."""
        async with self._alone(stream):
            await self._write_metadata(stream, self.metadata(stream).truncated(before))

    async def _append(
        self,
        stream: StreamName,
        events: Sequence[NewEvent],
        expected: ExpectedRevision,
        operation: str = "Append",
    ) -> Written:
        """Append, without any await before the store has been given the events."""
        self._require_existence(stream, expected)
        if repeated := self._repeated(stream, events, expected):
            return repeated
        # To EventStoreDB a stream that has metadata exists.
        loose = expected is EXISTS and stream in self._metadata
        try:
            done = await self.store.submit(stream, events, ANY if loose else expected)
        except ConcurrencyConflictError as error:
            raise WrongExpectedVersion(operation, stream, number(expected), error.actual) from error
        if not events:
            return Written(done.revision, None)
        self._remember(stream, events, done.revision, done.position)
        return Written(done.revision, done.position)

    async def _append_again(
        self, stream: StreamName, events: Sequence[NewEvent], expected: ExpectedRevision
    ) -> Written:
        """Append to a deleted stream: it begins again after its last event, if `expected` admits that."""
        self._require_existence(stream, expected)
        if repeated := self._repeated(stream, events, expected):
            return repeated
        head = (await self._append(stream, (), ANY)).revision
        if isinstance(expected, int) and expected != head:
            return await self._append(stream, events, expected)  # a repetition, or refused
        if expected is NO_STREAM and events and head >= 0:
            with contextlib.suppress(WrongExpectedVersion):
                return await self._append(stream, events, expected)  # the very first, repeated
        await self._write_metadata(stream, self.metadata(stream).truncated(head + 1))
        return await self._append(stream, events, ANY if expected is NO_STREAM else expected)

    async def _require(self, stream: StreamName, expected: ExpectedRevision) -> int:
        """Return the revision of the last event, if `expected` holds for a deletion."""
        deleted = self.is_deleted(stream)
        wanted = ANY if deleted and expected is NO_STREAM else expected
        return (await self._append(stream, (), wanted, "Delete")).revision

    def _require_existence(self, stream: str, expected: ExpectedRevision) -> None:
        if stream in self._tombstones:  # metadata may be written even then, as on the real server
            raise StreamDeleted(stream)
        if expected is EXISTS and self.is_deleted(stream):
            raise StreamDeleted(stream)

    # ---------------------------------------------------------------- metadata

    async def _write_metadata(self, stream: StreamName, data: bytes) -> Position | None:
        event = NewEvent(fresh_id(), METADATA_TYPE, data, b"")
        written = await self._append(metastream(stream), (event,), ANY)
        await self._learn(stream, Metadata.parse(data))
        return written.position

    async def _take_over(self, stream: StreamName, revision: int, data: bytes) -> None:
        """Apply metadata that a client wrote at `revision`; it brings a deleted stream back, without its events."""
        if revision < await self.store.head(metastream(stream)):
            return  # an old event, repeated
        was_deleted = self.is_deleted(stream)
        metadata = Metadata.parse(data)
        await self._learn(stream, metadata)
        if was_deleted and metadata is not NOTHING:
            head = (await self._append(stream, (), ANY)).revision
            await self._write_metadata(stream, metadata.truncated(head + 1))

    async def _learn(self, stream: str, metadata: Metadata) -> None:
        """Take metadata over, and have the store apply it to reads; only the newest is ever read."""
        if stream not in self._metadata:
            await self.store.set_metadata(metastream(stream), StreamMetadata(max_count=1))
        self._metadata[stream] = metadata
        name = StreamName(stream)
        if await self.store.metadata(name) != metadata.limits:
            await self.store.set_metadata(name, metadata.limits)

    @asynccontextmanager
    async def _alone(self, stream: str) -> AsyncGenerator[None, None]:
        """Have a stream for oneself: later appends to it wait."""
        turn = self._changing.setdefault(stream, _Turn())
        turn.users += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.users -= 1
            if not turn.users:
                del self._changing[stream]

    # ---------------------------------------------------------------- repetition

    def _repeated(
        self, stream: str, events: Sequence[NewEvent], expected: ExpectedRevision
    ) -> Written | None:
        """Return the first answer if all of `events` were written to `stream` not long ago.

        Raises:
            WrongExpectedVersion: Some were and some were not.
        """
        if not events or not (expected is ANY or expected is EXISTS):
            return None  # the store compares an exact place
        first = self._recent.get(events[0].event_id)
        if first is None or first[0] != stream:
            return None
        places = [self._recent.get(event.event_id) for event in events]
        known = [place for place in places if place is not None and place[0] == stream]
        if len(known) < len(events):
            raise WrongExpectedVersion("Append", stream, number(expected), known[-1][1])
        return Written(known[-1][1], known[-1][2])

    def _remember(
        self, stream: str, events: Sequence[NewEvent], revision: int, position: Position
    ) -> None:
        behind = len(events) - 1
        for offset, event in enumerate(events):
            place = Position(position.commit - behind + offset, position.prepare - behind + offset)
            self._recent[event.event_id] = (stream, revision - behind + offset, place)
        while len(self._recent) > RECENT_IDS:
            self._recent.popitem(last=False)


def fresh_id() -> uuid.UUID:
    """Return the id of an event that the server itself writes."""
    return uuid.UUID(bytes=uuid_utils.uuid7().bytes)

"""The event store in memory: the port's promises kept by plain lists, on one event loop, until the process ends."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from typing import Final

from aion_es.clock import Clock, SystemClock
from aion_es.errors import (
    AppendTooLargeError,
    ConcurrencyConflictError,
    ConsumerGroupExistsError,
    ConsumerGroupNotFoundError,
    StoreClosedError,
    StoreError,
    StreamDeletedError,
)
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
from aion_es.store.memory_groups import MemoryConsumer, MemoryConsumerGroup
from aion_es.store.memory_subscriptions import PAGE, MemorySubscription
from aion_es.store.port import (
    ANY,
    EXISTS,
    NO_STREAM,
    START,
    Appended,
    ConsumerGroupChanges,
    ConsumerGroupSettings,
    Expected,
    ExpectedRevision,
    NewEvent,
    Position,
    RecordedEvent,
    StoreLimits,
    StreamMetadata,
)

LIMITS: Final = StoreLimits(max_event_bytes=1_048_576, max_append_bytes=16 * 1_048_576)
"""Those of the embedded store, so that what a test accepts is accepted there."""


class _Stream:
    """One stream: all that was ever appended to it, and where its present life begins.

    Attributes:
        events: By revision, from 0.
        begin: First revision of the present life; deletion moves it behind the last event.
        metadata: What its users set.
    """

    def __init__(self, name: StreamName) -> None:
        self.name = name
        self.events: list[RecordedEvent] = []
        self.begin = 0
        self.metadata = StreamMetadata()

    @property
    def exists(self) -> bool:
        return len(self.events) > self.begin

    @property
    def head(self) -> int:
        return len(self.events) - 1 if self.exists else -1

    def require(self, expected: ExpectedRevision) -> None:
        """Return if `expected` holds.

        Raises:
            ConcurrencyConflictError: It does not.
            StreamDeletedError: EXISTS, and the stream is deleted.
        """
        if expected is EXISTS and self.begin and not self.exists:
            raise StreamDeletedError(self.name)
        if not self._admits(expected):
            said = expected.value if isinstance(expected, Expected) else expected
            raise ConcurrencyConflictError(self.name, said, self.head)

    def _admits(self, expected: ExpectedRevision) -> bool:
        match expected:
            case Expected.ANY:
                return True
            case Expected.NO_STREAM | -1:
                return not self.exists
            case Expected.EXISTS:
                return self.exists
            case int():
                # The last revision admits a write after the deletion as before it.
                return expected == len(self.events) - 1

    def find_repeat(
        self, batch: Sequence[NewEvent], expected: ExpectedRevision
    ) -> Sequence[RecordedEvent]:
        """Return the stored events that `batch` would write again after `expected`; nothing if it is new."""
        if expected is EXISTS or expected is ANY:
            return ()  # they name no place at which to look
        first = self.begin if expected is NO_STREAM or expected == -1 else expected + 1
        stored = self.events[first : first + len(batch)] if first >= 0 else ()
        same = [event.event_id for event in stored] == [event.event_id for event in batch]
        return stored if same else ()

    def visible(self, now: datetime) -> list[RecordedEvent]:
        """Return what deletion and metadata leave to be read, oldest first."""
        limits = self.metadata
        first = max(self.begin, limits.truncate_before or 0)
        if limits.max_count is not None:
            first = max(first, len(self.events) - limits.max_count)
        events = self.events[first:]
        if limits.max_age is None:
            return events
        return [event for event in events if now - event.recorded_at < limits.max_age]


class MemoryEventStore:
    """An event store that lives as long as the process: for tests, trials and `memory://`.

    It belongs to one event loop. An append is checked and written without an await, so calls are
    stored in the order in which they began; then it yields to the loop once, so that subscribers
    and rivals run before its caller has the answer, as with any other store. A caller that is
    cancelled at that moment has appended all the same.

    Nothing is ever reclaimed: what deletion and metadata hide from `read`, `read_all` still gives.

    Args:
        clock: Tells `recorded_at`, and what `max_age` is measured against. Default: the machine's.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._log: list[RecordedEvent] = []  # an event's position is its index
        self._streams: dict[StreamName, _Stream] = {}
        self._groups: dict[str, MemoryConsumerGroup] = {}
        self._subscriptions: set[MemorySubscription] = set()
        self._closed = False

    @property
    def limits(self) -> StoreLimits:
        """What the store accepts."""
        return LIMITS

    # ------------------------------------------------------------------ writing

    async def append(
        self, stream: StreamName, events: Sequence[NewEvent], expected: ExpectedRevision
    ) -> Appended:
        """Append all of `events` or none; see `EventWriter.append`."""
        self._require_open()
        check_expected(expected)
        answer = self._append(self._stream(stream), tuple(events), expected)
        await asyncio.sleep(0)
        return answer

    def submit(
        self, stream: StreamName, events: Sequence[NewEvent], expected: ExpectedRevision
    ) -> "asyncio.Future[Appended]":
        """Append at once; see `EventWriter.submit`."""
        self._require_open()
        check_expected(expected)
        answer: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
        try:
            answer.set_result(self._append(self._stream(stream), tuple(events), expected))
        except StoreError as error:
            answer.set_exception(error)
        return answer

    def _append(
        self, stream: _Stream, batch: Sequence[NewEvent], expected: ExpectedRevision
    ) -> Appended:
        check_name("stream", stream.name)
        _require_within_limits(batch)
        try:
            stream.require(expected)
        except ConcurrencyConflictError:
            repeated = stream.find_repeat(batch, expected)
            if not repeated:
                raise
            return Appended(repeated[-1].revision, repeated[-1].position)
        if not batch:
            return Appended(stream.head, self._end())
        self._streams[stream.name] = stream
        now = self._clock.now()
        for event in batch:
            place = Position(len(self._log), len(self._log))
            recorded = RecordedEvent(*event, stream.name, len(stream.events), place, now)
            stream.events.append(recorded)
            self._log.append(recorded)
        self._wake()
        return Appended(stream.head, self._end())

    async def delete(self, stream: StreamName, expected: ExpectedRevision) -> None:
        """Delete the stream softly; see `EventStore.delete`.

        Raises:
            ConcurrencyConflictError: `expected` does not hold; nothing changed.
            StreamDeletedError: EXISTS, and the stream is deleted already.
        """
        self._require_open()
        check_name("stream", stream)
        check_expected(expected)
        found = self._stream(stream)
        found.require(expected)
        found.begin = len(found.events)

    async def metadata(self, stream: StreamName) -> StreamMetadata:
        """Return the stream's metadata; without any, the empty one."""
        self._require_open()
        return self._stream(stream).metadata

    async def set_metadata(self, stream: StreamName, metadata: StreamMetadata) -> None:
        """Replace the stream's metadata; the stream need not exist."""
        self._require_open()
        check_name("stream", stream)
        check_metadata(metadata)
        found = self._streams.setdefault(stream, _Stream(stream))
        found.metadata = metadata

    # ------------------------------------------------------------------ reading

    async def read(
        self,
        stream: StreamName,
        *,
        from_revision: int | None = None,
        backwards: bool = False,
        limit: int | None = None,
    ) -> AsyncIterator[RecordedEvent]:
        """Yield the stream's events as they stand when the read begins; see `EventReader.read`."""
        self._require_open()
        check_name("stream", stream)
        check_revision(from_revision)
        check_limit(limit)
        events = self._stream(stream).visible(self._clock.now())
        if from_revision is not None and backwards:
            events = [event for event in events if event.revision <= from_revision]
        elif from_revision is not None:
            events = [event for event in events if event.revision >= from_revision]
        async for event in self._in_pages(events, backwards, limit):
            yield event

    async def read_all(
        self,
        *,
        from_position: Position = START,
        prefix: str = "",
        backwards: bool = False,
        limit: int | None = None,
    ) -> AsyncIterator[RecordedEvent]:
        """Yield every stream's events as they stand when the read begins; see `EventReader.read_all`."""
        self._require_open()
        check_prefix(prefix)
        check_position(from_position)
        check_limit(limit)
        if backwards:
            events = self._log[: from_position.commit] if from_position != START else self._log
        else:
            events = self._log[from_position.commit + 1 :]
        events = [event for event in events if event.stream.startswith(prefix)]
        async for event in self._in_pages(events, backwards, limit):
            yield event

    async def _in_pages(
        self, events: Sequence[RecordedEvent], backwards: bool, limit: int | None
    ) -> AsyncIterator[RecordedEvent]:
        most = None if limit is None else max(limit, 0)
        wanted = (events[::-1] if backwards else events)[:most]
        for start in range(0, len(wanted), PAGE):
            await asyncio.sleep(0)
            self._require_open()
            for event in wanted[start : start + PAGE]:
                yield event

    async def head(self, stream: StreamName) -> int:
        """Return the revision of the stream's last event, -1 if it has none or was deleted."""
        self._require_open()
        return self._stream(stream).head

    async def end_position(self) -> Position:
        """Return the position of the last event in the store, `START` if it is empty."""
        self._require_open()
        return self._end()

    # ------------------------------------------------------------------ subscriptions

    def subscribe_all(
        self, *, from_position: Position = START, prefix: str = ""
    ) -> MemorySubscription:
        """Subscribe to the streams that begin with `prefix`; see `EventSubscriber.subscribe_all`.

        Raises:
            StoreClosedError: The store was closed.
        """
        self._require_open()
        check_prefix(prefix)
        check_position(from_position)
        return self._subscribe(
            from_position.commit + 1, lambda event: event.stream.startswith(prefix)
        )

    def subscribe(self, stream: StreamName, *, from_revision: int = 0) -> MemorySubscription:
        """Subscribe to one stream, from `from_revision` on; see `EventSubscriber.subscribe`.

        Deletion and metadata are looked at once, now: what is appended later comes in any case.

        Raises:
            StoreClosedError: The store was closed.
        """
        self._require_open()
        check_name("stream", stream)
        check_revision(from_revision)
        # What is hidden lies before what is not, so where to begin is all there is to decide.
        stored = self._stream(stream).visible(self._clock.now())
        return self._subscribe(
            stored[0].position.commit if stored else len(self._log),
            lambda event: event.stream == stream and event.revision >= from_revision,
        )

    def _subscribe(
        self, begin: int, is_wanted: Callable[[RecordedEvent], bool]
    ) -> MemorySubscription:
        subscription = MemorySubscription(
            self._log, begin, is_wanted, self._require_open, self._subscriptions.discard
        )
        self._subscriptions.add(subscription)
        return subscription

    # ------------------------------------------------------------------ consumer groups

    async def create_consumer_group(
        self, name: str, settings: ConsumerGroupSettings | None = None
    ) -> None:
        """Create a group; see `CompetingConsumers.create_consumer_group`."""
        self._require_open()
        wanted = settings or ConsumerGroupSettings()
        check_group(name, wanted)
        if name in self._groups:
            raise ConsumerGroupExistsError(name)
        self._groups[name] = MemoryConsumerGroup(name, wanted, self._log)

    async def update_consumer_group(self, name: str, changes: ConsumerGroupChanges) -> None:
        """Change how a group delivers; see `CompetingConsumers.update_consumer_group`."""
        self._require_open()
        check_changes(name, changes)
        self._group(name).update(changes)

    async def delete_consumer_group(self, name: str) -> None:
        """Delete a group; whoever waits on it gets `ConsumerGroupNotFoundError`."""
        group = self._group(name)
        del self._groups[name]
        group.close()

    async def replay_parked(self, name: str) -> int:
        """Deliver the parked events again; return how many."""
        return self._group(name).replay_parked()

    def consume(self, name: str) -> MemoryConsumer:
        """Join a group at the first delivery; see `CompetingConsumers.consume`.

        Raises:
            StoreClosedError: The store was closed.
        """
        self._require_open()
        return MemoryConsumer(lambda: self._group(name))

    # ------------------------------------------------------------------ life

    async def health(self) -> None:
        """Return if the store is open."""
        self._require_open()

    async def aclose(self) -> None:
        """Close the store for good. Whoever waits on it gets `StoreClosedError`."""
        self._closed = True
        for group in self._groups.values():
            group.close()
        self._wake()

    def _require_open(self) -> None:
        if self._closed:
            raise StoreClosedError("memory://")

    def _end(self) -> Position:
        return self._log[-1].position if self._log else START

    def _stream(self, name: StreamName) -> _Stream:
        """Return the stream; a new one enters the store only when something is written to it."""
        return self._streams.get(name) or _Stream(name)

    def _group(self, name: str) -> MemoryConsumerGroup:
        self._require_open()
        if name not in self._groups:
            raise ConsumerGroupNotFoundError(name)
        return self._groups[name]

    def _wake(self) -> None:
        for subscription in self._subscriptions:
            subscription.wake()
        for group in self._groups.values():
            group.wake()


def _require_within_limits(batch: Sequence[NewEvent]) -> None:
    """Return if `batch` may be appended.

    Raises:
        AppendTooLargeError: One event, or all together, are over the limit.
        InvalidArgumentError: A type cannot be called so.
    """
    for event in batch:
        check_type(event.type)
    sizes = [event.size for event in batch]
    largest, total = max(sizes, default=0), sum(sizes)
    if largest > LIMITS.max_event_bytes:
        raise AppendTooLargeError(largest, LIMITS.max_event_bytes)
    if total > LIMITS.max_append_bytes:
        raise AppendTooLargeError(total, LIMITS.max_append_bytes)

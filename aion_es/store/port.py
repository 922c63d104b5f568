"""The event store port: what aion-es asks of the place where events are kept, and what it promises.

Bytes and names only. Models and bytes meet in `aion_es.events.codec`; adapters translate their
driver's errors into those of `aion_es.errors`, by class or code, never by text.
"""

import asyncio
import enum
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from types import TracebackType
from typing import Final, Literal, NamedTuple, Protocol, Self, TypeAlias

from aion_es.ids import StreamName


class Expected(enum.Enum):
    """What an append may expect of its stream, other than an exact revision."""

    NO_STREAM = "no_stream"
    EXISTS = "exists"
    ANY = "any"


NO_STREAM: Final = Expected.NO_STREAM
"""The stream must hold no event (or have been deleted)."""
EXISTS: Final = Expected.EXISTS
"""The stream must hold at least one event."""
ANY: Final = Expected.ANY
"""No condition at all."""

ExpectedRevision: TypeAlias = int | Expected


class Position(NamedTuple):
    """A place in the store's order of all events: opaque, ordered, comparable within one store only.

    EventStoreDB counts commit and prepare; a store with one number leaves `prepare` equal to `commit`.
    """

    commit: int
    prepare: int

    def __str__(self) -> str:
        return str(self.commit) if self.commit == self.prepare else f"{self.commit}/{self.prepare}"

    @classmethod
    def parse(cls, text: str) -> "Position":
        """Return the position that `str()` wrote.

        Raises:
            ValueError: The text is not a position.
        """
        commit, _, prepare = text.partition("/")
        return cls(int(commit), int(prepare or commit))


START: Final = Position(-1, -1)
"""Before the first event of every store."""


class NewEvent(NamedTuple):
    """An event that is to be appended."""

    event_id: uuid.UUID
    type: str
    data: bytes
    metadata: bytes

    @property
    def size(self) -> int:
        """Bytes that count against the store's limits: data, metadata and twice the type, as EventStoreDB counts."""
        return len(self.data) + len(self.metadata) + 2 * len(self.type)


class RecordedEvent(NamedTuple):
    """An event as the store gives it back.

    `recorded_at` is the store's own time, UTC; the time that replay reads travels in the metadata.
    """

    event_id: uuid.UUID
    type: str
    data: bytes
    metadata: bytes
    stream: StreamName
    revision: int
    position: Position
    recorded_at: datetime


class Appended(NamedTuple):
    """The answer to an append.

    Attributes:
        revision: Of the last event written; for an empty batch the stream's head, -1 if there is none.
        position: Of the last event written; for an empty batch the store's end.
    """

    revision: int
    position: Position


class Checkpoint(NamedTuple):
    """Everything up to `position` was delivered or does not match; a restart may begin after it."""

    position: Position


class CaughtUp(NamedTuple):
    """The subscription has delivered everything that was stored and is now live."""


class FellBehind(NamedTuple):
    """The subscriber was too slow for live delivery; it reads from the store again until `CaughtUp`."""


SubscriptionMessage: TypeAlias = RecordedEvent | Checkpoint | CaughtUp | FellBehind


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """What the store accepts, in bytes, counted as `NewEvent.size` counts, and how it hands it on.

    Attributes:
        cuts_appends: A live subscription may give the events of one append in more than one batch.
    """

    max_event_bytes: int
    max_append_bytes: int
    cuts_appends: bool = False


@dataclass(frozen=True, slots=True)
class StreamMetadata:
    """Limits on what a read of a stream gives; what they hide is reclaimed by compaction.

    Attributes:
        max_count: Only the newest so many events are read; at least 1.
        max_age: Only events younger than this are read; longer than nothing, and at most 10,675,199 days.
        truncate_before: Only events from this revision on are read; below 2**63 - 1.
    """

    max_count: int | None = None
    max_age: timedelta | None = None
    truncate_before: int | None = None


class EventReader(Protocol):
    """What replay, projections and queries get."""

    def read(
        self,
        stream: StreamName,
        *,
        from_revision: int | None = None,
        backwards: bool = False,
        limit: int | None = None,
    ) -> AsyncIterator[RecordedEvent]:
        """Yield the stream's events in order; an unknown or deleted stream yields nothing.

        Args:
            stream: Whose events.
            from_revision: First revision to give, inclusive. Default: the first, backwards the last.
            backwards: Newest first.
            limit: At most so many; none with 0 or less.

        Reads in pages, in constant memory.

        Raises:
            InvalidArgumentError: No stream can have this name, or an argument is no number.
            StoreUnavailableError: The store is away; what was yielded is right.
            StoreClosedError: The store was closed.
        """
        ...

    def read_all(
        self,
        *,
        from_position: Position = START,
        prefix: str = "",
        backwards: bool = False,
        limit: int | None = None,
    ) -> AsyncIterator[RecordedEvent]:
        """Yield the events of every stream whose name begins with `prefix`, in the store's order.

        Args:
            from_position: Give what lies after it, exclusive; backwards: what lies before it
                (`START` then means the end).
            prefix: Filtered in the store. Empty for all.
            backwards: Newest first.
            limit: At most so many; none with 0 or less.

        Raises:
            InvalidArgumentError: `from_position` is no position, `prefix` cannot begin a name, or
                `limit` is no number.
            StoreUnavailableError, StoreClosedError: As with `read`.
        """
        ...

    async def head(self, stream: StreamName) -> int:
        """Return the revision of the stream's last event, -1 if it has none or was deleted."""
        ...

    async def end_position(self) -> Position:
        """Return the position of the last event in the store, `START` if it is empty."""
        ...


class EventWriter(Protocol):
    """What the repository gets, and nobody else."""

    @property
    def limits(self) -> StoreLimits:
        """What the store accepts."""
        ...

    async def append(
        self, stream: StreamName, events: Sequence[NewEvent], expected: ExpectedRevision
    ) -> Appended:
        """Append all of `events`, or none.

        The same events (same ids, in order) appended again at the same place answer as the first time
        and write nothing. An empty batch at the right head is fine.

        Cancelling the call never tears a batch: it is there whole, or not at all.

        Raises:
            ConcurrencyConflictError: `expected` does not hold; nothing was written.
            InvalidArgumentError: `expected` is none, or the name of the stream or of a type cannot be;
                nothing was written.
            AppendTooLargeError: Over `limits`; nothing was written.
            StreamDeletedError: EXISTS on a deleted stream; nothing was written.
            StoreUnavailableError: The store is away or cannot write; `outcome_unknown` says whether
                the batch may be there. Repeat with the same ids.
            StoreClosedError: The store was closed; nothing was written.
        """
        ...

    def submit(
        self, stream: StreamName, events: Sequence[NewEvent], expected: ExpectedRevision
    ) -> "asyncio.Future[Appended]":
        """Begin an append and return the future of its answer: `append` without giving way to anybody.

        Appends are made in the order of the calls. Cancelling the future does not take the append back.

        Raises:
            InvalidArgumentError, AppendTooLargeError, StoreClosedError: At once, or through the future, like every other error
                of `append`.
        """
        ...


class Subscription(Protocol):
    """An open catch-up subscription: an async iterator of messages, to be closed by its owner."""

    def __aiter__(self) -> AsyncIterator[SubscriptionMessage]:
        """Iterate; one iterator at a time."""
        ...

    async def __anext__(self) -> SubscriptionMessage:
        """Return the next message; ends (StopAsyncIteration) only when closed.

        Raises:
            SubscriptionDroppedError: It cannot go on; resume after the last handled position.
            StoreUnavailableError: The store is away; resume likewise.
        """
        ...

    async def next_batch(self) -> Sequence[SubscriptionMessage]:
        """Return all messages that are ready, at least one, waiting for it; empty only when closed.

        What projections use: one await for many events.
        """
        ...

    async def aclose(self) -> None:
        """End it and free what it holds. Closing twice is fine."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class EventSubscriber(Protocol):
    """What the engine and the projections learn everything from."""

    def subscribe_all(self, *, from_position: Position = START, prefix: str = "") -> Subscription:
        """Subscribe to the streams that begin with `prefix`: what lies after `from_position`, then live.

        Never a gap, never a repeat. `Checkpoint`s come also where nothing matches; `CaughtUp` comes
        when all that was stored is delivered, at once on an empty store.
        """
        ...

    def subscribe(self, stream: StreamName, *, from_revision: int = 0) -> Subscription:
        """Subscribe to one stream, from `from_revision` (inclusive) on; the same promises."""
        ...


class ConsumerStrategy(enum.Enum):
    """How a consumer group shares events among its consumers."""

    ROUND_ROBIN = "round_robin"
    PINNED = "pinned"
    """One stream's events go to one consumer while it lives."""


@dataclass(frozen=True, slots=True)
class ConsumerGroupSettings:
    """How a consumer group delivers.

    Attributes:
        prefix: Streams whose name begins so.
        strategy: How events are shared.
        from_position: Where it begins, exclusive.
        message_timeout: Unanswered for so long, a delivery is made again. From a millisecond to 24 days.
        max_retries: Delivered again so often; then the event is parked. From 0 to 2**31 - 1.
        buffer_size: At most so many unanswered deliveries per consumer. From 1 to 2**30 - 1.
    """

    prefix: str = ""
    strategy: ConsumerStrategy = ConsumerStrategy.ROUND_ROBIN
    from_position: Position = START
    message_timeout: timedelta = timedelta(seconds=30)
    max_retries: int = 10
    buffer_size: int = 64


@dataclass(frozen=True, slots=True)
class ConsumerGroupChanges:
    """What is to be different in how a consumer group delivers; None leaves a setting as it is.

    The attributes are those of `ConsumerGroupSettings`. Which events a group gets, its prefix, is decided
    when it is created.
    """

    strategy: ConsumerStrategy | None = None
    message_timeout: timedelta | None = None
    max_retries: int | None = None
    buffer_size: int | None = None

    def applied_to(self, settings: ConsumerGroupSettings) -> ConsumerGroupSettings:
        """Return `settings` with these changes."""
        named = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(
            settings, **{name: value for name, value in named.items() if value is not None}
        )


class Delivery(NamedTuple):
    """One event handed to one consumer; `attempt` counts from 1."""

    event: RecordedEvent
    attempt: int


NackAction: TypeAlias = Literal["retry", "park", "skip"]


class Consumer(Protocol):
    """One member of a consumer group: an async iterator of deliveries that it must answer."""

    def __aiter__(self) -> AsyncIterator[Delivery]:
        """Iterate."""
        ...

    async def __anext__(self) -> Delivery:
        """Return the next delivery; ends only when closed."""
        ...

    async def ack(self, delivery: Delivery) -> None:
        """Say that the event was handled. Twice is fine."""
        ...

    async def nack(self, delivery: Delivery, action: NackAction = "retry") -> None:
        """Say that it was not: deliver again, park it, or skip it."""
        ...

    async def aclose(self) -> None:
        """Leave the group; unanswered deliveries go to the others."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class CompetingConsumers(Protocol):
    """Persistent subscriptions: the store remembers what a group has handled; at least once."""

    async def create_consumer_group(
        self, name: str, settings: ConsumerGroupSettings | None = None
    ) -> None:
        """Create a group.

        Raises:
            ConsumerGroupExistsError: There is one of this name.
            InvalidArgumentError: The name or a setting makes no sense; there is no group.
        """
        ...

    async def update_consumer_group(self, name: str, changes: ConsumerGroupChanges) -> None:
        """Change how a group delivers, for those who are its members too.

        Its place is kept, and what is parked stays parked. What consumers hold unanswered at this moment
        may come again at once, from attempt 1, and so may what was answered just before: a server drops
        the connections of a group that it changes, and its consumers join again by themselves.

        Raises:
            ConsumerGroupNotFoundError: There is none.
            InvalidArgumentError: A setting makes no sense; nothing was changed.
        """
        ...

    async def delete_consumer_group(self, name: str) -> None:
        """Delete a group and what it remembers.

        Raises:
            ConsumerGroupNotFoundError: There is none.
        """
        ...

    async def replay_parked(self, name: str) -> int:
        """Deliver the parked events again; return how many.

        Raises:
            ConsumerGroupNotFoundError: There is none.
        """
        ...

    def consume(self, name: str) -> Consumer:
        """Join a group; an unknown one is `ConsumerGroupNotFoundError` at the first delivery."""
        ...


class EventStore(EventReader, EventWriter, EventSubscriber, CompetingConsumers, Protocol):
    """The whole port."""

    async def metadata(self, stream: StreamName) -> StreamMetadata:
        """Return the stream's metadata; without any, the empty one."""
        ...

    async def set_metadata(self, stream: StreamName, metadata: StreamMetadata) -> None:
        """Replace the stream's metadata; the stream need not exist.

        Raises:
            InvalidArgumentError: A limit is out of its bounds; nothing changed.
        """
        ...

    async def delete(self, stream: StreamName, expected: ExpectedRevision) -> None:
        """Delete the stream softly: it reads as unknown, and may be written again; revisions go on.

        Raises:
            StreamDeletedError: EXISTS, and the stream is deleted already; nothing changed.
            ConcurrencyConflictError: `expected` does not hold; nothing changed.
            InvalidArgumentError: `expected` is none; nothing changed.
        """
        ...

    async def health(self) -> None:
        """Return if the store answers.

        Raises:
            StoreError: It does not; says why.
        """
        ...

    async def aclose(self) -> None:
        """Finish what was accepted, then close. Afterwards every call is `StoreClosedError`; twice is fine."""
        ...

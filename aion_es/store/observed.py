"""Watches a store at work: an OpenTelemetry span for every call, the same for every store.

What is to be told of a store's calls is told here, and nowhere in the adapters. Where the program has no
OpenTelemetry SDK no store is wrapped, so it costs nothing.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Final, Self

from opentelemetry.trace import Span

from aion_es.ids import StreamName
from aion_es.store.closing import ClosesOnExit
from aion_es.store.port import (
    START,
    Appended,
    CaughtUp,
    Consumer,
    ConsumerGroupChanges,
    ConsumerGroupSettings,
    Delivery,
    EventStore,
    ExpectedRevision,
    FellBehind,
    NackAction,
    NewEvent,
    Position,
    RecordedEvent,
    StoreLimits,
    StreamMetadata,
    Subscription,
    SubscriptionMessage,
)
from aion_es.telemetry import Attributes, begin_call, calling, end_call, is_recording

STREAM: Final = "aion.stream"
PREFIX: Final = "aion.prefix"
GROUP: Final = "aion.consumer_group"
EVENTS: Final = "aion.events"
REVISION: Final = "aion.revision"
ATTEMPT: Final = "aion.attempt"
ACTION: Final = "aion.action"
BATCH_SIZE: Final = "db.operation.batch.size"


def observed(store: EventStore) -> EventStore:
    """Return `store` with a span for every call; as it is if nobody records, or if it has them already."""
    if isinstance(store, ObservedEventStore) or not is_recording():
        return store
    return ObservedEventStore(store)


def unobserved(store: EventStore) -> EventStore:
    """Return the store itself, for who looks at it so often that spans of that would only be in the way."""
    return store.inner if isinstance(store, ObservedEventStore) else store


class ObservedEventStore:
    """Passes everything on to `inner`, each call in a span `aion.store.OPERATION`. An `EventStore`.

    Attributes say of which system (`db.system.name`: sqlite, eventstoredb, memory), which stream or prefix
    or consumer group, and how many events. Positions, health, limits and closing are not worth a span.

    - A read's span lasts as long as the reader takes, pauses of its own included.
    - A subscription has one from its beginning until it has caught up, and another each time that it falls
      behind, as when its connection was lost: what it takes to be live again.
    - A consumer has one until its first delivery, and one for each answer.

    Attributes:
        inner: The store itself.
    """

    def __init__(self, inner: EventStore) -> None:
        self.inner = inner
        self._spans = _Spans(inner)

    # ------------------------------------------------------------------------------- writing

    @property
    def limits(self) -> StoreLimits:
        """See `EventWriter`."""
        return self.inner.limits

    async def append(
        self, stream: StreamName, events: Sequence[NewEvent], expected: ExpectedRevision
    ) -> Appended:
        """See `EventWriter`."""
        with self._spans.calling("append", {STREAM: stream, BATCH_SIZE: len(events)}) as span:
            appended = await self.inner.append(stream, events, expected)
            span.set_attribute(REVISION, appended.revision)
            return appended

    def submit(
        self, stream: StreamName, events: Sequence[NewEvent], expected: ExpectedRevision
    ) -> "asyncio.Future[Appended]":
        """See `EventWriter`; the span is that of `append`."""
        span = self._spans.begin("append", {STREAM: stream, BATCH_SIZE: len(events)})
        try:
            answer = self.inner.submit(stream, events, expected)
        except BaseException as error:
            end_call(span, error)
            raise
        answer.add_done_callback(partial(_end_append, span))
        return answer

    async def delete(self, stream: StreamName, expected: ExpectedRevision) -> None:
        """See `EventStore`."""
        with self._spans.calling("delete", {STREAM: stream}):
            await self.inner.delete(stream, expected)

    async def metadata(self, stream: StreamName) -> StreamMetadata:
        """See `EventStore`."""
        with self._spans.calling("metadata", {STREAM: stream}):
            return await self.inner.metadata(stream)

    async def set_metadata(self, stream: StreamName, metadata: StreamMetadata) -> None:
        """See `EventStore`."""
        with self._spans.calling("set_metadata", {STREAM: stream}):
            await self.inner.set_metadata(stream, metadata)

    # ------------------------------------------------------------------------------- reading

    def read(
        self,
        stream: StreamName,
        *,
        from_revision: int | None = None,
        backwards: bool = False,
        limit: int | None = None,
    ) -> AsyncIterator[RecordedEvent]:
        """See `EventReader`."""
        events = self.inner.read(
            stream, from_revision=from_revision, backwards=backwards, limit=limit
        )
        return self._reading("read", {STREAM: stream}, events)

    def read_all(
        self,
        *,
        from_position: Position = START,
        prefix: str = "",
        backwards: bool = False,
        limit: int | None = None,
    ) -> AsyncIterator[RecordedEvent]:
        """See `EventReader`."""
        events = self.inner.read_all(
            from_position=from_position, prefix=prefix, backwards=backwards, limit=limit
        )
        return self._reading("read_all", {PREFIX: prefix}, events)

    async def _reading(
        self, operation: str, facts: Attributes, events: AsyncIterator[RecordedEvent]
    ) -> AsyncIterator[RecordedEvent]:
        span = self._spans.begin(operation, facts)
        count = 0
        failure: BaseException | None = None
        try:
            async for event in events:
                count += 1
                yield event
        except GeneratorExit:
            raise  # the reader has enough
        except BaseException as error:
            failure = error
            raise
        finally:
            span.set_attribute(EVENTS, count)
            end_call(span, failure)
            if (close := getattr(events, "aclose", None)) is not None:
                await close()

    async def head(self, stream: StreamName) -> int:
        """See `EventReader`."""
        with self._spans.calling("head", {STREAM: stream}):
            return await self.inner.head(stream)

    async def end_position(self) -> Position:
        """See `EventReader`."""
        return await self.inner.end_position()

    # --------------------------------------------------------------------------- subscribing

    def subscribe_all(self, *, from_position: Position = START, prefix: str = "") -> Subscription:
        """See `EventSubscriber`."""
        inner = self.inner.subscribe_all(from_position=from_position, prefix=prefix)
        return _ObservedSubscription(inner, self._spans, {PREFIX: prefix})

    def subscribe(self, stream: StreamName, *, from_revision: int = 0) -> Subscription:
        """See `EventSubscriber`."""
        inner = self.inner.subscribe(stream, from_revision=from_revision)
        return _ObservedSubscription(inner, self._spans, {STREAM: stream})

    async def create_consumer_group(
        self, name: str, settings: ConsumerGroupSettings | None = None
    ) -> None:
        """See `CompetingConsumers`."""
        with self._spans.calling("create_consumer_group", {GROUP: name}):
            await self.inner.create_consumer_group(name, settings)

    async def update_consumer_group(self, name: str, changes: ConsumerGroupChanges) -> None:
        """See `CompetingConsumers`."""
        with self._spans.calling("update_consumer_group", {GROUP: name}):
            await self.inner.update_consumer_group(name, changes)

    async def delete_consumer_group(self, name: str) -> None:
        """See `CompetingConsumers`."""
        with self._spans.calling("delete_consumer_group", {GROUP: name}):
            await self.inner.delete_consumer_group(name)

    async def replay_parked(self, name: str) -> int:
        """See `CompetingConsumers`."""
        with self._spans.calling("replay_parked", {GROUP: name}) as span:
            count = await self.inner.replay_parked(name)
            span.set_attribute(EVENTS, count)
            return count

    def consume(self, name: str) -> Consumer:
        """See `CompetingConsumers`."""
        return _ObservedConsumer(self.inner.consume(name), self._spans, name)

    # -------------------------------------------------------------------------------- upkeep

    async def health(self) -> None:
        """See `EventStore`."""
        await self.inner.health()

    async def aclose(self) -> None:
        """See `EventStore`; closes the store that is wrapped."""
        await self.inner.aclose()


class _Spans:
    """Names spans, and says which system they are about."""

    def __init__(self, store: EventStore) -> None:
        # SQLiteEventStore is "sqlite", EventStoreDBStore "eventstoredb".
        kind = type(store).__name__.removesuffix("Store").removesuffix("Event")
        self._system = kind.lower()

    def calling(self, operation: str, facts: Attributes) -> AbstractContextManager[Span]:
        """Run a block in a span."""
        return calling(f"aion.store.{operation}", self._attributes(operation, facts))

    def begin(self, operation: str, facts: Attributes) -> Span:
        """Begin a span that `end_call` ends."""
        return begin_call(f"aion.store.{operation}", self._attributes(operation, facts))

    def _attributes(self, operation: str, facts: Attributes) -> dict[str, int | str]:
        return {"db.system.name": self._system, "db.operation.name": operation, **facts}


class _ObservedSubscription(ClosesOnExit):
    def __init__(self, inner: Subscription, spans: _Spans, facts: Attributes) -> None:
        self._inner = inner
        self._spans = spans
        self._facts = facts
        self._events = 0
        self._span: Span | None = spans.begin("subscribe", facts)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SubscriptionMessage:
        try:
            message = await anext(self._inner)
        except Exception as error:
            self._end(None if isinstance(error, StopAsyncIteration) else error)
            raise
        self._note(message)
        return message

    async def next_batch(self) -> Sequence[SubscriptionMessage]:
        try:
            batch = await self._inner.next_batch()
        except Exception as error:
            self._end(error)
            raise
        for message in batch:
            self._note(message)
        return batch

    async def aclose(self) -> None:
        self._end()
        await self._inner.aclose()

    def _note(self, message: SubscriptionMessage) -> None:
        if isinstance(message, RecordedEvent):
            self._events += 1
        elif isinstance(message, CaughtUp):
            self._end()
        elif isinstance(message, FellBehind) and self._span is None:
            self._events = 0
            self._span = self._spans.begin("subscribe", self._facts)

    def _end(self, error: Exception | None = None) -> None:
        span, self._span = self._span, None
        if span is not None:
            span.set_attribute(EVENTS, self._events)
            end_call(span, error)


class _ObservedConsumer(ClosesOnExit):
    def __init__(self, inner: Consumer, spans: _Spans, name: str) -> None:
        self._inner = inner
        self._spans = spans
        self._name = name
        self._joining: Span | None = spans.begin("consume", {GROUP: name})

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delivery:
        try:
            delivery = await anext(self._inner)
        except Exception as error:
            self._joined(None if isinstance(error, StopAsyncIteration) else error)
            raise
        self._joined()
        return delivery

    async def ack(self, delivery: Delivery) -> None:
        with self._spans.calling("ack", self._facts_of(delivery)):
            await self._inner.ack(delivery)

    async def nack(self, delivery: Delivery, action: NackAction = "retry") -> None:
        with self._spans.calling("nack", self._facts_of(delivery) | {ACTION: action}):
            await self._inner.nack(delivery, action)

    async def aclose(self) -> None:
        self._joined()
        await self._inner.aclose()

    def _facts_of(self, delivery: Delivery) -> dict[str, int | str]:
        event = delivery.event
        return {
            GROUP: self._name,
            STREAM: event.stream,
            REVISION: event.revision,
            ATTEMPT: delivery.attempt,
        }

    def _joined(self, error: Exception | None = None) -> None:
        span, self._joining = self._joining, None
        if span is not None:
            end_call(span, error)


def _end_append(span: Span, answer: "asyncio.Future[Appended]") -> None:
    if answer.cancelled():
        end_call(span, asyncio.CancelledError())
        return
    error = answer.exception()
    if error is None:
        span.set_attribute(REVISION, answer.result().revision)
    end_call(span, error)

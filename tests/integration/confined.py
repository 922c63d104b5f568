"""A corner of a shared store that looks like a store of its own, so that one server serves a whole suite."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import Self

from aion_es.errors import (
    ConcurrencyConflictError,
    ConsumerGroupExistsError,
    ConsumerGroupNotFoundError,
    StoreError,
    StreamDeletedError,
)
from aion_es.ids import StreamName
from aion_es.store.eventstoredb import EventStoreDBStore
from aion_es.store.port import (
    START,
    Appended,
    Consumer,
    ConsumerGroupChanges,
    ConsumerGroupSettings,
    Delivery,
    ExpectedRevision,
    NackAction,
    NewEvent,
    Position,
    RecordedEvent,
    StoreLimits,
    StreamMetadata,
    Subscription,
    SubscriptionMessage,
)


class Confined:
    """Implements `EventStore` on the streams and groups of another whose names begin with `corner`."""

    def __init__(self, inner: EventStoreDBStore, corner: str) -> None:
        self.inner = inner
        self.corner = corner

    def _in(self, name: str) -> StreamName:
        return StreamName(self.corner + name)

    def _out(self, event: RecordedEvent) -> RecordedEvent:
        return event._replace(stream=StreamName(event.stream.removeprefix(self.corner)))

    def _told(self, error: StoreError) -> StoreError:
        """Return the error as a store of its own would raise it."""
        match error:
            case ConcurrencyConflictError():
                stream = error.stream.removeprefix(self.corner)
                return ConcurrencyConflictError(stream, error.expected, error.actual)
            case StreamDeletedError():
                return StreamDeletedError(error.stream.removeprefix(self.corner))
            case ConsumerGroupExistsError() | ConsumerGroupNotFoundError():
                return type(error)(error.name.removeprefix(self.corner))
            case _:
                return error

    @property
    def limits(self) -> StoreLimits:
        return self.inner.limits

    async def append(
        self, stream: StreamName, events: Sequence[NewEvent], expected: ExpectedRevision
    ) -> Appended:
        try:
            answer = await self.inner.append(self._in(stream), events, expected)
        except StoreError as error:
            raise self._told(error) from error
        # An empty batch is answered with the end of the store.
        return answer if events else Appended(answer.revision, await self.end_position())

    def submit(
        self, stream: StreamName, events: Sequence[NewEvent], expected: ExpectedRevision
    ) -> "asyncio.Future[Appended]":
        return self.inner.submit(self._in(stream), events, expected)

    async def delete(self, stream: StreamName, expected: ExpectedRevision) -> None:
        try:
            await self.inner.delete(self._in(stream), expected)
        except StoreError as error:
            raise self._told(error) from error

    async def metadata(self, stream: StreamName) -> StreamMetadata:
        return await self.inner.metadata(self._in(stream))

    async def set_metadata(self, stream: StreamName, metadata: StreamMetadata) -> None:
        await self.inner.set_metadata(self._in(stream), metadata)

    async def read(
        self,
        stream: StreamName,
        *,
        from_revision: int | None = None,
        backwards: bool = False,
        limit: int | None = None,
    ) -> AsyncIterator[RecordedEvent]:
        reading = self.inner.read(
            self._in(stream), from_revision=from_revision, backwards=backwards, limit=limit
        )
        async for event in reading:
            yield self._out(event)

    async def read_all(
        self,
        *,
        from_position: Position = START,
        prefix: str = "",
        backwards: bool = False,
        limit: int | None = None,
    ) -> AsyncIterator[RecordedEvent]:
        reading = self.inner.read_all(
            from_position=from_position, prefix=self._in(prefix), backwards=backwards, limit=limit
        )
        async for event in reading:
            yield self._out(event)

    async def head(self, stream: StreamName) -> int:
        return await self.inner.head(self._in(stream))

    async def end_position(self) -> Position:
        await self.inner.end_position()  # so that quiet subscriptions look
        async for event in self.read_all(backwards=True, limit=1):
            return event.position
        return START

    def subscribe_all(self, *, from_position: Position = START, prefix: str = "") -> "_Follower":
        inner = self.inner.subscribe_all(from_position=from_position, prefix=self._in(prefix))
        return _Follower(inner, self._out)

    def subscribe(self, stream: StreamName, *, from_revision: int = 0) -> "_Follower":
        inner = self.inner.subscribe(self._in(stream), from_revision=from_revision)
        return _Follower(inner, self._out)

    async def create_consumer_group(
        self, name: str, settings: ConsumerGroupSettings | None = None
    ) -> None:
        given = settings or ConsumerGroupSettings()
        wanted = ConsumerGroupSettings(
            self._in(given.prefix),
            given.strategy,
            given.from_position,
            given.message_timeout,
            given.max_retries,
            given.buffer_size,
        )
        try:
            await self.inner.create_consumer_group(self._in(name), wanted)
        except StoreError as error:
            raise self._told(error) from error

    async def update_consumer_group(self, name: str, changes: ConsumerGroupChanges) -> None:
        try:
            await self.inner.update_consumer_group(self._in(name), changes)
        except StoreError as error:
            raise self._told(error) from error

    async def delete_consumer_group(self, name: str) -> None:
        try:
            await self.inner.delete_consumer_group(self._in(name))
        except StoreError as error:
            raise self._told(error) from error

    async def replay_parked(self, name: str) -> int:
        try:
            return await self.inner.replay_parked(self._in(name))
        except StoreError as error:
            raise self._told(error) from error

    def consume(self, name: str) -> "_Member":
        return _Member(self.inner.consume(self._in(name)), self._out, self._told)

    async def health(self) -> None:
        await self.inner.health()

    async def aclose(self) -> None:
        await self.inner.aclose()


class _Follower:
    def __init__(self, inner: Subscription, out: Callable[[RecordedEvent], RecordedEvent]) -> None:
        self._inner = inner
        self._out = out

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SubscriptionMessage:
        return self._shown(await anext(self._inner))

    async def next_batch(self) -> Sequence[SubscriptionMessage]:
        return [self._shown(message) for message in await self._inner.next_batch()]

    def _shown(self, message: SubscriptionMessage) -> SubscriptionMessage:
        return self._out(message) if isinstance(message, RecordedEvent) else message

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


class _Member:
    def __init__(
        self,
        inner: Consumer,
        out: Callable[[RecordedEvent], RecordedEvent],
        told: Callable[[StoreError], StoreError],
    ) -> None:
        self._inner = inner
        self._out = out
        self._told = told

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delivery:
        try:
            delivery = await anext(self._inner)
        except StoreError as error:
            raise self._told(error) from error
        return delivery._replace(event=self._out(delivery.event))

    async def ack(self, delivery: Delivery) -> None:
        await self._inner.ack(delivery)  # it goes by the event's id

    async def nack(self, delivery: Delivery, action: NackAction = "retry") -> None:
        await self._inner.nack(delivery, action)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

"""What the parts of the store contract share: the hooks a store gives, events to append, and a watched subscription."""

# ruff: noqa: S101 - a contract suite asserts; it runs under pytest only

import asyncio
import uuid
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Any, ClassVar, TypeVar

import pytest
import pytest_asyncio

from aion_es.errors import ConsumerGroupNotFoundError
from aion_es.ids import StreamName, UUIDv7Source
from aion_es.store.port import (
    START,
    CaughtUp,
    Checkpoint,
    Consumer,
    ConsumerGroupSettings,
    Delivery,
    EventStore,
    FellBehind,
    NewEvent,
    Position,
    RecordedEvent,
    Subscription,
    SubscriptionMessage,
)

T = TypeVar("T")

STREAM = StreamName("orders-1")
OTHER = StreamName("invoices-1")


class StoreContractBase:
    """The hooks of the suite.

    Attributes:
        patience: Seconds that anything may take before its test fails.
        examples: How many interleavings hypothesis tries, each on a fresh store.
        checkpoint_every: At most so many events that do not match pass a subscription without a
            `Checkpoint`.
        message_timeout: The shortest time-out of a consumer group that the store keeps precisely.
        not_ours: Parts of messages of callbacks that failed unseen through no fault of the store, in a library that
            it uses.
    """

    patience: ClassVar[float] = 15.0
    examples: ClassVar[int] = 25
    checkpoint_every: ClassVar[int] = 2_000
    message_timeout: ClassVar[timedelta] = timedelta(milliseconds=150)
    not_ours: ClassVar[Sequence[str]] = ()

    def open_store(self) -> AbstractAsyncContextManager[EventStore]:
        """Return a context that opens a new, empty store and closes it; every store has to say how."""
        raise NotImplementedError(f"{type(self).__name__} must define open_store()")

    async def reopen(self, store: EventStore) -> EventStore | None:  # noqa: ARG002 - for who overrides it
        """Close `store` and open what it kept once more; None (the default) if it keeps nothing.

        The suite closes what is returned.
        """
        return None

    @pytest_asyncio.fixture
    async def store(self) -> AsyncIterator[EventStore]:
        """Yield a new, empty store; fail the test afterwards if a callback of the store's failed unseen."""
        unseen: list[dict[str, Any]] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: unseen.append(context))
        async with self.open_store() as store:
            yield store
        loop.set_exception_handler(None)
        assert [one for one in unseen if not self._is_foreign(one)] == []

    def _is_foreign(self, context: dict[str, Any]) -> bool:
        return any(part in context.get("message", "") for part in self.not_ours)

    async def reopened(self, store: EventStore) -> EventStore:
        """Return `store` closed and opened again, or skip the test where nothing is kept."""
        again = await self.reopen(store)
        if again is None:
            pytest.skip(f"{type(self).__name__}: the store keeps nothing once it is closed")
        return again

    def patiently(self) -> asyncio.Timeout:
        """Return the time limit for whatever a test waits for."""
        return asyncio.timeout(self.patience)

    def watch(self, subscription: Subscription, *, one_by_one: bool = False) -> "Watch":
        """Return a reader of `subscription` that checks the grammar of its messages."""
        return Watch(subscription, self.patience, one_by_one=one_by_one)

    async def take(self, consumer: Consumer, count: int) -> list[Delivery]:
        """Return the consumer's next `count` deliveries, unanswered."""
        async with self.patiently():
            return [await anext(consumer) for _ in range(count)]

    async def handle(self, consumer: Consumer, count: int) -> list[Delivery]:
        """Take and acknowledge the next `count` deliveries, one after the other."""
        handled: list[Delivery] = []
        for _ in range(count):
            handled += await self.take(consumer, 1)
            await consumer.ack(handled[-1])
        return handled

    async def nothing_comes(self, consumer: Consumer) -> None:
        """Wait for longer than a redelivery takes; fails if there is one."""
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(outcome(consumer))
            await asyncio.wait({waiting}, timeout=3 * self.message_timeout.total_seconds())
            came = waiting.result() if waiting.done() else None
            waiting.cancel()
        assert came is None

    def impatient(self) -> ConsumerGroupSettings:
        """Return the settings of a group that delivers again as soon as the store can."""
        return ConsumerGroupSettings(message_timeout=self.message_timeout)


class Watch:
    """Reads a subscription to its end or to a condition, and refuses what no subscription may send.

    Positions rise; a checkpoint never lies before what was delivered nor after what comes; `CaughtUp`
    and `FellBehind` alternate, beginning with `CaughtUp`.

    Attributes:
        events: Every event delivered so far.
        checkpoints: Every checkpoint's position so far.
        caught_up: What the last `CaughtUp` or `FellBehind` said.
    """

    def __init__(self, subscription: Subscription, patience: float, *, one_by_one: bool) -> None:
        self.events: list[RecordedEvent] = []
        self.checkpoints: list[Position] = []
        self.caught_up = False
        self._subscription = subscription
        self._patience = patience
        self._one_by_one = one_by_one
        self._reached = START

    async def until_caught_up(self) -> list[RecordedEvent]:
        """Read on until the subscription is live; return every event so far."""
        async with asyncio.timeout(self._patience):
            while not self.caught_up:
                await self.read_once()
        return self.events

    async def until_events(self, count: int) -> list[RecordedEvent]:
        """Read on until `count` events came in all; return them, and what came with the last."""
        async with asyncio.timeout(self._patience):
            while len(self.events) < count:
                await self.read_once()
        return self.events

    async def until_checkpoint_after(self, position: Position) -> None:
        """Read on until a checkpoint lies after `position`."""
        async with asyncio.timeout(self._patience):
            while not self.checkpoints or self.checkpoints[-1] <= position:
                await self.read_once()

    async def read_once(self) -> None:
        """Wait for what is ready, or for one message, and take it in."""
        if self._one_by_one:
            messages = [await anext(self._subscription)]
        else:
            messages = list(await self._subscription.next_batch())
            assert messages, "an open subscription gave an empty batch"
        for message in messages:
            self._take_in(message)

    def _take_in(self, message: SubscriptionMessage) -> None:
        match message:
            case RecordedEvent():
                assert message.position > self._reached, "an event came twice, or out of order"
                self._reached = message.position
                self.events.append(message)
            case Checkpoint(position):
                assert position >= self._reached, "a checkpoint lies before what was delivered"
                self._reached = position
                self.checkpoints.append(position)
            case CaughtUp():
                assert not self.caught_up, "caught up twice in a row"
                self.caught_up = True
            case FellBehind():
                assert self.caught_up, "fell behind without having been live"
                self.caught_up = False


_IDS = UUIDv7Source()


def an_event(
    data: bytes | str = b"", *, type: str = "SomethingHappened", metadata: bytes = b"{}"
) -> NewEvent:
    """Return an event with an id of its own."""
    body = data.encode() if isinstance(data, str) else data
    return NewEvent(uuid.UUID(_IDS.new()), type, body, metadata)


def some_events(count: int, label: str = "event") -> list[NewEvent]:
    """Return `count` events that can be told apart."""
    return [an_event(f"{label} {number}") for number in range(count)]


def as_appended(events: Iterable[RecordedEvent]) -> list[NewEvent]:
    """Return the part of recorded events that their writer gave."""
    return [NewEvent(event.event_id, event.type, event.data, event.metadata) for event in events]


def places(events: Iterable[RecordedEvent]) -> list[tuple[StreamName, int]]:
    """Return stream and revision of each."""
    return [(event.stream, event.revision) for event in events]


async def collect(items: AsyncIterable[T]) -> list[T]:
    """Return everything that an asynchronous iterator gives."""
    return [item async for item in items]


async def outcome(consumer: Consumer) -> Delivery | ConsumerGroupNotFoundError:
    """Return the consumer's next delivery, or that its group is gone."""
    try:
        return await anext(consumer)
    except ConsumerGroupNotFoundError as error:
        return error


async def turns(count: int) -> None:
    """Let the event loop make `count` turns."""
    for _ in range(count):
        await asyncio.sleep(0)

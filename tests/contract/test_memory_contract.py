"""The memory store keeps the contract, and ages by its clock."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from aion_es.ids import StreamName
from aion_es.store.memory import MemoryEventStore
from aion_es.store.port import ANY, ConsumerGroupSettings, Delivery, EventStore, StreamMetadata
from aion_es.testing import StoreContract
from aion_es.testing.store_contract.base import collect, some_events


class TestMemoryEventStore(StoreContract):
    @asynccontextmanager
    async def open_store(self) -> AsyncIterator[EventStore]:
        store = MemoryEventStore()
        yield store
        await store.aclose()


class HandClock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time


async def test_events_are_recorded_at_the_time_of_the_clock() -> None:
    clock = HandClock()
    store = MemoryEventStore(clock)
    await store.append(StreamName("s"), some_events(1), ANY)
    clock.time += timedelta(days=1)
    await store.append(StreamName("s"), some_events(1), ANY)
    times = [event.recorded_at for event in await collect(store.read_all())]
    assert times == [clock.time - timedelta(days=1), clock.time]


async def test_an_event_is_hidden_at_max_age_and_not_before() -> None:
    clock = HandClock()
    store = MemoryEventStore(clock)
    stream = StreamName("s")
    await store.set_metadata(stream, StreamMetadata(max_age=timedelta(seconds=10)))
    for _ in range(3):
        await store.append(stream, some_events(1), ANY)
        clock.time += timedelta(seconds=4)
    # They are now 12, 8 and 4 seconds old.
    assert [event.revision for event in await collect(store.read(stream))] == [1, 2]
    clock.time += timedelta(seconds=2) - timedelta(microseconds=1)
    assert [event.revision for event in await collect(store.read(stream))] == [1, 2]
    clock.time += timedelta(microseconds=1)
    assert [event.revision for event in await collect(store.read(stream))] == [2]


async def test_a_refusal_after_the_time_out_does_not_touch_the_next_attempt() -> None:
    store = MemoryEventStore()
    at_once = ConsumerGroupSettings(message_timeout=timedelta(milliseconds=10), max_retries=1)
    await store.create_consumer_group("group", at_once)
    await store.append(StreamName("s"), some_events(1), ANY)
    async with store.consume("group") as consumer:
        first = await anext(consumer)
        second = await anext(consumer)
        assert second == Delivery(first.event, 2)
        await consumer.nack(first, "park")
        await consumer.ack(second)
    assert await store.replay_parked("group") == 0

"""A subscription and a consumer group of EventStoreDB over a network that cuts, stalls and half-closes."""

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import NamedTuple

import pytest

from aion_es.ids import StreamName
from aion_es.store.eventstoredb import EventStoreDBStore
from aion_es.store.port import (
    ANY,
    Consumer,
    ConsumerGroupSettings,
    ConsumerStrategy,
    RecordedEvent,
    Subscription,
)
from aion_es.testing.store_contract.base import collect, some_events
from tests.e2e.cutting_proxy import CuttingProxy
from tests.e2e.scenario import until

pytest.importorskip("grpc", reason="no EventStoreDB client is installed: make test-clients")

from aion_es.testing.eventstoredb import LocalEventStoreDB

PREFIX = "orders-"
STREAMS = [StreamName(f"{PREFIX}{number}") for number in range(6)]
HARMS = 16
"""Each kind of harm four times."""
SOON = 20.0
GROUP = "billing"
SETTINGS = ConsumerGroupSettings(
    prefix=PREFIX,
    strategy=ConsumerStrategy.PINNED,
    message_timeout=timedelta(seconds=1),
    max_retries=50,
    buffer_size=10,
)


class BadNetwork(NamedTuple):
    """A server, reached in two ways.

    Attributes:
        direct: Past the proxy; it writes, and knows what is stored.
        proxy: Harms the connections of whoever comes by `uri`.
        uri: Of the proxy.
    """

    direct: EventStoreDBStore
    proxy: CuttingProxy
    uri: str

    async def write(self) -> int:
        """Append three events to each stream; return how many are stored in all."""
        for stream in STREAMS:
            await self.direct.append(stream, some_events(3), ANY)
        return len(await self.stored())

    async def stored(self) -> list[RecordedEvent]:
        return await collect(self.direct.read_all(prefix=PREFIX))

    async def write_and_harm(self, arrived: Callable[[int], Awaitable[None]]) -> None:
        """Write before and after each harm; `arrived` returns when so many events got through.

        A harm thus meets a connection that works, and what is written after it one that does not.
        """
        await arrived(await self.write())
        for _ in range(HARMS):
            self.proxy.harm()
            await arrived(await self.write())
        assert list(self.proxy.done.values()) == [HARMS // 4] * 4


@pytest.fixture
async def network() -> AsyncIterator[BadNetwork]:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # pytest shows it when the test fails
    server = LocalEventStoreDB()
    async with (
        server,
        await EventStoreDBStore.open(server.uri) as direct,
        CuttingProxy(server.port, seed) as proxy,
    ):
        options = "Tls=false&DefaultDeadline=1&KeepAliveInterval=500&KeepAliveTimeout=500"
        yield BadNetwork(direct, proxy, f"esdb://127.0.0.1:{proxy.port}?{options}")


async def test_a_subscription_through_it_has_no_gap_and_no_repeat(network: BadNetwork) -> None:
    received: list[RecordedEvent] = []

    async def receive(subscription: Subscription) -> None:
        while batch := await subscription.next_batch():
            received.extend(message for message in batch if isinstance(message, RecordedEvent))

    async def arrived(count: int) -> None:
        await until(lambda: len(received) >= count, seconds=SOON)

    async with (
        await EventStoreDBStore.open(network.uri) as store,
        asyncio.TaskGroup() as tasks,
        store.subscribe_all(prefix=PREFIX) as subscription,
    ):
        tasks.create_task(receive(subscription))
        await network.write_and_harm(arrived)
    assert received == await network.stored()


async def test_every_event_is_handled_by_one_of_two_consumers_through_it(
    network: BadNetwork,
) -> None:
    handled: set[uuid.UUID] = set()
    refused: set[uuid.UUID] = set()

    async def handle(consumer: Consumer) -> None:
        """Handle what is delivered; every third event, by its revision, only once it comes again."""
        async for delivery in consumer:
            event = delivery.event
            if event.revision % 3 == 0 and event.event_id not in refused:
                refused.add(event.event_id)
                await consumer.nack(delivery, "retry")
            else:
                handled.add(event.event_id)
                await consumer.ack(delivery)

    async def arrived(count: int) -> None:
        await until(lambda: len(handled) >= count, seconds=SOON)

    await network.direct.create_consumer_group(GROUP, SETTINGS)
    async with (
        await EventStoreDBStore.open(network.uri) as one,
        await EventStoreDBStore.open(network.uri) as other,
        asyncio.TaskGroup() as tasks,
        one.consume(GROUP) as of_one,
        other.consume(GROUP) as of_other,
    ):
        tasks.create_task(handle(of_one))
        tasks.create_task(handle(of_other))
        await network.write_and_harm(arrived)
    assert handled == {event.event_id for event in await network.stored()}

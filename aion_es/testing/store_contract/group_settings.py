"""The contract of a consumer group's settings: which there can be, and how they are changed."""

# ruff: noqa: S101, D102 - a contract suite asserts, and its tests are named by sentences

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from aion_es.errors import ConsumerGroupNotFoundError, InvalidArgumentError
from aion_es.ids import StreamName
from aion_es.store.port import (
    ANY,
    NO_STREAM,
    ConsumerGroupChanges,
    ConsumerGroupSettings,
    ConsumerStrategy,
    EventStore,
    Position,
)
from aion_es.testing.store_contract.base import STREAM, StoreContractBase, places, some_events

GROUP = "mailers"
SENSELESS_SETTINGS = [
    ("message_timeout", timedelta()),
    ("message_timeout", timedelta(seconds=-1)),
    ("message_timeout", timedelta(days=10_000)),
    ("message_timeout", 30),
    ("max_retries", -1),
    ("max_retries", 2**31),
    ("max_retries", "10"),
    ("buffer_size", 0),
    ("buffer_size", 2**30),
    ("buffer_size", True),
    ("strategy", "pinned"),
]


class GroupSettingsContract(StoreContractBase):
    """What settings are promised to do, from the beginning and once they were changed."""

    @pytest.mark.parametrize(
        ("argument", "value"),
        [
            *SENSELESS_SETTINGS,
            ("prefix", "half \ud800"),
            ("prefix", None),
            ("from_position", 0),
            ("from_position", Position(2**63, 2**63)),
        ],
        ids=ascii,
    )
    async def test_settings_that_no_group_can_have_are_refused_and_there_is_no_group(
        self, store: EventStore, argument: str, value: Any
    ) -> None:
        wanted: dict[str, Any] = {argument: value}
        with pytest.raises(InvalidArgumentError) as refused:
            await store.create_consumer_group(GROUP, ConsumerGroupSettings(**wanted))
        assert refused.value.argument == argument
        with pytest.raises(ConsumerGroupNotFoundError):
            await store.delete_consumer_group(GROUP)

    @pytest.mark.parametrize("name", ["", "half \ud800"], ids=["empty", "half a surrogate pair"])
    async def test_a_name_that_no_group_can_have_is_refused(
        self, store: EventStore, name: str
    ) -> None:
        with pytest.raises(InvalidArgumentError) as refused:
            await store.create_consumer_group(name)
        assert refused.value.argument == "name"

    async def test_the_largest_settings_are_fine(self, store: EventStore) -> None:
        largest = ConsumerGroupSettings(
            message_timeout=timedelta(milliseconds=2**31 - 1),
            max_retries=2**31 - 1,
            buffer_size=2**30 - 1,
        )
        await store.create_consumer_group(GROUP, largest)
        await store.append(STREAM, some_events(2), NO_STREAM)
        async with store.consume(GROUP) as consumer:
            deliveries = await self.handle(consumer, 2)
        assert places(d.event for d in deliveries) == [(STREAM, 0), (STREAM, 1)]

    # -------------------------------------------------------------- changing

    async def test_a_change_holds_for_who_is_a_member_and_leaves_the_prefix(
        self, store: EventStore
    ) -> None:
        await store.create_consumer_group(GROUP, ConsumerGroupSettings(prefix="orders_"))
        async with store.consume(GROUP) as consumer, asyncio.TaskGroup() as group:
            waiting = group.create_task(self.take(consumer, 1))
            await store.update_consumer_group(GROUP, ConsumerGroupChanges(max_retries=0))
            for name in ("orders-1", "orders_1"):
                await store.append(StreamName(name), some_events(1), NO_STREAM)
            (delivery,) = await waiting
            assert (delivery.event.stream, delivery.attempt) == ("orders_1", 1)
            await consumer.nack(delivery)
            await store.append(StreamName("orders_1"), some_events(1), 0)
            (delivery,) = await self.handle(consumer, 1)
            assert delivery.event.revision == 1
        assert await store.replay_parked(GROUP) == 1

    async def test_a_shorter_time_out_holds_for_what_is_delivered_from_then_on(
        self, store: EventStore
    ) -> None:
        await store.create_consumer_group(GROUP)
        async with store.consume(GROUP) as consumer, asyncio.TaskGroup() as group:
            waiting = group.create_task(self.take(consumer, 2))
            changes = ConsumerGroupChanges(message_timeout=self.message_timeout)
            await store.update_consumer_group(GROUP, changes)
            await store.append(STREAM, some_events(1), NO_STREAM)
            deliveries = await waiting
        assert [(d.event.revision, d.attempt) for d in deliveries] == [(0, 1), (0, 2)]

    async def test_a_larger_buffer_lets_a_member_hold_more(self, store: EventStore) -> None:
        await store.create_consumer_group(GROUP, ConsumerGroupSettings(buffer_size=1))
        async with store.consume(GROUP) as consumer, asyncio.TaskGroup() as group:
            waiting = group.create_task(self.take(consumer, 3))
            await store.update_consumer_group(GROUP, ConsumerGroupChanges(buffer_size=3))
            await store.append(STREAM, some_events(3), NO_STREAM)
            held = await waiting
        assert places(d.event for d in held) == [(STREAM, 0), (STREAM, 1), (STREAM, 2)]

    async def test_a_stream_that_is_no_longer_pinned_goes_to_whoever_is_free(
        self, store: EventStore
    ) -> None:
        settings = ConsumerGroupSettings(strategy=ConsumerStrategy.PINNED, buffer_size=1)
        await store.create_consumer_group(GROUP, settings)
        await store.append(STREAM, some_events(1), NO_STREAM)
        async with (
            store.consume(GROUP) as owner,
            store.consume(GROUP) as other,
            asyncio.TaskGroup() as group,
        ):
            await self.take(owner, 1)
            waiting = group.create_task(self.take(other, 1))
            await store.append(STREAM, some_events(1), ANY)
            await asyncio.wait({waiting}, timeout=0.05)
            assert not waiting.done()  # the owner is full, and the stream is its own
            changes = ConsumerGroupChanges(strategy=ConsumerStrategy.ROUND_ROBIN)
            await store.update_consumer_group(GROUP, changes)
            (delivery,) = await waiting
        assert delivery.event.stream == STREAM

    async def test_what_is_parked_stays_parked_when_settings_change(
        self, store: EventStore
    ) -> None:
        await store.create_consumer_group(GROUP)
        await store.append(STREAM, some_events(1), NO_STREAM)
        async with store.consume(GROUP) as consumer:
            (parked,) = await self.take(consumer, 1)
            await consumer.nack(parked, "park")
            await store.append(STREAM, some_events(1), 0)
            await self.handle(consumer, 1)
        await store.update_consumer_group(GROUP, ConsumerGroupChanges(buffer_size=2))
        assert await store.replay_parked(GROUP) == 1

    async def test_a_change_survives_a_restart(self, store: EventStore) -> None:
        await store.create_consumer_group(GROUP)
        await store.update_consumer_group(GROUP, ConsumerGroupChanges(max_retries=0))
        again = await self.reopened(store)
        try:
            await again.append(STREAM, some_events(1), NO_STREAM)
            async with again.consume(GROUP) as consumer:
                (delivery,) = await self.take(consumer, 1)
                await consumer.nack(delivery)
                await again.append(STREAM, some_events(1), 0)
                await self.handle(consumer, 1)
            assert await again.replay_parked(GROUP) == 1
        finally:
            await again.aclose()

    async def test_what_is_not_named_stays_as_it_was(self, store: EventStore) -> None:
        settings = ConsumerGroupSettings(message_timeout=self.message_timeout, max_retries=0)
        await store.create_consumer_group(GROUP, settings)
        await store.update_consumer_group(GROUP, ConsumerGroupChanges())
        await store.update_consumer_group(GROUP, ConsumerGroupChanges(buffer_size=5))
        await store.append(STREAM, some_events(1), NO_STREAM)
        async with store.consume(GROUP) as consumer:
            await self.take(consumer, 1)
            await self.nothing_comes(consumer)  # it timed out, and there are no retries
        assert await store.replay_parked(GROUP) == 1

    @pytest.mark.parametrize(("argument", "value"), SENSELESS_SETTINGS, ids=ascii)
    async def test_a_change_to_what_no_group_can_have_is_refused(
        self, store: EventStore, argument: str, value: Any
    ) -> None:
        await store.create_consumer_group(GROUP)
        wanted: dict[str, Any] = {argument: value}
        with pytest.raises(InvalidArgumentError) as refused:
            await store.update_consumer_group(GROUP, ConsumerGroupChanges(**wanted))
        assert refused.value.argument == argument

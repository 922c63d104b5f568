"""The contract of consumer groups: every event is handled at least once, by one of several consumers."""

# ruff: noqa: S101, D102 - a contract suite asserts, and its tests are named by sentences

import asyncio
from collections import defaultdict
from collections.abc import Awaitable
from contextlib import AsyncExitStack

import pytest

from aion_es.errors import ConsumerGroupExistsError, ConsumerGroupNotFoundError
from aion_es.ids import StreamName
from aion_es.store.port import (
    ANY,
    NO_STREAM,
    ConsumerGroupChanges,
    ConsumerGroupSettings,
    ConsumerStrategy,
    Delivery,
    EventStore,
    NackAction,
)
from aion_es.testing.store_contract.base import (
    OTHER,
    STREAM,
    StoreContractBase,
    as_appended,
    collect,
    outcome,
    places,
    some_events,
    turns,
)

GROUP = "mailers"


class ConsumerGroupContract(StoreContractBase):
    """What competing consumers are promised."""

    async def test_a_consumer_gets_what_was_stored_and_what_comes(self, store: EventStore) -> None:
        await store.append(STREAM, some_events(2), NO_STREAM)
        await store.create_consumer_group(GROUP)
        async with store.consume(GROUP) as consumer:
            deliveries = await self.handle(consumer, 2)
            await store.append(OTHER, some_events(2), NO_STREAM)
            deliveries += await self.handle(consumer, 2)
        assert [d.event for d in deliveries] == await collect(store.read_all())
        assert [d.attempt for d in deliveries] == [1, 1, 1, 1]

    async def test_a_group_begins_after_its_position(self, store: EventStore) -> None:
        first = await store.append(STREAM, some_events(3), NO_STREAM)
        await store.append(STREAM, some_events(2), 2)
        await store.create_consumer_group(
            GROUP, ConsumerGroupSettings(from_position=first.position)
        )
        async with store.consume(GROUP) as consumer:
            deliveries = await self.handle(consumer, 2)
        assert places(d.event for d in deliveries) == [(STREAM, 3), (STREAM, 4)]

    async def test_a_group_gets_only_streams_with_its_prefix(self, store: EventStore) -> None:
        await store.create_consumer_group(GROUP, ConsumerGroupSettings(prefix="orders_"))
        for name in ("orders-1", "orders_1", "ordersX1", "orders_2"):
            await store.append(StreamName(name), some_events(1), NO_STREAM)
        async with store.consume(GROUP) as consumer:
            deliveries = await self.handle(consumer, 2)
        assert places(d.event for d in deliveries) == [("orders_1", 0), ("orders_2", 0)]

    async def test_an_acknowledged_event_is_never_delivered_again(self, store: EventStore) -> None:
        await store.create_consumer_group(GROUP, self.impatient())
        await store.append(STREAM, some_events(3), NO_STREAM)
        async with store.consume(GROUP) as consumer:
            await self.handle(consumer, 3)
        async with store.consume(GROUP) as consumer:
            await self.nothing_comes(consumer)

    async def test_acknowledging_twice_is_fine(self, store: EventStore) -> None:
        await store.create_consumer_group(GROUP)
        await store.append(STREAM, some_events(2), NO_STREAM)
        async with store.consume(GROUP) as consumer:
            (first,) = await self.take(consumer, 1)
            await consumer.ack(first)
            await consumer.ack(first)
            (second,) = await self.handle(consumer, 1)
            await consumer.ack(first)
        assert places([first.event, second.event]) == [(STREAM, 0), (STREAM, 1)]

    async def test_competing_consumers_share_every_event_once(self, store: EventStore) -> None:
        await store.create_consumer_group(GROUP)
        handled: list[Delivery] = []
        done = asyncio.Event()

        async def work() -> None:
            async with store.consume(GROUP) as consumer:
                async for delivery in consumer:
                    await consumer.ack(delivery)
                    handled.append(delivery)
                    if len(handled) >= 200:
                        done.set()

        async with self.patiently(), asyncio.TaskGroup() as group:
            workers = [group.create_task(work()) for _ in range(4)]
            for number in range(20):
                await store.append(StreamName(f"s-{number % 7}"), some_events(10), ANY)
            await done.wait()
            for worker in workers:
                worker.cancel()
        delivered = sorted((d.event for d in handled), key=lambda event: event.position)
        assert delivered == await collect(store.read_all())

    async def test_every_group_gets_every_event(self, store: EventStore) -> None:
        groups = ("mailers", "auditors", "billing 💶")
        for name in groups:
            await store.create_consumer_group(name)
        await store.append(STREAM, some_events(5), NO_STREAM)
        events = await collect(store.read_all())
        for name in groups:
            async with store.consume(name) as consumer:
                assert [d.event for d in await self.handle(consumer, 5)] == events

    async def test_a_consumer_holds_no_more_than_its_buffer(self, store: EventStore) -> None:
        await store.create_consumer_group(GROUP, ConsumerGroupSettings(buffer_size=2))
        await store.append(STREAM, some_events(4), NO_STREAM)
        async with store.consume(GROUP) as full, store.consume(GROUP) as free:
            held = await self.take(full, 2)
            async with asyncio.TaskGroup() as group:
                waiting = group.create_task(self.take(full, 1))
                await asyncio.wait({waiting}, timeout=0.05)
                assert not waiting.done()
                passed = await self.take(free, 1)
                await full.ack(held[0])
                after = await waiting
        assert places(d.event for d in (*held, *passed, *after)) == [(STREAM, n) for n in range(4)]

    # -------------------------------------------------------------- refusing

    async def test_a_refused_event_comes_again(self, store: EventStore) -> None:
        await store.create_consumer_group(GROUP)
        await store.append(STREAM, some_events(1), NO_STREAM)
        async with store.consume(GROUP) as consumer:
            for attempt in (1, 2, 3):
                (delivery,) = await self.take(consumer, 1)
                assert (delivery.event.revision, delivery.attempt) == (0, attempt)
                await consumer.nack(delivery)
            await self.handle(consumer, 1)
            await store.append(STREAM, some_events(1), 0)
            (delivery,) = await self.take(consumer, 1)
            assert (delivery.event.revision, delivery.attempt) == (1, 1)

    async def test_an_event_refused_too_often_is_parked(self, store: EventStore) -> None:
        await store.create_consumer_group(GROUP, ConsumerGroupSettings(max_retries=2))
        await store.append(STREAM, some_events(1), NO_STREAM)
        async with store.consume(GROUP) as consumer:
            for attempt in (1, 2, 3):
                (delivery,) = await self.take(consumer, 1)
                assert delivery.attempt == attempt
                await consumer.nack(delivery, "retry")
            await store.append(STREAM, some_events(1), 0)
            (delivery,) = await self.handle(consumer, 1)
            assert delivery.event.revision == 1
        assert await store.replay_parked(GROUP) == 1

    async def test_without_retries_the_first_refusal_parks(self, store: EventStore) -> None:
        await store.create_consumer_group(GROUP, ConsumerGroupSettings(max_retries=0))
        await store.append(STREAM, some_events(2), NO_STREAM)
        async with store.consume(GROUP) as consumer:
            for revision in (0, 1):
                (delivery,) = await self.take(consumer, 1)
                assert delivery.event.revision == revision
                await consumer.nack(delivery)
        assert await store.replay_parked(GROUP) == 2

    @pytest.mark.parametrize(("action", "parked"), [("park", 1), ("skip", 0)])
    async def test_a_parked_or_skipped_event_does_not_come_again(
        self, store: EventStore, action: NackAction, parked: int
    ) -> None:
        await store.create_consumer_group(GROUP)
        await store.append(STREAM, some_events(2), NO_STREAM)
        async with store.consume(GROUP) as consumer:
            (first,) = await self.take(consumer, 1)
            await consumer.nack(first, action)
            (second,) = await self.handle(consumer, 1)
            assert places([first.event, second.event]) == [(STREAM, 0), (STREAM, 1)]
            await self.nothing_comes(consumer)
        assert await store.replay_parked(GROUP) == parked

    async def test_replayed_events_come_again_from_attempt_one(self, store: EventStore) -> None:
        await store.create_consumer_group(GROUP)
        await store.append(STREAM, some_events(3), NO_STREAM)
        async with store.consume(GROUP) as consumer:
            for delivery in await self.take(consumer, 3):
                await consumer.nack(delivery, "park")
            assert await store.replay_parked(GROUP) == 3
            replayed = await self.handle(consumer, 3)
            assert [(d.event.revision, d.attempt) for d in replayed] == [(0, 1), (1, 1), (2, 1)]
            assert await store.replay_parked(GROUP) == 0

    async def test_a_waiting_consumer_gets_what_is_replayed(self, store: EventStore) -> None:
        await store.create_consumer_group(GROUP)
        await store.append(STREAM, some_events(1), NO_STREAM)
        async with store.consume(GROUP) as consumer:
            (delivery,) = await self.take(consumer, 1)
            await consumer.nack(delivery, "park")
            async with asyncio.TaskGroup() as group:
                waiting = group.create_task(self.take(consumer, 1))
                await turns(3)
                assert await store.replay_parked(GROUP) == 1
                (replayed,) = await waiting
        assert replayed == delivery

    # -------------------------------------------------------------- dying

    async def test_an_unanswered_event_comes_again_after_the_time_out(
        self, store: EventStore
    ) -> None:
        await store.create_consumer_group(GROUP, self.impatient())
        await store.append(STREAM, some_events(1), NO_STREAM)
        async with store.consume(GROUP) as silent, store.consume(GROUP) as other:
            (first,) = await self.take(silent, 1)
            (second,) = await self.take(other, 1)
            assert second == Delivery(first.event, 2)
            await other.ack(second)
            await silent.ack(first)  # too late, and harmless
            await self.nothing_comes(other)

    async def test_an_event_that_is_never_answered_is_parked_in_the_end(
        self, store: EventStore
    ) -> None:
        settings = ConsumerGroupSettings(message_timeout=self.message_timeout, max_retries=1)
        await store.create_consumer_group(GROUP, settings)
        await store.append(STREAM, some_events(1), NO_STREAM)
        async with store.consume(GROUP) as consumer:
            assert [d.attempt for d in await self.take(consumer, 2)] == [1, 2]
            await self.nothing_comes(consumer)
            assert await store.replay_parked(GROUP) == 1

    async def test_what_a_leaving_consumer_holds_goes_to_the_others(
        self, store: EventStore
    ) -> None:
        await store.create_consumer_group(GROUP)
        await store.append(STREAM, some_events(1), NO_STREAM)
        async with store.consume(GROUP) as staying:
            async with store.consume(GROUP) as leaving, asyncio.TaskGroup() as group:
                (held,) = await self.take(leaving, 1)
                waiting = group.create_task(self.take(staying, 1))
                await turns(3)
                await leaving.aclose()
                (taken,) = await waiting
            assert taken == Delivery(held.event, 2)

    async def test_the_next_consumer_gets_what_a_dead_one_left(self, store: EventStore) -> None:
        await store.create_consumer_group(GROUP)
        await store.append(STREAM, some_events(3), NO_STREAM)

        async def die() -> None:
            async with store.consume(GROUP) as dying:
                await self.handle(dying, 1)
                await self.take(dying, 1)
                raise RuntimeError("died")

        with pytest.raises(RuntimeError, match="died"):
            await die()
        async with store.consume(GROUP) as heir:
            left = await self.handle(heir, 2)
        assert sorted(d.event.revision for d in left) == [1, 2]

    async def test_cancelling_a_waiting_consumer_loses_nothing(self, store: EventStore) -> None:
        await store.create_consumer_group(GROUP)
        taken: list[Delivery] = []
        async with store.consume(GROUP) as consumer, self.patiently():

            async def take_one() -> None:
                taken.append(await anext(consumer))

            for number in range(1, 11):
                async with asyncio.TaskGroup() as group:
                    waiting = group.create_task(take_one())
                    await turns(2)
                    appending = group.create_task(store.append(STREAM, some_events(1), ANY))
                    await turns(number)
                    waiting.cancel()
                await appending
                while len(taken) < number:
                    await take_one()
                await consumer.ack(taken[-1])
        assert [d.event.revision for d in taken] == list(range(10))

    async def test_closing_ends_a_consumer_that_waits(self, store: EventStore) -> None:
        await store.create_consumer_group(GROUP)
        consumer = store.consume(GROUP)
        async with self.patiently(), asyncio.TaskGroup() as group:
            waiting = group.create_task(collect(consumer))
            await turns(3)
            await consumer.aclose()
        assert waiting.result() == []
        await consumer.aclose()
        assert await collect(consumer) == []

    # -------------------------------------------------------------- pinned

    async def test_pinned_streams_go_to_one_consumer_each_in_order(self, store: EventStore) -> None:
        settings = ConsumerGroupSettings(strategy=ConsumerStrategy.PINNED, buffer_size=1)
        await store.create_consumer_group(GROUP, settings)
        handled: dict[str, list[Delivery]] = {"one": [], "two": []}
        progress = asyncio.Event()

        async def work(name: str, pace: int) -> None:
            async with store.consume(GROUP) as consumer:
                async for delivery in consumer:
                    await turns(pace)
                    await consumer.ack(delivery)
                    handled[name].append(delivery)
                    progress.set()

        async def untilhandled(count: int) -> None:
            while sum(map(len, handled.values())) < count:
                progress.clear()
                await progress.wait()

        async with self.patiently(), asyncio.TaskGroup() as group:
            workers = [
                group.create_task(work(name, pace)) for name, pace in (("one", 1), ("two", 60))
            ]
            # Streams are given out only now that both are there: a store may move them when one joins.
            warm_ups = 0
            while not all(handled.values()):
                for _ in range(4):
                    await store.append(StreamName(f"warm-up-{warm_ups}"), some_events(1), ANY)
                    warm_ups += 1
                await untilhandled(warm_ups)
            streams = [StreamName(f"pinned-{number}") for number in range(11)]
            for _ in range(5):
                for stream in streams:
                    await store.append(stream, some_events(1), ANY)
            await untilhandled(warm_ups + 55)
            for worker in workers:
                worker.cancel()
        who: dict[StreamName, list[str]] = defaultdict(list)
        revisions: dict[StreamName, list[int]] = defaultdict(list)
        for name, deliveries in handled.items():
            for event, _ in deliveries:
                who[event.stream].append(name)
                revisions[event.stream].append(event.revision)
        assert {stream: len(set(who[stream])) for stream in streams} == dict.fromkeys(streams, 1)
        assert {stream: revisions[stream] for stream in streams} == {
            stream: [0, 1, 2, 3, 4] for stream in streams
        }

    async def test_pinned_streams_move_when_their_consumer_leaves(self, store: EventStore) -> None:
        settings = ConsumerGroupSettings(strategy=ConsumerStrategy.PINNED)
        await store.create_consumer_group(GROUP, settings)
        for number in range(8):
            await store.append(StreamName(f"s-{number}"), some_events(1), NO_STREAM)
        async with AsyncExitStack() as leaving:
            first = await leaving.enter_async_context(store.consume(GROUP))
            await self.handle(first, 8)
        for number in range(8):
            await store.append(StreamName(f"s-{number}"), some_events(1), 0)
        async with store.consume(GROUP) as heir:
            inherited = await self.handle(heir, 8)
        assert places(d.event for d in inherited) == [(f"s-{n}", 1) for n in range(8)]

    async def test_what_was_kept_for_a_pinned_consumer_is_not_lost_with_it(
        self, store: EventStore
    ) -> None:
        settings = ConsumerGroupSettings(strategy=ConsumerStrategy.PINNED, buffer_size=1)
        await store.create_consumer_group(GROUP, settings)
        await store.append(STREAM, some_events(1), NO_STREAM)
        async with store.consume(GROUP) as heir:
            async with store.consume(GROUP) as owner, asyncio.TaskGroup() as group:
                await self.take(owner, 1)
                waiting = group.create_task(self.take(heir, 1))
                await store.append(STREAM, some_events(2), 0)
                await asyncio.wait({waiting}, timeout=0.05)
                assert not waiting.done()  # the owner is full, and the stream is its own
                await owner.aclose()
                (first,) = await waiting
            await heir.ack(first)
            inherited = [first, *await self.handle(heir, 2)]
        assert sorted(d.event.revision for d in inherited) == [0, 1, 2]

    # -------------------------------------------------------------- groups themselves

    async def test_a_group_remembers_across_consumers(self, store: EventStore) -> None:
        await store.create_consumer_group(GROUP)
        await store.append(STREAM, some_events(6), NO_STREAM)
        seen: list[int] = []
        for _ in range(3):
            async with store.consume(GROUP) as consumer:
                seen += [d.event.revision for d in await self.handle(consumer, 2)]
        assert seen == [0, 1, 2, 3, 4, 5]

    async def test_a_group_exists_once(self, store: EventStore) -> None:
        await store.create_consumer_group(GROUP)
        with pytest.raises(ConsumerGroupExistsError) as refused:
            await store.create_consumer_group(GROUP, ConsumerGroupSettings(prefix="x"))
        assert refused.value.name == GROUP

    async def test_an_unknown_group_is_refused(self, store: EventStore) -> None:
        calls: tuple[Awaitable[object], ...] = (
            store.delete_consumer_group("nobody"),
            store.replay_parked("nobody"),
            store.update_consumer_group("nobody", ConsumerGroupChanges(max_retries=1)),
        )
        for call in calls:
            with pytest.raises(ConsumerGroupNotFoundError) as refused:
                await call
            assert refused.value.name == "nobody"
        async with store.consume("nobody") as consumer:
            with pytest.raises(ConsumerGroupNotFoundError):
                await self.take(consumer, 1)

    async def test_deleting_a_group_ends_its_consumers(self, store: EventStore) -> None:
        await store.create_consumer_group(GROUP)
        async with store.consume(GROUP) as consumer, asyncio.TaskGroup() as group:
            waiting = group.create_task(outcome(consumer))
            await turns(3)
            await store.delete_consumer_group(GROUP)
            async with self.patiently():
                assert isinstance(await waiting, ConsumerGroupNotFoundError)
        with pytest.raises(ConsumerGroupNotFoundError):
            await store.delete_consumer_group(GROUP)

    async def test_a_group_created_again_begins_anew(self, store: EventStore) -> None:
        await store.append(STREAM, some_events(3), NO_STREAM)
        events = await collect(store.read_all())
        for _ in range(2):
            await store.create_consumer_group(GROUP)
            async with store.consume(GROUP) as consumer:
                first, *rest = await self.take(consumer, 3)
                assert [d.event for d in (first, *rest)] == events
                assert [d.attempt for d in (first, *rest)] == [1, 1, 1]
                await consumer.nack(first, "park")
            await store.delete_consumer_group(GROUP)

    async def test_a_group_survives_a_restart(self, store: EventStore) -> None:
        await store.create_consumer_group(GROUP, self.impatient())
        batch = some_events(4)
        await store.append(STREAM, batch, NO_STREAM)
        async with store.consume(GROUP) as consumer:
            handled, parked, held = await self.take(consumer, 3)
            await consumer.ack(handled)
            await consumer.nack(parked, "park")
            assert held.event.revision == 2
        again = await self.reopened(store)
        try:
            async with again.consume(GROUP) as consumer:
                left = await self.handle(consumer, 2)
                assert sorted(d.event.revision for d in left) == [2, 3]
                assert as_appended([parked.event]) == [batch[1]]
                assert await again.replay_parked(GROUP) == 1
                assert [d.event for d in await self.handle(consumer, 1)] == [parked.event]
        finally:
            await again.aclose()

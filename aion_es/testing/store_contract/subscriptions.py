"""The contract of subscriptions: what is stored, then what comes, with neither gap nor repeat."""

# ruff: noqa: S101, D102 - a contract suite asserts, and its tests are named by sentences

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import hypothesis
from hypothesis import strategies

from aion_es.ids import StreamName
from aion_es.store.port import (
    ANY,
    NO_STREAM,
    START,
    CaughtUp,
    EventStore,
    Subscription,
    SubscriptionMessage,
)
from aion_es.testing.store_contract.base import (
    OTHER,
    STREAM,
    StoreContractBase,
    Watch,
    as_appended,
    collect,
    places,
    some_events,
    turns,
)

STREAMS = (StreamName("a-1"), StreamName("a-2"), StreamName("b-1"))


@dataclass(frozen=True)
class Write:
    """One append: which stream, how many events, after how many turns of the loop."""

    stream: int
    size: int
    pause: int


@dataclass(frozen=True)
class Interleaving:
    """How writers and one subscriber meet at the border between what is stored and what is live.

    Attributes:
        stored: Appended before the subscription is opened.
        start: The subscription begins after so many of the stored events.
        prefix: What it asks for.
        writers: What is appended meanwhile, by each of several writers.
        pauses: Turns of the loop between two reads of the subscriber, over and over.
        one_by_one: It takes single messages, not batches.
    """

    stored: Sequence[Write]
    start: int
    prefix: str
    writers: Sequence[Sequence[Write]]
    pauses: Sequence[int]
    one_by_one: bool


_WRITES = strategies.builds(
    Write,
    stream=strategies.integers(0, len(STREAMS) - 1),
    size=strategies.integers(1, 4),
    pause=strategies.integers(0, 4),
)
_INTERLEAVINGS = strategies.builds(
    Interleaving,
    stored=strategies.lists(_WRITES, max_size=8),
    start=strategies.integers(0, 12),
    prefix=strategies.sampled_from(["", "a-", "a-2", "b"]),
    writers=strategies.lists(strategies.lists(_WRITES, max_size=12), max_size=3),
    pauses=strategies.lists(strategies.integers(0, 6), min_size=1, max_size=4),
    one_by_one=strategies.booleans(),
)


class SubscriptionContract(StoreContractBase):
    """What the engine and the projections are promised."""

    async def test_an_empty_store_is_caught_up_at_once(self, store: EventStore) -> None:
        for subscription in (store.subscribe_all(), store.subscribe(STREAM)):
            async with subscription, self.patiently():
                assert await anext(subscription) == CaughtUp()

    async def test_from_the_start_everything_stored_comes_before_caught_up(
        self, store: EventStore
    ) -> None:
        await _fill(store, 5)
        async with store.subscribe_all() as subscription:
            watch = self.watch(subscription)
            assert await watch.until_caught_up() == await collect(store.read_all())

    async def test_from_every_position_only_what_lies_after_it_comes(
        self, store: EventStore
    ) -> None:
        await _fill(store, 2)
        events = await collect(store.read_all())
        for index, event in enumerate(events):
            async with store.subscribe_all(from_position=event.position) as subscription:
                assert await self.watch(subscription).until_caught_up() == events[index + 1 :]

    async def test_from_the_end_only_what_is_new_comes(self, store: EventStore) -> None:
        await _fill(store, 2)
        end = await store.end_position()
        async with store.subscribe_all(from_position=end) as subscription:
            watch = self.watch(subscription)
            assert await watch.until_caught_up() == []
            await _fill(store, 1)
            new = await watch.until_events(len(STREAMS))
            assert new == await collect(store.read_all(from_position=end))

    async def test_what_is_appended_while_live_comes_in_order(self, store: EventStore) -> None:
        async with store.subscribe_all() as subscription:
            watch = self.watch(subscription)
            await watch.until_caught_up()
            for count in range(1, 6):
                await _fill(store, 1)
                assert len(await watch.until_events(len(STREAMS) * count)) == len(STREAMS) * count
            assert watch.events == await collect(store.read_all())

    async def test_many_stored_events_come_in_pages_and_in_order(self, store: EventStore) -> None:
        for number in range(6):
            await store.append(STREAM, some_events(1_000, f"page {number}"), ANY)
        async with store.subscribe_all() as subscription:
            watch = self.watch(subscription)
            assert await watch.until_caught_up() == await collect(store.read_all())

    async def test_only_streams_with_the_prefix_come(self, store: EventStore) -> None:
        await _fill(store, 3)
        async with store.subscribe_all(prefix="a-") as subscription:
            watch = self.watch(subscription)
            await watch.until_caught_up()
            await _fill(store, 3)
            assert await watch.until_events(12) == await collect(store.read_all(prefix="a-"))

    async def test_one_stream_comes_from_the_asked_revision_on(self, store: EventStore) -> None:
        await store.append(STREAM, some_events(4), NO_STREAM)
        await store.append(OTHER, some_events(4), NO_STREAM)
        async with store.subscribe(STREAM, from_revision=2) as subscription:
            watch = self.watch(subscription)
            assert places(await watch.until_caught_up()) == [(STREAM, 2), (STREAM, 3)]
            await store.append(OTHER, some_events(2), ANY)
            await store.append(STREAM, some_events(2), ANY)
            await watch.until_events(4)
            assert watch.events == await collect(store.read(STREAM, from_revision=2))

    async def test_a_stream_that_does_not_exist_yet_can_be_awaited(self, store: EventStore) -> None:
        async with store.subscribe(STREAM, from_revision=1) as subscription:
            watch = self.watch(subscription)
            assert await watch.until_caught_up() == []
            await store.append(STREAM, some_events(3), NO_STREAM)
            assert places(await watch.until_events(2)) == [(STREAM, 1), (STREAM, 2)]

    async def test_one_by_one_and_in_batches_may_be_mixed(self, store: EventStore) -> None:
        await store.append(STREAM, some_events(50), NO_STREAM)
        async with store.subscribe_all() as subscription, self.patiently():
            messages: list[SubscriptionMessage] = [await anext(subscription) for _ in range(3)]
            while CaughtUp() not in messages:
                messages.extend(await subscription.next_batch())
        events = [message for message in messages if message != CaughtUp()]
        assert events == await collect(store.read_all())

    def test_no_interleaving_makes_a_gap_or_a_repeat_at_the_live_border(self) -> None:
        # A function within: hypothesis runs no coroutine, and each example needs a store of its own.
        @hypothesis.settings(max_examples=self.examples, deadline=None, database=None)
        @hypothesis.given(_INTERLEAVINGS)
        def try_out(interleaving: Interleaving) -> None:
            asyncio.run(self._meet_at_the_border(interleaving))

        try_out()

    async def _meet_at_the_border(self, plan: Interleaving) -> None:
        async with self.open_store() as store:
            await _write(store, plan.stored)
            stored = await collect(store.read_all())
            begin = stored[: plan.start][-1].position if stored and plan.start else START
            writes = [write for writer in plan.writers for write in writer]
            coming = sum(w.size for w in writes if STREAMS[w.stream].startswith(plan.prefix))
            before = await collect(store.read_all(from_position=begin, prefix=plan.prefix))
            async with store.subscribe_all(from_position=begin, prefix=plan.prefix) as subscription:
                watch = self.watch(subscription, one_by_one=plan.one_by_one)
                async with self.patiently(), asyncio.TaskGroup() as group:
                    for writer in plan.writers:
                        group.create_task(_write(store, writer))
                    group.create_task(_read(watch, len(before) + coming, plan.pauses))
                # One more that matches: whatever would come twice comes before it.
                last = next(s for s in STREAMS if s.startswith(plan.prefix))
                await store.append(last, some_events(1, "last"), ANY)
                await watch.until_events(len(before) + coming + 1)
                await watch.until_caught_up()
            expected = await collect(store.read_all(from_position=begin, prefix=plan.prefix))
            assert watch.events == expected

    async def test_several_subscribers_join_under_load_and_miss_nothing(
        self, store: EventStore
    ) -> None:
        watches: list[Watch] = []
        subscriptions: list[Subscription] = []

        async def follow(watch: Watch) -> None:
            await watch.until_events(1_200)

        async with self.patiently(), asyncio.TaskGroup() as group:
            for number in range(4):
                stream = StreamName(f"writer-{number}")
                group.create_task(
                    _write_steadily(store, stream, appends=100, size=3), name=str(stream)
                )
            for pause in (0, 5, 20, 60, 100):
                await turns(pause)
                subscriptions.append(store.subscribe_all())
                watches.append(self.watch(subscriptions[-1], one_by_one=pause == 20))
                group.create_task(follow(watches[-1]))
        for subscription in subscriptions:
            await subscription.aclose()
        events = await collect(store.read_all())
        assert len(events) == 1_200
        for watch in watches:
            assert watch.events == events

    async def test_a_slow_subscriber_gets_everything_and_catches_up_again(
        self, store: EventStore
    ) -> None:
        async with store.subscribe_all() as subscription:
            watch = self.watch(subscription)
            await watch.until_caught_up()
            await asyncio.gather(
                *(store.append(STREAM, some_events(100, f"{n}"), ANY) for n in range(120))
            )
            await watch.until_events(12_000)
            await watch.until_caught_up()
            assert watch.events == await collect(store.read_all())

    async def test_a_slow_subscriber_does_not_hold_up_another(self, store: EventStore) -> None:
        async with store.subscribe_all() as slow, store.subscribe_all() as quick:
            await self.watch(slow).until_caught_up()
            watch = self.watch(quick)
            await watch.until_caught_up()
            for number in range(1, 21):
                await store.append(STREAM, some_events(100), ANY)
                await watch.until_events(100 * number)
            assert watch.events == await collect(store.read_all())

    async def test_checkpoints_come_where_nothing_stored_matches(self, store: EventStore) -> None:
        for _ in range(4):
            await store.append(STREAM, some_events(self.checkpoint_every // 2), ANY)
        async with store.subscribe_all(prefix="nothing-") as subscription:
            watch = self.watch(subscription)
            assert await watch.until_caught_up() == []
            await watch.until_checkpoint_after(START)
            assert watch.checkpoints[-1] <= await store.end_position()

    async def test_checkpoints_come_where_nothing_live_matches(self, store: EventStore) -> None:
        async with store.subscribe_all(prefix="nothing-") as subscription:
            watch = self.watch(subscription)
            await watch.until_caught_up()
            for _ in range(2):
                before = await store.end_position()
                for _ in range(4):
                    await store.append(STREAM, some_events(self.checkpoint_every // 2), ANY)
                await watch.until_checkpoint_after(before)
            assert watch.events == []

    async def test_a_restart_after_a_checkpoint_loses_nothing(self, store: EventStore) -> None:
        await store.append(OTHER, some_events(1, "early"), NO_STREAM)
        await store.append(STREAM, some_events(self.checkpoint_every), ANY)
        async with store.subscribe_all(prefix="invoices") as subscription:
            watch = self.watch(subscription)
            await watch.until_caught_up()
            await store.append(STREAM, some_events(self.checkpoint_every), ANY)
            await watch.until_checkpoint_after(watch.events[-1].position)
        late = some_events(2, "late")
        await store.append(OTHER, late, ANY)
        resumed = store.subscribe_all(from_position=watch.checkpoints[-1], prefix="invoices")
        async with resumed:
            assert as_appended(await self.watch(resumed).until_caught_up()) == late

    # -------------------------------------------------------------- ending

    async def test_closing_ends_a_batch_that_waits(self, store: EventStore) -> None:
        subscription = store.subscribe_all()
        await self.watch(subscription).until_caught_up()
        async with self.patiently(), asyncio.TaskGroup() as group:
            waiting = group.create_task(_next_batch(subscription))
            await turns(3)
            await subscription.aclose()
        assert list(waiting.result()) == []

    async def test_closing_ends_an_iteration_that_waits(self, store: EventStore) -> None:
        await store.append(STREAM, some_events(3), NO_STREAM)
        subscription = store.subscribe_all()
        seen: list[SubscriptionMessage] = []
        live = asyncio.Event()

        async def iterate() -> None:
            async for message in subscription:
                seen.append(message)
                if message == CaughtUp():
                    live.set()

        async with self.patiently(), asyncio.TaskGroup() as group:
            group.create_task(iterate())
            await live.wait()
            await turns(3)
            await subscription.aclose()
        events = [message for message in seen if message != CaughtUp()]
        assert events == await collect(store.read_all())

    async def test_a_closed_subscription_gives_nothing_more(self, store: EventStore) -> None:
        await store.append(STREAM, some_events(30), NO_STREAM)
        async with store.subscribe_all() as subscription:
            await anext(subscription)
        await subscription.aclose()
        assert await collect(subscription) == []
        assert list(await subscription.next_batch()) == []

    async def test_closing_one_subscription_leaves_the_others(self, store: EventStore) -> None:
        async with store.subscribe_all() as kept:
            async with store.subscribe_all() as closed:
                await self.watch(closed).until_caught_up()
                watch = self.watch(kept)
                await watch.until_caught_up()
            await _fill(store, 2)
            await watch.until_events(2 * len(STREAMS))
            assert watch.events == await collect(store.read_all())

    async def test_cancelling_a_wait_loses_nothing(self, store: EventStore) -> None:
        async with store.subscribe_all() as subscription:
            watch = self.watch(subscription)
            await watch.until_caught_up()
            for number in range(1, 11):
                async with asyncio.TaskGroup() as group:
                    waiting = group.create_task(watch.read_once())
                    await turns(2)
                    appending = group.create_task(store.append(STREAM, some_events(1), ANY))
                    await turns(number)
                    waiting.cancel()
                await appending
                await watch.until_events(number)
            assert watch.events == await collect(store.read_all())


async def _fill(store: EventStore, rounds: int) -> None:
    """Append one event to each of `STREAMS`, so many times."""
    for _ in range(rounds):
        for stream in STREAMS:
            await store.append(stream, some_events(1, stream), ANY)


async def _write(store: EventStore, writes: Sequence[Write]) -> None:
    for write in writes:
        await turns(write.pause)
        await store.append(STREAMS[write.stream], some_events(write.size), ANY)


async def _write_steadily(store: EventStore, stream: StreamName, appends: int, size: int) -> None:
    for number in range(appends):
        await store.append(stream, some_events(size, f"{stream} {number}"), ANY)


async def _read(watch: Watch, count: int, pauses: Sequence[int]) -> None:
    reads = 0
    while len(watch.events) < count:
        await turns(pauses[reads % len(pauses)])
        await watch.read_once()
        reads += 1


async def _next_batch(subscription: Subscription) -> Sequence[SubscriptionMessage]:
    return await subscription.next_batch()

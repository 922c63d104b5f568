"""The contract of opening and closing: what a closed store refuses, and what the next one finds."""

# ruff: noqa: S101, D102 - a contract suite asserts, and its tests are named by sentences

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from aion_es.errors import StoreClosedError
from aion_es.ids import StreamName
from aion_es.store.port import (
    ANY,
    NO_STREAM,
    Appended,
    Consumer,
    EventStore,
    StreamMetadata,
    Subscription,
)
from aion_es.testing.store_contract.base import (
    OTHER,
    STREAM,
    StoreContractBase,
    as_appended,
    collect,
    some_events,
    turns,
)

GROUP = "mailers"

CALLS: dict[str, Callable[[EventStore], Awaitable[object]]] = {
    "append": lambda store: store.append(STREAM, some_events(1), ANY),
    "append nothing": lambda store: store.append(STREAM, [], ANY),
    "read": lambda store: collect(store.read(STREAM)),
    "read backwards": lambda store: collect(store.read(STREAM, backwards=True)),
    "read unknown": lambda store: collect(store.read(StreamName("unknown"))),
    "read_all": lambda store: collect(store.read_all()),
    "head": lambda store: store.head(STREAM),
    "end_position": lambda store: store.end_position(),
    "subscribe_all": lambda store: _first_message(store.subscribe_all),
    "subscribe": lambda store: _first_message(lambda: store.subscribe(STREAM)),
    "create_consumer_group": lambda store: store.create_consumer_group("another"),
    "delete_consumer_group": lambda store: store.delete_consumer_group(GROUP),
    "replay_parked": lambda store: store.replay_parked(GROUP),
    "consume": lambda store: _first_delivery(lambda: store.consume(GROUP)),
    "metadata": lambda store: store.metadata(STREAM),
    "set_metadata": lambda store: store.set_metadata(STREAM, StreamMetadata(max_count=1)),
    "delete": lambda store: store.delete(STREAM, ANY),
    "health": lambda store: store.health(),
}


class LifecycleContract(StoreContractBase):
    """What holds while a store is closed, and after."""

    async def test_an_open_store_is_healthy(self, store: EventStore) -> None:
        await store.health()

    @pytest.mark.parametrize("call", CALLS)
    async def test_a_closed_store_refuses(self, store: EventStore, call: str) -> None:
        await store.append(STREAM, some_events(2), NO_STREAM)
        await store.create_consumer_group(GROUP)
        await store.aclose()
        async with self.patiently():
            with pytest.raises(StoreClosedError):
                await CALLS[call](store)

    async def test_closing_twice_is_fine(self, store: EventStore) -> None:
        await store.append(STREAM, some_events(1), NO_STREAM)
        await store.aclose()
        await asyncio.gather(store.aclose(), store.aclose())

    async def test_a_store_that_was_never_used_can_be_closed(self, store: EventStore) -> None:
        await store.aclose()

    async def test_closing_the_store_ends_whoever_waits_on_it(self, store: EventStore) -> None:
        await store.create_consumer_group(GROUP)
        subscription, consumer = store.subscribe_all(), store.consume(GROUP)
        await self.watch(subscription).until_caught_up()
        async with self.patiently(), asyncio.TaskGroup() as group:
            waiting = [
                group.create_task(_refusal(_first_message(lambda: subscription))),
                group.create_task(_refusal(_first_delivery(lambda: consumer))),
            ]
            await turns(3)
            await store.aclose()
        assert [task.result() for task in waiting] == [StoreClosedError, StoreClosedError]
        await subscription.aclose()
        await consumer.aclose()

    async def test_what_a_reader_was_reading_ends_with_an_error_not_with_a_gap(
        self, store: EventStore
    ) -> None:
        batch = some_events(3_000)
        await store.append(STREAM, batch, NO_STREAM)
        reading = store.read(STREAM)
        read = [await anext(reading)]

        async def read_on() -> None:
            async for event in reading:  # no comprehension: what came before the error counts
                read.append(event)  # noqa: PERF401 - see above

        await store.aclose()
        with pytest.raises(StoreClosedError):
            await read_on()
        assert as_appended(read) == batch[: len(read)]

    async def test_closing_finishes_what_was_accepted(self, store: EventStore) -> None:
        batches = {StreamName(f"s-{n}"): some_events(3, f"{n}") for n in range(40)}

        async def append(stream: StreamName) -> StreamName | None:
            try:
                await store.append(stream, batches[stream], NO_STREAM)
            except StoreClosedError:
                return None
            return stream

        async with asyncio.TaskGroup() as group:
            appending = [group.create_task(append(stream)) for stream in batches]
            await asyncio.sleep(0)  # every append has been called, and none is answered
            await store.aclose()
        answered = [task.result() for task in appending]
        assert answered == list(batches)
        again = await self.reopened(store)
        try:
            stored = {stream: as_appended(await collect(again.read(stream))) for stream in batches}
        finally:
            await again.aclose()
        assert stored == batches

    async def test_everything_is_there_when_the_store_is_opened_again(
        self, store: EventStore
    ) -> None:
        batch = some_events(5)
        await store.append(STREAM, batch, NO_STREAM)
        await store.append(OTHER, some_events(2), NO_STREAM)
        await store.delete(OTHER, ANY)
        metadata = StreamMetadata(truncate_before=1)
        await store.set_metadata(STREAM, metadata)
        events, end = await collect(store.read(STREAM)), await store.end_position()
        again = await self.reopened(store)
        try:
            assert await collect(again.read(STREAM)) == events
            assert await again.end_position() == end
            assert (await again.head(STREAM), await again.head(OTHER)) == (4, -1)
            assert await again.metadata(STREAM) == metadata
            assert (await again.append(STREAM, batch, NO_STREAM)).revision == 4
            later = [
                await again.append(OTHER, some_events(1), NO_STREAM),
                await again.append(STREAM, some_events(1), 4),
            ]
            assert [answer.revision for answer in later] == [2, 5]
            assert end < later[0].position < later[1].position
        finally:
            await again.aclose()

    async def test_a_subscription_resumes_in_the_store_opened_again(
        self, store: EventStore
    ) -> None:
        answer: Appended = await store.append(STREAM, some_events(2), NO_STREAM)
        late = some_events(3, "late")
        await store.append(OTHER, late, NO_STREAM)
        again = await self.reopened(store)
        try:
            async with again.subscribe_all(from_position=answer.position) as subscription:
                watch = self.watch(subscription)
                assert as_appended(await watch.until_caught_up()) == late
                await again.append(STREAM, some_events(1), 1)
                assert (await watch.until_events(4))[-1].revision == 2
        finally:
            await again.aclose()


async def _first_message(subscribe: Callable[[], Subscription]) -> object:
    return await subscribe().next_batch()


async def _first_delivery(consume: Callable[[], Consumer]) -> object:
    return await anext(consume())


async def _refusal(call: Awaitable[object]) -> type[Exception] | None:
    try:
        await call
    except StoreClosedError as error:
        return type(error)
    return None

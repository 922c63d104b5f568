"""What the EventStoreDB adapter does when the server, or the way to it, breaks."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from aion_es.errors import (
    StoreUnavailableError,
    SubscriptionDroppedError,
)
from aion_es.ids import StreamName
from aion_es.store.eventstoredb import EventStoreDBStore
from aion_es.store.eventstoredb.client import Backoff
from aion_es.store.memory import MemoryEventStore
from aion_es.store.port import (
    ANY,
    NO_STREAM,
    CaughtUp,
    Checkpoint,
    FellBehind,
    RecordedEvent,
    SubscriptionMessage,
)
from aion_es.testing.store_contract.base import (
    OTHER,
    STREAM,
    as_appended,
    collect,
    places,
    some_events,
    turns,
)

pytest.importorskip("grpc", reason="no EventStoreDB client is installed: make test-clients")

from aion_es.testing.eventstoredb import LocalEventStoreDB

PATIENCE = 20.0


@pytest.fixture
async def server() -> AsyncIterator[LocalEventStoreDB]:
    server = LocalEventStoreDB()
    async with server:
        yield server


@pytest.fixture
async def store(server: LocalEventStoreDB) -> AsyncIterator[EventStoreDBStore]:
    async with await EventStoreDBStore.open(server.uri) as store:
        yield store


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


# ------------------------------------------------------------------------------ appends


@pytest.mark.parametrize("code", ["UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "ABORTED"])
async def test_an_append_whose_answer_was_lost_is_repeated_and_written_once(
    server: LocalEventStoreDB, store: EventStoreDBStore, code: str
) -> None:
    batch = some_events(3)
    server.faults.lose_answer("BatchAppend", code=code)
    appended = await store.append(STREAM, batch, NO_STREAM)
    assert appended.revision == 2
    assert as_appended(await collect(store.read_all())) == batch


async def test_an_append_without_revision_whose_answer_was_lost_is_found_by_reading(
    server: LocalEventStoreDB, store: EventStoreDBStore
) -> None:
    await store.append(STREAM, some_events(2, "before"), NO_STREAM)
    batch = some_events(3)
    server.faults.lose_answer("BatchAppend")
    appended = await store.append(STREAM, batch, ANY)
    events = await collect(store.read(STREAM))
    assert as_appended(events[2:]) == batch
    assert (appended.revision, appended.position) == (4, events[-1].position)


async def test_an_append_without_revision_is_not_repeated_by_a_leader_that_never_saw_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shared = MemoryEventStore()
    old, new = LocalEventStoreDB(store=shared), LocalEventStoreDB(store=shared)
    async with old, new, await EventStoreDBStore.open(old.uri) as store:
        await store.append(STREAM, some_events(1), NO_STREAM)

        async def lose_the_election(_: Backoff) -> None:
            old.faults.step_down("127.0.0.1", new.port)

        monkeypatch.setattr(Backoff, "pause", lose_the_election)
        old.faults.lose_answer("BatchAppend")
        assert (await store.append(STREAM, some_events(2), ANY)).revision == 2
        assert await shared.head(STREAM) == 2


async def test_a_server_that_is_not_ready_is_asked_again(
    server: LocalEventStoreDB, store: EventStoreDBStore
) -> None:
    server.faults.refuse("BatchAppend", times=2)
    assert (await store.append(STREAM, some_events(2), NO_STREAM)).revision == 1
    assert len(await collect(store.read_all())) == 2


async def test_appends_to_one_stream_keep_their_order_while_one_is_repeated(
    server: LocalEventStoreDB, store: EventStoreDBStore
) -> None:
    batches = [some_events(2, f"call {number}") for number in range(6)]
    server.faults.refuse("BatchAppend", times=3)
    await asyncio.gather(*(store.append(STREAM, batch, ANY) for batch in batches))
    stored = as_appended(await collect(store.read(STREAM)))
    assert stored == [event for batch in batches for event in batch]


async def test_of_many_appends_in_flight_when_the_call_breaks_none_is_lost_or_doubled(
    server: LocalEventStoreDB, store: EventStoreDBStore
) -> None:
    batches = {StreamName(f"s-{number}"): some_events(2, f"{number}") for number in range(60)}

    async def append(stream: StreamName) -> int:
        return (await store.append(stream, batches[stream], NO_STREAM)).revision

    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        appending = [group.create_task(append(stream)) for stream in batches]
        for _ in range(4):
            server.faults.lose_answer("BatchAppend")
            await asyncio.sleep(0.02)
    assert [task.result() for task in appending] == [1] * 60
    stored = {stream: as_appended(await collect(store.read(stream))) for stream in batches}
    assert stored == batches
    assert len(await collect(store.read_all())) == 120


async def test_an_append_goes_to_the_leader_that_the_node_names() -> None:
    shared = MemoryEventStore()
    follower, leader = LocalEventStoreDB(store=shared), LocalEventStoreDB(store=shared)
    async with follower, leader:
        port = leader.port
        async with await EventStoreDBStore.open(follower.uri) as store:
            await store.append(STREAM, some_events(1), NO_STREAM)
            follower.faults.step_down("127.0.0.1", port)
            assert (await store.append(STREAM, some_events(1), 0)).revision == 1
            assert places(await collect(store.read(STREAM))) == [(STREAM, 0), (STREAM, 1)]


async def test_a_subscription_goes_on_when_the_leader_moves() -> None:
    shared = MemoryEventStore()
    follower, leader = LocalEventStoreDB(store=shared), LocalEventStoreDB(store=shared)
    async with follower, leader:
        port = leader.port
        async with (
            await EventStoreDBStore.open(follower.uri) as store,
            store.subscribe_all() as subscription,
        ):
            await store.append(STREAM, some_events(3), NO_STREAM)
            await _until_events(subscription.next_batch, 3)
            follower.faults.step_down("127.0.0.1", port)
            await store.append(STREAM, some_events(3), 2)
            assert places(await _until_events(subscription.next_batch, 3)) == [
                (STREAM, revision) for revision in (3, 4, 5)
            ]


async def test_an_append_to_a_server_that_went_away_says_that_its_outcome_is_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("aion_es.store.eventstoredb.appends.RETRY_FOR", 0.3)
    server = LocalEventStoreDB()
    async with server:
        store = await EventStoreDBStore.open(f"{server.uri}&DefaultDeadline=1")
        await store.append(STREAM, some_events(1), NO_STREAM)
        server.faults.delay("BatchAppend", timedelta(seconds=30))
        appending = store.submit(STREAM, some_events(1), 0)
        await asyncio.sleep(0.1)
    with pytest.raises(StoreUnavailableError) as told:
        await appending
    assert told.value.outcome_unknown
    await store.aclose()


# ------------------------------------------------------------------------------ subscriptions


async def _until_events(
    next_batch: Callable[[], Awaitable[Sequence[SubscriptionMessage]]], count: int
) -> list[RecordedEvent]:
    events: list[RecordedEvent] = []
    async with asyncio.timeout(PATIENCE):
        while len(events) < count:
            events += [m for m in await next_batch() if isinstance(m, RecordedEvent)]
    return events


async def test_a_subscription_that_was_dropped_loses_and_repeats_nothing(
    server: LocalEventStoreDB, store: EventStoreDBStore
) -> None:
    seen: list[SubscriptionMessage] = []
    count = 40

    async def append() -> None:
        for number in range(count):
            await store.append(STREAM, some_events(3, f"{number}"), ANY)
            if number % 8 == 4:
                server.faults.drop_subscriptions()

    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        subscription = store.subscribe_all(prefix="orders-")
        writing = group.create_task(append())
        while sum(isinstance(m, RecordedEvent) for m in seen) < 3 * count:
            seen += await subscription.next_batch()
        await writing
        await subscription.aclose()
    events = [message for message in seen if isinstance(message, RecordedEvent)]
    assert events == await collect(store.read(STREAM))


async def test_a_live_subscriber_is_told_that_it_fell_behind_and_caught_up_again(
    server: LocalEventStoreDB, store: EventStoreDBStore
) -> None:
    async with asyncio.timeout(PATIENCE), store.subscribe_all() as subscription:
        assert await anext(subscription) == CaughtUp()
        assert server.faults.drop_subscriptions() == 1
        assert await anext(subscription) == FellBehind()
        assert await anext(subscription) == CaughtUp()


async def test_a_subscription_that_is_dropped_again_and_again_ends_with_a_typed_error(
    server: LocalEventStoreDB, store: EventStoreDBStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aion_es.store.eventstoredb.client.RETRY_FOR", 0.3)
    server.faults.refuse("Read", code="ABORTED", details="Consumer too slow", times=1_000)
    async with asyncio.timeout(PATIENCE), store.subscribe_all() as subscription:
        with pytest.raises(SubscriptionDroppedError):
            await subscription.next_batch()
    server.faults.clear()


def no_looking_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    for pause in ("FIRST_PROBE", "LAST_PROBE"):
        monkeypatch.setattr(f"aion_es.store.eventstoredb.checkpoints.{pause}", 600.0)


async def test_a_quiet_subscription_moves_on_when_somebody_asks_for_the_stores_end(
    store: EventStoreDBStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_looking_by_itself(monkeypatch)
    async with asyncio.timeout(PATIENCE), store.subscribe_all(prefix="orders-") as subscription:
        assert await anext(subscription) == CaughtUp()
        await store.append(OTHER, some_events(1), NO_STREAM)
        end = await store.end_position()
        assert await anext(subscription) == Checkpoint(end)


async def test_a_quiet_subscription_moves_on_by_itself(store: EventStoreDBStore) -> None:
    async with asyncio.timeout(PATIENCE), store.subscribe_all(prefix="orders-") as subscription:
        assert await anext(subscription) == CaughtUp()
        appended = await store.append(OTHER, some_events(1), NO_STREAM)
        assert await anext(subscription) == Checkpoint(appended.position)


async def test_a_subscription_never_moves_past_an_event_that_is_on_its_way(
    store: EventStoreDBStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_looking_by_itself(monkeypatch)
    async with asyncio.timeout(PATIENCE), store.subscribe_all(prefix="orders-") as subscription:
        assert await anext(subscription) == CaughtUp()
        subscription._task.cancel()  # nothing arrives any more
        await asyncio.wait({subscription._task})
        quiet = await store.append(OTHER, some_events(1), NO_STREAM)
        assert await subscription.move_on(quiet.position, 0)
        await store.append(STREAM, some_events(1), NO_STREAM)
        later = await store.append(OTHER, some_events(1), 0)
        assert await anext(subscription) == Checkpoint(quiet.position)
        assert not await subscription.move_on(later.position, 0)
        assert subscription.reached == quiet.position


async def test_a_subscription_does_not_trust_an_end_told_over_another_connection(
    store: EventStoreDBStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_looking_by_itself(monkeypatch)
    async with asyncio.timeout(PATIENCE), store.subscribe_all(prefix="orders-") as subscription:
        assert await anext(subscription) == CaughtUp()
        quiet = await store.append(OTHER, some_events(1), NO_STREAM)
        assert not await subscription.move_on(quiet.position, 7)
        assert await subscription.move_on(quiet.position, 0)


@pytest.mark.parametrize("prefix", ["", "orders-", "nothing-"])
async def test_a_server_that_does_not_say_when_a_subscription_is_live_is_asked_where_it_ends(
    prefix: str,
) -> None:
    server = LocalEventStoreDB(version="22.10.5")
    async with server, await EventStoreDBStore.open(server.uri) as store:
        await store.append(STREAM, some_events(5), NO_STREAM)
        async with asyncio.timeout(PATIENCE), store.subscribe_all(prefix=prefix) as subscription:
            seen: list[SubscriptionMessage] = []
            while CaughtUp() not in seen:
                seen += await subscription.next_batch()
        events = [message for message in seen if isinstance(message, RecordedEvent)]
        assert events == await collect(store.read_all(prefix=prefix))


async def test_a_cancelled_reader_is_cancelled_and_not_shown_the_end(
    server: LocalEventStoreDB, store: EventStoreDBStore
) -> None:
    await store.append(STREAM, some_events(5), NO_STREAM)
    server.faults.delay("Read", timedelta(seconds=5))
    ended = False

    async def read() -> None:
        nonlocal ended
        await collect(store.read(STREAM))
        ended = True

    async with asyncio.TaskGroup() as group:
        reading = group.create_task(read())
        await turns(10)
        await asyncio.sleep(0.05)
        reading.cancel()
    assert reading.cancelled()
    assert not ended


# ------------------------------------------------------------------------------ reads


async def test_a_read_that_breaks_is_tried_again(
    server: LocalEventStoreDB, store: EventStoreDBStore
) -> None:
    await store.append(STREAM, some_events(3), NO_STREAM)
    server.faults.refuse("Read", times=2)
    assert len(await collect(store.read(STREAM))) == 3


async def test_a_server_that_restarts_is_found_again(tmp_path: Path) -> None:
    path, port = tmp_path / "server.db", free_port()
    async with LocalEventStoreDB(path=path, port=port) as uri:
        store = await EventStoreDBStore.open(uri)
        subscription = store.subscribe_all()
        await store.append(STREAM, some_events(2), NO_STREAM)
        assert len(await _until_events(subscription.next_batch, 2)) == 2
    async with asyncio.timeout(PATIENCE), LocalEventStoreDB(path=path, port=port):
        assert (await store.append(STREAM, some_events(2), 1)).revision == 3
        assert places(await _until_events(subscription.next_batch, 2)) == [(STREAM, 2), (STREAM, 3)]
        await store.aclose()

"""Consumer groups whose members live in two processes, or are cancelled, or ask for nonsense."""

import asyncio
import contextlib
import sqlite3
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from aion_es.errors import InvalidArgumentError
from aion_es.ids import StreamName
from aion_es.store.port import (
    ANY,
    Consumer,
    ConsumerGroupChanges,
    ConsumerGroupSettings,
    ConsumerStrategy,
    Delivery,
    NewEvent,
)
from aion_es.store.sqlite import SQLiteEventStore, leases, reader

S = StreamName("s")
PATIENCE = 10


def events(count: int) -> list[NewEvent]:
    return [NewEvent(uuid.UUID(int=next(_ids)), "Happened", b"{}", b"{}") for _ in range(count)]


_ids = iter(range(1, 2**62))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SQLiteEventStore]:
    async with await SQLiteEventStore.open(tmp_path / "store.db") as store:
        yield store


@pytest.fixture
async def other(store: SQLiteEventStore, tmp_path: Path) -> AsyncIterator[SQLiteEventStore]:
    """The same file, opened as another process would: nothing is shared but the file."""
    async with await SQLiteEventStore.open(tmp_path / "store.db") as other:
        yield other


async def joined(store: SQLiteEventStore, members: int) -> None:
    """Wait until so many consumers have joined; they may live in other processes."""
    async with asyncio.timeout(PATIENCE):
        while await _members(store) < members:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)


async def _members(store: SQLiteEventStore) -> int:
    (count,) = await store._pool.run(
        lambda connection: connection.execute("SELECT count(*) FROM consumers").fetchone()
    )
    return int(count)


async def take(consumer: Consumer) -> Delivery:
    async with asyncio.timeout(PATIENCE):
        return await anext(consumer)


async def handle_until(consumer: Consumer, done: list[int], total: int) -> int:
    """Answer deliveries until all are done; return how many were this consumer's."""
    count = 0
    while len(done) < total:
        try:
            async with asyncio.timeout(0.05):
                delivery = await anext(consumer)
        except TimeoutError:
            continue
        done.append(delivery.event.position.commit)
        await consumer.ack(delivery)
        count += 1
    return count


async def test_members_in_two_processes_share_the_events_and_each_is_handled_once(
    store: SQLiteEventStore, other: SQLiteEventStore
) -> None:
    await store.create_consumer_group("g")
    done: list[int] = []
    async with store.consume("g") as first, other.consume("g") as second:
        handling = asyncio.gather(handle_until(first, done, 100), handle_until(second, done, 100))
        for _ in range(50):
            await store.append(S, events(1), ANY)
            await other.append(S, events(1), ANY)
        async with asyncio.timeout(PATIENCE):
            shares = await handling
    assert sorted(done) == list(range(100))
    assert min(shares) > 0


async def test_a_change_holds_for_a_member_in_another_process(
    store: SQLiteEventStore, other: SQLiteEventStore
) -> None:
    await store.create_consumer_group("g", ConsumerGroupSettings(buffer_size=1))
    async with other.consume("g") as consumer:
        waiting = asyncio.ensure_future(take(consumer))
        await joined(store, 1)
        await store.update_consumer_group("g", ConsumerGroupChanges(buffer_size=2, max_retries=0))
        await store.append(S, events(2), ANY)
        held = [await waiting, await take(consumer)]
        for delivery in held:
            await consumer.nack(delivery)
    assert [d.event.revision for d in held] == [0, 1]
    assert await store.replay_parked("g") == 2


async def test_a_change_gives_nobody_again_what_was_handled_or_is_held(
    store: SQLiteEventStore,
) -> None:
    await store.create_consumer_group("g")
    await store.append(S, events(2), ANY)
    async with store.consume("g") as consumer:
        await consumer.ack(await take(consumer))
        held = await take(consumer)
        await store.update_consumer_group("g", ConsumerGroupChanges(max_retries=3))
        await store.append(S, events(1), ANY)
        last = await take(consumer)
        await consumer.ack(held)
    assert [(d.event.revision, d.attempt) for d in (held, last)] == [(1, 1), (2, 1)]


async def test_what_a_member_of_a_process_that_ended_held_goes_to_another(
    store: SQLiteEventStore, tmp_path: Path
) -> None:
    timeout = timedelta(milliseconds=500)
    await store.create_consumer_group("g", ConsumerGroupSettings(message_timeout=timeout))
    await store.append(S, events(1), ANY)
    gone = await SQLiteEventStore.open(tmp_path / "store.db")
    held = await take(gone.consume("g"))
    await gone.aclose()  # without leaving the group
    async with store.consume("g") as consumer:
        again = await take(consumer)
    assert (again.event, again.attempt) == (held.event, 2)


async def test_pinned_streams_stay_with_their_member_across_processes(
    store: SQLiteEventStore, other: SQLiteEventStore
) -> None:
    pinned = ConsumerGroupSettings(strategy=ConsumerStrategy.PINNED)
    await store.create_consumer_group("g", pinned)
    owners: dict[str, set[str]] = {}
    done: list[int] = []

    async def handle(consumer: Consumer, name: str) -> None:
        while len(done) < 60:
            try:
                async with asyncio.timeout(0.05):
                    delivery = await anext(consumer)
            except TimeoutError:
                continue
            owners.setdefault(delivery.event.stream, set()).add(name)
            done.append(delivery.event.position.commit)
            await consumer.ack(delivery)

    async with store.consume("g") as first, other.consume("g") as second:
        handling = asyncio.gather(handle(first, "first"), handle(second, "second"))
        await joined(other, 2)
        for _ in range(10):
            for n in range(6):
                await store.append(StreamName(f"s-{n}"), events(1), ANY)
        async with asyncio.timeout(PATIENCE):
            await handling
    assert sorted(done) == list(range(60))
    assert sorted(sorted(names) for names in owners.values()) == [["first"]] * 3 + [["second"]] * 3


async def test_a_cancelled_wait_loses_no_delivery(store: SQLiteEventStore) -> None:
    await store.create_consumer_group("g")
    async with store.consume("g") as consumer:
        taken: list[Delivery] = []
        await store.append(S, events(20), ANY)
        while len(taken) < 20:
            waiting = asyncio.ensure_future(take(consumer))
            for _ in range(len(taken) % 7):
                await asyncio.sleep(0)
            waiting.cancel()
            with_result = await asyncio.gather(waiting, return_exceptions=True)
            taken += [got for got in with_result if isinstance(got, Delivery)]
            if not taken or len(taken) % 7 == 0:
                taken.append(await take(consumer))
        assert [(d.event.revision, d.attempt) for d in taken] == [(n, 1) for n in range(20)]


async def test_what_was_taken_but_never_handed_out_counts_no_attempt(
    store: SQLiteEventStore,
) -> None:
    await store.create_consumer_group("g")
    await store.append(S, events(3), ANY)
    async with store.consume("g") as first:
        assert (await take(first)).event.revision == 0
    async with store.consume("g") as second:
        again = [await take(second) for _ in range(3)]
    assert [(d.event.revision, d.attempt) for d in again] == [(0, 2), (1, 1), (2, 1)]


async def test_an_event_that_compaction_took_away_is_not_delivered(
    store: SQLiteEventStore,
) -> None:
    await store.create_consumer_group("g")
    await store.append(S, events(2), ANY)
    async with store.consume("g") as first:
        await take(first)
    await store.delete(S, ANY)
    await store.append(StreamName("t"), events(1), ANY)
    assert await store.compact() == 2
    async with store.consume("g") as second:
        assert (await take(second)).event.stream == "t"


async def test_a_long_stretch_that_does_not_match_is_gone_through_once(
    store: SQLiteEventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "SCAN_POSITIONS", 10)
    await store.create_consumer_group("g", ConsumerGroupSettings(prefix="t"))
    await store.append(S, events(95), ANY)
    await store.append(StreamName("t"), events(1), ANY)
    async with store.consume("g") as consumer:
        assert (await take(consumer)).event.position.commit == 95


async def test_what_was_taken_is_not_handed_out_once_it_is_somebody_elses(
    store: SQLiteEventStore,
) -> None:
    timeout = timedelta(milliseconds=300)
    await store.create_consumer_group("g", ConsumerGroupSettings(message_timeout=timeout))
    await store.append(S, events(3), ANY)
    async with store.consume("g") as slow, store.consume("g") as other:
        assert (await take(slow)).event.revision == 0  # and has taken the other two
        for revision in range(3):
            delivery = await take(other)
            assert delivery.event.revision == revision
            await other.ack(delivery)
        await store.append(S, events(1), ANY)
        assert (await take(slow)).event.revision == 3


async def test_a_waiting_member_neither_writes_nor_looks_while_nothing_happens(
    store: SQLiteEventStore,
    other: SQLiteEventStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = 0
    look = leases.look

    def counted(*args: Any, **kwargs: Any) -> leases.Look:
        nonlocal looks
        looks += 1
        return look(*args, **kwargs)

    monkeypatch.setattr(leases, "look", counted)
    await store.create_consumer_group("g")
    async with store.consume("g") as first, other.consume("g") as second:
        waiting = [asyncio.ensure_future(take(c)) for c in (first, second)]
        await joined(store, 2)
        async with asyncio.timeout(PATIENCE):
            looked = -1
            while looks > looked:  # the last commit is still being noticed
                looked = looks
                await asyncio.sleep(0.2)
        with contextlib.closing(sqlite3.connect(tmp_path / "store.db")) as watching:
            before = watching.execute("PRAGMA data_version").fetchone()
            await asyncio.sleep(0.3)
            assert watching.execute("PRAGMA data_version").fetchone() == before
        assert looks == looked
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


@pytest.mark.parametrize(
    ("settings", "argument"),
    [
        (ConsumerGroupSettings(message_timeout=timedelta(0)), "message_timeout"),
        (ConsumerGroupSettings(max_retries=-1), "max_retries"),
        (ConsumerGroupSettings(buffer_size=0), "buffer_size"),
    ],
)
async def test_settings_that_make_no_sense_are_refused(
    store: SQLiteEventStore, settings: ConsumerGroupSettings, argument: str
) -> None:
    with pytest.raises(InvalidArgumentError) as refusal:
        await store.create_consumer_group("g", settings)
    assert refusal.value.argument == argument

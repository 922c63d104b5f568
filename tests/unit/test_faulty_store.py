"""`FaultyStore`: what a test has spoiled goes wrong, in every call; what it has not is passed on."""

import asyncio
import itertools
import random
import uuid
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from aion_es.errors import ConcurrencyConflictError, StoreUnavailableError
from aion_es.ids import StreamName
from aion_es.store.memory import MemoryEventStore
from aion_es.store.port import (
    NO_STREAM,
    CaughtUp,
    ConsumerGroupChanges,
    NewEvent,
    StreamMetadata,
)
from aion_es.testing import FaultyStore

STREAM = StreamName("s-1")
NEVER = timedelta(0)
numbers = itertools.count(1)


async def _drain_read(store: FaultyStore) -> None:
    async for _ in store.read(STREAM):
        pass


async def _drain_read_all(store: FaultyStore) -> None:
    async for _ in store.read_all():
        pass


def an_event() -> NewEvent:
    return NewEvent(uuid.UUID(int=next(numbers)), "Happened", b"{}", b"{}")


CALLS: dict[str, Callable[[FaultyStore], Awaitable[object]]] = {
    "append": lambda store: store.append(STREAM, [an_event()], NO_STREAM),
    "submit": lambda store: store.submit(STREAM, [an_event()], NO_STREAM),
    "read": _drain_read,
    "read_all": _drain_read_all,
    "head": lambda store: store.head(STREAM),
    "end_position": lambda store: store.end_position(),
    "next_batch": lambda store: store.subscribe_all().next_batch(),
    "next_batch of a stream": lambda store: store.subscribe(STREAM).next_batch(),
    "metadata": lambda store: store.metadata(STREAM),
    "set_metadata": lambda store: store.set_metadata(STREAM, StreamMetadata()),
    "delete": lambda store: store.delete(STREAM, NO_STREAM),
    "create_consumer_group": lambda store: store.create_consumer_group("g"),
    "update_consumer_group": lambda store: store.update_consumer_group("g", ConsumerGroupChanges()),
    "delete_consumer_group": lambda store: store.delete_consumer_group("g"),
    "replay_parked": lambda store: store.replay_parked("g"),
    "health": lambda store: store.health(),
}


@pytest.mark.parametrize("call", CALLS)
async def test_while_the_store_is_away_every_call_is_refused(call: str) -> None:
    store = FaultyStore(MemoryEventStore())
    store.go_away()
    with pytest.raises(StoreUnavailableError) as caught:
        await CALLS[call](store)
    assert not caught.value.outcome_unknown


@pytest.mark.parametrize("call", [c for c in CALLS if not c.startswith("next_batch")])
async def test_at_a_rate_of_one_every_call_goes_wrong(call: str) -> None:
    store = FaultyStore(MemoryEventStore())
    store.disturb(random.Random(0), rate=1, longest=NEVER)
    with pytest.raises(StoreUnavailableError):
        await CALLS[call](store)


async def test_a_healed_store_passes_everything_on() -> None:
    store = FaultyStore(MemoryEventStore())
    store.disturb(random.Random(0), rate=1, longest=NEVER)
    store.go_away()
    store.heal()
    await store.append(STREAM, [an_event()], NO_STREAM)
    assert [event.type async for event in store.read(STREAM)] == ["Happened"]


async def test_going_away_breaks_a_subscription_that_waits() -> None:
    store = FaultyStore(MemoryEventStore())
    async with store.subscribe_all() as subscription:
        assert [type(m) for m in await subscription.next_batch()] == [CaughtUp]
        waiting = asyncio.ensure_future(subscription.next_batch())
        await asyncio.sleep(0)
        store.go_away()
        with pytest.raises(StoreUnavailableError):
            await waiting


async def test_the_same_seed_harms_the_same_calls() -> None:
    async def harmed(seed: int) -> list[bool]:
        store = FaultyStore(MemoryEventStore())
        store.disturb(random.Random(seed), rate=0.5, longest=NEVER)
        answers = [
            await asyncio.gather(store.head(STREAM), return_exceptions=True) for _ in range(50)
        ]
        return [isinstance(answer, StoreUnavailableError) for (answer,) in answers]

    assert await harmed(7) == await harmed(7)
    assert 10 < sum(await harmed(7)) < 40


async def test_an_answer_that_is_lost_at_random_was_made_and_its_outcome_is_unknown() -> None:
    outcomes: set[tuple[bool, int]] = set()
    for seed in range(40):
        store = FaultyStore(MemoryEventStore())
        store.disturb(random.Random(seed), rate=1, longest=NEVER)
        with pytest.raises(StoreUnavailableError) as caught:
            await store.append(STREAM, [an_event()], NO_STREAM)
        outcomes.add((caught.value.outcome_unknown, len(store.committed)))
    assert outcomes == {(False, 0), (True, 0), (True, 1)}  # refused; too late; unanswered


async def test_calls_and_conflicts_are_counted() -> None:
    store = FaultyStore(MemoryEventStore())
    await store.append(STREAM, [an_event()], NO_STREAM)
    with pytest.raises(ConcurrencyConflictError):
        await store.append(STREAM, [an_event()], NO_STREAM)
    await store.head(STREAM)
    assert (store.called, store.conflicts) == ({"append": 2, "head": 1}, 1)

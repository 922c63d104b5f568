"""The spans of a store's calls: what each is called, what it says, and when it ends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.trace import SpanKind, StatusCode

from aion_es import Engine
from aion_es.errors import (
    ConcurrencyConflictError,
    ConsumerGroupNotFoundError,
    StoreClosedError,
    StoreUnavailableError,
)
from aion_es.store.memory import MemoryEventStore
from aion_es.store.observed import ObservedEventStore, observed
from aion_es.store.port import (
    ANY,
    NO_STREAM,
    CaughtUp,
    ConsumerGroupChanges,
    ConsumerGroupSettings,
    EventStore,
    FellBehind,
    StreamMetadata,
    Subscription,
    SubscriptionMessage,
)
from aion_es.store.sqlite import SQLiteEventStore
from aion_es.store.url import open_store
from aion_es.testing.faults import FaultyStore
from aion_es.testing.store_contract.base import OTHER, STREAM, collect, some_events
from tests.unit.recorded_spans import RecordedSpans, spans

__all__ = ["spans"]


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, spans: RecordedSpans) -> AsyncIterator[EventStore]:
    if request.param == "memory":
        yield observed(MemoryEventStore())
    else:
        async with await SQLiteEventStore.open(None) as inner:
            yield observed(inner)


def system_of(store: EventStore) -> str:
    assert isinstance(store, ObservedEventStore)
    return "memory" if isinstance(store.inner, MemoryEventStore) else "sqlite"


# ------------------------------------------------------------------------------ who is watched


async def test_without_an_sdk_a_store_is_left_as_it_is(tmp_path: Path) -> None:
    memory = MemoryEventStore()
    assert observed(memory) is memory
    store = await open_store(f"sqlite:///{tmp_path}/aion.db")
    assert type(store) is SQLiteEventStore
    await store.aclose()


async def test_with_an_sdk_every_store_that_is_opened_has_spans(
    spans: RecordedSpans, tmp_path: Path
) -> None:
    store = await open_store(f"sqlite:///{tmp_path}/aion.db")
    assert isinstance(store, ObservedEventStore)
    assert type(store.inner) is SQLiteEventStore
    await store.aclose()


async def test_an_engine_watches_the_store_that_it_is_given(spans: RecordedSpans) -> None:
    memory = MemoryEventStore()
    async with Engine.open(memory) as engine:
        assert isinstance(engine.store, ObservedEventStore)
        assert engine.store.inner is memory


async def test_a_store_is_watched_once(spans: RecordedSpans) -> None:
    once = observed(MemoryEventStore())
    assert observed(once) is once


# ------------------------------------------------------------------------------ appends


async def test_an_append_says_where_how_many_and_which_revision(
    spans: RecordedSpans, store: EventStore
) -> None:
    await store.append(STREAM, some_events(3), NO_STREAM)
    assert spans.names == ["aion.store.append"]
    assert spans.only("aion.store.append").kind is SpanKind.CLIENT
    assert spans.facts("aion.store.append") == {
        "db.system.name": system_of(store),
        "db.operation.name": "append",
        "db.operation.batch.size": 3,
        "aion.stream": STREAM,
        "aion.revision": 2,
    }


async def test_an_append_that_is_submitted_has_the_same_span_and_it_ends_with_the_answer(
    spans: RecordedSpans, store: EventStore
) -> None:
    answer = store.submit(STREAM, some_events(3), NO_STREAM)
    assert spans.names == []
    await answer
    await asyncio.sleep(0)  # callbacks of a future run in the loop's next turn
    assert spans.facts("aion.store.append")["aion.revision"] == 2


async def test_a_refused_append_says_why(spans: RecordedSpans, store: EventStore) -> None:
    with pytest.raises(ConcurrencyConflictError) as refused:
        await store.append(STREAM, some_events(1), 7)
    span = spans.only("aion.store.append")
    assert spans.facts("aion.store.append")["error.type"] == "concurrency_conflict"
    assert (span.status.status_code, span.status.description) == (
        StatusCode.ERROR,
        str(refused.value),
    )


async def test_a_submitted_append_that_fails_says_why(spans: RecordedSpans) -> None:
    faulty = FaultyStore(MemoryEventStore())
    faulty.fail()
    with pytest.raises(StoreUnavailableError):
        await observed(faulty).submit(STREAM, some_events(1), NO_STREAM)
    await asyncio.sleep(0)
    assert spans.facts("aion.store.append")["error.type"] == "store_unavailable"


async def test_a_submission_that_is_refused_at_once_ends_its_span(
    spans: RecordedSpans, store: EventStore
) -> None:
    await store.aclose()
    with pytest.raises(StoreClosedError):
        await store.submit(STREAM, some_events(1), NO_STREAM)
    await asyncio.sleep(0)
    assert spans.facts("aion.store.append")["error.type"] == "store_closed"


async def test_a_cancelled_append_is_no_failure(spans: RecordedSpans) -> None:
    faulty = FaultyStore(MemoryEventStore())
    faulty.hang()
    answer = observed(faulty).submit(STREAM, some_events(1), NO_STREAM)
    await asyncio.sleep(0)
    answer.cancel()
    await asyncio.wait({answer})
    await asyncio.sleep(0)
    assert spans.only("aion.store.append").status.status_code is StatusCode.UNSET
    assert spans.facts("aion.store.append")["error.type"] == "CancelledError"


async def test_what_an_append_does_meanwhile_is_its_child(spans: RecordedSpans) -> None:
    tracer = spans.provider.get_tracer("driver")

    class Driven(FaultyStore):
        async def head(self, stream: str) -> int:
            with tracer.start_as_current_span("driver.call"):
                return -1

    await observed(Driven(MemoryEventStore())).head(STREAM)
    parent = spans.only("driver.call").parent
    assert parent is not None
    assert parent.span_id == spans.only("aion.store.head").context.span_id


# ------------------------------------------------------------------------------ reads


async def test_a_read_says_how_many_it_gave(spans: RecordedSpans, store: EventStore) -> None:
    await store.append(STREAM, some_events(5), NO_STREAM)
    await store.append(OTHER, some_events(1), NO_STREAM)
    await collect(store.read(STREAM, from_revision=2))
    await collect(store.read_all(prefix="orders"))
    assert spans.names[2:] == ["aion.store.read", "aion.store.read_all"]
    read, read_all = spans.facts("aion.store.read"), spans.facts("aion.store.read_all")
    assert (read["aion.stream"], read["aion.events"]) == (STREAM, 3)
    assert (read_all["aion.prefix"], read_all["aion.events"]) == ("orders", 5)


async def test_a_read_that_is_left_ends_its_span_without_failure(
    spans: RecordedSpans, store: EventStore
) -> None:
    await store.append(STREAM, some_events(5), NO_STREAM)
    events: Any = store.read(STREAM)  # a generator, which the port does not promise
    async with aclosing(events):
        await anext(events)
        assert "aion.store.read" not in spans.names
    facts = spans.facts("aion.store.read")
    assert (facts["aion.events"], "error.type" in facts) == (1, False)
    assert spans.only("aion.store.read").status.status_code is StatusCode.UNSET


async def test_a_read_that_fails_says_why(spans: RecordedSpans, store: EventStore) -> None:
    await store.aclose()
    with pytest.raises(StoreClosedError):
        await collect(store.read(STREAM))
    assert spans.facts("aion.store.read")["error.type"] == "store_closed"


async def test_a_reader_is_not_inside_the_span_of_its_read(
    spans: RecordedSpans, store: EventStore
) -> None:
    await store.append(STREAM, some_events(1), NO_STREAM)
    async for _ in store.read(STREAM):
        with spans.provider.get_tracer("reader").start_as_current_span("reader.work"):
            pass
    assert spans.only("reader.work").parent is None


async def test_the_small_calls_have_spans_too(spans: RecordedSpans, store: EventStore) -> None:
    await store.set_metadata(STREAM, StreamMetadata(max_count=3))
    await store.metadata(STREAM)
    await store.head(STREAM)
    await store.append(STREAM, some_events(1), NO_STREAM)
    await store.delete(STREAM, ANY)
    assert spans.names == [
        f"aion.store.{name}" for name in ("set_metadata", "metadata", "head", "append", "delete")
    ]
    assert {dict(span.attributes or {})["aion.stream"] for span in spans.all} == {STREAM}


# ------------------------------------------------------------------------------ subscriptions


class _Told:
    """A subscription that gives what a test says."""

    def __init__(self, *batches: tuple[SubscriptionMessage, ...]) -> None:
        self._batches = [*batches]

    async def next_batch(self) -> tuple[SubscriptionMessage, ...]:
        return self._batches.pop(0)


class _Telling(MemoryEventStore):
    def __init__(self, told: _Told) -> None:
        super().__init__()
        self._told = told

    def subscribe_all(self, **_: object) -> Any:
        return self._told


async def test_a_subscription_has_a_span_until_it_has_caught_up(
    spans: RecordedSpans, store: EventStore
) -> None:
    await store.append(STREAM, some_events(3), NO_STREAM)
    async with store.subscribe_all(prefix="orders") as subscription:
        async for message in subscription:
            if isinstance(message, CaughtUp):
                break
        assert spans.names == ["aion.store.append", "aion.store.subscribe"]
        await store.append(STREAM, some_events(1), 2)
        await anext(aiter(subscription))
    assert spans.names.count("aion.store.subscribe") == 1
    assert spans.facts("aion.store.subscribe") == {
        "db.system.name": system_of(store),
        "db.operation.name": "subscribe",
        "aion.prefix": "orders",
        "aion.events": 3,
    }


async def test_a_subscription_to_a_stream_names_it(spans: RecordedSpans, store: EventStore) -> None:
    async with store.subscribe(STREAM):
        assert spans.names == []
    assert spans.facts("aion.store.subscribe")["aion.stream"] == STREAM


async def test_each_time_that_a_subscription_falls_behind_there_is_another_span(
    spans: RecordedSpans,
) -> None:
    source = MemoryEventStore()
    await source.append(STREAM, some_events(2), NO_STREAM)
    one, two = await collect(source.read(STREAM))
    told = _Told((one, CaughtUp()), (FellBehind(), two), (two, CaughtUp()))
    subscription = observed(_Telling(told)).subscribe_all()
    for ended in (1, 1, 2):
        await subscription.next_batch()
        assert spans.names.count("aion.store.subscribe") == ended
    counts = [dict(span.attributes or {})["aion.events"] for span in spans.all]
    assert counts == [1, 2]


async def _run_out(subscription: Subscription) -> None:
    while True:
        await subscription.next_batch()


async def test_a_subscription_that_fails_says_why(spans: RecordedSpans, store: EventStore) -> None:
    subscription = store.subscribe_all()
    await store.aclose()
    with pytest.raises(StoreClosedError):
        await _run_out(subscription)
    assert spans.facts("aion.store.subscribe")["error.type"] == "store_closed"


# ------------------------------------------------------------------------------ consumer groups


async def test_a_consumer_group_has_spans_for_what_is_done_with_it(
    spans: RecordedSpans, store: EventStore
) -> None:
    await store.append(STREAM, some_events(3), NO_STREAM)
    await store.create_consumer_group("mailers", ConsumerGroupSettings())
    async with store.consume("mailers") as consumer:
        first, second = await anext(consumer), await anext(consumer)
        await consumer.ack(first)
        await consumer.nack(second, "park")
    await store.replay_parked("mailers")
    await store.update_consumer_group("mailers", ConsumerGroupChanges(max_retries=1))
    await store.delete_consumer_group("mailers")
    assert spans.names[1:] == [
        f"aion.store.{name}"
        for name in (
            *("create_consumer_group", "consume", "ack", "nack"),
            *("replay_parked", "update_consumer_group", "delete_consumer_group"),
        )
    ]
    assert {dict(span.attributes or {})["aion.consumer_group"] for span in spans.all[1:]} == {
        "mailers"
    }
    assert spans.facts("aion.store.nack") == {
        "db.system.name": system_of(store),
        "db.operation.name": "nack",
        "aion.consumer_group": "mailers",
        "aion.stream": STREAM,
        "aion.revision": 1,
        "aion.attempt": 1,
        "aion.action": "park",
    }
    assert spans.facts("aion.store.replay_parked")["aion.events"] == 1


async def test_joining_an_unknown_group_says_why(spans: RecordedSpans, store: EventStore) -> None:
    async with store.consume("nobody") as consumer:
        with pytest.raises(ConsumerGroupNotFoundError):
            await anext(consumer)
    assert spans.facts("aion.store.consume")["error.type"] == "consumer_group_not_found"

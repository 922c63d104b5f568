"""The spans of the EventStoreDB adapter: one per call, and one more for a subscription that was cut off."""

import pytest

from aion_es.store.observed import ObservedEventStore
from aion_es.store.port import NO_STREAM, CaughtUp, RecordedEvent
from aion_es.store.url import open_store
from aion_es.testing.store_contract.base import STREAM, collect, some_events
from tests.unit.recorded_spans import RecordedSpans, spans

pytest.importorskip("grpc", reason="no EventStoreDB client is installed: make test-clients")

from aion_es.testing.eventstoredb import LocalEventStoreDB

__all__ = ["spans"]


async def test_calls_have_the_spans_that_they_have_on_every_store(spans: RecordedSpans) -> None:
    async with LocalEventStoreDB() as uri:
        store = await open_store(uri)
        assert isinstance(store, ObservedEventStore)
        await store.append(STREAM, some_events(3), NO_STREAM)
        await collect(store.read(STREAM))
        await store.aclose()
    assert spans.names == ["aion.store.append", "aion.store.read"]
    assert spans.facts("aion.store.append") == {
        "db.system.name": "eventstoredb",
        "db.operation.name": "append",
        "db.operation.batch.size": 3,
        "aion.stream": STREAM,
        "aion.revision": 2,
    }


async def test_a_subscription_that_was_cut_off_has_another_span_until_it_is_live_again(
    spans: RecordedSpans,
) -> None:
    server = LocalEventStoreDB()
    async with server as uri:
        store = await open_store(uri)
        await store.append(STREAM, some_events(2), NO_STREAM)
        revisions: list[int] = []
        async with store.subscribe_all() as subscription:
            for live in (1, 2):
                async for message in subscription:
                    if isinstance(message, RecordedEvent):
                        revisions.append(message.revision)
                    if isinstance(message, CaughtUp):
                        break
                assert spans.names.count("aion.store.subscribe") == live
                server.faults.drop_subscriptions()
        await store.aclose()
    assert revisions == [0, 1]

"""The store contract, over the EventStoreDB adapter and the local server."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import ClassVar

import pytest

from aion_es.store.port import NO_STREAM, ConsumerGroupSettings, EventStore
from aion_es.store.url import open_store
from aion_es.testing.store_contract import StoreContract
from aion_es.testing.store_contract.base import STREAM, some_events

pytest.importorskip("grpc", reason="no EventStoreDB client is installed: make test-clients")

from aion_es.testing.eventstoredb import LocalEventStoreDB


class TestEventStoreDBStore(StoreContract):
    patience: ClassVar[float] = 30.0
    examples: ClassVar[int] = 8
    message_timeout: ClassVar[timedelta] = timedelta(seconds=1)
    """The server looks for time-outs once a second."""
    not_ours: ClassVar[Sequence[str]] = ("PollerCompletionQueue._handle_events",)
    """gRPC wakes every event loop that the process has had, and one of them may be closed by then."""

    _uri = ""

    @asynccontextmanager
    async def open_store(self) -> AsyncIterator[EventStore]:
        async with LocalEventStoreDB() as uri:
            self._uri = uri
            store = await open_store(uri)
            try:
                yield store
            finally:
                await store.aclose()

    async def test_a_consumer_holds_no_more_than_its_buffer(self, store: EventStore) -> None:
        """In place of the contract's: a server gives a consumer what fits its buffer before it asks."""
        await store.create_consumer_group("mailers", ConsumerGroupSettings(buffer_size=2))
        await store.append(STREAM, some_events(4), NO_STREAM)
        async with store.consume("mailers") as consumer:
            held = await self.take(consumer, 2)
            async with asyncio.TaskGroup() as group:
                waiting = group.create_task(self.take(consumer, 1))
                await asyncio.wait({waiting}, timeout=0.3)
                assert not waiting.done()
                await consumer.ack(held[0])
                after = await waiting
        assert [d.event.revision for d in (*held, *after)] == [0, 1, 2]

    async def reopen(self, store: EventStore) -> EventStore:
        await store.aclose()
        return await open_store(self._uri)

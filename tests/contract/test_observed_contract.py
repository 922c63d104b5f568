"""A store that is watched keeps the contract as the store itself does."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aion_es.store.memory import MemoryEventStore
from aion_es.store.observed import ObservedEventStore
from aion_es.store.port import EventStore
from aion_es.testing.store_contract import StoreContract


class TestObservedEventStore(StoreContract):
    @asynccontextmanager
    async def open_store(self) -> AsyncIterator[EventStore]:
        store = ObservedEventStore(MemoryEventStore())
        yield store
        await store.aclose()

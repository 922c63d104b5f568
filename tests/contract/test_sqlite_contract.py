"""The SQLite store keeps the contract, in a file and in memory."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from aion_es.store.port import EventStore
from aion_es.store.sqlite import SQLiteEventStore
from aion_es.store.url import open_store
from aion_es.testing import StoreContract


class TestSQLiteEventStoreInAFile(StoreContract):
    examples = 12  # each opens a file and syncs its commits
    message_timeout = timedelta(
        milliseconds=400
    )  # a delivery is a commit, on a disk that may be busy

    @asynccontextmanager
    async def open_store(self) -> AsyncIterator[EventStore]:
        with tempfile.TemporaryDirectory() as directory:
            store = await SQLiteEventStore.open(Path(directory) / "store.db")
            self.path = Path(directory) / "store.db"
            yield store
            await store.aclose()

    async def reopen(self, store: EventStore) -> EventStore:
        await store.aclose()
        return await SQLiteEventStore.open(self.path)


class TestSQLiteEventStoreInMemory(StoreContract):
    @asynccontextmanager
    async def open_store(self) -> AsyncIterator[EventStore]:
        store = await open_store("sqlite://")
        yield store
        await store.aclose()

"""What the tests of the runner share: a store, and a read model on each database."""

from collections.abc import AsyncIterator

import pytest

from aion_es.projections import ReadModel
from aion_es.store.memory import MemoryEventStore


@pytest.fixture
async def store() -> AsyncIterator[MemoryEventStore]:
    """An empty event store in memory."""
    made = MemoryEventStore()
    yield made
    await made.aclose()


@pytest.fixture
async def model(read_model_url: str) -> AsyncIterator[ReadModel]:
    """An empty read model: on SQLite, and on PostgreSQL."""
    async with await ReadModel.open(read_model_url) as made:
        yield made


@pytest.fixture
async def two_models(read_model_url: str) -> AsyncIterator[tuple[ReadModel, ReadModel]]:
    """One empty read model, opened twice, as two processes do it: on SQLite, and on PostgreSQL."""
    async with (
        await ReadModel.open(read_model_url) as one,
        await ReadModel.open(read_model_url) as other,
    ):
        yield one, other

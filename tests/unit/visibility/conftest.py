"""A read model with a few runs, on each database, and what asks it."""

from collections.abc import AsyncIterator

import pytest

from aion_es.aggregates.attributes import AttributeSchema
from aion_es.projections import ProjectionRunner, ReadModel, VisibilityProjection
from aion_es.store.memory import MemoryEventStore
from aion_es.visibility import Visibility
from tests.unit.visibility.sample import fold, sample


@pytest.fixture
async def model(read_model_url: str) -> AsyncIterator[ReadModel]:
    async with await ReadModel.open(read_model_url) as made:
        await fold(made, sample())
        yield made


@pytest.fixture
async def visibility(model: ReadModel) -> AsyncIterator[Visibility]:
    store = MemoryEventStore()
    runner = ProjectionRunner(store, model, [VisibilityProjection()], prefix="aion_")
    yield Visibility(model, runner, AttributeSchema())
    await store.aclose()

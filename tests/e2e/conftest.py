"""Engines over each store, one after the other on the same data, with every append counted."""

from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aion_es import Engine, EngineOptions, SearchAttribute
from aion_es.app import OpeningEngine
from aion_es.clock import SleepingClock
from aion_es.ids import IdSource
from aion_es.store.memory import MemoryEventStore
from aion_es.store.port import EventStore
from aion_es.store.sqlite import Durability, SQLiteEventStore
from aion_es.testing.clock import ManualClock
from aion_es.testing.faults import FaultyStore


class EngineOpener:
    """Opens engines on one store; the events stay when an engine is left."""

    def __init__(self, store: FaultyStore, read_model: str, *, evicts: bool) -> None:
        self.store = store
        self._read_model = read_model
        self._evicts = evicts

    def __call__(
        self,
        workflows: Iterable[Any] = (),
        activities: Iterable[Any] = (),
        *,
        search_attributes: Iterable[SearchAttribute[Any]] = (),
        options: EngineOptions | None = None,
        clock: SleepingClock | None = None,
        ids: IdSource | None = None,
    ) -> OpeningEngine:
        if self._evicts:
            options = replace(options or EngineOptions(), max_resident=0)
        return Engine.open(
            self.store,
            workflows=workflows,
            activities=activities,
            search_attributes=search_attributes,
            read_model=self._read_model,
            options=options,
            clock=clock,
            ids=ids,
        )


resident = pytest.mark.parametrize("store", ["memory", "sqlite"], indirect=True)
"""For a test that counts which runs are in memory: it does not run with all of them evicted."""


@pytest.fixture(params=["memory", "sqlite", "evicting"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[FaultyStore]:
    """Every test runs on both stores, and once more with each run out of memory after every step."""
    inner: EventStore
    if request.param != "sqlite":
        inner = MemoryEventStore()
    else:
        inner = await SQLiteEventStore.open(tmp_path / "aion.db", durability=Durability.NORMAL)
    yield FaultyStore(inner)
    await inner.aclose()


@pytest.fixture
def open_engine(store: FaultyStore, tmp_path: Path, request: pytest.FixtureRequest) -> EngineOpener:
    evicts = "evicting" in request.node.callspec.id.split("-")
    return EngineOpener(store, f"sqlite:///{tmp_path / 'readmodel.db'}", evicts=evicts)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()

"""Packages while the store fails: at whichever append, the catalog is whole, and its commands can be given again."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from aion_es import Engine, EngineOptions, Signal
from aion_es.app import OpeningEngine
from aion_es.errors import StoreError
from aion_es.store.memory import MemoryEventStore
from aion_es.store.port import EventStore
from aion_es.testing.faults import FaultyStore
from tests.e2e.scenario import SOON

go = Signal("go")
AT_ONCE = EngineOptions(shutdown_grace=timedelta(0), store_patience=timedelta(milliseconds=20))

CODE = """
from aion_es import Context, Signal, workflow

go = Signal("go")

@workflow
async def waits(ctx: Context) -> str:
    await ctx.receive(go)
    return TEXT

@workflow
async def tells(ctx: Context) -> str:
    return TEXT
"""


def package(folder: Path, text: str) -> Path:
    place = folder / text
    place.mkdir()
    (place / "flows.py").write_text(f"{CODE}\nTEXT = {text!r}\n")
    return place


async def commands(engine: Engine, one: Path, two: Path, done: list[str]) -> None:
    """Load both packages, lead new runs back to the first, let go of the second; note how far it came."""
    first = await engine.catalog.load_package(one)
    done.append("loaded")
    await engine.start("waits", id="old", request_id="old")
    done.append("started")
    second = await engine.catalog.load_package(two)
    await engine.catalog.route_group({"waits": first.version, "tells": first.version})
    await engine.catalog.unload(second.version)
    done.append("unloaded")


def crash(store: FaultyStore, number: int) -> None:
    store.crash_after(number - 1)


def lose(store: FaultyStore, number: int) -> None:
    store.lose_answer(number, times=1)


def fail(store: FaultyStore, number: int) -> None:
    store.fail(number, times=1)


@pytest.mark.parametrize("spoil", [crash, lose, fail])
async def test_a_fault_at_any_append_leaves_a_catalog_that_is_whole_and_goes_on(
    tmp_path: Path, spoil: Callable[[FaultyStore, int], None]
) -> None:
    one, two = package(tmp_path, "one"), package(tmp_path, "two")
    number, was_hit = 0, True
    while was_hit:
        number += 1
        kept = MemoryEventStore()
        store = FaultyStore(kept)
        spoil(store, number)
        rows = f"sqlite:///{tmp_path / f'{number}.db'}"
        done: list[str] = []
        async with opened(store, rows) as engine:
            try:
                await commands(engine, one, two, done)
            except StoreError:
                assert done[-1:] != ["unloaded"]
        was_hit = store.calls >= number
        async with opened(kept, rows) as engine:
            await engine.wait_recovered(SOON)
            assert [p.failure for p in engine.catalog.list_packages() if p.failure] == []
            assert {len(p.routed) for p in engine.catalog.list_packages()} <= {0, 2}
            assert engine.orphaned == ()
            await commands(engine, one, two, done)
            await engine.handle("old").signal(go)
            assert await engine.handle("old").result(timeout=SOON) == "one"
            assert await (await engine.start("tells")).result(timeout=SOON) == "one"
            assert [p.name for p in engine.catalog.list_packages()] == ["one"]
        await kept.aclose()
    assert number == 8  # seven appends, and once without a fault


def opened(store: EventStore, rows: str) -> OpeningEngine:
    return Engine.open(store, read_model=rows, options=AT_ONCE)

"""Engines over EventStoreDB: the whole end-to-end suite once more, on the adapter and the local server."""

import asyncio
import importlib
import random
import signal
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from aion_es import Context, Engine, Signal, activity, workflow
from aion_es.app import OpeningEngine
from aion_es.ids import DEFAULT_NAMESPACE, WorkflowId, workflow_stream
from aion_es.store.copying import copy_streams
from aion_es.store.eventstoredb import EventStoreDBStore
from aion_es.store.port import EventStore, RecordedEvent
from aion_es.store.sqlite import SQLiteEventStore
from aion_es.testing.clock import ManualClock
from aion_es.testing.faults import FaultyStore
from tests.e2e.conftest import EngineOpener
from tests.e2e.cutting_proxy import CuttingProxy
from tests.e2e.scenario import SOON, stream_of, until

pytest.importorskip("grpc", reason="no EventStoreDB client is installed: make test-clients")

from aion_es.testing.eventstoredb import LocalEventStoreDB

ROOT = Path(__file__).parents[2]
RUNS = 12
GOAL = 15
FAR = 100
WORD = Signal("word", str)
SUITES = (
    "activities",
    "asyncio_inside",
    "children",
    "combinators",
    "continue_as_new",
    "eviction",
    "lifecycle",
    "queries",
    "reopen",
    "results",
    "retries",
    "sent_signals",
    "signals",
    "store_away",
    "timers",
    "two_engines",
    "versions",
)


@pytest.fixture
async def store() -> AsyncIterator[FaultyStore]:
    """What the suites' engines are opened on; the nearest fixture of this name wins."""
    async with LocalEventStoreDB() as uri:
        inner = await EventStoreDBStore.open(uri)
        yield FaultyStore(inner)
        await inner.aclose()


@pytest.fixture
def open_engine(store: FaultyStore, tmp_path: Path) -> EngineOpener:
    return EngineOpener(store, f"sqlite:///{tmp_path / 'readmodel.db'}", evicts=False)


def _tests_and_fixtures() -> dict[str, Any]:
    """Return the suites' tests under names of their own, and the fixtures that they bring."""
    found: dict[str, Any] = {}
    for suite in SUITES:
        module = importlib.import_module(f"tests.e2e.test_{suite}")
        for name, value in vars(module).items():
            if name.startswith("test_"):
                found[f"test_{suite}__{name.removeprefix('test_')}"] = value
            elif type(value).__name__ == "FixtureFunctionDefinition":
                found[name] = value
    return found


globals().update(_tests_and_fixtures())


@pytest.fixture
async def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """What two engines of one process are opened by; their read model is beside, in the working directory."""
    monkeypatch.chdir(tmp_path)
    async with LocalEventStoreDB() as uri:
        yield uri


# ------------------------------------------------------------------------------ by its URL


@activity
async def add_one(number: int) -> int:
    await asyncio.sleep(0.01)
    return number + 1


@workflow
async def counting(ctx: Context, goal: int) -> int:
    number = 0
    while number < goal:
        number = await ctx.run(add_one, number)
    return number


@workflow
async def resting(ctx: Context) -> str:
    await ctx.sleep(timedelta(hours=3))
    return "rested"


@workflow
async def chained(ctx: Context, left: int) -> int:
    await ctx.sleep(timedelta(milliseconds=5))
    return ctx.continue_as_new(left - 1) if left else 0


@workflow
async def told(ctx: Context) -> str:
    return await ctx.receive(WORD)


async def test_an_engine_opened_by_a_connection_string_does_all_that_it_does_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with LocalEventStoreDB() as uri:
        async with Engine.open(
            uri, workflows=[counting, chained, told], activities=[add_one]
        ) as engine:
            count = await engine.start(counting, 5)
            chain = await engine.start(chained, 3)
            word = await engine.start(told)
            await word.signal(WORD, "hello")
            assert await count.result(timeout=SOON) == 5
            assert await chain.result(timeout=SOON) == 0
            assert await word.result(timeout=SOON) == "hello"
            await engine.projections.wait_until_caught_up()
            assert await engine.visibility.count() == 6
        assert (tmp_path / "aion.readmodel.db").exists()


# ------------------------------------------------------------------------------ kill and recover


def _engine(uri: str, read_model: Path) -> OpeningEngine:
    return Engine.open(
        uri,
        workflows=[counting],
        activities=[add_one],
        read_model=f"sqlite:///{read_model}",
    )


async def _be_killed(uri: str, read_model: Path) -> None:
    async with _engine(uri, read_model) as engine:
        for number in range(RUNS):
            await engine.start(counting, GOAL, id=f"count-{number}", on_conflict="use_existing")
        await asyncio.sleep(60)


async def _types(store: EventStoreDBStore, number: int) -> list[str]:
    stream = workflow_stream(DEFAULT_NAMESPACE, WorkflowId(f"count-{number}"))
    return [event.type async for event in store.read(stream)]


async def test_an_engine_that_was_killed_is_recovered_by_the_next_and_repeats_nothing(
    tmp_path: Path,
) -> None:
    read_model = tmp_path / "readmodel.db"
    async with LocalEventStoreDB() as uri, await EventStoreDBStore.open(uri) as store:
        command = [sys.executable, "-m", __name__, uri, str(read_model)]
        child = await asyncio.create_subprocess_exec(*command, cwd=ROOT)
        await until(
            lambda: _stored_at_least(store, RUNS * GOAL), seconds=40
        )  # half of what there will be
        child.send_signal(signal.SIGKILL)
        assert await child.wait() == -signal.SIGKILL
        before = {number: await _types(store, number) for number in range(RUNS)}
        assert any(types[-1] != "WorkflowCompleted" for types in before.values())
        async with _engine(uri, read_model) as engine:
            for number in range(RUNS):
                assert await engine.handle(f"count-{number}").result(timeout=SOON) == GOAL
        after = {number: await _types(store, number) for number in range(RUNS)}
    for number in range(RUNS):
        assert after[number][: len(before[number])] == before[number]
        assert after[number].count("ActivityCompleted") == GOAL
        assert after[number].count("WorkflowCompleted") == 1


async def _stored_at_least(store: EventStoreDBStore, count: int) -> bool:
    return (await store.end_position()).commit >= count  # the local server counts events


# ------------------------------------------------------------------------------ moving


async def test_a_workflow_that_slept_on_sqlite_goes_on_on_eventstoredb(
    tmp_path: Path, clock: ManualClock
) -> None:
    source = await SQLiteEventStore.open(tmp_path / "aion.db")
    async with Engine.open(source, workflows=[resting], clock=clock) as engine:
        await engine.start(resting, id="sleeper")
        await until(lambda: _is_asleep(engine))
    async with LocalEventStoreDB() as uri, await EventStoreDBStore.open(uri) as destination:
        progress = await copy_streams(source, destination)
        assert progress.verified == progress.copied == len(await handle_events(source))
        async with Engine.open(destination, workflows=[resting], clock=clock) as engine:
            await engine.wait_recovered(SOON)
            clock.advance(timedelta(hours=4))
            assert await engine.handle("sleeper").result(timeout=SOON) == "rested"
    await source.aclose()


async def handle_events(store: EventStore) -> list[RecordedEvent]:
    return [event async for event in store.read_all()]


async def _is_asleep(engine: Engine) -> bool:
    return "TimerStarted" in await stream_of(engine, "sleeper")


# ------------------------------------------------------------------------------ a bad network


@pytest.mark.timeout(180)
async def test_through_a_network_that_cuts_and_stalls_every_history_is_as_without(
    tmp_path: Path,
) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # pytest shows it when the test fails
    server = LocalEventStoreDB()
    async with server, CuttingProxy(server.port, seed) as proxy:
        options = "Tls=false&DefaultDeadline=1&KeepAliveInterval=1000&KeepAliveTimeout=500"
        uri = f"esdb://127.0.0.1:{proxy.port}?{options}"
        async with _engine(uri, tmp_path / "readmodel.db") as engine:
            harming = asyncio.ensure_future(_harm(proxy))
            handles = [
                await engine.start(counting, FAR, id=f"count-{number}", request_id=f"{number}")
                for number in range(RUNS)
            ]
            results = [await handle.result(timeout=timedelta(seconds=90)) for handle in handles]
            harming.cancel()
        assert results == [FAR] * RUNS
        assert min(proxy.done.values()) > 0
        async with await EventStoreDBStore.open(server.uri) as store:
            histories = [_settled(await _types(store, number)) for number in range(RUNS)]
    expected = ["WorkflowStarted"]
    expected += ["ActivityScheduled", "ActivityCompleted"] * FAR
    expected += ["WorkflowCompleted"]
    assert histories == [expected] * RUNS


def _settled(types: list[str]) -> list[str]:
    """Leave out that an attempt began: how often is a matter of luck."""
    return [kind for kind in types if kind != "ActivityStarted"]


async def _harm(proxy: CuttingProxy) -> None:
    while True:
        await asyncio.sleep(0.4)
        proxy.harm()


if __name__ == "__main__":
    asyncio.run(_be_killed(sys.argv[1], Path(sys.argv[2])))

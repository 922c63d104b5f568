"""Two engines on one store, in one process and in two: work may be wasted, never corrupted."""

import asyncio
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Self

import pytest

from aion_es import Client, Context, Engine, Query, RetryPolicy, Signal, activity, workflow
from aion_es.app import OpeningEngine
from aion_es.errors import WorkflowAlreadyStartedError
from aion_es.ids import StreamName
from aion_es.store.closing import ClosesOnExit
from aion_es.store.memory import MemoryEventStore
from aion_es.store.port import (
    START,
    EventStore,
    Position,
    RecordedEvent,
    StoreLimits,
    Subscription,
    SubscriptionMessage,
)
from aion_es.store.sqlite import Durability, SQLiteEventStore
from aion_es.testing.faults import FaultyStore
from tests.crash.engine_shapes import (
    ACTIVITIES,
    SHAPES,
    WORKFLOWS,
    Shape,
    completed_keys,
    decisions,
    events_of,
    undisturbed,
)
from tests.e2e.other_engine import LINGERING, LINGERING_ACTIVITIES
from tests.e2e.scenario import SOON, kinds, stream_of, until

number = Signal("number", int)
total = Query("total", int)
ROOT = Path(__file__).parents[2]


@activity
async def add(values: list[int]) -> int:
    await asyncio.sleep(0.001)
    return sum(values)


@workflow
async def adds_up(ctx: Context) -> int:
    """Six signals, an activity after each, a short sleep between."""
    now = 0
    ctx.answer(total, lambda: now)
    for _ in range(6):
        now = await ctx.run(add, [now, await ctx.receive(number)])
        await asyncio.sleep(0.001)
    return now


@workflow
async def counts_down(ctx: Context, left: int) -> str:
    await ctx.receive(number)
    if not left:
        return "lift-off"
    return ctx.continue_as_new(left - 1)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'aion.db'}?durability=normal"


@pytest.fixture
def file_url(tmp_path: Path) -> str:
    """What several processes can open, whatever the engines of one process are over."""
    return f"sqlite:///{tmp_path / 'aion.db'}?durability=normal"


@pytest.fixture
async def two(url: str) -> AsyncIterator[tuple[Engine, Engine]]:
    def opened() -> OpeningEngine:
        return Engine.open(
            url,
            workflows=[adds_up, counts_down, *WORKFLOWS],
            activities=[add, *ACTIVITIES],
        )

    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(opened())
        yield first, await stack.enter_async_context(opened())


async def test_what_one_engine_started_the_other_can_signal_query_and_wait_for(
    two: tuple[Engine, Engine],
) -> None:
    here, there = two
    handle = await here.start(adds_up, id="w")
    other = there.handle("w", adds_up)
    waiting = asyncio.ensure_future(other.result(timeout=SOON))
    for value in range(6):
        await other.signal(number, value)
    assert await handle.result(timeout=SOON) == 15
    assert await waiting == 15
    assert await other.query(total) == 15


async def test_signals_from_both_engines_are_each_received_once(
    two: tuple[Engine, Engine],
) -> None:
    here, there = two
    handles = [await here.start(adds_up, id=f"w{i}") for i in range(10)]
    await asyncio.gather(
        *(
            engine.handle(f"w{i}").signal(number, 1, signal_id=f"{name}-{k}")
            for i in range(10)
            for k in range(3)
            for name, engine in (("here", here), ("there", there))
        )
    )
    results = await asyncio.gather(*(h.result(timeout=SOON) for h in handles))
    assert results == [6] * 10
    for i in range(10):
        recorded = await stream_of(here, f"w{i}")
        assert {kind: recorded.count(kind) for kind in sorted(set(recorded))} == {
            "ActivityCompleted": 6,
            "ActivityScheduled": 6,
            "ActivityStarted": recorded.count("ActivityStarted"),
            "SignalReceived": 6,
            "TimerFired": 6,
            "TimerStarted": 6,
            "WorkflowCompleted": 1,
            "WorkflowStarted": 1,
        }


async def test_both_starting_the_same_id_start_one_run(two: tuple[Engine, Engine]) -> None:
    outcomes = await asyncio.gather(
        *(engine.start(adds_up, id=f"w{i}") for i in range(20) for engine in two),
        return_exceptions=True,
    )
    refused = [o for o in outcomes if isinstance(o, WorkflowAlreadyStartedError)]
    assert len(refused) == 20
    assert [await stream_of(two[0], f"w{i}") for i in range(20)] == [["WorkflowStarted"]] * 20


async def test_who_waits_in_one_engine_is_told_that_a_run_continued_in_the_other(
    two: tuple[Engine, Engine],
) -> None:
    here, there = two
    handle = await here.start(counts_down, 3, id="w")
    waiting = asyncio.ensure_future(handle.result(timeout=SOON))
    for _ in range(4):
        await there.handle("w").signal(number, 1)
    assert await waiting == "lift-off"


async def test_who_waits_in_one_engine_is_told_that_the_other_terminated_the_run(
    two: tuple[Engine, Engine],
) -> None:
    here, there = two
    handle = await here.start(adds_up, id="w")
    waiting = asyncio.ensure_future(handle.result(timeout=SOON))
    await asyncio.sleep(0)
    await there.handle("w").terminate("from there")
    with pytest.raises(Exception, match="from there"):
        await waiting
    await until(lambda: len(here.registry) == 0)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.code)
async def test_driven_from_both_sides_every_shape_ends_once_and_as_if_alone(
    two: tuple[Engine, Engine], shape: Shape
) -> None:
    here, there = two
    ids = [f"{shape.code}-{i}" for i in range(4)]
    expected = [await undisturbed(shape, name) for name in ids]
    results = await asyncio.gather(
        *(shape.drive(here, shape.code, name) for name in ids),
        *(shape.accompany(there, name) for name in ids),
    )
    assert results == [shape.result] * 8
    for name, alone in zip(ids, expected, strict=True):
        events = await events_of(here.store, name)
        assert decisions(events) == alone
        assert len(set(completed_keys(events))) == len(completed_keys(events))


async def test_an_engine_that_opens_while_another_works_lets_it_finish(url: str) -> None:
    gate = asyncio.Event()
    attempts: list[int] = []

    @activity(retry=RetryPolicy(max_attempts=1))
    async def gated() -> str:
        attempts.append(activity.info().attempt)
        await gate.wait()
        return "finished"

    @workflow
    async def works(ctx: Context) -> str:
        return await ctx.run(gated)

    async with Engine.open(url, workflows=[works], activities=[gated]) as here:
        handle = await here.start(works, id="w")
        await until(lambda: attempts == [1])
        async with Engine.open(url, workflows=[works], activities=[gated]) as there:
            await there.wait_recovered(SOON)
            gate.set()
            assert await handle.result(timeout=SOON) == "finished"
            assert (await kinds(handle))[-1] == "WorkflowCompleted"


class OneByOne(FaultyStore):
    """Delivers events one by one, as EventStoreDB does: an append comes in as many batches as it has events.

    Attributes:
        streams: Those of workflows that were read.
    """

    def __init__(self, store: EventStore) -> None:
        super().__init__(store)
        self.streams: set[str] = set()

    def read(
        self,
        stream: StreamName,
        *,
        from_revision: int | None = None,
        backwards: bool = False,
        limit: int | None = None,
    ) -> AsyncIterator[RecordedEvent]:
        """See `EventReader`."""
        if stream.startswith("aion_workflow-"):
            self.streams.add(stream)
        return super().read(stream, from_revision=from_revision, backwards=backwards, limit=limit)

    @property
    def limits(self) -> StoreLimits:
        """See `EventStore`: such a store is known by them."""
        return replace(super().limits, cuts_appends=True)

    def subscribe_all(self, *, from_position: Position = START, prefix: str = "") -> Subscription:
        """See `EventSubscriber`."""
        return _OneByOne(super().subscribe_all(from_position=from_position, prefix=prefix))


class _OneByOne(ClosesOnExit):
    def __init__(self, inner: Subscription) -> None:
        self._inner = inner

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SubscriptionMessage:
        return await self._inner.__anext__()

    async def next_batch(self) -> Sequence[SubscriptionMessage]:
        await asyncio.sleep(0)
        return [await self._inner.__anext__()]

    async def aclose(self) -> None:
        await self._inner.aclose()


async def test_an_engine_does_not_read_the_runs_that_another_drives_where_events_come_one_by_one(
    tmp_path: Path,
) -> None:
    inner = MemoryEventStore()
    stores = [OneByOne(inner) for _ in range(2)]
    read_model = f"sqlite:///{tmp_path / 'readmodel.db'}"
    async with AsyncExitStack() as stack:
        here, there = [
            await stack.enter_async_context(
                Engine.open(store, workflows=[adds_up], activities=[add], read_model=read_model)
            )
            for store in stores
        ]
        await there.wait_recovered(SOON)
        handles = [await here.start(adds_up, id=f"w{i}") for i in range(10)]
        for handle in handles:
            for value in range(6):
                await handle.signal(number, value)
        assert [await handle.result(timeout=SOON) for handle in handles] == [15] * 10
        client = await stack.enter_async_context(Client.open(inner, read_model=read_model))
        await client.start(adds_up, id="after")  # which is for both of them to look at
        await until(lambda: "aion_workflow-after" in stores[1].streams)
        assert stores[1].streams == {"aion_workflow-after"}


async def test_what_a_client_records_is_taken_up_where_events_come_one_by_one(
    tmp_path: Path,
) -> None:
    store = OneByOne(MemoryEventStore())
    read_model = f"sqlite:///{tmp_path / 'readmodel.db'}"
    async with (
        Engine.open(store, workflows=[adds_up], activities=[add], read_model=read_model) as engine,
        Client.open(store, read_model=read_model) as client,
    ):
        await engine.wait_recovered(SOON)
        handle = await client.start(adds_up, id="w")
        for value in range(6):
            await handle.signal(number, value)
        assert await handle.result(timeout=SOON) == 15


@pytest.mark.timeout(180)
async def test_two_processes_share_the_work_of_one_file(
    file_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXECUTIONS", str(tmp_path / "executions.log"))
    ids = [f"w{i}" for i in range(2 * len(SHAPES))]
    shapes = [SHAPES[i % len(SHAPES)] for i in range(len(ids))]
    path = tmp_path / "aion.db"
    with _other_process("drive", file_url, *ids) as other:
        try:
            async with await SQLiteEventStore.open(path, durability=Durability.NORMAL) as inner:
                store = FaultyStore(inner)
                async with Engine.open(
                    store,
                    workflows=WORKFLOWS,
                    activities=ACTIVITIES,
                    read_model=f"sqlite:///{path.with_name('aion.readmodel.db')}",
                ) as engine:
                    assert other.stdout is not None
                    assert await asyncio.to_thread(other.stdout.readline) == "open\n"
                    results = await asyncio.gather(
                        *(s.drive(engine, s.code, n) for s, n in zip(shapes, ids, strict=True))
                    )
                    output, _ = await asyncio.to_thread(other.communicate)
                histories = [await events_of(inner, name) for name in ids]
        finally:
            other.kill()
    assert results == [shape.result for shape in shapes]
    *ended, wasted = output.splitlines()
    assert ended == ids
    executions = Counter((tmp_path / "executions.log").read_text().split())
    keys = [key for events in histories for key in completed_keys(events)]
    ran = sum(executions[key] for key in keys)
    wanted = len(keys) + 3 * sum(shape.code in {"retrying", "reopening"} for shape in shapes) // 2
    print(
        f"wasted: here {store.conflicts} of {store.calls} appends, there {wasted}; "
        f"{ran - wanted} executions beyond the {wanted} of engines that are alone"
    )
    assert len(set(keys)) == len(keys)
    monkeypatch.delenv("EXECUTIONS")
    for shape, name, events in zip(shapes, ids, histories, strict=True):
        assert decisions(events) == await undisturbed(shape, name), name


@pytest.mark.timeout(180)
async def test_who_is_alive_takes_over_from_an_engine_that_was_killed(
    file_url: str, tmp_path: Path
) -> None:
    """Within a heartbeat or two, and without being asked: nobody starts, signals or opens anything."""
    names = [f"{code.__name__}-{i}" for i in range(5) for code in LINGERING]
    with _other_process("linger", file_url) as other:
        try:
            assert other.stdout is not None
            assert await asyncio.to_thread(other.stdout.readline) == "working\n"
            async with Engine.open(
                file_url, workflows=LINGERING, activities=LINGERING_ACTIVITIES
            ) as engine:
                await engine.wait_recovered(SOON)
                assert engine.activities_executed == 0  # the other is seen to be alive
                other.kill()
                began = time.monotonic()
                results = [await engine.handle(name).result(timeout=SOON) for name in names]
                took = time.monotonic() - began
                ends = [
                    (await stream_of(engine, name)).count("WorkflowCompleted") for name in names
                ]
        finally:
            other.kill()
    assert results == [2] * len(names)
    assert ends == [1] * len(names)
    assert took < 8, "longer than a heartbeat, what it takes to look, and a slow machine explain"


@pytest.mark.timeout(180)
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "left"])
async def test_who_is_alive_takes_over_from_an_engine_that_lived_for_a_moment(
    file_url: str, end: signal.Signals
) -> None:
    """It came and went between two heartbeats of the one that is left."""
    names = [f"{code.__name__}-{i}" for i in range(5) for code in LINGERING]
    async with Engine.open(
        file_url, workflows=LINGERING, activities=LINGERING_ACTIVITIES
    ) as engine:
        await engine.wait_recovered(SOON)
        with _other_process("linger", file_url) as other:
            try:
                assert other.stdout is not None
                assert await asyncio.to_thread(other.stdout.readline) == "working\n"
                other.send_signal(end)
                await asyncio.to_thread(other.wait)
                results = [await engine.handle(name).result(timeout=SOON) for name in names]
            finally:
                other.kill()
    assert results == [2] * len(names)


def _other_process(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "tests.e2e.other_engine", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )

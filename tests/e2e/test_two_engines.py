"""Two engines on one SQLite file, in one process and in two: work may be wasted, never corrupted."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from aion_es import Context, Engine, Query, RetryPolicy, Signal, activity, workflow
from aion_es.app import OpeningEngine
from aion_es.errors import WorkflowAlreadyStartedError
from tests.crash.engine_shapes import ACTIVITIES, SHAPES, WORKFLOWS, completed_keys, decisions
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
    two: tuple[Engine, Engine], shape: Any
) -> None:
    here, there = two
    assert await shape.drive(here, shape.code, "alone") == shape.result
    expected = decisions(await _events(here, "alone"))
    ids = [f"w{i}" for i in range(4)]
    results = await asyncio.gather(
        *(shape.drive(engine, shape.code, name) for name in ids for engine in (here, there))
    )
    assert results == [shape.result] * 8
    for name in ids:
        events = await _events(here, name)
        assert decisions(events) == expected
        assert len(set(completed_keys(events))) == len(completed_keys(events))


async def _events(engine: Engine, id: str) -> list[Any]:
    return [e async for e in engine.store.read(engine.repository.stream(id))]


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


async def test_two_processes_share_the_work_of_one_file(url: str) -> None:
    ids = [f"w{i}" for i in range(20)]
    with subprocess.Popen(  # noqa: ASYNC220 - it is awaited in a thread
        [sys.executable, "-m", "tests.e2e.other_engine", url, *ids],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        try:
            async with Engine.open(url, workflows=WORKFLOWS, activities=ACTIVITIES) as engine:
                shapes = [SHAPES[i % len(SHAPES)] for i in range(20)]
                results = await asyncio.gather(
                    *(s.drive(engine, s.code, name) for s, name in zip(shapes, ids, strict=True))
                )
                assert results == [shape.result for shape in shapes]
                output, _ = await asyncio.to_thread(other.communicate)
                assert output.split() == ids
                for shape, name in zip(shapes, ids, strict=True):
                    assert await shape.drive(engine, shape.code, f"alone-{name}") == shape.result
                    events = await _events(engine, name)
                    assert decisions(events) == decisions(await _events(engine, f"alone-{name}"))
                    keys = completed_keys(events)
                    assert len(set(keys)) == len(keys)
        finally:
            other.kill()

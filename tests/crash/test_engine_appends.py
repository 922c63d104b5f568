"""An engine dies at every append boundary of every shape of workflow; the next one brings it to the same end.

It is left as a kill leaves it: its store has refused everything since, and what the next engine finds of the
read model is a copy made at that moment, which nobody signed off from.
"""

import asyncio
import itertools
import random
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from aion_es import Engine, EngineOptions
from aion_es.app import OpeningEngine
from aion_es.store.memory import MemoryEventStore
from aion_es.testing.faults import FaultyStore
from tests.crash.engine_shapes import (
    ACTIVITIES,
    SHAPES,
    WORKFLOWS,
    Decisions,
    Shape,
    completed_keys,
    decisions,
    events_of,
    executions,
    outside,
    undisturbed,
)
from tests.crash.left_behind import copy_left_behind

NO_GRACE = EngineOptions(shutdown_grace=timedelta(0))
ID = "w"
MANY = 60
"""Of a shape with more append boundaries than this (the fan-out) a sample of so many is drawn."""
by_shape = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.code)


class Scene:
    """One workflow's events, and the read models of the engines that came after one another."""

    def __init__(self, shape: Shape, directory: Path) -> None:
        directory.mkdir()
        outside.break_down(ID)
        self.shape = shape
        self.events = MemoryEventStore()
        self._directory = directory
        self._engines = 0

    @property
    def _read_model(self) -> Path:
        return self._directory / f"readmodel-{self._engines}.db"

    def engine_on(self, store: FaultyStore) -> OpeningEngine:
        return Engine.open(
            store,
            workflows=WORKFLOWS,
            activities=ACTIVITIES,
            read_model=f"sqlite:///{self._read_model}",
            options=NO_GRACE,
        )

    async def drive_until_dead(self, appends: int) -> bool:
        """Let an engine make `appends` appends and no more; return whether it was stopped by that."""
        store = FaultyStore(self.events)
        store.crash_after(appends)
        async with self.engine_on(store) as engine:
            driving = asyncio.ensure_future(self.shape.drive(engine, self.shape.code, ID))
            crash = asyncio.ensure_future(store.crashed.wait())
            await asyncio.wait({driving, crash}, return_when=asyncio.FIRST_COMPLETED)
            if store.crashed.is_set():
                left = self._read_model
                self._engines += 1
                copy_left_behind(left, self._read_model)
            for task in (driving, crash):
                task.cancel()
            await asyncio.gather(driving, crash, return_exceptions=True)
        return store.crashed.is_set()

    async def finish(self) -> object:
        """Let an engine that is not disturbed do the same again; return the result."""
        async with self.engine_on(FaultyStore(self.events)) as engine:
            return await self.shape.drive(engine, self.shape.code, ID)

    async def finish_unasked(self) -> object:
        """Let an engine that is not disturbed find out by itself what is to be done; return the result."""
        async with self.engine_on(FaultyStore(self.events)) as engine:
            return await self.shape.outcome(engine, ID)

    async def decisions(self) -> Decisions:
        return decisions(await events_of(self.events, ID))

    async def executed(self) -> list[int]:
        """Return how often each activity that completed was executed, in no particular order."""
        return sorted(executions[key] for key in await self.completed())

    async def completed(self) -> list[str]:
        return completed_keys(await events_of(self.events, ID))


async def boundaries(shape: Shape, directory: Path, first: int) -> Iterator[int]:
    """Yield after how many appends the engine is to die, until one is done before."""
    scene = Scene(shape, directory / "counted")
    store = FaultyStore(scene.events)
    async with scene.engine_on(store) as engine:
        await shape.drive(engine, shape.code, ID)
    if store.calls <= MANY:
        return itertools.count(first)
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}: {MANY} of {store.calls} boundaries")  # pytest shows it when the test fails
    drawn = random.Random(seed).sample(range(first, store.calls), MANY)
    return itertools.chain(sorted(drawn), itertools.count(store.calls))


@by_shape
async def test_a_crash_at_any_append_boundary_changes_nothing_that_matters(
    shape: Shape, tmp_path: Path
) -> None:
    expected = await undisturbed(shape, ID)
    interrupted = 0
    for appends in await boundaries(shape, tmp_path, 0):
        scene = Scene(shape, tmp_path / str(appends))
        if not await scene.drive_until_dead(appends):
            break
        interrupted += 1
        recorded = await scene.completed()
        ran_before = {key: executions[key] for key in recorded}
        context = f"after {appends} appends"
        assert await scene.finish() == shape.result, context
        assert await scene.decisions() == expected, context
        assert {key: executions[key] for key in recorded} == ran_before, context
        completed = await scene.completed()
        assert len(set(completed)) == len(completed), context
    assert interrupted >= 2, "the shape was never interrupted"


@by_shape
async def test_a_crash_at_any_append_boundary_is_recovered_from_without_being_asked(
    shape: Shape, tmp_path: Path
) -> None:
    """Nobody starts or signals again: what the store holds is enough, from the last thing that was recorded."""
    expected = await undisturbed(shape, ID)
    for appends in await boundaries(shape, tmp_path, 1):
        scene = Scene(shape, tmp_path / str(appends))
        if not await scene.drive_until_dead(appends):
            break
        if not shape.is_asked(await events_of(scene.events, ID)):
            continue  # it rightly waits
        assert await scene.finish_unasked() == shape.result, f"after {appends} appends"
        assert await scene.decisions() == expected, f"after {appends} appends"


@by_shape
async def test_two_crashes_in_a_row_change_nothing_that_matters(
    shape: Shape, tmp_path: Path
) -> None:
    expected = await undisturbed(shape, ID)
    for appends in await boundaries(shape, tmp_path, 0):
        scene = Scene(shape, tmp_path / str(appends))
        if not await scene.drive_until_dead(appends):
            break
        await scene.drive_until_dead(1)
        assert await scene.finish() == shape.result, f"after {appends} appends"
        assert await scene.decisions() == expected, f"after {appends} appends"


@by_shape
async def test_a_lost_answer_at_any_append_changes_nothing_that_matters(
    shape: Shape, tmp_path: Path
) -> None:
    expected = await undisturbed(shape, ID)
    plain = Scene(shape, tmp_path / "plain")
    await plain.finish()
    for number in await boundaries(shape, tmp_path, 1):
        scene = Scene(shape, tmp_path / str(number))
        store = FaultyStore(scene.events)
        store.lose_answer(number, times=1)
        async with scene.engine_on(store) as engine:
            assert await shape.drive(engine, shape.code, ID) == shape.result, (
                f"answer {number} lost"
            )
        assert await scene.decisions() == expected, f"answer {number} lost"
        assert await scene.executed() == await plain.executed(), f"answer {number} lost"
        if store.calls < number:
            break

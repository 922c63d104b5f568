"""An engine dies at every append boundary of every shape of workflow; the next one brings it to the same end."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from aion_es import Engine, EngineOptions
from aion_es.app import OpeningEngine
from aion_es.errors import WorkflowCancelledError
from aion_es.ids import DEFAULT_NAMESPACE, WorkflowId, workflow_stream
from aion_es.store.port import RecordedEvent
from aion_es.store.sqlite import Durability, SQLiteEventStore
from aion_es.testing.faults import FaultyStore
from tests.crash.engine_shapes import (
    ACTIVITIES,
    SHAPES,
    SOON,
    WORKFLOWS,
    Shape,
    completed_keys,
    decisions,
    executions,
)

NO_GRACE = EngineOptions(shutdown_grace=timedelta(0))
ID = "w"
by_shape = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.code)


@asynccontextmanager
async def faulty_store(directory: Path) -> AsyncIterator[FaultyStore]:
    directory.mkdir(exist_ok=True)  # noqa: ASYNC240 - once, and at once
    async with await SQLiteEventStore.open(
        directory / "aion.db", durability=Durability.NORMAL
    ) as store:
        yield FaultyStore(store)


def engine_on(store: FaultyStore, directory: Path) -> OpeningEngine:
    return Engine.open(
        store,
        workflows=WORKFLOWS,
        activities=ACTIVITIES,
        read_model=f"sqlite:///{directory / 'readmodel.db'}",
        options=NO_GRACE,
    )


async def stream_of(store: FaultyStore) -> list[RecordedEvent]:
    return [e async for e in store.read(workflow_stream(DEFAULT_NAMESPACE, WorkflowId(ID)))]


async def undisturbed(shape: Shape, directory: Path) -> tuple[list[str], list[str]]:
    async with faulty_store(directory) as store, engine_on(store, directory) as engine:
        assert await shape.drive(engine, shape.code, ID) == shape.result
        return decisions(await stream_of(store))


async def drive_until_dead(shape: Shape, directory: Path, appends: int) -> bool:
    """Let an engine make `appends` appends and no more; return whether it was stopped by that."""
    async with faulty_store(directory) as store:
        store.crash_after(appends)
        async with engine_on(store, directory) as engine:
            driving = asyncio.ensure_future(shape.drive(engine, shape.code, ID))
            crash = asyncio.ensure_future(store.crashed.wait())
            await asyncio.wait({driving, crash}, return_when=asyncio.FIRST_COMPLETED)
            for task in (driving, crash):
                task.cancel()
            await asyncio.gather(driving, crash, return_exceptions=True)
        return store.crashed.is_set()


@by_shape
async def test_a_crash_at_any_append_boundary_changes_nothing_that_matters(
    shape: Shape, tmp_path: Path
) -> None:
    expected = await undisturbed(shape, tmp_path / "undisturbed")
    for appends in itertools.count():
        directory = tmp_path / str(appends)
        if not await drive_until_dead(shape, directory, appends):
            break
        async with faulty_store(directory) as store:
            recorded = completed_keys(await stream_of(store))
            ran_before = {key: executions[key] for key in recorded}
            async with engine_on(store, directory) as engine:
                result = await shape.drive(engine, shape.code, ID)
            stream = await stream_of(store)
        context = f"after {appends} appends"
        assert result == shape.result, context
        assert decisions(stream) == expected, context
        assert {key: executions[key] for key in recorded} == ran_before, context
        assert len(set(completed_keys(stream))) == len(completed_keys(stream)), context
    assert appends >= 2, "the shape was never interrupted"


@by_shape
async def test_a_crash_at_any_append_boundary_is_recovered_from_without_being_asked(
    shape: Shape, tmp_path: Path
) -> None:
    """Nobody starts or signals again: what the store holds is enough, from the last thing that was recorded."""
    for appends in itertools.count(1):
        directory = tmp_path / str(appends)
        if not await drive_until_dead(shape, directory, appends):
            break
        async with faulty_store(directory) as store:
            asked = {event.type for event in await stream_of(store)}
            signals = [e for e in await stream_of(store) if e.type == "SignalReceived"]
            if shape.code == "signalled" and len(signals) < 2:
                continue  # it rightly waits
            if shape.code == "cleaning_up" and "WorkflowCancelRequested" not in asked:
                continue  # it rightly sleeps
            async with engine_on(store, directory) as engine:
                handle = engine.handle(ID)
                if shape.code == "cleaning_up":
                    with pytest.raises(WorkflowCancelledError, match=str(shape.result)):
                        await handle.result(timeout=SOON)
                else:
                    assert await handle.result(timeout=SOON) == shape.result, f"after {appends}"


@by_shape
async def test_two_crashes_in_a_row_change_nothing_that_matters(
    shape: Shape, tmp_path: Path
) -> None:
    expected = await undisturbed(shape, tmp_path / "undisturbed")
    for appends in itertools.count():
        directory = tmp_path / str(appends)
        if not await drive_until_dead(shape, directory, appends):
            break
        await drive_until_dead(shape, directory, 1)
        async with faulty_store(directory) as store:
            async with engine_on(store, directory) as engine:
                result = await shape.drive(engine, shape.code, ID)
            assert result == shape.result
            assert decisions(await stream_of(store)) == expected, f"after {appends} appends"


@by_shape
async def test_a_lost_answer_at_any_append_changes_nothing_that_matters(
    shape: Shape, tmp_path: Path
) -> None:
    expected = await undisturbed(shape, tmp_path / "undisturbed")
    for number in itertools.count(1):
        directory = tmp_path / str(number)
        async with faulty_store(directory) as store:
            store.lose_answer(number, times=1)
            async with engine_on(store, directory) as engine:
                assert await shape.drive(engine, shape.code, ID) == shape.result
            stream = await stream_of(store)
            assert decisions(stream) == expected, f"answer {number} lost"
            assert {executions[key] for key in completed_keys(stream)} <= {1, 3}
            if store.calls < number:
                break

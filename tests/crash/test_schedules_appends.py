"""An engine with schedules dies at every append boundary; the next one loses nothing and doubles nothing."""

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path

import pytest

from aion_es import Engine, EngineOptions
from aion_es.app import OpeningEngine
from aion_es.errors import StoreError
from aion_es.events import schedule as ev
from aion_es.events.codec import decode
from aion_es.events.workflow import WorkflowStarted
from aion_es.ids import ScheduleId
from aion_es.schedules import CatchUp, Overlap, Start
from aion_es.schedules.naming import action_id
from aion_es.store.sqlite import Durability, SQLiteEventStore
from aion_es.testing.clock import ManualClock
from aion_es.testing.faults import FaultyStore
from tests.e2e.scenario import until
from tests.e2e.schedule_scenario import (
    BEGIN,
    MINUTE,
    NIGHTLY,
    WORKFLOWS,
    done,
    echoes,
    every_minute,
    recorded,
    story,
    waits,
)

LAST = 4
"""Minutes that are lived through; in the third the first action is let go, unless the policy ends it."""


@asynccontextmanager
async def faulty_store(directory: Path) -> AsyncIterator[FaultyStore]:
    directory.mkdir(exist_ok=True)  # noqa: ASYNC240 - once, and at once
    async with await SQLiteEventStore.open(
        directory / "aion.db", durability=Durability.NORMAL
    ) as store:
        yield FaultyStore(store)


def engine_on(store: FaultyStore, directory: Path, clock: ManualClock) -> OpeningEngine:
    return Engine.open(
        store,
        workflows=WORKFLOWS,
        read_model=f"sqlite:///{directory / 'readmodel.db'}",
        options=EngineOptions(shutdown_grace=timedelta(0)),
        clock=clock,
    )


async def started(store: FaultyStore) -> list[tuple[str, str]]:
    """Return workflow id and run id of every start."""
    return [
        (event.stream.removeprefix("aion_workflow-"), found.run_id)
        async for event in store.read_all(prefix="aion_workflow-")
        if isinstance(found := decode(event), WorkflowStarted)
    ]


async def is_quiet(store: FaultyStore, minute: int) -> bool:
    """Whether every due time up to the minute is decided, and all that was taken is started."""
    events = await recorded(store)
    decided = {getattr(event, "scheduled_for", None) for event in events}
    taken = {(e.workflow_id, e.run_id) for e in events if isinstance(e, ev.ScheduleTriggered)}
    due = {BEGIN + m * MINUTE for m in range(1, minute + 1)}
    return due <= decided and taken <= set(await started(store))


async def live_on(engine: Engine, store: FaultyStore, clock: ManualClock) -> None:
    """Let the minutes that are left pass, one by one; stop if the process is as good as dead."""

    found = await engine.schedules.describe(NIGHTLY)
    makes_way = found.overlap in {Overlap.CANCEL_PREVIOUS, Overlap.TERMINATE_PREVIOUS}

    async def settles(minute: int) -> bool:
        if store.crashed.is_set():
            return True
        if not await is_quiet(store, minute):
            return False
        return not (makes_way and (await engine.schedules.describe(NIGHTLY)).buffered)

    while True:
        minute = (clock.now() - BEGIN) // MINUTE
        await until(lambda minute=minute: settles(minute))
        if store.crashed.is_set():
            return
        if minute == 3 and not makes_way:
            await let_go(engine, store)
        if minute == LAST:
            return
        clock.advance(MINUTE)


async def let_go(engine: Engine, store: FaultyStore) -> None:
    """End the first action if it runs, and wait until what waits for it is taken."""
    handle = engine.handle(action_id(ScheduleId(NIGHTLY), BEGIN + MINUTE), waits)
    if (await handle.describe()).status.value != "Running":
        return

    async def is_taken() -> bool:
        found = await engine.schedules.describe(NIGHTLY)
        return store.crashed.is_set() or found.running != before.running

    before = await engine.schedules.describe(NIGHTLY)
    await handle.signal(done)
    if before.buffered:
        await until(is_taken)


def assert_nothing_is_lost_or_doubled(
    events: list[ev.ScheduleEvent], starts: list[tuple[str, str]], context: str
) -> None:
    taken = [(e.workflow_id, e.run_id) for e in events if isinstance(e, ev.ScheduleTriggered)]
    assert sorted(starts) == sorted(taken), context
    settled = [
        e.scheduled_for for e in events if isinstance(e, ev.ScheduleTriggered | ev.ScheduleSkipped)
    ]
    assert len(settled) == len(set(settled)), context
    waited = [e.scheduled_for for e in events if isinstance(e, ev.ScheduleBuffered)]
    expected = [BEGIN + minute * MINUTE for minute in range(1, LAST + 1)]
    assert sorted({*settled, *waited}) == expected, context


@pytest.mark.parametrize("overlap", Overlap)
async def test_a_crash_at_any_append_boundary_loses_nothing_and_doubles_nothing(
    overlap: Overlap, tmp_path: Path
) -> None:
    action = Start(echoes, "x") if overlap is Overlap.ALLOW_ALL else Start(waits)
    stories: set[tuple[str, ...]] = set()
    for appends in itertools.count(1):
        directory, clock = tmp_path / str(appends), ManualClock()
        async with faulty_store(directory) as store:
            store.crash_after(appends)
            async with engine_on(store, directory, clock) as engine:
                await engine.schedules.create(every_minute(overlap, CatchUp.ALL, action=action))
                with suppress(StoreError):  # what is asked of a dead process
                    await live_on(engine, store, clock)
            crashed = store.crashed.is_set()
        async with faulty_store(directory) as store:
            async with engine_on(store, directory, clock) as engine:
                await live_on(engine, store, clock)
            events, starts = await recorded(store), await started(store)
        assert_nothing_is_lost_or_doubled(events, starts, f"after {appends} appends")
        stories.add(tuple(story(events, BEGIN)))
        if not crashed:
            break
    assert appends > LAST + 2, "it was hardly interrupted"
    assert len(stories) == 1, stories

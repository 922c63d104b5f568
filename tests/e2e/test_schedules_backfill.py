"""Backfills beside turns that are taken at the same time: each sees what the other has decided."""

import pytest

from aion_es.aggregates.schedule_state import ScheduleState
from aion_es.app import Engine
from aion_es.engine.schedule_actions import Look
from aion_es.ids import ScheduleId
from aion_es.schedules import Overlap, Start
from aion_es.testing.clock import ManualClock
from aion_es.testing.faults import FaultyStore
from tests.e2e.conftest import EngineOpener
from tests.e2e.scenario import is_recorded, until
from tests.e2e.schedule_scenario import (
    BEGIN,
    MINUTE,
    NIGHTLY,
    WORKFLOWS,
    begun,
    done,
    every_minute,
    finish,
    has,
    insists,
    is_told,
    name,
    told,
)


def let_a_minute_pass_after_the_next_look(
    engine: Engine, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let the next due time be decided, by a turn, between the look of a backfill and its decision."""
    actions = engine._scheduling.actions
    look = actions.look

    async def look_and_wait(schedule_id: ScheduleId, state: ScheduleState) -> Look:
        monkeypatch.setattr(actions, "look", look)
        seen = await look(schedule_id, state)
        clock.advance(MINUTE)
        await until(lambda: is_told(engine.store, "created", "triggered 1"))
        await begun(engine, 1)
        return seen

    monkeypatch.setattr(actions, "look", look_and_wait)


async def test_a_backfill_waits_for_what_was_taken_since_it_looked(
    open_engine: EngineOpener,
    clock: ManualClock,
    store: FaultyStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_engine(WORKFLOWS, clock=clock) as engine:
        await engine.schedules.create(every_minute())
        let_a_minute_pass_after_the_next_look(engine, clock, monkeypatch)
        await engine.schedules.backfill(NIGHTLY, BEGIN - 2 * MINUTE, BEGIN - MINUTE)
        assert await told(store) == ["created", "triggered 1", "buffered -2", "buffered -1"]
        found = await engine.schedules.describe(NIGHTLY)
        assert [action.workflow_id for action in found.running] == [name(1)]
        await finish(engine, BEGIN + MINUTE)
        await begun(engine, -2)


async def test_a_backfill_ends_what_was_taken_since_it_looked(
    open_engine: EngineOpener,
    clock: ManualClock,
    store: FaultyStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_engine(WORKFLOWS, clock=clock) as engine:
        await engine.schedules.create(every_minute(action=Start(insists)))
        let_a_minute_pass_after_the_next_look(engine, clock, monkeypatch)
        await engine.schedules.backfill(NIGHTLY, BEGIN, BEGIN, Overlap.CANCEL_PREVIOUS)
        assert await told(store) == ["created", "triggered 1", "buffered 0"]
        running = engine.handle(name(1), insists)
        await until(lambda: is_recorded(running, "WorkflowCancelRequested"))
        await running.signal(done)
        await begun(engine, 0)


async def test_a_turn_that_a_backfill_has_outrun_decides_anew_beside_it(
    open_engine: EngineOpener, clock: ManualClock, store: FaultyStore
) -> None:
    async with open_engine(WORKFLOWS, clock=clock) as engine:
        await engine.schedules.create(every_minute())
        calls = store.calls
        store.hang(times=1)
        clock.advance(MINUTE)
        await until(lambda: store.calls > calls)  # the turn has decided that nothing runs
        await engine.schedules.backfill(NIGHTLY, BEGIN - 2 * MINUTE, BEGIN - MINUTE)
        store.heal()
        expected = ("created", "triggered -2", "buffered -1", "skipped 1 (overlap)")
        await until(lambda: is_told(store, *expected))
        assert store.conflicts == 1
        assert not await has(engine, name(1))

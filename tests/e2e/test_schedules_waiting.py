"""Schedules that are changed or paused in the middle: when one action runs, and the next one waits for its end."""

import pytest

from aion_es.app import Engine
from aion_es.ids import ScheduleId
from aion_es.schedules import Interval, Overlap, Spec, Start
from aion_es.schedules.naming import action_id
from aion_es.testing.clock import ManualClock
from aion_es.testing.faults import FaultyStore
from tests.e2e.conftest import EngineOpener
from tests.e2e.scenario import is_recorded, until
from tests.e2e.schedule_scenario import (
    BEGIN,
    MINUTE,
    NIGHTLY,
    WORKFLOWS,
    done,
    echoes,
    every_minute,
    has,
    insists,
    is_told,
    told,
)

FIRST = action_id(ScheduleId(NIGHTLY), BEGIN + MINUTE)
SECOND = action_id(ScheduleId(NIGHTLY), BEGIN + 2 * MINUTE)

that_wait = pytest.mark.parametrize(
    "overlap",
    [
        Overlap.BUFFER_ONE,
        Overlap.BUFFER_ALL,
        Overlap.CANCEL_PREVIOUS,
        Overlap.TERMINATE_PREVIOUS,
    ],
)
"""The policies under which an action waits for the end of the one before it."""


async def let_the_second_wait(
    engine: Engine, clock: ManualClock, store: FaultyStore, overlap: Overlap
) -> None:
    """Live until the second action waits; the end of the first hangs, or it does not give way."""
    await engine.schedules.create(every_minute(overlap, action=Start(insists)))
    clock.advance(MINUTE)
    await until(lambda: has(engine, FIRST))
    the_end = store.calls + 2  # after the decision
    if overlap is Overlap.TERMINATE_PREVIOUS:
        store.hang(the_end, times=1)
    clock.advance(MINUTE)
    if overlap is Overlap.CANCEL_PREVIOUS:
        await until(lambda: is_recorded(engine.handle(FIRST), "WorkflowCancelRequested"))
    elif overlap is Overlap.TERMINATE_PREVIOUS:
        await until(lambda: store.calls == the_end)
    await until(lambda: is_told(store, "created", "triggered 1", "buffered 2"))


async def let_the_first_end(engine: Engine, store: FaultyStore, overlap: Overlap) -> None:
    """Let the first action come to its end, as the policy has it."""
    first = engine.handle(FIRST, insists)
    if overlap is Overlap.TERMINATE_PREVIOUS:
        store.heal()
        await until(lambda: is_recorded(first, "WorkflowTerminated"))
    else:
        await first.signal(done)
        await until(lambda: is_recorded(first, "WorkflowCompleted"))


async def take_a_turn(engine: Engine) -> None:
    """Let the schedule have a turn, and return when it has had it."""
    driver = engine._scheduling.driver
    driver.ready(ScheduleId(NIGHTLY))
    await until(lambda: not driver._queued and not driver._busy)


@that_wait
async def test_a_pause_holds_what_waits_until_the_schedule_is_resumed(
    overlap: Overlap, open_engine: EngineOpener, clock: ManualClock, store: FaultyStore
) -> None:
    async with open_engine(WORKFLOWS, clock=clock) as engine:
        await let_the_second_wait(engine, clock, store, overlap)
        await engine.schedules.pause(NIGHTLY)
        await let_the_first_end(engine, store, overlap)
        clock.advance(2 * MINUTE)
        await take_a_turn(engine)
        assert (await engine.schedules.describe(NIGHTLY)).buffered == (BEGIN + 2 * MINUTE,)
        await engine.schedules.resume(NIGHTLY)
        await until(lambda: has(engine, SECOND))
    assert await told(store) == [
        "created",
        "triggered 1",
        "buffered 2",
        "paused",
        "resumed",
        "triggered 2",
    ]


@that_wait
async def test_what_waits_is_taken_as_an_update_says_that_comes_meanwhile(
    overlap: Overlap, open_engine: EngineOpener, clock: ManualClock, store: FaultyStore
) -> None:
    async with open_engine(WORKFLOWS, clock=clock) as engine:
        await let_the_second_wait(engine, clock, store, overlap)
        changed = every_minute(action=Start(echoes, "new"), spec=Spec(Interval(10 * MINUTE)))
        await engine.schedules.update(changed)
        assert not await has(engine, SECOND)
        await let_the_first_end(engine, store, overlap)
        await until(lambda: has(engine, SECOND))
        assert await engine.handle(SECOND, echoes).result() == "new"
    assert await told(store) == ["created", "triggered 1", "buffered 2", "updated", "triggered 2"]

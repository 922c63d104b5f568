"""Schedules over restarts: what was missed, what waited, what was taken and not started, code that comes later."""

from datetime import timedelta

import pytest

from aion_es.ids import RunId
from aion_es.schedules import CatchUp, Interval, Overlap, Schedule, Spec, Start
from aion_es.testing.clock import ManualClock
from aion_es.testing.faults import FaultyStore
from tests.e2e.conftest import EngineOpener
from tests.e2e.scenario import SOON, until
from tests.e2e.schedule_scenario import (
    BEGIN,
    MINUTE,
    NIGHTLY,
    WORKFLOWS,
    begun,
    echoes,
    every_minute,
    finish,
    has,
    is_told,
    minute_by_minute,
    name,
    told,
    waits,
)


@pytest.mark.parametrize(
    ("catch_up", "follows"),
    [
        (
            CatchUp.ONE,
            ["skipped 1 (catch_up)", "skipped 2 (catch_up)", "triggered 3", "triggered 4"],
        ),
        (CatchUp.ALL, ["triggered 1", "triggered 2", "triggered 3", "triggered 4"]),
        (
            CatchUp.SKIP,
            [
                "skipped 1 (catch_up)",
                "skipped 2 (catch_up)",
                "skipped 3 (catch_up)",
                "triggered 4",
            ],
        ),
    ],
)
async def test_after_downtime_the_policy_says_what_is_made_up_for(
    catch_up: CatchUp,
    follows: list[str],
    open_engine: EngineOpener,
    clock: ManualClock,
    store: FaultyStore,
) -> None:
    schedule = every_minute(Overlap.ALLOW_ALL, catch_up, action=Start(echoes, "x"))
    async with open_engine(WORKFLOWS, clock=clock) as engine:
        await engine.schedules.create(schedule)
    clock.advance(3.5 * MINUTE)
    async with open_engine(WORKFLOWS, clock=clock) as engine:
        await until(lambda: is_told(store, "created", *follows[:-1]))
        clock.advance(MINUTE / 2)
        await until(lambda: is_told(store, "created", *follows))
        await begun(engine, 4)
        for line in follows:
            kind, minute = line.split(" ")[:2]
            assert await has(engine, name(int(minute))) == (kind == "triggered")


async def test_what_is_buffered_survives_a_restart(
    open_engine: EngineOpener, clock: ManualClock, store: FaultyStore
) -> None:
    async with open_engine(WORKFLOWS, clock=clock) as engine:
        await engine.schedules.create(every_minute(Overlap.BUFFER_ALL))
        await minute_by_minute(engine, clock, 3)
    async with open_engine(WORKFLOWS, clock=clock) as engine:
        await finish(engine, BEGIN + MINUTE)
        await begun(engine, 2)
    async with open_engine(WORKFLOWS, clock=clock) as engine:
        await finish(engine, BEGIN + 2 * MINUTE)
        await begun(engine, 3)
    assert await told(store) == [
        "created",
        "triggered 1",
        "buffered 2",
        "buffered 3",
        "triggered 2",
        "triggered 3",
    ]


async def test_what_waited_is_taken_at_once_if_what_it_waited_for_has_ended_meanwhile(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine(WORKFLOWS, clock=clock) as engine:
        await engine.schedules.create(every_minute(Overlap.BUFFER_ONE))
        await minute_by_minute(engine, clock, 2)
        await begun(engine, 1)
    workflow = await engine.repository.load(name(1))
    workflow.terminate("by an operator", at=clock.now())
    await engine.repository.save(workflow)
    async with open_engine(WORKFLOWS, clock=clock) as engine:
        await begun(engine, 2)


@pytest.mark.parametrize("overlap", [Overlap.SKIP, Overlap.ALLOW_ALL])
async def test_what_was_taken_and_never_started_is_started_by_the_next_engine(
    overlap: Overlap, open_engine: EngineOpener, clock: ManualClock, store: FaultyStore
) -> None:
    schedule = every_minute(overlap, action=Start(echoes, "x"))
    async with open_engine(WORKFLOWS, clock=clock) as engine:
        await engine.schedules.create(schedule)
        repository = engine._scheduling.repository
    clock.advance(MINUTE)
    taken = BEGIN + MINUTE
    await repository.execute(
        NIGHTLY, lambda s: s.trigger(taken, name(1), RunId("run-1"), at=clock.now())
    )
    async with open_engine(WORKFLOWS, clock=clock) as engine:
        await engine.wait_recovered(SOON)
        await begun(engine, 1)
        handle = engine.handle(name(1), echoes, run_id="run-1")
        assert await handle.result() == "x"
    assert await told(store) == ["created", "triggered 1"]


async def test_what_another_engine_took_and_did_not_start_is_started_after_a_while(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine(WORKFLOWS, clock=clock) as engine:
        await engine.schedules.create(
            every_minute(action=Start(echoes, "x"), spec=Spec(Interval(60 * MINUTE)))
        )
        # As another engine, which dies before it starts what it took.
        other = engine._scheduling.repository
        hour = BEGIN + 60 * MINUTE
        clock.advance(59 * MINUTE)
        await other.execute(
            NIGHTLY, lambda s: s.trigger(hour, name(60), RunId("r"), at=clock.now())
        )
        timers = engine._core.timers
        await until(lambda: ("schedule expects", name(60)) in timers._live)
        clock.advance(timedelta(seconds=10))
        await begun(engine, 60)


async def test_a_schedule_waits_for_an_engine_that_has_its_code(
    open_engine: EngineOpener, clock: ManualClock, store: FaultyStore
) -> None:
    async with open_engine(WORKFLOWS, clock=clock) as engine:
        await engine.schedules.create(every_minute(action=Start(echoes, "x")))
    async with open_engine([waits], clock=clock) as engine:
        clock.advance(MINUTE)
        await until(lambda: engine._scheduling.driver._without_code == {NIGHTLY})
        assert await told(store) == ["created"]
        engine.catalog.register_workflow(echoes)
        await begun(engine, 1)


async def test_a_schedule_that_is_due_far_ahead_is_held_by_its_row_only(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    schedule = Schedule(
        id=NIGHTLY, spec=Interval(60 * MINUTE), action=Start(echoes, "x"), overlap=Overlap.SKIP
    )
    async with open_engine(WORKFLOWS, clock=clock) as engine:
        await engine.schedules.create(schedule)
        timers = engine._core.timers
        assert ("schedule", NIGHTLY) not in timers._live
        for _ in range(11):  # the horizon moves every five minutes
            clock.advance(5 * MINUTE)
            await until(lambda: engine._scheduling.driver.horizon > clock.now() + 5 * MINUTE)
        await until(lambda: ("schedule", NIGHTLY) in timers._live)
        clock.advance(5 * MINUTE)
        await begun(engine, 60)


async def test_while_the_store_is_away_nothing_is_lost_and_nothing_is_taken_twice(
    open_engine: EngineOpener, clock: ManualClock, store: FaultyStore
) -> None:
    async with open_engine(WORKFLOWS, clock=clock) as engine:
        await engine.schedules.create(every_minute(Overlap.ALLOW_ALL, action=Start(echoes, "x")))
        store.lose_answer(times=1)
        clock.advance(MINUTE)
        await begun(engine, 1)
        store.fail(times=3)
        clock.advance(MINUTE)
        await begun(engine, 2)
    assert await told(store) == ["created", "triggered 1", "triggered 2"]

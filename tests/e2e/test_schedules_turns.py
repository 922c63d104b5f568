"""The turns of schedules: who takes them, when code comes or goes, and what becomes of a start that is owed."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from aion_es import EngineOptions
from aion_es.aggregates.schedule import CHECKPOINT_EVERY
from aion_es.app import Engine
from aion_es.errors import PayloadTooLargeError, StoreUnavailableError
from aion_es.ids import DEFAULT_NAMESPACE, RunId, ScheduleId, workflow_stream
from aion_es.schedules import Calendar, Interval, Overlap, Schedule, Spec, Start
from aion_es.schedules.naming import action_id
from aion_es.store.port import EventReader
from aion_es.testing.clock import ManualClock
from aion_es.testing.faults import FaultyStore
from tests.e2e.conftest import EngineOpener
from tests.e2e.scenario import until
from tests.e2e.schedule_scenario import (
    BEGIN,
    MINUTE,
    NIGHTLY,
    WORKFLOWS,
    begun,
    echoes,
    every_minute,
    has,
    name,
    told,
    waits,
)

NEW_YEAR = Calendar(month=1, day=1)
YEARLY = every_minute(Overlap.ALLOW_ALL, action=Start(echoes, "x"), spec=Spec(NEW_YEAR))
IMPATIENT = EngineOptions(store_patience=timedelta(milliseconds=100))


async def is_started_after_a_retry(engine: Engine, clock: ManualClock, workflow_id: str) -> bool:
    """Let a second pass, after which a turn that failed is taken again, and say whether there is the workflow."""
    clock.advance(timedelta(seconds=1))
    return await has(engine, workflow_id)


# ------------------------------------------------------------------------------ code that is not here


async def update_it(engine: Engine, schedule: Schedule) -> None:
    await engine.schedules.update(schedule)


async def make_it_anew(engine: Engine, schedule: Schedule) -> None:
    await engine.schedules.delete(schedule.id)
    await engine.schedules.create(schedule)


@pytest.mark.parametrize(
    "change",
    [pytest.param(update_it, id="updated"), pytest.param(make_it_anew, id="made anew")],
)
async def test_a_schedule_that_is_changed_to_code_that_is_here_is_due_again(
    change: Callable[[Engine, Schedule], Awaitable[None]],
    open_engine: EngineOpener,
    clock: ManualClock,
    store: FaultyStore,
) -> None:
    async with open_engine(WORKFLOWS, clock=clock) as engine:
        await engine.schedules.create(every_minute(action=Start(echoes, "x")))
    async with open_engine([waits], clock=clock) as engine:
        clock.advance(MINUTE)
        await until(lambda: engine._scheduling.driver._without_code == {NIGHTLY})
        await change(engine, every_minute(action=Start(waits)))
        clock.advance(MINUTE)
        await begun(engine, 2)
        assert engine._scheduling.driver._without_code == set()
    assert (await told(store))[-1] == "triggered 2"


async def test_an_update_that_comes_during_a_turn_says_when_the_next_action_is_due(
    open_engine: EngineOpener, clock: ManualClock, store: FaultyStore
) -> None:
    async with open_engine(WORKFLOWS, clock=clock) as engine:
        await engine.schedules.create(
            every_minute(Overlap.ALLOW_ALL, spec=Spec(Interval(2 * MINUTE)))
        )
        the_start = store.calls + 2  # after the decision
        store.hang(the_start, times=1)
        clock.advance(2 * MINUTE)
        await until(lambda: store.calls == the_start)
        await engine.schedules.update(every_minute(Overlap.ALLOW_ALL))
        store.heal()
        driver = engine._scheduling.driver
        await until(lambda: not driver._busy and not driver._queued)
        clock.advance(MINUTE)
        await begun(engine, 3)


async def test_a_schedule_that_is_deleted_is_forgotten(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine(WORKFLOWS, clock=clock) as engine:
        await engine.schedules.create(every_minute(action=Start(echoes, "x")))
    async with open_engine([waits], clock=clock) as engine:
        driver = engine._scheduling.driver
        clock.advance(MINUTE)
        await until(lambda: driver._without_code == {NIGHTLY})
        driver.suspect(ScheduleId(NIGHTLY))
        await engine.schedules.delete(NIGHTLY)
        await until(lambda: not driver._busy and not driver._queued)
        assert (driver._without_code, driver._suspect) == (set(), set())


# -------------------------------------------------------------------------------- starts that are owed

ASKED_FOR = BEGIN + timedelta(seconds=30, microseconds=1)
"""When a person asked for an action that its engine then did not start."""
OWED = action_id(ScheduleId(NIGHTLY), ASKED_FOR)


async def take_and_start_nothing(engine: Engine) -> None:
    """Take an action as an engine does that dies before it starts it."""
    await engine._scheduling.repository.execute(
        NIGHTLY, lambda s: s.trigger(ASKED_FOR, OWED, RunId("run-1"), True, at=BEGIN)
    )


@asynccontextmanager
async def an_engine_without_the_code_of_what_is_owed(
    open_engine: EngineOpener, clock: ManualClock
) -> AsyncIterator[Engine]:
    """Have one engine take an action and start nothing; give the next, once it knows that it lacks the code."""
    async with open_engine(WORKFLOWS, clock=clock) as engine:
        await engine.schedules.create(YEARLY)
        await take_and_start_nothing(engine)
    async with open_engine([waits], clock=clock) as engine:
        await until(lambda: engine._scheduling.driver._without_code == {NIGHTLY})
        yield engine


async def test_a_suspicion_that_comes_during_a_turn_is_looked_into_by_the_next(
    open_engine: EngineOpener, clock: ManualClock, store: FaultyStore
) -> None:
    async with open_engine(WORKFLOWS, clock=clock) as engine:
        await engine.schedules.create(every_minute(Overlap.ALLOW_ALL, action=Start(echoes, "x")))
        the_start = store.calls + 2  # after the decision
        store.hang(the_start, times=1)
        clock.advance(MINUTE)
        await until(lambda: store.calls == the_start)
        await take_and_start_nothing(engine)
        engine._scheduling.driver.suspect(ScheduleId(NIGHTLY))
        store.heal()
        await until(lambda: has(engine, OWED))


async def test_what_was_taken_and_never_started_waits_for_its_code(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with an_engine_without_the_code_of_what_is_owed(open_engine, clock) as engine:
        engine.catalog.register_workflow(echoes)
        await until(lambda: has(engine, OWED))


async def test_what_was_taken_and_never_started_is_started_as_an_update_says(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with an_engine_without_the_code_of_what_is_owed(open_engine, clock) as engine:
        await engine.schedules.update(every_minute(Overlap.ALLOW_ALL, spec=Spec(NEW_YEAR)))
        await until(lambda: has(engine, OWED))


async def test_what_another_engine_took_first_is_expected_of_it(
    open_engine: EngineOpener, clock: ManualClock, store: FaultyStore
) -> None:
    """Its event has the revision that this engine's own decision was to have."""
    async with open_engine(WORKFLOWS, clock=clock) as engine:
        await engine.schedules.create(every_minute(Overlap.ALLOW_ALL, action=Start(echoes, "x")))
        calls = store.calls
        store.hang(times=1)
        clock.advance(MINUTE)
        await until(lambda: store.calls > calls)
        taken = BEGIN + MINUTE
        await engine._scheduling.repository.execute(
            NIGHTLY, lambda s: s.trigger(taken, name(1), RunId("run-1"), at=taken)
        )
        await until(lambda: ("schedule expects", name(1)) in engine._core.timers._live)
        store.heal()
        await until(lambda: store.conflicts == 1)
        clock.advance(timedelta(seconds=10))
        await begun(engine, 1)


async def test_a_trigger_that_was_recorded_is_started_when_the_store_is_back(
    open_engine: EngineOpener, clock: ManualClock, store: FaultyStore
) -> None:
    async with open_engine(WORKFLOWS, clock=clock, options=IMPATIENT) as engine:
        await engine.schedules.create(YEARLY)
        store.fail(store.calls + 2)  # all after the decision
        with pytest.raises(StoreUnavailableError):
            await engine.schedules.trigger(NIGHTLY)
        (taken,) = (await engine.schedules.describe(NIGHTLY)).last_actions
        store.heal()
        await until(lambda: is_started_after_a_retry(engine, clock, taken.workflow_id))


async def test_a_backfill_that_was_recorded_is_started_when_the_store_is_back(
    open_engine: EngineOpener, clock: ManualClock, store: FaultyStore
) -> None:
    async with open_engine(WORKFLOWS, clock=clock, options=IMPATIENT) as engine:
        await engine.schedules.create(YEARLY)
        store.fail(store.calls + 2)
        with pytest.raises(StoreUnavailableError):
            await engine.schedules.backfill(NIGHTLY, BEGIN, BEGIN, Overlap.ALLOW_ALL)
        store.heal()
        await until(lambda: is_started_after_a_retry(engine, clock, name(0)))


async def test_a_trigger_whose_caller_is_cancelled_is_started_all_the_same(
    open_engine: EngineOpener, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_engine(WORKFLOWS, clock=clock) as engine:
        await engine.schedules.create(YEARLY)
        actions = engine._scheduling.actions
        start = actions.start

        async def cancel_the_caller(*args: object) -> None:
            monkeypatch.setattr(actions, "start", start)
            calling.cancel()
            await asyncio.sleep(0)

        monkeypatch.setattr(actions, "start", cancel_the_caller)
        calling = asyncio.ensure_future(engine.schedules.trigger(NIGHTLY))
        with pytest.raises(asyncio.CancelledError):
            await calling
        (taken,) = (await engine.schedules.describe(NIGHTLY)).last_actions
        await until(lambda: has(engine, taken.workflow_id))


# -------------------------------------------------------------------------- many actions that are open


async def let_minutes_pass(clock: ManualClock, store: FaultyStore, minutes: int) -> None:
    """Let minutes pass one at a time, each until its action is taken; what is read here is not counted."""
    for _ in range(minutes):
        clock.advance(MINUTE)
        due = (clock.now() - BEGIN) / MINUTE
        await until(lambda due=due: is_started(store._store, int(due)))


async def is_started(store: EventReader, minute: int) -> bool:
    return await store.head(workflow_stream(DEFAULT_NAMESPACE, name(minute))) >= 0


async def test_a_due_time_does_not_cost_a_read_for_each_action_that_is_open(
    open_engine: EngineOpener, clock: ManualClock, store: FaultyStore
) -> None:
    async with open_engine(WORKFLOWS, clock=clock) as engine:
        await engine.schedules.create(every_minute(Overlap.ALLOW_ALL))
        await let_minutes_pass(clock, store, 45)
        before = store.called["read"]
        await let_minutes_pass(clock, store, 1)
        reads = store.called["read"] - before
        assert len((await engine.schedules.describe(NIGHTLY)).running) == 46
        assert reads < 10, "the schedule is read, and not each of its actions"


async def test_after_a_checkpoint_it_is_seen_which_of_many_actions_have_ended(
    open_engine: EngineOpener, clock: ManualClock, store: FaultyStore
) -> None:
    async with open_engine(WORKFLOWS, clock=clock) as engine:
        await engine.schedules.create(every_minute(Overlap.ALLOW_ALL, action=Start(echoes, "x")))
        open_actions = []
        for minutes in (CHECKPOINT_EVERY - 2, 1, 1, 1):
            await let_minutes_pass(clock, store, minutes)
            schedule = await engine._scheduling.repository.load(NIGHTLY)
            open_actions.append(len(schedule.state.open))
        assert open_actions == [CHECKPOINT_EVERY - 2, CHECKPOINT_EVERY - 1, 1, 2]


# ------------------------------------------------------------------- what an event of the store can hold


async def test_a_configuration_that_leaves_a_checkpoint_no_room_is_refused(
    open_engine: EngineOpener, store: FaultyStore
) -> None:
    half = store.limits.max_event_bytes // 2
    async with open_engine(WORKFLOWS) as engine:
        await engine.schedules.create(every_minute(action=Start(waits, memo="x" * (half - 2_000))))
        for command in (engine.schedules.create, engine.schedules.update):
            with pytest.raises(PayloadTooLargeError) as refused:
                await command(every_minute(action=Start(waits, memo="x" * half)))
            assert refused.value.limit == half
            assert refused.value.what == "configuration of schedule 'nightly'"
    assert await told(store) == ["created"]


async def test_a_reason_that_leaves_a_checkpoint_no_room_is_refused(
    open_engine: EngineOpener, store: FaultyStore
) -> None:
    limit = store.limits.max_event_bytes // 32
    async with open_engine(WORKFLOWS) as engine:
        await engine.schedules.create(every_minute())
        with pytest.raises(PayloadTooLargeError) as refused:
            await engine.schedules.pause(NIGHTLY, "x" * limit)
        assert refused.value.limit == limit
        await engine.schedules.pause(NIGHTLY, "x" * (limit - 2))
    assert await told(store) == ["created", "paused"]

"""Many schedules: all that are due in the same minute are taken in it, and those that are not due cost nothing."""

import asyncio
from collections import Counter

from aion_es.app import Engine
from aion_es.ids import ScheduleId
from aion_es.schedules import Calendar, Spec, Start
from aion_es.schedules.naming import action_id
from aion_es.store.port import EventReader
from aion_es.testing.clock import ManualClock
from aion_es.testing.faults import FaultyStore
from tests.e2e.conftest import EngineOpener
from tests.e2e.scenario import until
from tests.e2e.schedule_scenario import BEGIN, MINUTE, WORKFLOWS, echoes, every_minute, recorded

HORIZONS = 12
"""In an hour: it moves every five minutes."""
YEARLY = Spec(Calendar(month=1, day=1))


async def create(engine: Engine, count: int, spec: Spec | None = None) -> list[ScheduleId]:
    """Create schedules that begin at once, and return their ids."""
    ids = [ScheduleId(f"s{number}") for number in range(count)]
    async with asyncio.TaskGroup() as group:
        for schedule_id in ids:
            schedule = every_minute(id=schedule_id, action=Start(echoes, "x"), spec=spec)
            group.create_task(engine.schedules.create(schedule))
    return ids


async def starts(store: EventReader) -> Counter[str]:
    """Return how often each workflow was started."""
    return Counter(
        [
            event.stream.removeprefix("aion_workflow-")
            async for event in store.read_all(prefix="aion_workflow-")
            if event.type == "WorkflowStarted"
        ]
    )


async def test_three_hundred_that_are_due_in_the_same_minute_are_each_started_once_in_it(
    open_engine: EngineOpener, clock: ManualClock, store: FaultyStore
) -> None:
    async with open_engine(WORKFLOWS, clock=clock) as engine:
        ids = await create(engine, 300)
        clock.advance(MINUTE)
        await until(lambda: has_started(store, len(ids)), seconds=30)
    assert await starts(store) == {action_id(each, BEGIN + MINUTE): 1 for each in ids}
    for schedule_id in ids:
        kinds = [type(event).__name__ for event in await recorded(store, schedule_id)]
        assert kinds == ["ScheduleCreated", "ScheduleTriggered"]


async def has_started(store: EventReader, count: int) -> bool:
    return (await starts(store)).total() >= count


async def test_a_thousand_that_are_not_due_cost_nothing_but_the_look_at_the_next_minutes(
    open_engine: EngineOpener, clock: ManualClock, store: FaultyStore
) -> None:
    async with open_engine(WORKFLOWS, clock=clock) as engine:
        await create(engine, 1_000, YEARLY)
        await engine.projections.wait_until_caught_up()
        before = Counter(store.called)
        for _ in range(HORIZONS):
            clock.advance(5 * MINUTE)
            await until(lambda: engine._scheduling.driver.horizon > clock.now() + 5 * MINUTE)
        called = store.called - before
        del called["next_batch"]  # what was still to be heard of their beginning
        assert list(called) == ["end_position"]
        # Once for schedules and once for timers; a turn would read, and a timer would be held.
        assert called["end_position"] <= 2 * HORIZONS
        assert len(engine._core.timers) == 0

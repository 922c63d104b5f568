"""Two engines on one store: every due time is decided once, every action is started once, whoever is first."""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

from aion_es import Engine
from aion_es.app import OpeningEngine
from aion_es.ids import ScheduleId
from aion_es.schedules import CatchUp, Interval, Overlap, Schedule, Start
from aion_es.schedules.naming import action_id
from aion_es.testing.clock import ManualClock
from tests.e2e.scenario import until
from tests.e2e.schedule_scenario import (
    BEGIN,
    MINUTE,
    WORKFLOWS,
    done,
    echoes,
    every_minute,
    recorded,
    waits,
)


def opened(tmp_path: Path, clock: ManualClock | None = None) -> OpeningEngine:
    return Engine.open(
        f"sqlite:///{tmp_path / 'aion.db'}?durability=normal", workflows=WORKFLOWS, clock=clock
    )


async def starts(engine: Engine) -> Counter[str]:
    """Return how often each workflow was started."""
    return Counter(
        [
            event.stream.removeprefix("aion_workflow-")
            async for event in engine.store.read_all(prefix="aion_workflow-")
            if event.type == "WorkflowStarted"
        ]
    )


async def test_every_action_is_taken_and_started_once(tmp_path: Path) -> None:
    clock = ManualClock()
    ids = [f"s{n}" for n in range(20)]
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(opened(tmp_path, clock))
        second = await stack.enter_async_context(opened(tmp_path, clock))
        for schedule_id in ids:
            await first.schedules.create(
                every_minute(Overlap.ALLOW_ALL, id=schedule_id, action=Start(echoes, "x"))
            )

        async def is_armed() -> bool:
            return all(("schedule", i) in second._core.timers._live for i in ids)

        await until(is_armed)
        for minute in range(1, 6):
            clock.advance(MINUTE)

            async def is_done(minute: int = minute) -> bool:
                return (await starts(first)).total() >= minute * len(ids)

            await until(is_done)
        expected = {
            action_id(ScheduleId(i), BEGIN + minute * MINUTE): 1
            for i in ids
            for minute in range(1, 6)
        }
        assert await starts(first) == Counter(expected)
        for schedule_id in ids:
            kinds = [type(event).__name__ for event in await recorded(first.store, schedule_id)]
            assert kinds == ["ScheduleCreated", *["ScheduleTriggered"] * 5]


async def test_what_waits_is_taken_once_when_both_hear_of_the_end(tmp_path: Path) -> None:
    clock = ManualClock()
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(opened(tmp_path, clock))
        second = await stack.enter_async_context(opened(tmp_path, clock))
        await first.schedules.create(every_minute(Overlap.BUFFER_ALL))
        for minute in range(1, 5):
            clock.advance(MINUTE)

            async def is_decided(minute: int = minute) -> bool:
                return len(await recorded(first.store)) == 1 + minute

            await until(is_decided)
        for minute in range(1, 5):
            name = action_id(ScheduleId("nightly"), BEGIN + minute * MINUTE)

            async def is_started(name: str = name) -> bool:
                return (await starts(first))[name] == 1

            await until(is_started)
            engine = first if minute % 2 else second
            handle = engine.handle(name, waits)
            await handle.signal(done)
            await handle.result()
        kinds = Counter(type(event).__name__ for event in await recorded(first.store))
        assert kinds == Counter(ScheduleCreated=1, ScheduleTriggered=4, ScheduleBuffered=3)


async def test_a_second_engine_that_comes_leaves_the_first_what_it_is_about_to_decide(
    tmp_path: Path,
) -> None:
    """A due time of a moment ago was not missed, if somebody was there."""
    clock = ManualClock()
    schedule = every_minute(catch_up=CatchUp.SKIP, action=Start(echoes, "x"))
    async with opened(tmp_path, clock) as first:
        await first.schedules.create(schedule)
        await first._scheduling.driver.stop()  # it is slow
        clock.advance(MINUTE * 1.5)
        async with opened(tmp_path, clock) as second:

            async def is_decided() -> bool:
                return len(await recorded(second.store)) == 2

            await until(is_decided)
            kinds = [type(event).__name__ for event in await recorded(second.store)]
            assert kinds == ["ScheduleCreated", "ScheduleTriggered"]


async def test_two_engines_on_the_real_clock_take_every_second_once(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(opened(tmp_path))
        await stack.enter_async_context(opened(tmp_path))
        ids = [f"s{n}" for n in range(10)]
        async with asyncio.TaskGroup() as group:
            for schedule_id in ids:
                schedule = Schedule(
                    id=schedule_id,
                    spec=Interval(timedelta(seconds=1)),
                    action=Start(echoes, "x"),
                    overlap=Overlap.ALLOW_ALL,
                )
                group.create_task(first.schedules.create(schedule))

        async def is_done() -> bool:
            return (await starts(first)).total() >= 30

        await until(is_done)
        found = await starts(first)
        assert set(found.values()) == {1}

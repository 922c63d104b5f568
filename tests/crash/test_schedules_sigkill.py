"""Engines with schedules are killed again and again: no due time is lost, no action is started twice."""

import random
import subprocess
import sys
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path

from aion_es import Engine
from aion_es.clock import SystemClock
from aion_es.events import schedule as ev
from aion_es.events.codec import decode
from aion_es.events.workflow import WorkflowStarted
from aion_es.store.port import EventReader
from tests.crash.schedule_child import SCHEDULES, naps
from tests.e2e.scenario import until
from tests.e2e.schedule_scenario import recorded

ROOT = Path(__file__).parents[2]
KILLS = 8
SECOND = timedelta(seconds=1)


def run_and_kill(url: str, seconds: float) -> None:
    """Let an engine work for a while from when it is open, then kill it."""
    command = [sys.executable, "-m", "tests.crash.schedule_child", url]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        try:
            child.wait(seconds)
        except subprocess.TimeoutExpired:
            child.kill()


async def starts(store: EventReader) -> list[tuple[str, str]]:
    """Return workflow id and run id of every start."""
    found = []
    async for event in store.read_all(prefix="aion_workflow-"):
        decoded = decode(event)
        if isinstance(decoded, WorkflowStarted):
            found.append((event.stream.removeprefix("aion_workflow-"), str(decoded.run_id)))
    return found


async def is_started(engine: Engine) -> bool:
    """Whether everything that was taken has been started."""
    histories = [await recorded(engine.store, schedule_id) for schedule_id in SCHEDULES]
    started = set(await starts(engine.store))
    return all(set(taken(events)) <= started for events in histories)


async def has_caught_up(engine: Engine, opened_at: datetime) -> bool:
    """Whether every due time from before the engine was opened is decided."""
    descriptions = [await engine.schedules.describe(schedule_id) for schedule_id in SCHEDULES]
    return all(d.next_times[0] > opened_at for d in descriptions)


def taken(events: list[ev.ScheduleEvent]) -> list[tuple[str, str]]:
    return [(e.workflow_id, e.run_id) for e in events if isinstance(e, ev.ScheduleTriggered)]


async def test_no_due_time_is_lost_and_no_action_is_started_twice(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'aion.db'}?durability=normal"
    drawn = random.Random(7)
    for _ in range(KILLS):
        run_and_kill(url, drawn.uniform(0.05, 1.2))
    async with Engine.open(url, workflows=[naps]) as engine:
        opened_at = SystemClock().now()
        await until(lambda: has_caught_up(engine, opened_at), seconds=60)
        for schedule_id in SCHEDULES:
            await engine.schedules.pause(schedule_id)
        await until(lambda: is_started(engine))
        found = await starts(engine.store)
        histories = {i: await recorded(engine.store, i) for i in SCHEDULES}
    assert set(Counter(found).values()) == {1}
    assert sorted(found) == sorted(pair for events in histories.values() for pair in taken(events))
    for events in histories.values():
        assert_each_second_is_decided_once(events)


def assert_each_second_is_decided_once(events: list[ev.ScheduleEvent]) -> None:
    waited = [e.scheduled_for for e in events if isinstance(e, ev.ScheduleBuffered)]
    settled = [
        e.scheduled_for for e in events if isinstance(e, ev.ScheduleTriggered | ev.ScheduleSkipped)
    ]
    assert len(set(waited)) == len(waited)
    assert len(set(settled)) == len(settled)
    decided = sorted({*waited, *settled})
    assert len(decided) >= KILLS
    assert decided == [decided[0] + n * SECOND for n in range(len(decided))]

"""Watch schedules: `python -m examples.schedules`.

Lets one schedule for each overlap policy be due every second, closes the engine for a while, opens it again, and
prints what was done for every due time. Exit status: 0 if every due time has exactly one outcome and every action
that was taken was started exactly once, else 1.
"""

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from aion_es import Engine
from aion_es.events import schedule as ev
from aion_es.events.codec import decode
from aion_es.ids import DEFAULT_NAMESPACE, ScheduleId, schedule_stream, workflow_prefix
from examples.schedules.workflows import EVERY, SCHEDULES, backup

SIGNS = {"taken": "▶", "waits": "…", "taken later": "▷", "skipped": "·", "missed": "×"}


async def watch(url: str, seconds: float) -> int:
    """Run the engine, rest as long, run it again; print what was done, and check it."""
    async with Engine.open(url, workflows=[backup]) as engine:
        for schedule in SCHEDULES:
            await engine.schedules.create(schedule)
        await asyncio.sleep(seconds)
    await asyncio.sleep(seconds)
    async with Engine.open(url, workflows=[backup]) as engine:
        await engine.wait_recovered()
        await asyncio.sleep(seconds)
        for schedule in SCHEDULES:
            await engine.schedules.pause(schedule.id, "the example ends")
        starts = await started(engine)
        histories = {s.id: await history(engine, s.id) for s in SCHEDULES}
    print("   ".join(f"{sign} {meaning}" for meaning, sign in SIGNS.items()))
    for schedule_id, events in histories.items():
        print(f"{schedule_id:26}{picture(events)}")
    wrong = [i for i, events in histories.items() if not is_right(events, starts)]
    if wrong:
        print(f"lost or doubled: {', '.join(wrong)}")
    else:
        print("every due time has one outcome, and every action was started once")
    return 1 if wrong else 0


async def history(engine: Engine, schedule_id: str) -> list[ev.ScheduleEvent]:
    """Return the events of a schedule, in order."""
    stream = schedule_stream(DEFAULT_NAMESPACE, ScheduleId(schedule_id))
    return [decode(event) async for event in engine.store.read(stream)]  # type: ignore[misc]  # only such events are in this stream


async def started(engine: Engine) -> Counter[str]:
    """Return how often each workflow was started."""
    prefix = workflow_prefix(DEFAULT_NAMESPACE)
    return Counter(
        [
            event.stream.removeprefix(prefix)
            async for event in engine.store.read_all(prefix=prefix)
            if event.type == "WorkflowStarted"
        ]
    )


def outcomes(events: Sequence[ev.ScheduleEvent]) -> dict[datetime, list[str]]:
    """Return what was recorded for each due time, in the order of the due times."""
    found: dict[datetime, list[str]] = {}
    for event in events:
        match event:
            case ev.ScheduleTriggered():
                before = found.setdefault(event.scheduled_for, [])
                before.append("taken later" if before else "taken")
            case ev.ScheduleBuffered():
                found.setdefault(event.scheduled_for, []).append("waits")
            case ev.ScheduleSkipped():
                missed = event.reason == "catch_up"
                found.setdefault(event.scheduled_for, []).append("missed" if missed else "skipped")
            case _:
                pass
    return dict(sorted(found.items()))


def picture(events: Sequence[ev.ScheduleEvent]) -> str:
    """Return one sign for each due time: how it came out."""
    return "".join(SIGNS[told[-1]] for told in outcomes(events).values())


def is_right(events: Sequence[ev.ScheduleEvent], starts: Counter[str]) -> bool:
    """Return whether no due time was left out, none has two outcomes, and each action was started once."""
    told = outcomes(events)
    times = list(told)
    in_a_row = [times[0] + n * EVERY for n in range(len(times))]
    once = all(len(found) - ("waits" in found) <= 1 for found in told.values())
    taken = [e.workflow_id for e in events if isinstance(e, ev.ScheduleTriggered)]
    return times == in_a_row and once and all(starts[workflow_id] == 1 for workflow_id in taken)


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line and watch."""
    parser = argparse.ArgumentParser(prog="python -m examples.schedules", description=__doc__)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each part; default 6")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as directory:
        url = f"sqlite:///{Path(directory) / 'aion.db'}"
        return asyncio.run(watch(url, max(asked.seconds, 2 * EVERY / timedelta(seconds=1))))


if __name__ == "__main__":
    sys.exit(main())

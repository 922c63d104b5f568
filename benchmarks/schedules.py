"""Schedules: many that are due in the same minute, and many that are not (S1)."""

import asyncio
import sqlite3
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from aion_es import Context, Engine, workflow
from aion_es.schedules import Cron, Schedule, Start
from aion_es.store.port import RecordedEvent
from aion_es.testing.clock import ManualClock
from benchmarks.harness import Bench, Reach, Row, row
from benchmarks.workloads import Measured, resident_bytes

_BEFORE: Final = datetime(2026, 11, 24, 11, 59, 30, tzinfo=UTC)
_AT_ONCE: Final = 500
"""Schedules that are created at once."""
_WATCHED: Final = 3.0
"""Seconds for which an idle engine is watched."""


@workflow
async def tick(ctx: Context) -> None:
    """Do nothing."""


async def due_at_once(directory: str, schedules: int) -> Measured:
    """Create schedules, let all of them be due in the same instant, and time the start of the last action."""
    clock = ManualClock(_BEFORE)
    url = f"sqlite:///{directory}/aion.db"
    async with Engine.open(url, workflows=[tick], clock=clock) as engine:
        await _create(engine, schedules, "* * * * *")
        end = await engine.store.end_position()
        async with engine.store.subscribe_all(from_position=end, prefix="aion_workflow-") as heard:
            began, cpu = time.perf_counter(), time.process_time()
            clock.advance(timedelta(seconds=30))
            started: list[str] = []
            while len(started) < schedules:
                started += _starts(await heard.next_batch())
            seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    if len(set(started)) != schedules:
        raise RuntimeError(f"{len(started) - len(set(started))} actions were started twice")
    values = {"seconds": seconds, "cpu_seconds": cpu, "actions_per_s": schedules / seconds}
    return {"values": values, "settings": {"store": "SQLite, synchronous=FULL"}}


async def idle(directory: str, schedules: int) -> Measured:
    """Create schedules that are due in a year; measure their rows, and an engine that waits with them."""
    url = f"sqlite:///{directory}/aion.db"
    async with Engine.open(url, workflows=[tick]) as engine:
        await _create(engine, schedules, "0 0 1 1 *")
        await engine.projections.wait_until_caught_up()
    async with Engine.open(url, workflows=[tick]) as engine:
        await engine.wait_recovered()
        without, before = resident_bytes(), time.process_time()
        await asyncio.sleep(_WATCHED)
        cpu = time.process_time() - before
        held = len(engine._core.timers)
    if held:
        raise RuntimeError(f"{held} schedules are held in memory")
    values = {
        "row_bytes": _row_bytes(Path(directory) / "aion.readmodel.db") / schedules,
        "cpu_share": cpu / _WATCHED,
        "resident_mib": without / 2**20,
    }
    return {"values": values, "settings": {"store": "SQLite, synchronous=FULL"}}


async def _create(engine: Engine, schedules: int, cron: str) -> None:
    for first in range(0, schedules, _AT_ONCE):
        async with asyncio.TaskGroup() as group:
            for number in range(first, min(first + _AT_ONCE, schedules)):
                schedule = Schedule(id=f"s{number}", spec=Cron(cron), action=Start(tick))
                group.create_task(engine.schedules.create(schedule))


def _starts(messages: Iterable[Any]) -> list[str]:
    return [
        m.stream for m in messages if isinstance(m, RecordedEvent) and m.type == "WorkflowStarted"
    ]


def _row_bytes(read_model: Path) -> int:
    """Return what the table and its indexes take."""
    with sqlite3.connect(read_model) as connection:
        total: int = connection.execute(
            "SELECT sum(pgsize) FROM dbstat WHERE name LIKE '%schedules%'"
        ).fetchone()[0]
    connection.close()
    return total


def s1(bench: Bench) -> list[Row]:
    """Both."""
    due, waiting = bench.sizes.schedules, bench.sizes.idle_schedules
    at_once = bench.rounds("S1", lambda: bench.measure("due_at_once", schedules=due))
    at_rest = bench.rounds("S1", lambda: bench.measure("idle", schedules=waiting))
    return [
        row(
            "S1",
            f"{due:,} schedules due in the same instant: until the last action is started",
            "s",
            [sample.values["seconds"] for sample in at_once],
            at_once,
            {"schedules": due},
            Reach("≤", 60.0, "s"),
        ),
        row(
            "S1",
            f"{waiting:,} schedules that are not due: row and indexes of each",
            "B",
            [sample.values["row_bytes"] for sample in at_rest],
            at_rest,
            {"schedules": waiting},
            Reach("≤", 1024, "B"),
        ),
        row(
            "S1",
            f"{waiting:,} schedules that are not due: CPU of the engine that waits with them",
            "cores",
            [sample.values["cpu_share"] for sample in at_rest],
            at_rest,
            {"schedules": waiting},
            Reach("≤", 0.02, "cores"),
        ),
    ]

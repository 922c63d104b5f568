"""The workloads: the workflows that are measured, and one function per measurement on them.

Each function runs in a process of its own (see `measure.py`) and returns its figures by name. A wrong
result is an error, never a figure.
"""

import asyncio
import gc
import os
import resource
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from aion_es import Context, Engine, EngineOptions, activity, workflow
from aion_es.projections.visibility import VisibilityProjection
from aion_es.store.port import EventStore, RecordedEvent
from aion_es.store.sqlite import SQLiteEventStore

Measured = Mapping[str, Mapping[str, Any]]
"""`values`: figures by name; `settings`: what decides their meaning."""

WARM_UP: Final = 20
_ROWS_PER_COMMIT: Final = 100
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_SYNCHRONOUS: Final = ("off", "normal", "full", "extra")

_gate = asyncio.Event()


@activity
async def add_one(number: int) -> int:
    """Do as little as can be done."""
    return number + 1


@activity
async def add_one_past_gate(number: int) -> int:
    """The same, once the gate is open."""
    await _gate.wait()
    return number + 1


@workflow
async def one_step(ctx: Context, number: int) -> int:
    """Run one activity."""
    return await ctx.run(add_one, number)


@workflow
async def three_steps(ctx: Context, number: int) -> int:
    """Run three activities, one after the other."""
    first = await ctx.run(add_one, number)
    second = await ctx.run(add_one, first)
    return await ctx.run(add_one, second)


@workflow
async def many_steps(ctx: Context, count: int) -> int:
    """Run `count` activities, one after the other."""
    number = 0
    for _ in range(count):
        number = await ctx.run(add_one, number)
    return number


@workflow
async def gated(ctx: Context, number: int) -> int:
    """Run three activities, of which the second waits for the gate."""
    first = await ctx.run(add_one, number)
    second = await ctx.run(add_one_past_gate, first)
    return await ctx.run(add_one, second)


WORKFLOWS: Final = (one_step, three_steps, many_steps, gated)
ACTIVITIES: Final = (add_one, add_one_past_gate)


class WrongResultError(Exception):
    """The measured work did not do what it should: its time means nothing."""


def _open(directory: str, options: EngineOptions | None = None) -> Any:
    return Engine.open(
        f"sqlite:///{directory}/bench.db",
        workflows=WORKFLOWS,
        activities=ACTIVITIES,
        options=options,
    )


async def settings_of(store: EventStore) -> dict[str, str]:
    """Return a store's settings as its writing connection has them."""
    if not isinstance(store, SQLiteEventStore):
        return {}
    (
        mode,
        level,
    ) = await store._writer.call(  # the file does not tell `synchronous`: it is the connection's
        lambda connection: (
            connection.execute("PRAGMA journal_mode").fetchone()[0],
            connection.execute("PRAGMA synchronous").fetchone()[0],
        )
    )
    return {"journal_mode": mode, "synchronous": _SYNCHRONOUS[level]}


def resident_bytes() -> int:
    """Return how much memory this process holds, once what is garbage was collected."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE_BYTES


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def _end(engine: Engine) -> int:
    return (await engine.store.end_position()).commit + 1


def _require(expected: object, found: object) -> None:
    if expected != found:
        raise WrongResultError(f"expected {expected!r}, found {found!r}"[:400])


async def parallel(directory: str, workflows: int) -> Measured:
    """P1, P2: many workflows at once, three activities each."""
    async with _open(directory) as engine:
        await _one_after_the_other(engine, WARM_UP)

        async def once(number: int) -> int:
            handle = await engine.start(three_steps, number)
            result: int = await handle.result()
            return result

        before, cpu, began = await _end(engine), _cpu_seconds(), time.perf_counter()
        results = await asyncio.gather(*(once(number) for number in range(workflows)))
        done = time.perf_counter() - began
        cpu_done = _cpu_seconds() - cpu
        await engine.projections.wait_until(
            await engine.store.end_position(), projection=VisibilityProjection.name
        )
        caught_up = time.perf_counter() - began
        events = await _end(engine) - before
        settings = await settings_of(engine.store)
    _require([number + 3 for number in range(workflows)], results)
    return {
        "values": {
            "workflows_per_s": workflows / done,
            "workflows_per_s_caught_up": workflows / caught_up,
            "events_per_s": events / done,
            "events_per_workflow": events / workflows,
            "cpu_ms_per_workflow": cpu_done / workflows * 1e3,
        },
        "settings": settings,
    }


async def raw_inserts(directory: str) -> Measured:
    """P2: what SQLite itself does with the rows that `parallel` recorded in this directory."""
    return await asyncio.to_thread(_raw_inserts, Path(directory))


def _raw_inserts(directory: Path) -> Measured:
    with sqlite3.connect(directory / "bench.db") as source:
        rows = source.execute(
            "SELECT position, stream_id, revision, event_id, type, recorded_at, metadata, data FROM events"
        ).fetchall()
    source.close()
    target = sqlite3.connect(directory / "raw.db", isolation_level=None)
    mode = target.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    target.execute("PRAGMA synchronous = FULL")
    target.execute("PRAGMA cache_size = -16000")
    target.execute(
        "CREATE TABLE events (position INTEGER PRIMARY KEY, stream_id INTEGER NOT NULL, revision INTEGER NOT NULL, "
        "event_id BLOB NOT NULL, type TEXT NOT NULL, recorded_at INTEGER NOT NULL, metadata BLOB NOT NULL, "
        "data BLOB NOT NULL)"
    )
    target.execute("CREATE UNIQUE INDEX events_by_stream ON events (stream_id, revision)")
    began = time.perf_counter()
    for start in range(0, len(rows), _ROWS_PER_COMMIT):
        target.execute("BEGIN IMMEDIATE")
        target.executemany(
            "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            rows[start : start + _ROWS_PER_COMMIT],
        )
        target.execute("COMMIT")
    took = time.perf_counter() - began
    level = target.execute("PRAGMA synchronous").fetchone()[0]
    target.close()
    return {
        "values": {"rows_per_s": len(rows) / took},
        "settings": {"journal_mode": mode, "synchronous": _SYNCHRONOUS[level]},
    }


async def sequential(directory: str, workflows: int) -> Measured:
    """P3: workflows one after the other, one activity each."""
    async with _open(directory) as engine:
        await _one_after_the_other(engine, WARM_UP)
        cpu, began = _cpu_seconds(), time.perf_counter()
        await _one_after_the_other(engine, workflows)
        took = time.perf_counter() - began
        cpu = _cpu_seconds() - cpu
        settings = await settings_of(engine.store)
    return {
        "values": {
            "workflows_per_s": workflows / took,
            "cpu_ms_per_workflow": cpu / workflows * 1e3,
        },
        "settings": settings,
    }


async def _one_after_the_other(engine: Engine, workflows: int) -> None:
    for number in range(workflows):
        handle = await engine.start(one_step, number)
        _require(number + 1, await handle.result())


async def steps(directory: str, activities: int) -> Measured:
    """P4: one workflow, many activities in a row."""
    async with _open(directory) as engine:
        await _one_after_the_other(engine, WARM_UP)
        cpu, began = _cpu_seconds(), time.perf_counter()
        handle = await engine.start(many_steps, activities)
        result = await handle.result()
        took = time.perf_counter() - began
        cpu = _cpu_seconds() - cpu
        settings = await settings_of(engine.store)
    _require(activities, result)
    return {
        "values": {
            "activities_per_s": activities / took,
            "cpu_ms_per_activity": cpu / activities * 1e3,
        },
        "settings": settings,
    }


async def crash(directory: str, workflows: int) -> Measured:
    """P5, first process: leave `workflows` behind after their first activity; never returns, waits to be killed."""
    async with _open(directory, EngineOptions(max_activities=workflows + 100)) as engine:
        async with asyncio.TaskGroup() as group:
            for number in range(workflows):
                group.create_task(engine.start(gated, number, id=f"pending-{number}"))
        await _recorded(engine, "ActivityCompleted", workflows)
        print('{"pending": true}', flush=True)
        await asyncio.Event().wait()
    raise WrongResultError("the gate of a process that is to be killed never opens")


async def recover(directory: str, workflows: int) -> Measured:
    """P5, second process: from its start until everything that the first left behind is complete."""
    _gate.set()
    async with _open(directory, EngineOptions(max_activities=workflows + 100)) as engine:
        opened = time.time()
        await _recorded(engine, "WorkflowCompleted", workflows)
        now = time.time()
        executed = engine.activities_executed
        results = [
            await engine.handle(f"pending-{number}", gated).result() for number in range(workflows)
        ]
        settings = await settings_of(engine.store)
    _require([number + 3 for number in range(workflows)], results)
    _require(2 * workflows, executed)
    started = float(os.environ["BENCH_STARTED_AT"])
    return {
        "values": {"seconds": now - started, "seconds_from_open": now - opened},
        "settings": settings,
    }


async def _recorded(engine: Engine, event_type: str, count: int) -> None:
    """Return once `count` events of one type are in the store."""
    seen = 0
    async with engine.store.subscribe_all() as subscription:
        while seen < count:
            for message in await subscription.next_batch():
                if isinstance(message, RecordedEvent) and message.type == event_type:
                    seen += 1

"""What sleeps, and how it wakes: many sleepers (P8), many timers at once (P11), one signal (P14)."""

import asyncio
import json
import statistics
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from aion_es import Client, Context, Engine, EngineOptions, Signal, workflow
from benchmarks.harness import Bench, Reach, Row, Sample, fresh_directory, own_command, row
from benchmarks.workloads import (
    Measured,
    WrongResultError,
    add_one,
    one_step,
    resident_bytes,
    settings_of,
)

ring: Final = Signal("ring", int)
_AT_ONCE: Final = 500
_IDLE_SECONDS: Final = 5.0
_MONTH: Final = 30 * 86_400


@workflow
async def sleeper(_ctx: Context, seconds: float) -> None:
    """Sleep."""
    await asyncio.sleep(seconds)


@workflow
async def sleeper_until(ctx: Context, due_at: datetime) -> None:
    """Sleep until an instant."""
    await ctx.sleep(due_at - ctx.now())


@workflow
async def sleeps_often(ctx: Context, due_at: datetime) -> int:
    """Sleep a hundred times at once until an instant."""
    delay = due_at - ctx.now()
    return len(await asyncio.gather(*(ctx.sleep(delay) for _ in range(100))))


@workflow
async def answers(ctx: Context) -> int:
    """Give back what a signal brings."""
    return await ctx.receive(ring)


WORKFLOWS: Final = (sleeper, sleeper_until, sleeps_often, answers, one_step)


def _open(directory: str, options: EngineOptions | None = None) -> Any:
    return Engine.open(_url(directory), workflows=WORKFLOWS, activities=[add_one], options=options)


def _url(directory: str) -> str:
    return f"sqlite:///{directory}/bench.db"


async def _start_many(engine: Engine, workflow: Any, arguments: Sequence[Any]) -> list[Any]:
    handles: list[Any] = []
    for index in range(0, len(arguments), _AT_ONCE):
        chunk = arguments[index : index + _AT_ONCE]
        handles += await asyncio.gather(*(engine.start(workflow, value) for value in chunk))
    return handles


# -------------------------------------------------------------------------------- measuring


async def sleepers(directory: str, workflows: int) -> Measured:
    """P8: what each further sleeping run costs once the caches are full, and CPU while all sleep."""
    first = workflows // 2
    async with _open(directory, EngineOptions(max_resident=100)) as engine:
        await _start_many(engine, sleeper, [_MONTH] * first)
        await engine.projections.wait_until_caught_up()
        before = resident_bytes()
        await _start_many(engine, sleeper, [_MONTH] * (workflows - first))
        await engine.projections.wait_until_caught_up()
        grown = resident_bytes() - before
        await asyncio.sleep(1)
        began, used = time.perf_counter(), time.process_time()
        await asyncio.sleep(_IDLE_SECONDS)
        idle = (time.process_time() - used) / (time.perf_counter() - began) * 100
        settings = await settings_of(engine.store)
    values = {
        "bytes_per_run": grown / (workflows - first),
        "megabytes": (before + grown) / 1e6,
        "idle_percent": idle,
    }
    return {"values": values, "settings": settings}


async def wake_up(directory: str) -> Measured:
    """P8: from the opening of an engine on a store of sleepers to the end of its first new workflow."""
    began = time.perf_counter()
    async with _open(directory) as engine:
        handle = await engine.start(one_step, 1)
        if await handle.result() != 2:
            raise WrongResultError("one_step")
        took = time.perf_counter() - began
        await engine.wait_recovered()
        recovered = time.perf_counter() - began
        settings = await settings_of(engine.store)
    return {"values": {"seconds": took, "recovered_seconds": recovered}, "settings": settings}


async def timers_at_once(directory: str, timers: int, each: int) -> Measured:
    """P11: from the instant at which all timers are due to the end of the last workflow that waits for one."""
    code, count = (sleeper_until, timers) if each == 1 else (sleeps_often, timers // each)
    async with _open(directory) as engine:
        due_at = datetime.now(UTC) + timedelta(seconds=3 + count / 500)
        handles = await _start_many(engine, code, [due_at] * count)
        if datetime.now(UTC) >= due_at:
            raise WrongResultError("the timers were due before all were armed")
        await asyncio.gather(*(handle.result() for handle in handles))
        took = (datetime.now(UTC) - due_at).total_seconds()
        events = [event.type async for event in engine.store.read_all()]
        if events.count("TimerFired") != timers:
            raise WrongResultError(f"{events.count('TimerFired')} of {timers} timers fired")
        settings = await settings_of(engine.store)
    return {"values": {"seconds": took}, "settings": settings}


async def signal_latency(directory: str, samples: int, where: str) -> Measured:
    """P14: from the sending of a signal to the result in the hands of the waiter.

    Args:
        directory: Of the store.
        samples: How many workflows.
        where: `resident`, `evicted`, or `client`: a second process on the same file.
    """
    options = EngineOptions(max_resident=1) if where == "evicted" else None
    async with _open(directory, options) as engine:
        handles = [await engine.start(answers, id=f"w{n}") for n in range(samples)]
        if where == "client":
            command = own_command("signal_from_a_client", Path(directory), samples=samples)
            process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
            output, _ = await process.communicate()
            values = json.loads(output.splitlines()[-1])["values"]
        else:
            values = {"ms": await _rung(handles)}
        settings = await settings_of(engine.store)
    return {"values": values, "settings": settings}


async def signal_from_a_client(directory: str, samples: int) -> Measured:
    """P14, its second process."""
    async with Client.open(_url(directory)) as client:
        handles = [client.handle(f"w{n}", answers) for n in range(samples)]
        return {"values": {"ms": await _rung(handles)}, "settings": {}}


async def _rung(handles: Sequence[Any]) -> float:
    """Return the median of the milliseconds from signal to result, one workflow after the other."""
    took: list[float] = []
    for number, handle in enumerate(handles):
        began = time.perf_counter()
        waiting = asyncio.ensure_future(handle.result())
        await handle.signal(ring, number)
        if await waiting != number:
            raise WrongResultError("answers")
        took.append((time.perf_counter() - began) * 1_000)
    return statistics.median(took)


# --------------------------------------------------------------------------------- the rows


def p8(bench: Bench) -> list[Row]:
    """Many workflows that sleep: what they cost, and how long it takes to come back among them."""
    count = bench.sizes.sleepers

    def once() -> tuple[Sample, Sample]:
        with fresh_directory() as directory:
            asleep = bench.measure("sleepers", directory, workflows=count)
            return asleep, bench.measure("wake_up", directory)

    pairs = bench.rounds("P8", once)
    samples = [sample for pair in pairs for sample in pair]
    sizes = {"workflows": count}
    figures = (
        (
            "resident memory for each of the second half",
            "bytes",
            "bytes_per_run",
            0,
            Reach("≤", 1_024, "bytes"),
        ),
        ("resident memory of the whole process", "MB", "megabytes", 0, None),
        ("CPU while all sleep", "% of a core", "idle_percent", 0, Reach("≤", 1, "% of a core")),
        ("engine open to its first result", "s", "seconds", 1, Reach("≤", 2, "s")),
        ("engine open to all recovered", "s", "recovered_seconds", 1, None),
    )
    return [
        row(
            "P8",
            f"{count:,} sleeping workflows: {what}",
            unit,
            [pair[which].values[name] for pair in pairs],
            samples,
            sizes,
            reach,
        )
        for what, unit, name, which, reach in figures
    ]


def p11(bench: Bench) -> list[Row]:
    """Many timers that are due at the same instant."""
    timers = bench.sizes.timers
    rows: list[Row] = []
    for each, what in ((1, "one a workflow"), (100, "a hundred a workflow")):
        samples = bench.rounds(
            f"P11, {what}",
            lambda each=each: bench.measure("timers_at_once", timers=timers, each=each),  # type: ignore[misc]
        )
        seconds = [sample.values["seconds"] for sample in samples]
        rows.append(
            row(
                "P11",
                f"{timers:,} timers due at once, {what}: the last workflow has ended",
                "s",
                seconds,
                samples,
                {"timers": timers, "timers_per_workflow": each},
                Reach("≤", 3, "s"),
            )
        )
    return rows


def p14(bench: Bench) -> list[Row]:
    """One signal to one workflow that waits for it."""
    rows: list[Row] = []
    for where, what, bound in (
        ("resident", "a resident workflow", 3),
        ("evicted", "one out of memory", 8),
        ("client", "a resident one, from a second process", 60),
    ):
        samples = bench.rounds(
            f"P14, {where}",
            lambda where=where: bench.measure(  # type: ignore[misc]
                "signal_latency", samples=bench.sizes.signals, where=where
            ),
        )
        rows.append(
            row(
                "P14",
                f"signal to {what} until its result is seen (median)",
                "ms",
                [sample.values["ms"] for sample in samples],
                samples,
                {"signals": bench.sizes.signals},
                Reach("≤", bound, "ms"),
            )
        )
    return rows

"""Workflows of every shape, what drives each to its end however often, and what of a history is a decision."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from aion_es import Context, RetryPolicy, Signal, activity, workflow
from aion_es.app import Engine
from aion_es.errors import RunClosedError, WorkflowCancelledError
from aion_es.events.codec import decode, decode_metadata
from aion_es.events.workflow import (
    ActivityCompleted,
    ActivityFailed,
    ActivityScheduled,
    ActivityStarted,
    SignalReceived,
    TimerCancelled,
    TimerFired,
    TimerStarted,
    WorkflowCompleted,
    WorkflowContinuedAsNew,
    WorkflowEvent,
)
from aion_es.store.port import RecordedEvent

SOON = timedelta(seconds=20)
AT_ONCE = RetryPolicy(initial_interval=timedelta(0))

go = Signal("go", int)
executions: Counter[str] = Counter()
"""How often each activity's code was entered, by idempotency key."""


def entered() -> int:
    key = activity.info().idempotency_key
    executions[key] += 1
    return executions[key]


@activity(retry=AT_ONCE)
async def add_one(number: int) -> int:
    entered()
    await asyncio.sleep(0)
    return number + 1


@activity(retry=AT_ONCE)
async def third_time_lucky(number: int) -> int:
    if entered() < 3:
        raise RuntimeError("not yet")
    return number + 1


@activity(retry=RetryPolicy(initial_interval=timedelta(0), max_attempts=50))
async def bounded(number: int) -> int:
    entered()
    return number + 1


@workflow
async def in_a_row(ctx: Context) -> int:
    number = 0
    for step in (add_one, bounded, add_one):
        number = await ctx.run(step, number)
    return number


@workflow
async def retrying(ctx: Context) -> int:
    return await ctx.run(third_time_lucky, await ctx.run(add_one, 0))


@workflow
async def napping(ctx: Context) -> int:
    await asyncio.sleep(0.02)
    number = await ctx.run(add_one, 0)
    async with asyncio.timeout(3_600):
        await ctx.sleep(timedelta(milliseconds=10))
    return number


@workflow
async def fanning_out(ctx: Context) -> list[int]:
    return list(await asyncio.gather(*(ctx.run(add_one, i) for i in range(10))))


@workflow
async def signalled(ctx: Context) -> list[int]:
    taken = [await ctx.receive(go), await ctx.receive(go)]
    return [await ctx.run(add_one, number) for number in taken]


@workflow
async def continuing(ctx: Context, count: int) -> int:
    count = await ctx.run(add_one, count)
    if count == 3:
        return count
    return ctx.continue_as_new(count)


@workflow
async def cleaning_up(ctx: Context) -> None:
    try:
        await asyncio.sleep(3_600)
    except asyncio.CancelledError:
        await ctx.run(add_one, 0)
        await ctx.run(bounded, 0)
        raise


WORKFLOWS: list[Any] = [
    in_a_row,
    retrying,
    napping,
    fanning_out,
    signalled,
    continuing,
    cleaning_up,
]
ACTIVITIES: list[Any] = [add_one, third_time_lucky, bounded]


async def run_plainly(engine: Engine, code: str, id: str) -> Any:
    return await (await engine.start(code, id=id, request_id=id)).result(timeout=SOON)


async def run_chain(engine: Engine, code: str, id: str) -> Any:
    # A request is remembered by the run that it started: a later run of the chain is found open, or closed.
    handle = await engine.start(code, 0, id=id, request_id=id, on_conflict="use_existing")
    return await handle.result(timeout=SOON)


async def run_with_signals(engine: Engine, code: str, id: str) -> Any:
    handle = await engine.start(code, id=id, request_id=id)
    for value in (1, 2):
        try:
            await handle.signal(go, value, signal_id=f"signal-{value}")
        except RunClosedError:
            break  # it has them both
    return await handle.result(timeout=SOON)


async def run_and_cancel(engine: Engine, code: str, id: str) -> Any:
    handle = await engine.start(code, id=id, request_id=id)
    with suppress(RunClosedError):  # it has ended already
        await handle.cancel("enough")
    try:
        return await handle.result(timeout=SOON)
    except WorkflowCancelledError as error:
        return error.reason


@dataclass(frozen=True)
class Shape:
    """A workflow, and what brings it to its end: asked again after a crash it does the same again."""

    code: str
    drive: Callable[[Engine, str, str], Awaitable[Any]]
    result: object


SHAPES = (
    Shape("in_a_row", run_plainly, 3),
    Shape("retrying", run_plainly, 2),
    Shape("napping", run_plainly, 1),
    Shape("fanning_out", run_plainly, list(range(1, 11))),
    Shape("signalled", run_with_signals, [2, 3]),
    Shape("continuing", run_chain, 3),
    Shape("cleaning_up", run_and_cancel, "enough"),
)


def decisions(stream: Sequence[RecordedEvent]) -> tuple[list[str], list[str]]:
    """Return what the code commanded, in order, and what it was told, sorted: which of two that end at the
    same moment comes first is nobody's decision. Attempts and their failures are left out."""
    commands: list[str] = []
    facts: list[str] = []
    for recorded in stream:
        match decode(recorded):
            case ActivityStarted():
                pass
            case ActivityFailed() as failed if failed.retry_at is not None:
                pass
            case ActivityCompleted() as completed:
                facts.append(f"completed {completed.activity_id} {completed.result.data}")
            case TimerFired() as fired:
                facts.append(f"fired {fired.timer_id}")
            case SignalReceived() as signal:
                facts.append(f"signal {signal.signal_id}")
            case event:
                commands.append(_named(event))  # type: ignore[arg-type]  # only workflows' streams are read
    return commands, sorted(facts)


def _named(event: WorkflowEvent) -> str:
    match event:
        case ActivityScheduled():
            detail: object = f"{event.activity_id} {event.activity_type} {event.input.data}"
        case TimerStarted() | TimerCancelled():
            detail = event.timer_id
        case WorkflowCompleted():
            detail = event.result.data
        case WorkflowContinuedAsNew():
            detail = event.input.data
        case _:
            detail = ""
    return f"{type(event).__name__} {detail}".strip()


def completed_keys(stream: Sequence[RecordedEvent]) -> list[str]:
    """Return the idempotency keys of the activities whose completion is recorded, in order."""
    return [
        f"{decode_metadata(recorded).run_id}/{event.activity_id}"
        for recorded in stream
        if isinstance(event := decode(recorded), ActivityCompleted)
    ]

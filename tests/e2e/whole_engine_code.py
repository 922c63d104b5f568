"""What the engine of `test_whole_engine` runs: code that does what it is told by signals, and all else besides."""

import asyncio
from collections.abc import Awaitable
from datetime import timedelta
from typing import Any

from aion_es import (
    ActivityError,
    ChildWorkflowError,
    Context,
    NonRetryableError,
    RetryPolicy,
    Signal,
    SignalDeliveryError,
    activity,
    workflow,
)

tell = Signal("tell", int)
SECOND = timedelta(seconds=1)


class Outside:
    """Whether what `delicate` needs works just now."""

    works = True


@activity(retry=RetryPolicy(initial_interval=SECOND))
async def steady(number: int) -> int:
    await asyncio.sleep(0)
    return number


@activity(retry=RetryPolicy(initial_interval=SECOND, max_attempts=1_000))
async def second_time(number: int) -> int:
    if activity.info().attempt % 2:
        raise RuntimeError("the first time")
    return number


@activity
async def delicate() -> str:
    if not Outside.works:
        raise NonRetryableError("out of order")
    return "fine"


@workflow
async def obeys(ctx: Context, told: int) -> int:
    """Do what each signal says, until one says to stop or to begin anew."""
    while True:
        order = await ctx.receive(tell)
        told += 1
        match order % 8:
            case 0:
                await ctx.run(steady, order)
            case 1:
                await ctx.run(second_time, order)
            case 2:
                await asyncio.gather(ctx.run(steady, order), ctx.sleep(3 * SECOND))
            case 3:
                await _mind(ctx.spawn(brief, order))
            case 4:
                await _mind(ctx.send("w0", tell, 8))
            case 5:
                await ctx.race(ctx.run(second_time, order), asyncio.sleep(0.5))
            case 6:
                await ctx.run(delicate)
            case _:
                if order > 8:
                    return told
                ctx.continue_as_new(told)


async def _mind(future: Awaitable[Any]) -> None:
    try:
        await future
    except (ChildWorkflowError, SignalDeliveryError):
        return


@workflow
async def brief(ctx: Context, number: int) -> int:
    await ctx.sleep(SECOND)
    return await ctx.run(steady, number)


@workflow
async def rears(ctx: Context, number: int) -> int:
    """Children of each kind: awaited, left to be cancelled, left alone."""
    left = [
        ctx.spawn(waits, number, parent_close="cancel"),
        ctx.spawn(brief, number, parent_close="abandon"),
    ]
    ended = await asyncio.gather(*(ctx.spawn(brief, n) for n in range(2)), return_exceptions=True)
    await ctx.run(second_time, number)
    return len(ended) + len(left)


@workflow
async def waits(ctx: Context, number: int) -> None:
    """Wait for long, and clean up behind itself."""
    try:
        await ctx.sleep(timedelta(hours=1))
    except asyncio.CancelledError:
        await ctx.run(second_time, number)
        raise


@workflow
async def undoes(ctx: Context, number: int) -> str:
    await ctx.run(steady, number)
    try:
        return await ctx.run(delicate)
    except ActivityError:
        await ctx.run(steady, -number)
        raise


WORKFLOWS: list[Any] = [obeys, brief, rears, waits, undoes]
ACTIVITIES: list[Any] = [steady, second_time, delicate]

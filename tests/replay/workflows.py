"""The code that recorded the golden histories, as it was; it is changed no more than they are."""

import asyncio
from datetime import timedelta
from typing import Any

from pydantic import BaseModel

from aion_es import (
    ActivityError,
    Context,
    NonRetryableError,
    RetryPolicy,
    SearchAttribute,
    Signal,
    activity,
    workflow,
)


class Order(BaseModel):
    id: str
    amount_cents: int


number = Signal("number", int)
bell = Signal("bell")
customer = SearchAttribute("customer", str)


@activity
async def charge(order: Order) -> str:
    return f"receipt-{order.id}"


@activity
def double(value: int) -> int:
    return value * 2


@activity(retry=RetryPolicy(max_attempts=3))
async def second_time_lucky(value: int) -> int:
    if activity.info().attempt < 2:
        raise RuntimeError("not yet")
    return value


@activity
async def refuse() -> None:
    raise NonRetryableError("stolen", details={"card": 42})


@activity
async def endless() -> None:
    await asyncio.sleep(3_600)


@workflow
async def one_activity(ctx: Context, order: Order) -> str:
    return await ctx.run(charge, order)


@workflow
async def fan_out(ctx: Context) -> list[int]:
    return list(await asyncio.gather(*(ctx.run(double, i) for i in range(4))))


@workflow
async def retries(ctx: Context) -> str:
    value = await ctx.run(second_time_lucky, 7)
    try:
        await ctx.run(refuse)
    except ActivityError as error:
        return f"{value} {error.type} {error.details}"
    return "unreachable"


@workflow
async def timers(ctx: Context) -> str:
    await asyncio.sleep(60)
    named = ctx.start_timer("tea", timedelta(minutes=3))
    try:
        await ctx.with_timeout(ctx.receive(bell), timedelta(seconds=30))
        rung = "rung"
    except TimeoutError:
        rung = "silent"
    async with asyncio.timeout(3_600):
        await ctx.run(double, 1)
    named.cancel()
    return rung


@workflow
async def signals(ctx: Context) -> list[int]:
    first = await ctx.receive(number)
    waiting = asyncio.ensure_future(ctx.receive(number))
    await ctx.receive(bell)
    waiting.cancel()
    return [first, await ctx.receive(number)]


@workflow
async def chain(ctx: Context, count: int) -> int:
    count = await ctx.run(double, count)
    await ctx.receive(bell)
    if count >= 8:
        return count
    return ctx.continue_as_new(count)


@workflow
async def cleans_up(ctx: Context) -> None:
    try:
        await asyncio.sleep(3_600)
    except asyncio.CancelledError:
        await ctx.run(double, 1)
        raise


@workflow
async def cancels_activity(ctx: Context) -> str:
    running = ctx.run(endless, cancellation="wait")
    await ctx.receive(bell)
    running.cancel()
    await asyncio.wait({running})
    return "cancelled" if running.cancelled() else "ran"


@workflow
async def markers(ctx: Context) -> str:
    value = ctx.side_effect(lambda: 42, int)
    path = "new" if ctx.patched("path") else "old"
    ctx.set_attributes({customer: "ana"})
    drawn = ctx.random.random()
    await ctx.sleep(1)
    ctx.set_attributes({customer: None})
    return f"{value} {path} {drawn:.6f} {ctx.uuid4()} {ctx.now().isoformat()}"


@workflow
async def fails(ctx: Context) -> None:
    await ctx.run(double, 1)
    raise LookupError("no such shelf")


@workflow
async def paused(ctx: Context) -> list[int]:
    return [await ctx.receive(number) for _ in range(2)]


@workflow
async def primitives(ctx: Context) -> list[str]:
    queue: asyncio.Queue[int] = asyncio.Queue(maxsize=1)
    lock, opened, log = asyncio.Lock(), asyncio.Event(), list[str]()

    async def produce() -> None:
        for value in range(3):
            await queue.put(await ctx.run(double, value))
        opened.set()

    async def consume(name: str) -> None:
        while True:
            value = await queue.get()
            async with lock:
                await ctx.sleep(1)
                log.append(f"{name} {value}")

    async with asyncio.TaskGroup() as group:
        group.create_task(produce())
        consumers = [group.create_task(consume(name)) for name in "ab"]
        await opened.wait()
        await ctx.sleep(10)
        for consumer in consumers:
            consumer.cancel()
    return log


WORKFLOWS: list[Any] = [
    one_activity,
    fan_out,
    retries,
    timers,
    signals,
    chain,
    cleans_up,
    cancels_activity,
    markers,
    fails,
    paused,
    primitives,
]
ACTIVITIES: list[Any] = [charge, double, second_time_lucky, refuse, endless]

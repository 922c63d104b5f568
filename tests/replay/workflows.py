"""The code that recorded the golden histories, as it was; it is changed no more than they are."""

import asyncio
from datetime import timedelta
from typing import Any

from pydantic import BaseModel

from aion_es import (
    ActivityError,
    ChildWorkflowError,
    Context,
    NonRetryableError,
    RetryPolicy,
    SearchAttribute,
    Signal,
    SignalDeliveryError,
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


@activity
async def second_lease_lucky(value: int) -> int:
    if activity.info().attempt < 2:
        raise NonRetryableError("not before it is reopened")
    return value


@activity(retry=RetryPolicy(max_attempts=2), heartbeat=timedelta(minutes=1))
async def remembers_how_far(value: int) -> str:
    said = activity.info().heartbeat_details
    if said is None:
        activity.heartbeat({"done": value})
        raise RuntimeError("half way")
    return f"went on from {said['done']}"


@workflow
async def waits_for_bell(ctx: Context) -> str:
    await ctx.receive(bell)
    return "rung"


@workflow
async def children(ctx: Context) -> list[str]:
    good = ctx.spawn(one_activity, Order(id="c", amount_cents=1), id="children-good")
    bad = ctx.spawn(fails)
    rung = ctx.spawn(waits_for_bell, attributes={customer: "ana"}, parent_close="terminate")
    await rung.signal(bell)
    outcomes: list[Any] = [*await asyncio.gather(good, bad, rung, return_exceptions=True)]
    unwanted = ctx.spawn(waits_for_bell, cancellation="wait")
    await ctx.run(double, 1)
    unwanted.cancel("enough")
    try:
        await unwanted
    except ChildWorkflowError as error:
        outcomes.append(error)
    _ = ctx.spawn(waits_for_bell, id="children-left", parent_close="abandon")
    return [o.type if isinstance(o, ChildWorkflowError) else o for o in outcomes]


@workflow
async def sends(ctx: Context) -> list[str]:
    _ = ctx.send(ctx.info.workflow_id, number, 3, signal_id="mine")
    await ctx.send(ctx.info.workflow_id, bell)
    try:
        await ctx.send("nobody", bell)
    except SignalDeliveryError as error:
        return [str(await ctx.receive(number)), error.signal]
    return []


@workflow
async def reopened(ctx: Context) -> list[Any]:
    timer = ctx.start_timer("long", timedelta(days=1))
    try:
        value = await ctx.run(second_lease_lucky, 7)
    except ActivityError:
        timer.cancel()
        if ctx.patched("undo"):
            await ctx.run(double, 1)
        raise
    timer.cancel()
    return [value, ctx.patched("undo"), await ctx.run(double, 2), await ctx.receive(number)]


@workflow
async def taken_back(ctx: Context) -> list[Any]:
    beside = ctx.run(endless, cancellation="wait")
    try:
        value = await ctx.run(second_lease_lucky, 7)
    except ActivityError:
        beside.cancel()
        await asyncio.wait({beside})
        _ = ctx.start_timer("reminder", timedelta(days=1))
        _ = ctx.spawn(waits_for_bell, id="taken-back-child", parent_close="abandon")
        await ctx.send(ctx.info.workflow_id, number, 1, signal_id="once")
        await ctx.run(double, ctx.random.randrange(1_000))
        raise
    await ctx.send(ctx.info.workflow_id, number, 2, signal_id="once")
    beside.cancel()
    await asyncio.wait({beside})
    drawn = str(ctx.uuid4())
    await ctx.start_timer(drawn, timedelta(seconds=1))
    return [value, drawn, await ctx.receive(number)]


@workflow
async def heartbeats(ctx: Context) -> str:
    return await ctx.run(remembers_how_far, 5)


@workflow
async def handlers(ctx: Context) -> list[int]:
    got: list[int] = []

    async def take(value: int) -> None:
        got.append(await ctx.run(double, value))

    handling = ctx.on_signal(number, take)
    await ctx.receive(bell)
    handling.cancel()
    return got


@workflow
async def combines(ctx: Context) -> list[Any]:
    mapped = await ctx.map(double, range(5), concurrency=2)
    settled = await ctx.map(second_lease_lucky, [1, 2], return_exceptions=True)
    first = await ctx.race(ctx.run(endless), ctx.run(double, 21))
    shielded = await ctx.shield(ctx.run(double, 4))
    return [mapped, [type(outcome).__name__ for outcome in settled], first, shielded]


@workflow
async def waits(ctx: Context) -> list[Any]:
    """What asyncio does in its own code, which may be another in the next Python: recorded on 3.11."""
    one_at_a_time, both = asyncio.Semaphore(1), asyncio.Barrier(2)

    async def in_turn(number: int) -> int:
        async with one_at_a_time:
            return await ctx.run(double, number)

    async def together(number: int) -> int:
        await both.wait()
        async with asyncio.timeout(60):
            return await ctx.run(double, number)

    limited = await asyncio.gather(*(asyncio.wait_for(ctx.run(double, i), 60) for i in range(3)))
    shielded = await asyncio.gather(*(asyncio.shield(ctx.run(double, i)) for i in range(3)))
    running = [asyncio.ensure_future(in_turn(i)) for i in range(3)]
    done, _ = await asyncio.wait(running, timeout=60)
    met = await asyncio.gather(together(1), together(2))
    ended = [await one for one in asyncio.as_completed([in_turn(i) for i in (5, 6)], timeout=60)]
    return [limited, shielded, sorted(task.result() for task in done), met, sorted(ended)]


@workflow
async def terminated(ctx: Context) -> None:
    await ctx.run(double, 1)
    await ctx.receive(bell)


@workflow
async def timed_out(ctx: Context) -> None:
    await ctx.run(double, 1)
    await ctx.receive(bell)


@workflow
async def hands_over(ctx: Context, runs: int) -> list[Any]:
    ctx.set_attributes({customer: "ana"})
    if runs:
        await ctx.receive(bell)
    first = await ctx.receive(number)
    if runs:
        ctx.continue_as_new(runs - 1)
    return [first, await ctx.receive(number), ctx.info.attempt]


def _refuse_to_make() -> int:
    raise LookupError("no setting")


@workflow
async def small_things(ctx: Context) -> list[Any]:
    said = ""
    try:
        ctx.side_effect(_refuse_to_make, int)
    except LookupError as error:
        said = str(error)
    beginning = ctx.info.attempt
    await ctx.run(double, 2, summary="double two", cancellation="abandon")
    late = ctx.race(ctx.sleep(timedelta(hours=1)), ctx.sleep(1))
    async with asyncio.TaskGroup() as group:
        group.create_task(late)
        group.create_task(ctx.sleep(2))
    try:
        await ctx.with_timeout(ctx.receive(bell), timedelta(seconds=1))
    except TimeoutError:
        return [said, beginning, "no bell"]
    return []


@workflow
async def fails_at_first(ctx: Context) -> int:
    return await ctx.run(second_lease_lucky, 7)


@workflow
async def brought_past(ctx: Context) -> list[int]:
    value = await ctx.spawn(fails_at_first, id="fails-at-first")
    return [value, ctx.info.attempt]


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
    waits_for_bell,
    children,
    sends,
    reopened,
    taken_back,
    heartbeats,
    handlers,
    combines,
    waits,
    terminated,
    timed_out,
    hands_over,
    small_things,
    fails_at_first,
    brought_past,
]
ACTIVITIES: list[Any] = [
    charge,
    double,
    second_time_lucky,
    refuse,
    endless,
    second_lease_lucky,
    remembers_how_far,
]

"""Right uses of every typed part of the API: both type checkers must accept each line."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

from aion_es import (
    ChildHandle,
    Client,
    Context,
    Engine,
    SearchAttribute,
    SearchAttributeValues,
    WorkflowHandle,
    workflow,
)
from aion_es.schedules import Cron, Schedule, Start
from tests.architecture.typing_channels import (
    Approval,
    Order,
    add_tax,
    approval,
    charge,
    checkout,
    customer,
    due,
    heartbeat,
    is_gift,
    phase,
    ping,
    price_of,
    stop,
    tags,
    total,
    weight,
)


@workflow
async def everything(ctx: Context, order: Order) -> str:
    """Use the context."""
    prices = {"book": 1}
    ctx.answer(phase, lambda: "charging")
    ctx.answer(price_of, lambda item: prices[item])
    handle: asyncio.Future[str] = ctx.run(charge, order)
    assert_type(await handle, str)
    assert_type(await ctx.run(add_tax, order.amount_cents), int)
    assert_type(await ctx.run(ping), bool)
    assert_type(await ctx.receive(approval), Approval)
    assert_type(await ctx.receive(stop), None)
    assert_type(await asyncio.gather(ctx.run(charge, order), ctx.run(ping)), tuple[str, bool])
    print(
        await ctx.receive(approval)
    )  # where anything is taken, the type is inferred from the channel
    async for message in ctx.signals(approval):
        assert_type(message, Approval)
        break
    return "done"


@workflow
async def labelled(ctx: Context, name: str | None) -> None:
    """Set search attributes: of one type in a dict, of several with `to`, by name in a dict."""
    ctx.set_attributes({customer: "ana"})
    ctx.set_attributes({customer: name})
    ctx.set_attributes({customer: None})
    ctx.set_attributes({total: 3})
    ctx.set_attributes({weight: 3, SearchAttribute("height", float): 0.5})
    ctx.set_attributes({is_gift: True})
    ctx.set_attributes({due: datetime(2026, 12, 24, tzinfo=UTC)})
    ctx.set_attributes({tags: ["vip"]})
    ctx.set_attributes({tags: ("vip", "eu")})
    ctx.set_attributes({"region": "eu", "floor": 3, "customer": None})
    ctx.set_attributes({})
    ctx.set_attributes(customer.to("ana"))
    ctx.set_attributes(customer.to(name) | total.to(3) | tags.to(["vip"]) | due.to(None))
    ctx.set_attributes(weight.to(3) | is_gift.to(True) | {"region": "eu"})
    ctx.set_attributes({"region": "eu"} | customer.to("ana") | {total: 3})
    kept = {customer: "ana"}
    ctx.set_attributes(kept)
    given: SearchAttributeValues = customer.to("ana")
    given = customer.to("ana") | given
    ctx.set_attributes(given)
    any_at_all: dict[SearchAttribute[Any], Any] = {customer: "ana", total: 3}
    ctx.set_attributes(any_at_all)
    await ctx.spawn(heartbeat, attributes={customer: "ana"})
    await ctx.spawn(checkout, Order("42", 999), attributes=customer.to("ana") | total.to(3))
    await ctx.spawn("checkout", attributes={tags: ["vip"]})


@workflow
async def others(ctx: Context, order: Order) -> str:
    """Use other workflows."""
    child = ctx.spawn(checkout, order, id="child", parent_close="abandon", cancellation="wait")
    _ = assert_type(child, ChildHandle[str])
    await child.signal(approval, Approval("ana"))
    await child.signal(stop)
    assert_type(await child, str)
    assert_type(await child.result(), str)
    assert_type(await ctx.spawn(heartbeat), int)
    assert_type(await asyncio.gather(ctx.spawn(heartbeat), child), tuple[int, str])
    await ctx.send("order-42", approval, Approval("ana"), signal_id="once")
    await ctx.send("order-42", stop)
    return "done"


@workflow
async def at_once(ctx: Context, orders: list[Order]) -> str:
    """Use several things at once."""
    given: list[Approval] = []

    async def wait_for(approved: Approval) -> None:
        await ctx.run(ping)
        given.append(approved)

    def note(approved: Approval) -> None:
        given.append(approved)

    tasks = [ctx.on_signal(approval, wait_for), ctx.on_signal(approval, note)]
    assert_type(tasks, list[asyncio.Task[None]])
    assert_type(await ctx.map(charge, orders, concurrency=3), list[str])
    assert_type(await ctx.map(add_tax, [1, 2]), list[int])
    assert_type(await ctx.map(charge, orders, return_exceptions=True), list[str | BaseException])
    assert_type(await ctx.race(ctx.run(charge, orders[0]), ctx.run(charge, orders[1])), str)
    assert_type(await ctx.shield(ctx.run(ping)), bool)
    assert_type(await ctx.with_timeout(ctx.receive(approval), timedelta(days=1)), Approval)
    return "done"


async def remote(client: Client, order: Order) -> None:
    """Use a client as an engine."""
    handle = await client.start(checkout, order, id="order-42", attributes={customer: "ana"})
    assert_type(handle, WorkflowHandle[str])
    await handle.signal(approval, Approval("ana"))
    assert_type(await handle.query(price_of, "book"), int)
    assert_type(await client.handle("order-42", checkout).result(), str)
    await client.start("checkout", order, attributes=customer.to("ana") | total.to(3))
    await handle.set_attributes({customer: None})
    await handle.set_attributes(customer.to(None) | total.to(3))


async def client(engine: Engine) -> None:
    """Use the handles."""
    order = Order("42", 999)
    handle = await engine.start(checkout, order, id="order-42", attributes={customer: "ana"})
    assert_type(handle, WorkflowHandle[str])
    await handle.signal(approval, Approval("ana"))
    await handle.signal(stop)
    assert_type(await handle.query(phase), str)
    assert_type(await handle.query(price_of, "book"), int)
    print(await handle.query(phase), await handle.query(price_of, "book"))
    assert_type(await handle.result(), str)
    assert_type(await (await engine.start(heartbeat)).result(), int)
    assert_type(engine.handle("order-42", checkout), WorkflowHandle[str])
    assert_type(engine.handle("beat", heartbeat), WorkflowHandle[int])
    both = await engine.signal_with_start(checkout, order, approval, Approval("ana"), id="order-43")
    assert_type(await both.result(), str)
    await engine.signal_with_start(
        checkout, order, stop, None, id="order-44", attributes={total: 3}
    )
    await engine.start(heartbeat, attributes=customer.to("ana") | total.to(3))
    await engine.schedules.create(
        Schedule(id="daily", spec=Cron("@daily"), action=Start(checkout, order))
    )
    Start(checkout, order, attributes={customer: "ana"})
    Start(heartbeat, attributes=customer.to("ana") | total.to(3))
    assert_type(await engine.schedules.trigger("daily"), WorkflowHandle[Any])

"""Search attributes that are given a value of another type than their own."""

from datetime import date

from aion_es import Client, Context, Engine, SearchAttributeValues, WorkflowHandle
from aion_es.schedules import Start
from tests.architecture.typing_channels import (
    Order,
    checkout,
    customer,
    due,
    is_gift,
    tags,
    total,
    weight,
)


async def give_them(engine: Engine, client: Client, order: Order) -> None:
    """Give wrong values from outside."""
    await engine.start(checkout, order, attributes={customer: 5})  # error
    await engine.start("checkout", order, attributes={total: "5"})  # error
    await client.start(checkout, order, attributes={is_gift: 1})  # error
    await client.start("checkout", attributes={weight: "5.0"})  # error
    Start(checkout, order, attributes={due: date(2026, 11, 24)})  # error
    Start("checkout", attributes={tags: "vip"})  # error


async def set_them(ctx: Context, handle: WorkflowHandle[str], order: Order) -> None:
    """Set wrong values from inside, and on a handle."""
    ctx.set_attributes({customer: 5})  # error
    ctx.set_attributes({tags: [1, 2]})  # error
    ctx.set_attributes({total: object()})  # error
    await handle.set_attributes({due: "2026-11-24"})  # error
    ctx.spawn(checkout, order, attributes={customer: 5})  # error
    ctx.spawn("checkout", attributes={customer: order})  # error


async def mix_them(ctx: Context, engine: Engine, order: Order) -> None:
    """Give attributes of several types; one dict cannot say which value belongs to which key."""
    ctx.set_attributes({customer: "ana", total: "5"})  # error
    ctx.set_attributes({customer: "ana", total: 5})  # error
    ctx.set_attributes({customer: "ana", "region": "eu"})  # error
    ctx.set_attributes(customer.to(5))  # error
    ctx.set_attributes(customer.to("ana") | total.to("5"))  # error
    ctx.set_attributes(customer.to("ana") | {total: "5"})  # error
    await engine.start(checkout, order, attributes=tags.to("vip") | total.to(5))  # error
    later: SearchAttributeValues = {customer: 5}  # error
    ctx.set_attributes(later)

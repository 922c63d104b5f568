"""The shop's workflows: what an order goes through, and the books of the inventory.

Nothing here knows of crashes. An activity that was recorded as completed never runs again, one that was
interrupted does; timers, retries and signals are durable; so the code below reads as if nothing ever failed.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final, Literal, TypeAlias

from pydantic import BaseModel

from aion_es import (
    ActivityError,
    Context,
    RetryPolicy,
    SearchAttribute,
    Signal,
    activity,
    workflow,
)
from examples.order_fulfilment.effects import Sale, shop
from examples.order_fulfilment.orders import Order

Outcome: TypeAlias = Literal["completed", "refunded"]


class Approval(BaseModel):
    """Somebody has looked at an order and lets it pass."""

    by: str


class Entry(BaseModel):
    """A line on the till roll: a sale; or, without one, the end of the day."""

    sale: Sale | None


class Books(BaseModel):
    """What the inventory knows; small, however much was sold, since every run hands it to the next.

    Attributes:
        entries: Sales that were signalled.
        sales: Of these, the ones that had not been booked before.
        units: Goods that they took.
    """

    entries: int = 0
    sales: int = 0
    units: int = 0


approval = Signal("approval", Approval)
till = Signal("till", Entry)

customer = SearchAttribute("customer", str)
country = SearchAttribute("country", str)
waits_for = SearchAttribute("waits_for", str)
approved_by = SearchAttribute("approved_by", str)

ENTRIES_PER_RUN: Final = 50
"""After so many the inventory goes on as a new run, with an empty history."""
TIME_TO_APPROVE: Final = timedelta(days=3)
SOON: Final = RetryPolicy(
    initial_interval=timedelta(milliseconds=40), max_interval=timedelta(seconds=1)
)


# ------------------------------------------------------------------------------------ activities


@activity(retry=SOON)
async def reserve_stock(order: Order) -> None:
    """Put the goods aside."""
    await shop().call("reserve", order)


@activity(retry=SOON)
async def charge_card(order: Order) -> None:
    """Charge the card what the deposit leaves. Retried, unless the bank refuses the card for good."""
    await shop().call("charge", order, order.cents - order.deposit)


@activity(retry=SOON)
async def ship(order: Order) -> None:
    """Hand the goods to the courier and ring up the sale; the order's id makes both idempotent."""
    await shop().call("ship", order)
    inventory_handle = await shop().inventory
    sale = Sale(order_id=order.order_id, item=order.item, quantity=order.quantity)
    await inventory_handle.signal(till, Entry(sale=sale), signal_id=order.order_id)


@activity(retry=SOON)
async def release_stock(order: Order) -> None:
    """Put the goods back."""
    await shop().call("release", order)


@activity(retry=SOON)
async def refund_deposit(order: Order) -> None:
    """Give the deposit back."""
    await shop().call("refund", order, order.deposit)


@activity(retry=SOON)
async def notify_customer(order: Order) -> None:
    """Write to the customer that nothing will come of the order."""
    await shop().call("notify", order)


@activity(retry=SOON)
async def book_sales(sales: list[Sale]) -> list[Sale]:
    """Book sales and return those that were not booked before."""
    return await shop().book(sales)


# ------------------------------------------------------------------------------------- workflows


@workflow
async def fulfil_order(ctx: Context, order: Order) -> Outcome:
    """Reserve, have approved, charge, ship; and undo what was done if a step fails for good: a saga."""
    undo: list[Callable[[Order], Awaitable[None]]] = [notify_customer, refund_deposit]
    try:
        await ctx.run(reserve_stock, order)
        undo.append(release_stock)
        if order.approval:
            await approved(ctx)
        await ctx.run(charge_card, order)
        await ctx.run(ship, order)
    except (ActivityError, TimeoutError):
        for compensate in reversed(undo):
            await ctx.run(compensate, order)
        return "refunded"
    return "completed"


async def approved(ctx: Context) -> None:
    """Wait until somebody approves; meanwhile the order can be found by what it waits for."""
    ctx.set_attributes({waits_for: "approval"})
    async with asyncio.timeout(TIME_TO_APPROVE.total_seconds()):
        answer = await ctx.receive(approval)
    ctx.set_attributes({waits_for: None, approved_by: answer.by})


@workflow
async def inventory(ctx: Context, books: Books) -> Books:
    """Book what is sold, until the end of the day: one workflow, in as many runs as it takes."""
    sales: list[Sale] = []
    while len(sales) < ENTRIES_PER_RUN:
        entry = await ctx.receive(till)
        if entry.sale is None:
            return await booked(ctx, books, sales)
        sales.append(entry.sale)
    return ctx.continue_as_new(await booked(ctx, books, sales))


async def booked(ctx: Context, books: Books, sales: list[Sale]) -> Books:
    """Return the books with these sales in them. One that was signalled twice counts once."""
    new = await ctx.run(book_sales, sales)
    return Books(
        entries=books.entries + len(sales),
        sales=books.sales + len(new),
        units=books.units + sum(sale.quantity for sale in new),
    )


WORKFLOWS: Final = (fulfil_order, inventory)
ACTIVITIES: Final = (
    reserve_stock,
    charge_card,
    ship,
    release_stock,
    refund_deposit,
    notify_customer,
    book_sales,
)

"""What the typing examples share: one workflow, one activity, and the channels between them."""

from dataclasses import dataclass
from datetime import datetime

from aion_es import Context, Query, SearchAttribute, Signal, activity, workflow


@dataclass
class Order:
    """An input of several values."""

    id: str
    amount_cents: int


@dataclass
class Approval:
    """A signal's payload."""

    by: str


approval = Signal("approval", Approval)
stop = Signal("stop")
phase = Query("phase", str)
price_of = Query("price_of", int, str)
customer = SearchAttribute("customer", str)
tags = SearchAttribute("tags", list[str])
total = SearchAttribute("total", int)
weight = SearchAttribute("weight", float)
is_gift = SearchAttribute("is_gift", bool)
due = SearchAttribute("due", datetime)


@activity
async def charge(order: Order) -> str:
    """Return a receipt."""
    return f"receipt-{order.id}"


@activity
def add_tax(amount_cents: int) -> int:
    """Run in a thread, with a result that is not awaitable."""
    return amount_cents * 6 // 5


@activity
async def ping() -> bool:
    """Take no input."""
    return True


@workflow
async def checkout(ctx: Context, order: Order) -> str:
    """Take an input."""
    return await ctx.run(charge, order)


@workflow
async def heartbeat(ctx: Context) -> int:
    """Take none."""
    await ctx.run(ping)
    return 1

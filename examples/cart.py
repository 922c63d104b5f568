"""An entity that is fed by signals: a shopping cart that lives until it is paid, however often it is changed.

`python -m examples.cart` fills a cart from a web shop that sends some of its messages twice.
"""

import asyncio
import sys
from pathlib import Path
from typing import Final

from pydantic import BaseModel

from aion_es import Context, Engine, Query, Signal, activity, workflow
from examples.command_line import run

CHANGES_PER_RUN: Final = 20
"""After so many the cart goes on as a new run: its contents are the checkpoint, its history begins anew."""


class Change(BaseModel):
    """So many more of a kind of goods; less than none takes out."""

    item: str
    quantity: int


class Cart(BaseModel):
    """What is in the cart."""

    lines: dict[str, int] = {}

    def apply(self, change: Change) -> None:
        """Put in or take out; there are never less than none."""
        left = self.lines.pop(change.item, 0) + change.quantity
        if left > 0:
            self.lines[change.item] = left


class Order(BaseModel):
    """A cart that has been paid."""

    number: str
    lines: dict[str, int]
    paid_with: str


change = Signal("change", Change)
pay = Signal("pay", str)
contents = Query("contents", Cart)
quantity_of = Query("quantity_of", int, str)


@activity
async def place_order(order: Order) -> Order:
    """Stands for the shop's order desk. The order's number makes a repeated call harmless."""
    print(f"order {order.number} is placed")
    return order


@workflow
async def shopping_cart(ctx: Context, cart: Cart) -> Order:
    """Take changes until the cart is paid.

    Both handlers only note what came, without waiting for anything. So when this run ends, each signal
    either has been noted or is unread, and what is unread goes on to the next run.
    """
    changes = 0
    card: str | None = None
    enough = asyncio.Event()

    def take_change(change: Change) -> None:
        nonlocal changes
        changes += 1
        cart.apply(change)
        if changes == CHANGES_PER_RUN:
            enough.set()

    def take_payment(paid_with: str) -> None:
        nonlocal card
        card = paid_with
        changing.cancel()
        enough.set()

    ctx.answer(contents, lambda: cart)
    ctx.answer(quantity_of, lambda item: cart.lines.get(item, 0))
    changing = ctx.on_signal(change, take_change)
    _ = ctx.on_signal(pay, take_payment)
    await enough.wait()
    if card is None:
        ctx.continue_as_new(cart)
    order = Order(number=ctx.info.workflow_id, lines=cart.lines, paid_with=card)
    return await ctx.run(place_order, order)


# ------------------------------------------------------------------------------------- the program


async def example(folder: Path) -> None:
    """Fill a cart and pay it."""
    url = f"sqlite:///{folder / 'aion.db'}"
    async with Engine.open(url, workflows=[shopping_cart], activities=[place_order]) as engine:
        handle = await engine.start(shopping_cart, Cart(), id="cart-7")
        for number in range(30):
            tea = Change(item="tea", quantity=1)
            for _ in range(
                2 if number % 5 == 0 else 1
            ):  # the message's id makes twice the same as once
                await handle.signal(change, tea, signal_id=f"message-{number}")
        await handle.signal(change, Change(item="cup", quantity=2))
        await handle.signal(change, Change(item="cup", quantity=-2))
        print("in the cart:", (await handle.query(contents)).lines)
        print("cups:", await handle.query(quantity_of, "cup"))
        described = await handle.describe()
        print("on its first run:", described.run_id == described.first_run_id)
        await handle.signal(pay, "card 42")
        order = await handle.result()
        print(f"paid with {order.paid_with}:", order.lines)


if __name__ == "__main__":
    sys.exit(run(example, __doc__))

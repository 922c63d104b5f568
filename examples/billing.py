"""Subscription billing: one workflow for each customer, one run for each month, for years.

`python -m examples.billing` lets eight months pass in a moment: its clock is turned by hand. The price is
changed on the way, a card is refused and comes back, and at last the customer leaves.
"""

import asyncio
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from pydantic import BaseModel

from aion_es import (
    ActivityError,
    Context,
    Engine,
    NonRetryableError,
    Query,
    Signal,
    activity,
    workflow,
)
from aion_es.testing import ManualClock
from examples.calendar_days import pass_days
from examples.command_line import run

CYCLE: Final = timedelta(days=30)


class Subscription(BaseModel):
    """All that a month hands to the next.

    Attributes:
        ledger: The file in which charges are noted: the world outside.
        began_at: When this month began. It is counted on from there, so that a late step moves no later one.
        month: From 1.
        unpaid: Months whose charge was refused.
    """

    customer: str
    ledger: Path
    cents: int
    began_at: datetime
    month: int = 1
    paid_cents: int = 0
    unpaid: list[int] = []


class Charge(BaseModel):
    """One line of the ledger."""

    customer: str
    ledger: Path
    month: int
    cents: int


new_price = Signal("new_price", int)
leave = Signal("leave")
account = Query("account", Subscription)


@activity
def charge(due: Charge) -> None:
    """Charge the card, once: a line that is there already came from an attempt that died after writing it."""
    if due.ledger.with_name("card refused").exists():
        raise NonRetryableError("the card is refused")
    line = f"{due.customer},{due.month},{due.cents}\n"
    lines = due.ledger.read_text().splitlines(keepends=True) if due.ledger.exists() else []
    if line not in lines:
        due.ledger.write_text("".join([*lines, line]))


@workflow
async def subscription(ctx: Context, state: Subscription) -> Subscription:
    """Charge for a month, wait for its end or for the customer to leave, and hand over to the next month."""

    def change_price(cents: int) -> None:
        state.cents = cents  # from the next month on: this one's charge has been made up already

    ctx.answer(account, lambda: state)
    due = Charge(customer=state.customer, ledger=state.ledger, month=state.month, cents=state.cents)
    _ = ctx.on_signal(new_price, change_price)
    try:
        await ctx.run(charge, due)
        state.paid_cents += due.cents
    except ActivityError:
        state.unpaid.append(state.month)
    ends_at = state.began_at + CYCLE
    try:
        async with asyncio.timeout((ends_at - ctx.now()).total_seconds()):
            await ctx.receive(leave)
    except TimeoutError:
        state.month, state.began_at = state.month + 1, ends_at
        ctx.continue_as_new(state)
    return state


# ------------------------------------------------------------------------------------- the program


async def example(folder: Path) -> None:
    """Let eight months pass."""
    clock = ManualClock()
    url = f"sqlite:///{folder / 'aion.db'}"
    async with Engine.open(
        url, workflows=[subscription], activities=[charge], clock=clock
    ) as engine:
        state = Subscription(
            customer="ana", ledger=folder / "ledger.csv", cents=900, began_at=clock.now()
        )
        handle = await engine.start(subscription, state, id="subscription-ana")

        async def pass_months(months: int) -> None:
            for _ in range(months):
                await pass_days(clock, CYCLE.days, [handle])

        await pass_months(2)
        await handle.signal(new_price, 1_100)
        await pass_months(2)
        (folder / "card refused").touch()
        await pass_months(1)
        (folder / "card refused").unlink()
        await pass_months(2)
        seen = await handle.query(account)
        print(f"{clock.now():%d %B}: month {seen.month}, {seen.cents} cents each")
        await handle.signal(leave)
        end = await handle.result()
        print(f"left in month {end.month}, paid {end.paid_cents}, unpaid months {end.unpaid}")
    print((folder / "ledger.csv").read_text(), end="")


if __name__ == "__main__":
    sys.exit(run(example, __doc__))

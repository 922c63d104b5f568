"""An approval with a deadline: a manager is asked, reminded, and at last passed over.

`python -m examples.approval` sends three expense claims through ten days in a moment: its clock is turned by
hand. One is approved at once, one after a reminder; nobody answers the third, which goes to the director.
"""

import asyncio
import sys
from datetime import timedelta
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel

from aion_es import Context, Engine, Query, Signal, WorkflowHandle, activity, workflow
from aion_es.testing import ManualClock
from examples.calendar_days import pass_days
from examples.command_line import run

REMIND_AFTER: Final = timedelta(days=2)
ESCALATE_AFTER: Final = timedelta(days=5)


class Claim(BaseModel):
    """Money that somebody has spent."""

    id: str
    cents: int
    manager: str
    director: str


class Decision(BaseModel):
    """What a person says to a claim."""

    by: str
    verdict: Literal["approved", "declined"]


class Letter(BaseModel):
    """What is written to a person."""

    to: str
    text: str


decision = Signal("decision", Decision)
waits_for = Query("waits_for", str)


@activity
async def send(letter: Letter) -> None:
    """Stands for the mail."""
    print(f"  to {letter.to}: {letter.text}")


@workflow
async def approve_claim(ctx: Context, claim: Claim) -> Decision:
    """Wait for a decision: two days, three more after a reminder, then for ever for the director's."""
    asked = claim.manager
    ctx.answer(waits_for, lambda: asked)
    await ctx.run(send, Letter(to=asked, text=f"please decide on {claim.id}"))
    try:
        async with asyncio.timeout(ESCALATE_AFTER.total_seconds()):
            return await decided_by_manager(ctx, claim)
    except TimeoutError:
        asked = claim.director
    await ctx.run(send, Letter(to=asked, text=f"{claim.manager} is silent on {claim.id}"))
    return await ctx.receive(decision)


async def decided_by_manager(ctx: Context, claim: Claim) -> Decision:
    """Return the decision, and remind the manager if it does not come soon."""
    try:
        async with asyncio.timeout(REMIND_AFTER.total_seconds()):
            return await ctx.receive(decision)
    except TimeoutError:
        await ctx.run(send, Letter(to=claim.manager, text=f"{claim.id} still waits for you"))
    return await ctx.receive(decision)


# ------------------------------------------------------------------------------------- the program


async def example(folder: Path) -> None:
    """Send three claims through ten days."""
    clock = ManualClock()
    url = f"sqlite:///{folder / 'aion.db'}"
    async with Engine.open(
        url, workflows=[approve_claim], activities=[send], clock=clock
    ) as engine:

        async def claim(id: str) -> WorkflowHandle[Decision]:
            claim = Claim(id=id, cents=4_200, manager="ana", director="kim")
            handle = await engine.start(approve_claim, claim, id=id)
            await pass_days(clock, 0, [handle])
            return handle

        print("day 0")
        lunch, train, hotel = await claim("lunch"), await claim("train"), await claim("hotel")
        await lunch.signal(decision, Decision(by="ana", verdict="approved"))
        print("lunch:", (await lunch.result()).verdict)
        for day in range(1, 10):
            print("day", day)
            await pass_days(clock, 1, [train, hotel])
            if day == 3:
                await train.signal(decision, Decision(by="ana", verdict="declined"))
                print("train:", (await train.result()).verdict)
        print("hotel waits for", await hotel.query(waits_for))
        await hotel.signal(decision, Decision(by="kim", verdict="approved"))
        print("hotel:", (await hotel.result()).verdict)


if __name__ == "__main__":
    sys.exit(run(example, __doc__))

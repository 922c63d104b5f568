"""A result used as if it had another type."""

from aion_es import Context, Engine
from tests.architecture.typing_channels import Order, add_tax, charge, checkout


async def result(engine: Engine, order: Order) -> int:
    """Return a workflow's text as a number."""
    handle = await engine.start(checkout, order)
    return await handle.result()  # error


async def outcome(ctx: Context, order: Order) -> None:
    """Use an activity's text as a number, and a number as a text."""
    receipt: int = await ctx.run(charge, order)  # error
    tax: str = await ctx.run(add_tax, receipt)  # error
    print(tax)

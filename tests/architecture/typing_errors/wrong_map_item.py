"""An activity mapped over things that it does not take, or its results taken for others."""

from aion_es import Context
from tests.architecture.typing_channels import Order, add_tax, charge


async def items(ctx: Context, orders: list[Order]) -> list[str]:
    """Map over the wrong items."""
    await ctx.map(charge, [1, 2])  # error
    await ctx.map(add_tax, orders)  # error
    return await ctx.map(add_tax, [1, 2])  # error


async def settled(ctx: Context, orders: list[Order]) -> list[str]:
    """Forget that some may have failed."""
    return await ctx.map(charge, orders, return_exceptions=True)  # error

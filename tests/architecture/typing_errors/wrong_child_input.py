"""A child that is started with an input that it does not take."""

from aion_es import Context
from tests.architecture.typing_channels import Order, checkout, heartbeat


async def start(ctx: Context, order: Order) -> None:
    """Start with the wrong thing, without one, and with one where none is taken."""
    await ctx.spawn(checkout, "order-42")  # error
    await ctx.spawn(checkout)  # error
    await ctx.spawn(heartbeat, order)  # error
    await ctx.spawn(checkout, order, parent_close="keep")  # error

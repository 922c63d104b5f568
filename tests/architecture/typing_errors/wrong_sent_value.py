"""A signal from workflow to workflow with a value that its channel does not carry."""

from aion_es import Context
from tests.architecture.typing_channels import Order, approval, checkout, stop


async def send(ctx: Context) -> None:
    """Send the wrong thing, nothing where something is carried, and something where nothing is."""
    await ctx.send("order-42", approval, "ana")  # error
    await ctx.send("order-42", approval)  # error
    await ctx.send("order-42", stop, "now")  # error


async def send_to_a_child(ctx: Context, order: Order) -> None:
    """The same, to a child."""
    child = ctx.spawn(checkout, order)
    await child.signal(approval, "ana")  # error
    await child.signal(approval)  # error
    await child.signal(stop, "now")  # error

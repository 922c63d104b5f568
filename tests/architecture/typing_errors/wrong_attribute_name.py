"""Search attributes that are given by something that is no attribute, or in another form than a mapping."""

from aion_es import Context, Engine
from tests.architecture.typing_channels import Order, checkout, customer


async def set_them(ctx: Context, engine: Engine, order: Order) -> None:
    """Give attributes by number, and as pairs."""
    ctx.set_attributes({1: "ana"})  # error
    ctx.set_attributes([(customer, "ana")])  # error
    await engine.start(checkout, order, attributes={1: "ana"})  # error

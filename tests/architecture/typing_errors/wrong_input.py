"""An input of another type than the function takes."""

from aion_es import Context, Engine
from tests.architecture.typing_channels import charge, checkout, heartbeat


async def start(engine: Engine) -> None:
    """Start with the wrong thing, or with something where nothing is taken."""
    await engine.start(checkout, "order-42")  # error
    await engine.start(checkout)  # error
    await engine.start(heartbeat, 1)  # error


async def run(ctx: Context) -> None:
    """Run an activity with the wrong thing."""
    await ctx.run(charge, "order-42")  # error

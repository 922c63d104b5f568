"""What came first taken for something that none of them gives; a limited or shielded operation for another type."""

from datetime import timedelta

from aion_es import Context
from tests.architecture.typing_channels import Order, approval, charge, ping


async def first(ctx: Context, order: Order) -> int:
    """Take texts for numbers."""
    shielded: int = await ctx.shield(ctx.run(charge, order))  # error
    limited: int = await ctx.with_timeout(ctx.receive(approval), timedelta(1))  # error
    print(shielded, limited, await ctx.run(ping))
    return await ctx.race(ctx.run(charge, order), ctx.run(charge, order))  # error

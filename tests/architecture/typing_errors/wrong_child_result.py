"""A child's result used as if it had another type."""

import asyncio

from aion_es import ChildHandle, Context
from tests.architecture.typing_channels import Order, checkout, heartbeat


async def result(ctx: Context, order: Order) -> int:
    """Take a text for a number, awaited, asked for, and gathered."""
    child: ChildHandle[int] = ctx.spawn(checkout, order)  # error
    beats: str = await ctx.spawn(heartbeat)  # error
    texts: list[str] = await asyncio.gather(*[ctx.spawn(heartbeat) for _ in range(2)])  # error
    print(child, beats, texts)
    return await ctx.spawn(checkout, order).result()  # error

"""A client that starts, asks and signals with the wrong things: it knows the same types as an engine."""

from aion_es import Client
from tests.architecture.typing_channels import (
    Order,
    approval,
    checkout,
    heartbeat,
    phase,
    price_of,
)


async def start(client: Client, order: Order) -> int:
    """Start, signal, ask, and take the result for another."""
    await client.start(checkout, "order-42")  # error
    await client.start(heartbeat, order)  # error
    await client.signal_with_start(checkout, order, approval, "ana", id="order-42")  # error
    handle = await client.start(checkout, order)
    await handle.signal(approval, order)  # error
    await handle.query(price_of, order)  # error
    print(len(await handle.query(phase)))
    return await handle.result()  # error

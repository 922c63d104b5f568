"""Watch one workflow's trace on the terminal: `python -m examples.observability`.

An order is started, charged on the second try and shipped by a child workflow. In between the engine is closed and
another opened. Prints a line for each span as it ends, then the metrics, then whether it was one trace. Exit status: 0
if it was, else 1.
"""

import asyncio
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

from opentelemetry.sdk.metrics import MeterProvider

from aion_es import Context, Engine, RetryPolicy, Signal, activity, workflow
from aion_es.events.workflow import SignalReceived
from examples.observability.telemetry import install

paid = Signal("paid", str)


@activity
async def charge(card: str) -> str:
    """Fail once: the retry shows in the trace."""
    if activity.info().attempt == 1:
        raise ConnectionError("the bank does not answer")
    return f"charged {card}"


@activity
def pack(order: str) -> str:
    """Run in a thread."""
    return f"packed {order}"


@workflow
async def ship(ctx: Context, order: str) -> str:
    """Ship an order."""
    return await ctx.run(pack, order)


@workflow
async def buy(ctx: Context, order: str) -> str:
    """Wait for the card, which may take longer than a program lives; charge it, and ship."""
    card = await ctx.receive(paid)
    soon = RetryPolicy(initial_interval=timedelta(milliseconds=50))
    charged = await ctx.run(charge, card, retry=soon)
    return f"{charged}, {await ctx.spawn(ship, order, id=f'{order}-parcel')}"


async def watch(url: str, measuring: MeterProvider) -> bool:
    """Begin with one engine and end with another; return whether all of it was one trace."""
    async with Engine.open(url, workflows=[buy, ship]) as engine:
        await engine.start(buy, "order-7", id="order-7")
    print("the engine is closed; another goes on")
    async with Engine.open(url, workflows=[buy, ship], activities=[charge, pack]) as engine:
        handle = engine.handle("order-7", buy)
        await handle.signal(paid, "card-1")
        print(await handle.result())
        measuring.force_flush()  # while there still is an engine to tell of
        return len(await traces(engine, "order-7", "order-7-parcel")) == 1


async def traces(engine: Engine, *workflow_ids: str) -> set[str]:
    """Return the traces that the histories of workflows belong to, as their events say."""
    return {
        str(recorded.metadata.traceparent).split("-")[1]
        for workflow_id in workflow_ids
        for recorded in await engine.handle(workflow_id).history()
        if not isinstance(
            recorded.event, SignalReceived
        )  # it belongs to who sent it, and is linked
    }


def main() -> int:
    """Run it in a temporary folder; return the exit status."""
    measuring = install("shop")
    with tempfile.TemporaryDirectory(prefix="aion-es-") as folder:
        is_one = asyncio.run(watch(f"sqlite:///{Path(folder) / 'aion.db'}", measuring))
    print("it is one trace" if is_one else "it is not one trace")
    return 0 if is_one else 1


if __name__ == "__main__":
    sys.exit(main())

"""The process that does the work: an engine, the people around it, and nothing to lose when it is killed.

Run by `demo.py`, which kills it and starts another. What a new one has to do it finds in `aion.db` (the engine
takes up every order that was begun) and in the ledger (which orders have no outcome yet).
"""

import argparse
import asyncio
import os
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from aion_es import Engine
from aion_es.app import OpeningEngine
from aion_es.errors import WorkflowAlreadyStartedError
from aion_es.store.port import EventReader
from examples.order_fulfilment.effects import Ledger, Shop, open_shop
from examples.order_fulfilment.workflows import (
    ACTIVITIES,
    WORKFLOWS,
    Approval,
    Books,
    Entry,
    approval,
    approved_by,
    country,
    customer,
    fulfil_order,
    inventory,
    till,
    waits_for,
)

WAITING: Final = (
    "WorkflowType = 'fulfil_order' AND ExecutionStatus = 'Running' AND waits_for = 'approval'"
)
TIME_TO_THINK: Final = 0.3
"""Seconds from one look at the orders that wait for approval to the next."""


def engine(db: Path) -> OpeningEngine:
    """Return the shop's engine on the events in `db`, to be entered."""
    return Engine.open(
        f"sqlite:///{db}",
        workflows=WORKFLOWS,
        activities=ACTIVITIES,
        search_attributes=[customer, country, waits_for, approved_by],
    )


async def work(db: Path, ledger: Ledger, *, at_once: int, latency: float) -> None:
    """Fulfil every order that has no outcome, so many at once, then close the inventory's books."""
    shop = open_shop(ledger, latency=latency)
    async with engine(db) as opened:
        await opened.wait_recovered()
        await start_inventory(opened)
        ledger.note("store", await identity(opened.store))
        books = opened.handle("inventory", inventory)
        shop.inventory.set_result(books)
        async with asyncio.TaskGroup() as group:
            manager = group.create_task(approve(opened))
            await fulfil(opened, shop, at_once)
            manager.cancel()
        await books.signal(till, Entry(sale=None), signal_id="end of day")
        await books.result()


async def start_inventory(opened: Engine) -> None:
    """Start the inventory, if no earlier worker did."""
    with suppress(WorkflowAlreadyStartedError):  # it is closed: only its result was not read yet
        await opened.start(
            inventory, Books(), id="inventory", on_conflict="use_existing", reuse="reject"
        )


async def fulfil(opened: Engine, shop: Shop, at_once: int) -> None:
    """Start a workflow per order and wait for it. One that was begun before is found, not begun again."""
    orders = shop.ledger.unfinished()

    async def clerk() -> None:
        for order in orders:
            handle = await opened.start(
                fulfil_order,
                order,
                id=f"order-{order.order_id}",
                request_id=order.order_id,
                attributes={customer: order.customer, country: order.country},
            )
            outcome = await handle.result()
            await shop.commits.write(partial(shop.ledger.finish, order.order_id, outcome))

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(clerk())


async def approve(opened: Engine) -> None:
    """Be the manager: look every now and then at what waits for approval, and approve it."""
    while True:
        await asyncio.sleep(TIME_TO_THINK)
        async with asyncio.TaskGroup() as group:
            async for run in opened.visibility.list(WAITING):
                handle = opened.handle(run.workflow_id, fulfil_order)
                # The id makes it one approval, even if the list is a moment behind and has it again.
                signal = handle.signal(approval, Approval(by="manager"), signal_id="approval")
                group.create_task(signal)


async def identity(store: EventReader) -> str:
    """Return what no other store has: the id of its first event; nothing for an empty one."""
    async for event in store.read_all():
        return str(event.event_id)
    return ""


def end_with_parent() -> None:
    """End this process when the one that started it is gone, which closes our standard input."""

    def watch() -> None:
        os.read(0, 1)  # not sys.stdin: its lock would be in the way at a normal end
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    """Work as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--db", type=Path, required=True)
    parser.add_argument("--ledger", type=Path, required=True)
    parser.add_argument("--at-once", type=int, required=True)
    parser.add_argument("--latency", type=float, required=True)
    options = parser.parse_args()
    end_with_parent()
    ledger = Ledger(options.ledger)
    asyncio.run(work(options.db, ledger, at_once=options.at_once, latency=options.latency))
    ledger.close()


if __name__ == "__main__":
    main()

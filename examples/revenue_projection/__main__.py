"""Print the revenue by customer and day: `python -m examples.revenue_projection`, after `make demo`.

Exit status: 0, or 2 if there are no events at `--db`.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import func, select

from aion_es.ids import DEFAULT_NAMESPACE, workflow_prefix
from aion_es.projections import ProjectionRunner, ReadModel
from aion_es.store.url import open_store
from examples.revenue_projection.revenue import REVENUE, RevenueProjection


class Line(NamedTuple):
    """What a customer bought on one day."""

    customer: str
    day: str
    orders: int
    cents: int


async def revenue(db: Path, read_model_url: str, *, top: int) -> tuple[list[Line], Line]:
    """Bring the projection up to date; return the largest rows, and their sum over all rows."""
    store = await open_store(f"sqlite:///{db}")
    try:
        async with await ReadModel.open(read_model_url) as read_model:
            runner = ProjectionRunner(
                store, read_model, [RevenueProjection()], prefix=workflow_prefix(DEFAULT_NAMESPACE)
            )
            async with asyncio.TaskGroup() as group:
                running = group.create_task(runner.run())
                await runner.wait_until_caught_up()
                running.cancel()
            largest = select(REVENUE).order_by(
                REVENUE.c.cents.desc(), REVENUE.c.customer, REVENUE.c.day
            )
            total = select(func.sum(REVENUE.c.orders), func.sum(REVENUE.c.cents))
            rows = await read_model.read(lambda c: c.execute(largest.limit(top)).all())
            orders, cents = await read_model.read(lambda c: c.execute(total).one())
    finally:
        await store.aclose()
    lines = [Line(row.customer, row.day, row.orders, row.cents) for row in rows]
    return lines, Line("all", "", int(orders or 0), int(cents or 0))


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the exit status."""
    parser = argparse.ArgumentParser(prog="revenue", description=__doc__)
    parser.add_argument("--db", type=Path, default=Path("aion.db"), help="the demo's events")
    parser.add_argument(
        "--read-model",
        default="sqlite:///aion.revenue.db",
        help="where the rows go: an SQLite file, or postgresql+psycopg://user@host/database",
    )
    parser.add_argument("--top", type=int, default=10, help="so many rows are shown")
    options = parser.parse_args(arguments)
    if not options.db.is_file():
        print(f"error: {options.db}: no events there; run `make demo` first", file=sys.stderr)
        return 2
    lines, total = asyncio.run(revenue(options.db, options.read_model, top=options.top))
    for line in (*lines, total):
        print(f"{line.customer:<30} {line.day:<10} {line.orders:>6,} {line.cents / 100:>14,.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The example's revenue is what the orders say, on both databases, however often it is asked."""

from collections import defaultdict
from pathlib import Path

import pytest

from aion_es.store.url import open_store
from examples.order_fulfilment.effects import Ledger
from examples.order_fulfilment.orders import Order
from examples.order_fulfilment.worker import work
from examples.revenue_projection.__main__ import Line, main, revenue
from examples.revenue_projection.revenue import RevenueProjection
from tests.unit.projections.histories import rows_after


def orders(first: int, count: int) -> list[Order]:
    return [
        Order(
            order_id=f"O{number}",
            customer=f"customer {number % 3}",
            item="tea",
            quantity=1,
            cents=1_000 + number,
            country="Éire",
            card="refused" if number % 4 == 3 else "ok",
        )
        for number in range(first, first + count)
    ]


async def fulfil(db: Path, ledger: Path, taken: list[Order]) -> None:
    book = Ledger.create(ledger)
    book.take_in(taken, [])
    await work(db, book, at_once=8, latency=0.0)
    book.close()


def by_customer(lines: list[Line]) -> dict[str, tuple[int, int]]:
    sums: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for line in lines:
        count, cents = sums[line.customer]
        sums[line.customer] = (count + line.orders, cents + line.cents)
    return dict(sums)


def expected(taken: list[Order]) -> dict[str, tuple[int, int]]:
    return by_customer([Line(o.customer, "", 1, o.cents) for o in taken if o.card != "refused"])


async def test_the_revenue_by_customer_is_that_of_the_completed_orders(
    tmp_path: Path, read_model_url: str
) -> None:
    db, ledger, taken = tmp_path / "aion.db", tmp_path / "ledger.db", orders(0, 20)
    await fulfil(db, ledger, taken)
    await revenue(db, read_model_url, top=1)
    lines, total = await revenue(db, read_model_url, top=100)  # nothing is new
    assert by_customer(lines) == expected(taken)
    assert (total.orders, total.cents) == (15, sum(c for _, c in expected(taken).values()))
    assert all(len(line.day) == len("2026-11-24") for line in lines)


async def test_the_revenue_does_not_depend_on_how_the_events_are_cut_into_batches(
    tmp_path: Path,
) -> None:
    db = tmp_path / "aion.db"
    await fulfil(db, tmp_path / "ledger.db", orders(0, 12))
    store = await open_store(f"sqlite:///{db}")
    wants = RevenueProjection.wants or frozenset()
    events = [event async for event in store.read_all() if event.type in wants]
    await store.aclose()
    whole = rows_after(RevenueProjection(), [events])
    assert sum(row[2] for row in whole["revenue"]) == 9
    assert whole["revenue_open_orders"] == []
    assert rows_after(RevenueProjection(), [[event] for event in events]) == whole


def test_without_events_it_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--db", str(tmp_path / "none.db")]) == 2
    assert "make demo" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []

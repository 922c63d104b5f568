"""The outside world: warehouse, bank, courier and letter box, all of them one small SQLite ledger.

Activities run *at least* once: one whose process dies may have had its effect already, and runs again. So the
world does what good services do: every call carries an idempotency key, and a key has its effect once, however
often it comes. The ledger counts both, so that the demo can prove it.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeAlias, TypeVar

from pydantic import BaseModel

from aion_es import NonRetryableError, WorkflowHandle, activity
from examples.order_fulfilment.orders import BadRow, Card, Order

T = TypeVar("T")
Effect: TypeAlias = Literal["reserve", "charge", "ship", "release", "refund", "notify", "book"]

APPLICATION_ID: Final = 0x53484F50
"""`SHOP`: in the file's header, so that the demo knows a file of its own."""

_COMMIT_AFTER: Final = 0.005
"""Seconds for which a commit waits for more to write."""

_DECLINES: Final[dict[Card, int]] = {"ok": 0, "flaky": 2, "refused": 2**31}
"""How often the bank declines before it accepts."""

_ORDER: Final = tuple(Order.model_fields)
"""Columns of an order, by the names of its fields."""

_SCHEMA: Final = """
    -- What was ordered, in the order of the file, and what came of it.
    CREATE TABLE orders (
        number INTEGER PRIMARY KEY, order_id TEXT NOT NULL UNIQUE, customer TEXT NOT NULL,
        item TEXT NOT NULL, quantity INTEGER NOT NULL, cents INTEGER NOT NULL, country TEXT NOT NULL,
        card TEXT NOT NULL, approval INTEGER NOT NULL, outcome TEXT
    );
    CREATE INDEX orders_done ON orders (outcome) WHERE outcome IS NOT NULL;
    -- One row per idempotency key. Of the calls that are accepted, the first has the effect.
    CREATE TABLE effects (
        id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, order_id TEXT NOT NULL,
        cents INTEGER NOT NULL, declined INTEGER NOT NULL, accepted INTEGER NOT NULL
    );
    -- The inventory's books. An order is booked once; `key` says by which call.
    CREATE TABLE sales (
        order_id TEXT PRIMARY KEY, item TEXT NOT NULL, quantity INTEGER NOT NULL, key TEXT NOT NULL
    );
    CREATE TABLE rejected (line INTEGER, reason TEXT NOT NULL);
    CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


class CardRefusedError(NonRetryableError):
    """The bank will never accept this card; trying again is of no use."""


class BankUnavailableError(Exception):
    """The bank did not answer; the engine tries again."""


class Sale(BaseModel):
    """What has left the shop."""

    order_id: str
    item: str
    quantity: int


class Progress(NamedTuple):
    """How far the shop is: orders with an outcome, and calls that began an effect."""

    done: int
    begun: int


class Ledger:
    """The ledger's file. Several processes may have it open; a method is one transaction, or part of one."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path, isolation_level=None, timeout=30)
        # What was committed survives `kill -9`; only a power loss could take the last moments.
        self._database.execute("PRAGMA synchronous = NORMAL")

    @classmethod
    def create(cls, path: Path) -> "Ledger":
        """Make a new, empty ledger; there must be no file at `path`."""
        ledger = cls(path)
        ledger._database.executescript(
            f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA journal_mode = WAL; {_SCHEMA}"
        )
        return ledger

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    # ------------------------------------------------------------------------------ the world

    def call(self, kind: Effect, order_id: str, key: str, *, cents: int, declines: int) -> bool:
        """Answer one call: true if it is accepted. Of all calls with this key, one has the effect."""
        (accepted,) = self._one(
            """
            INSERT INTO effects (key, kind, order_id, cents, declined, accepted)
            VALUES (:key, :kind, :order_id, :cents, :declines > 0, :declines = 0)
            ON CONFLICT (key) DO UPDATE SET
                declined = declined + (declined < :declines),
                accepted = accepted + (declined >= :declines)
            RETURNING accepted
            """,
            {"key": key, "kind": kind, "order_id": order_id, "cents": cents, "declines": declines},
        )
        return bool(accepted)

    def book(self, sales: Sequence[Sale], key: str) -> list[Sale]:
        """Book sales, each order once, and return those that this key booked: always the same ones."""
        with self.transaction() as database:
            database.executemany(
                "INSERT OR IGNORE INTO sales VALUES (:order_id, :item, :quantity, :key)",
                [{**sale.model_dump(), "key": key} for sale in sales],
            )
            self.call("book", key, key, cents=0, declines=0)
            rows = database.execute(
                "SELECT order_id, item, quantity FROM sales WHERE key = ?", (key,)
            )
            return [Sale(order_id=i, item=item, quantity=n) for i, item, n in rows]

    # ------------------------------------------------------------------------- the order book

    def take_in(self, orders: Sequence[Order], rejected: Sequence[BadRow]) -> None:
        """Add new orders, and note the rows that were none."""
        with self.transaction() as database:
            database.executemany(
                f"INSERT INTO orders ({', '.join(_ORDER)})"
                f" VALUES ({', '.join(':' + name for name in _ORDER)})",
                [order.model_dump() for order in orders],
            )
            database.executemany("INSERT INTO rejected VALUES (?, ?)", rejected)

    def unfinished(self) -> Iterator[Order]:
        """Yield the orders that have no outcome yet, in the order of the file, a few hundred at a time."""
        last = 0
        while rows := self._all(
            f"SELECT number, {', '.join(_ORDER)} FROM orders"
            " WHERE number > ? AND outcome IS NULL ORDER BY number LIMIT 500",
            (last,),
        ):
            for _, *values in rows:
                yield Order.model_validate(dict(zip(_ORDER, values, strict=True)))
            last = rows[-1][0]

    def finish(self, order_id: str, outcome: str) -> None:
        """Note what came of an order."""
        self._all("UPDATE orders SET outcome = ? WHERE order_id = ?", (outcome, order_id))

    def progress(self) -> Progress:
        """Return how far the shop is."""
        (done,) = self._one("SELECT count(*) FROM orders WHERE outcome IS NOT NULL")
        (begun,) = self._one("SELECT coalesce(max(id), 0) FROM effects")
        return Progress(done, begun)

    def half_done(self) -> int:
        """Return the number of orders that had effects and have no outcome yet."""
        (number,) = self._one(
            "SELECT count(DISTINCT order_id) FROM effects JOIN orders USING (order_id)"
            " WHERE outcome IS NULL"
        )
        return int(number)

    # ------------------------------------------------------------------------ for the audit

    def ask(self, question: str) -> dict[str, int]:
        """Return what a query with two columns gives, the first column as key."""
        return dict(self._all(question))

    def wrong_outcomes(self) -> int:
        """Return the number of orders that did not end as their cards had it."""
        (number,) = self._one(
            "SELECT count(*) FROM orders"
            " WHERE outcome IS NOT iif(card = 'refused', 'refunded', 'completed')"
        )
        return int(number)

    def calls(self) -> tuple[int, int]:
        """Return the number of calls, and how many of them would not have been without a crash."""
        calls, again = self._one(
            "SELECT sum(declined + accepted), sum(iif(accepted > 0, accepted, declined) - 1)"
            " FROM effects"
        )
        return calls, again

    def applied_twice(self) -> int:
        """Return the number of effects that an order had more than once, under whatever keys."""
        (number,) = self._one(
            "SELECT coalesce(sum(times - 1), 0) FROM (SELECT count(*) AS times FROM effects"
            " WHERE accepted > 0 GROUP BY kind, order_id)"
        )
        return int(number)

    def note(self, name: str, value: str) -> None:
        """Keep a fact, unless it is known already."""
        self._all("INSERT OR IGNORE INTO facts VALUES (?, ?)", (name, value))

    def noted(self, name: str) -> str | None:
        """Return a fact that was kept."""
        rows = self._all("SELECT value FROM facts WHERE name = ?", (name,))
        return str(rows[0][0]) if rows else None

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit everything that is written inside at once, or nothing of it."""
        with self._database:
            self._database.execute("BEGIN IMMEDIATE")
            yield self._database

    def _all(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        return self._database.execute(statement, values).fetchall()

    def _one(self, statement: str, values: Mapping[str, Any] | None = None) -> Any:
        return self._database.execute(statement, values or {}).fetchone()


class GroupCommit:
    """Puts what is written within a few milliseconds into one transaction: a commit costs more than a row."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._waiting: list[tuple[Callable[[], Any], asyncio.Future[Any]]] = []

    async def write(self, change: Callable[[], T]) -> T:
        """Return what `change` gives, once it is committed.

        Raises:
            sqlite3.Error: Nothing of the transaction was written.
        """
        loop = asyncio.get_running_loop()
        written: asyncio.Future[T] = loop.create_future()
        self._waiting.append((change, written))
        if len(self._waiting) == 1:
            loop.call_later(_COMMIT_AFTER, self._commit)
        return await written

    def _commit(self) -> None:
        waiting, self._waiting = self._waiting, []
        try:
            with self._ledger.transaction():
                results = [change() for change, _ in waiting]
        except sqlite3.Error as error:
            for _, written in waiting:
                if not written.done():
                    written.set_exception(error)
        else:
            for (_, written), result in zip(waiting, results, strict=True):
                if not written.done():  # its activity may have been cancelled
                    written.set_result(result)


class Shop:
    """What activities reach the world through.

    Attributes:
        ledger: The world.
        commits: The way to write to it quickly.
        inventory: The inventory's workflow, once it was started.
    """

    def __init__(self, ledger: Ledger, latency: float) -> None:
        """Answer every call after `latency` seconds."""
        self.ledger = ledger
        self.commits = GroupCommit(ledger)
        self.inventory: asyncio.Future[WorkflowHandle[Any]] = asyncio.Future()
        self._latency = latency

    async def call(self, kind: Effect, order: Order, cents: int = 0) -> None:
        """Make a call. The key is the running activity's: the same for each of its attempts.

        The effect comes at once and the answer later: whoever dies in between does not know that it came.

        Raises:
            CardRefusedError, BankUnavailableError: The call was declined, and had no effect.
        """
        call = partial(
            self.ledger.call,
            kind,
            order.order_id,
            activity.info().idempotency_key,
            cents=cents,
            declines=_DECLINES[order.card] if kind == "charge" else 0,
        )
        accepted = await self.commits.write(call)
        await asyncio.sleep(self._latency)
        if not accepted and order.card == "refused":
            raise CardRefusedError(f"the bank refuses the card of {order.customer}")
        if not accepted:
            raise BankUnavailableError("the bank does not answer")

    async def book(self, sales: Sequence[Sale]) -> list[Sale]:
        """Book sales and return those that the running activity booked, not another one before it."""
        return self.ledger.book(sales, activity.info().idempotency_key)


_OPEN: Final[ContextVar[Shop]] = ContextVar("shop")


def open_shop(ledger: Ledger, *, latency: float) -> Shop:
    """Return the shop of the engine that is opened next: its activities find it by `shop()`."""
    opened = Shop(ledger, latency)
    _OPEN.set(opened)
    return opened


def shop() -> Shop:
    """Return the shop that is open."""
    return _OPEN.get()

"""What must come out, reckoned from the CSV alone, and whether it did.

The expectations are added up while the file is read, before anything runs. What is held against them comes from
elsewhere: the ledger of the world outside, the inventory's own result, and the engine's read model.
"""

from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from typing import NamedTuple

from examples.order_fulfilment.effects import Ledger
from examples.order_fulfilment.files import Files
from examples.order_fulfilment.orders import Order
from examples.order_fulfilment.worker import engine
from examples.order_fulfilment.workflows import ENTRIES_PER_RUN, Books, inventory

_PATIENCE = timedelta(minutes=2)


@dataclass
class Expected:
    """What the orders of the file must lead to."""

    first: str = ""
    orders: int = 0
    completed: int = 0
    refunded: int = 0
    flaky: int = 0
    approvals: int = 0
    charged: int = 0
    returned: int = 0
    units: Counter[str] = field(default_factory=Counter)
    customers: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, order: Order) -> None:
        """Count an order in."""
        self.first = self.first or order.order_id
        self.orders += 1
        self.approvals += order.approval
        self.customers[order.customer, order.country] += 1
        if order.card == "refused":
            self.refunded += 1
            self.returned += order.deposit
        else:
            self.completed += 1
            self.flaky += order.card == "flaky"
            self.charged += order.cents - order.deposit
            self.units[order.item] += order.quantity

    @property
    def calls(self) -> int:
        """Calls to the world without any crash: 3 for a good order, 2 more for a flaky card, 5 for a refused one."""
        return 3 * self.completed + 2 * self.flaky + 5 * self.refunded

    @property
    def best_customer(self) -> tuple[str, str]:
        """Customer and country with the most orders."""
        return self.customers.most_common(1)[0][0]


class Line(NamedTuple):
    """A line of the result: what was found, what the file says, and whether they agree."""

    what: str
    found: str
    expected: str
    holds: bool


class Answers(NamedTuple):
    """What a fresh engine says about the work of those that were killed."""

    books: Books
    runs: int
    by_status: dict[str, int]
    approved: int
    of_best: int
    filter: str


async def ask(files: Files, expected: Expected) -> Answers:
    """Open an engine on what the workers left behind, and ask it."""
    customer, country = (name.replace("'", "''") for name in expected.best_customer)
    text = f"WorkflowType = 'fulfil_order' AND customer = '{customer}' AND country = '{country}'"
    async with engine(files.events) as opened:
        end = await opened.store.end_position()
        found = [run async for run in opened.visibility.list(text, at_least=end, timeout=_PATIENCE)]
        by_status = await opened.visibility.count(
            "WorkflowType = 'fulfil_order'", group_by="status"
        )
        return Answers(
            books=await opened.handle("inventory", inventory).result(timeout=_PATIENCE),
            runs=len(await opened.visibility.run_chain("inventory")),
            by_status=dict(by_status),
            approved=await opened.visibility.count("approved_by = 'manager'"),
            of_best=len(found),
            filter=text,
        )


def audit(
    expected: Expected, ledger: Ledger, answers: Answers, *, kills: int, kills_due: bool
) -> list[Line]:
    """Hold everything against the file.

    Args:
        expected: What the file says.
        ledger: The world outside.
        answers: What the engine says.
        kills: Workers that were killed.
        kills_due: At least one had to be.
    """
    outcomes = Counter(
        ledger.ask("SELECT coalesce(outcome, 'none'), count(*) FROM orders GROUP BY 1")
    )
    units = Counter(ledger.ask("SELECT item, sum(quantity) FROM sales GROUP BY item"))
    of_best = ", ".join(expected.best_customer)
    return [
        _line("orders", outcomes.total(), expected.orders),
        _line("completed", outcomes["completed"], expected.completed),
        _line("refunded", outcomes["refunded"], expected.refunded),
        _line("approved by the manager", answers.approved, expected.approvals),
        _line("with an outcome that is not their card's", ledger.wrong_outcomes(), 0),
        Line("restarts after kill -9", f"{kills}", "", holds=kills > 0 or not kills_due),
        *_of_the_world(expected, ledger, answers),
        Line(
            f"goods sold (kinds: {len(expected.units):,})",
            f"{units.total():,}",
            f"{expected.units.total():,}",
            units == expected.units and answers.books.units == expected.units.total(),
        ),
        _line("sales in the inventory's books", answers.books.sales, expected.completed),
        _line(
            "runs in the inventory's chain",
            answers.runs,
            answers.books.entries // ENTRIES_PER_RUN + 1,
        ),
        _line("closed as Completed", answers.by_status.get("Completed", 0), expected.orders),
        _line(f"found for {of_best}", answers.of_best, expected.customers[expected.best_customer]),
    ]


def _of_the_world(expected: Expected, ledger: Ledger, answers: Answers) -> list[Line]:
    """What the world outside has seen: as if no process had ever died."""
    effects = Counter(
        ledger.ask("SELECT kind, count(*) FROM effects WHERE accepted > 0 GROUP BY kind")
    )
    cents = ledger.ask("SELECT kind, sum(cents) FROM effects WHERE accepted > 0 GROUP BY kind")
    wanted = Counter(
        reserve=expected.orders,
        charge=expected.completed,
        ship=expected.completed,
        release=expected.refunded,
        refund=expected.refunded,
        notify=expected.refunded,
        book=answers.runs,
    )
    calls, again = ledger.calls()
    return [
        Line(
            f"activities executed ({again:,} again, after a kill)",
            f"{calls:,}",
            f"{expected.calls + answers.runs:,} + {again:,}",
            calls - again == expected.calls + answers.runs,
        ),
        Line("effects applied", f"{effects.total():,}", f"{wanted.total():,}", effects == wanted),
        _line("effects applied twice", ledger.applied_twice(), 0),
        _line("charged to cards, in cents", cents.get("charge", 0), expected.charged),
        _line("deposits returned, in cents", cents.get("refund", 0), expected.returned),
    ]


def _line(what: str, found: int, expected: int) -> Line:
    return Line(what, f"{found:,}", f"{expected:,}", found == expected)

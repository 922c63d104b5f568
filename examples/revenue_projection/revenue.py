"""Revenue by customer and day, as a projection: what an order is worth counts on the day on which it completed.

The events are those of `order_fulfilment`. A `WorkflowStarted` says who ordered and for how much, a
`WorkflowCompleted` whether it came to a sale; so the open orders are kept in a table of their own until then.
The same code runs on SQLite and on PostgreSQL.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC
from typing import Any, ClassVar, Final

from sqlalchemy import BigInteger, Column, Connection, Integer, MetaData, Table, Text, select
from sqlalchemy.dialects import postgresql, sqlite

from aion_es.events.codec import decode, decode_metadata
from aion_es.events.workflow import WorkflowCompleted, WorkflowStarted
from aion_es.ids import DEFAULT_NAMESPACE, workflow_prefix
from aion_es.projections import Projection
from aion_es.store.port import RecordedEvent
from examples.order_fulfilment.orders import Order

_METADATA: Final = MetaData()

OPEN_ORDERS: Final = Table(
    "revenue_open_orders",
    _METADATA,
    Column("workflow_id", Text, primary_key=True),
    Column("customer", Text, nullable=False),
    Column("cents", BigInteger, nullable=False),
)
"""Orders that are under way; only with these in a table can a batch begin after their start."""

REVENUE: Final = Table(
    "revenue",
    _METADATA,
    Column("customer", Text, primary_key=True),
    Column("day", Text, primary_key=True),
    Column("orders", Integer, nullable=False),
    Column("cents", BigInteger, nullable=False),
)
"""What was sold; `day` in UTC, as `2026-11-24`."""

_ENDED: Final = frozenset(
    {"WorkflowFailed", "WorkflowCancelled", "WorkflowTerminated", "WorkflowTimedOut"}
)
_PREFIX: Final = workflow_prefix(DEFAULT_NAMESPACE)


class RevenueProjection(Projection):
    """Rows of `revenue`."""

    name: ClassVar[str] = "revenue"
    version: ClassVar[int] = 1
    wants: ClassVar[frozenset[str] | None] = frozenset(
        {"WorkflowStarted", "WorkflowCompleted", *_ENDED}
    )
    tables: ClassVar[Sequence[Table]] = (OPEN_ORDERS, REVENUE)

    def apply(self, connection: Connection, batch: Sequence[RecordedEvent]) -> None:
        """Fold the batch in memory, then write each row that it touched once."""
        ids = {_workflow_id(event) for event in batch}
        before = _read_open(connection, ids)
        orders, sold = dict(before), dict[tuple[str, str], tuple[int, int]]()
        for recorded in batch:
            workflow_id, event = _workflow_id(recorded), decode(recorded)
            if isinstance(event, WorkflowStarted):
                if event.workflow_type == "fulfil_order":
                    order = event.input.to(Order)
                    orders[workflow_id] = (order.customer, order.cents)
                continue
            order_of = orders.pop(workflow_id, None)
            if order_of is None or not isinstance(event, WorkflowCompleted):
                continue  # another workflow's end; or an order of which nothing came
            if event.result.to(str) == "completed":
                customer, cents = order_of
                day = decode_metadata(recorded).recorded_at.astimezone(UTC).date().isoformat()
                count, total = sold.get((customer, day), (0, 0))
                sold[customer, day] = (count + 1, total + cents)
        _write_open(connection, before, orders)
        _add(connection, sold)


def _workflow_id(event: RecordedEvent) -> str:
    return event.stream.removeprefix(_PREFIX)


def _read_open(connection: Connection, ids: Iterable[str]) -> dict[str, tuple[str, int]]:
    found: dict[str, tuple[str, int]] = {}
    wanted = sorted(ids)
    for at in range(0, len(wanted), 500):  # a statement takes only so many parameters
        query = select(OPEN_ORDERS).where(OPEN_ORDERS.c.workflow_id.in_(wanted[at : at + 500]))
        found.update(
            (row.workflow_id, (row.customer, row.cents)) for row in connection.execute(query)
        )
    return found


def _write_open(
    connection: Connection,
    before: Mapping[str, tuple[str, int]],
    after: Mapping[str, tuple[str, int]],
) -> None:
    gone = sorted(before.keys() - after.keys())
    for at in range(0, len(gone), 500):
        ended = OPEN_ORDERS.c.workflow_id.in_(gone[at : at + 500])
        connection.execute(OPEN_ORDERS.delete().where(ended))
    new = [
        {"workflow_id": key, "customer": customer, "cents": cents}
        for key, (customer, cents) in after.items()
        if key not in before
    ]
    if new:
        connection.execute(OPEN_ORDERS.insert(), new)


def _add(connection: Connection, sold: Mapping[tuple[str, str], tuple[int, int]]) -> None:
    if not sold:
        return
    row: Any = (
        postgresql.insert(REVENUE)
        if connection.dialect.name == "postgresql"
        else sqlite.insert(REVENUE)
    )
    adding = row.on_conflict_do_update(
        index_elements=["customer", "day"],
        set_={
            "orders": REVENUE.c.orders + row.excluded.orders,
            "cents": REVENUE.c.cents + row.excluded.cents,
        },
    )
    rows = [
        {"customer": customer, "day": day, "orders": orders, "cents": cents}
        for (customer, day), (orders, cents) in sold.items()
    ]
    connection.execute(adding, rows)

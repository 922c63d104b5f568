"""One page of runs: which index leads to it, so that its cost is that of its rows, at any depth.

Runs are found in one of three ways. If a part of the filter matches few runs, those are sorted. If not,
the runs are walked in the order that is asked for: along the index of one value of a search attribute (or
along several, merged), or along the index of the field that orders. Runs without a value of that field come
last, in a query of their own, because no index has them in that place on every database.
"""

from typing import Any, Final, TypeAlias

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    func,
    not_,
    null,
    select,
    text,
    true,
    tuple_,
    union,
)

from aion_es.projections.visibility_tables import ATTRIBUTES, EXECUTIONS
from aion_es.visibility.compile import (
    candidates,
    compared,
    condition_of,
    conjuncts,
    has,
    hidden,
    value_column,
)
from aion_es.visibility.filter import Comparison, Filter, Node, Order

Place: TypeAlias = tuple[Any, str]
"""Where a page ends: the value of the field that orders, and the run id."""

NARROW: Final = 2_000
"""Runs that a part of a filter may match for a page to begin with them, instead of with the order."""
_MERGED: Final = 32
"""Values of one IN whose indexes are merged, at most; each costs a page's length."""
_RUN: Final = EXECUTIONS.c


_PLANNED: Final = text(
    "SELECT set_config('max_parallel_workers_per_gather', '0', true), set_config('jit', 'off', true),"
    " set_config('enable_sort', :sort, true)"
)
"""How PostgreSQL shall plan a page, in this transaction: no worker and no compiler, which take longer to
start than a page to read, and no sorting where the runs are to be walked in their order."""


def read_page(asked: Filter, after: Place | None, limit: int, connection: Connection) -> list[Any]:
    """Return up to `limit` runs behind `after`: the runs' columns, and `sort_value`, which orders them."""
    narrow = _narrow(asked, connection)
    if connection.dialect.name == "postgresql":
        connection.execute(_PLANNED, {"sort": "off" if narrow is None else "on"})
    rows: list[Any] = []
    if after is None or after[0] is not None:
        rows.extend(connection.execute(page_query(asked, after, limit, narrow)))
    if len(rows) < limit and is_nullable(asked.order):
        behind = after if after is not None and after[0] is None else None
        query = unvalued_query(asked, behind, limit - len(rows), narrow)
        rows.extend(connection.execute(query))
    return rows


def page_query(
    asked: Filter, after: Place | None, limit: int, narrow: Select[Any] | None = None
) -> Select[Any]:
    """Return the query of the runs that have a value of the field that orders.

    Args:
        asked: Condition and order.
        after: Where the former page ended.
        limit: Rows, at most.
        narrow: Gives the run keys, few, that come into question.
    """
    if narrow is not None:
        return _looked_up(_narrow_query(asked, after, narrow), asked.order, limit)
    driving = _driving(asked)
    if driving is None:
        return _limited(_ordered_query(asked, after), asked.order, limit)
    branches = [
        _driven_query(asked, driving, value, after) for value in dict.fromkeys(driving.values)
    ]
    if len(branches) == 1:
        return _limited(branches[0], asked.order, limit)
    return _merged(branches, asked.order, limit)


def unvalued_query(
    asked: Filter, after: Place | None, limit: int, narrow: Select[Any] | None = None
) -> Select[Any]:
    """Return the query of the runs that have no value of the field that orders, by run id."""
    field = asked.order.field
    if field.column is None:
        unvalued = not_(has(field, true(), "exists"))
    else:
        unvalued = EXECUTIONS.c[field.column].is_(None)
    query = select(EXECUTIONS, null().label("sort_value")).where(unvalued)
    for node in conjuncts(asked.condition):
        query = query.where(condition_of(node))
    run_id: Any = _RUN.run_id
    if narrow is not None:
        query, run_id = query.where(_RUN.run_key.in_(narrow)), hidden(run_id)
    if after is not None:
        query = query.where(run_id < after[1] if asked.order.descending else run_id > after[1])
    return query.order_by(run_id.desc() if asked.order.descending else run_id.asc()).limit(limit)


def is_nullable(order: Order) -> bool:
    """Return whether a run may lack the field that orders."""
    column = order.field.column
    return column is None or bool(EXECUTIONS.c[column].nullable)


# ------------------------------------------------------------------------------------ which way


def _narrow(asked: Filter, connection: Connection) -> Select[Any] | None:
    """Return the query of a part's run keys, if those are few; counts no further than `NARROW`."""
    driving = _driving(asked)
    for node in conjuncts(asked.condition):
        query = None if node is driving or _bounds(node, asked.order) else candidates(node)
        if query is None:
            continue
        few = query.limit(NARROW + 1).subquery()
        counted: int = connection.execute(select(func.count()).select_from(few)).scalar_one()
        if counted <= NARROW:
            return query
    return None


_LISTED: Final = frozenset({"ExecutionStatus", "WorkflowType", "ScheduleId", "ParentWorkflowId"})
"""Built-in fields whose index gives the runs of one value by start time."""


def _driving(asked: Filter) -> Comparison | None:
    """Return a comparison with some values, of which the index of each gives its runs in their order.

    A page then costs what it holds, however many runs there are and however many have the value.
    A search attribute goes before a built-in field: it has more values, and so fewer runs of each.
    """
    if asked.order.field.name != "StartTime":
        return None
    fitting = [
        node
        for node in conjuncts(asked.condition)
        if isinstance(node, Comparison)
        and node.operator in {"=", "in"}
        and len(node.values) <= _MERGED
        and (node.field.column is None or node.field.name in _LISTED)
    ]
    return min(
        fitting,
        key=lambda node: (node.field.column is not None, node.operator == "in"),
        default=None,
    )


def _bounds(node: Node, order: Order) -> bool:
    """Whether this part bounds the walk along the field that orders: an index does that by itself."""
    return (
        isinstance(node, Comparison)
        and node.field == order.field
        and node.operator in {"=", "<", "<=", ">", ">=", "between", "starts_with"}
    )


# ------------------------------------------------------------------------------------ queries


def _ordered_query(asked: Filter, after: Place | None) -> Select[Any]:
    """Return the query of all that is asked for behind `after`, from the side of the field that orders."""
    field = asked.order.field
    if field.column is None:
        key, run_id = value_column(field), ATTRIBUTES.c.run_id
        query = _from_attributes(key).where(ATTRIBUTES.c.name == field.name, key.is_not(None))
    else:
        key, run_id = EXECUTIONS.c[field.column], _RUN.run_id
        query = _keys(_RUN.run_key, key, run_id)
        if is_nullable(asked.order):
            query = query.where(key.is_not(None))
    return _conditioned(query, asked, key, run_id, after)


def _driven_query(
    asked: Filter, driving: Comparison, value: Any, after: Place | None
) -> Select[Any]:
    """Return the query of the runs that have one value, from the side of the index of that value."""
    field = driving.field
    if field.column is None:
        key, run_id = ATTRIBUTES.c.start_time, ATTRIBUTES.c.run_id
        query = _from_attributes(key).where(
            ATTRIBUTES.c.name == field.name, value_column(field) == value
        )
    else:
        key, run_id = _RUN.start_time, _RUN.run_id
        query = _keys(_RUN.run_key, key, run_id).where(EXECUTIONS.c[field.column] == value)
    return _conditioned(query, asked, key, run_id, after, driving)


def _narrow_query(asked: Filter, after: Place | None, narrow: Select[Any]) -> Select[Any]:
    """Return the query of those among few runs that are asked for, from the side of the run keys."""
    field = asked.order.field
    run_id = hidden(_RUN.run_id)
    if field.column is None:
        key = hidden(value_column(field))
        query = _keys(_RUN.run_key, key, run_id).join_from(
            EXECUTIONS, ATTRIBUTES, _RUN.run_key == ATTRIBUTES.c.run_key
        )
        query = query.where(hidden(ATTRIBUTES.c.name) == field.name, key.is_not(None))
    else:
        key = hidden(EXECUTIONS.c[field.column])
        query = _keys(_RUN.run_key, key, run_id)
        if is_nullable(asked.order):
            query = query.where(key.is_not(None))
    query = query.where(_RUN.run_key.in_(narrow))
    return _conditioned(query, asked, key, run_id, after)


def _conditioned(
    query: Select[Any],
    asked: Filter,
    key: Any,
    run_id: Any,
    after: Place | None,
    met: Comparison | None = None,
) -> Select[Any]:
    """Add what is asked for, but for `met`, and that the runs come behind `after`."""
    for node in conjuncts(asked.condition):
        if node is met:
            continue
        if isinstance(node, Comparison) and _bounds(node, asked.order):
            query = query.where(compared(key, node))
        else:
            query = query.where(condition_of(node))
    return query if after is None else query.where(_behind(key, run_id, asked.order, after))


def _from_attributes(key: Any) -> Select[Any]:
    return _keys(ATTRIBUTES.c.run_key, key, ATTRIBUTES.c.run_id).join_from(
        ATTRIBUTES, EXECUTIONS, _RUN.run_key == ATTRIBUTES.c.run_key
    )


def _keys(run_key: Any, value: Any, run_id: Any) -> Select[Any]:
    """Return a query of what identifies a run and what orders it."""
    labels = (run_key.label("sort_key"), value.label("sort_value"), run_id.label("sort_run_id"))
    query: Any = select(*labels)
    keys: Select[Any] = query
    return keys


def _ordered(query: Select[Any], value: Any, run_id: Any, order: Order, limit: int) -> Select[Any]:
    if order.descending:
        return query.order_by(value.desc(), run_id.desc()).limit(limit)
    return query.order_by(value.asc(), run_id.asc()).limit(limit)


def _limited(keys: Select[Any], order: Order, limit: int) -> Select[Any]:
    """Return the first of the runs that `keys` gives, along the index that orders them."""
    columns = keys.selected_columns
    query = keys.add_columns(*EXECUTIONS.c)
    return _ordered(query, columns.sort_value.element, columns.sort_run_id.element, order, limit)


def _looked_up(keys: Select[Any], order: Order, limit: int) -> Select[Any]:
    """Return the first of the runs that `keys` gives, sorted before their rows are looked up."""
    inner = keys.subquery()
    page = _ordered(select(inner), inner.c.sort_value, inner.c.sort_run_id, order, limit).subquery()
    query = select(*page.c, *EXECUTIONS.c).join_from(
        page, EXECUTIONS, page.c.sort_key == _RUN.run_key
    )
    return _ordered(query, page.c.sort_value, page.c.sort_run_id, order, limit)


def _merged(branches: list[Select[Any]], order: Order, limit: int) -> Select[Any]:
    """Return the first of the runs of several queries; a run with several of the words comes once."""
    firsts: list[Select[Any]] = []
    for branch in branches:
        columns = branch.selected_columns
        value, run_id = columns.sort_value.element, columns.sort_run_id.element
        firsts.append(select(_ordered(branch, value, run_id, order, limit).subquery()))
    united = union(*firsts).subquery()
    return _looked_up(select(united), order, limit)


def _behind(key: Any, run_id: Any, order: Order, after: Place) -> ColumnElement[bool]:
    place, here = tuple_(key, run_id), tuple_(*after)
    return place < here if order.descending else place > here

"""One page of runs: which index leads to it, so that its cost is that of its rows, at any depth.

Runs are found in one of three ways. If a part of the filter matches few runs, those are sorted. If not,
the runs are walked in the order that is asked for: along the index of one value that the filter asks for (or
along several, merged; `aion_es/visibility/walks.py`), or along the index of the field that orders. Runs
without a value of that field come last, in a query of their own, because no index has them in that place on
every database.
"""

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Null, Select, func, null, select, text, union, union_all

from aion_es.projections.visibility_tables import ATTRIBUTES, EXECUTIONS
from aion_es.visibility.compile import (
    Conditions,
    candidates,
    compared,
    conjuncts,
    hidden,
    value_column,
)
from aion_es.visibility.filter import Comparison, Filter, Node, Order
from aion_es.visibility.name_sets import NameSets, read_sets
from aion_es.visibility.walks import (
    Place,
    Walk,
    behind,
    find_walk,
    from_attributes,
    identified,
    ordered,
    unvalued_walk,
)

NARROW: Final = 2_000
"""Runs that a part of a filter may match for a page to begin with them, instead of with the order."""
WIDE: Final = 20_000
"""The same where the index that finds them has all that sorts them, so that no run is looked at for it."""
_SAMPLE: Final = 200
_COMMON: Final = 10
"""Of `_SAMPLE` runs, so many: then a page of a hundred is walked in 2,000 steps."""
_RUN: Final = EXECUTIONS.c
_PLANNED: Final = text(
    "SELECT set_config('max_parallel_workers_per_gather', '0', true), set_config('jit', 'off', true),"
    " set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true),"
    " set_config('enable_mergejoin', 'off', true), set_config('enable_sort', :sort, true)"
)
"""How PostgreSQL shall plan a page, in this transaction: no worker and no compiler, which take longer to
start than a page to read; nothing that reads a whole table or all of an index, whatever it believes of the
number of matches; and no sorting where the runs are to be walked in their order."""


@dataclass(frozen=True, slots=True)
class Narrow:
    """A part of the filter that matches few runs.

    Attributes:
        node: The part.
        keys: Gives the run keys.
    """

    node: Node
    keys: Select[Any]


def read_page(asked: Filter, after: Place | None, limit: int, connection: Connection) -> list[Any]:
    """Return up to `limit` runs behind `after`: the runs' columns, and `sort_value`, which orders them."""
    is_server = connection.dialect.name == "postgresql"
    if is_server:
        connection.execute(_PLANNED, {"sort": "off"})
    sets = read_sets(connection, conjuncts(asked.condition))
    place = after if after is not None and after[0] is not None else None
    walk = find_walk(asked, sets, place, connection)
    narrow = _narrow(asked, walk, sets, place, connection)
    if is_server and narrow is not None:
        connection.execute(_PLANNED, {"sort": "on"})
    rows: list[Any] = []
    is_valued = (after is None or place is not None) and not _rules_out(asked, valued=True)
    if is_valued and (walk is None or walk.values):
        rows.extend(connection.execute(page_query(asked, place, limit, walk, narrow)))
    if len(rows) < limit and not _rules_out(asked, valued=False):
        begin = after if place is None else None
        rows.extend(_read_unvalued(asked, begin, limit - len(rows), narrow, connection))
    return rows


def is_nullable(order: Order) -> bool:
    """Return whether a run may lack the field that orders."""
    column = order.field.column
    return column is None or bool(EXECUTIONS.c[column].nullable)


def _rules_out(asked: Filter, *, valued: bool) -> bool:
    """Whether nothing that is asked for can have a value of the field that orders, or can lack one."""
    if not valued and not is_nullable(asked.order):
        return True
    return any(
        isinstance(node, Comparison)
        and node.field == asked.order.field
        and (node.operator == "is_null") is valued
        for node in conjuncts(asked.condition)
    )


def page_query(
    asked: Filter,
    after: Place | None,
    limit: int,
    walk: Walk | None = None,
    narrow: Narrow | None = None,
) -> Select[Any]:
    """Return the query of the runs that have a value of the field that orders.

    Args:
        asked: Condition and order.
        after: Where the former page ended.
        limit: Rows, at most.
        walk: Indexes that give the runs in their order.
        narrow: Gives the run keys, few, that come into question; then nothing is walked.
    """
    if narrow is not None:
        query = _sorted_query(asked, after, narrow)
        return _looked_up(query, asked.order, limit)
    if walk is None:
        return _limited(_ordered_query(asked, after), asked.order, limit)
    branches = [_branch(asked, walk, value, after) for value in walk.values]
    return _merged(branches, asked.order, limit, may_repeat=walk.may_repeat)


# ------------------------------------------------------------------------------------ which way


def _narrow(
    asked: Filter,
    walk: Walk | None,
    sets: NameSets,
    place: Place | None,
    connection: Connection,
) -> Narrow | None:
    """Return a part of the filter that matches few runs; counts no further than it must."""
    for node in conjuncts(asked.condition):
        if (walk is not None and node in walk.considered) or _bounds(node, asked.order):
            continue
        keys = candidates(node, sets)
        if keys is None:
            continue
        is_few = _are_few(keys, NARROW, connection)
        if not is_few and _is_sorted_alone(asked, node):
            is_few = not _is_common(node, place, asked, connection)
            is_few = is_few and _are_few(keys, WIDE, connection)
        if is_few:
            return Narrow(node, keys)
    return None


def _are_few(keys: Select[Any], bound: int, connection: Connection) -> bool:
    few = keys.limit(bound + 1).subquery()
    counted: int = connection.execute(select(func.count()).select_from(few)).scalar_one()
    return counted <= bound


def _is_common(node: Node, place: Place | None, asked: Filter, connection: Connection) -> bool:
    """Whether so many of the next runs satisfy `node` that a walk by their order soon has a page of them."""
    keys = _ordered_query(Filter(None, asked.order), place)
    following = ordered(keys, _sorted_by(keys), asked.order, _SAMPLE).subquery()
    holds = Conditions(run_key=following.c.sort_key).of(node)
    found = select(func.count()).select_from(following).where(holds)
    counted: int = connection.execute(found).scalar_one()
    return counted >= _COMMON


def _is_sorted_alone(asked: Filter, node: Node) -> bool:
    """Whether `node` is all that is asked for, and the index that finds its runs has what orders them."""
    return (
        node is asked.condition
        and isinstance(node, Comparison)
        and node.field.column is None
        and node.field.kind != "words"
        and node.operator in {"=", "<", "<=", ">", ">=", "in", "between", "starts_with"}
        and asked.order.field.name == "StartTime"
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
        query = from_attributes(key).where(ATTRIBUTES.c.name == field.name, key.is_not(None))
        return _conditioned(query, asked, key, run_id, after, run_key=ATTRIBUTES.c.run_key)
    key, run_id = EXECUTIONS.c[field.column], _RUN.run_id
    query = identified(_RUN.run_key, key, run_id)
    if is_nullable(asked.order):
        query = query.where(key.is_not(None))
    return _conditioned(query, asked, key, run_id, after)


def _branch(asked: Filter, walk: Walk, value: Any, after: Place | None) -> Select[Any]:
    """Return the query of the runs that have one of the values that are walked along."""
    query = walk.branch(value)
    return _conditioned(
        query, asked, walk.key, walk.run_id, after, met=walk.met, run_key=walk.run_key
    )


def _sorted_query(asked: Filter, after: Place | None, narrow: Narrow) -> Select[Any]:
    """Return the query of those among few runs that are asked for, from the side of the run keys."""
    field = asked.order.field
    if _is_sorted_alone(asked, narrow.node):
        key, run_id = hidden(ATTRIBUTES.c.start_time), hidden(ATTRIBUTES.c.run_id)
        query = narrow.keys.with_only_columns(
            *identified(ATTRIBUTES.c.run_key, key, run_id).selected_columns
        )
        return query if after is None else query.where(behind(key, run_id, asked.order, after))
    run_id = hidden(_RUN.run_id)
    if field.column is None:
        key = hidden(value_column(field))
        query = identified(_RUN.run_key, key, run_id).join_from(
            EXECUTIONS, ATTRIBUTES, _RUN.run_key == ATTRIBUTES.c.run_key
        )
        query = query.where(hidden(ATTRIBUTES.c.name) == field.name, key.is_not(None))
    else:
        key = hidden(EXECUTIONS.c[field.column])
        query = identified(_RUN.run_key, key, run_id)
        if is_nullable(asked.order):
            query = query.where(key.is_not(None))
    query = query.where(_RUN.run_key.in_(narrow.keys))
    return _conditioned(query, asked, key, run_id, after)


def _conditioned(
    query: Select[Any],
    asked: Filter,
    key: Any,
    run_id: Any,
    after: Place | None,
    *,
    met: tuple[Node, ...] = (),
    run_key: Any = _RUN.run_key,
) -> Select[Any]:
    """Add what is asked for, but for `met`, and that the runs come behind `after`."""
    conditions = Conditions(run_key=run_key)
    for node in conjuncts(asked.condition):
        if node in met:
            continue
        if isinstance(node, Comparison) and _bounds(node, asked.order):
            query = query.where(compared(key, node))
        else:
            query = query.where(conditions.of(node))
    return query if after is None else query.where(behind(key, run_id, asked.order, after))


def _read_unvalued(
    asked: Filter, after: Place | None, limit: int, narrow: Narrow | None, connection: Connection
) -> list[Any]:
    """Return the runs that have no value of the field that orders, by run id."""
    walk = unvalued_walk(asked)
    if walk is not None and not walk.values:
        return []
    if narrow is None and walk is None:
        narrow = _few_without(asked, connection)
    if connection.dialect.name == "postgresql":
        connection.execute(_PLANNED, {"sort": "off" if narrow is None else "on"})
    return [*connection.execute(unvalued_query(asked, after, limit, walk, narrow))]


def _few_without(asked: Filter, connection: Connection) -> Narrow | None:
    """Return the runs without the attribute that orders, if there are few."""
    lacking = Comparison(asked.order.field, "is_null")
    sets = read_sets(connection, [lacking])
    return _narrow(Filter(lacking, asked.order), None, sets, None, connection)


def unvalued_query(
    asked: Filter,
    after: Place | None,
    limit: int,
    walk: Walk | None = None,
    narrow: Narrow | None = None,
) -> Select[Any]:
    """Return the query of the runs that have no value of the field that orders, by run id.

    Args:
        asked: Condition and order.
        after: Where the former page ended, if it was one of these.
        limit: Rows, at most.
        walk: Indexes that give these runs by run id.
        narrow: Gives the run keys, few, that come into question; then nothing is walked.
    """
    if narrow is not None:
        query = _unvalued(asked, hidden(_RUN.run_id), after)
        return _looked_up(query.where(_RUN.run_key.in_(narrow.keys)), asked.order, limit)
    if walk is None:
        return _limited(_unvalued(asked, _RUN.run_id, after), asked.order, limit)
    branches = [
        _unvalued(asked, _RUN.run_id, after, walk).where(walk.column == value)
        for value in walk.values
    ]
    return _merged(branches, asked.order, limit, may_repeat=False)


def _unvalued(
    asked: Filter, run_id: Any, after: Place | None, walk: Walk | None = None
) -> Select[Any]:
    field = asked.order.field
    # By the column that orders, although it is null: only then PostgreSQL sees that the index has this order.
    query = identified(_RUN.run_key, null() if walk is None else walk.key, run_id)
    conditions = Conditions()
    if field.column is None:
        query = query.where(conditions.lacks(field))
    else:
        query = query.where(EXECUTIONS.c[field.column].is_(None))
    for node in conjuncts(asked.condition):
        if walk is None or node not in walk.met:
            query = query.where(conditions.of(node))
    if after is not None:
        query = query.where(run_id < after[1] if asked.order.descending else run_id > after[1])
    return query


# ------------------------------------------------------------------------------------ limits


def _limited(keys: Select[Any], order: Order, limit: int) -> Select[Any]:
    """Return the first of the runs that `keys` gives, along the index that orders them."""
    return ordered(keys.add_columns(*EXECUTIONS.c), _sorted_by(keys), order, limit)


def _looked_up(keys: Select[Any], order: Order, limit: int) -> Select[Any]:
    """Return the first of the runs that `keys` gives, sorted before their rows are looked up."""
    inner = keys.subquery()
    sorting = (inner.c.sort_value, inner.c.sort_run_id)
    page = ordered(select(inner), sorting, order, limit).subquery()
    query = select(*page.c, *EXECUTIONS.c).join_from(
        page, EXECUTIONS, page.c.sort_key == _RUN.run_key
    )
    return ordered(query, (page.c.sort_value, page.c.sort_run_id), order, limit)


def _merged(
    branches: list[Select[Any]], order: Order, limit: int, *, may_repeat: bool
) -> Select[Any]:
    """Return the first of the runs of several queries; a run with several of the words comes once."""
    if len(branches) == 1:
        return _limited(branches[0], order, limit)
    firsts = [
        select(ordered(branch, _sorted_by(branch), order, limit).subquery()) for branch in branches
    ]
    united = (union(*firsts) if may_repeat else union_all(*firsts)).subquery()
    return _looked_up(select(united), order, limit)


def _sorted_by(keys: Select[Any]) -> list[Any]:
    """Return what orders the runs of a query: value and run id, or only that where none has a value."""
    columns = keys.selected_columns
    return [
        one.element
        for one in (columns.sort_value, columns.sort_run_id)
        if not isinstance(one.element, Null)
    ]

"""From a checked filter to SQL: every value bound, every name a column of ours."""

import operator
from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias

from sqlalchemy import ColumnElement, Select, and_, exists, func, not_, or_, select, true, tuple_

from aion_es.projections.visibility_tables import ATTRIBUTES, EXECUTIONS
from aion_es.visibility.fields import Field
from aion_es.visibility.filter import Both, Comparison, Either, Filter, Negation, Node, Order

Place: TypeAlias = tuple[Any, str]
"""Where a page ends: the value of the field that orders, and the run id."""

_RUN: Final = EXECUTIONS.c
_VALUE_COLUMN: Final = {
    "text": "text_value",
    "words": "text_value",
    "int": "number_value",
    "bool": "number_value",
    "time": "number_value",
    "float": "float_value",
}
_Membership: TypeAlias = Literal["exists", "in"]


NARROW: Final = 2_000
"""Runs that a search attribute may match for a page to begin with them, instead of with the order."""


def narrowing(asked: Filter) -> list[tuple[Comparison, Select[Any]]]:
    """Return the comparisons of search attributes that every listed run must satisfy, with a query each.

    The query counts the matches, up to one more than `NARROW`. With few, a page is best found from them;
    with many, by walking the runs in their order and looking each one's attributes up.
    """
    driving = _driving(asked)
    counted: list[tuple[Comparison, Select[Any]]] = []
    for node in _conjuncts(asked.condition):
        if not isinstance(node, Comparison) or node is driving or node.field.column is not None:
            continue
        if node.operator not in {"!=", "is_null"}:
            matches = _matching(node.field, _compared(_value_column(node.field), node))
            few = matches.limit(NARROW + 1).subquery()
            counted.append((node, select(func.count()).select_from(few)))
    return counted


def page_query(
    asked: Filter, after: Place | None, limit: int, narrow: Comparison | None = None
) -> Select[Any]:
    """Return the query of one page: the runs' columns, and behind them `sort_value`, which orders them.

    Args:
        asked: Condition and order.
        after: Where the former page ended.
        limit: Rows, at most.
        narrow: One of `narrowing`'s comparisons that has few matches.
    """
    driving = _driving(asked)
    if driving is not None and narrow is None:
        return _driven_page(asked, driving, after, limit)
    key = _sort_key(asked.order)
    query = select(EXECUTIONS, key.label("sort_value"))
    if asked.order.field.column is None:
        query = query.join(ATTRIBUTES, _joined(asked.order.field), isouter=True)
    for node in _conjuncts(asked.condition):
        query = query.where(condition_of(node, "in" if node is narrow else "exists"))
    return _placed(query, asked.order, key, _RUN.run_id, after).limit(limit)


def count_query(asked: Filter, group_by: Literal["status", "type"] | None) -> Select[Any]:
    """Return the query that counts, as rows of (group, count); one row, of group 0, without a group."""
    group = {"status": _RUN.status, "type": _RUN.workflow_type}.get(group_by or "")
    query: Any
    if group is None:
        query = select(func.count()).select_from(EXECUTIONS)
    else:
        query = select(group, func.count()).group_by(group).order_by(group)
    if asked.condition is not None:
        query = query.where(condition_of(asked.condition, membership="in"))
    counted: Select[Any] = query
    return counted


def condition_of(node: Node, membership: _Membership = "exists") -> ColumnElement[bool]:
    """Return the condition on a row of `visibility`.

    Args:
        node: What must hold.
        membership: How a search attribute is looked up: `exists` from the run, `in` from the attribute.
    """
    match node:
        case Both(parts):
            return and_(*(condition_of(part, membership) for part in parts))
        case Either(parts):
            return or_(*(condition_of(part, membership) for part in parts))
        case Negation(part):
            return not_(condition_of(part, membership))
        case Comparison(field):
            if field.column is None:
                return _attribute_condition(node, membership)
            return _column_condition(node, EXECUTIONS.c[field.column])


def _column_condition(node: Comparison, column: Any) -> ColumnElement[bool]:
    if node.operator == "is_null":
        return column.is_(None)  # type: ignore[no-any-return] # a column of unknown type
    compared = _compared(column, node)
    # Two-valued, so that NOT means the opposite also for a run that has no value.
    return and_(column.is_not(None), compared) if column.nullable else compared


def _attribute_condition(node: Comparison, membership: _Membership) -> ColumnElement[bool]:
    any_value = _has(node.field, true(), membership)
    if node.operator == "is_null":
        return not_(any_value)
    column = _value_column(node.field)
    if membership == "exists":
        # Hidden from the indexes over values: they would be searched for all runs, once for every run,
        # where the attributes of one run are wanted. (An attribute's value is never NULL.)
        column = func.coalesce(column, None)
    if node.operator == "!=" and node.field.kind == "words":
        return and_(any_value, not_(_has(node.field, column == node.values[0], membership)))
    return _has(node.field, _compared(column, node), membership)


def _has(
    field: Field, condition: ColumnElement[bool], membership: _Membership
) -> ColumnElement[bool]:
    if membership == "in":
        return _RUN.run_key.in_(_matching(field, condition))
    return exists(
        select(1)
        .where(ATTRIBUTES.c.run_key == _RUN.run_key, ATTRIBUTES.c.name == field.name, condition)
        .correlate(EXECUTIONS)
    )


def _matching(field: Field, condition: ColumnElement[bool]) -> Select[Any]:
    """Return the query of the run keys whose attribute satisfies the condition, by the index over values."""
    return select(ATTRIBUTES.c.run_key).where(
        ATTRIBUTES.c.name == field.name, _value_column(field).is_not(None), condition
    )


def _value_column(field: Field) -> Any:
    return ATTRIBUTES.c[_VALUE_COLUMN[field.kind]]


_ORDERS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def _compared(column: Any, node: Comparison) -> Any:
    first = node.values[0]
    match node.operator:
        case "in":
            return column.in_(node.values)
        case "between":
            return and_(column >= first, column <= node.values[1])
        case "starts_with":
            return _begins_with(column, first)
        case _:
            return _ORDERS[node.operator](column, first)


def _begins_with(column: Any, prefix: str) -> Any:
    """Return a range, which an index answers, unlike LIKE, which also takes upper for lower case."""
    behind = _successor(prefix)
    return column >= prefix if behind is None else and_(column >= prefix, column < behind)


def _successor(prefix: str) -> str | None:
    """Return the first text behind all that begin with `prefix`, `None` if there is none."""
    kept = prefix.rstrip("\U0010ffff")
    if not kept:
        return None
    code = ord(kept[-1]) + 1
    return kept[:-1] + chr(0xE000 if code == 0xD800 else code)  # between them lie the surrogates


# ------------------------------------------------------------------------------------ order and page


def _driving(asked: Filter) -> Comparison | None:
    """Return an equality on a search attribute that every listed run must satisfy.

    The attribute's index then gives the runs in their order, and a page costs what it holds, however
    many runs there are and however many have the value.
    """
    if asked.order.field.name != "StartTime":
        return None
    for node in _conjuncts(asked.condition):
        if isinstance(node, Comparison) and node.operator == "=" and node.field.column is None:
            return node
    return None


def _conjuncts(node: Node | None) -> list[Node]:
    if node is None:
        return []
    if isinstance(node, Both):
        return [part for one in node.parts for part in _conjuncts(one)]
    return [node]


def _driven_page(
    asked: Filter, driving: Comparison, after: Place | None, limit: int
) -> Select[Any]:
    others = [node for node in _conjuncts(asked.condition) if node is not driving]
    key = ATTRIBUTES.c.start_time
    query = (
        select(EXECUTIONS, key.label("sort_value"))
        .join_from(ATTRIBUTES, EXECUTIONS, _RUN.run_key == ATTRIBUTES.c.run_key)
        .where(
            ATTRIBUTES.c.name == driving.field.name,
            _value_column(driving.field) == driving.values[0],
            *(condition_of(node) for node in others),
        )
    )
    return _placed(query, asked.order, key, ATTRIBUTES.c.run_id, after).limit(limit)


def _sort_key(order: Order) -> Any:
    if order.field.column is not None:
        return EXECUTIONS.c[order.field.column]
    return _value_column(order.field)


def _joined(field: Field) -> ColumnElement[bool]:
    return and_(
        ATTRIBUTES.c.run_key == _RUN.run_key,
        ATTRIBUTES.c.name == field.name,
        ATTRIBUTES.c.element == 0,
    )


def _placed(
    query: Select[Any], order: Order, key: Any, run_id: Any, after: Place | None
) -> Select[Any]:
    """Order by the key, nulls last, then by run id in the same direction, and begin after a place."""
    nullable = order.field.column is None or bool(EXECUTIONS.c[order.field.column].nullable)
    if after is not None:
        query = query.where(_behind(key, run_id, order.descending, nullable, after))
    if order.descending:
        by_key, by_run = key.desc(), run_id.desc()
    else:
        by_key, by_run = key.asc(), run_id.asc()
    return query.order_by(by_key.nulls_last() if nullable else by_key, by_run)


def _behind(
    key: Any, run_id: Any, descending: bool, nullable: bool, after: Place
) -> ColumnElement[bool]:
    value, last_run = after
    if value is None:
        later = run_id < last_run if descending else run_id > last_run
        return and_(key.is_(None), later)
    place = tuple_(key, run_id)
    here = tuple_(value, last_run)
    behind = place < here if descending else place > here
    return or_(behind, key.is_(None)) if nullable else behind

"""From a checked filter to SQL conditions: every value bound, every name a column of ours."""

import operator
from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias

from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    exists,
    func,
    not_,
    or_,
    select,
    true,
    union_all,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from aion_es.projections.visibility_tables import ATTRIBUTES, EXECUTIONS
from aion_es.visibility.fields import Field, Kind
from aion_es.visibility.filter import Both, Comparison, Either, Filter, Negation, Node

_RUN: Final = EXECUTIONS.c
_VALUE_COLUMN: Final[dict[Kind, str]] = {
    "text": "text_value",
    "words": "text_value",
    "int": "number_value",
    "bool": "number_value",
    "time": "number_value",
    "float": "float_value",
}
_Membership: TypeAlias = Literal["exists", "in"]
_INDEXED: Final = frozenset(
    {
        "WorkflowId",
        "RunId",
        "WorkflowType",
        "ExecutionStatus",
        "ScheduleId",
        "ParentWorkflowId",
    }
)
"""Built-in fields whose runs of one value an index lists, so that matches need not be searched for."""
_POSITIVE: Final = frozenset({"=", "<", "<=", ">", ">=", "in", "between", "starts_with"})
"""Operators whose matches an index lists; those of the others are nearly all runs."""


def conjuncts(node: Node | None) -> tuple[Node, ...]:
    """Return the conditions that must all hold."""
    if node is None:
        return ()
    return node.parts if isinstance(node, Both) else (node,)


def count_query(asked: Filter) -> Select[Any]:
    """Return the query that counts the runs, as one row."""
    query: Select[Any] = select(func.count()).select_from(EXECUTIONS)
    if asked.condition is not None:
        query = query.where(condition_of(asked.condition, membership="in"))
    return query


def group_query(asked: Filter, field: Field, limit: int) -> Select[Any]:
    """Return the query that counts by a field's values, as rows of (value, count), in order of the values.

    Runs without a value are in no group; a run with several words is in one group for each of them.
    """
    if field.column is not None:
        group = EXECUTIONS.c[field.column]
        query: Any = select(group, func.count()).where(group.is_not(None))
    else:
        group = value_column(field)
        query = select(group, func.count()).where(ATTRIBUTES.c.name == field.name)
        query = query.where(group.is_not(None))
        if asked.condition is not None:
            query = query.join_from(ATTRIBUTES, EXECUTIONS, _RUN.run_key == ATTRIBUTES.c.run_key)
    if asked.condition is not None:
        query = query.where(condition_of(asked.condition, membership="in"))
    limited: Select[Any] = query.group_by(group).order_by(group).limit(limit)
    return limited


def candidates(node: Node) -> Select[Any] | None:
    """Return the query of the run keys that an index gives for `node`, which may hold of no other run.

    `None` if no index does.
    """
    match node:
        case Comparison():
            return _compared_candidates(node)
        case Either(parts):
            queries = [candidates(part) for part in parts]
            found = [query for query in queries if query is not None]
            if len(found) < len(parts):
                return None
            keys = union_all(*found).subquery()
            return select(keys.c.run_key)
        case Both(parts):
            return next((q for q in (candidates(part) for part in parts) if q is not None), None)
        case Negation():
            return None


def _compared_candidates(node: Comparison) -> Select[Any] | None:
    field = node.field
    if node.operator not in _POSITIVE:
        return None
    if field.column is None:
        return matching(field, compared(value_column(field), node))
    if field.name in _INDEXED and node.operator in {"=", "in"}:
        return select(_RUN.run_key).where(compared(EXECUTIONS.c[field.column], node))
    return None


def condition_of(node: Node, membership: _Membership = "exists") -> ColumnElement[bool]:
    """Return the condition on a row of `visibility`; it is true or false, never unknown.

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
            return _column_condition(node, EXECUTIONS.c[field.column], membership)


class _Hidden(FunctionElement[Any]):
    """A column as it is, for PostgreSQL; for SQLite an expression, which no index has."""

    inherit_cache = True


@compiles(_Hidden)
def _as_it_is(element: _Hidden, compiler: Any, **options: Any) -> str:
    text: str = compiler.process(element.clauses, **options)
    return text


@compiles(_Hidden, "sqlite")
def _as_expression(element: _Hidden, compiler: Any, **options: Any) -> str:
    return f"+{_as_it_is(element, compiler, **options)}"


def hidden(column: Any) -> Any:
    """Return the column, so that SQLite does not consider an index on it.

    A page is found by one index, which this module's callers choose: they know that a page needs few of
    the runs, in an order. SQLite knows little about its tables; PostgreSQL has statistics, and would be
    misled.
    """
    element: Any = _Hidden(column)
    element.type = column.type
    return element


def _column_condition(
    node: Comparison, column: Any, membership: _Membership
) -> ColumnElement[bool]:
    is_nullable = bool(column.nullable)
    seen = hidden(column) if membership == "exists" else column
    if node.operator == "is_null":
        return seen.is_(None)  # type: ignore[no-any-return] # a column of unknown type
    condition = compared(seen, node)
    # Two-valued, so that NOT means the opposite also for a run that has no value.
    return and_(seen.is_not(None), condition) if is_nullable else condition


def _attribute_condition(node: Comparison, membership: _Membership) -> ColumnElement[bool]:
    any_value = has(node.field, true(), membership)
    if node.operator == "is_null":
        return not_(any_value)
    column = value_column(node.field)
    if membership == "exists":
        # The index over values would be searched for all runs, once for every run, where the attributes of
        # one run are wanted.
        column = hidden(column)
    if node.operator in {"!=", "not_in"} and node.field.kind == "words":
        return and_(any_value, not_(has(node.field, column.in_(node.values), membership)))
    return has(node.field, compared(column, node), membership)


def has(
    field: Field, condition: ColumnElement[bool], membership: _Membership
) -> ColumnElement[bool]:
    """Return the condition that the run has the attribute, with a value that satisfies `condition`."""
    if membership == "in":
        return _RUN.run_key.in_(matching(field, condition))
    return exists(
        select(1)
        .where(ATTRIBUTES.c.run_key == _RUN.run_key, ATTRIBUTES.c.name == field.name, condition)
        .correlate(EXECUTIONS)
    )


def matching(field: Field, condition: ColumnElement[bool]) -> Select[Any]:
    """Return the query of the run keys whose attribute satisfies the condition, by the index over values."""
    return select(ATTRIBUTES.c.run_key).where(
        ATTRIBUTES.c.name == field.name, value_column(field).is_not(None), condition
    )


def value_column(field: Field) -> Any:
    """Return the column of `search_attributes` that holds the values of an attribute."""
    return ATTRIBUTES.c[_VALUE_COLUMN[field.kind]]


_ORDERS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def compared(column: Any, node: Comparison) -> Any:
    """Return the comparison of `column`, which is not null, with the values of `node`."""
    first = node.values[0]
    match node.operator:
        case "in":
            return column.in_(node.values)
        case "not_in":
            return column.not_in(node.values)
        case "between":
            return and_(column >= first, column <= node.values[1])
        case "not_between":
            return or_(column < first, column > node.values[1])
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

"""From a checked filter to SQL conditions: every value bound, every name a column of ours."""

import operator
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Final, Literal, TypeAlias

from sqlalchemy import (
    ColumnElement,
    Integer,
    Select,
    Text,
    and_,
    exists,
    func,
    not_,
    or_,
    select,
    union_all,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from aion_es.projections.visibility_tables import ATTRIBUTES, EXECUTIONS
from aion_es.visibility.fields import Field, Kind
from aion_es.visibility.filter import Both, Comparison, Either, Filter, Negation, Node, Operator
from aion_es.visibility.name_sets import NameSets, has_one_of, names_of

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
_BY_VALUE: Final = frozenset({"RunId", "ScheduleId", "ParentWorkflowId"})
"""Built-in fields whose runs of one value an index lists, so that matches need not be searched for."""
_BY_RANGE: Final = frozenset({"WorkflowId", "WorkflowType", "ExecutionStatus", "StartTime"})
"""Built-in fields that every run has, in whose order an index lists the runs: for values and for ranges."""
_POSITIVE: Final = frozenset({"=", "<", "<=", ">", ">=", "in", "between", "starts_with"})
"""Operators whose matches lie in one place of an index, or in one for each value."""
_OPPOSITES: Final[dict[Operator, Operator]] = {
    "=": "!=",
    "!=": "=",
    "<": ">=",
    ">=": "<",
    ">": "<=",
    "<=": ">",
    "in": "not_in",
    "not_in": "in",
    "between": "not_between",
    "not_between": "between",
}
"""What holds of a field that has a value where the operator does not."""


def conjuncts(node: Node | None) -> tuple[Node, ...]:
    """Return the conditions that must all hold."""
    if node is None:
        return ()
    return node.parts if isinstance(node, Both) else (node,)


def count_query(asked: Filter, sets: NameSets = None) -> Select[Any]:
    """Return the query that counts the runs, as one row."""
    one = asked.condition
    listed = _listed(one) if isinstance(one, Comparison) else None
    if listed is not None:  # the index of the values has them, each once: no run need be looked at
        return select(func.count()).select_from(listed.subquery())
    query: Select[Any] = select(func.count()).select_from(EXECUTIONS)
    if one is not None:
        query = query.where(Conditions("in", sets=sets).of(one))
    return query


def _listed(node: Comparison) -> Select[Any] | None:
    """Return the query of the run keys of a comparison, if an index over values has each run once."""
    is_list = node.field.kind == "words" and node.operator != "="
    if node.field.column is not None or is_list or node.operator == "is_null":
        return None
    return _compared_candidates(node, None)


def group_query(asked: Filter, field: Field, limit: int, sets: NameSets = None) -> Select[Any]:
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
        query = query.where(Conditions("in", sets=sets).of(asked.condition))
    limited: Select[Any] = query.group_by(group).order_by(group).limit(limit)
    return limited


# ------------------------------------------------------------------------------------ candidates


def candidates(node: Node, sets: NameSets = None) -> Select[Any] | None:
    """Return the query of the run keys that an index gives for `node`, which may hold of no other run.

    `None` if no index does. The query may give a run more than once.
    """
    match node:
        case Comparison():
            return _compared_candidates(node, sets)
        case Either(parts):
            return _united([candidates(part, sets) for part in parts])
        case Both(parts):
            found = (candidates(part, sets) for part in parts)
            return next((query for query in found if query is not None), None)
        case Negation(Comparison() as part):
            return _opposed_candidates(part, sets)
        case Negation():
            return None


def opposite(node: Comparison) -> Comparison | None:
    """Return the comparison that holds of a run with a value where `node` does not; `None` if there is none."""
    operator = _OPPOSITES.get(node.operator)
    # Of a list some words may satisfy a comparison and others its opposite.
    if operator is None or node.field.kind == "words":
        return None
    return Comparison(node.field, operator, node.values)


def _opposed_candidates(part: Comparison, sets: NameSets) -> Select[Any] | None:
    if part.operator == "is_null":
        return _with_names(part.field, sets, having=True)
    opposed = opposite(part)
    if opposed is None:
        return None
    valued = _compared_candidates(opposed, sets)
    if part.field.column is not None and not EXECUTIONS.c[part.field.column].nullable:
        return valued
    return _united([valued, _compared_candidates(Comparison(part.field, "is_null"), sets)])


def _compared_candidates(node: Comparison, sets: NameSets) -> Select[Any] | None:
    field = node.field
    if node.operator == "is_null":
        return _with_names(field, sets, having=False)
    if field.column is None:
        if node.operator in _POSITIVE:
            return matching(field, compared(value_column(field), node))
        if field.kind == "words":
            return None
        return _united([matching(field, part) for part in _ranges(value_column(field), node)])
    column = EXECUTIONS.c[field.column]
    by_range = field.name in _BY_RANGE
    if node.operator in {"=", "in"} and (by_range or field.name in _BY_VALUE):
        return select(_RUN.run_key).where(compared(column, node))
    if not by_range:
        return None
    parts = [compared(column, node)] if node.operator in _POSITIVE else _ranges(column, node)
    return _united([select(_RUN.run_key).where(part) for part in parts])


def _with_names(field: Field, sets: NameSets, *, having: bool) -> Select[Any] | None:
    """Return the query of the runs that have the attribute, or lack it."""
    if field.column is not None or sets is None:
        return None
    return select(_RUN.run_key).where(has_one_of(names_of(sets, field.name, having)))


def _ranges(column: Any, node: Comparison) -> list[ColumnElement[bool]]:
    """Return the ranges that lie between the values that `node` excludes."""
    if node.operator == "not_between":
        low, high = node.values
        below, above = column < low, column > high
        # With the bounds the wrong way round they overlap, and a run must not be found twice.
        return [or_(below, above)] if low > high else [below, above]
    values = sorted(set(node.values))
    between = [and_(column > low, column < high) for low, high in pairwise(values)]
    return [column < values[0], *between, column > values[-1]]


def _united(queries: Sequence[Select[Any] | None]) -> Select[Any] | None:
    found = [query for query in queries if query is not None]
    if len(found) < len(queries):
        return None
    if len(found) == 1:
        return found[0]
    keys = union_all(*found).subquery()
    return select(keys.c.run_key)


# ------------------------------------------------------------------------------------ conditions


class Conditions:
    """Turns parts of a filter into conditions on a row of `visibility`: true or false, never unknown."""

    def __init__(
        self,
        membership: _Membership = "exists",
        *,
        run_key: Any = _RUN.run_key,
        sets: NameSets = None,
    ) -> None:
        """Say how they are to be answered.

        Args:
            membership: How a search attribute is looked up: `exists` from the run, `in` from the attribute.
            run_key: The run's key, as the query has it before it looks at the run.
            sets: Which attributes runs have together, where that is known.
        """
        self._probes = membership == "exists"
        self._run_key = run_key
        self._sets = sets

    def of(self, node: Node) -> ColumnElement[bool]:
        """Return the condition."""
        match node:
            case Both(parts):
                return and_(*(self.of(part) for part in parts))
            case Either(parts):
                return or_(*(self.of(part) for part in parts))
            case Negation(part):
                return not_(self.of(part))
            case Comparison(field):
                if field.column is None:
                    return self._of_attribute(node)
                return self._of_column(node, EXECUTIONS.c[field.column])

    def lacks(self, field: Field) -> ColumnElement[bool]:
        """Return the condition that the run has no value of a search attribute."""
        if not self._probes and self._sets is not None:
            return has_one_of(names_of(self._sets, field.name, having=False))
        return Position(_RUN.attribute_names, f" {field.name} ") == 0

    def _of_column(self, node: Comparison, column: Any) -> ColumnElement[bool]:
        seen = hidden(column) if self._probes else column
        if node.operator == "is_null":
            return seen.is_(None)  # type: ignore[no-any-return] # a column of unknown type
        condition = compared(seen, node)
        # Two-valued, so that NOT means the opposite also for a run that has no value.
        return and_(seen.is_not(None), condition) if column.nullable else condition

    def _of_attribute(self, node: Comparison) -> ColumnElement[bool]:
        if node.operator == "is_null":
            return self.lacks(node.field)
        if node.operator in {"!=", "not_in"} and node.field.kind == "words":
            contained = Comparison(node.field, "in", node.values)
            return and_(not_(self.lacks(node.field)), not_(self._has(contained)))
        return self._has(node)

    def _has(self, node: Comparison) -> ColumnElement[bool]:
        """Return the condition that the run has a value of the attribute that satisfies the comparison."""
        if not self._probes:
            return self._run_key.in_(matching(node.field, compared(value_column(node.field), node)))  # type: ignore[no-any-return] # a column of unknown type
        probed = ATTRIBUTES.alias("probed")
        # In the index over values all of a value's runs would be searched, once for every run.
        column = _probed(probed.c[_VALUE_COLUMN[node.field.kind]])
        found = select(1).where(
            probed.c.run_key == self._run_key,
            probed.c.name == node.field.name,
            compared(column, node),
        )
        # PostgreSQL would look for all runs that have such a value, and then compare keys.
        one_by_one = found.suffix_with("OFFSET 0", dialect="postgresql")
        return exists(one_by_one.correlate_except(probed))


class Position(FunctionElement[int]):
    """Where the second text stands in the first, from 1; 0 if nowhere. Tells upper from lower case."""

    type = Integer()
    inherit_cache = True


@compiles(Position)
def _instr(element: Position, compiler: Any, **options: Any) -> str:
    return f"instr({compiler.process(element.clauses, **options)})"


@compiles(Position, "postgresql")
def _strpos(element: Position, compiler: Any, **options: Any) -> str:
    return f"strpos({compiler.process(element.clauses, **options)})"


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


class _Probed(_Hidden):
    """A column that no index leads to, for PostgreSQL too: an expression."""

    inherit_cache = True


@compiles(_Probed, "postgresql")
def _as_equal_expression(element: _Probed, compiler: Any, **options: Any) -> str:
    nothing = "|| ''" if isinstance(element.type, Text) else "+ 0"
    return f"({_as_it_is(element, compiler, **options)} {nothing})"


def _probed(column: Any) -> Any:
    element: Any = _Probed(column)
    element.type = column.type
    return element


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

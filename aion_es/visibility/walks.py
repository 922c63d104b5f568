"""Walks: indexes that give, for each value of their first column, the runs in the order that is asked for.

A page along one costs what it holds, however many runs there are, and however many have the value.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any, Final, TypeAlias

from sqlalchemy import (
    ColumnElement,
    Connection,
    ScalarSelect,
    Select,
    and_,
    literal,
    select,
    tuple_,
)

from aion_es.aggregates.status import WorkflowStatus
from aion_es.projections.visibility_tables import ATTRIBUTES, EXECUTIONS
from aion_es.visibility.compile import conjuncts, opposite, value_column
from aion_es.visibility.fields import Field
from aion_es.visibility.filter import Comparison, Filter, Negation, Node, Order
from aion_es.visibility.name_sets import KEY, NameSets, key_of, names_of

Place: TypeAlias = tuple[Any, str]
"""Where a page ends: the value of the field that orders, and the run id."""

MERGED: Final = 32
"""Values whose walks are merged, at most; each costs a page's length."""
_SAMPLE: Final = 200
"""Runs by which the walks for different parts of a filter are compared."""
_COMPARED: Final = 16
"""Parts of a filter whose walks are compared: with `MERGED` values each, no more than one query can give."""
_LISTED: Final = frozenset({"ExecutionStatus", "WorkflowType", "ScheduleId", "ParentWorkflowId"})
"""Built-in fields whose index gives the runs of one value by start time."""
_STATUSES: Final = tuple(str(status) for status in WorkflowStatus)
_OPEN: Final = tuple(str(status) for status in WorkflowStatus if status.is_open)
"""Statuses of runs that have no time of closing; all others have one."""
_CLOSED: Final = tuple(one for one in _STATUSES if one not in _OPEN)
_RUN: Final = EXECUTIONS.c


@dataclass(frozen=True, slots=True)
class Walk:
    """Walks along the values of one column.

    Attributes:
        met: The parts of the filter that they satisfy.
        column: Of `visibility`; or of `search_attributes`, for `attribute`.
        values: In the form of the column; none if no run can satisfy the filter.
        key: The column that orders.
        attribute: The search attribute whose values they are.
        considered: The parts for which there were walks too, which meet more runs hereabouts; and `met`.
    """

    met: tuple[Node, ...]
    column: Any
    values: tuple[Any, ...]
    key: Any
    attribute: Field | None = None
    considered: tuple[Node, ...] = ()

    @property
    def run_key(self) -> Any:
        """The run's key, as the walk has it without a look at the run."""
        return _RUN.run_key if self.attribute is None else ATTRIBUTES.c.run_key

    @property
    def may_repeat(self) -> bool:
        """Whether a run may be met along several of the values."""
        return self.attribute is not None and self.attribute.kind == "words"

    @property
    def run_id(self) -> Any:
        """The run's id, from the same index."""
        return _RUN.run_id if self.attribute is None else ATTRIBUTES.c.run_id

    def branch(self, value: Any) -> Select[Any]:
        """Return the query of one value's runs."""
        if self.attribute is None:
            query = identified(_RUN.run_key, self.key, _RUN.run_id)
        else:
            query = from_attributes(self.key)
        return query.where(self._along(value))

    def samples(self, order: Order, after: Place | None) -> list[ScalarSelect[Any]]:
        """Return, for each value, the query of where the walk along it is after some runs; null if it has ended."""
        places: list[ScalarSelect[Any]] = []
        for value in self.values:
            query: Any = select(self.key).where(self._along(value))
            if after is not None:
                query = query.where(behind(self.key, self.run_id, order, after))
            place = ordered(query, (self.key, self.run_id), order, 1).offset(_SAMPLE)
            places.append(place.scalar_subquery())
        return places

    def _along(self, value: Any) -> ColumnElement[bool]:
        if self.attribute is not None:
            return and_(ATTRIBUTES.c.name == self.attribute.name, self.column == value)
        return self.column == value  # type: ignore[no-any-return] # a column of unknown type


def find_walk(
    asked: Filter, sets: NameSets, after: Place | None, connection: Connection
) -> Walk | None:
    """Return the walk that meets the fewest runs in vain; `None` if no index gives such."""
    nodes = conjuncts(asked.condition)
    if asked.order.field.name == "CloseTime":
        return _by_close_time(nodes, _CLOSED)
    if asked.order.field.name != "StartTime":
        return None
    found = [_by_names(nodes, sets), *(_by_start_time(node) for node in nodes)]
    walks = [walk for walk in found if walk is not None and len(walk.values) <= MERGED]
    none = next((walk for walk in walks if not walk.values), None)
    if none is not None:
        return none
    if not walks:
        return None
    del walks[_COMPARED:]
    best = walks[0] if len(walks) == 1 else _sparsest(walks, asked.order, after, connection)
    return replace(best, considered=tuple(node for walk in walks for node in walk.met))


def unvalued_walk(asked: Filter) -> Walk | None:
    """Return the walk along the runs that have no value of the field that orders, by run id."""
    if asked.order.field.name != "CloseTime":
        return None
    return _by_close_time(conjuncts(asked.condition), _OPEN)


def _by_start_time(node: Node) -> Walk | None:
    valued = _values(node)
    if valued is None:
        return None
    field, values = valued
    if field.column is None:
        return Walk((node,), value_column(field), values, ATTRIBUTES.c.start_time, field)
    if field.name not in _LISTED:
        return None
    return Walk((node,), EXECUTIONS.c[field.column], values, _RUN.start_time)


def _by_names(nodes: Sequence[Node], sets: NameSets) -> Walk | None:
    """Return the walk along the sets of attributes that satisfy all of `nodes` that ask who has one."""
    if sets is None:
        return None
    met: list[Node] = []
    for node in nodes:
        part = node.part if isinstance(node, Negation) else node
        asks = isinstance(part, Comparison) and part.operator == "is_null"
        if asks and isinstance(part, Comparison) and part.field.column is None:
            met.append(node)
            sets = names_of(sets, part.field.name, having=node is not part)
    return Walk(tuple(met), KEY, tuple(map(key_of, sets)), _RUN.start_time) if met else None


def _by_close_time(nodes: Sequence[Node], possible: Sequence[str]) -> Walk:
    """Return the walk along those of the `possible` statuses that `nodes` let be."""
    met: list[Node] = []
    statuses = tuple(possible)
    for node in nodes:
        valued = _values(node)
        if valued is not None and valued[0].kind == "status":
            met.append(node)
            statuses = tuple(status for status in statuses if status in valued[1])
    return Walk(tuple(met), _RUN.status, statuses, _RUN.close_time, considered=tuple(met))


def _values(node: Node) -> tuple[Field, tuple[Any, ...]] | None:
    """Return the values that a run may have if `node` holds of it, where those are few and known."""
    if isinstance(node, Negation):
        turned = opposite(node.part) if isinstance(node.part, Comparison) else None
        is_total = turned is not None and turned.field.kind == "status"
        return _values(turned) if turned is not None and is_total else None
    if not isinstance(node, Comparison):
        return None
    if node.operator in {"=", "in"}:
        return node.field, tuple(dict.fromkeys(node.values))
    if node.operator in {"!=", "not_in"} and node.field.kind == "status":
        return node.field, tuple(one for one in _STATUSES if one not in node.values)
    return None


def _sparsest(
    walks: Sequence[Walk], order: Order, after: Place | None, connection: Connection
) -> Walk:
    """Return the walk that meets the fewest runs in a stretch of time, as far as its next few tell."""
    if after is None:
        newest: Any = ordered(select(_RUN.start_time), (_RUN.start_time,), order, 1)
        begin = newest.scalar_subquery()
    else:
        begin = literal(after[0])
    samples = [walk.samples(order, after) for walk in walks]
    here: int
    here, *found = connection.execute(select(begin, *chain.from_iterable(samples))).one()
    places = iter(found)
    densities: list[float] = []
    for sample in samples:
        ahead: list[int] = [place for place in islice(places, len(sample)) if place is not None]
        densities.append(sum(1.0 / (1 + abs(here - place)) for place in ahead))
    return walks[densities.index(min(densities))]


# ------------------------------------------------------------------------------------ building blocks


def from_attributes(key: Any) -> Select[Any]:
    """Return a query of runs by their rows of `search_attributes`."""
    query = identified(ATTRIBUTES.c.run_key, key, ATTRIBUTES.c.run_id)
    return query.join_from(ATTRIBUTES, EXECUTIONS, _RUN.run_key == ATTRIBUTES.c.run_key)


def identified(run_key: Any, value: Any, run_id: Any) -> Select[Any]:
    """Return a query of what identifies a run and what orders it."""
    labels = (run_key.label("sort_key"), value.label("sort_value"), run_id.label("sort_run_id"))
    query: Any = select(*labels)
    keys: Select[Any] = query
    return keys


def ordered(query: Select[Any], columns: Sequence[Any], order: Order, limit: int) -> Select[Any]:
    """Return the first rows of a query, by `columns` in the direction of `order`."""
    if order.descending:
        return query.order_by(*(column.desc() for column in columns)).limit(limit)
    return query.order_by(*(column.asc() for column in columns)).limit(limit)


def behind(key: Any, run_id: Any, order: Order, after: Place) -> ColumnElement[bool]:
    """Return the condition that a run comes behind the end of the former page."""
    place, here = tuple_(key, run_id), tuple_(*after)
    return place < here if order.descending else place > here

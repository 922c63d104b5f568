"""Which search attributes runs have together: few sets, however many runs; what IS NULL is answered by."""

from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeAlias

from sqlalchemy import ColumnElement, Connection, func, literal, select

from aion_es.projections.columns import Text
from aion_es.projections.visibility_tables import EXECUTIONS, SetKey
from aion_es.visibility.filter import Both, Comparison, Either, Negation, Node

NameSets: TypeAlias = Sequence[str] | None
"""Every value of the column `attribute_names`; `None` where there are too many, or it was not asked for."""

MAX_SETS: Final = 500
"""Above it, which needs attributes that come and go at random, runs without one are looked for one by one."""
_NAMES: Final = EXECUTIONS.c.attribute_names
KEY: Final[Any] = SetKey(_NAMES)
"""Of the set that a run has: what the index over the sets is searched by."""


def read_sets(connection: Connection, conditions: Iterable[Node]) -> NameSets:
    """Return the sets, if one of `conditions` asks whether a run has an attribute."""
    return _all_sets(connection) if any(map(_asks_for_null, conditions)) else None


def names_of(sets: Sequence[str], name: str, having: bool) -> list[str]:
    """Return the sets that have the attribute, or those that lack it."""
    return [one for one in sets if (f" {name} " in one) is having]


def key_of(names: str) -> Any:
    """Return the key of a set, to be compared with `KEY`."""
    return SetKey(literal(names, Text))


def has_one_of(sets: Sequence[str]) -> ColumnElement[bool]:
    """Return the condition that a run's set is one of these, by the index."""
    condition: ColumnElement[bool] = KEY.in_([key_of(one) for one in sets])
    return condition


def _all_sets(connection: Connection) -> NameSets:
    """Go from each set to the next by the index, which skips all runs that have the same."""
    first: Any = select(func.min(KEY).label("key"))
    sets = first.cte("sets", recursive=True)
    following = select(func.min(KEY)).where(sets.c.key < KEY).scalar_subquery()
    step = select(following.label("key")).where(sets.c.key.is_not(None))
    sets = sets.union_all(step)
    names = select(_NAMES).where(sets.c.key == KEY).limit(1).scalar_subquery()
    found = select(names).select_from(sets).where(sets.c.key.is_not(None)).limit(MAX_SETS + 1)
    rows: list[str] = list(connection.execute(found).scalars())
    return rows if len(rows) <= MAX_SETS else None


def _asks_for_null(node: Node) -> bool:
    """Return whether the answer may depend on who lacks an attribute: of NOT, whatever it stands before."""
    match node:
        case Both(parts) | Either(parts):
            return any(map(_asks_for_null, parts))
        case Negation(Comparison(field)):
            return field.column is None
        case Negation(part):
            return _asks_for_null(part)
        case Comparison(field):
            return node.operator == "is_null" and field.column is None

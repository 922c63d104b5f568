"""Which search attributes runs have together: few sets, however many runs; what IS NULL is answered by."""

from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeAlias

from sqlalchemy import Connection, func, select

from aion_es.projections.visibility_tables import EXECUTIONS
from aion_es.visibility.filter import Both, Comparison, Either, Negation, Node

NameSets: TypeAlias = Sequence[str] | None
"""Every value of the column `attribute_names`; `None` where there are too many, or it was not asked for."""

MAX_SETS: Final = 500
"""Above it, which needs attributes that come and go at random, runs without one are looked for one by one."""
_NAMES: Final = EXECUTIONS.c.attribute_names


def read_sets(connection: Connection, conditions: Iterable[Node]) -> NameSets:
    """Return the sets, if one of `conditions` asks whether a run has an attribute."""
    return _all_sets(connection) if any(map(_asks_for_null, conditions)) else None


def names_of(sets: Sequence[str], name: str, having: bool) -> list[str]:
    """Return the sets that have the attribute, or those that lack it."""
    return [one for one in sets if (f" {name} " in one) is having]


def _all_sets(connection: Connection) -> NameSets:
    """Go from each set to the next by the index, which skips all runs that have the same."""
    first: Any = select(func.min(_NAMES).label("names"))
    sets = first.cte("sets", recursive=True)
    following = select(func.min(_NAMES)).where(sets.c.names < _NAMES).scalar_subquery()
    step = select(following.label("names")).where(sets.c.names.is_not(None))
    sets = sets.union_all(step)
    found = select(sets.c.names).where(sets.c.names.is_not(None)).limit(MAX_SETS + 1)
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

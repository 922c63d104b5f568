"""Watching a filter: which runs came to satisfy it, changed, or ceased to, between two looks at the rows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from sqlalchemy import Connection, Select, select

from aion_es.errors import InvalidArgumentError
from aion_es.projections.visibility_tables import EXECUTIONS
from aion_es.visibility.compile import Conditions, conjuncts
from aion_es.visibility.filter import Filter
from aion_es.visibility.name_sets import NameSets, read_sets
from aion_es.visibility.rows import WorkflowExecution, execution_from

MAX_WATCHED: Final = 10_000
"""Runs that a watched filter may match at a time: each look reads a few numbers of every one."""
_AT_ONCE: Final = 500

Marks: TypeAlias = Mapping[int, tuple[Any, ...]]
"""By run key what differs whenever anything of the run does."""
_RUN: Final = EXECUTIONS.c


@dataclass(frozen=True, slots=True)
class VisibilityChange:
    """What became of one run.

    Attributes:
        kind: `enter`: it satisfies the filter now; `update`: it still does, and changed; `leave`: it does
            not any more.
        run: As it is now; what lies between two looks is not told.
    """

    kind: Literal["enter", "update", "leave"]
    run: WorkflowExecution


def look(
    asked: Filter, before: Marks, connection: Connection
) -> tuple[Marks, list[VisibilityChange]]:
    """Return the marks of all runs that satisfy the filter, and what changed since `before`.

    Changes come in the order in which the runs were started, those that left first.

    Raises:
        InvalidArgumentError: More than `MAX_WATCHED` runs satisfy it.
    """
    sets = read_sets(connection, conjuncts(asked.condition))
    marks = {row[0]: tuple(row[1:]) for row in connection.execute(_marks_query(asked, sets))}
    if len(marks) > MAX_WATCHED:
        raise InvalidArgumentError("filter", f"more than {MAX_WATCHED:,} runs satisfy it")
    left = sorted(before.keys() - marks.keys())
    touched = sorted(key for key, mark in marks.items() if before.get(key) != mark)
    runs = _runs(connection, [*left, *touched])
    changes = [VisibilityChange("leave", run) for run in _present(runs, left)]
    changes += [VisibilityChange("update" if k in before else "enter", runs[k]) for k in touched]
    return marks, changes


def _marks_query(asked: Filter, sets: NameSets) -> Select[Any]:
    columns: tuple[Any, ...] = (_RUN.run_key, _RUN.history_length, _RUN.stuck_reason)
    every: Any = select(*columns).limit(MAX_WATCHED + 1)
    query: Select[Any] = every
    if asked.condition is None:
        return query
    return query.where(Conditions("in", sets=sets).of(asked.condition))


def _runs(connection: Connection, keys: Sequence[int]) -> dict[int, WorkflowExecution]:
    found: dict[int, WorkflowExecution] = {}
    for at in range(0, len(keys), _AT_ONCE):
        query = select(EXECUTIONS).where(_RUN.run_key.in_(keys[at : at + _AT_ONCE]))
        found.update((row.run_key, execution_from(row)) for row in connection.execute(query))
    return found


def _present(
    runs: Mapping[int, WorkflowExecution], keys: Iterable[int]
) -> Iterable[WorkflowExecution]:
    """Return the runs that have a row: one that was removed from the read model cannot be shown."""
    return (runs[key] for key in keys if key in runs)

"""What a projection may be, checked before it is fed: its name, its tables and its handler."""

from collections.abc import Mapping, Sequence
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction
from typing import Final

from sqlalchemy import Table

from aion_es.errors import InvalidArgumentError
from aion_es.projections import pending_tables, schedule_tables, visibility_tables
from aion_es.projections.beside import SUFFIXES
from aion_es.projections.migrations import TABLES
from aion_es.projections.projection import Projection

_BUILT_IN: Final[Mapping[str, Table]] = {
    table.name: table
    for table in (
        *pending_tables.METADATA.sorted_tables,
        schedule_tables.SCHEDULES,
        *visibility_tables.METADATA.sorted_tables,
    )
}
"""Tables of the built-in projections, whether or not one runner has those too: a read model may have several."""


def check_projections(projections: Sequence[Projection]) -> None:
    """Check that no projection of a runner takes another's rows away, and that each handler handles.

    Names of tables are compared as SQLite does, where upper and lower case are one.

    Raises:
        InvalidArgumentError: Two have one name, or one table; a table has a name that the read model, its
            making of new rows, or a built-in projection needs; or `apply` is no plain function, so that
            calling it would do nothing.
    """
    names: set[str] = set()
    owners: dict[str, str] = {}
    for projection in projections:
        if projection.name in names:
            raise _refused(f"two are named {projection.name!r}")
        names.add(projection.name)
        _check_handler(projection)
        for table in projection.tables:
            _check_table(projection, table)
            owner = owners.setdefault(table.name.casefold(), projection.name)
            if owner != projection.name:
                raise _refused(
                    f"{owner!r} and {projection.name!r} both have a table {table.name!r}"
                )


def _check_table(projection: Projection, table: Table) -> None:
    name = table.name.casefold()
    is_taken = name in TABLES or name.endswith(SUFFIXES)
    if is_taken or _BUILT_IN.get(name, table) is not table:
        raise _refused(
            f"{projection.name!r} may not have a table {table.name!r}: the name is taken"
        )


def _check_handler(projection: Projection) -> None:
    for is_other in (iscoroutinefunction, isasyncgenfunction, isgeneratorfunction):
        if is_other(projection.apply):
            raise _refused(
                f"apply of {projection.name!r} must be a plain function: neither async nor a generator"
            )


def _refused(reason: str) -> InvalidArgumentError:
    return InvalidArgumentError("projections", reason)

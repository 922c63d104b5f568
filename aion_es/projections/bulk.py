"""Many rows in one statement: what makes a projection cheap beside a busy event loop.

Each step of a statement gives up the interpreter's lock and must win it back, which costs up to one
switch interval (5 ms) while the event loop computes. So rows are written by statements of many rows,
never by one step per row. On SQLite the sizes are fixed, so that prepared statements are reused; on
PostgreSQL a column of the rows is one array, so that one prepared statement does for any number.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Final, TypeAlias

from sqlalchemy import Boolean, Connection, Float, Integer, Table

Row: TypeAlias = tuple[Any, ...]

_SIZES: Final = (256, 64, 16, 4, 1)


def upsert(
    connection: Connection,
    table: Table,
    rows: Sequence[Row],
    *,
    keep: frozenset[str] = frozenset(),
) -> None:
    """Write `rows` (all columns, in the table's order), over those with the same primary key.

    No two rows may share a primary key. Where a row is there already, its columns in `keep` stay as
    they are, and their indexes untouched.
    """
    if _has_arrays(connection):
        if rows:
            statement = _upsert(table, keep, _from_arrays(table, None))
            connection.exec_driver_sql(statement, _arrays(rows))
        return
    for chunk in _chunks(rows):
        statement = _upsert(table, keep, _rows(len(table.columns), len(chunk)))
        connection.exec_driver_sql(statement, tuple(value for row in chunk for value in row))


def delete(
    connection: Connection, table: Table, columns: Sequence[str], keys: Sequence[Row]
) -> None:
    """Delete the rows whose `columns` equal one of `keys`; there need not be any."""
    for where, values in _among(connection, table, tuple(columns), keys):
        connection.exec_driver_sql(_delete(table, where), values)


def select(
    connection: Connection, table: Table, columns: Sequence[str], keys: Sequence[Row]
) -> list[Row]:
    """Return the rows, all columns in the table's order, whose `columns` equal one of `keys`."""
    found: list[Row] = []
    for where, values in _among(connection, table, tuple(columns), keys):
        rows = connection.exec_driver_sql(_select(table, where), values)
        found.extend(tuple(row) for row in rows)
    return found


def select_newest(
    connection: Connection, table: Table, group: str, order: str, keys: Sequence[Row]
) -> list[Row]:
    """Return, for each of `keys`, the row with the largest `order` among those whose `group` it is.

    One look into an index on (`group`, `order`) each, however many rows the group has.
    """
    found: list[Row] = []
    wanted = sorted(set(keys))
    if _has_arrays(connection):
        if not wanted:
            return []
        statement = _newest_of_array(table, group, order)
        rows = connection.exec_driver_sql(statement, _arrays(wanted))
        return [tuple(row) for row in rows]
    for chunk in _padded(wanted):
        statement = _newest_of_values(table, group, order, len(chunk))
        values = tuple(value for key in chunk for value in key)
        found.extend(tuple(row) for row in connection.exec_driver_sql(statement, values))
    return found


@lru_cache(maxsize=512)
def _upsert(table: Table, keep: frozenset[str], rows: str) -> str:
    names = [column.name for column in table.columns]
    keys = [column.name for column in table.primary_key.columns]
    rest = [name for name in names if name not in keys and name not in keep]
    action = f"UPDATE SET {', '.join(f'{n} = excluded.{n}' for n in rest)}" if rest else "NOTHING"
    return (
        f"INSERT INTO {table.name} ({', '.join(names)}) {rows} "
        f"ON CONFLICT ({', '.join(keys)}) DO {action}"
    )


@lru_cache(maxsize=512)
def _delete(table: Table, where: str) -> str:
    return f"DELETE FROM {table.name} WHERE {where}"  # noqa: S608 - names of our own tables


@lru_cache(maxsize=512)
def _select(table: Table, where: str) -> str:
    return f"SELECT {_names(table)} FROM {table.name} WHERE {where}"  # noqa: S608 - names of our own tables


@lru_cache(maxsize=64)
def _names(table: Table) -> str:
    return ", ".join(column.name for column in table.columns)


def _among(
    connection: Connection, table: Table, columns: tuple[str, ...], keys: Sequence[Row]
) -> Iterator[tuple[str, Row]]:
    """Yield conditions that hold where `columns` equal one of `keys`, each with what it binds."""
    if _has_arrays(connection):
        if keys:
            values = _arrays(keys)
            yield (
                _among_arrays(table, columns),
                values if len(columns) == 1 else (values[0], *values),
            )
        return
    for chunk in _padded(keys):
        yield _among_values(columns, len(chunk)), _values(len(columns), chunk)


# ------------------------------------------------------------------------------------------ SQLite


def _chunks(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    at = 0
    for size in _SIZES:
        while len(rows) - at >= size:
            yield rows[at : at + size]
            at += size


def _padded(keys: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """Yield chunks of the fixed sizes, the last one filled up with its last key, which changes nothing."""
    largest = _SIZES[0]
    for at in range(0, len(keys), largest):
        chunk = list(keys[at : at + largest])
        size = next(size for size in reversed(_SIZES) if size >= len(chunk))
        yield chunk + chunk[-1:] * (size - len(chunk))


@lru_cache(maxsize=512)
def _rows(columns: int, rows: int) -> str:
    one = f"({', '.join(['?'] * columns)})"
    return f"VALUES {', '.join([one] * rows)}"


@lru_cache(maxsize=512)
def _newest_of_values(table: Table, group: str, order: str, keys: int) -> str:
    newest = f"SELECT max({order}) FROM {table.name} WHERE {group} = wanted.w"  # noqa: S608 - names of our own tables
    return (
        f"WITH wanted (w) AS ({_rows(1, keys)}) "  # noqa: S608 - names of our own tables
        f"SELECT DISTINCT {_names(table)} FROM wanted JOIN {table.name} ON {order} = ({newest})"
    )


@lru_cache(maxsize=512)
def _among_values(columns: tuple[str, ...], keys: int) -> str:
    first = f"{columns[0]} IN ({', '.join(['?'] * keys)})"
    if len(columns) == 1:
        return first
    # SQLite finds no index for a row value among VALUES: the first column alone leads it to one.
    return f"{first} AND ({', '.join(columns)}) IN ({_rows(len(columns), keys)})"


def _values(columns: int, keys: Sequence[Row]) -> Row:
    """Return what `_among_values` binds for `keys`."""
    every = tuple(value for key in keys for value in key)
    return every if columns == 1 else (*(key[0] for key in keys), *every)


# -------------------------------------------------------------------------------------- PostgreSQL


def _has_arrays(connection: Connection) -> bool:
    return connection.dialect.name == "postgresql"


def _arrays(rows: Sequence[Row]) -> Row:
    """Return the rows' columns, each as a list, which the driver sends as an array."""
    return tuple(map(list, zip(*rows, strict=True)))


def _array_type(table: Table, name: str) -> str:
    kind = table.columns[name].type
    if isinstance(kind, Boolean):
        return "boolean[]"
    if isinstance(kind, Integer):  # BigInteger is one
        return "bigint[]"
    return "double precision[]" if isinstance(kind, Float) else "text[]"


@lru_cache(maxsize=512)
def _from_arrays(table: Table, columns: tuple[str, ...] | None) -> str:
    names = columns or tuple(column.name for column in table.columns)
    arrays = ", ".join(f"%s::{_array_type(table, name)}" for name in names)
    return f"SELECT * FROM unnest({arrays}) AS given ({', '.join(names)})"  # noqa: S608 - names of our own tables


@lru_cache(maxsize=512)
def _among_arrays(table: Table, columns: tuple[str, ...]) -> str:
    first = f"{columns[0]} = ANY (%s::{_array_type(table, columns[0])})"
    if len(columns) == 1:
        return first
    # The first column leads to an index, whatever the planner thinks of the size of the arrays.
    return f"{first} AND ({', '.join(columns)}) IN ({_from_arrays(table, columns)})"


@lru_cache(maxsize=64)
def _newest_of_array(table: Table, group: str, order: str) -> str:
    kind = _array_type(table, group)
    newest = f"SELECT {_names(table)} FROM {table.name} WHERE {group} = wanted.w ORDER BY {order} DESC LIMIT 1"  # noqa: S608 - names of our own tables
    return (
        f"SELECT found.* FROM unnest(%s::{kind}) AS wanted (w) "  # noqa: S608 - names of our own tables
        f"CROSS JOIN LATERAL ({newest}) AS found"
    )

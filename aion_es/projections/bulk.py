"""Many rows in one statement: what makes a projection cheap beside a busy event loop.

Each step of a statement gives up the interpreter's lock and must win it back, which costs up to one
switch interval (5 ms) while the event loop computes. So rows are written by statements of many rows,
never by one step per row. The sizes are fixed, so that prepared statements are reused.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Final, TypeAlias

from sqlalchemy import Connection, Table

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
    for chunk in _chunks(rows):
        statement = _upsert(table, len(chunk), keep, _mark(connection))
        connection.exec_driver_sql(statement, tuple(value for row in chunk for value in row))


def delete(
    connection: Connection, table: Table, columns: Sequence[str], keys: Sequence[Row]
) -> None:
    """Delete the rows whose `columns` equal one of `keys`; there need not be any."""
    names = tuple(columns)
    for chunk in _padded(keys):
        statement = _delete(table, names, len(chunk), _mark(connection))
        connection.exec_driver_sql(statement, _values(len(names), chunk))


def select(
    connection: Connection, table: Table, columns: Sequence[str], keys: Sequence[Row]
) -> list[Row]:
    """Return the rows, all columns in the table's order, whose `columns` equal one of `keys`."""
    found: list[Row] = []
    names = tuple(columns)
    for chunk in _padded(keys):
        statement = _select(table, names, len(chunk), _mark(connection))
        values = _values(len(names), chunk)
        found.extend(tuple(row) for row in connection.exec_driver_sql(statement, values))
    return found


def select_newest(
    connection: Connection, table: Table, group: str, order: str, keys: Sequence[Row]
) -> list[Row]:
    """Return, for each of `keys`, the row with the largest `order` among those whose `group` it is.

    One look into an index on (`group`, `order`) each, however many rows the group has.
    """
    found: list[Row] = []
    for chunk in _padded(sorted(set(keys))):
        statement = _select_newest(table, group, order, len(chunk), _mark(connection))
        values = tuple(value for key in chunk for value in key)
        found.extend(tuple(row) for row in connection.exec_driver_sql(statement, values))
    return found


def _mark(connection: Connection) -> str:
    return "?" if connection.dialect.paramstyle == "qmark" else "%s"


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


def _tuples(columns: int, rows: int, mark: str) -> str:
    one = f"({', '.join([mark] * columns)})"
    return ", ".join([one] * rows)


@lru_cache(maxsize=512)
def _upsert(table: Table, rows: int, keep: frozenset[str], mark: str) -> str:
    names = [column.name for column in table.columns]
    keys = [column.name for column in table.primary_key.columns]
    rest = [name for name in names if name not in keys and name not in keep]
    action = f"UPDATE SET {', '.join(f'{n} = excluded.{n}' for n in rest)}" if rest else "NOTHING"
    return (
        f"INSERT INTO {table.name} ({', '.join(names)}) VALUES {_tuples(len(names), rows, mark)} "  # noqa: S608 - names of our own tables
        f"ON CONFLICT ({', '.join(keys)}) DO {action}"
    )


@lru_cache(maxsize=512)
def _delete(table: Table, columns: tuple[str, ...], keys: int, mark: str) -> str:
    return f"DELETE FROM {table.name} WHERE {_among(columns, keys, mark)}"  # noqa: S608 - names of our own tables


@lru_cache(maxsize=512)
def _select(table: Table, columns: tuple[str, ...], keys: int, mark: str) -> str:
    names = ", ".join(column.name for column in table.columns)
    return f"SELECT {names} FROM {table.name} WHERE {_among(columns, keys, mark)}"  # noqa: S608 - names of our own tables


@lru_cache(maxsize=512)
def _select_newest(table: Table, group: str, order: str, keys: int, mark: str) -> str:
    names = ", ".join(column.name for column in table.columns)
    newest = f"SELECT max({order}) FROM {table.name} WHERE {group} = wanted.w"  # noqa: S608 - names of our own tables
    return (
        f"WITH wanted (w) AS (VALUES {_tuples(1, keys, mark)}) "  # noqa: S608 - names of our own tables
        f"SELECT DISTINCT {names} FROM wanted JOIN {table.name} ON {order} = ({newest})"
    )


def _among(columns: tuple[str, ...], keys: int, mark: str) -> str:
    first = f"{columns[0]} IN ({', '.join([mark] * keys)})"
    if len(columns) == 1:
        return first
    # SQLite finds no index for a row value among VALUES: the first column alone leads it to one.
    return f"{first} AND ({', '.join(columns)}) IN (VALUES {_tuples(len(columns), keys, mark)})"


def _values(columns: int, keys: Sequence[Row]) -> Row:
    """Return what `_among` binds for `keys`."""
    every = tuple(value for key in keys for value in key)
    return every if columns == 1 else (*(key[0] for key in keys), *every)

"""Tables beside those that answer: a projection's new rows are made there, under the same names.

What a handler writes goes by plain table names, so names are what is exchanged, inside the transaction
of each batch, and nobody else sees it. On PostgreSQL the new tables lie in a schema of their own, which
is put in front of the search path. SQLite has no such path: there the tables are renamed, the new ones
to the handler's names and back. An index keeps its name when its table gets another, hence `_free_name`.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Final

from sqlalchemy import Connection, Index, Table, text
from sqlalchemy.schema import CreateIndex, CreateTable

_BESIDE: Final = "__beside"
_ASIDE: Final = "__aside"
"""Suffix of the tables that answer, while the ones beside have their names."""
SUFFIXES: Final = (_BESIDE, _ASIDE)
_SCHEMA: Final = "_aion_beside"
"""Behind the name of the current schema, on PostgreSQL."""


def create(connection: Connection, tables: Sequence[Table]) -> None:
    """Make empty tables beside those that answer, in place of what was there."""
    drop(connection, tables)
    if _has_schemas(connection):
        connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {_schema(connection)}"))
        with turned(connection, tables):
            for table in tables:
                table.create(connection, checkfirst=False)
        return
    _rename(connection, tables, "", _ASIDE)
    for table in tables:
        connection.execute(CreateTable(table))
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            connection.exec_driver_sql(_create_index(connection, index))
    _rename(connection, tables, "", _BESIDE)
    _rename(connection, tables, _ASIDE, "")


@contextmanager
def turned(connection: Connection, tables: Sequence[Table]) -> Generator[None]:
    """Let the names of `tables` mean those beside; if the block raises, the transaction must be rolled back."""
    if _has_schemas(connection):
        path = connection.execute(text("SHOW search_path")).scalar_one()
        _set_path(connection, f"{_schema(connection)}, {path}")
        yield
        _set_path(connection, path)
        return
    _rename(connection, tables, "", _ASIDE)
    _rename(connection, tables, _BESIDE, "")
    yield
    _rename(connection, tables, "", _BESIDE)
    _rename(connection, tables, _ASIDE, "")


def swap(connection: Connection, tables: Sequence[Table]) -> None:
    """Put the tables beside in the place of those that answer, which are dropped."""
    for table in reversed(tables):
        connection.execute(text(f"DROP TABLE {_quoted(connection, table.name)}"))
    if not _has_schemas(connection):
        _rename(connection, tables, _BESIDE, "")
        return
    here = connection.execute(text("SELECT quote_ident(current_schema())")).scalar_one()
    for table in tables:
        name = f"{_schema(connection)}.{_quoted(connection, table.name)}"
        connection.execute(text(f"ALTER TABLE {name} SET SCHEMA {here}"))


def drop(connection: Connection, tables: Sequence[Table]) -> None:
    """Drop the tables beside; there need not be any."""
    prefix, suffix = (f"{_schema(connection)}.", "") if _has_schemas(connection) else ("", _BESIDE)
    for table in reversed(tables):
        name = prefix + _quoted(connection, table.name + suffix)
        connection.execute(text(f"DROP TABLE IF EXISTS {name}"))


def _has_schemas(connection: Connection) -> bool:
    return connection.dialect.name == "postgresql"


def _quoted(connection: Connection, name: str) -> str:
    return connection.dialect.identifier_preparer.quote_identifier(name)


def _schema(connection: Connection) -> str:
    """Return the quoted name of the schema for what lies beside."""
    here: str = connection.execute(text("SELECT current_schema()")).scalar_one()
    return _quoted(connection, here.removesuffix(_SCHEMA) + _SCHEMA)


def _set_path(connection: Connection, path: str) -> None:
    connection.execute(text("SELECT set_config('search_path', :path, true)"), {"path": path})


def _rename(connection: Connection, tables: Sequence[Table], old: str, new: str) -> None:
    for table in tables:
        before, after = (
            _quoted(connection, table.name + old),
            _quoted(connection, table.name + new),
        )
        connection.exec_driver_sql(f"ALTER TABLE {before} RENAME TO {after}")


def _create_index(connection: Connection, index: Index) -> str:
    compiled = str(CreateIndex(index).compile(connection))
    name = connection.dialect.identifier_preparer.format_index(index)
    return compiled.replace(f"INDEX {name} ON", f"INDEX {_free_name(connection, index)} ON", 1)


def _free_name(connection: Connection, index: Index) -> str:
    """Return the index's name, or that with a suffix while the table that answers has an index of this name."""
    query = "SELECT 1 FROM sqlite_master WHERE type = 'index' AND name = ?"
    taken = connection.exec_driver_sql(query, (str(index.name),)).first()
    return _quoted(connection, f"{index.name}{_BESIDE}" if taken else str(index.name))

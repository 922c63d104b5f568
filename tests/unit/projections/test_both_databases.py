"""PostgreSQL holds what SQLite holds: the same rows from the same events, in the same order."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from sqlalchemy import Engine

from aion_es.events import workflow as ev
from aion_es.events.values import Failure
from aion_es.projections import PendingWorkProjection, Projection, VisibilityProjection, bulk
from aion_es.projections.checkpoints import advance, begin_rebuild, install, swap
from aion_es.projections.databases import open_database
from aion_es.projections.members import _apply
from aion_es.projections.migrations import migrate
from aion_es.projections.pending_tables import ACTIVITIES
from aion_es.projections.visibility_tables import EXECUTIONS
from aion_es.store.port import START
from tests.unit.projections.histories import History, all_rows, rows_after, started
from tests.unit.projections.random_histories import split_histories


def normal(rows: dict[str, list[tuple[object, ...]]]) -> dict[str, list[tuple[object, ...]]]:
    """Return the rows with SQLite's numbers in place of booleans."""
    return {
        table: [tuple(int(v) if isinstance(v, bool) else v for v in row) for row in found]
        for table, found in rows.items()
    }


@pytest.fixture
def databases(read_model_url: str) -> Iterator[Engine]:
    database = open_database(read_model_url, readers=1, busy_timeout=timedelta(seconds=5))
    with database.write_engine.begin() as connection:
        migrate(connection, "here")
    yield database.write_engine
    database.read_engine.dispose()
    database.write_engine.dispose()


class _RolledBackError(Exception):
    pass


@pytest.mark.parametrize("make", [PendingWorkProjection, VisibilityProjection])
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(drawn=split_histories())
def test_the_rows_are_those_of_sqlite_also_when_they_are_made_beside(
    databases: Engine, make: Callable[[], Projection], drawn: tuple[History, list[int]]
) -> None:
    history, cuts = drawn
    batches = [history.events[a:b] for a, b in pairwise(cuts)]
    expected = normal(rows_after(make(), batches))
    projection = make()
    try:
        with databases.begin() as connection:
            install(connection, projection)
            begin_rebuild(connection, projection)
            at = START
            for number, batch in enumerate(batches):
                projection.apply(connection, batch)
                if number % 2:
                    projection.forget()
            twin = projection.twin()
            for batch in batches:
                if batch:
                    _apply(connection, twin, batch, at, batch[-1].position, None, True)
                    at = batch[-1].position
            assert normal(all_rows(connection, projection)) == expected
            advance(connection, projection, START, at)
            assert swap(connection, projection, at)
            assert normal(all_rows(connection, projection)) == expected
            raise _RolledBackError
    except _RolledBackError:
        pass


def test_no_text_of_an_event_stops_a_projection(databases: Engine) -> None:
    failure = Failure(type="Boom", message="a\0b \U0001f600 \\ \"{},'%s ?")
    history = History().add("w", started(), ev.WorkflowFailed(error=failure))
    projection = VisibilityProjection()
    with databases.begin() as connection:
        install(connection, projection)
        projection.apply(connection, history.events)
        (row,) = bulk.select(connection, EXECUTIONS, ("workflow_id",), [("w",)])
    kept = "\0" if databases.dialect.name == "sqlite" else "\ufffd"
    assert row[22] == failure.message.replace("\0", kept)


def test_many_rows_are_written_found_and_deleted_by_their_keys(databases: Engine) -> None:
    rows = [(f"w{n % 700}", n, "r", "k", "q", "started", n, None, -n) for n in range(1_500)]
    keys = [(row[0], row[1]) for row in rows]
    with databases.begin() as connection:
        install(connection, PendingWorkProjection())
        bulk.upsert(connection, ACTIVITIES, rows)
        again = [(*row[:6], 7, *row[7:]) for row in rows]
        bulk.upsert(connection, ACTIVITIES, again, keep=frozenset({"scheduled_at"}))
        columns = ("workflow_id", "activity_id")
        found = bulk.select(connection, ACTIVITIES, columns, keys[:600])
        assert sorted(found) == sorted(again[:600])
        bulk.delete(connection, ACTIVITIES, columns, keys[:1_400])
        assert sorted(
            bulk.select(connection, ACTIVITIES, ("workflow_id",), sorted({key[:1] for key in keys}))
        ) == sorted(again[1_400:])
        bulk.delete(connection, ACTIVITIES, columns, [])
        assert bulk.select(connection, ACTIVITIES, columns, []) == []

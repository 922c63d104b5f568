"""Recorded events made by hand, and a read model's tables as plain rows."""

import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import Connection, Engine, Table, create_engine, select
from sqlalchemy.pool import StaticPool

from aion_es.events import workflow as ev
from aion_es.events.base import Event
from aion_es.events.codec import encode
from aion_es.events.metadata import EventMetadata
from aion_es.ids import DEFAULT_NAMESPACE, RunId, WorkflowId, workflow_stream
from aion_es.projections.projection import Projection
from aion_es.store.port import NewEvent, Position, RecordedEvent

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
NOON_MICROS = 1_795_521_600_000_000


def new_event(event: Event, *, activated: bool = False, at: datetime = NOON) -> NewEvent:
    metadata = EventMetadata(at, RunId("run"), activated=activated)
    return NewEvent(
        uuid.uuid5(uuid.NAMESPACE_OID, "e"),
        type(event).__name__,
        encode(event),
        metadata.to_bytes(),
    )


class History:
    """Writes events one after the other, to any workflow's stream."""

    def __init__(self) -> None:
        self.events: list[RecordedEvent] = []
        self._heads: dict[str, int] = {}

    def add(
        self, workflow_id: str, *events: Event, activated: bool = False, minute: int = 0
    ) -> "History":
        stream = workflow_stream(DEFAULT_NAMESPACE, WorkflowId(workflow_id))
        for event in events:
            last = activated and event is events[-1]
            new = new_event(event, activated=last, at=NOON + timedelta(minutes=minute))
            revision = self._heads[stream] = self._heads.get(stream, -1) + 1
            place = Position(len(self.events), len(self.events))
            self.events.append(RecordedEvent(*new, stream, revision, place, NOON))
        return self


def started(run_id: str = "r1", **fields: Any) -> ev.WorkflowStarted:
    given = {"workflow_type": "checkout", "package_version": "1", "first_run_id": run_id}
    return ev.WorkflowStarted(**{"run_id": run_id, **given, **fields})


def scheduled(activity_id: int, kind: str = "charge") -> ev.ActivityScheduled:
    return ev.ActivityScheduled(activity_id=activity_id, activity_type=kind)  # type: ignore[arg-type]  # an ordinal


@cache
def memory_engine(kind: type[Projection]) -> Engine:
    """Return a database with the projection's tables, for tests that never commit."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    for table in kind.tables:
        table.create(engine)
    return engine


def rows_after(
    projection: Projection, batches: Iterable[Sequence[RecordedEvent]]
) -> dict[str, list[tuple[Any, ...]]]:
    """Return every table's rows, ordered, after the batches; memory is dropped after every other batch."""
    with memory_engine(type(projection)).connect() as connection:
        for number, batch in enumerate(batches):
            projection.apply(connection, batch)
            if number % 2:
                projection.forget()
        return all_rows(connection, projection)


def all_rows(connection: Connection, projection: Projection) -> dict[str, list[tuple[Any, ...]]]:
    return {table.name: table_rows(connection, table) for table in projection.tables}


def table_rows(connection: Connection, table: Table) -> list[tuple[Any, ...]]:
    query = select(table).order_by(*table.primary_key.columns)
    return [tuple(row) for row in connection.execute(query)]

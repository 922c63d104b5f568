"""The `schedules` projection: the schedules that exist, one row each, with what is due next and what is owed."""

from collections.abc import Sequence
from typing import ClassVar, cast

from sqlalchemy import Connection, Table

from aion_es.aggregates.schedule_state import evolve_schedule
from aion_es.events import schedule as ev
from aion_es.events.codec import decode, decode_metadata
from aion_es.ids import (
    DEFAULT_NAMESPACE,
    Namespace,
    ScheduleId,
    schedule_prefix,
    workflow_prefix,
)
from aion_es.projections import bulk
from aion_es.projections.projection import Projection
from aion_es.projections.schedule_tables import MOST_UNSTARTED, SCHEDULES, ScheduleRow
from aion_es.schedules.naming import schedule_of
from aion_es.store.port import RecordedEvent

_NAMES = tuple(column.name for column in SCHEDULES.columns)


class SchedulesProjection(Projection):
    """The schedules that exist; read through `ScheduleIndex`."""

    name: ClassVar[str] = "schedules"
    version: ClassVar[int] = 2
    wants: ClassVar[frozenset[str] | None] = frozenset(
        {
            "ScheduleCreated",
            "ScheduleUpdated",
            "SchedulePaused",
            "ScheduleResumed",
            "ScheduleDeleted",
            "ScheduleTriggered",
            "ScheduleSkipped",
            "ScheduleBuffered",
            "WorkflowStarted",
        }
    )
    tables: ClassVar[Sequence[Table]] = (SCHEDULES,)

    def __init__(self, namespace: Namespace = DEFAULT_NAMESPACE) -> None:
        """Follow the schedules of `namespace`."""
        self._prefix = schedule_prefix(namespace)
        self._workflows = workflow_prefix(namespace)

    def apply(self, connection: Connection, batch: Sequence[RecordedEvent]) -> None:
        """Fold the batch and write the rows that it touched, each once."""
        ours = [
            (schedule_id, e) for e in batch if (schedule_id := self._schedule_of(e)) is not None
        ]
        if not ours:
            return
        touched = list(dict.fromkeys(schedule_id for schedule_id, _ in ours))
        found = bulk.select(connection, SCHEDULES, ("schedule_id",), [(key,) for key in touched])
        rows = {row[0]: ScheduleRow.read(dict(zip(_NAMES, row, strict=True))) for row in found}
        stored = set(rows)
        changed = {key for key, event in ours if self._fold(rows, key, event)}
        gone = [(key,) for key in touched if key in stored and key not in rows]
        bulk.delete(connection, SCHEDULES, ("schedule_id",), gone)
        written = [row.columns() for key, row in rows.items() if key in changed]
        bulk.upsert(connection, SCHEDULES, written)

    def _schedule_of(self, event: RecordedEvent) -> ScheduleId | None:
        """Return the schedule that the event concerns, if it concerns one."""
        if event.stream.startswith(self._prefix):
            return ScheduleId(event.stream[len(self._prefix) :])
        if event.stream.startswith(self._workflows):
            return schedule_of(event.stream[len(self._workflows) :])
        return None

    def _fold(
        self, rows: dict[ScheduleId, ScheduleRow], schedule_id: ScheduleId, event: RecordedEvent
    ) -> bool:
        """Take one event in; return whether it changed anything."""
        row = rows.get(schedule_id)
        if event.type == "WorkflowStarted":
            return row is not None and _seen_started(row, event.stream[len(self._workflows) :])
        decoded = cast("ev.ScheduleEvent", decode(event))
        at = decode_metadata(event).recorded_at
        if isinstance(decoded, ev.ScheduleCreated):
            rows[schedule_id] = ScheduleRow(schedule_id, evolve_schedule(None, decoded, at=at))
            return True
        if row is None:
            return False  # its beginning cannot be read: the fold never refuses
        if isinstance(decoded, ev.ScheduleDeleted):
            del rows[schedule_id]
            return True
        row.state = evolve_schedule(row.state, decoded, at=at)
        if isinstance(decoded, ev.ScheduleTriggered):
            row.last_workflow_id, row.last_run_id = decoded.workflow_id, decoded.run_id
            row.unstarted = [*row.unstarted[1 - MOST_UNSTARTED :], decoded.workflow_id]
        return True


def _seen_started(row: ScheduleRow, workflow_id: str) -> bool:
    """Note that an action has been started; return whether it was awaited."""
    if workflow_id not in row.unstarted:
        return False
    row.unstarted.remove(workflow_id)
    return True

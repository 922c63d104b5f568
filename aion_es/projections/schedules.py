"""The `schedules` projection: the schedules that exist, one row each, and how to ask for them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, ClassVar, Final

from pydantic_core import from_json, to_json
from sqlalchemy import BigInteger, Boolean, Column, Connection, Index, MetaData, Table, select

from aion_es.errors import ScheduleNotFoundError
from aion_es.events import schedule as ev
from aion_es.events.codec import decode, decode_metadata
from aion_es.ids import (
    DEFAULT_NAMESPACE,
    Namespace,
    RunId,
    ScheduleId,
    WorkflowId,
    schedule_prefix,
)
from aion_es.projections import bulk
from aion_es.projections.columns import Text
from aion_es.projections.instants import from_micros, to_micros
from aion_es.projections.projection import Projection
from aion_es.projections.read_model import ReadModel
from aion_es.store.port import RecordedEvent

SCHEDULES: Final = Table(
    "schedules",
    MetaData(),
    Column("schedule_id", Text, primary_key=True),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("paused", Boolean, nullable=False),
    Column("pause_reason", Text),
    Column("last_scheduled_for", BigInteger),
    Column("last_workflow_id", Text),
    Column("last_run_id", Text),
    Column("actions", BigInteger, nullable=False),
    Column("skipped", BigInteger, nullable=False),
    Column("config", Text, nullable=False),
)
"""One row per schedule that exists; its runs are found in `visibility` by their schedule id."""

Index("schedules_paused", SCHEDULES.c.paused, SCHEDULES.c.schedule_id)


@dataclass(frozen=True, slots=True)
class ScheduleSummary:
    """One schedule, as the read model shows it.

    Attributes:
        updated_at: When it was created, changed, paused or resumed last.
        last_scheduled_for: The latest due time that was decided: an action was taken, or skipped.
        last_workflow_id: What the last action started.
        actions: How often an action was taken.
        skipped: How often none was.
        config: Specification, action and policies, as plain JSON values.
    """

    schedule_id: ScheduleId
    created_at: datetime
    updated_at: datetime
    paused: bool
    pause_reason: str | None
    last_scheduled_for: datetime | None
    last_workflow_id: WorkflowId | None
    last_run_id: RunId | None
    actions: int
    skipped: int
    config: Mapping[str, Any]


@dataclass(slots=True)
class _Row:
    """One row being folded; its fields are the columns, in order."""

    schedule_id: str
    created_at: int
    updated_at: int
    paused: bool = False
    pause_reason: str | None = None
    last_scheduled_for: int | None = None
    last_workflow_id: str | None = None
    last_run_id: str | None = None
    actions: int = 0
    skipped: int = 0
    config: str = "{}"

    def columns(self) -> bulk.Row:
        return tuple(getattr(self, name) for name in self.__slots__)


class SchedulesProjection(Projection):
    """The schedules that exist; read through `ScheduleIndex`."""

    name: ClassVar[str] = "schedules"
    version: ClassVar[int] = 1
    wants: ClassVar[frozenset[str] | None] = frozenset(
        {
            "ScheduleCreated",
            "ScheduleUpdated",
            "SchedulePaused",
            "ScheduleResumed",
            "ScheduleDeleted",
            "ScheduleTriggered",
            "ScheduleSkipped",
        }
    )
    tables: ClassVar[Sequence[Table]] = (SCHEDULES,)

    def __init__(self, namespace: Namespace = DEFAULT_NAMESPACE) -> None:
        """Follow the schedules of `namespace`."""
        self._prefix = schedule_prefix(namespace)

    def apply(self, connection: Connection, batch: Sequence[RecordedEvent]) -> None:
        """Fold the batch and write the rows that it touched, each once."""
        ours = [event for event in batch if event.stream.startswith(self._prefix)]
        skip = len(self._prefix)
        touched = list(dict.fromkeys(event.stream[skip:] for event in ours))
        keys = [(schedule_id,) for schedule_id in touched]
        found = bulk.select(connection, SCHEDULES, ("schedule_id",), keys)
        rows = {row[0]: _Row(*row) for row in found}
        stored = set(rows)
        for event in ours:
            _fold(rows, event.stream[skip:], event)
        gone = [(key,) for key in touched if key in stored and key not in rows]
        bulk.delete(connection, SCHEDULES, ("schedule_id",), gone)
        bulk.upsert(connection, SCHEDULES, [row.columns() for row in rows.values()])


def _fold(rows: dict[str, _Row], schedule_id: str, event: RecordedEvent) -> None:
    decoded = decode(event)
    at = to_micros(decode_metadata(event).recorded_at)
    if isinstance(decoded, ev.ScheduleCreated):
        rows[schedule_id] = _Row(schedule_id, at, at, config=_json(decoded.config))
        return
    row = rows.get(schedule_id)
    if row is None:
        return  # its beginning cannot be read: the fold never refuses
    match decoded:
        case ev.ScheduleUpdated():
            row.config, row.updated_at = _json(decoded.config), at
        case ev.SchedulePaused():
            row.paused, row.pause_reason, row.updated_at = True, decoded.reason, at
        case ev.ScheduleResumed():
            row.paused, row.pause_reason, row.updated_at = False, None, at
        case ev.ScheduleDeleted():
            del rows[schedule_id]
        case ev.ScheduleTriggered():
            row.actions += 1
            row.last_workflow_id, row.last_run_id = decoded.workflow_id, decoded.run_id
            _decided(row, decoded.scheduled_for)
        case ev.ScheduleSkipped():
            row.skipped += 1
            _decided(row, decoded.scheduled_for)
        case _:
            pass


def _decided(row: _Row, scheduled_for: datetime) -> None:
    row.last_scheduled_for = max(row.last_scheduled_for or 0, to_micros(scheduled_for))


def _json(config: dict[str, Any]) -> str:
    return to_json(config).decode()


class ScheduleIndex:
    """The `schedules` rows of one read model, read only."""

    def __init__(self, read_model: ReadModel) -> None:
        """Read from `read_model`; `ProjectionRunner.prepare` must have made the table."""
        self._read_model = read_model

    async def page(
        self, *, paused: bool | None = None, after: ScheduleId | None = None, limit: int = 100
    ) -> list[ScheduleSummary]:
        """Return schedules by id, at most `limit`.

        Args:
            paused: Only those that are paused, or only those that are not.
            after: The last id of the former page.
            limit: Size of a page.

        Raises:
            StoreError: The read model does not answer.
        """
        query = select(SCHEDULES).order_by(SCHEDULES.c.schedule_id).limit(limit)
        if paused is not None:
            query = query.where(SCHEDULES.c.paused.is_(paused))
        if after is not None:
            query = query.where(SCHEDULES.c.schedule_id > after)
        rows: list[Any] = await self._read_model.read(lambda c: list(c.execute(query)))
        return [_summary(row) for row in rows]

    async def get(self, schedule_id: str) -> ScheduleSummary:
        """Return one schedule.

        Raises:
            ScheduleNotFoundError: The read model knows none of this id.
            StoreError: The read model does not answer.
        """
        query = select(SCHEDULES).where(SCHEDULES.c.schedule_id == schedule_id)
        row: Any = await self._read_model.read(lambda c: c.execute(query).one_or_none())
        if row is None:
            raise ScheduleNotFoundError(schedule_id)
        return _summary(row)


def _summary(row: Any) -> ScheduleSummary:
    decided = row.last_scheduled_for
    return ScheduleSummary(
        schedule_id=row.schedule_id,
        created_at=from_micros(row.created_at),
        updated_at=from_micros(row.updated_at),
        paused=bool(row.paused),
        pause_reason=row.pause_reason,
        last_scheduled_for=None if decided is None else from_micros(decided),
        last_workflow_id=row.last_workflow_id,
        last_run_id=row.last_run_id,
        actions=row.actions,
        skipped=row.skipped,
        config=MappingProxyType(from_json(row.config)),
    )

"""Questions to the `schedules` rows: what people list, what falls due, what is owed."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple

from pydantic_core import from_json
from sqlalchemy import Executable, select, tuple_

from aion_es.errors import ScheduleNotFoundError
from aion_es.ids import RunId, ScheduleId, WorkflowId
from aion_es.projections.instants import from_micros, to_micros
from aion_es.projections.read_model import ReadModel
from aion_es.projections.schedule_tables import OWED, SCHEDULES


@dataclass(frozen=True, slots=True)
class ScheduleSummary:
    """One schedule, as the read model shows it.

    Attributes:
        workflow_type: What it starts; `None` if its configuration is of a newer program.
        updated_at: When it was created, changed, paused or resumed last.
        next_due_at: The next due time; `None` if none comes, or it is paused.
        last_scheduled_for: The latest due time that was decided: an action was taken, or skipped.
        last_workflow_id: What the last action started.
        actions: How often an action was taken.
        skipped: How often it was recorded that none was.
        buffered: How many due times wait for the end of earlier actions.
        config: Specification, action and policies, as plain JSON values.
    """

    schedule_id: ScheduleId
    workflow_type: str | None
    created_at: datetime
    updated_at: datetime
    paused: bool
    pause_reason: str | None
    next_due_at: datetime | None
    last_scheduled_for: datetime | None
    last_workflow_id: WorkflowId | None
    last_run_id: RunId | None
    actions: int
    skipped: int
    buffered: int
    config: Mapping[str, Any]


class DueSchedule(NamedTuple):
    """A schedule whose next action is to be taken at an instant; `after` of `due_before` takes one to go on behind it."""

    fires_at: datetime
    schedule_id: ScheduleId


class ScheduleIndex:
    """The `schedules` rows of one read model, read only. Every method raises `StoreError` if it does not answer."""

    def __init__(self, read_model: ReadModel) -> None:
        """Read from `read_model`; `ProjectionRunner.prepare` must have made the table."""
        self._read_model = read_model

    async def page(
        self,
        *,
        paused: bool | None = None,
        workflow_type: str | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> list[ScheduleSummary]:
        """Return schedules by id, at most `limit`.

        Args:
            paused: Only those that are paused, or only those that are not.
            workflow_type: Only those that start this type.
            after: The last id of the former page.
            limit: Size of a page.

        Raises:
            StoreError: The read model does not answer.
        """
        query = select(SCHEDULES).order_by(SCHEDULES.c.schedule_id).limit(limit)
        if paused is not None:
            query = query.where(SCHEDULES.c.paused.is_(paused))
        if workflow_type is not None:
            query = query.where(SCHEDULES.c.workflow_type == workflow_type)
        if after is not None:
            query = query.where(SCHEDULES.c.schedule_id > after)
        return [_summary(row) for row in await self._rows(query)]

    async def get(self, schedule_id: str) -> ScheduleSummary:
        """Return one schedule.

        Raises:
            ScheduleNotFoundError: The read model knows none of this id.
            StoreError: The read model does not answer.
        """
        rows = await self._rows(select(SCHEDULES).where(SCHEDULES.c.schedule_id == schedule_id))
        if not rows:
            raise ScheduleNotFoundError(schedule_id)
        return _summary(rows[0])

    async def due_before(
        self, horizon: datetime, *, after: DueSchedule | None = None, limit: int = 1_000
    ) -> list[DueSchedule]:
        """Return what is due before `horizon` (exclusive), in the order of its time, at most `limit`.

        Raises:
            StoreError: The read model does not answer.
        """
        order = SCHEDULES.c.fires_at, SCHEDULES.c.schedule_id
        query = (
            select(*order)
            .where(SCHEDULES.c.fires_at.is_not(None), SCHEDULES.c.fires_at < to_micros(horizon))
            .order_by(*order)
            .limit(limit)
        )
        if after is not None:
            query = query.where(tuple_(*order) > (to_micros(after.fires_at), after.schedule_id))
        return [
            DueSchedule(from_micros(row[0]), ScheduleId(row[1])) for row in await self._rows(query)
        ]

    async def owed(
        self, *, after: ScheduleId | None = None, limit: int = 1_000
    ) -> list[ScheduleId]:
        """Return the schedules that owe a start, or let something wait, by id, at most `limit`.

        Raises:
            StoreError: The read model does not answer.
        """
        query = (
            select(SCHEDULES.c.schedule_id)
            .where(OWED)
            .order_by(SCHEDULES.c.schedule_id)
            .limit(limit)
        )
        if after is not None:
            query = query.where(SCHEDULES.c.schedule_id > after)
        return [ScheduleId(row[0]) for row in await self._rows(query)]

    async def _rows(self, query: Executable) -> list[Any]:
        return await self._read_model.read(lambda connection: list(connection.execute(query)))


def _summary(row: Any) -> ScheduleSummary:
    return ScheduleSummary(
        schedule_id=row.schedule_id,
        workflow_type=row.workflow_type,
        created_at=from_micros(row.created_at),
        updated_at=from_micros(row.updated_at),
        paused=bool(row.paused),
        pause_reason=row.pause_reason,
        next_due_at=_instant(row.next_due_at),
        last_scheduled_for=_instant(row.last_scheduled_for),
        last_workflow_id=row.last_workflow_id,
        last_run_id=row.last_run_id,
        actions=row.actions,
        skipped=row.skipped,
        buffered=0 if row.buffered is None else len(from_json(row.buffered)),
        config=MappingProxyType(from_json(row.config)),
    )


def _instant(micros: int | None) -> datetime | None:
    return None if micros is None else from_micros(micros)

"""The `schedules` rows, event by event."""

from datetime import timedelta

import pytest

from aion_es.errors import ScheduleNotFoundError
from aion_es.events import schedule as ev
from aion_es.events.base import Event
from aion_es.ids import DEFAULT_NAMESPACE, RunId, ScheduleId, WorkflowId, schedule_stream
from aion_es.projections import ReadModel, ScheduleIndex, SchedulesProjection
from aion_es.projections.checkpoints import install
from aion_es.store.port import Position, RecordedEvent
from tests.unit.projections.histories import NOON, new_event

CREATED = ev.ScheduleCreated(config={"cron": "0 3 * * *", "limits": [1, None]})
HOUR = timedelta(hours=1)


def triggered(hour: int) -> ev.ScheduleTriggered:
    return ev.ScheduleTriggered(
        scheduled_for=NOON + hour * HOUR,
        workflow_id=WorkflowId(f"nightly-{hour}"),
        run_id=RunId(f"r{hour}"),
    )


class Rows:
    """A read model with the projection in it, and the events that it was given."""

    def __init__(self, model: ReadModel) -> None:
        self.index = ScheduleIndex(model)
        self._model = model
        self._projection = SchedulesProjection()
        self._count = 0

    async def take(self, schedule_id: str, *events: Event, minute: int = 0) -> None:
        """Fold the events as one batch."""
        batch = [self._recorded(schedule_id, event, minute) for event in events]
        await self._model.write(lambda c: install(c, self._projection))
        await self._model.write(lambda c: self._projection.apply(c, batch))

    def _recorded(self, schedule_id: str, event: Event, minute: int) -> RecordedEvent:
        stream = schedule_stream(DEFAULT_NAMESPACE, ScheduleId(schedule_id))
        place = Position(self._count, self._count)
        self._count += 1
        new = new_event(event, at=NOON + timedelta(minutes=minute))
        return RecordedEvent(*new, stream, place.commit, place, NOON)


@pytest.fixture
def rows(model: ReadModel) -> Rows:
    return Rows(model)


async def test_a_created_schedule_has_its_configuration_and_nothing_done(rows: Rows) -> None:
    await rows.take("nightly", CREATED)
    found = await rows.index.get("nightly")
    assert (found.schedule_id, found.created_at, found.updated_at) == ("nightly", NOON, NOON)
    assert (found.paused, found.actions, found.skipped, found.last_scheduled_for) == (
        False,
        0,
        0,
        None,
    )
    assert found.config == CREATED.config


async def test_actions_and_skips_are_counted_and_the_latest_due_time_is_known(rows: Rows) -> None:
    await rows.take("nightly", CREATED, triggered(2), triggered(1))
    await rows.take(
        "nightly", ev.ScheduleSkipped(scheduled_for=NOON + 3 * HOUR, reason="overlap"), minute=9
    )
    found = await rows.index.get("nightly")
    assert (found.actions, found.skipped) == (2, 1)
    assert (found.last_workflow_id, found.last_run_id) == ("nightly-1", "r1")
    assert (found.last_scheduled_for, found.updated_at) == (NOON + 3 * HOUR, NOON)


async def test_a_paused_schedule_says_why_until_it_is_resumed(rows: Rows) -> None:
    await rows.take("nightly", CREATED)
    await rows.take("nightly", ev.SchedulePaused(reason="stocktaking"), minute=1)
    found = await rows.index.get("nightly")
    assert (found.paused, found.pause_reason) == (True, "stocktaking")
    await rows.take("nightly", ev.ScheduleResumed(), ev.ScheduleUpdated(config={"a": 1}), minute=2)
    found = await rows.index.get("nightly")
    assert (found.paused, found.pause_reason, found.config) == (False, None, {"a": 1})
    assert found.updated_at == NOON + timedelta(minutes=2)


async def test_a_deleted_schedule_is_gone_and_its_id_begins_anew(rows: Rows) -> None:
    await rows.take("nightly", CREATED, triggered(1))
    await rows.take("nightly", ev.ScheduleDeleted())
    with pytest.raises(ScheduleNotFoundError):
        await rows.index.get("nightly")
    await rows.take("nightly", CREATED)
    assert (await rows.index.get("nightly")).actions == 0


async def test_schedules_come_by_id_in_pages_paused_or_not(rows: Rows) -> None:
    for name in ("c", "a", "B"):
        await rows.take(name, CREATED)
    await rows.take("a", ev.SchedulePaused())
    first = await rows.index.page(limit=2)
    assert [found.schedule_id for found in first] == ["B", "a"]
    rest = await rows.index.page(after=first[-1].schedule_id, limit=2)
    assert [found.schedule_id for found in rest] == ["c"]
    assert [found.schedule_id for found in await rows.index.page(paused=True)] == ["a"]
    assert [found.schedule_id for found in await rows.index.page(paused=False)] == ["B", "c"]


async def test_what_follows_an_unknown_beginning_makes_no_row(rows: Rows) -> None:
    await rows.take("nightly", ev.SchedulePaused(), triggered(1))
    assert await rows.index.page() == []

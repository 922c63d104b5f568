"""The `schedules` rows, event by event."""

from datetime import timedelta

import pytest

from aion_es.errors import ScheduleNotFoundError
from aion_es.events import schedule as ev
from aion_es.events.base import Event
from aion_es.events.workflow import WorkflowStarted
from aion_es.ids import (
    DEFAULT_NAMESPACE,
    RunId,
    ScheduleId,
    WorkflowId,
    schedule_stream,
    workflow_stream,
)
from aion_es.projections import ReadModel, ScheduleIndex, SchedulesProjection
from aion_es.projections.checkpoints import install
from aion_es.projections.schedule_index import DueSchedule
from aion_es.schedules.naming import action_id
from aion_es.store.port import Position, RecordedEvent
from tests.unit.projections.histories import NOON, new_event

CONFIG = {"spec": {"cron": "0 * * * *"}, "action": {"workflow_type": "report"}}
CREATED = ev.ScheduleCreated(config={**CONFIG, "later": [1, None]})
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
        stream = (
            workflow_stream(DEFAULT_NAMESPACE, WorkflowId(schedule_id))
            if isinstance(event, WorkflowStarted)
            else schedule_stream(DEFAULT_NAMESPACE, ScheduleId(schedule_id))
        )
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
    await rows.take("nightly", ev.ScheduleResumed(), ev.ScheduleUpdated(config=CONFIG), minute=2)
    found = await rows.index.get("nightly")
    assert (found.paused, found.pause_reason, found.config) == (False, None, CONFIG)
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


async def test_a_row_knows_what_is_due_next(rows: Rows) -> None:
    await rows.take("nightly", CREATED, minute=10)
    assert (await rows.index.get("nightly")).next_due_at == NOON + HOUR
    await rows.take("nightly", triggered(1))
    assert (await rows.index.get("nightly")).next_due_at == NOON + 2 * HOUR
    await rows.take("nightly", ev.SchedulePaused())
    assert (await rows.index.get("nightly")).next_due_at is None
    await rows.take("nightly", ev.ScheduleResumed(), minute=200)
    assert (await rows.index.get("nightly")).next_due_at == NOON + 4 * HOUR


async def test_what_is_due_comes_in_the_order_of_its_time_in_pages(rows: Rows) -> None:
    for name, minute in (("c", 0), ("a", 0), ("late", 60), ("b", 0)):
        await rows.take(name, CREATED, minute=minute)
    await rows.take("paused", CREATED, ev.SchedulePaused())
    first = await rows.index.due_before(NOON + 2 * HOUR, limit=2)
    assert first == [DueSchedule(NOON + HOUR, ScheduleId(name)) for name in ("a", "b")]
    rest = await rows.index.due_before(NOON + 2 * HOUR, after=first[-1], limit=2)
    assert rest == [DueSchedule(NOON + HOUR, ScheduleId("c"))]


async def test_an_action_is_owed_until_its_workflow_is_seen_started(rows: Rows) -> None:
    taken = triggered(1).model_copy(
        update={"workflow_id": action_id(ScheduleId("nightly"), NOON + HOUR)}
    )
    started = WorkflowStarted(
        workflow_type="report", run_id=RunId("r"), first_run_id=RunId("r"), package_version="1"
    )
    await rows.take("nightly", CREATED, taken)
    assert await rows.index.owed() == ["nightly"]
    await rows.take("nightly-20261124T110000Z", started)
    assert len(await rows.index.owed()) == 1
    await rows.take(taken.workflow_id, started)
    assert await rows.index.owed() == []


async def test_what_is_buffered_is_counted_until_it_is_taken(rows: Rows) -> None:
    await rows.take("nightly", CREATED, ev.ScheduleBuffered(scheduled_for=NOON + HOUR))
    assert (await rows.index.get("nightly")).buffered == 1
    assert await rows.index.owed() == ["nightly"]
    await rows.take("nightly", triggered(1))
    assert (await rows.index.get("nightly")).buffered == 0


async def test_schedules_are_listed_by_what_they_start(rows: Rows) -> None:
    other = {**CONFIG, "action": {"workflow_type": "bill"}}
    await rows.take("a", CREATED)
    await rows.take("b", ev.ScheduleCreated(config=other))
    assert [s.schedule_id for s in await rows.index.page(workflow_type="bill")] == ["b"]


async def test_a_configuration_that_is_not_understood_makes_a_row_that_is_never_due(
    rows: Rows,
) -> None:
    await rows.take("nightly", ev.ScheduleCreated(config={"spec": {"moon": "full"}}))
    found = await rows.index.get("nightly")
    assert (found.workflow_type, found.next_due_at) == (None, None)

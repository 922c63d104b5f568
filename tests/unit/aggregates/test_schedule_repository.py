"""Loading and saving schedules: back to the last checkpoint and no further, with conflicts decided anew."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from aion_es.aggregates import Schedule, ScheduleRepository
from aion_es.errors import ConcurrencyConflictError
from aion_es.events import schedule as ev
from aion_es.ids import RunId, ScheduleId, StreamName
from aion_es.schedules.naming import action_id
from aion_es.store.memory import MemoryEventStore
from aion_es.store.port import RecordedEvent
from tests.unit.aggregates.histories import NOON

CONFIG = {"spec": {"every": "PT1M"}, "action": {"workflow_type": "report"}}
MINUTE = timedelta(minutes=1)


class CountingStore(MemoryEventStore):
    """Counts what is read."""

    events_read = 0

    async def read(
        self,
        stream: StreamName,
        *,
        from_revision: int | None = None,
        backwards: bool = False,
        limit: int | None = None,
    ) -> AsyncIterator[RecordedEvent]:
        async for event in super().read(
            stream, from_revision=from_revision, backwards=backwards, limit=limit
        ):
            self.events_read += 1
            yield event


@pytest.fixture
def store() -> CountingStore:
    return CountingStore()


def take(minute: int, run: str = "r") -> ev.ScheduleTriggered:
    due = NOON + minute * MINUTE
    return ev.ScheduleTriggered(
        scheduled_for=due, workflow_id=action_id(ScheduleId("s"), due), run_id=RunId(run)
    )


async def test_a_load_reads_no_more_after_a_thousand_actions_than_after_a_hundred(
    store: CountingStore,
) -> None:
    repository = ScheduleRepository(store)
    schedule = Schedule(ScheduleId("s"))
    schedule.create(CONFIG, at=NOON)
    costs: list[int] = []
    loaded = schedule
    for minute in range(1, 1_001):
        due = NOON + minute * MINUTE
        workflow_id = action_id(ScheduleId("s"), due)
        schedule.trigger(due, workflow_id, RunId(f"r{minute}"), at=due)
        await repository.save(schedule)
        store.events_read = 0
        loaded = await repository.load("s")
        costs.append(store.events_read)
        assert loaded.state.actions == minute
    assert max(costs) <= 72
    assert loaded.state == schedule.state


async def test_a_schedule_that_was_created_again_is_loaded_from_there(store: CountingStore) -> None:
    repository = ScheduleRepository(store)
    schedule = Schedule(ScheduleId("s"))
    schedule.create(CONFIG, at=NOON)
    schedule.delete(at=NOON)
    schedule.create(CONFIG, at=NOON + MINUTE)
    await repository.save(schedule)
    loaded = await repository.load("s")
    assert (loaded.state.created_at, loaded.state.length) == (NOON + MINUTE, 1)


async def test_two_who_decide_the_same_due_time_conflict_and_the_second_finds_it_decided(
    store: CountingStore,
) -> None:
    repository = ScheduleRepository(store)
    await repository.execute("s", lambda s: s.create(CONFIG, at=NOON))
    first, second = await repository.load("s"), await repository.load("s")
    for schedule, run in ((first, "a"), (second, "b")):
        taken = take(1, run)
        schedule.trigger(taken.scheduled_for, taken.workflow_id, taken.run_id, at=NOON + MINUTE)
    await repository.save(first)
    with pytest.raises(ConcurrencyConflictError):
        await repository.save(second)
    again = await repository.execute(
        "s", lambda s: s.trigger(take(1).scheduled_for, take(1).workflow_id, RunId("b"), at=NOON)
    )
    assert again.events == ()

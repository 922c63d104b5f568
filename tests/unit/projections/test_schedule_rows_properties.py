"""The `schedules` rows follow from the events alone: however they are cut into batches, and as the aggregate has it."""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, create_engine, select

from aion_es.aggregates import Schedule
from aion_es.aggregates.schedule_decisions import Moment
from aion_es.events.base import Event
from aion_es.events.workflow import WorkflowStarted
from aion_es.ids import (
    DEFAULT_NAMESPACE,
    RunId,
    ScheduleId,
    StreamName,
    WorkflowId,
    schedule_stream,
    workflow_stream,
)
from aion_es.projections import SchedulesProjection
from aion_es.projections.instants import to_micros
from aion_es.projections.schedule_tables import SCHEDULES
from aion_es.schedules import CatchUp, Interval, Overlap, Spec
from aion_es.schedules.config import ScheduleConfig, StartAction
from aion_es.store.port import Position, RecordedEvent
from tests.unit.projections.histories import NOON, new_event

MINUTE = timedelta(minutes=1)
IDS = [ScheduleId("a"), ScheduleId("b")]
STEPS = ["due", "due, all ended", "pause", "resume", "update", "delete", "create", "start"]

steps = st.lists(
    st.tuples(st.sampled_from(IDS), st.sampled_from(STEPS), st.integers(0, 3)), max_size=40
)
configs = st.sampled_from(
    [
        ScheduleConfig(
            spec=Spec(Interval(MINUTE), limit=limit, jitter=jitter),
            action=StartAction(workflow_type="report"),
            overlap=overlap,
            catch_up=CatchUp.ALL,
        ).plain()
        for overlap in (Overlap.BUFFER_ALL, Overlap.CANCEL_PREVIOUS, Overlap.ALLOW_ALL)
        for limit in (None, 3)
        for jitter in (timedelta(0), 3 * MINUTE)
    ]
)


class Log:
    """Schedules that live for a while, and everything that is recorded meanwhile."""

    def __init__(self) -> None:
        self.schedules = {i: Schedule(i) for i in IDS}
        self.events: list[RecordedEvent] = []
        self.now = NOON

    def step(
        self, schedule_id: ScheduleId, what: str, minutes: int, config: dict[str, Any]
    ) -> None:
        self.now += minutes * MINUTE
        schedule = self.schedules[schedule_id]
        if not schedule.exists:
            schedule.create(config, at=self.now)
        elif what.startswith("due"):
            running = frozenset[WorkflowId]() if "ended" in what else None
            moment = Moment(
                now=self.now, since=NOON, running=running, new_run_id=lambda: RunId("r")
            )
            schedule.take_due(moment, at=self.now)
        elif what == "update":
            schedule.update(config, at=self.now)
        elif what in {"pause", "resume", "delete"}:
            getattr(schedule, what)(at=self.now)
        elif what == "start":
            for action in schedule.state.open[-1:]:
                self._record(
                    workflow_stream(DEFAULT_NAMESPACE, action.workflow_id),
                    WorkflowStarted(
                        workflow_type="report",
                        run_id=action.run_id,
                        first_run_id=action.run_id,
                        package_version="1",
                    ),
                )
        stream = schedule_stream(DEFAULT_NAMESPACE, schedule_id)
        for pending in schedule.uncommitted:
            self._record(stream, pending.event)
        schedule.mark_saved(schedule.revision + len(schedule.uncommitted))

    def _record(self, stream: StreamName, event: Event) -> None:
        place = Position(len(self.events), len(self.events))
        new = new_event(event, at=self.now)
        self.events.append(RecordedEvent(*new, stream, place.commit, place, NOON))


def rows(events: Sequence[RecordedEvent], cuts: Sequence[int]) -> list[dict[str, Any]]:
    """Return the rows that the projection makes of these events, in batches cut at these places."""
    projection = SchedulesProjection()
    wanted = [e for e in events if projection.wants is not None and e.type in projection.wants]
    with disposing(create_engine("sqlite://")) as engine, engine.begin() as connection:
        SCHEDULES.create(connection)
        places = sorted({0, *(cut % (len(wanted) + 1) for cut in cuts), len(wanted)})
        for begin, end in itertools.pairwise(places):
            projection.apply(connection, wanted[begin:end])
        found = connection.execute(select(SCHEDULES).order_by(SCHEDULES.c.schedule_id))
        return [dict(row._mapping) for row in found]


@contextmanager
def disposing(engine: Engine) -> Iterator[Engine]:
    """Close what the engine's pool holds: an engine that is dropped leaves its connection open."""
    try:
        yield engine
    finally:
        engine.dispose()


@given(steps, st.data(), st.lists(st.integers(0, 99), max_size=8))
@settings(max_examples=80, deadline=None)
def test_the_rows_follow_from_the_events_and_agree_with_the_aggregates(
    drawn: list[tuple[ScheduleId, str, int]], data: st.DataObject, cuts: list[int]
) -> None:
    log = Log()
    for schedule_id, what, minutes in drawn:
        log.step(schedule_id, what, minutes, data.draw(configs))
    found = rows(log.events, cuts)
    assert found == rows(log.events, [])
    existing = {i: s.state for i, s in log.schedules.items() if s.exists}
    assert [row["schedule_id"] for row in found] == sorted(existing)
    for row in found:
        state = existing[row["schedule_id"]]
        due = state.next_due(row["schedule_id"])
        assert row["next_due_at"] == (None if due is None else to_micros(due[0]))
        assert row["fires_at"] == (None if due is None else to_micros(due[1]))
        assert (row["actions"], row["skipped"]) == (state.actions, state.skipped)
        assert (row["remaining"], row["paused"]) == (state.remaining, state.paused)
        assert (row["buffered"] is None) == (not state.buffered)

"""Whatever an engine's life is like, every due time is decided once, and nothing that matters depends on when."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from aion_es.aggregates import Schedule
from aion_es.aggregates.schedule_decisions import Moment
from aion_es.events import schedule as ev
from aion_es.ids import RunId, ScheduleId, WorkflowId
from aion_es.schedules import CatchUp, Interval, Overlap, Spec, times_between
from aion_es.schedules.config import ScheduleConfig, StartAction
from tests.unit.aggregates.histories import NOON

NIGHTLY = ScheduleId("nightly")
MINUTE = timedelta(minutes=1)
END = NOON + 40 * MINUTE

Visit = tuple[datetime, bool, bool]
"""When an engine decides, whether one was there all the time since the last visit, and whether all actions have ended."""

visits = st.lists(
    st.tuples(st.integers(0, 40 * 60), st.booleans(), st.booleans()), max_size=12
).map(
    lambda drawn: [(NOON + timedelta(seconds=s), live, ended) for s, live, ended in sorted(drawn)]
)


def created(
    overlap: Overlap, catch_up: CatchUp, jitter: timedelta = timedelta(0), limit: int | None = None
) -> Schedule:
    spec = Spec(Interval(MINUTE), jitter=jitter, limit=limit)
    config = ScheduleConfig(
        spec=spec, action=StartAction(workflow_type="report"), overlap=overlap, catch_up=catch_up
    )
    schedule = Schedule(NIGHTLY)
    schedule.create(config.plain(), at=NOON)
    return schedule


def visit(
    schedule: Schedule, now: datetime, since: datetime, *, ended: bool
) -> list[ev.ScheduleEvent]:
    """Let an engine decide until nothing is left to decide."""
    decided: list[ev.ScheduleEvent] = []
    running = frozenset[WorkflowId]() if ended else frozenset(schedule.state.open_ids)
    while True:
        moment = Moment(now=now, since=since, running=running, new_run_id=lambda: RunId("r"))
        events = schedule.take_due(moment, at=now)
        decided += events
        running |= {e.workflow_id for e in events if isinstance(e, ev.ScheduleTriggered)}
        due = schedule.state.next_due(NIGHTLY)
        if due is None or due[1] > now:
            return decided


def live_through(schedule: Schedule, drawn: Sequence[Visit]) -> list[ev.ScheduleEvent]:
    decided: list[ev.ScheduleEvent] = []
    last = NOON
    for now, was_there, ended in [*drawn, (END, False, True)]:
        decided += visit(schedule, now, last if was_there else now, ended=ended)
        last = now
    return decided


def instants(events: Sequence[ev.ScheduleEvent], *kinds: type[ev.ScheduleEvent]) -> list[datetime]:
    return [e.scheduled_for for e in events if isinstance(e, kinds)]  # type: ignore[union-attr]  # only kinds that have one are asked for


@given(visits, st.sampled_from(Overlap), st.sampled_from(CatchUp), st.sampled_from([0, 30, 7200]))
@settings(max_examples=300, deadline=None)
def test_every_due_time_is_taken_or_skipped_or_waits_exactly_once(
    drawn: list[Visit], overlap: Overlap, catch_up: CatchUp, jitter: int
) -> None:
    schedule = created(overlap, catch_up, timedelta(seconds=jitter))
    events = live_through(schedule, drawn)
    settled = instants(events, ev.ScheduleTriggered, ev.ScheduleSkipped)
    waiting = [w.scheduled_for for w in schedule.state.buffered]
    decided = list(times_between(Interval(MINUTE), NOON, schedule.state.decided_until))
    assert sorted(settled + waiting) == decided
    following = schedule.state.next_due(NIGHTLY)
    assert following is not None
    assert following[1] > END


@given(visits, st.sampled_from([0, 30]))
@settings(max_examples=150, deadline=None)
def test_with_all_caught_up_and_all_allowed_it_does_not_matter_when_somebody_was_there(
    drawn: list[Visit], jitter: int
) -> None:
    expected = visit(
        created(Overlap.ALLOW_ALL, CatchUp.ALL, timedelta(seconds=jitter)), END, END, ended=True
    )
    schedule = created(Overlap.ALLOW_ALL, CatchUp.ALL, timedelta(seconds=jitter))
    events = live_through(schedule, drawn)
    assert instants(events, ev.ScheduleTriggered) == instants(expected, ev.ScheduleTriggered)


@given(visits)
@settings(max_examples=150, deadline=None)
def test_with_all_caught_up_and_all_buffered_every_due_time_is_taken_in_order(
    drawn: list[Visit],
) -> None:
    schedule = created(Overlap.BUFFER_ALL, CatchUp.ALL)
    events = live_through(schedule, drawn)
    while schedule.state.buffered:
        events += visit(schedule, END, END, ended=True)
    expected = list(times_between(Interval(MINUTE), NOON, END))
    assert instants(events, ev.ScheduleTriggered) == expected


@given(visits, st.sampled_from(Overlap), st.sampled_from(CatchUp), st.integers(1, 5))
@settings(max_examples=150, deadline=None)
def test_no_more_actions_are_taken_than_the_limit_allows(
    drawn: list[Visit], overlap: Overlap, catch_up: CatchUp, limit: int
) -> None:
    schedule = created(overlap, catch_up, limit=limit)
    events = live_through(schedule, drawn)
    assert len(instants(events, ev.ScheduleTriggered)) <= limit


@given(
    visits,
    st.sampled_from(
        [Overlap.SKIP, Overlap.BUFFER_ONE, Overlap.BUFFER_ALL, Overlap.CANCEL_PREVIOUS]
    ),
)
@settings(max_examples=150, deadline=None)
def test_unless_all_are_allowed_no_action_is_taken_beside_another(
    drawn: list[Visit], overlap: Overlap
) -> None:
    events = live_through(created(overlap, CatchUp.ALL), drawn)
    assert {e.beside for e in events if isinstance(e, ev.ScheduleTriggered)} <= {()}

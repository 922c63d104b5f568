"""What is decided at a due time: every policy, live and after downtime, given / when / then."""

import itertools
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Literal

import pytest
from pydantic_core import to_json

from aion_es.aggregates import Schedule
from aion_es.aggregates.schedule_decisions import (
    MOST_AT_ONCE,
    MOST_BUFFERED,
    MOST_SKIPS,
    Moment,
)
from aion_es.aggregates.schedule_state import MOST_OPEN, RECENT, ScheduleState, checkpoint
from aion_es.events import schedule as ev
from aion_es.events.codec import encode
from aion_es.ids import RunId, ScheduleId, UUIDv7Source, WorkflowId
from aion_es.schedules import CatchUp, Interval, Overlap, Spec
from aion_es.schedules.config import ScheduleConfig, StartAction
from aion_es.schedules.naming import LONGEST_ID, action_id
from aion_es.store.sqlite.store import LIMITS
from aion_es.testing.aggregates import Given, given_schedule
from tests.unit.aggregates.histories import HOUR, NOON

AM_9 = NOON - 3 * HOUR
"""When everything here was created: hourly, so 10:00, 11:00 and 12:00 come until noon."""
TEN, ELEVEN = NOON - 2 * HOUR, NOON - HOUR
EVENT = ev.ScheduleEvent


def config(
    overlap: Overlap = Overlap.SKIP,
    catch_up: CatchUp = CatchUp.ONE,
    every: timedelta = HOUR,
    window: timedelta = timedelta(days=1),
    **bounds: Any,
) -> ev.ScheduleCreated:
    recorded = ScheduleConfig(
        spec=Spec(Interval(every), **bounds),
        action=StartAction(workflow_type="report"),
        overlap=overlap,
        catch_up=catch_up,
        catch_up_window=window,
    )
    return ev.ScheduleCreated(config=recorded.plain())


def name(due: datetime) -> WorkflowId:
    return action_id(ScheduleId("nightly"), due)


def taken(
    due: datetime, run: int = 1, *, beside: tuple[datetime, ...] | None = (), manual: bool = False
) -> ev.ScheduleTriggered:
    return ev.ScheduleTriggered(
        scheduled_for=due,
        workflow_id=name(due),
        run_id=RunId(f"r{run}"),
        manual=manual,
        beside=None if beside is None else tuple(name(other) for other in beside),
    )


def skipped(
    due: datetime, reason: Literal["overlap", "catch_up"] = "overlap"
) -> ev.ScheduleSkipped:
    return ev.ScheduleSkipped(scheduled_for=due, reason=reason)


def buffered(due: datetime, previous: ev.Previous = "wait") -> ev.ScheduleBuffered:
    return ev.ScheduleBuffered(scheduled_for=due, previous=previous)


def moment(
    now: datetime = NOON, *, since: datetime = AM_9, running: tuple[datetime, ...] | None = ()
) -> Moment:
    runs = itertools.count(1)
    return Moment(
        now=now,
        since=since,
        running=None if running is None else frozenset(name(due) for due in running),
        new_run_id=lambda: RunId(f"r{next(runs)}"),
    )


def take_due(
    now: datetime = NOON, *, since: datetime = AM_9, running: tuple[datetime, ...] | None = ()
) -> Callable[[Schedule], object]:
    return lambda s: s.take_due(moment(now, since=since, running=running), at=now)


# ------------------------------------------------------------------------- live, by overlap


def live(overlap: Overlap, *more: EVENT) -> Given[Schedule]:
    """11:00 was taken; it is noon."""
    return given_schedule(config(overlap), taken(ELEVEN, 0), *more)


@pytest.mark.parametrize("overlap", Overlap)
def test_an_action_is_taken_if_nothing_runs(overlap: Overlap) -> None:
    live(overlap).when(take_due()).then(taken(NOON))


@pytest.mark.parametrize(
    ("overlap", "follows"),
    [
        (Overlap.SKIP, skipped(NOON)),
        (Overlap.BUFFER_ONE, buffered(NOON)),
        (Overlap.BUFFER_ALL, buffered(NOON)),
        (Overlap.CANCEL_PREVIOUS, buffered(NOON, "cancel")),
        (Overlap.TERMINATE_PREVIOUS, buffered(NOON, "terminate")),
        (Overlap.ALLOW_ALL, taken(NOON, beside=(ELEVEN,))),
    ],
)
def test_while_an_earlier_action_runs_the_policy_decides(overlap: Overlap, follows: EVENT) -> None:
    live(overlap).when(take_due(running=(ELEVEN,))).then(follows)


PM_1 = NOON + HOUR


@pytest.mark.parametrize(
    ("overlap", "waiting", "follows"),
    [
        (Overlap.SKIP, buffered(NOON), (skipped(PM_1),)),
        (Overlap.BUFFER_ONE, buffered(NOON), (skipped(PM_1),)),
        (Overlap.BUFFER_ALL, buffered(NOON), (buffered(PM_1),)),
        (
            Overlap.CANCEL_PREVIOUS,
            buffered(NOON, "cancel"),
            (skipped(NOON), buffered(PM_1, "cancel")),
        ),
        (
            Overlap.TERMINATE_PREVIOUS,
            buffered(NOON, "terminate"),
            (skipped(NOON), buffered(PM_1, "terminate")),
        ),
        (Overlap.ALLOW_ALL, buffered(NOON), (taken(PM_1, beside=(ELEVEN,)),)),
    ],
)
def test_while_one_waits_the_policy_decides(
    overlap: Overlap, waiting: EVENT, follows: tuple[EVENT, ...]
) -> None:
    live(overlap, waiting).when(take_due(PM_1, running=(ELEVEN,))).then(*follows)


def test_what_waits_is_taken_when_the_earlier_action_has_ended() -> None:
    outcome = live(Overlap.BUFFER_ALL, buffered(NOON)).when(take_due(NOON)).then(taken(NOON))
    state = outcome.aggregate.state
    assert (state.buffered, state.open_ids) == ([], (name(NOON),))


def test_of_several_that_wait_one_is_taken_after_the_other() -> None:
    outcome = live(Overlap.BUFFER_ALL, buffered(NOON), buffered(PM_1)).when(take_due(PM_1))
    outcome.then(taken(NOON))
    outcome.aggregate.mark_saved(5)
    Given(outcome.aggregate, (), NOON).when(take_due(PM_1)).then(taken(PM_1))


def test_what_waits_comes_before_what_falls_due() -> None:
    live(Overlap.BUFFER_ALL, buffered(NOON)).when(take_due(PM_1)).then(taken(NOON), buffered(PM_1))


def test_if_nobody_looked_every_known_action_counts_as_running() -> None:
    live(Overlap.SKIP).when(take_due(running=None)).then(skipped(NOON))


def test_an_action_that_is_not_known_to_have_ended_is_forgotten_once_somebody_looked() -> None:
    history = (config(Overlap.ALLOW_ALL), taken(TEN, 0, beside=None), taken(ELEVEN, 0, beside=None))
    outcome = given_schedule(*history).when(take_due(running=(ELEVEN,)))
    outcome.then(taken(NOON, beside=(ELEVEN,)))
    assert outcome.aggregate.state.open_ids == (name(ELEVEN), name(NOON))


def test_nothing_is_decided_twice() -> None:
    live(Overlap.SKIP, taken(NOON)).when(take_due()).then_nothing()
    live(Overlap.SKIP, skipped(NOON)).when(take_due()).then_nothing()
    live(Overlap.SKIP, buffered(NOON)).when(take_due(running=(ELEVEN,))).then_nothing()


def test_several_due_times_at_once_are_each_decided_in_order() -> None:
    history = config(Overlap.ALLOW_ALL, every=timedelta(seconds=20)), skipped(NOON)
    later = NOON + timedelta(seconds=45)
    given_schedule(*history).when(take_due(later)).then(
        taken(NOON + timedelta(seconds=20)), taken(NOON + timedelta(seconds=40), 2, beside=None)
    )


def test_a_configuration_of_a_newer_program_makes_nothing_due() -> None:
    unknown = ev.ScheduleCreated(config={"spec": {"moon": "full"}, "action": {}})
    given = given_schedule(unknown)
    assert given.aggregate.state.next_due(ScheduleId("nightly")) is None
    given.when(take_due()).then_nothing()


# ------------------------------------------------------------------------ pause, update, limit

PAUSED = ev.SchedulePaused()


def test_while_paused_nothing_is_taken_and_what_waits_goes_on_waiting() -> None:
    live(Overlap.BUFFER_ONE, buffered(NOON), PAUSED).when(take_due(PM_1)).then_nothing()


def test_after_a_pause_what_waited_is_taken_and_what_was_due_meanwhile_is_not() -> None:
    given = given_schedule(
        config(Overlap.BUFFER_ONE), taken(TEN, 0), buffered(ELEVEN), PAUSED, at=AM_9
    )
    outcome = given.when(lambda s: s.resume(at=NOON)).then(ev.ScheduleResumed())
    outcome.aggregate.mark_saved(5)
    Given(outcome.aggregate, (), NOON).when(take_due(NOON)).then(taken(ELEVEN))


def test_an_update_keeps_what_waits_and_begins_anew_from_its_instant() -> None:
    given = given_schedule(config(Overlap.BUFFER_ONE), taken(TEN, 0), buffered(ELEVEN), at=AM_9)
    later = NOON + timedelta(minutes=10)
    changed = config(Overlap.BUFFER_ONE, every=timedelta(minutes=30)).config
    outcome = given.when(lambda s: s.update(changed, at=later))
    state = outcome.then(ev.ScheduleUpdated(config=changed)).aggregate.state
    assert [waiting.scheduled_for for waiting in state.buffered] == [ELEVEN]
    due = NOON + timedelta(minutes=30)
    assert state.next_due(ScheduleId("nightly")) == (due, due)


def test_after_its_limit_nothing_is_due_any_more() -> None:
    history = config(Overlap.ALLOW_ALL, limit=2), taken(TEN, 0)
    outcome = given_schedule(*history).when(take_due()).then(taken(ELEVEN))
    assert outcome.aggregate.state.next_due(ScheduleId("nightly")) is None


def test_a_buffered_action_counts_against_the_limit_once() -> None:
    history = config(Overlap.BUFFER_ALL, limit=2), taken(TEN, 0)
    outcome = given_schedule(*history).when(take_due(running=(TEN,))).then(buffered(ELEVEN))
    outcome.aggregate.mark_saved(2)
    outcome = Given(outcome.aggregate, (), NOON).when(take_due()).then(taken(ELEVEN))
    assert outcome.aggregate.state.remaining == 0


def test_what_is_skipped_or_asked_for_does_not_count_against_the_limit() -> None:
    history = config(limit=1), skipped(TEN), taken(TEN + HOUR / 2, 0, manual=True), skipped(ELEVEN)
    given_schedule(*history).when(take_due()).then(taken(NOON))


def test_an_update_lets_the_limit_count_anew() -> None:
    history = config(limit=1), taken(TEN, 0), ev.ScheduleUpdated(config=config(limit=3).config)
    assert given_schedule(*history).aggregate.state.remaining == 3


# --------------------------------------------------------------------------- after downtime


def missed(catch_up: CatchUp, **options: Any) -> Given[Schedule]:
    """An engine comes at noon and a half; 10:00, 11:00 and 12:00 were due while none was there."""
    return given_schedule(config(Overlap.ALLOW_ALL, catch_up, **options))


BACK = NOON + HOUR / 2
back = take_due(BACK, since=BACK)


def test_after_downtime_one_takes_the_last_that_was_missed() -> None:
    missed(CatchUp.ONE).when(back).then(
        skipped(TEN, "catch_up"), skipped(ELEVEN, "catch_up"), taken(NOON)
    )


def test_after_downtime_all_takes_every_one() -> None:
    missed(CatchUp.ALL).when(back).then(
        taken(TEN), taken(ELEVEN, 2, beside=None), taken(NOON, 3, beside=None)
    )


def test_after_downtime_skip_takes_none() -> None:
    missed(CatchUp.SKIP).when(back).then(*(skipped(t, "catch_up") for t in (TEN, ELEVEN, NOON)))


def test_what_was_missed_longer_ago_than_the_window_is_skipped() -> None:
    window = HOUR + HOUR / 2
    missed(CatchUp.ALL, window=window).when(back).then(
        skipped(TEN, "catch_up"), skipped(ELEVEN, "catch_up"), taken(NOON)
    )
    missed(CatchUp.ONE, window=HOUR / 2).when(back).then(
        *(skipped(t, "catch_up") for t in (TEN, ELEVEN, NOON))
    )


def test_after_downtime_the_overlap_policy_still_holds() -> None:
    given_schedule(config(Overlap.SKIP, CatchUp.ALL)).when(back).then(
        taken(TEN), skipped(ELEVEN), skipped(NOON)
    )
    given_schedule(config(Overlap.BUFFER_ALL, CatchUp.ALL)).when(back).then(
        taken(TEN), buffered(ELEVEN), buffered(NOON)
    )
    given_schedule(config(Overlap.CANCEL_PREVIOUS, CatchUp.ALL)).when(back).then(
        taken(TEN), buffered(ELEVEN, "cancel"), skipped(ELEVEN), buffered(NOON, "cancel")
    )


def test_what_is_due_after_somebody_came_is_not_missed() -> None:
    given_schedule(config(Overlap.ALLOW_ALL, CatchUp.SKIP)).when(
        take_due(NOON, since=ELEVEN + HOUR / 2)
    ).then(skipped(TEN, "catch_up"), skipped(ELEVEN, "catch_up"), taken(NOON))


def test_what_nobody_decided_for_more_than_a_minute_was_missed_although_an_engine_was_there() -> (
    None
):
    given = given_schedule(config(Overlap.ALLOW_ALL, CatchUp.SKIP), skipped(ELEVEN))
    given.when(take_due(NOON + timedelta(seconds=61))).then(skipped(NOON, "catch_up"))
    given = given_schedule(config(Overlap.ALLOW_ALL, CatchUp.SKIP), skipped(ELEVEN))
    given.when(take_due(NOON + timedelta(seconds=60))).then(taken(NOON))


@pytest.mark.parametrize("catch_up", [CatchUp.ONE, CatchUp.SKIP])
def test_very_many_missed_due_times_are_recorded_as_one_stretch(catch_up: CatchUp) -> None:
    second = timedelta(seconds=1)
    given = given_schedule(config(Overlap.SKIP, catch_up, every=second))
    outcome = given.when(back)
    first = AM_9 + second
    last = BACK - second
    stretch = ev.ScheduleSkipped(scheduled_for=first, reason="catch_up", until=last)
    if catch_up is CatchUp.SKIP:
        outcome.then(stretch, taken(BACK))  # due just when the engine came
    else:
        until = last - timedelta(microseconds=1)
        outcome.then(stretch.model_copy(update={"until": until}), taken(last), skipped(BACK))
    assert (last - first) / second > MOST_SKIPS


def test_one_decision_takes_so_many_and_the_next_goes_on() -> None:
    given = given_schedule(
        config(Overlap.ALLOW_ALL, CatchUp.ALL, every=timedelta(seconds=40)), at=AM_9
    )
    schedule = given.aggregate
    decided: list[datetime] = []
    while (due := schedule.state.next_due(ScheduleId("nightly"))) and due[1] <= BACK:
        events = schedule.take_due(moment(BACK, since=BACK), at=BACK)
        decided += [e.scheduled_for for e in events if isinstance(e, ev.ScheduleTriggered)]
        assert len(events) <= MOST_AT_ONCE + 1
    every = timedelta(seconds=40)
    assert decided == [AM_9 + n * every for n in range(1, (BACK - AM_9) // every + 1)]


# ---------------------------------------------------------------------------- jitter, backfill


def test_with_jitter_an_action_is_taken_a_little_later_and_before_the_next_due_time() -> None:
    given = given_schedule(config(Overlap.ALLOW_ALL, jitter=10 * HOUR))
    due, fires_at = given.aggregate.state.next_due(ScheduleId("nightly")) or (NOON, NOON)
    assert (due, TEN <= fires_at < ELEVEN) == (TEN, True)
    just_before = fires_at - timedelta(microseconds=1)
    given.when(take_due(just_before)).then_nothing()
    given.when(take_due(fires_at)).then(taken(TEN))


def backfill(times: list[datetime], overlap: Overlap) -> Callable[[Schedule], object]:
    return lambda s: s.backfill(times, overlap, moment(running=()), at=NOON)


def test_a_backfill_takes_past_due_times_by_its_own_policy() -> None:
    given_schedule(config(), skipped(ELEVEN)).when(
        backfill([TEN, ELEVEN], Overlap.BUFFER_ALL)
    ).then(taken(TEN, manual=True), ev.ScheduleBuffered(scheduled_for=ELEVEN, manual=True))


def test_a_backfill_takes_no_action_that_was_just_taken_or_waits() -> None:
    history = config(), taken(TEN, 0), buffered(ELEVEN)
    given_schedule(*history).when(backfill([TEN, ELEVEN], Overlap.ALLOW_ALL)).then_nothing()


def test_a_backfill_goes_on_while_the_schedule_is_paused() -> None:
    history = config(), PAUSED, ev.ScheduleBuffered(scheduled_for=TEN, manual=True)
    given_schedule(*history).when(take_due()).then(taken(TEN, manual=True))


# --------------------------------------------------------------------------------- checkpoints


def test_a_command_adds_a_checkpoint_when_many_events_have_come_since_the_last() -> None:
    schedule = Schedule(ScheduleId("nightly"))
    schedule.create(config(Overlap.SKIP).config, at=AM_9)
    kinds: list[str] = []
    for hour in range(1, 131):
        now = AM_9 + hour * HOUR
        running = (now - HOUR,) if hour % 2 == 0 else ()
        events = schedule.take_due(moment(now, running=running), at=now)
        kinds += [type(event).__name__ for event in events]
    assert kinds.count("ScheduleCheckpointed") == 2
    assert [i for i, kind in enumerate(kinds) if kind == "ScheduleCheckpointed"] == [63, 127]


def test_a_checkpoint_says_all_that_the_events_before_it_do() -> None:
    schedule = Schedule(ScheduleId("nightly"))
    schedule.create(config(Overlap.BUFFER_ALL, limit=500).config, at=AM_9)
    events: list[EVENT] = []
    for hour in range(1, 90):
        now = AM_9 + hour * HOUR
        running = schedule.state.open_ids if hour % 3 else ()
        at = Moment(
            now=now,
            since=AM_9,
            running=frozenset(running),
            new_run_id=lambda hour=hour: RunId(f"r{hour}"),  # type: ignore[misc]  # bound here and now
        )
        events += schedule.take_due(at, at=now)
    cut = next(i for i, e in enumerate(events) if isinstance(e, ev.ScheduleCheckpointed))
    assert events[cut + 1 :]
    state = given_schedule(*events[cut:], at=AM_9).aggregate.state
    assert state == schedule.state
    assert state.buffered
    assert len(state.recent) == 10


def test_the_largest_checkpoint_of_the_largest_configuration_fits_in_an_event() -> None:
    most, due = LIMITS.max_event_bytes, AM_9.replace(microsecond=1)
    longest = ScheduleId("s" * LONGEST_ID)
    run_id = RunId(UUIDv7Source().new())
    taken = ev.TakenAction(scheduled_for=due, workflow_id=action_id(longest, due), run_id=run_id)
    waits = ev.WaitingAction(scheduled_for=due, previous="terminate")
    state = ScheduleState({"memo": "x" * (most // 2 - len('{"memo":""}'))}, due, due, due)
    state.pause_reason = "x" * (most // 32)
    state.buffered = [waits] * MOST_BUFFERED
    state.open, state.recent = [taken] * MOST_OPEN, [taken] * RECENT
    assert len(to_json(state.config)) == most // 2
    assert len(encode(checkpoint(state))) < most - 1_000  # the metadata are the rest

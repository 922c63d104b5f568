"""The ids of actions, and the jitter of their times: both follow from the schedule's id and the due time."""

from datetime import UTC, datetime, timedelta

import pytest

from aion_es.ids import ScheduleId
from aion_es.schedules import Interval, Spec, next_times
from aion_es.schedules.naming import action_id, schedule_of
from aion_es.schedules.times import fire_time

NIGHTLY = ScheduleId("nightly")
DUE = datetime(2026, 11, 1, 3, tzinfo=UTC)


def test_the_id_of_an_action_holds_the_schedule_and_the_due_time() -> None:
    assert action_id(NIGHTLY, DUE) == "nightly-20261101T030000Z"
    assert action_id(NIGHTLY, DUE + timedelta(microseconds=5)) == "nightly-20261101T030000.000005Z"


@pytest.mark.parametrize("schedule_id", ["nightly", "a-b", "x-20261101T030000Z", "ü ✓"])
def test_the_schedule_is_found_in_the_id_of_its_action(schedule_id: str) -> None:
    for due in (DUE, DUE + timedelta(microseconds=5)):
        assert schedule_of(action_id(ScheduleId(schedule_id), due)) == schedule_id


@pytest.mark.parametrize("workflow_id", ["order-42", "Z", "nightly-Z", "nightly-20261101T0300Z"])
def test_other_workflows_are_of_no_schedule(workflow_id: str) -> None:
    assert schedule_of(workflow_id) is None


def test_the_jitter_of_a_due_time_is_always_the_same_and_spread() -> None:
    spec = Spec(Interval(timedelta(hours=1)), jitter=timedelta(minutes=10))
    lengths = [fire_time(spec, NIGHTLY, due) - due for due in next_times(spec, DUE, 100)]
    assert lengths == [fire_time(spec, NIGHTLY, due) - due for due in next_times(spec, DUE, 100)]
    assert timedelta(0) <= min(lengths) < timedelta(minutes=1)
    assert timedelta(minutes=9) < max(lengths) < timedelta(minutes=10)
    others = [fire_time(spec, ScheduleId("other"), due) - due for due in next_times(spec, DUE, 100)]
    assert lengths != others


def test_an_action_is_never_taken_after_the_next_due_time() -> None:
    spec = Spec(Interval(timedelta(seconds=1)), jitter=timedelta(days=1))
    times = next_times(spec, DUE, 100)
    fires = [fire_time(spec, NIGHTLY, due) for due in times]
    assert all(due <= at < due + timedelta(seconds=1) for due, at in zip(times, fires, strict=True))


def test_without_jitter_an_action_is_taken_at_its_due_time() -> None:
    assert fire_time(Spec(Interval(timedelta(hours=1))), NIGHTLY, DUE) == DUE


def test_the_last_due_time_has_all_of_its_jitter() -> None:
    spec = Spec(Interval(timedelta(hours=1)), jitter=timedelta(days=365), end_at=DUE)
    assert timedelta(hours=1) < fire_time(spec, NIGHTLY, DUE) - DUE < timedelta(days=365)

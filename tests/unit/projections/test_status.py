"""What an operator sees of a projection: how far it is, how far behind, how fast, and for how long."""

from datetime import timedelta

import pytest

from aion_es.projections import ProjectionStatus, ReadModel
from aion_es.projections.checkpoints import Checkpoint
from aion_es.projections.failures import Failure
from aion_es.projections.instants import to_micros
from aion_es.projections.members import Member, Pace
from aion_es.projections.status import StoredState, StoreEnd, statuses
from aion_es.store.memory import MemoryEventStore
from aion_es.store.port import START, Position, RecordedEvent
from tests.unit.projections.histories import NOON, new_event, started
from tests.unit.projections.logs import STREAM, Log, append, runner_of, running


def at(place: int) -> Position:
    return Position(place, place)


def stored(place: int, *, beside: int | None = None, failure: Failure | None = None) -> StoredState:
    """Return a read model whose rows reach to `place`, an event of noon."""
    made = {} if beside is None else {"log": Checkpoint(2, at(beside), to_micros(NOON))}
    failed = {} if failure is None else {("log", False): failure}
    return StoredState({"log": Checkpoint(1, at(place), to_micros(NOON))}, made, failed)


def end(place: int, *, minutes: int = 0) -> StoreEnd:
    recorded_at = NOON + timedelta(minutes=minutes)
    last = RecordedEvent(*new_event(started()), STREAM, 0, at(place), recorded_at)
    return StoreEnd(at(place), last)


def status_of(
    state: StoredState, end: StoreEnd | None, member: Member | None = None, *, active: bool = False
) -> ProjectionStatus:
    (status,) = statuses([member or Member(Log())], {}, state, end, is_active=active)
    return status


def test_the_lag_is_counted_in_positions_and_in_time() -> None:
    status = status_of(stored(3), end(10, minutes=2))
    assert (status.position, status.lag, status.lag_time) == (at(3), 7, timedelta(minutes=2))
    assert not status.caught_up


def test_a_projection_that_has_everything_does_not_lag_however_old_it_is() -> None:
    status = status_of(stored(10), end(10, minutes=2))
    assert (status.lag, status.lag_time, status.time_to_catch_up) == (0, timedelta(0), timedelta(0))
    assert status.caught_up


def test_a_store_that_does_not_answer_leaves_the_lag_unknown() -> None:
    status = status_of(stored(3), None)
    assert (status.position, status.lag, status.lag_time, status.caught_up) == (
        at(3),
        None,
        None,
        False,
    )


def test_the_rate_tells_the_time_to_catch_up(monkeypatch: pytest.MonkeyPatch) -> None:
    member, now = Member(Log()), [100.0]
    monkeypatch.setattr("aion_es.projections.members.time.monotonic", lambda: now[0])
    assert status_of(stored(0), end(100), member).rate is None
    now[0] += 4
    status = status_of(stored(40), end(100), member)
    assert (status.rate, status.time_to_catch_up) == (10.0, timedelta(seconds=6))


def test_the_rate_is_that_of_the_last_seconds_and_begins_anew_after_a_step_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pace, now = Pace(), [0.0]
    monkeypatch.setattr("aion_es.projections.members.time.monotonic", lambda: now[0])
    for second, place in ((0, 0), (1, 1_000_000), (50, 1_000_000), (55, 1_000_050)):
        now[0] = second
        pace.note(at(place))
    assert pace.rate == 50 / 54  # the step of the first second is out of sight
    pace.note(START)
    assert pace.rate is None


def test_what_stops_a_projection_is_seen_from_another_process() -> None:
    failure = Failure("LookupError: x", f"ActivityScheduled {STREAM}@2", at(2))
    status = status_of(stored(1, failure=failure), end(10))
    assert (status.error, status.failed_event, status.failed_position) == (
        failure.error,
        failure.event,
        failure.position,
    )


def test_rows_that_are_made_anew_have_a_status_of_their_own() -> None:
    status = status_of(stored(10, beside=4), end(10))
    assert (status.version, status.lag) == (1, 0)
    assert status.rebuild is not None
    assert (status.rebuild.version, status.rebuild.position, status.rebuild.lag) == (2, at(4), 6)


async def test_the_active_runner_says_what_it_has_handled(
    store: MemoryEventStore, model: ReadModel
) -> None:
    runner = runner_of(store, model, Log())
    async with running(runner):
        last = await append(store, 3)
        await runner.wait_until(last.position, projection="log")
        while not (status := (await runner.status())[0]).caught_up:
            pass
    assert (status.events, status.position, status.lag) == (3, last.position, 0)
    assert (status.is_active, status.lag_time, status.error) == (True, timedelta(0), None)

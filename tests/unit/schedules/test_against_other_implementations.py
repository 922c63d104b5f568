"""Cron expressions drawn at random, over four hundred years, against another library and against a plain walk."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from aion_es.schedules import Cron, next_times

MINUTE = timedelta(minutes=1)

minutes_of_four_hundred_years = st.datetimes(
    datetime(1900, 1, 1), datetime(2300, 1, 1), timezones=st.just(UTC)
)


def fields(low: int, high: int, names: tuple[str, ...] = ()) -> st.SearchStrategy[str]:
    number = st.integers(low, high).map(str)
    single = number | st.sampled_from(names) if names else number
    # Two different ends: the other library takes `5-5/2` for `5/2`.
    pair = st.lists(st.integers(low, high), min_size=2, max_size=2, unique=True).map(sorted)
    spread = pair.map(lambda ends: f"{ends[0]}-{ends[1]}")
    step = st.integers(1, high)
    stepped = st.tuples(st.just("*") | number | spread, step).map(lambda p: f"{p[0]}/{p[1]}")
    item = st.one_of(single, spread, stepped)
    several = st.lists(item, min_size=1, max_size=3).map(",".join)
    return st.just("*") | several


MONTHS = ("JAN", "feb", "Mar", "DEC")
DAYS = ("SUN", "mon", "Tue", "SAT")
five = st.tuples(
    fields(0, 59), fields(0, 23), fields(1, 31), fields(1, 12, MONTHS), fields(0, 7, DAYS)
).map(" ".join)
six = st.tuples(fields(0, 59), five).map(" ".join)


def by_cronsim(expression: str, after: datetime) -> list[datetime]:
    try:
        return list(islice(CronSim(expression, after), 3))
    except (CronSimError, StopIteration):
        return []  # it gives up after fifty years, and refuses what never comes


@settings(max_examples=1_000, deadline=None)
@given(five | six, minutes_of_four_hundred_years)
@example("0 0 29 2 *", datetime(2096, 3, 1, tzinfo=UTC))
def test_the_next_times_are_those_of_the_other_library(expression: str, after: datetime) -> None:
    theirs = by_cronsim(expression, after)
    assume(theirs)
    assert next_times(Cron(expression), after, len(theirs)) == theirs


ZONES = (
    "Europe/Vienna",
    "America/New_York",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Africa/Casablanca",
)


def by_walking(
    expression: str, zone: ZoneInfo, after: datetime, minutes: int
) -> Iterator[datetime]:
    """Walk through the local minutes of some days, and say when each is due by the rule of the guide."""
    pattern = Cron(expression).pattern
    # Begin well before, so that local minutes that belong to an instant after `after` are all seen.
    wall = (
        (after - timedelta(days=2)).astimezone(zone).replace(tzinfo=None, second=0, microsecond=0)
    )
    seen: set[datetime] = set()
    for _ in range(minutes + 4 * 24 * 60):
        wall += MINUTE
        if not pattern.matches(wall):
            continue
        first = wall.replace(tzinfo=zone, fold=0)
        due = first.astimezone(UTC)
        if (
            due.astimezone(zone).replace(tzinfo=None) != wall
        ):  # skipped: the next minute that exists
            ahead = wall
            while (
                ahead.replace(tzinfo=zone).astimezone(UTC).astimezone(zone).replace(tzinfo=None)
                != ahead
            ):
                ahead += MINUTE
            due = ahead.replace(tzinfo=zone, fold=0).astimezone(UTC)
        if due > after and due not in seen:
            seen.add(due)
            yield due


@settings(max_examples=150, deadline=None)
@given(
    st.tuples(fields(0, 59), fields(0, 5), st.just("* * *")).map(" ".join),
    st.sampled_from(ZONES),
    st.sampled_from(
        [
            datetime(2026, 3, 29, 1, tzinfo=UTC),
            datetime(2026, 10, 25, 1, tzinfo=UTC),
            datetime(2026, 3, 8, 7, tzinfo=UTC),
            datetime(2026, 11, 1, 6, tzinfo=UTC),
            datetime(2026, 4, 4, 15, tzinfo=UTC),
            datetime(2026, 10, 3, 15, 30, tzinfo=UTC),
            datetime(2011, 12, 30, 10, tzinfo=UTC),
        ]
    ),
    st.integers(-36 * 60, 3 * 60),
)
def test_around_a_change_of_the_clocks_every_local_minute_is_due_once(
    expression: str, zone: str, change: datetime, offset: int
) -> None:
    after = change + offset * MINUTE
    walked = list(islice(by_walking(expression, ZoneInfo(zone), after, 24 * 60), 5))
    assert next_times(Cron(expression, tz=zone), after, len(walked)) == walked

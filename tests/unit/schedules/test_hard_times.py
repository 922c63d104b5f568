"""The due times that calendars and clocks make hard, one row each."""

from datetime import UTC, datetime, timedelta

import pytest

from aion_es.schedules import Calendar, Cron, Interval, Spec, next_times, times_between

Form = Spec | Cron | Interval | Calendar


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def rows(*table: tuple[str, Form, str, str]) -> list[object]:
    return [pytest.param(form, after, due, id=name) for name, form, after, due in table]


VIENNA = "Europe/Vienna"
"""Forward at 2026-03-29T01:00Z (02:00 → 03:00), back at 2026-10-25T01:00Z (03:00 → 02:00)."""
LORD_HOWE = "Australia/Lord_Howe"
"""Half an hour: back at 2026-04-04T15:00Z (02:00 → 01:30), forward at 2026-10-03T15:30Z (02:00 → 02:30)."""


@pytest.mark.parametrize(
    ("form", "after", "due"),
    rows(
        ("29 February", Cron("0 0 29 2 *"), "2026-01-01", "2028-02-29 2032-02-29"),
        ("29 February over 2100", Cron("0 0 29 2 *"), "2096-02-29", "2104-02-29 2108-02-29"),
        ("29 February of 2000", Cron("0 0 29 2 *"), "1999-01-01", "2000-02-29 2004-02-29"),
        (
            "29 February that is a Monday",
            Calendar(month="FEB", day=29, day_of_week="MON"),
            "2026-01-01",
            "2044-02-29 2072-02-29",
        ),
        ("31st", Cron("0 0 31 * *"), "2026-01-31", "2026-03-31 2026-05-31 2026-07-31 2026-08-31"),
        ("30th", Cron("0 0 30 * *"), "2026-01-30", "2026-03-30 2026-04-30"),
        ("end of the year", Cron("59 23 31 12 *"), "2026-12-31T23:58", "2026-12-31T23:59 2027-12-31T23:59"),
        ("into the new year", Cron("*/30 * * * *"), "2026-12-31T23:29", "2026-12-31T23:30 2027-01-01T00:00"),
        ("last second of the year", Cron("59 59 23 31 12 *"), "2026-01-01", "2026-12-31T23:59:59"),
        ("13th or Friday", Cron("0 0 13 * FRI"), "2026-11-10", "2026-11-13 2026-11-20 2026-11-27 2026-12-04 2026-12-11 2026-12-13"),
        ("13th and Friday", Calendar(day=13, day_of_week="FRI"), "2026-01-01", "2026-02-13 2026-03-13 2026-11-13 2027-08-13"),
        ("every other day and Sunday", Cron("0 0 */2 * SUN"), "2026-11-01", "2026-11-15 2026-11-29 2026-12-13"),
        ("Sunday is 7", Cron("0 0 * * 7"), "2026-11-01", "2026-11-08"),
        ("weekday range into Sunday", Cron("0 0 * * FRI-SUN"), "2026-11-05", "2026-11-06 2026-11-07 2026-11-08 2026-11-13"),
        ("exclusive of after", Cron("0 3 * * *"), "2026-11-24T03:00", "2026-11-25T03:00"),
        ("a fraction after", Cron("* * * * * *"), "2026-11-24T03:00:00.000001", "2026-11-24T03:00:01"),
        ("a fraction before", Cron("0 3 * * *"), "2026-11-24T02:59:59.999999", "2026-11-24T03:00"),
        # Clocks put forward: what is skipped is due once, at the change.
        ("skipped", Cron("30 2 * * *", tz=VIENNA), "2026-03-28T12:00", "2026-03-29T01:00 2026-03-30T00:30"),
        ("skipped several", Cron("*/10 2 * * *", tz=VIENNA), "2026-03-28T12:00", "2026-03-29T01:00 2026-03-30T00:00"),
        ("skipped beside the change", Cron("30 2,3 * * *", tz=VIENNA), "2026-03-28T12:00", "2026-03-29T01:00 2026-03-29T01:30"),
        ("skipped onto another", Cron("0 2,3 * * *", tz=VIENNA), "2026-03-28T12:00", "2026-03-29T01:00 2026-03-30T00:00"),
        ("after the change", Cron("30 2 * * *", tz=VIENNA), "2026-03-29T01:00", "2026-03-30T00:30"),
        ("within the skipped hour", Cron("* * * * *", tz=VIENNA), "2026-03-29T00:58", "2026-03-29T00:59 2026-03-29T01:00 2026-03-29T01:01"),
        # Clocks put back: what is repeated is due once, the first time.
        ("repeated", Cron("30 2 * * *", tz=VIENNA), "2026-10-24T12:00", "2026-10-25T00:30 2026-10-26T01:30"),
        ("repeated, asked in between", Cron("30 2 * * *", tz=VIENNA), "2026-10-25T00:45", "2026-10-26T01:30"),
        ("repeated, asked in the second pass", Cron("30 2 * * *", tz=VIENNA), "2026-10-25T01:10", "2026-10-26T01:30"),
        ("repeated hour", Cron("0 * * * *", tz=VIENNA), "2026-10-24T23:30", "2026-10-25T00:00 2026-10-25T02:00"),
        ("every second in the second pass", Cron("* * * * * *", tz=VIENNA), "2026-10-25T01:00:10.5", "2026-10-25T02:00:00 2026-10-25T02:00:01"),
        ("even distances instead", Interval(timedelta(hours=1)), "2026-10-24T23:30", "2026-10-25T00:00 2026-10-25T01:00 2026-10-25T02:00"),
        ("half an hour back", Cron("*/15 * * * *", tz=LORD_HOWE), "2026-04-04T14:20", "2026-04-04T14:30 2026-04-04T14:45 2026-04-04T15:30"),
        ("half an hour forward", Cron("*/15 2 * * *", tz=LORD_HOWE), "2026-10-03T12:00", "2026-10-03T15:30 2026-10-03T15:45 2026-10-04T15:00"),
        # Samoa had no 30 December 2011: the change was at 10:00Z on the 30th.
        ("a day that was left out", Cron("0 12 30 12 *", tz="Pacific/Apia"), "2011-12-01", "2011-12-30T10:00 2012-12-29T22:00"),
        ("a change at midnight", Cron("0 0 * * *", tz="America/Havana"), "2026-03-07T12:00", "2026-03-08T05:00 2026-03-09T04:00"),
        ("a zone without changes", Cron("0 3 * * *", tz="Asia/Kolkata"), "2026-11-24", "2026-11-24T21:30"),
        ("interval with offset", Interval(timedelta(hours=6), timedelta(hours=1)), "2026-11-24T01:00", "2026-11-24T07:00 2026-11-24T13:00"),
        ("interval before 1970", Interval(timedelta(days=1)), "1969-12-30T12:00", "1969-12-31 1970-01-01"),
        ("year of a calendar", Calendar(year=2028, month=1, day=1, hour="12"), "2026-01-01", "2028-01-01T12:00"),
    ),
)  # fmt: skip
def test_the_next_times_are_these(form: Form, after: str, due: str) -> None:
    expected = [at(text) for text in due.split(" ")]
    assert next_times(form, at(after), len(expected)) == expected


@pytest.mark.parametrize(
    "form",
    [
        pytest.param(Cron("0 0 30 2 *"), id="30 February"),
        pytest.param(Cron("0 0 31 4,6,9,11 *"), id="31st of a short month"),
        pytest.param(Calendar(year=2026, month=1), id="a year that is over"),
        pytest.param(Calendar(month=2, day=29, year="2027"), id="29 February of a common year"),
        pytest.param(Spec(Cron("* * * * *"), end_at=at("2026-11-24")), id="over"),
        pytest.param(Spec(Cron("0 3 * * *"), exclude=[Cron("* * * * *")]), id="all excluded"),
        pytest.param(Spec(Cron("* * * * * *"), exclude=[Calendar()]), id="all of it excluded"),
        pytest.param(
            Spec(Cron("* * * * * *"), exclude=[Cron("0-29 * * * * *"), Cron("30-59 * * * * *")]),
            id="all excluded second by second",
        ),
    ],
)
def test_what_is_never_due_ends(form: Form) -> None:
    assert next_times(form, at("2026-11-24T12:00"), 3) == []


def test_the_calendar_ends_with_the_year_9999() -> None:
    assert next_times(Cron("0 0 1 1 *"), at("9998-06-01"), 3) == [at("9999-01-01")]
    assert next_times(Interval(timedelta(days=100_000)), at("9998-06-01"), 3) == []
    assert next_times(Cron("@daily", tz="America/Adak"), at("9999-12-31T09:00"), 3) == [
        at("9999-12-31T10:00")
    ]


def test_several_forms_make_a_schedule_due_once_at_each_instant() -> None:
    spec = Spec([Cron("0 */6 * * *"), Interval(timedelta(hours=8)), Cron("0 12 * * *")])
    hours = [due.hour for due in next_times(spec, at("2026-11-24"), 6)]
    assert hours == [6, 8, 12, 16, 18, 0]


@pytest.mark.parametrize(
    ("exclude", "hours"),
    [
        pytest.param(Calendar(hour="9-11"), [8, 12, 13], id="calendar"),
        pytest.param(Calendar(month="NOV", day=24), [0, 1, 2], id="a whole day"),
        pytest.param(Cron("0 9-11 * * *"), [8, 12, 13], id="cron"),
        pytest.param(Cron("30 9-11 * * *"), [8, 9, 10], id="cron that matches none"),
        pytest.param(Interval(timedelta(hours=2)), [9, 11, 13], id="interval"),
        pytest.param(Calendar(hour="9-11", tz="Asia/Tokyo"), [8, 9, 10], id="another zone"),
        pytest.param(Calendar(hour="17-18", tz="Asia/Tokyo"), [10, 11, 12], id="that zone's hours"),
    ],
)
def test_what_is_excluded_is_not_due(exclude: Form, hours: list[int]) -> None:
    assert not isinstance(exclude, Spec)
    spec = Spec(Cron("0 * * * *"), exclude=[exclude])
    assert [due.hour for due in next_times(spec, at("2026-11-24T07:30"), 3)] == hours


def test_an_exclusion_of_five_fields_takes_the_whole_minute() -> None:
    spec = Spec(Cron("*/20 * * * * *"), exclude=[Cron("0 12 * * *")])
    assert next_times(spec, at("2026-11-24T11:59:30"), 2) == [
        at("2026-11-24T11:59:40"),
        at("2026-11-24T12:01:00"),
    ]


def test_nothing_is_due_before_the_start_or_after_the_end() -> None:
    spec = Spec(Cron("0 * * * *"), start_at=at("2026-11-24T09:00"), end_at=at("2026-11-24T11:00"))
    expected = [at("2026-11-24T09:00"), at("2026-11-24T10:00"), at("2026-11-24T11:00")]
    assert next_times(spec, at("2026-11-24"), 9) == expected
    assert next_times(spec, at("2026-11-24T10:00"), 9) == expected[2:]


def test_the_times_between_exclude_the_beginning_and_include_the_end() -> None:
    found = times_between(Cron("0 * * * *"), at("2026-11-24T09:00"), at("2026-11-24T11:00"))
    assert list(found) == [at("2026-11-24T10:00"), at("2026-11-24T11:00")]


def test_after_may_be_in_any_zone() -> None:
    after = datetime.fromisoformat("2026-11-24T04:30+02:00")
    assert next_times(Cron("0 3 * * *"), after, 1) == [at("2026-11-24T03:00")]

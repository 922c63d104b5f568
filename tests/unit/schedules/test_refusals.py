"""What is no specification is refused, and the error points at the character."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from aion_es.errors import InvalidArgumentError, ScheduleSpecError
from aion_es.schedules import Calendar, Cron, Interval, Spec

HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("expression", "position"),
    [
        ("", 0),
        ("* * * *", 7),
        ("* * * * * * *", 12),
        ("60 * * * *", 0),
        ("0 24 * * *", 2),
        ("0 0 0 * *", 4),
        ("0 0 32 * *", 4),
        ("0 0 1 13 *", 6),
        ("0 0 1 0 *", 6),
        ("0 0 * * 8", 8),
        ("60 0 0 * * *", 0),
        ("0 0 1,5,x * *", 8),
        ("0 0 1,,5 * *", 6),
        ("0 0 10-5 * *", 4),
        ("0 0 5-x * *", 6),
        ("0 0 1-32 * *", 6),
        ("*/0 * * * *", 2),
        ("*/x * * * *", 2),
        ("*/ * * * *", 2),
        ("-5 * * * *", 0),
        ("5- * * * *", 2),
        ("0 0 * FEBR *", 6),
        ("0 0 * * L", 8),
        ("0  0   1-x * *", 9),
        ("٣ * * * *", 0),
        ("1000000000000 * * * *", 0),
        ("@reboot", 0),
        ("@daily 5", 7),
    ],
)
def test_a_cron_expression_is_refused_at_the_character(expression: str, position: int) -> None:
    with pytest.raises(ScheduleSpecError) as refused:
        Cron(expression)
    assert (refused.value.spec, refused.value.position) == (expression, position)


def test_the_error_says_what_is_wrong_and_where() -> None:
    with pytest.raises(ScheduleSpecError) as refused:
        Cron("0 3 * 13 *")
    assert str(refused.value) == "'0 3 * 13 *': month must be 1–12, got 13, at character 6"


@pytest.mark.parametrize(
    ("zone", "position"),
    [
        ("Europe/Wien", 7),
        ("Europe", 0),
        ("Mars/Base", 0),
        ("America/Argentina/Nowhere", 18),
        ("", 0),
        ("../../etc/passwd", 0),
        ("localtime", 0),
        ("posix/Europe/Vienna", 0),
    ],
)
@pytest.mark.parametrize("form", [lambda tz: Cron("@daily", tz=tz), lambda tz: Calendar(tz=tz)])
def test_a_time_zone_is_refused_at_its_first_unknown_part(
    form: Callable[[str], object], zone: str, position: int
) -> None:
    with pytest.raises(ScheduleSpecError) as refused:
        form(zone)
    assert (refused.value.spec, refused.value.position) == (zone, position)


@pytest.mark.parametrize(
    ("fields", "text", "position"),
    [
        ({"hour": 24}, "24", 0),
        ({"day": [1, 15, 32]}, "1,15,32", 5),
        ({"day": -1}, "-1", 0),
        ({"month": "JAN-FOO"}, "JAN-FOO", 4),
        ({"year": 1969}, "1969", 0),
        ({"day": []}, "", 0),
    ],
)
def test_a_calendar_is_refused_at_the_character_of_its_field(
    fields: dict[str, object], text: str, position: int
) -> None:
    with pytest.raises(ScheduleSpecError) as refused:
        Calendar(**fields)  # type: ignore[arg-type]  # the table's fields have several types
    assert (refused.value.spec, refused.value.position) == (text, position)


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        pytest.param(lambda: Interval(timedelta(0)), "every", id="no distance"),
        pytest.param(lambda: Interval(timedelta(seconds=1.5)), "every", id="a fraction"),
        pytest.param(
            lambda: Interval(HOUR, timedelta(microseconds=1)), "offset", id="an offset of one"
        ),
        pytest.param(lambda: Interval(HOUR, HOUR), "offset", id="offset too long"),
        pytest.param(lambda: Interval(HOUR, -HOUR), "offset", id="offset negative"),
        pytest.param(lambda: Spec([]), "times", id="no form"),
        pytest.param(lambda: Spec(Interval(HOUR), jitter=-HOUR), "jitter", id="jitter negative"),
        pytest.param(lambda: Spec(Interval(HOUR), limit=0), "limit", id="no action"),
        pytest.param(
            lambda: Spec(Interval(HOUR), start_at=datetime(2026, 11, 24)), "start_at", id="naive"
        ),
        pytest.param(
            lambda: Spec(
                Interval(HOUR),
                start_at=datetime(2026, 11, 24, tzinfo=UTC),
                end_at=datetime(2026, 11, 23, tzinfo=UTC),
            ),
            "end_at",
            id="ends before it starts",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(make: Callable[[], object], argument: str) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        make()
    assert refused.value.argument == argument

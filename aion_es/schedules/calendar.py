"""Calendars: local times given field by field."""

from collections.abc import Sequence
from datetime import tzinfo
from functools import cached_property
from typing import Final, TypeAlias

from aion_es.schedules.fields import (
    DAY,
    HOUR,
    MINUTE,
    MONTH,
    SECOND,
    WEEKDAY,
    YEAR,
    Field,
    FieldText,
)
from aion_es.schedules.form import SpecForm
from aion_es.schedules.walltime import WallPattern
from aion_es.schedules.zones import zone_of

FieldValue: TypeAlias = int | str | Sequence[int | str]
"""A number, a text as in a field of a cron expression (`MON-FRI`, `*/15`), or several of them."""

_ALL: Final = "*"


class Calendar(SpecForm):
    """Due at the local times whose every given field matches.

    A year, month, day or weekday that is not given may be any; an hour, minute or second that is not given is
    0. So `Calendar(day=1)` is midnight on the first of each month. As an exclusion a field that is not given may be
    any: `exclude=[Calendar(month=12, day=25)]` excludes the whole of Christmas Day. Day and weekday must
    both match. Changes of the clocks are as in `Cron`.

    Attributes:
        year: 1970–9999.
        month: 1–12, or `JAN`–`DEC`.
        day: 1–31; a month without it has none.
        day_of_week: 0–7 or `SUN`–`SAT`; 0 and 7 are Sunday.
        hour: 0–23.
        minute: 0–59.
        second: 0–59.
        tz: IANA name of the time zone.
    """

    year: str | None = None
    month: str | None = None
    day: str | None = None
    day_of_week: str | None = None
    hour: str | None = None
    minute: str | None = None
    second: str | None = None
    tz: str = "UTC"

    def __init__(
        self,
        *,
        year: FieldValue | None = None,
        month: FieldValue | None = None,
        day: FieldValue | None = None,
        day_of_week: FieldValue | None = None,
        hour: FieldValue | None = None,
        minute: FieldValue | None = None,
        second: FieldValue | None = None,
        tz: str = "UTC",
    ) -> None:
        """Check and keep it.

        Raises:
            ScheduleSpecError: A field or the time zone is not understood; names the character in its text.
        """
        super().__init__(
            year=_text(year),
            month=_text(month),
            day=_text(day),
            day_of_week=_text(day_of_week),
            hour=_text(hour),
            minute=_text(minute),
            second=_text(second),
            tz=tz,
        )
        _ = self.pattern, zone_of(tz)

    @cached_property
    def pattern(self) -> WallPattern:
        """The local times at which it is due."""
        return self._pattern("0")

    @cached_property
    def stretches(self) -> WallPattern:
        """The local times that it excludes as an exclusion."""
        return self._pattern(_ALL)

    def _pattern(self, unsaid_time: str) -> WallPattern:
        return WallPattern(
            seconds=_values(SECOND, self.second, unsaid_time),
            minutes=_values(MINUTE, self.minute, unsaid_time),
            hours=_values(HOUR, self.hour, unsaid_time),
            days=frozenset(_values(DAY, self.day, _ALL)),
            months=_values(MONTH, self.month, _ALL),
            weekdays=frozenset(_values(WEEKDAY, self.day_of_week, _ALL)),
            years=None if self.year is None else _values(YEAR, self.year, _ALL),
        )

    @property
    def zone(self) -> tzinfo:
        """The time zone."""
        return zone_of(self.tz)


def _text(value: FieldValue | None) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return ",".join(str(item) for item in value) if isinstance(value, Sequence) else str(value)


def _values(field: Field, text: str | None, unsaid: str) -> tuple[int, ...]:
    said = unsaid if text is None else text
    return FieldText(field, said, said).values()

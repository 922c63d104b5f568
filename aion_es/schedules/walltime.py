"""Wall-clock patterns: which local times match, which comes next, and which instant a local time is.

A time zone makes two hard days a year. A local time that does not exist because clocks were put forward
stands for the instant of the change. One that exists twice because they were put back stands for the
first. So every local time is one instant, the order of local times is the order of their instants, and
a pattern fires once for each.
"""

from bisect import bisect_left
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Final

_SECOND: Final = timedelta(seconds=1)
_CYCLE: Final = 400
"""Years after which the Gregorian calendar repeats, weekdays included: what does not come within, never comes."""
_LENGTHS: Final = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


@dataclass(frozen=True, slots=True)
class WallPattern:
    """Local times to the second, as one set of numbers for each field.

    Attributes:
        seconds: In order, as are the others.
        days: Days of the month.
        weekdays: Sunday is 0.
        either_day: A day matches by `days` or by `weekdays`; else it must by both.
        years: `None` for every year.
    """

    seconds: tuple[int, ...]
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: tuple[int, ...]
    weekdays: frozenset[int]
    either_day: bool = False
    years: tuple[int, ...] | None = None
    _days_by_shape: dict[tuple[int, int], tuple[int, ...]] = field(
        default_factory=dict[tuple[int, int], tuple[int, ...]], compare=False, repr=False
    )

    def matches(self, wall: datetime) -> bool:
        """Return whether a local time is of the pattern; its fraction of a second is not looked at."""
        return (
            wall.second in self.seconds
            and wall.minute in self.minutes
            and wall.hour in self.hours
            and self._is_day(wall)
        )

    def first_from(self, wall: datetime) -> datetime | None:
        """Return the first local time of the pattern at or after `wall`, which has whole seconds; `None` if none comes."""
        if self._is_day(wall):
            time = self._time_from(wall.hour, wall.minute, wall.second)
            if time is not None:
                return datetime(wall.year, wall.month, wall.day, *time)  # noqa: DTZ001 - a local time
        day = self._day_after(wall)
        if day is None:
            return None
        first = self.hours[0], self.minutes[0], self.seconds[0]
        return datetime(*day, *first)  # noqa: DTZ001 - a local time

    def end_of_block(self, wall: datetime) -> datetime:
        """Return where the unbroken stretch of matching local times around `wall` may first end, at least a second on."""
        if len(self.seconds) < 60:
            return wall.replace(microsecond=0) + _SECOND
        if len(self.minutes) < 60:
            return wall.replace(second=0, microsecond=0) + timedelta(minutes=1)
        if len(self.hours) < 24:
            return wall.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
        return wall.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)

    def _is_day(self, wall: datetime) -> bool:
        return (
            wall.month in self.months
            and (self.years is None or wall.year in self.years)
            and wall.day in self._days_of(wall.year, wall.month)
        )

    def _time_from(self, hour: int, minute: int, second: int) -> tuple[int, int, int] | None:
        hours, minutes, seconds = self.hours, self.minutes, self.seconds
        at = bisect_left(hours, hour)
        if at == len(hours):
            return None
        if hours[at] > hour:
            return hours[at], minutes[0], seconds[0]
        of = bisect_left(minutes, minute)
        if of < len(minutes) and minutes[of] == minute:
            to = bisect_left(seconds, second)
            if to < len(seconds):
                return hour, minute, seconds[to]
            of += 1
        if of < len(minutes):
            return hour, minutes[of], seconds[0]
        return (hours[at + 1], minutes[0], seconds[0]) if at + 1 < len(hours) else None

    def _day_after(self, wall: datetime) -> tuple[int, int, int] | None:
        if self.years is not None:
            years = [year for year in self.years if year >= wall.year]
        else:
            years = list(range(wall.year, min(wall.year + _CYCLE, 9999) + 1))
        for year in years:
            for month in self.months:
                if (year, month) < (wall.year, wall.month):
                    continue
                days = self._days_of(year, month)
                if (year, month) == (wall.year, wall.month):
                    days = days[bisect_left(days, wall.day + 1) :]
                if days:
                    return year, month, days[0]
        return None

    def _days_of(self, year: int, month: int) -> tuple[int, ...]:
        """Return the matching days of a month. Months differ in length and first weekday only."""
        is_leap = month == 2 and year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
        length = _LENGTHS[month - 1] + is_leap
        first = date(year, month, 1).isoweekday() % 7
        known = self._days_by_shape.get((length, first))
        if known is None:
            known = tuple(d for d in range(1, length + 1) if self._has(d, (first + d - 1) % 7))
            self._days_by_shape[length, first] = known
        return known

    def _has(self, day: int, weekday: int) -> bool:
        if self.either_day:
            return day in self.days or weekday in self.weekdays
        return day in self.days and weekday in self.weekdays


def next_instant(pattern: WallPattern, zone: tzinfo, after: datetime) -> datetime | None:
    """Return the first instant after `after` at which a local time of the pattern falls; `None` if none comes.

    Args:
        pattern: The local times.
        zone: Where they are local.
        after: In UTC; exclusive.
    """
    try:
        wall = _first_unfired(zone, after)
        while True:
            found = pattern.first_from(wall)
            if found is None:
                return None
            instant = to_instant(found, zone)
            if instant > after:
                return instant
            wall = found + _SECOND
    except OverflowError:  # past the year 9999
        return None


def to_instant(wall: datetime, zone: tzinfo) -> datetime:
    """Return the instant in UTC that a naive local time stands for; see the module's text."""
    if zone is UTC:
        return wall.replace(tzinfo=UTC)
    before, after = _offsets(wall, zone)
    if before >= after:  # the usual case, or clocks were put back: the first of the two
        return (wall - before).replace(tzinfo=UTC)
    begin, end = (wall - after).replace(tzinfo=UTC), (wall - before).replace(tzinfo=UTC)
    return _change_between(zone, begin, end)


def _first_unfired(zone: tzinfo, after: datetime) -> datetime:
    """Return the local time, in whole seconds, from which on none has fired by `after`."""
    local = after.astimezone(zone)
    wall = local.replace(tzinfo=None, fold=0)
    if local.fold:  # the clocks show again what they showed before: that has fired
        before, second = _offsets(wall, zone)
        change = _change_between(zone, after - (before - second), after)
        return (change + before).replace(tzinfo=None)
    return wall.replace(microsecond=0) + _SECOND


def _offsets(wall: datetime, zone: tzinfo) -> tuple[timedelta, timedelta]:
    """Return the offset before and after a change of the clocks that concerns `wall`; the same if none does."""
    first = wall.replace(tzinfo=zone).utcoffset()
    second = wall.replace(tzinfo=zone, fold=1).utcoffset()
    return first or timedelta(0), second or timedelta(0)


def _change_between(zone: tzinfo, begin: datetime, end: datetime) -> datetime:
    """Return the first instant after `begin` that has the offset of `end`, to the second."""
    offset = end.astimezone(zone).utcoffset()
    low, high = begin.replace(microsecond=0), end.replace(microsecond=0)
    while high - low > _SECOND:
        middle = low + (high - low) // 2
        middle = middle.replace(microsecond=0)
        if middle.astimezone(zone).utcoffset() == offset:
            high = middle
        else:
            low = middle
    return high

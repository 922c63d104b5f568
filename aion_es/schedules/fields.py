"""The fields of a cron expression or a calendar: seconds, minutes, hours, days, months, weekdays, years, and their text."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NoReturn

from aion_es.errors import ScheduleSpecError

_MONTHS: Final = [
    "JAN",
    "FEB",
    "MAR",
    "APR",
    "MAY",
    "JUN",
    "JUL",
    "AUG",
    "SEP",
    "OCT",
    "NOV",
    "DEC",
]
_WEEKDAYS: Final = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]


@dataclass(frozen=True, slots=True)
class Field:
    """One field: what it may hold, both ends included, and the names that stand for numbers."""

    name: str
    low: int
    high: int
    names: Mapping[str, int] = field(default_factory=dict[str, int])


SECOND: Final = Field("second", 0, 59)
MINUTE: Final = Field("minute", 0, 59)
HOUR: Final = Field("hour", 0, 23)
DAY: Final = Field("day", 1, 31)
MONTH: Final = Field("month", 1, 12, {name: n for n, name in enumerate(_MONTHS, 1)})
WEEKDAY: Final = Field("day_of_week", 0, 7, {name: n for n, name in enumerate(_WEEKDAYS)})
"""Sunday is 0, and 7 as well."""
YEAR: Final = Field("year", 1970, 9999)


@dataclass(frozen=True, slots=True)
class FieldText:
    """A field's text where it stands, so that an error can point into what the user wrote.

    Attributes:
        field: What it is the text of.
        text: `*`, or numbers, names, ranges `a-b` and steps `*/n`, `a/n`, `a-b/n`, with commas in between.
        whole: What it is a part of.
        position: Of its first character in `whole`.
    """

    field: Field
    text: str
    whole: str
    position: int = 0

    def values(self) -> tuple[int, ...]:
        """Return the numbers that the text stands for, in order, each once.

        Raises:
            ScheduleSpecError: It is not of that form; names the character.
        """
        found: set[int] = set()
        for start, item in _split(self.text, ","):
            found.update(self._item(start, item))
        if self.field is WEEKDAY and 7 in found:
            found = (found - {7}) | {0}
        return tuple(sorted(found))

    def _item(self, start: int, item: str) -> range:
        base, slash, step = item.partition("/")
        low, high = self._range(start, base, open_end=bool(slash))
        if not slash:
            return range(low, high + 1)
        after_slash = start + len(base) + 1
        by = self._digits(after_slash, step, "a step")
        if by == 0:
            self._refuse(after_slash, "a step must be at least 1")
        return range(low, high + 1, by)

    def _range(self, start: int, text: str, *, open_end: bool) -> tuple[int, int]:
        if text == "*":
            return self.field.low, self.field.high
        first, dash, last = text.partition("-")
        low = self._number(start, first)
        if not dash:
            return low, self.field.high if open_end else low
        high = self._number(start + len(first) + 1, last)
        if self.field is WEEKDAY and high == 0 < low:
            high = 7  # FRI-SUN
        if high < low:
            self._refuse(start, f"{self.field.name} range {text!r} ends before it begins")
        return low, high

    def _number(self, start: int, text: str) -> int:
        named = self.field.names.get(text.upper())
        if named is not None:
            return named
        number = self._digits(start, text, f"a {self.field.name}")
        if not self.field.low <= number <= self.field.high:
            bounds = f"{self.field.low}–{self.field.high}"
            self._refuse(start, f"{self.field.name} must be {bounds}, got {number}")
        return number

    def _digits(self, start: int, text: str, what: str) -> int:
        if not (text.isascii() and text.isdecimal() and len(text) <= 9):
            self._refuse(start, f"expected {what}, got {text!r}" if text else f"expected {what}")
        return int(text)

    def _refuse(self, start: int, reason: str) -> NoReturn:
        raise ScheduleSpecError(self.whole, self.position + start, reason)


def _split(text: str, separator: str) -> Iterator[tuple[int, str]]:
    start = 0
    for part in text.split(separator):
        yield start, part
        start += len(part) + 1

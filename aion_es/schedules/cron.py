"""Cron expressions: five fields, or six with seconds first, in a time zone."""

import re
from functools import lru_cache
from typing import Final

from aion_es.errors import ScheduleSpecError
from aion_es.schedules.fields import DAY, HOUR, MINUTE, MONTH, SECOND, WEEKDAY, FieldText
from aion_es.schedules.form import SpecForm
from aion_es.schedules.walltime import WallPattern
from aion_es.schedules.zones import zone_of

_FIELDS: Final = (SECOND, MINUTE, HOUR, DAY, MONTH, WEEKDAY)
_NICKNAMES: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_ANY_SECOND: Final = tuple(range(60))


class Cron(SpecForm):
    """Due at the local times that a cron expression matches.

    Five fields (minute, hour, day of month, month, day of week), or six with the second before them. A field
    is `*`, or numbers, names (`JAN`, `MON`), ranges `a-b`, steps `*/n`, `a/n` and `a-b/n`, with commas in
    between. Sunday is 0 or 7. If day of month and day of week are both restricted, that is, neither begins with
    `*`, a day matches by either; else it must match both. Nicknames: `@yearly` (`@annually`), `@monthly`, `@weekly`,
    `@daily` (`@midnight`), `@hourly`.

    A local time that is skipped when clocks are put forward is due once, at the change. One that is repeated
    when they are put back is due once, the first time. So `0 * * * *` is due 23 and 24 times on those days; for
    even distances take an `Interval`.

    Attributes:
        cron: The expression.
        tz: IANA name of the time zone.
    """

    cron: str
    tz: str = "UTC"

    def __init__(self, cron: str, tz: str = "UTC") -> None:
        """Check and keep it.

        Raises:
            ScheduleSpecError: The expression or the time zone is not understood; names the character.
        """
        super().__init__(cron=cron, tz=tz)
        pattern_of(cron)
        zone_of(tz)

    @property
    def pattern(self) -> WallPattern:
        """The local times at which it is due."""
        return pattern_of(self.cron)

    @property
    def stretches(self) -> WallPattern:
        """The local times that it excludes as an exclusion: of five fields, whole minutes."""
        return stretches_of(self.cron)


@lru_cache(maxsize=4096)
def pattern_of(expression: str) -> WallPattern:
    """Return the local times that a cron expression matches.

    Raises:
        ScheduleSpecError: It is not understood; names the character.
    """
    return _parsed(expression, (0,))


@lru_cache(maxsize=4096)
def stretches_of(expression: str) -> WallPattern:
    """Return the same with every second of a minute that five fields match.

    Raises:
        ScheduleSpecError: It is not understood; names the character.
    """
    return _parsed(expression, _ANY_SECOND)


def _parsed(expression: str, unsaid_seconds: tuple[int, ...]) -> WallPattern:
    texts = _texts(expression)
    values = [text.values() for text in texts]
    seconds = values.pop(0) if len(values) == 6 else unsaid_seconds
    minutes, hours, days, months, weekdays = values
    either = not texts[-3].text.startswith("*") and not texts[-1].text.startswith("*")
    return WallPattern(
        seconds, minutes, hours, frozenset(days), months, frozenset(weekdays), either_day=either
    )


def _texts(expression: str) -> list[FieldText]:
    """Return the fields of an expression, five or six, each where it stands."""
    found = list(re.finditer(r"\S+", expression))
    if found and found[0].group().startswith("@"):
        if len(found) > 1:
            raise ScheduleSpecError(expression, found[1].start(), "nothing may follow a nickname")
        return _of_nickname(expression, found[0])
    if len(found) < 5:
        raise ScheduleSpecError(
            expression, len(expression), f"expected 5 or 6 fields, found {len(found)}"
        )
    if len(found) > 6:
        raise ScheduleSpecError(
            expression, found[6].start(), f"expected 5 or 6 fields, found {len(found)}"
        )
    return [
        FieldText(field, match.group(), expression, match.start())
        for field, match in zip(_FIELDS[-len(found) :], found, strict=True)
    ]


def _of_nickname(expression: str, found: re.Match[str]) -> list[FieldText]:
    meant = _NICKNAMES.get(found.group().lower())
    if meant is None:
        known = ", ".join(_NICKNAMES)
        raise ScheduleSpecError(
            expression, found.start(), f"unknown nickname {found.group()!r}; known are {known}"
        )
    return [
        FieldText(field, text, meant)
        for field, text in zip(_FIELDS[1:], meant.split(), strict=True)
    ]

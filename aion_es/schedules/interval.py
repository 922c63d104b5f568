"""Intervals: even distances, counted from 1970 in UTC."""

from datetime import UTC, datetime, timedelta
from typing import Final

from aion_es.errors import InvalidArgumentError
from aion_es.schedules.form import SpecForm

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND: Final = timedelta(seconds=1)


class Interval(SpecForm):
    """Due at `offset` after 1970-01-01T00:00Z, and every `every` from there; changes of clocks do not matter.

    Attributes:
        every: The distance: whole seconds, at least one.
        offset: Whole seconds, from 0 to below `every`. Default: 0.
    """

    every: timedelta
    offset: timedelta = timedelta(0)

    def __init__(self, every: timedelta, offset: timedelta = timedelta(0)) -> None:
        """Check and keep it.

        Raises:
            InvalidArgumentError: `every` is shorter than a second, `offset` is not within it, or one of them has a
                fraction of a second.
        """
        super().__init__(every=every, offset=offset)
        for name, value in (("every", self.every), ("offset", self.offset)):
            if value % _SECOND:
                raise InvalidArgumentError(name, f"must be whole seconds, got {value}")
        if self.every < _SECOND:
            raise InvalidArgumentError("every", f"must be at least 1 s, got {self.every}")
        if not timedelta(0) <= self.offset < self.every:
            raise InvalidArgumentError(
                "offset", f"must be from 0 to below every, got {self.offset}"
            )

    def next_instant(self, after: datetime) -> datetime | None:
        """Return the first instant after `after` (exclusive) at which it is due; `None` past the year 9999."""
        since = after - _EPOCH - self.offset
        try:
            return _EPOCH + self.offset + (since // self.every + 1) * self.every
        except OverflowError:
            return None

    def is_due(self, instant: datetime) -> bool:
        """Return whether it is due at exactly this instant."""
        return not (instant - _EPOCH - self.offset) % self.every

"""The clock ports: the only places from which the engine learns what time it is, and waits for it."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from aion_es.errors import InvalidArgumentError

_LONGEST_NAP: Final = 10.0
"""Seconds after which a long sleep looks at the clock again: the machine's clock may have been set."""


class Clock(Protocol):
    """Tells the time. The engine reads it; aggregates and workflow code never do."""

    def now(self) -> datetime:
        """Return the present instant, aware and in UTC, with microseconds."""
        ...


class SleepingClock(Clock, Protocol):
    """A clock that can also be waited for."""

    async def sleep_until(self, instant: datetime) -> None:
        """Return as soon as `now()` has reached `instant`."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Return the present instant in UTC."""
        return datetime.now(UTC)  # noqa: TID251 - this is the port itself

    async def sleep_until(self, instant: datetime) -> None:
        """Return as soon as the machine's clock has reached `instant`, also if it is set meanwhile."""
        while (remaining := (instant - self.now()).total_seconds()) > 0:  # noqa: ASYNC110 - a clock has no event to wait for
            await asyncio.sleep(min(remaining, _LONGEST_NAP))


def seconds_to_wait(timeout: timedelta | None) -> float | None:
    """Return how long to wait as asyncio counts it, in seconds; `None` for ever.

    Raises:
        InvalidArgumentError: `timeout` is neither a timedelta nor `None`.
    """
    if timeout is None:
        return None
    if not isinstance(timeout, timedelta):  # pyright: ignore[reportUnnecessaryIsInstance] - it may be a number all the same
        raise InvalidArgumentError("timeout", f"must be a timedelta, got {timeout!r}")
    return timeout.total_seconds()

"""The clock ports: the only places from which the engine learns what time it is, and waits for it."""

import asyncio
from datetime import UTC, datetime
from typing import Final, Protocol

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

"""A clock that stands still until a test moves it: months pass in a moment, and nothing sleeps."""

import asyncio
import heapq
import itertools
from datetime import UTC, datetime, timedelta
from typing import Final

_START: Final = datetime(2026, 1, 1, tzinfo=UTC)


class ManualClock:
    """A `SleepingClock` under a test's control.

    Give it to `Engine.open(…, clock=clock)`. Timers, backoffs and deadlines become due when `advance`
    moves past them.
    """

    def __init__(self, start: datetime = _START) -> None:
        self._now = start
        self._order = itertools.count()
        self._sleepers: list[tuple[datetime, int, asyncio.Future[None]]] = []

    def now(self) -> datetime:
        """Return the instant that the clock stands at."""
        return self._now

    async def sleep_until(self, instant: datetime) -> None:
        """Return when the clock has been moved to `instant` or past it."""
        if instant <= self._now:
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (instant, next(self._order), woken))
        await woken

    def advance(self, by: timedelta) -> None:
        """Move the clock forward and wake those who slept until then, in the order of their instants.

        Raises:
            ValueError: Backwards; a clock that does so is tested by setting the machine's.
        """
        if by < timedelta(0):
            raise ValueError(f"cannot move the clock back by {-by}")
        self._now += by
        while self._sleepers and self._sleepers[0][0] <= self._now:
            _, _, woken = heapq.heappop(self._sleepers)
            if not woken.done():
                woken.set_result(None)

"""The timer service: one heap for everything that is due at an instant, whoever asked for it.

Only what is due within the horizon is held in memory. Timers beyond it wait in the pending-work
projection, from where the engine brings them in before the horizon reaches them; so a hundred thousand
sleeping workflows cost a hundred thousand rows, and no memory.
"""

import asyncio
import heapq
import itertools
from collections.abc import Callable, Hashable
from datetime import datetime, timedelta
from typing import Final

from aion_es.clock import SleepingClock

_SLACK: Final = 64
"""So many entries may be dead beside as many as live before the heap is built anew."""


class TimerService:
    """Calls back when something is due, in the order of due times; the same key is held once."""

    def __init__(self, clock: SleepingClock) -> None:
        self._clock = clock
        self._heap: list[tuple[datetime, int, Hashable, Callable[[], None]]] = []
        self._order = (
            itertools.count()
        )  # equal due times fire in the order in which they were added
        self._live: dict[Hashable, datetime] = {}
        self._earlier = asyncio.Event()

    def __len__(self) -> int:
        return len(self._live)

    def add(self, key: Hashable, due_at: datetime, fire: Callable[[], None]) -> None:
        """Call `fire` when `due_at` has come; a key that is held already keeps its due time if that is the same."""
        if self._live.get(key) == due_at:
            return
        self._live[key] = due_at
        if len(self._heap) > 2 * len(self._live) + _SLACK:
            # Most of what is held was discarded: timeouts of what has ended in time, above all.
            self._heap = [entry for entry in self._heap if self._live.get(entry[2]) == entry[0]]
            heapq.heapify(self._heap)
        heapq.heappush(self._heap, (due_at, next(self._order), key, fire))
        if self._heap[0][2] == key:
            self._earlier.set()

    def add_after(self, key: Hashable, delay: timedelta, fire: Callable[[], None]) -> None:
        """Call `fire` after `delay`; see `add`."""
        self.add(key, self._clock.now() + delay, fire)

    def overdue(self) -> int:
        """Return how many should have fired by now; may be asked on any thread."""
        now = self._clock.now()
        return sum(due_at <= now for due_at in tuple(self._live.values()))

    def discard(self, key: Hashable) -> None:
        """Forget what is held under this key, if anything is."""
        self._live.pop(key, None)

    async def run(self) -> None:
        """Call back for ever; ends only by cancellation."""
        while True:
            self._earlier.clear()  # before looking: what is added meanwhile must not be missed
            self._fire_due()
            if not self._heap:
                await self._earlier.wait()
            else:
                await self._sleep_until(self._heap[0][0])

    def _fire_due(self) -> None:
        now = self._clock.now()
        while self._heap and self._heap[0][0] <= now:
            due_at, _, key, fire = heapq.heappop(self._heap)
            if self._live.get(key) == due_at:
                del self._live[key]
                fire()

    async def _sleep_until(self, due_at: datetime) -> None:
        sleeping = asyncio.ensure_future(self._clock.sleep_until(due_at))
        waking = asyncio.ensure_future(self._earlier.wait())
        try:
            await asyncio.wait({sleeping, waking}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeping.cancel()
            waking.cancel()
            await asyncio.gather(sleeping, waking, return_exceptions=True)


def later(instant: datetime, span: timedelta) -> datetime | None:
    """Return the instant a span later, `None` if that is past all time."""
    try:
        return instant + span
    except OverflowError:
        return None

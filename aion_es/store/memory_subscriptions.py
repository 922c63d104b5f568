"""Catch-up subscriptions of the memory store: places in its log that move on."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Self

from aion_es.store.closing import ClosesOnExit
from aion_es.store.port import (
    CaughtUp,
    Checkpoint,
    FellBehind,
    RecordedEvent,
    SubscriptionMessage,
)

PAGE: Final = 512
"""Events that a read or a subscription gives before the event loop gets its turn."""
LIVE_BUFFER: Final = 4_096
"""A live subscriber with more than so many events to come is told that it fell behind."""


class MemorySubscription(ClosesOnExit):
    """A catch-up subscription: an index into the store's log that moves on as its owner asks.

    Nothing is buffered for it, so it cannot be dropped; a live one that lets more than
    `LIVE_BUFFER` events pile up still says that it fell behind, as those of other stores do.

    Args:
        log: The store's events by position; only read.
        begin: The first position to look at.
        is_wanted: Tells which events to deliver.
        require_open: Raises `StoreClosedError` when the store was closed.
        forget: Called when the subscription is closed.
    """

    def __init__(
        self,
        log: Sequence[RecordedEvent],
        begin: int,
        is_wanted: Callable[[RecordedEvent], bool],
        require_open: Callable[[], None],
        forget: "Callable[[MemorySubscription], None]",
    ) -> None:
        self._log = log
        self._next = begin
        self._is_wanted = is_wanted
        self._require_open = require_open
        self._forget = forget
        self._live = False
        self._ready: deque[SubscriptionMessage] = deque()
        self._closed = False
        self._changed = asyncio.Event()

    def wake(self) -> None:
        """Say that the log grew, or that the store closed."""
        self._changed.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SubscriptionMessage:
        if not self._ready:
            self._ready.extend(await self.next_batch())
        if not self._ready:
            raise StopAsyncIteration
        return self._ready.popleft()

    async def next_batch(self) -> Sequence[SubscriptionMessage]:
        """Return what is ready, waiting for it; empty only when closed."""
        # The loop gets its turn even where there is always more. Nothing is taken before the last
        # await, so a caller that is cancelled here loses nothing.
        await asyncio.sleep(0)
        while not self._closed:
            self._require_open()
            self._changed.clear()
            if batch := self._take():
                return batch
            await self._changed.wait()
        return ()

    def _take(self) -> Sequence[SubscriptionMessage]:
        if self._ready:
            batch = tuple(self._ready)
            self._ready.clear()
            return batch
        return self._look()

    def _look(self) -> Sequence[SubscriptionMessage]:
        """Move on by one page of the log; return what its owner learns from that."""
        log = self._log
        messages: list[SubscriptionMessage] = []
        if self._live and len(log) - self._next > LIVE_BUFFER:
            self._live = False
            messages.append(FellBehind())
        page = log[self._next : self._next + PAGE]
        self._next += len(page)
        messages.extend(event for event in page if self._is_wanted(event))
        if page and (not messages or messages[-1] is not page[-1]):
            messages.append(Checkpoint(page[-1].position))
        if not self._live and self._next >= len(log):
            self._live = True
            messages.append(CaughtUp())
        return messages

    async def aclose(self) -> None:
        """End it; whoever waits for a message gets none."""
        self._closed = True
        self._ready.clear()
        self._forget(self)
        self.wake()

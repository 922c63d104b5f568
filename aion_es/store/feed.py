"""The live feed of an in-process store, and the catch-up subscriptions that live on it.

A subscription reads what is stored page by page until it has seen everything that the feed has
published; from then on it is handed what is committed, from memory. Both sides run on one event
loop, so the border between them is a single comparison that nothing can interrupt.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final, NamedTuple, Protocol

from aion_es.errors import InvalidArgumentError
from aion_es.store.closing import ClosesOnExit
from aion_es.store.port import (
    CaughtUp,
    Checkpoint,
    FellBehind,
    Position,
    RecordedEvent,
    SubscriptionMessage,
)

MAX_BUFFERED: Final = 65_536
"""Events that wait for one subscriber before it is sent back to reading from the store."""
MAX_BUFFERED_BYTES: Final = 64 * 1024 * 1024
"""The same, in bytes of the commits that they came with."""
CHECKPOINT_EVERY: Final = 1000
"""Events that pass a subscriber by before it is told how far the store has come."""


class Page(NamedTuple):
    """One page of stored events.

    Attributes:
        events: Those that match, in order.
        through: Every matching event up to this position is in this page or an earlier one.
        complete: True if `through` was the store's end when the page was read.
    """

    events: Sequence[RecordedEvent]
    through: int
    complete: bool


class Source(Protocol):
    """What one subscription asks for: a filter, and stored events by the page."""

    stream: str | None
    """The one stream that it is of, and then it goes by revision; None if it is of several."""

    async def page(self, after: int, revision: int) -> Page:
        """Return stored events that match.

        Args:
            after: Positions up to here were delivered.
            revision: Of one stream: revisions below this were delivered.
        """
        ...

    def select(self, events: Sequence[RecordedEvent]) -> Sequence[RecordedEvent]:
        """Return those of `events` that match, in order."""
        ...


class PrefixSource:
    """Every stream whose name begins with a prefix."""

    stream: str | None = None

    def __init__(self, prefix: str, page: Callable[[int], Awaitable[Page]]) -> None:
        self._prefix = prefix
        self._page = page

    async def page(self, after: int, revision: int) -> Page:  # noqa: ARG002 - of one stream only
        """Return the page that follows `after`."""
        return await self._page(after)

    def select(self, events: Sequence[RecordedEvent]) -> Sequence[RecordedEvent]:
        """Return the events of matching streams."""
        prefix = self._prefix
        if not prefix:
            return events
        return [event for event in events if event.stream.startswith(prefix)]


class StreamSource:
    """One stream."""

    def __init__(self, stream: str, page: Callable[[int], Awaitable[Page]]) -> None:
        self.stream: str | None = stream
        self._page = page

    async def page(self, after: int, revision: int) -> Page:  # noqa: ARG002 - revisions say it all
        """Return the page that begins with `revision`."""
        return await self._page(revision)

    def select(self, events: Sequence[RecordedEvent]) -> Sequence[RecordedEvent]:
        """Return `events`: the feed only hands over those of this stream."""
        return events


class LiveFeed:
    """Hands what was committed to those that are at the live edge. One event loop only.

    What is live has seen, or was handed, everything up to `end`: that is what entering requires and
    what every call below keeps up.

    Args:
        end: Position of the last event that is stored, -1 for none.
    """

    def __init__(self, end: int) -> None:
        self._end = end
        self._live: set[CatchUpSubscription] = set()
        self._live_by_stream: dict[str, set[CatchUpSubscription]] = {}
        self._open: set[CatchUpSubscription] = set()
        self._listeners: set[Callable[[], None]] = set()
        self._error: Exception | None = None

    @property
    def end(self) -> int:
        """Position of the last event that the feed knows of, -1 for none."""
        return self._end

    def subscribe(
        self, source: Source, *, after: int = -1, revision: int = 0
    ) -> "CatchUpSubscription":
        """Open a subscription to what follows `after` (all) or begins at `revision` (one stream)."""
        subscription = CatchUpSubscription(self, source, after, revision)
        self._open.add(subscription)
        return subscription

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` whenever the store may have changed; return what ends that."""
        self._listeners.add(listener)
        return lambda: self._listeners.discard(listener)

    def publish(
        self, after: int, end: int, size: int, events: Callable[[], Sequence[RecordedEvent]]
    ) -> None:
        """Tell what one commit added.

        Args:
            after: Position of the last event before them, -1 for none.
            end: Position of the last of them.
            size: Bytes that they have.
            events: Returns all of them, in order; only called if somebody is live.
        """
        if after > self._end:  # another process wrote in between
            self.advanced(end)
            return
        if end > self._end:  # else whoever is live has read them from the store already
            self._end = end
            if self._live or self._live_by_stream:
                self._offer(end, size, events())
        self.changed()

    def advanced(self, end: int) -> None:
        """Tell that events up to `end` are stored that nobody published: another process wrote."""
        if end > self._end:
            self._end = end
            for subscription in self._all_live():
                subscription.read_again()
        self.changed()

    def changed(self) -> None:
        """Tell the listeners that the store may have changed."""
        for listener in tuple(self._listeners):
            listener()

    def close(self, error: Exception) -> None:
        """End: whoever waits, or asks later, gets `error`."""
        self._error = error
        for subscription in tuple(self._open):
            self.forget(subscription)
            subscription.fail(error)
        self.changed()

    def enter(self, subscription: "CatchUpSubscription", stream: str | None, through: int) -> bool:
        """Make a subscription live if it has seen everything up to the end; say whether."""
        if through < self._end or self._error is not None:
            return False
        if stream is None:
            self._live.add(subscription)
        else:
            self._live_by_stream.setdefault(stream, set()).add(subscription)
        return True

    def leave(self, subscription: "CatchUpSubscription") -> None:
        """Stop offering commits to a subscription."""
        self._live.discard(subscription)
        stream = subscription.stream
        if stream is not None and stream in self._live_by_stream:
            self._live_by_stream[stream].discard(subscription)
            if not self._live_by_stream[stream]:
                del self._live_by_stream[stream]

    def forget(self, subscription: "CatchUpSubscription") -> None:
        """Let go of a subscription that was closed."""
        self.leave(subscription)
        self._open.discard(subscription)

    def _offer(self, end: int, size: int, events: Sequence[RecordedEvent]) -> None:
        for subscription in tuple(self._live):
            subscription.offer(end, size, events)
        if not self._live_by_stream:
            return
        by_stream: dict[str, list[RecordedEvent]] = {}
        for event in events:
            if event.stream in self._live_by_stream:
                by_stream.setdefault(event.stream, []).append(event)
        for stream, of_stream in by_stream.items():
            for subscription in tuple(self._live_by_stream[stream]):
                subscription.offer(end, size, of_stream)

    def _all_live(self) -> "list[CatchUpSubscription]":
        return [*self._live, *(s for live in self._live_by_stream.values() for s in live)]


class CatchUpSubscription(ClosesOnExit):
    """Stored events, then live ones: never a gap, never a repeat. Implements `Subscription`.

    `_through` is the cursor: everything that matches up to it was delivered or lies in `_ready`; of
    one stream, everything below `_revision`. It moves only together with `_ready`, without an await
    in between, so a call that is cancelled loses nothing.
    """

    def __init__(self, feed: LiveFeed, source: Source, after: int, revision: int) -> None:
        self._feed = feed
        self._source = source
        self._through = after
        self._revision: int = revision
        self._ready: deque[SubscriptionMessage] = deque()
        self._ready_bytes = 0
        self._live = False
        self._announce = True
        self._passed = 0
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False
        self._error: Exception | None = None

    # ---------------------------------------------------------------- the feed's side

    @property
    def stream(self) -> str | None:
        """The one stream that this is of, if it is of one."""
        return self._source.stream

    def offer(self, end: int, size: int, events: Sequence[RecordedEvent]) -> None:
        """Take what one commit added, or fall behind if too much is waiting already."""
        if len(self._ready) > MAX_BUFFERED or self._ready_bytes > MAX_BUFFERED_BYTES:
            self._ready.append(FellBehind())
            self._announce = True
            self.read_again()
            return
        through = self._through
        if events and events[0].position.commit <= through:
            # Some of it was read from the store before the feed told of it.
            events = [event for event in events if event.position.commit > through]
        selected = self._source.select(events)
        self._take(selected, max(end - through, 0), end)
        if selected:
            self._ready_bytes += size
        if self._ready:
            self._wake()

    def read_again(self) -> None:
        """Go back to reading: the store holds more than was offered."""
        self._feed.leave(self)
        self._live = False
        self._wake()

    def fail(self, error: Exception) -> None:
        """End with an error, once what is ready is delivered."""
        self._live = False
        self._error = error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # ---------------------------------------------------------------- the subscriber's side

    async def next_batch(self) -> Sequence[SubscriptionMessage]:
        """Return all messages that are ready, at least one; empty only when closed.

        Raises:
            StoreUnavailableError: A page could not be read; calling again goes on where it stopped.
            StoreClosedError: The store was closed.
        """
        if not await self._has_ready():
            return ()
        batch = tuple(self._ready)
        self._ready.clear()
        self._ready_bytes = 0
        return batch

    async def _has_ready(self) -> bool:
        """Wait until a message is ready; False when closed."""
        while not self._ready and not self._closed:
            if self._error is not None:
                raise self._error
            if self._live:
                await self._wait()
            else:
                await self._read_page()
        return not self._closed

    async def _wait(self) -> None:
        if self._waiter is not None:
            raise InvalidArgumentError("subscription", "is already being waited for elsewhere")
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    async def _read_page(self) -> None:
        through = self._through
        page = await self._source.page(through, self._revision)
        if self._closed or self._live or self._through != through:
            return  # closed, or another reader of this subscription was faster
        self._take(page.events, max(page.through - through, 0), page.through)
        if page.complete and self._feed.enter(self, self._source.stream, self._through):
            self._live = True
            if self._announce:
                self._checkpoint()
                self._ready.append(CaughtUp())
                self._announce = False

    def _take(self, events: Sequence[RecordedEvent], passed: int, through: int) -> None:
        """Make `events` ready and move the cursor; tell how far it is if much was passed over."""
        if self._source.stream is not None:
            lowest = self._revision
            events = [event for event in events if event.revision >= lowest]
        through = max(self._through, through)
        if events:
            last = events[-1]
            self._ready.extend(events)
            self._revision = last.revision + 1
            self._passed = through - last.position.commit
        else:
            self._passed += passed
        self._through = through
        if self._passed >= CHECKPOINT_EVERY:
            self._checkpoint()

    def _checkpoint(self) -> None:
        if self._passed and self._source.stream is None:
            self._ready.append(Checkpoint(Position(self._through, self._through)))
        self._passed = 0

    def __aiter__(self) -> AsyncIterator[SubscriptionMessage]:
        return self

    async def __anext__(self) -> SubscriptionMessage:
        if not await self._has_ready():
            raise StopAsyncIteration
        message = self._ready.popleft()
        if not self._ready:
            self._ready_bytes = 0
        return message

    async def aclose(self) -> None:
        """End it; whoever waits gets the end."""
        self._closed = True
        self._ready.clear()
        self._feed.forget(self)
        self._wake()

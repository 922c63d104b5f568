"""Feeding: subscriptions that bring events to projections, as few as they can be shared by.

Projections that stand at the same place share a feed. One that fails leaves it and goes on in a feed of
its own; when that has come to where the others are, they share one again.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from sqlalchemy import Connection

from aion_es.errors import (
    StoreClosedError,
    StoreError,
    StoreUnavailableError,
    SubscriptionDroppedError,
)
from aion_es.projections.checkpoints import swap
from aion_es.projections.failures import clear_failure
from aion_es.projections.members import Handler, Member
from aion_es.projections.projection import Projection
from aion_es.projections.read_model import ReadModel
from aion_es.store.port import (
    START,
    CaughtUp,
    Checkpoint,
    EventReader,
    EventSubscriber,
    FellBehind,
    Position,
    RecordedEvent,
    Subscription,
    SubscriptionMessage,
)

_log = logging.getLogger("aion_es.projections")

BESIDE: Final = 3
"""Times as many events per transaction where rows are made beside others: SQLite renames tables for each."""


class EventSource(EventReader, EventSubscriber, Protocol):
    """What projections need of a store."""


@dataclass(frozen=True, slots=True)
class FeedOptions:
    """How projections are fed; durations in seconds.

    Attributes:
        prefixes: Of the streams whose events are wanted.
        interval: While live, a batch at most so often.
        max_batch: Events per transaction.
        first_delay: Before the first retry of what failed; doubled from one retry to the next.
        last_delay: Upper bound of that.
    """

    prefixes: tuple[str, ...]
    interval: float
    max_batch: int
    first_delay: float
    last_delay: float

    @property
    def prefix(self) -> str:
        """What the store filters by: the beginning that all prefixes share."""
        return os.path.commonprefix(self.prefixes)  # noqa: RUF071 - names, not paths

    def delay(self, failures: int) -> float:
        """Return how long to wait after so many failures in a row."""
        delay: float = min(self.first_delay * 2 ** min(failures - 1, 32), self.last_delay)
        return delay


class Attention:
    """Who waits for the projections: rings at every step forward, and hurries feeds while somebody waits."""

    def __init__(self) -> None:
        self._progress = asyncio.Event()  # replaced at every step forward
        self._hurry = asyncio.Event()
        self._waiting = 0

    def announce(self) -> None:
        """Tell those who wait that something has changed."""
        reached, self._progress = self._progress, asyncio.Event()
        reached.set()

    async def until(self, done: Callable[[], bool], *, patience: float) -> bool:
        """Wait until `done()`, for at most `patience` seconds; return whether it is."""
        self._waiting += 1
        self._hurry.set()
        try:
            async with asyncio.timeout(patience):
                while not done():
                    await self._progress.wait()
        except TimeoutError:
            return done()
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._hurry.clear()
        return True

    async def breathe(self, interval: float) -> None:
        """Let events gather for one interval, unless somebody waits for them."""
        try:
            async with asyncio.timeout(interval):
                await self._hurry.wait()
        except TimeoutError:
            return


@dataclass(slots=True, eq=False)
class Feed:
    """One subscription's members.

    Attributes:
        position: Everything up to here was given to the members, or is being given to them now.
        live: The subscription has delivered all that was stored.
    """

    members: list[Member]
    position: Position = START
    live: bool = False

    def batch(self, usual: int) -> int:
        """Return how many events a transaction may have, where it is usually so many."""
        return usual * BESIDE if all(member.is_beside for member in self.members) else usual


class _StandsStillError(Exception):
    """The only projection of a feed stands still: the feed begins again, later."""


class Feeder:
    """Feeds members while this process holds the lease of the read model."""

    def __init__(
        self,
        store: EventSource,
        read_model: ReadModel,
        options: FeedOptions,
        handler: Handler,
        attention: Attention,
        group: asyncio.TaskGroup,
    ) -> None:
        self._store = store
        self._read_model = read_model
        self._options = options
        self._handler = handler
        self._attention = attention
        self._group = group
        self._feeds: list[Feed] = []
        self._answering: dict[str, Projection] = {}
        self._prefixes = options.prefixes if len(options.prefixes) > 1 else None

    def begin(self, members: Sequence[Member]) -> None:
        """Begin to feed `members`, those that stand at the same place together."""
        groups: dict[tuple[bool, Position], list[Member]] = {}
        for member in members:
            if not member.is_twin:
                self._answering[member.projection.name] = member.projection
            groups.setdefault((member.is_beside, member.position), []).append(member)
        for together in groups.values():
            self._start(together)

    def _start(self, members: list[Member], *, after: float = 0.0) -> None:
        feed = Feed(members)
        self._feeds.append(feed)
        self._group.create_task(self._drive(feed, after))

    async def _drive(self, feed: Feed, after: float) -> None:
        """Keep a feed's members fed, subscribing again whenever a subscription ends."""
        if after:
            await self._pause(feed.members[0], after)
        failures = 0
        while feed.members:
            before = feed.position = min(member.position for member in feed.members)
            reason: Exception = SubscriptionDroppedError("the store ended it")
            try:
                async with self._store.subscribe_all(
                    from_position=before, prefix=self._options.prefix
                ) as subscription:
                    await self._pump(feed, subscription)
            except (SubscriptionDroppedError, StoreUnavailableError) as error:
                reason = error
            except _StandsStillError:
                feed.live = False
                member = feed.members[0]
                await self._pause(member, self._options.delay(member.failures))
                continue
            if feed.members:
                self._fell_behind(feed)
                moved = min(member.position for member in feed.members) > before
                failures = 1 if moved else failures + 1
                _log.warning("projections: %s; subscribing again", reason)
                await asyncio.sleep(self._options.delay(failures))
        self._feeds.remove(feed)

    def _fell_behind(self, feed: Feed) -> None:
        feed.live = False
        for member in feed.members:
            member.caught_up = False

    async def _pause(self, member: Member, seconds: float) -> None:
        """Wait before the next try, unless an operator has said what to do."""
        try:
            async with asyncio.timeout(seconds):
                await member.retry.wait()
        except TimeoutError:
            pass
        member.retry.clear()
        await self._handler.reconsider(member)

    async def _pump(self, feed: Feed, subscription: Subscription) -> None:
        """Handle what the subscription gives, until it ends or nobody needs it any more."""
        while True:
            size = feed.batch(self._options.max_batch)
            messages = await self._gather(subscription, feed.live, size)
            if not messages:
                return
            events, reached, turned = _sorted_out(messages)
            for batch, position in self._portions(events, reached, size):
                feed.position = position
                await self._handle_all(feed, batch, position)
            if turned is not None:
                feed.live = turned
                for member in feed.members:
                    member.caught_up = turned
            if feed.live:
                await self._swap_all(feed)
                self._merge(feed)
            self._attention.announce()
            if not feed.members:
                return
            if feed.live and self._options.interval:
                await self._attention.breathe(self._options.interval)

    async def _gather(
        self, subscription: Subscription, live: bool, size: int
    ) -> list[SubscriptionMessage]:
        """Return what the subscription has ready, or, while behind, a whole batch; empty when it ended."""
        gathered: list[SubscriptionMessage] = []
        while True:
            messages = await subscription.next_batch()
            gathered.extend(messages)
            enough = live or not messages or len(gathered) >= size
            if enough or any(isinstance(message, CaughtUp) for message in messages):
                return gathered

    def _portions(
        self, events: list[RecordedEvent], reached: Position | None, size: int
    ) -> list[tuple[list[RecordedEvent], Position]]:
        """Cut `events` into batches, each with the position that its checkpoint takes."""
        portions = [events[at : at + size] for at in range(0, len(events), size)]
        result = [(self._ours(portion), portion[-1].position) for portion in portions]
        if reached is not None and (not result or reached > result[-1][1]):
            result.append(([], reached))
        return result

    def _ours(self, events: list[RecordedEvent]) -> list[RecordedEvent]:
        """Return those that the store's filter, which knows one prefix, did not let through by mistake."""
        prefixes = self._prefixes
        if prefixes is None:
            return events
        return [event for event in events if event.stream.startswith(prefixes)]

    async def _handle_all(self, feed: Feed, batch: list[RecordedEvent], position: Position) -> None:
        """Give the batch to every member; one that fails leaves this feed, and goes on in its own."""
        for member in list(feed.members):
            if await self._handler.handle(member, batch, position):
                continue
            if len(feed.members) == 1:
                raise _StandsStillError
            feed.members.remove(member)
            self._start([member], after=self._options.delay(member.failures))

    # ---------------------------------------------------------------------- rebuilds, and together again

    async def _swap_all(self, feed: Feed) -> None:
        for member in [member for member in feed.members if member.is_beside]:
            try:
                swapped = await self._read_model.write(partial(self._swap, member=member))
            except StoreClosedError:
                raise
            except StoreError as error:  # somebody reads the old rows, say; at the next turn
                _log.warning("projection %s: not swapped: %s", member.projection.name, error)
                continue
            if swapped:
                member.is_beside = False
                if member.is_twin:  # the other one goes on with the rows
                    feed.members.remove(member)

    def _swap(self, connection: Connection, member: Member) -> bool:
        """Swap, on the writer's thread: a batch comes wholly before or wholly after it."""
        projection = member.projection
        if not swap(connection, projection, member.position):
            return False
        for is_beside in (False, True):
            clear_failure(connection, projection.name, is_beside=is_beside)
        if member.is_twin:
            self._answering[projection.name].forget()  # it remembers the rows that are gone
        return True

    def _merge(self, feed: Feed) -> None:
        """Move the members to another feed that is live, if they have all that it was given."""
        if any(member.is_beside for member in feed.members):
            return
        for other in self._feeds:
            if other is feed or not other.live or not other.members:
                continue
            if other.position <= feed.position and not any(m.is_beside for m in other.members):
                other.members.extend(feed.members)
                feed.members.clear()
                return


def _sorted_out(
    messages: Sequence[SubscriptionMessage],
) -> tuple[list[RecordedEvent], Position | None, bool | None]:
    """Return the events, how far the messages reach, and whether they end live (None: no word of it)."""
    events: list[RecordedEvent] = []
    reached: Position | None = None
    live: bool | None = None
    for message in messages:
        match message:
            case RecordedEvent():
                events.append(message)
            case Checkpoint(position):
                reached = position
            case CaughtUp():
                live = True
            case FellBehind():
                live = False
    return events, reached, live

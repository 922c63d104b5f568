"""The projection runner: feeds projections from the store, and commits rows and checkpoint together."""

import asyncio
import logging
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Final, Protocol

from sqlalchemy import Connection

from aion_es.errors import (
    InvalidArgumentError,
    ProjectionLagError,
    StoreClosedError,
    StoreError,
    StoreUnavailableError,
    SubscriptionDroppedError,
)
from aion_es.projections.checkpoints import advance, install, position_of
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

_log = logging.getLogger(__name__)

MAX_BATCH: Final = 8_000
"""Events per transaction: enough that its own cost vanishes, few enough that a retry is cheap."""
_FIRST_DELAY: Final = timedelta(milliseconds=100)
_LAST_DELAY: Final = timedelta(seconds=30)


class EventSource(EventReader, EventSubscriber, Protocol):
    """What the runner needs of a store."""


@dataclass(frozen=True, slots=True)
class ProjectionStatus:
    """How one projection stands.

    Attributes:
        position: Everything up to here is in its rows.
        caught_up: It has handled all that was stored, and is live.
        events: Handled since the runner began.
        lag: How far the store's end is ahead, in the store's positions (the embedded store counts
            events, EventStoreDB bytes); `None` where the store does not answer.
        error: Why it stands still; `None` if it does not.
        failed_event: Type, stream and revision of the event that it cannot handle.
        failed_position: The place of that event in the store.
    """

    name: str
    version: int
    position: Position
    caught_up: bool
    events: int
    lag: int | None
    error: str | None
    failed_event: str | None
    failed_position: Position | None


@dataclass(slots=True, eq=False)
class _Member:
    """One projection in this runner: where it stands, and why if it stands still."""

    projection: Projection
    position: Position = START
    caught_up: bool = False
    events: int = 0
    error: Exception | None = None
    failed_event: RecordedEvent | None = None
    failures: int = 0


class _CheckpointMovedError(Exception):
    """Another process handled part of the batch; its transaction was rolled back."""

    def __init__(self, position: Position) -> None:
        super().__init__(position)
        self.position = position


class _MemberFailedError(Exception):
    """The only projection of a feed stands still: the feed begins again, later."""


class ProjectionRunner:
    """Keeps projections up to date with a store.

    Projections that stand at the same checkpoint share one subscription. One that fails goes on alone,
    retried with backoff from where it stands, while the others are not disturbed.
    """

    def __init__(
        self,
        store: EventSource,
        read_model: ReadModel,
        projections: Sequence[Projection],
        *,
        prefix: str,
        interval: timedelta = timedelta(milliseconds=25),
        max_batch: int = MAX_BATCH,
        first_delay: timedelta = _FIRST_DELAY,
        last_delay: timedelta = _LAST_DELAY,
    ) -> None:
        """Bind `projections` to a store and a read model; nothing is read yet.

        Args:
            store: Where the events come from.
            read_model: Where the rows go.
            projections: With names of their own each.
            prefix: Streams whose name begins so, filtered in the store.
            interval: While live, a batch at most so often: events that come meanwhile share a
                transaction, and short runs cancel out before they are written. The first event after
                a pause is not delayed, and nothing is while somebody waits in `wait_until`.
            max_batch: Events per transaction, at most.
            first_delay: Before the first retry of what failed; doubled from one retry to the next.
            last_delay: Upper bound of that.

        Raises:
            InvalidArgumentError: Two projections have one name.
        """
        self._members = {p.name: _Member(p) for p in projections}
        if len(self._members) != len(projections):
            raise InvalidArgumentError("projections", "two have the same name")
        self._store = store
        self._read_model = read_model
        self._prefix = prefix
        self._interval = interval.total_seconds()
        self._max_batch = max_batch
        self._first_delay = first_delay.total_seconds()
        self._last_delay = last_delay.total_seconds()
        self._prepared = False
        self._progress = asyncio.Event()  # replaced at every step forward
        self._hurry = asyncio.Event()  # set while somebody waits
        self._waiting = 0

    async def prepare(self) -> None:
        """Make the projections' tables where they are missing, so that queries find them; `run` does it too.

        Raises:
            UnsupportedStoreVersionError: A newer version of one of them is in the read model.
            StoreError: The read model cannot be written.
        """
        for member in self._members.values():
            position = await self._read_model.write(partial(install, projection=member.projection))
            member.position = position
            member.projection.forget()
        self._prepared = True

    async def run(self) -> None:
        """Feed the projections until cancelled; to be run as one task of the app's `TaskGroup`.

        Raises:
            StoreError: What waiting cannot mend: store or read model closed, damaged, access denied.
            UnsupportedStoreVersionError: As `prepare`.
        """
        if not self._prepared:
            await self.prepare()
        try:
            async with asyncio.TaskGroup() as group:
                for members in self._by_position():
                    group.create_task(self._feed(group, members))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from failed
        finally:
            self._prepared = False  # a batch may have been committed after the cancellation
            for member in self._members.values():
                member.caught_up = False

    async def status(self) -> list[ProjectionStatus]:
        """Return how each projection stands, in the order in which they were given."""
        try:
            end: Position | None = await self._store.end_position()
        except StoreError:
            end = None
        return [_status(member, end) for member in self._members.values()]

    def position(self, projection: str) -> Position:
        """Return the position up to which `projection` has handled everything, as this runner knows it.

        Raises:
            InvalidArgumentError: The runner has no such projection.
        """
        return self._member(projection).position

    async def wait_until(
        self,
        position: Position,
        *,
        projection: str,
        timeout: timedelta | None = None,
    ) -> None:
        """Return once the rows of `projection` contain everything up to `position`.

        Raises:
            ProjectionLagError: Not within `timeout`; its cause is the projection's own error, if it has one.
            InvalidArgumentError: The runner has no such projection.
        """
        member = self._member(projection)
        try:
            async with asyncio.timeout(None if timeout is None else timeout.total_seconds()):
                await self._until_reached([member], position)
        except TimeoutError:
            raise ProjectionLagError(
                projection, str(position), str(member.position)
            ) from member.error

    async def wait_until_caught_up(self) -> None:
        """Return once every projection has handled what the store held when this was called."""
        last = START
        async for event in self._store.read_all(backwards=True, prefix=self._prefix, limit=1):
            last = event.position
        await self._until_reached(list(self._members.values()), last)

    # ------------------------------------------------------------------------------- waiting

    def _member(self, name: str) -> _Member:
        member = self._members.get(name)
        if member is None:
            raise InvalidArgumentError("projection", f"this runner has none named {name!r}")
        return member

    async def _until_reached(self, members: Sequence[_Member], position: Position) -> None:
        self._waiting += 1
        self._hurry.set()
        try:
            while any(member.position < position for member in members):
                await self._progress.wait()
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._hurry.clear()

    def _announce(self) -> None:
        reached, self._progress = self._progress, asyncio.Event()
        reached.set()

    async def _breathe(self) -> None:
        """Let events gather for one interval, unless somebody waits for them."""
        try:
            async with asyncio.timeout(self._interval):
                await self._hurry.wait()
        except TimeoutError:
            return

    # ------------------------------------------------------------------------------- feeding

    def _by_position(self) -> list[list[_Member]]:
        groups: dict[Position, list[_Member]] = {}
        for member in self._members.values():
            groups.setdefault(member.position, []).append(member)
        return list(groups.values())

    async def _feed(self, group: asyncio.TaskGroup, members: list[_Member]) -> None:
        """Keep `members` fed, subscribing again whenever a subscription ends."""
        failures = 0
        while members:
            before = min(member.position for member in members)
            try:
                async with self._store.subscribe_all(
                    from_position=before, prefix=self._prefix
                ) as subscription:
                    await self._pump(group, subscription, members)
                    reason: Exception = SubscriptionDroppedError("the store ended it")
            except (SubscriptionDroppedError, StoreUnavailableError) as error:
                reason = error
            except _MemberFailedError:
                await asyncio.sleep(self._delay(members[0].failures))
                continue
            for member in members:
                member.caught_up = False
            if members:
                moved = min(member.position for member in members) > before
                failures = 1 if moved else failures + 1
                _log.warning("projections: %s; subscribing again", reason)
                await asyncio.sleep(self._delay(failures))

    def _delay(self, failures: int) -> float:
        delay: float = min(self._first_delay * 2 ** min(failures - 1, 32), self._last_delay)
        return delay

    async def _pump(
        self, group: asyncio.TaskGroup, subscription: Subscription, members: list[_Member]
    ) -> None:
        """Handle what the subscription gives, until it ends."""
        live = False
        while True:
            messages = await self._gather(subscription, live)
            if not messages:
                return
            events, reached, turned = _sorted_out(messages)
            for batch, position in self._portions(events, reached):
                await self._handle_all(group, members, batch, position)
            live = live if turned is None else turned
            if turned is not None:
                for member in members:
                    member.caught_up = live
            self._announce()
            if live and self._interval:
                await self._breathe()

    async def _gather(self, subscription: Subscription, live: bool) -> list[SubscriptionMessage]:
        """Return what the subscription has ready, or, while behind, a whole batch; empty when it ended."""
        gathered: list[SubscriptionMessage] = []
        while True:
            messages = await subscription.next_batch()
            gathered.extend(messages)
            enough = live or not messages or len(gathered) >= self._max_batch
            if enough or any(isinstance(message, CaughtUp) for message in messages):
                return gathered

    def _portions(
        self, events: list[RecordedEvent], reached: Position | None
    ) -> list[tuple[list[RecordedEvent], Position]]:
        """Cut `events` into batches, each with the position that its checkpoint takes."""
        cuts = range(0, len(events), self._max_batch)
        portions = [events[at : at + self._max_batch] for at in cuts]
        result = [(portion, portion[-1].position) for portion in portions]
        if reached is not None and (not result or reached > result[-1][1]):
            result.append(([], reached))
        return result

    async def _handle_all(
        self,
        group: asyncio.TaskGroup,
        members: list[_Member],
        batch: list[RecordedEvent],
        position: Position,
    ) -> None:
        """Give the batch to every member; one that fails leaves this feed, and goes on in its own."""
        for member in list(members):
            if await self._handle(member, batch, position):
                continue
            if len(members) == 1:
                raise _MemberFailedError
            members.remove(member)
            group.create_task(self._feed_alone(group, member))

    async def _feed_alone(self, group: asyncio.TaskGroup, member: _Member) -> None:
        await asyncio.sleep(self._delay(member.failures))
        await self._feed(group, [member])

    # ------------------------------------------------------------------------------ handling

    async def _handle(
        self, member: _Member, batch: list[RecordedEvent], position: Position
    ) -> bool:
        """Commit the batch for one projection; False, with the reason in the member, if it fails."""
        try:
            await self._commit(member, batch, position)
        except StoreClosedError:
            raise
        except StoreUnavailableError as error:  # the read model's: no event is to blame
            self._failed(member, error, None)
            return False
        except Exception as error:  # noqa: BLE001 - a handler may raise anything; it is shown and retried
            return await self._isolate(member, batch, error)
        member.error = member.failed_event = None
        member.failures = 0
        return True

    async def _isolate(self, member: _Member, batch: list[RecordedEvent], error: Exception) -> bool:
        """Find the event that cannot be handled: those before it are committed one by one."""
        for event in batch[_first_after(batch, member.position) :]:
            try:
                await self._commit(member, [event], event.position)
            except StoreClosedError:
                raise
            except Exception as found:  # noqa: BLE001 - as above
                blamed = None if isinstance(found, StoreUnavailableError) else event
                self._failed(member, found, blamed)
                return False
        if batch and member.position >= batch[-1].position:
            return True  # it was the batch as a whole, and it went through in single steps
        self._failed(member, error, None)
        return False

    def _failed(self, member: _Member, error: Exception, event: RecordedEvent | None) -> None:
        member.error, member.failed_event = error, event
        member.failures += 1
        member.caught_up = False
        where = "the read model" if event is None else _named(event)
        _log.error(
            "projection %s stands still at %s, on %s",
            member.projection.name,
            member.position,
            where,
            exc_info=error,
        )

    async def _commit(
        self, member: _Member, batch: list[RecordedEvent], position: Position
    ) -> None:
        """Commit what of the batch is new to the projection, whoever else may be moving its checkpoint."""
        projection = member.projection
        while member.position < position:
            new = batch[_first_after(batch, member.position) :]
            wanted = new
            if projection.wants is not None:
                wanted = [event for event in new if event.type in projection.wants]
            try:
                await self._read_model.write(
                    partial(
                        _apply,
                        projection=projection,
                        batch=wanted,
                        expected=member.position,
                        position=position,
                    )
                )
            except _CheckpointMovedError as moved:
                projection.forget()
                member.position = moved.position
            except Exception:
                projection.forget()  # what it remembers may be ahead of the rows, now rolled back
                raise
            else:
                member.position = position
                member.events += len(new)


def _apply(
    connection: Connection,
    projection: Projection,
    batch: Sequence[RecordedEvent],
    expected: Position,
    position: Position,
) -> None:
    # The checkpoint first: it takes the lock, and whoever lost the race folds nothing.
    if not advance(connection, projection, expected, position):
        raise _CheckpointMovedError(position_of(connection, projection))
    if batch:
        projection.apply(connection, batch)


def _first_after(batch: Sequence[RecordedEvent], position: Position) -> int:
    return bisect_right(batch, position, key=lambda event: event.position)


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


def _status(member: _Member, end: Position | None) -> ProjectionStatus:
    error, event = member.error, member.failed_event
    return ProjectionStatus(
        name=member.projection.name,
        version=member.projection.version,
        position=member.position,
        caught_up=member.caught_up,
        events=member.events,
        lag=None if end is None else max(0, end.commit - member.position.commit),
        error=None if error is None else f"{type(error).__name__}: {error}",
        failed_event=None if event is None else _named(event),
        failed_position=None if event is None else event.position,
    )


def _named(event: RecordedEvent) -> str:
    return f"{event.type} {event.stream}@{event.revision}"

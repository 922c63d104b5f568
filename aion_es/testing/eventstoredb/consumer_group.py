"""One persistent subscription at work: what waits, who holds what, what is retried and parked.

Nothing here waits for the store. Events are offered by a pump, deliveries go into the consumers'
outboxes, and what has to be written (parked events, the checkpoint) is collected for whoever awaits.
"""

import asyncio
import json
import time
import uuid
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, cast

from aion_es.store.port import START, Position, RecordedEvent
from aion_es.testing.eventstoredb.group_settings import (
    DISPATCH_TO_SINGLE,
    PINNED,
    PINNED_BY_CORRELATION,
    GroupSettings,
)
from aion_es.testing.eventstoredb.reading import Resolved
from aion_es.testing.eventstoredb.refusals import Refused
from aion_es.testing.eventstoredb.wire import unseal

BUCKETS: Final = 1024
"""Streams are pinned to consumers by bucket."""
TIMES_KEPT: Final = 1000
"""Of so many answers a consumer's statistics are made."""
CORRELATION_ID: Final = "$correlationId"
"""The property of an event's metadata by which PinnedByCorrelation pins."""


@dataclass(slots=True, eq=False)
class Entry:
    """One event on its way through the group.

    Attributes:
        resolved: The event and the link through which it was found.
        source: The event as it lies in the group's stream: what is acknowledged and parked.
        retries: How often it was delivered before.
        due_at: When it counts as unanswered; None for never.
        handed_at: When it was delivered last; monotonic, like `due_at`.
    """

    resolved: Resolved
    source: RecordedEvent
    retries: int = 0
    due_at: float | None = None
    handed_at: float = 0.0

    @property
    def shown(self) -> RecordedEvent:
        """The event that decides whose it is when events are pinned."""
        return self.resolved[0] or self.source


@dataclass(slots=True, eq=False)
class Member:
    """One connected consumer.

    Attributes:
        slots: How many unanswered deliveries it takes.
        answer_times: Of its latest answers, how long each took, in milliseconds.
    """

    slots: int
    name: str
    username: str
    peer: str
    outbox: deque[Entry] = field(default_factory=deque[Entry])
    holds: dict[uuid.UUID, deque[Entry]] = field(default_factory=dict[uuid.UUID, deque[Entry]])
    held: int = 0
    total: int = 0
    answer_times: deque[int] = field(default_factory=lambda: deque[int](maxlen=TIMES_KEPT))
    left: bool = False
    ending: Refused | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def has_room(self) -> bool:
        """True if it takes one more."""
        return self.held < self.slots

    def leave(self) -> None:
        """Say that the client has no more to say."""
        self.left = True
        self.changed.set()

    def entries(self) -> Iterator[Entry]:
        """Yield everything that it holds."""
        for held in self.holds.values():
            yield from held


@dataclass(frozen=True, slots=True)
class Parking:
    """An event that is to be parked, and why."""

    entry: Entry
    reason: str


class ConsumerGroup:
    """The state of one persistent subscription, in memory.

    Args:
        settings: How it delivers.
    """

    def __init__(self, settings: GroupSettings) -> None:
        self.settings = settings
        self.members: list[Member] = []
        self.waiting: deque[Entry] = deque()
        self.retrying: deque[Entry] = deque()
        self.to_park: deque[Parking] = deque()
        self.pumping = asyncio.Lock()
        """Held by the consumer that reads for the whole group."""
        self.room = asyncio.Event()
        """Set when there is room for more events to wait."""
        self.room.set()
        self.live = False
        self.last_known: RecordedEvent | None = None
        self.passed: Position = START
        """Of `$all`: up to here everything was offered or does not match."""
        self.next_revision = 0
        """Of one stream: the first revision that was not offered."""
        self.checkpoint: str | None = None
        """What was written last: up to where everything is done."""
        self.opened_at = time.monotonic()
        self.total = 0
        self.finished_since_checkpoint = 0
        self.checkpointed_at = time.monotonic()
        self._open: dict[Entry, None] = {}
        self._ending: Refused | None = None
        self._turn = 0
        self._pins: dict[int, Member] = {}

    def begin_after(self, position: Position) -> None:
        """Of `$all`: offer what follows `position`."""
        self.passed = position

    def begin_at(self, revision: int) -> None:
        """Of one stream: offer what begins at `revision`."""
        self.next_revision = revision

    # ---------------------------------------------------------------- members

    def join(self, member: Member) -> None:
        """Add a consumer; one that found the group just before it was changed or deleted is ended, too."""
        self.members.append(member)
        if self._ending is None:
            self.dispatch()
        else:
            self.end(self._ending)

    def leave(self, member: Member) -> None:
        """Remove a consumer; what it holds goes to the others, however often it was delivered."""
        self.members.remove(member)
        self._pins = {bucket: owner for bucket, owner in self._pins.items() if owner is not member}
        held = list(member.entries())
        for entry in held:
            entry.retries += 1
        self.retrying.extendleft(reversed(held))
        self.dispatch()

    def end(self, refusal: Refused) -> None:
        """End every consumer's call, also of those who are still to come."""
        self._ending = refusal
        for member in self.members:
            member.ending = refusal
            member.changed.set()

    # ---------------------------------------------------------------- events

    def offer(self, entry: Entry) -> None:
        """Let an event wait for a consumer."""
        self.last_known = entry.source
        self.passed = max(self.passed, entry.source.position)
        self.next_revision = entry.source.revision + 1
        self._open[entry] = None
        self.waiting.append(entry)
        if len(self.waiting) >= self._capacity:
            self.room.clear()
        self.dispatch()

    def pass_by(self, position: Position) -> None:
        """Of `$all`: note that nothing up to `position` is missing."""
        self.passed = max(self.passed, position)

    def replay(self, entries: Iterable[Entry]) -> None:
        """Deliver again what was parked."""
        self.retrying.extend(entries)
        self.dispatch()

    def dispatch(self) -> None:
        """Hand out what waits, as far as there is room."""
        for queue in (self.retrying, self.waiting):
            kept: deque[Entry] = deque()
            while queue and any(member.has_room for member in self.members):
                entry = queue.popleft()
                member = self._choose(entry)
                if member is None:
                    kept.append(entry)
                else:
                    self._hand(entry, member)
            queue.extendleft(reversed(kept))
        if len(self.waiting) < self._capacity:
            self.room.set()

    def _hand(self, entry: Entry, member: Member) -> None:
        timeout = self.settings.message_timeout
        entry.handed_at = time.monotonic()
        entry.due_at = entry.handed_at + timeout / 1000 if timeout > 0 else None
        member.holds.setdefault(entry.source.event_id, deque()).append(entry)
        member.held += 1
        member.total += 1
        self.total += 1
        member.outbox.append(entry)
        member.changed.set()

    def _choose(self, entry: Entry) -> Member | None:
        strategy = self.settings.strategy
        if strategy == PINNED:
            return self._pinned(entry.shown.stream)
        if strategy == PINNED_BY_CORRELATION:
            return self._pinned(_correlation(entry.shown) or entry.shown.stream)
        if strategy == DISPATCH_TO_SINGLE:
            return next((member for member in self.members if member.has_room), None)
        for _ in self.members:
            member = self.members[self._turn % len(self.members)]
            self._turn += 1
            if member.has_room:
                return member
        return None

    def _pinned(self, source: str) -> Member | None:
        bucket = zlib.crc32(source.encode()) % BUCKETS
        owner = self._pins.get(bucket)
        if owner is None:
            burden = dict.fromkeys(self.members, 0)
            for member in self._pins.values():
                burden[member] += 1
            owner = self._pins[bucket] = min(burden, key=lambda member: burden[member])
        return owner if owner.has_room else None

    # ---------------------------------------------------------------- answers

    def ack(self, member: Member, ids: Iterable[uuid.UUID]) -> None:
        """Take events as handled; ids that the consumer does not hold are passed over."""
        for event_id in ids:
            entry = self._release(member, event_id)
            if entry is not None:
                self._finish(entry)
        self.dispatch()

    def nack(self, member: Member, ids: Iterable[uuid.UUID], action: str, reason: str) -> None:
        """Take events back as `action` says: Retry, Park, or Skip; others are as these."""
        for event_id in ids:
            entry = self._release(member, event_id)
            if entry is None:
                continue
            if action in {"Retry", "Unknown"}:
                self._retry(entry)
            elif action == "Park":
                self._park(entry, f"Client explicitly NAK'ed message.\n{reason}")
            else:
                self._finish(entry)
        self.dispatch()

    def expire(self) -> None:
        """Take back what was not answered in time."""
        now = time.monotonic()
        for member in self.members:
            overdue = [e for e in member.entries() if e.due_at is not None and e.due_at <= now]
            for entry in overdue:
                self._drop(member, entry)
                self._retry(entry)
        self.dispatch()

    def _retry(self, entry: Entry) -> None:
        if entry.retries >= self.settings.max_retry_count:
            self._park(entry, f"Reached retry count of {self.settings.max_retry_count}")
            return
        entry.retries += 1
        self.retrying.append(entry)

    def _park(self, entry: Entry, reason: str) -> None:
        self.to_park.append(Parking(entry, reason))
        self._finish(entry)

    def _finish(self, entry: Entry) -> None:
        if entry in self._open:
            del self._open[entry]
            self.finished_since_checkpoint += 1

    def _release(self, member: Member, event_id: uuid.UUID) -> Entry | None:
        held = member.holds.get(event_id)
        if not held:
            return None
        entry = held[0]
        self._drop(member, entry)
        member.answer_times.append(round((time.monotonic() - entry.handed_at) * 1000))
        return entry

    @staticmethod
    def _drop(member: Member, entry: Entry) -> None:
        held = member.holds[entry.source.event_id]
        held.remove(entry)
        if not held:
            del member.holds[entry.source.event_id]
        member.held -= 1
        if entry in member.outbox:
            member.outbox.remove(entry)

    # ---------------------------------------------------------------- what is done

    @property
    def done_position(self) -> Position:
        """Of `$all`: up to here everything is done."""
        oldest = next(iter(self._open), None)
        if oldest is None:
            return self.passed
        place = oldest.source.position.commit - 1
        return Position(place, place)

    @property
    def done_revision(self) -> int:
        """Of one stream: up to here everything is done; -1 for nothing."""
        oldest = next(iter(self._open), None)
        if oldest is not None:
            return oldest.source.revision - 1
        return self.next_revision - 1

    @property
    def outstanding(self) -> int:
        """How many events are with consumers."""
        return sum(member.held for member in self.members)

    @property
    def _capacity(self) -> int:
        return max(self.settings.history_buffer_size, self.settings.live_buffer_size, 1)


def _correlation(event: RecordedEvent) -> str | None:
    """Return the correlation id that the event's metadata names, if it is JSON that names one."""
    metadata, _ = unseal(event.data, event.metadata)
    try:
        text: Any = json.loads(metadata)
    except ValueError:
        return None
    found: Any = (
        cast("dict[str, Any]", text).get(CORRELATION_ID) if isinstance(text, dict) else None
    )
    return found if isinstance(found, str) else None

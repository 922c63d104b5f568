"""Consumer groups of the memory store: who holds which event, and what becomes of it."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

from aion_es.errors import ConsumerGroupNotFoundError
from aion_es.ids import StreamName
from aion_es.store.closing import ClosesOnExit
from aion_es.store.port import (
    ConsumerGroupChanges,
    ConsumerGroupSettings,
    ConsumerStrategy,
    Delivery,
    NackAction,
    Position,
    RecordedEvent,
)


@dataclass(frozen=True, slots=True)
class _Outstanding:
    """A delivery that waits for its answer."""

    delivery: Delivery
    consumer: "MemoryConsumer"
    time_out: asyncio.TimerHandle


class MemoryConsumerGroup:
    """One group: each matching event is still in the log, or in exactly one of the places below.

    An event goes to the consumer that asks first. With `PINNED` its stream then belongs to that
    consumer, for whom later events of it are kept.

    Args:
        name: What it is called.
        settings: How it delivers.
        log: The store's events by position; only read.
    """

    def __init__(
        self, name: str, settings: ConsumerGroupSettings, log: Sequence[RecordedEvent]
    ) -> None:
        self.name = name
        self._settings = settings
        self._log = log
        self._next = settings.from_position.commit + 1
        self._consumers: list[MemoryConsumer] = []
        self._again: deque[Delivery] = deque()
        self._kept: dict[MemoryConsumer, deque[Delivery]] = {}
        self._outstanding: dict[Position, _Outstanding] = {}
        self._parked: list[RecordedEvent] = []
        self._owners: dict[StreamName, MemoryConsumer] = {}

    def update(self, changes: ConsumerGroupChanges) -> None:
        """Deliver otherwise from now on; what is held stays with who holds it, as it was delivered."""
        before, self._settings = self._settings, changes.applied_to(self._settings)
        if self._settings.strategy is not before.strategy:
            self._owners.clear()
            for kept in self._kept.values():
                self._again.extend(kept)
                kept.clear()
        self.wake()

    def join(self, consumer: "MemoryConsumer") -> None:
        """Take in a new member."""
        self._consumers.append(consumer)
        self._kept[consumer] = deque()

    def leave(self, consumer: "MemoryConsumer") -> None:
        """Let a member go: what it holds, and its streams, are for the others."""
        self._consumers.remove(consumer)
        self._owners = {s: owner for s, owner in self._owners.items() if owner is not consumer}
        for outstanding in tuple(self._outstanding.values()):
            if outstanding.consumer is consumer:
                self._fail(outstanding)
        self._again.extend(self._kept.pop(consumer))
        self.wake()

    def close(self) -> None:
        """Deliver nothing more, and wake whoever waits."""
        for outstanding in self._outstanding.values():
            outstanding.time_out.cancel()
        self.wake()

    def wake(self) -> None:
        """Say to all members that there may be something for them."""
        for consumer in self._consumers:
            consumer.wake()

    def next_for(self, consumer: "MemoryConsumer") -> Delivery | None:
        """Hand out the next event for `consumer`; None if there is none, or it holds enough."""
        held = sum(item.consumer is consumer for item in self._outstanding.values())
        if held >= self._settings.buffer_size:
            return None
        delivery = self._choose(consumer)
        if delivery is None:
            return None
        position = delivery.event.position
        time_out = asyncio.get_running_loop().call_later(
            self._settings.message_timeout.total_seconds(), self._time_out, position
        )
        self._outstanding[position] = _Outstanding(delivery, consumer, time_out)
        return delivery

    def settle(self, position: Position) -> None:
        """Note that the event was handled, whoever says so; one that nobody holds is left alone."""
        if outstanding := self._outstanding.pop(position, None):
            outstanding.time_out.cancel()
            self.wake()

    def refuse(self, consumer: "MemoryConsumer", delivery: Delivery, action: NackAction) -> None:
        """Do with the event what `action` says, unless `consumer` no longer holds this delivery."""
        outstanding = self._outstanding.get(delivery.event.position)
        if outstanding is None or outstanding.consumer is not consumer:
            return
        if outstanding.delivery.attempt != delivery.attempt:
            return
        match action:
            case "retry":
                self._fail(outstanding)
            case "park":
                self._parked.append(delivery.event)
                self.settle(delivery.event.position)
            case "skip":
                self.settle(delivery.event.position)
        self.wake()

    def replay_parked(self) -> int:
        """Put the parked events up for delivery, as if for the first time; return how many."""
        count = len(self._parked)
        self._again.extend(Delivery(event, 1) for event in self._parked)
        self._parked.clear()
        self.wake()
        return count

    def _choose(self, consumer: "MemoryConsumer") -> Delivery | None:
        if self._kept[consumer]:
            return self._kept[consumer].popleft()
        while (delivery := self._next_free()) is not None:
            if self._settings.strategy is not ConsumerStrategy.PINNED:
                return delivery
            owner = self._owners.setdefault(delivery.event.stream, consumer)
            if owner is consumer:
                return delivery
            # No need to wake it: if it waits, it is full, or the wake that led here is its own too.
            self._kept[owner].append(delivery)
        return None

    def _next_free(self) -> Delivery | None:
        if self._again:
            return self._again.popleft()
        while self._next < len(self._log):
            event = self._log[self._next]
            self._next += 1
            if event.stream.startswith(self._settings.prefix):
                return Delivery(event, 1)
        return None

    def _time_out(self, position: Position) -> None:
        self._fail(self._outstanding[position])  # an answer would have cancelled the timer
        self.wake()

    def _fail(self, outstanding: _Outstanding) -> None:
        """Take a delivery back; it is made again, or was the last."""
        event, attempt = outstanding.delivery
        outstanding.time_out.cancel()
        del self._outstanding[event.position]
        if attempt > self._settings.max_retries:
            self._parked.append(event)
        else:
            self._again.append(Delivery(event, attempt + 1))


class MemoryConsumer(ClosesOnExit):
    """A member of a group from its first delivery until it is closed.

    Args:
        find_group: Returns the group, or raises what keeps it from being used.
    """

    def __init__(self, find_group: Callable[[], MemoryConsumerGroup]) -> None:
        self._find_group = find_group
        self._group: MemoryConsumerGroup | None = None
        self._closed = False
        self._changed = asyncio.Event()

    def wake(self) -> None:
        """Say that there may be something to deliver, or nothing ever more."""
        self._changed.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delivery:
        await asyncio.sleep(0)  # its rivals get their turn even where there is always more
        while not self._closed:
            if self._group is None:
                self._group = self._find_group()
                self._group.join(self)
            self._changed.clear()
            if delivery := self._joined(self._group).next_for(self):
                return delivery
            await self._changed.wait()
        raise StopAsyncIteration

    async def ack(self, delivery: Delivery) -> None:
        """Say that the event was handled; too late or twice is fine."""
        if self._group is not None:
            self._joined(self._group).settle(delivery.event.position)

    async def nack(self, delivery: Delivery, action: NackAction = "retry") -> None:
        """Say that it was not; too late, it changes nothing."""
        if self._group is not None:
            self._joined(self._group).refuse(self, delivery, action)

    async def aclose(self) -> None:
        """Leave the group; twice is fine."""
        if not self._closed and self._group is not None:
            self._group.leave(self)
        self._closed = True
        self.wake()

    def _joined(self, group: MemoryConsumerGroup) -> MemoryConsumerGroup:
        """Return `group` if it is in use still, and not another of its name."""
        if self._find_group() is not group:
            raise ConsumerGroupNotFoundError(group.name)
        return group

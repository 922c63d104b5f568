"""Members of consumer groups, on the event loop: they take, hand out and answer; `leases.py` keeps the books."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Final

from aion_es.store.closing import ClosesOnExit
from aion_es.store.feed import LiveFeed
from aion_es.store.port import Delivery, NackAction
from aion_es.store.sqlite import leases
from aion_es.store.sqlite.pool import ReaderPool
from aion_es.store.sqlite.writer import Writer

_SECOND: Final = 1_000_000
"""In the microseconds that the file counts."""
_SHORTEST_WAIT: Final = 0.001


class SQLiteConsumer(ClosesOnExit):
    """One member of a consumer group. Implements `Consumer`; it joins at its first delivery.

    What was taken is kept in `_taken` until it is handed out. It gets there from the writer's answer
    itself, not through the caller, so that a cancelled call loses nothing.
    """

    def __init__(
        self, name: str, writer: Writer, pool: ReaderPool, feed: LiveFeed, now: Callable[[], int]
    ) -> None:
        self._name = name
        self._writer = writer
        self._pool = pool
        self._feed = feed
        self._now = now
        self._member: tuple[leases.Group, int] | None = None
        self._taken: deque[tuple[Delivery, int]] = deque()
        self._scanned = -1
        self._changed = asyncio.Event()
        self._unlisten = feed.listen(self._changed.set)
        self._closed = False

    def __aiter__(self) -> AsyncIterator[Delivery]:
        return self

    async def __anext__(self) -> Delivery:
        """Return the next delivery.

        Raises:
            ConsumerGroupNotFoundError: There is no such group, or no longer.
            StoreUnavailableError: The store is away; asking again goes on.
            StoreClosedError: The store was closed.
        """
        while not self._closed:
            self._pool.require_open()
            while self._taken:
                delivery, due_at = self._taken.popleft()
                if due_at > self._now():
                    return delivery  # else it is already somebody else's
            # Before looking: what comes while it looks is then not missed.
            self._changed.clear()
            group, consumer_id = await self._joined()
            look = await self._pool.run(
                partial(
                    leases.look,
                    group=group,
                    consumer_id=consumer_id,
                    scanned=self._scanned,
                    now=self._now(),
                )
            )
            self._scanned = look.scanned_through
            group = look.group  # its settings may have changed
            if look.due:
                await self._take(group, consumer_id)
            else:
                await self._wait(group, consumer_id, look.wake_at)
        raise StopAsyncIteration

    async def ack(self, delivery: Delivery) -> None:
        """Say that the event was handled; once this returns it is never delivered again."""
        self._pool.require_open()
        group, _ = await self._joined()
        position = delivery.event.position.commit
        answer = self._writer.call(partial(leases.done, group=group, position=position))
        answer.add_done_callback(self._tell)
        await asyncio.shield(answer)

    async def nack(self, delivery: Delivery, action: NackAction = "retry") -> None:
        """Say that it was not: deliver again, park it, or skip it.

        Without effect if the event is meanwhile somebody else's.
        """
        self._pool.require_open()
        group, consumer_id = await self._joined()
        answer = self._writer.call(
            partial(
                leases.refused,
                group=group,
                consumer_id=consumer_id,
                position=delivery.event.position.commit,
                action=action,
            )
        )
        answer.add_done_callback(self._tell)
        await asyncio.shield(answer)

    async def aclose(self) -> None:
        """Leave the group; what is not answered goes to the others at once."""
        if self._closed:
            return
        self._closed = True
        self._changed.set()
        self._unlisten()
        if self._member is None or not self._pool.is_open:
            return
        group, consumer_id = self._member
        unseen = [delivery.event.position.commit for delivery, _ in self._taken]
        self._taken.clear()
        answer = self._writer.call(
            partial(leases.leave, group=group, consumer_id=consumer_id, unseen=unseen)
        )
        answer.add_done_callback(self._tell)
        await asyncio.shield(answer)

    # ---------------------------------------------------------------- inside

    async def _joined(self) -> tuple[leases.Group, int]:
        if self._member is None:
            answer = self._writer.call(partial(leases.join, name=self._name, now=self._now()))
            answer.add_done_callback(self._note_member)
            await asyncio.shield(answer)
            return answer.result()
        return self._member

    def _note_member(self, answer: "asyncio.Future[tuple[leases.Group, int]]") -> None:
        if answer.exception() is None and self._member is None:
            self._member = answer.result()

    async def _take(self, group: leases.Group, consumer_id: int) -> None:
        # The time is taken when the writer comes to it: what is held is due back from then on.
        answer = self._writer.call(
            lambda connection: leases.take(connection, self._name, group, consumer_id, self._now())
        )
        answer.add_done_callback(self._note_taken)
        await asyncio.shield(answer)

    def _note_taken(self, answer: "asyncio.Future[leases.Taken]") -> None:
        if answer.exception() is None:
            deliveries, due_at = answer.result()
            self._taken.extend((Delivery(event, attempt), due_at) for event, attempt in deliveries)
        self._feed.changed()

    def _tell(self, answer: "asyncio.Future[None]") -> None:
        answer.exception()  # the caller was told, or was cancelled and is not to be
        self._feed.changed()

    async def _wait(self, group: leases.Group, consumer_id: int, wake_at: int | None) -> None:
        """Wait until something changed or a held event is due back; give signs of life meanwhile."""
        breath = group.lifetime / 3
        left = breath if wake_at is None else min(wake_at - self._now(), breath)
        try:
            async with asyncio.timeout(max(left / _SECOND, _SHORTEST_WAIT)):
                await self._changed.wait()
        except TimeoutError:
            if left == breath and self._pool.is_open:
                await self._writer.call(
                    partial(
                        leases.sign_of_life,
                        name=self._name,
                        group=group,
                        consumer_id=consumer_id,
                        now=self._now(),
                    )
                )

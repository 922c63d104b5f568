"""Catch-up subscriptions as the real server gives them: exclusive starts, checkpoints, caught up."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, TypeAlias

from aion_es.ids import StreamName
from aion_es.store.port import (
    START,
    CaughtUp,
    Checkpoint,
    EventStore,
    FellBehind,
    Position,
    RecordedEvent,
)
from aion_es.testing.eventstoredb.filters import Filter
from aion_es.testing.eventstoredb.ledger import Ledger, as_seen, is_tombstone
from aion_es.testing.eventstoredb.reading import Index, Reader, StreamNotFound, index_of
from aion_es.testing.eventstoredb.refusals import StreamDeleted

Message: TypeAlias = RecordedEvent | Checkpoint | CaughtUp | FellBehind


class Subscriptions:
    """Opens subscriptions."""

    def __init__(self, ledger: Ledger, reader: Reader) -> None:
        self._ledger = ledger
        self._reader = reader
        self._store: EventStore = ledger.store

    async def end_of(self, stream: StreamName) -> int:
        """Return the revision that the stream's next event will have.

        Raises:
            StreamDeleted: It was ended for good.
        """
        self._ledger.require_readable(stream)
        try:
            return await self._reader.last(stream) + 1
        except StreamNotFound:
            return await self._store.head(stream) + 1

    async def to_all(
        self, *, after: Position, wanted: Filter | None
    ) -> AsyncGenerator[Message, None]:
        """Yield what follows `after` and matches.

        With a filter checkpoints come as well: each time so many events passed, and before
        `CaughtUp`.
        """
        passed = 0
        seen = after
        async with self._store.subscribe_all(from_position=after) as subscription:
            async for message in subscription:
                if isinstance(message, RecordedEvent):
                    seen = message.position
                    event = as_seen(message)
                    passed += 1
                    if wanted is None or wanted.matches(event):
                        yield event
                    if wanted is not None and passed >= wanted.interval:
                        passed = 0
                        yield Checkpoint(seen)
                elif not isinstance(message, Checkpoint):
                    if wanted is not None and seen != START:
                        passed = 0
                        yield Checkpoint(seen)
                    yield message

    async def to_stream(
        self, stream: StreamName, *, from_revision: int
    ) -> AsyncGenerator[Message, None]:
        """Yield a stream's events from `from_revision` on, inclusive.

        Raises:
            StreamDeleted: It was ended for good.
        """
        self._ledger.require_readable(stream)
        index = index_of(stream)
        if index is not None:
            async with aclosing(self._to_index(index, from_revision)) as messages:
                async for message in messages:
                    yield message
            return
        async with self._store.subscribe(stream, from_revision=from_revision) as subscription:
            async for message in subscription:
                if not isinstance(message, Checkpoint):
                    yield message

    async def to_stream_until_its_end(
        self, stream: StreamName, *, from_revision: int
    ) -> AsyncGenerator[Message, None]:
        """Yield the same; after the last event of a stream that is ended meanwhile, say so.

        Raises:
            StreamDeleted: It was ended for good.
        """
        seen = from_revision - 1
        with self._ledger.ending(stream) as ended:
            messages = self.to_stream(stream, from_revision=from_revision)
            async with aclosing(_until(messages, ended)) as bounded:
                async for message in bounded:
                    yield message
                    if isinstance(message, RecordedEvent):
                        seen = message.revision
            if not ended.done():
                return  # the store was closed
        async for event in self._store.read(stream, from_revision=seen + 1):
            yield event
        raise StreamDeleted(stream)

    async def _to_index(self, index: Index, from_revision: int) -> AsyncGenerator[Message, None]:
        revision = 0
        async with self._store.subscribe_all(prefix=index.prefix) as subscription:
            async for message in subscription:
                if isinstance(message, RecordedEvent):
                    if not index.matches(message) or is_tombstone(message):
                        continue
                    if revision >= from_revision:
                        yield index.link(message, revision)
                    revision += 1
                elif not isinstance(message, Checkpoint):
                    yield message


async def _until(
    messages: AsyncGenerator[Message, None], ended: "asyncio.Future[None]"
) -> AsyncGenerator[Message, None]:
    """Yield messages until `ended` is done; what is not there at that moment does not come."""
    async with aclosing(messages):
        while True:
            following: asyncio.Future[Message | None]
            following = asyncio.ensure_future(anext(messages, None))
            waiting: set[asyncio.Future[Any]] = {following, ended}
            try:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if not following.done():
                    return
            finally:
                if not following.done():
                    following.cancel()
                    await asyncio.wait({following})
            message = following.result()
            if message is None:
                return
            yield message

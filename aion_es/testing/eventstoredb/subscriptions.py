"""Catch-up subscriptions as the real server gives them: exclusive starts, checkpoints, caught up."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeAlias

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

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
from aion_es.testing.eventstoredb.reading import Index, Reader, index_of

Message: TypeAlias = RecordedEvent | Checkpoint | CaughtUp | FellBehind


class Subscriptions:
    """Opens subscriptions."""

    def __init__(self, ledger: Ledger, reader: Reader) -> None:
        self._ledger = ledger
        self._reader = reader
        self._store: EventStore = ledger.store

    async def to_all(
        self, *, after: Position | None, wanted: Filter | None
    ) -> AsyncGenerator[Message, None]:
        """Yield what follows `after` and matches; None begins at the end.

        With a filter checkpoints come as well: each time so many events passed, and before
        `CaughtUp`.
        """
        start = await self._store.end_position() if after is None else after
        passed = 0
        seen = start
        async with self._store.subscribe_all(from_position=start) as subscription:
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
        self, stream: StreamName, *, from_revision: int | None
    ) -> AsyncGenerator[Message, None]:
        """Yield a stream's events from `from_revision` on, inclusive; None begins at the end.

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
        start = await self._store.head(stream) + 1 if from_revision is None else from_revision
        async with self._store.subscribe(stream, from_revision=start) as subscription:
            async for message in subscription:
                if not isinstance(message, Checkpoint):
                    yield message

    async def _to_index(
        self, index: Index, from_revision: int | None
    ) -> AsyncGenerator[Message, None]:
        revision = 0
        caught_up = False
        async with self._store.subscribe_all(prefix=index.prefix) as subscription:
            async for message in subscription:
                if isinstance(message, RecordedEvent):
                    if not index.matches(message) or is_tombstone(message):
                        continue
                    wanted = caught_up if from_revision is None else revision >= from_revision
                    if wanted:
                        yield index.link(message, revision)
                    revision += 1
                elif not isinstance(message, Checkpoint):
                    caught_up = caught_up or isinstance(message, CaughtUp)
                    yield message

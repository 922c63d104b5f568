"""The local server's subscriptions: what comes before the end of a stream that is tombstoned."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, Self

import pytest

from aion_es.ids import StreamName
from aion_es.store.memory import MemoryEventStore
from aion_es.store.port import ANY, CaughtUp, RecordedEvent, Subscription, SubscriptionMessage
from aion_es.testing.eventstoredb.ledger import Ledger
from aion_es.testing.eventstoredb.reading import Reader
from aion_es.testing.eventstoredb.refusals import StreamDeleted
from aion_es.testing.eventstoredb.subscriptions import Message, Subscriptions
from aion_es.testing.store_contract.base import some_events

S = StreamName("s")


async def _rest(messages: AsyncGenerator[Message, None], got: list[int]) -> None:
    async for message in messages:
        assert isinstance(message, RecordedEvent)
        got.append(message.revision)


class _Lagging(MemoryEventStore):
    """Its subscriptions never get to what is live, as those of a busy store may not for a while."""

    def subscribe(self, stream: StreamName, *, from_revision: int = 0) -> Any:
        return _UntilCaughtUp(super().subscribe(stream, from_revision=from_revision))


class _UntilCaughtUp:
    def __init__(self, inner: Subscription) -> None:
        self._inner = inner
        self._live = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._inner.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SubscriptionMessage:
        if self._live:
            await asyncio.Event().wait()
        message = await anext(self._inner)
        self._live = isinstance(message, CaughtUp)
        return message


@pytest.mark.parametrize("store", [MemoryEventStore, _Lagging], ids=["prompt", "lagging"])
async def test_what_was_appended_before_the_tombstone_comes_before_the_end(
    store: type[MemoryEventStore],
) -> None:
    ledger = Ledger(store())
    await ledger.append(S, some_events(1), ANY)
    messages = Subscriptions(ledger, Reader(ledger)).to_stream_until_its_end(S, from_revision=0)
    first, caught_up = await anext(messages), await anext(messages)
    assert isinstance(first, RecordedEvent)
    assert (first.revision, caught_up) == (0, CaughtUp())
    for _ in range(3):
        await ledger.append(S, some_events(1), ANY)
    await ledger.tombstone(S, ANY)
    got: list[int] = []
    with pytest.raises(StreamDeleted):
        await _rest(messages, got)
    assert got == [1, 2, 3]


async def test_the_end_of_another_stream_ends_nothing() -> None:
    ledger = Ledger(MemoryEventStore())
    await ledger.append(S, some_events(1), ANY)
    messages = Subscriptions(ledger, Reader(ledger)).to_stream_until_its_end(S, from_revision=1)
    assert await anext(messages) == CaughtUp()
    await ledger.tombstone(StreamName("other"), ANY)
    await ledger.append(S, some_events(1), ANY)
    following = await anext(messages)
    assert isinstance(following, RecordedEvent)
    assert following.revision == 1
    await messages.aclose()

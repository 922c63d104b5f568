"""The border between what is read and what is handed over live, one step at a time."""

import asyncio
import uuid
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aion_es.ids import StreamName
from aion_es.store import feed
from aion_es.store.feed import CatchUpSubscription, LiveFeed, Page, PrefixSource, StreamSource
from aion_es.store.port import CaughtUp, FellBehind, Position, RecordedEvent, SubscriptionMessage

NAMES = ("a-1", "a-2", "b-1")


class Log:
    """A store of nothing but names: what is stored, and a feed that learns of it when it is told."""

    def __init__(self) -> None:
        self.events: list[RecordedEvent] = []
        self.feed = LiveFeed(-1)
        self.page_size = 3
        self._told = -1

    def write(self, *names: str) -> None:
        for name in names:
            revision = sum(event.stream == name for event in self.events)
            at = len(self.events)
            self.events.append(
                RecordedEvent(
                    uuid.UUID(int=at),
                    "Happened",
                    b"",
                    b"",
                    StreamName(name),
                    revision,
                    Position(at, at),
                    datetime(2026, 1, 1, tzinfo=UTC),
                )
            )

    def tell(self, size: int = 0) -> None:
        """Let the feed learn of what was written since the last time."""
        after, self._told = self._told, len(self.events) - 1
        if self._told > after:
            new = self.events[after + 1 :]
            self.feed.publish(after, self._told, size, lambda: new)

    def skip(self) -> None:
        """Say nothing of what was written: another process did it."""
        self._told = len(self.events) - 1

    async def _answer(self, found: list[RecordedEvent]) -> Page:
        """Return a page of what was found, a moment after it was looked up."""
        page = Page(found[: self.page_size], len(self.events) - 1, complete=True)
        if len(found) > self.page_size:
            page = Page(page.events, page.events[-1].position.commit, complete=False)
        await asyncio.sleep(0)
        return page

    def subscribe(self, prefix: str) -> CatchUpSubscription:
        async def page(after: int) -> Page:
            await asyncio.sleep(0)
            rest = self.events[after + 1 :]
            found = [event for event in rest if event.stream.startswith(prefix)]
            return await self._answer(found)

        return self.feed.subscribe(PrefixSource(prefix, page))

    def subscribe_one(self, stream: str, revision: int = 0) -> CatchUpSubscription:
        async def page(low: int) -> Page:
            await asyncio.sleep(0)
            found = [e for e in self.events if e.stream == stream and e.revision >= low]
            return await self._answer(found)

        return self.feed.subscribe(StreamSource(stream, page), revision=revision)


async def ready(subscription: CatchUpSubscription) -> list[SubscriptionMessage]:
    """Return everything that comes without anybody writing."""
    messages: list[SubscriptionMessage] = []
    while True:
        waiting = asyncio.ensure_future(subscription.next_batch())
        for _ in range(10):
            await asyncio.sleep(0)
        if not waiting.done():
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            return messages
        messages += waiting.result()


async def test_what_was_read_before_the_feed_told_of_it_is_not_repeated() -> None:
    log = Log()
    log.write("a-1", "b-1")
    both, one = log.subscribe(""), log.subscribe_one("a-1")
    assert await ready(both) == [*log.events, CaughtUp()]
    assert await ready(one) == [log.events[0], CaughtUp()]
    log.tell()
    assert await ready(both) == []
    assert await ready(one) == []
    log.write("a-1")
    log.tell()
    assert await ready(both) == log.events[2:]
    assert await ready(one) == log.events[2:]


async def test_a_commit_that_does_not_follow_is_read_from_the_store_with_what_lies_between() -> (
    None
):
    log = Log()
    both, one = log.subscribe(""), log.subscribe_one("b-1")
    assert await ready(both) == await ready(one) == [CaughtUp()]
    log.write("b-1", "a-1")
    log.skip()
    log.write("a-2")
    log.tell()
    assert await ready(both) == log.events
    assert await ready(one) == log.events[:1]


async def test_what_another_process_wrote_is_read_when_the_feed_hears_of_it() -> None:
    log = Log()
    subscription = log.subscribe("a")
    assert await ready(subscription) == [CaughtUp()]
    log.write("b-1", "a-1")
    log.skip()
    assert await ready(subscription) == []
    log.feed.advanced(1)
    assert await ready(subscription) == log.events[1:]


async def test_a_stream_is_given_from_a_revision_that_is_yet_to_come() -> None:
    log = Log()
    log.write("a-1")
    log.tell()
    subscription = log.subscribe_one("a-1", revision=2)
    assert await ready(subscription) == [CaughtUp()]
    log.write("a-1", "a-1", "a-1")
    log.tell()
    assert await ready(subscription) == log.events[2:]


async def test_many_waiting_bytes_send_a_subscriber_back_to_reading(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feed, "MAX_BUFFERED_BYTES", 100)
    log = Log()
    subscription = log.subscribe("a")
    assert await ready(subscription) == [CaughtUp()]
    for name in ("b-1", "b-1", "a-1", "a-1"):
        log.write(name)
        log.tell(size=60)
    assert await ready(subscription) == log.events[2:]
    for _ in range(3):
        log.write("a-1")
        log.tell(size=60)
    assert await ready(subscription) == [
        *log.events[4:6],
        FellBehind(),
        log.events[6],
        CaughtUp(),
    ]


async def test_a_closed_subscription_is_forgotten() -> None:
    log = Log()
    for subscription in (log.subscribe(""), log.subscribe_one("a-1")):
        await ready(subscription)
        await subscription.aclose()
        assert await subscription.next_batch() == ()
    log.write("a-1")
    log.tell()
    assert log.feed._open == log.feed._live == set()
    assert log.feed._live_by_stream == {}


STEPS = st.lists(st.sampled_from([*NAMES, "tell", "skip", "advanced", "tick"]), max_size=60)


@given(STEPS)
def test_whatever_the_order_of_writing_telling_and_reading_nothing_is_missed_or_repeated(
    steps: list[str],
) -> None:
    async def read(subscription: CatchUpSubscription, into: list[RecordedEvent]) -> None:
        while batch := await subscription.next_batch():
            into += [message for message in batch if isinstance(message, RecordedEvent)]

    async def example() -> None:
        log = Log()
        subscriptions = [log.subscribe(""), log.subscribe("a"), log.subscribe_one("a-1")]
        seen: list[list[RecordedEvent]] = [[] for _ in subscriptions]
        reading = [
            asyncio.ensure_future(read(subscription, into))
            for subscription, into in zip(subscriptions, seen, strict=True)
        ]
        for step in steps:
            if step in NAMES:
                log.write(step)
            elif step == "tick":
                await asyncio.sleep(0)
            elif step == "advanced":
                log.feed.advanced(len(log.events) - 1)
            else:
                getattr(log, step)()
        log.feed.advanced(len(log.events) - 1)
        for _ in range(200):  # more than all their pages need
            await asyncio.sleep(0)
        for subscription in subscriptions:
            await subscription.aclose()
        await asyncio.gather(*reading)
        assert seen == [
            log.events,
            [event for event in log.events if event.stream.startswith("a")],
            [event for event in log.events if event.stream == "a-1"],
        ]

    asyncio.run(example())

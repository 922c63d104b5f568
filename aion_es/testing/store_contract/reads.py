"""The contract of reading: `read`, `read_all`, `head`, `end_position`."""

# ruff: noqa: S101, D102 - a contract suite asserts, and its tests are named by sentences

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from aion_es.errors import InvalidArgumentError
from aion_es.ids import StreamName
from aion_es.store.port import ANY, NO_STREAM, START, EventStore, Position, RecordedEvent
from aion_es.testing.store_contract.base import (
    OTHER,
    STREAM,
    StoreContractBase,
    as_appended,
    collect,
    places,
    some_events,
)

TRICKY_NAMES = [
    "a-1",
    "a_1",
    "a%1",
    "A-1",
    "a",
    "ab-1",
    "b-1",
    "a\\-1",
    "a[1]",
    "a*1",
    "a?1",
    "a'1",
    "é-1",
    "e\u0301-1",
    "z\ud7ff",
    "z\ud7ff-1",
    "z\U0010ffff",
    "z\U0010ffff-1",
    "🧵-1",
]
"""Names that a filter made of wildcards, collations or ranges of code points tells apart wrongly."""


class ReadContract(StoreContractBase):
    """What a reader is promised."""

    async def test_an_unknown_stream_reads_as_nothing(self, store: EventStore) -> None:
        await store.append(OTHER, some_events(1), NO_STREAM)
        assert await collect(store.read(STREAM)) == []
        assert await collect(store.read(STREAM, backwards=True)) == []
        assert await collect(store.read(STREAM, from_revision=5)) == []
        assert await store.head(STREAM) == -1

    async def test_an_empty_store_reads_as_nothing(self, store: EventStore) -> None:
        assert await collect(store.read_all()) == []
        assert await collect(store.read_all(backwards=True)) == []
        assert await store.end_position() == START

    async def test_a_stream_is_read_from_and_to_every_revision(self, store: EventStore) -> None:
        await store.append(STREAM, some_events(6), NO_STREAM)
        events = await collect(store.read(STREAM))
        assert [event.revision for event in events] == [0, 1, 2, 3, 4, 5]
        for start in range(8):
            forwards = await collect(store.read(STREAM, from_revision=start))
            assert forwards == events[start:]
            backwards = await collect(store.read(STREAM, from_revision=start, backwards=True))
            assert backwards == events[: start + 1][::-1]

    async def test_a_limit_ends_a_read(self, store: EventStore) -> None:
        await store.append(STREAM, some_events(6), NO_STREAM)
        events = await collect(store.read(STREAM))
        for limit in range(8):
            assert await collect(store.read(STREAM, limit=limit)) == events[:limit]
            newest = await collect(store.read(STREAM, backwards=True, limit=limit))
            assert newest == events[::-1][:limit]
            part = await collect(store.read(STREAM, from_revision=2, limit=limit))
            assert part == events[2:][:limit]
            everything = await collect(store.read_all(limit=limit))
            assert everything == events[:limit]
            last = await collect(store.read_all(limit=limit, backwards=True))
            assert last == events[::-1][:limit]

    @pytest.mark.parametrize("revision", [2**63 - 1, 2**63, 2**70])
    async def test_beyond_every_revision_there_is_nothing_and_before_it_everything(
        self, store: EventStore, revision: int
    ) -> None:
        await store.append(STREAM, some_events(2), NO_STREAM)
        assert await collect(store.read(STREAM, from_revision=revision)) == []
        back = store.read(STREAM, from_revision=revision, backwards=True, limit=revision)
        assert [event.revision for event in await collect(back)] == [1, 0]

    async def test_no_events_are_read_with_a_limit_of_none_or_less(self, store: EventStore) -> None:
        await store.append(STREAM, some_events(2), NO_STREAM)
        for limit in (0, -1, -(2**70)):
            assert await collect(store.read(STREAM, limit=limit)) == []
            assert await collect(store.read_all(limit=limit)) == []

    @pytest.mark.parametrize(
        ("argument", "value"),
        [
            ("from_revision", "1"),
            ("from_revision", True),
            ("limit", "1"),
            ("limit", 1.5),
            ("from_position", 1),
            ("from_position", Position(2**63, 2**63)),
            ("from_position", Position(-2, -2)),
        ],
        ids=str,
    )
    async def test_what_is_no_place_to_read_from_is_refused(
        self, store: EventStore, argument: str, value: Any
    ) -> None:
        wanted: dict[str, Any] = {argument: value}
        reads: list[AsyncIterator[RecordedEvent]] = []
        if argument != "from_position":
            reads.append(store.read(STREAM, **wanted))
        if argument != "from_revision":
            reads.append(store.read_all(**wanted))
        for read in reads:
            with pytest.raises(InvalidArgumentError) as refused:
                await collect(read)
            assert refused.value.argument == argument

    async def test_ten_thousand_events_are_read_in_order_both_ways(self, store: EventStore) -> None:
        batches = [some_events(1_000, f"page {number}") for number in range(10)]
        for batch in batches:
            await store.append(STREAM, batch, ANY)
            await store.append(OTHER, batch[:10], ANY)
        events = await collect(store.read(STREAM))
        assert [event.revision for event in events] == list(range(10_000))
        assert as_appended(events) == [event for batch in batches for event in batch]
        assert await collect(store.read(STREAM, backwards=True)) == events[::-1]
        everything = await collect(store.read_all())
        assert len(everything) == 10_100
        assert [event for event in everything if event.stream == STREAM] == events
        assert await collect(store.read_all(backwards=True)) == everything[::-1]
        assert await collect(store.read_all(prefix="orders")) == events

    async def test_a_reader_may_stop_in_the_middle(self, store: EventStore) -> None:
        await store.append(STREAM, some_events(3_000), NO_STREAM)
        for items in (store.read(STREAM), store.read_all()):
            read = [await anext(items) for _ in range(3)]
            assert [event.revision for event in read] == [0, 1, 2]
            closing = getattr(items, "aclose", None)
            if closing is not None:  # the port asks for an iterator; most stores give a generator
                await closing()
        assert await store.head(STREAM) == 2_999

    async def test_a_read_goes_on_in_order_while_others_append(self, store: EventStore) -> None:
        stored = some_events(3_000)
        await store.append(STREAM, stored, NO_STREAM)

        async def append_more() -> None:
            for number in range(50):
                await store.append(STREAM, some_events(2, f"more {number}"), ANY)

        async with asyncio.TaskGroup() as group:
            group.create_task(append_more())
            events = await collect(store.read(STREAM))
        assert [event.revision for event in events] == list(range(len(events)))
        assert as_appended(events[:3_000]) == stored

    async def test_read_all_gives_every_stream_in_the_order_of_appending(
        self, store: EventStore
    ) -> None:
        await _interleaved(store)
        assert places(await collect(store.read_all())) == [
            ("orders-1", 0),
            ("orders-1", 1),
            ("invoices-1", 0),
            ("orders-1", 2),
            ("shipments-1", 0),
            ("invoices-1", 1),
            ("invoices-1", 2),
            ("orders-1", 3),
        ]

    async def test_read_all_resumes_after_every_position(self, store: EventStore) -> None:
        events = await _interleaved(store)
        for index, event in enumerate(events):
            after = await collect(store.read_all(from_position=event.position))
            assert after == events[index + 1 :]
            before = await collect(store.read_all(from_position=event.position, backwards=True))
            assert before == events[:index][::-1]
            some = await collect(
                store.read_all(from_position=event.position, prefix="invoices", limit=2)
            )
            assert some == [e for e in events[index + 1 :] if e.stream == OTHER][:2]

    async def test_backwards_from_the_start_means_from_the_end(self, store: EventStore) -> None:
        events = await _interleaved(store)
        assert await collect(store.read_all(from_position=START, backwards=True)) == events[::-1]

    async def test_a_position_survives_being_written_down(self, store: EventStore) -> None:
        events = await _interleaved(store)
        written = [str(event.position) for event in events]
        assert [Position.parse(text) for text in written] == [e.position for e in events]
        resumed = await collect(store.read_all(from_position=Position.parse(written[3])))
        assert resumed == events[4:]
        assert await collect(store.read_all(from_position=Position.parse(str(START)))) == events

    @pytest.mark.parametrize(
        "prefix", [*TRICKY_NAMES, "a-", "e", "z", "z\ud7ff-", "%", "_", "nothing", "🧵"]
    )
    async def test_a_prefix_means_exactly_the_names_that_begin_so(
        self, store: EventStore, prefix: str
    ) -> None:
        for name in TRICKY_NAMES:
            await store.append(StreamName(name), some_events(2, name), NO_STREAM)
        events = await collect(store.read_all())
        matching = [event for event in events if event.stream.startswith(prefix)]
        assert await collect(store.read_all(prefix=prefix)) == matching
        assert await collect(store.read_all(prefix=prefix, backwards=True)) == matching[::-1]

    async def test_a_rare_prefix_is_found_among_many_events(self, store: EventStore) -> None:
        for number in range(4):
            await store.append(STREAM, some_events(1_200), ANY)
            await store.append(OTHER, some_events(1, f"rare {number}"), ANY)
        rare = await collect(store.read_all(prefix="invoices-"))
        assert places(rare) == [(OTHER, 0), (OTHER, 1), (OTHER, 2), (OTHER, 3)]
        assert await collect(store.read_all(prefix="invoices-", limit=3)) == rare[:3]
        newest = await collect(store.read_all(prefix="invoices-", backwards=True, limit=3))
        assert newest == rare[::-1][:3]

    async def test_head_and_end_follow_every_append(self, store: EventStore) -> None:
        for size in (1, 2, 3):
            head = await store.head(STREAM)
            appended = await store.append(STREAM, some_events(size), ANY)
            assert appended.revision == head + size
            assert await store.head(STREAM) == appended.revision
            assert await store.end_position() == appended.position
        last = await store.append(OTHER, some_events(1), NO_STREAM)
        assert (await store.head(STREAM), await store.head(OTHER)) == (5, 0)
        assert await store.end_position() == last.position

    async def test_an_append_can_be_read_as_soon_as_it_is_answered(self, store: EventStore) -> None:
        for revision in range(30):
            appended = await store.append(STREAM, some_events(1), ANY)
            (newest,) = await collect(store.read(STREAM, backwards=True, limit=1))
            (last,) = await collect(store.read_all(backwards=True, limit=1))
            assert newest == last
            assert (newest.revision, newest.position) == (revision, appended.position)


async def _interleaved(store: EventStore) -> list[RecordedEvent]:
    """Append eight events to three streams; return them as the store orders them."""
    shipments = StreamName("shipments-1")
    for stream, size in (
        (STREAM, 2),
        (OTHER, 1),
        (STREAM, 1),
        (shipments, 1),
        (OTHER, 2),
        (STREAM, 1),
    ):
        await store.append(stream, some_events(size), ANY)
    return await collect(store.read_all())

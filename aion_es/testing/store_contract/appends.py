"""The contract of `append`: all or nothing, at the expected revision, once."""

# ruff: noqa: S101, D102 - a contract suite asserts, and its tests are named by sentences

import asyncio
import string
from datetime import UTC, timedelta
from typing import Any

import pytest

from aion_es.clock import SystemClock
from aion_es.errors import AppendTooLargeError, ConcurrencyConflictError, InvalidArgumentError
from aion_es.ids import StreamName
from aion_es.store.port import (
    ANY,
    EXISTS,
    NO_STREAM,
    START,
    Appended,
    EventStore,
    Expected,
    NewEvent,
    RecordedEvent,
)
from aion_es.testing.store_contract.base import (
    OTHER,
    STREAM,
    StoreContractBase,
    an_event,
    as_appended,
    collect,
    some_events,
)

ODD_NAMES = [
    "orders 1",
    "orders/1?x=1#y&z=%20",
    "orders-%_*[a-z]",
    'it\'s "quoted" \\ `too`',
    "Straße-北京-🜚🧵-مرحبا",
    "e\u0301-decomposed",
    "\u00e9-composed",
    "UPPER-1",
    "upper-1",
    "-starts-with-a-dash",
    ".",
    " ",
    "\U0010ffff\ud7ff",
    "aion_workflow-" + "🧵" * 255,
]


async def _submitted(store: EventStore, *arguments: Any) -> Appended:
    return await store.submit(*arguments)


class AppendContract(StoreContractBase):
    """What a writer is promised."""

    async def test_every_field_comes_back_as_it_was_appended(self, store: EventStore) -> None:
        before = SystemClock().now()
        event = an_event(b'{"a": 1}', type="OrderPlaced", metadata=b'{"caused_by": "test"}')
        appended = await store.append(STREAM, [event], NO_STREAM)
        (read,) = await collect(store.read(STREAM))
        assert read == RecordedEvent(
            event.event_id,
            "OrderPlaced",
            b'{"a": 1}',
            b'{"caused_by": "test"}',
            STREAM,
            0,
            appended.position,
            read.recorded_at,
        )
        assert read.recorded_at.utcoffset() == timedelta(0)
        # A store on another machine has a clock of its own: near is enough.
        assert abs(read.recorded_at.astimezone(UTC) - before) < timedelta(minutes=1)

    async def test_read_all_gives_the_same_record_as_read(self, store: EventStore) -> None:
        await store.append(STREAM, some_events(3), NO_STREAM)
        assert await collect(store.read_all()) == await collect(store.read(STREAM))

    async def test_any_bytes_come_back_unchanged(self, store: EventStore) -> None:
        every_byte = bytes(range(256))
        batch = [
            an_event(every_byte, metadata=every_byte[::-1]),
            an_event(b"", metadata=b""),
            an_event(b"\x00", metadata=b"\x00\xff\x00"),
        ]
        await store.append(STREAM, batch, NO_STREAM)
        assert as_appended(await collect(store.read(STREAM))) == batch

    async def test_odd_event_types_come_back_unchanged(self, store: EventStore) -> None:
        batch = [an_event(type=name) for name in ("Größe.geändert", "a b", "%_'\"", "🧵" * 20)]
        await store.append(STREAM, batch, NO_STREAM)
        assert as_appended(await collect(store.read(STREAM))) == batch

    async def test_odd_stream_names_are_streams_of_their_own(self, store: EventStore) -> None:
        written = {StreamName(name): some_events(2, name) for name in ODD_NAMES}
        for stream, batch in written.items():
            await store.append(stream, batch, NO_STREAM)
        read = {stream: as_appended(await collect(store.read(stream))) for stream in written}
        assert read == written
        assert {event.stream for event in await collect(store.read_all())} == set(written)

    async def test_revisions_count_from_zero_and_positions_rise(self, store: EventStore) -> None:
        first = await store.append(STREAM, some_events(2), NO_STREAM)
        second = await store.append(STREAM, some_events(3), first.revision)
        events = await collect(store.read(STREAM))
        assert [event.revision for event in events] == [0, 1, 2, 3, 4]
        positions = [event.position for event in events]
        assert positions == sorted(set(positions))
        assert first == Appended(1, positions[1])
        assert second == Appended(4, positions[4])

    # -------------------------------------------------------------- what may be expected

    @pytest.mark.parametrize("expected", [NO_STREAM, ANY, -1], ids=str)
    async def test_a_missing_stream_admits(
        self, store: EventStore, expected: int | Expected
    ) -> None:
        batch = some_events(2)
        assert (await store.append(STREAM, batch, expected)).revision == 1
        assert as_appended(await collect(store.read(STREAM))) == batch

    @pytest.mark.parametrize("expected", [EXISTS, 0, 7], ids=str)
    async def test_a_missing_stream_refuses(
        self, store: EventStore, expected: int | Expected
    ) -> None:
        await self._refused(store, some_events(1), expected, actual=-1)
        assert await collect(store.read_all()) == []

    @pytest.mark.parametrize("expected", [1, ANY, EXISTS], ids=str)
    async def test_an_existing_stream_admits(
        self, store: EventStore, expected: int | Expected
    ) -> None:
        first, second = some_events(2, "first"), some_events(2, "second")
        await store.append(STREAM, first, NO_STREAM)
        assert (await store.append(STREAM, second, expected)).revision == 3
        assert as_appended(await collect(store.read(STREAM))) == first + second

    @pytest.mark.parametrize("expected", [NO_STREAM, -1, 0, 2, 7], ids=str)
    async def test_an_existing_stream_refuses(
        self, store: EventStore, expected: int | Expected
    ) -> None:
        first = some_events(2)
        await store.append(STREAM, first, NO_STREAM)
        await self._refused(store, some_events(2), expected, actual=1)
        assert as_appended(await collect(store.read_all())) == first

    # -------------------------------------------------------------- batches

    @pytest.mark.parametrize("expected", ["1", "any", None, True, 1.0, b"1"], ids=repr)
    async def test_what_is_no_expectation_is_refused_and_nothing_is_written(
        self, store: EventStore, expected: Any
    ) -> None:
        await store.append(STREAM, some_events(2), NO_STREAM)
        for call in (
            lambda: store.append(STREAM, some_events(1), expected),
            lambda: _submitted(store, STREAM, some_events(1), expected),
            lambda: store.append(STREAM, [], expected),
            lambda: store.delete(STREAM, expected),
        ):
            with pytest.raises(InvalidArgumentError) as refused:
                await call()
            assert refused.value.argument == "expected"
        assert await store.head(STREAM) == 1

    @pytest.mark.parametrize("expected", [2**63 - 1, 2**63, 2**64, -2, -(2**70)])
    async def test_a_revision_that_no_stream_has_conflicts(
        self, store: EventStore, expected: int
    ) -> None:
        await store.append(STREAM, some_events(2), NO_STREAM)
        for call in (
            lambda: store.append(STREAM, some_events(1), expected),
            lambda: store.append(STREAM, [], expected),
            lambda: store.delete(STREAM, expected),
        ):
            with pytest.raises(ConcurrencyConflictError) as refused:
                await call()
            assert (refused.value.expected, refused.value.actual) == (expected, 1)
        assert await store.head(STREAM) == 1

    @pytest.mark.parametrize("name", ["", "half \ud800"], ids=["empty", "half a surrogate pair"])
    async def test_a_name_that_no_stream_or_type_can_have_is_refused(
        self, store: EventStore, name: str
    ) -> None:
        for stream, kind in ((StreamName(name), "Happened"), (STREAM, name)):
            with pytest.raises(InvalidArgumentError):
                await store.append(stream, [an_event(type=kind)], ANY)
        assert await store.end_position() == START

    async def test_a_refused_batch_leaves_no_trace(self, store: EventStore) -> None:
        await store.append(STREAM, some_events(1), NO_STREAM)
        await self._refused(store, some_events(50), NO_STREAM, actual=0)
        await self._refused(store, some_events(50), 30, actual=0)
        (only,) = await collect(store.read_all())
        assert await store.end_position() == only.position
        assert await store.head(STREAM) == 0

    async def test_a_large_batch_is_appended_in_order(self, store: EventStore) -> None:
        batch = some_events(2_345)
        appended = await store.append(STREAM, batch, NO_STREAM)
        assert appended.revision == 2_344
        assert as_appended(await collect(store.read(STREAM))) == batch

    async def test_an_empty_batch_at_the_right_head_is_fine(self, store: EventStore) -> None:
        assert await store.append(STREAM, [], NO_STREAM) == Appended(-1, START)
        other = await store.append(OTHER, some_events(2), NO_STREAM)
        assert await store.append(STREAM, [], ANY) == Appended(-1, other.position)
        assert await store.append(OTHER, (), 1) == Appended(1, other.position)
        assert await store.append(OTHER, [], EXISTS) == Appended(1, other.position)
        assert await store.head(STREAM) == -1

    async def test_an_empty_batch_at_the_wrong_head_conflicts(self, store: EventStore) -> None:
        await store.append(STREAM, some_events(2), NO_STREAM)
        for expected in (NO_STREAM, 0, 2):
            await self._refused(store, [], expected, actual=1)
        with pytest.raises(ConcurrencyConflictError):
            await store.append(OTHER, [], EXISTS)

    async def test_one_id_may_stand_twice_in_a_batch(self, store: EventStore) -> None:
        event = an_event()
        await store.append(STREAM, [event, event], NO_STREAM)
        assert as_appended(await collect(store.read(STREAM))) == [event, event]

    # -------------------------------------------------------------- repeats

    async def test_a_repeat_answers_as_the_first_time_and_writes_nothing(
        self, store: EventStore
    ) -> None:
        first, second = some_events(2, "first"), some_events(3, "second")
        answers = [await store.append(STREAM, first, NO_STREAM)]
        assert await store.append(STREAM, first, NO_STREAM) == answers[0]
        answers.append(await store.append(STREAM, second, 1))
        assert await store.append(STREAM, second, 1) == answers[1]
        assert as_appended(await collect(store.read_all())) == first + second

    async def test_a_repeat_is_known_after_more_was_appended(self, store: EventStore) -> None:
        first, second = some_events(2, "first"), some_events(40, "second")
        answer = await store.append(STREAM, first, NO_STREAM)
        await store.append(STREAM, second, 1)
        assert await store.append(STREAM, first, NO_STREAM) == answer
        assert await store.append(STREAM, first, -1) == answer
        assert as_appended(await collect(store.read_all())) == first + second

    async def test_the_beginning_of_a_batch_is_a_repeat_too(self, store: EventStore) -> None:
        batch = some_events(3)
        await store.append(STREAM, batch, NO_STREAM)
        answer = await store.append(STREAM, batch[:2], NO_STREAM)
        events = await collect(store.read(STREAM))
        assert answer == Appended(1, events[1].position)
        assert as_appended(events) == batch

    async def test_ids_alone_decide_what_a_repeat_is(self, store: EventStore) -> None:
        event = an_event("as first written")
        answer = await store.append(STREAM, [event], NO_STREAM)
        rewritten = event._replace(data=b"as written again")
        assert await store.append(STREAM, [rewritten], NO_STREAM) == answer
        assert as_appended(await collect(store.read(STREAM))) == [event]

    async def test_almost_a_repeat_is_a_conflict(self, store: EventStore) -> None:
        batch = some_events(3)
        await store.append(STREAM, batch, NO_STREAM)
        longer = [*batch, an_event()]
        swapped = [batch[1], batch[0], batch[2]]
        last_differs = [*batch[:2], an_event()]
        for attempt in (longer, swapped, last_differs, batch[1:]):
            await self._refused(store, attempt, NO_STREAM, actual=2)
        await self._refused(store, batch, 0, actual=2)
        await self._refused(store, batch[:2], -4, actual=2)  # no place to look for a repeat
        assert as_appended(await collect(store.read_all())) == batch

    async def test_the_same_ids_elsewhere_are_written(self, store: EventStore) -> None:
        batch = some_events(2)
        await store.append(STREAM, batch, NO_STREAM)
        assert (await store.append(OTHER, batch, NO_STREAM)).revision == 1
        assert (await store.append(STREAM, batch, 1)).revision == 3
        assert as_appended(await collect(store.read(STREAM))) == batch + batch
        assert as_appended(await collect(store.read(OTHER))) == batch

    # -------------------------------------------------------------- limits

    async def test_an_event_of_900_kib_comes_back_whole(self, store: EventStore) -> None:
        pattern = string.printable.encode()
        large = an_event((pattern * 9_300)[: 900 * 1024])
        await store.append(STREAM, [large], NO_STREAM)
        assert as_appended(await collect(store.read(STREAM))) == [large]

    async def test_an_event_at_the_limit_is_accepted(self, store: EventStore) -> None:
        event = _event_of_size(store.limits.max_event_bytes)
        await store.append(STREAM, [event], NO_STREAM)
        assert as_appended(await collect(store.read(STREAM))) == [event]

    async def test_an_event_over_the_limit_is_refused_with_its_batch(
        self, store: EventStore
    ) -> None:
        limit = store.limits.max_event_bytes
        batch = [an_event("small"), _event_of_size(limit + 1)]
        with pytest.raises(AppendTooLargeError) as refused:
            await store.append(STREAM, batch, NO_STREAM)
        # The batch is over its own limit as well where the two limits are one.
        total = sum(event.size for event in batch)
        assert refused.value.limit == limit
        assert refused.value.size in {limit + 1, total}
        assert await collect(store.read_all()) == []

    async def test_a_batch_over_the_limit_is_refused(self, store: EventStore) -> None:
        limits = store.limits
        if limits.max_append_bytes > 64 * 2**20:
            pytest.skip(f"a batch of {limits.max_append_bytes:,} bytes is too much for a test")
        full, rest = divmod(limits.max_append_bytes + 1, limits.max_event_bytes)
        whole = _event_of_size(limits.max_event_bytes)
        batch = [*(whole for _ in range(full)), _event_of_size(max(rest, 100))]
        total = sum(event.size for event in batch)
        with pytest.raises(AppendTooLargeError) as refused:
            await store.append(STREAM, batch, NO_STREAM)
        assert (refused.value.size, refused.value.limit) == (total, limits.max_append_bytes)
        assert await collect(store.read_all()) == []

    # -------------------------------------------------------------- many at once

    async def test_of_a_hundred_writers_for_one_revision_one_wins(self, store: EventStore) -> None:
        await store.append(STREAM, [an_event("before")], NO_STREAM)
        batches = [some_events(2, f"writer {number}") for number in range(100)]
        answers = await asyncio.gather(
            *(store.append(STREAM, batch, 0) for batch in batches), return_exceptions=True
        )
        winners = [n for n, answer in enumerate(answers) if isinstance(answer, Appended)]
        assert len(winners) == 1
        losers = [answer for answer in answers if isinstance(answer, ConcurrencyConflictError)]
        assert [(e.stream, e.expected, e.actual) for e in losers] == [(STREAM, 0, 2)] * 99
        stored = as_appended(await collect(store.read(STREAM)))
        assert stored[1:] == batches[winners[0]]

    async def test_fifty_streams_grow_at_once_without_touching_each_other(
        self, store: EventStore
    ) -> None:
        streams = [StreamName(f"parallel-{number}") for number in range(50)]
        batches = {
            stream: [some_events(2, f"{stream} {n}") for n in range(10)] for stream in streams
        }

        async def grow(stream: StreamName) -> list[Appended]:
            return [
                await store.append(stream, batch, 2 * n - 1 if n else NO_STREAM)
                for n, batch in enumerate(batches[stream])
            ]

        answers = await asyncio.gather(*(grow(stream) for stream in streams))
        for stream, answered in zip(streams, answers, strict=True):
            events = await collect(store.read(stream))
            assert as_appended(events) == [event for batch in batches[stream] for event in batch]
            assert answered == [Appended(e.revision, e.position) for e in events[1::2]]
        positions = [event.position for event in await collect(store.read_all())]
        assert positions == sorted(set(positions))
        assert len(positions) == 1_000

    async def test_appends_called_in_turn_are_stored_in_turn(self, store: EventStore) -> None:
        batches = [some_events(2, f"call {number}") for number in range(30)]
        await asyncio.gather(*(store.append(STREAM, batch, ANY) for batch in batches))
        stored = as_appended(await collect(store.read(STREAM)))
        assert stored == [event for batch in batches for event in batch]

    async def test_the_caller_may_reuse_the_list_it_appended(self, store: EventStore) -> None:
        batch = some_events(2)
        given = list(batch)
        async with asyncio.TaskGroup() as group:
            group.create_task(store.append(STREAM, given, NO_STREAM))
            await asyncio.sleep(0)
            given.clear()
        assert as_appended(await collect(store.read(STREAM))) == batch

    @pytest.mark.parametrize("loop_turns", [0, 1, 2, 3, 5, 10, 50])
    async def test_an_append_cancelled_in_flight_is_there_whole_or_not_at_all(
        self, store: EventStore, loop_turns: int
    ) -> None:
        batch = some_events(20)
        async with asyncio.TaskGroup() as group:
            appending = group.create_task(store.append(STREAM, batch, NO_STREAM))
            for _ in range(loop_turns):
                await asyncio.sleep(0)
            appending.cancel()
        assert as_appended(await collect(store.read(STREAM))) in ([], batch)
        # The repeat that a caller makes who does not know the outcome: safe either way.
        assert (await store.append(STREAM, batch, NO_STREAM)).revision == 19
        assert as_appended(await collect(store.read_all())) == batch

    async def _refused(
        self, store: EventStore, batch: list[NewEvent], expected: int | Expected, actual: int
    ) -> None:
        with pytest.raises(ConcurrencyConflictError) as conflict:
            await store.append(STREAM, batch, expected)
        said = expected.value if isinstance(expected, Expected) else expected
        error = conflict.value
        assert (error.stream, error.expected, error.actual) == (STREAM, said, actual)


def _event_of_size(size: int) -> NewEvent:
    event = an_event(metadata=b"m", type="T")
    return event._replace(data=b"x" * (size - event.size))

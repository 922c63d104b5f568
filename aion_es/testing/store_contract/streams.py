"""The contract of a stream's metadata and of its deletion."""

# ruff: noqa: S101, D102 - a contract suite asserts, and its tests are named by sentences

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from aion_es.errors import ConcurrencyConflictError, InvalidArgumentError, StreamDeletedError
from aion_es.store.port import (
    ANY,
    EXISTS,
    NO_STREAM,
    Appended,
    EventStore,
    Expected,
    StreamMetadata,
)
from aion_es.testing.store_contract.base import (
    OTHER,
    STREAM,
    StoreContractBase,
    as_appended,
    collect,
    places,
    some_events,
)


class StreamContract(StoreContractBase):
    """What holds for a stream as a whole."""

    # -------------------------------------------------------------- metadata

    async def test_a_stream_has_no_metadata_until_it_is_set(self, store: EventStore) -> None:
        assert await store.metadata(STREAM) == StreamMetadata()
        await store.append(STREAM, some_events(1), NO_STREAM)
        assert await store.metadata(STREAM) == StreamMetadata()

    async def test_metadata_comes_back_and_is_replaced_whole(self, store: EventStore) -> None:
        first = StreamMetadata(max_count=3, max_age=timedelta(days=1), truncate_before=2)
        second = StreamMetadata(max_count=7)
        for metadata in (first, second, StreamMetadata()):
            await store.set_metadata(STREAM, metadata)
            assert await store.metadata(STREAM) == metadata
        assert await store.metadata(OTHER) == StreamMetadata()

    async def test_metadata_may_be_set_before_the_stream_exists(self, store: EventStore) -> None:
        await store.set_metadata(STREAM, StreamMetadata(max_count=2))
        assert await store.head(STREAM) == -1
        assert (await store.append(STREAM, some_events(3), NO_STREAM)).revision == 2
        assert places(await collect(store.read(STREAM))) == [(STREAM, 1), (STREAM, 2)]

    @pytest.mark.parametrize(
        ("argument", "value"),
        [
            ("max_count", 0),
            ("max_count", 2**63),
            ("max_count", "5"),
            ("max_age", timedelta()),
            ("max_age", timedelta.max),
            ("max_age", 5),
            ("truncate_before", -1),
            ("truncate_before", 2**63 - 1),
            ("truncate_before", True),
        ],
        ids=str,
    )
    async def test_metadata_that_no_stream_can_have_is_refused_and_changes_nothing(
        self, store: EventStore, argument: str, value: Any
    ) -> None:
        before = StreamMetadata(max_count=3)
        await store.set_metadata(STREAM, before)
        wanted: dict[str, Any] = {argument: value}
        with pytest.raises(InvalidArgumentError) as refused:
            await store.set_metadata(STREAM, StreamMetadata(**wanted))
        assert refused.value.argument == argument
        assert await store.metadata(STREAM) == before

    async def test_the_largest_metadata_comes_back(self, store: EventStore) -> None:
        largest = StreamMetadata(
            max_count=2**63 - 1, max_age=timedelta(days=10_675_199), truncate_before=2**63 - 2
        )
        await store.set_metadata(STREAM, largest)
        assert await store.metadata(STREAM) == largest
        await store.append(STREAM, some_events(1), NO_STREAM)
        assert await collect(store.read(STREAM)) == []

    @pytest.mark.parametrize(
        ("metadata", "visible"),
        [
            (StreamMetadata(max_count=2), [3, 4]),
            (StreamMetadata(max_count=5), [0, 1, 2, 3, 4]),
            (StreamMetadata(max_count=50), [0, 1, 2, 3, 4]),
            (StreamMetadata(truncate_before=1), [1, 2, 3, 4]),
            (StreamMetadata(truncate_before=4), [4]),
            (StreamMetadata(truncate_before=9), []),
            (StreamMetadata(max_count=3, truncate_before=1), [2, 3, 4]),
            (StreamMetadata(max_count=3, truncate_before=3), [3, 4]),
            (StreamMetadata(max_age=timedelta(hours=1)), [0, 1, 2, 3, 4]),
            (StreamMetadata(max_age=timedelta(hours=1), max_count=1), [4]),
        ],
        ids=str,
    )
    async def test_metadata_limits_what_is_read(
        self, store: EventStore, metadata: StreamMetadata, visible: list[int]
    ) -> None:
        await store.append(STREAM, some_events(5), NO_STREAM)
        await store.append(OTHER, some_events(5), NO_STREAM)
        await store.set_metadata(STREAM, metadata)
        seen = [(STREAM, revision) for revision in visible]
        assert places(await collect(store.read(STREAM))) == seen
        assert places(await collect(store.read(STREAM, backwards=True))) == seen[::-1]
        assert places(await collect(store.read(STREAM, limit=2))) == seen[:2]
        newest = await collect(store.read(STREAM, from_revision=3, backwards=True))
        assert places(newest) == [place for place in seen[::-1] if place[1] <= 3]
        async with store.subscribe(STREAM) as subscription:
            assert places(await self.watch(subscription).until_caught_up()) == seen
        assert len(await collect(store.read(OTHER))) == 5

    async def test_hidden_events_still_count_for_revisions(self, store: EventStore) -> None:
        batch = some_events(3)
        answer = await store.append(STREAM, batch, NO_STREAM)
        await store.set_metadata(STREAM, StreamMetadata(truncate_before=3))
        assert await collect(store.read(STREAM)) == []
        assert await store.head(STREAM) == 2
        with pytest.raises(ConcurrencyConflictError) as conflict:
            await store.append(STREAM, some_events(1), NO_STREAM)
        assert conflict.value.actual == 2
        assert await store.append(STREAM, batch, NO_STREAM) == answer
        assert (await store.append(STREAM, some_events(1), EXISTS)).revision == 3
        assert places(await collect(store.read(STREAM))) == [(STREAM, 3)]

    async def test_max_count_moves_on_with_every_append(self, store: EventStore) -> None:
        await store.set_metadata(STREAM, StreamMetadata(max_count=2))
        for newest in range(1, 6):
            await store.append(STREAM, some_events(1 if newest > 1 else 2), ANY)
            read = places(await collect(store.read(STREAM)))
            assert read == [(STREAM, newest - 1), (STREAM, newest)]

    async def test_events_disappear_when_they_reach_max_age(self, store: EventStore) -> None:
        await store.append(STREAM, some_events(2), NO_STREAM)
        await store.append(OTHER, some_events(1), NO_STREAM)
        await store.set_metadata(STREAM, StreamMetadata(max_age=timedelta(milliseconds=50)))
        async with self.patiently():
            while await collect(store.read(STREAM)):  # noqa: ASYNC110 - it waits for time itself
                await asyncio.sleep(0.01)
        assert await collect(store.read(STREAM, backwards=True)) == []
        assert (await store.head(STREAM), len(await collect(store.read(OTHER)))) == (1, 1)
        await store.set_metadata(STREAM, StreamMetadata(max_age=timedelta(hours=1)))
        await store.append(STREAM, some_events(1), 1)
        newest = await collect(store.read(STREAM, backwards=True, limit=1))
        assert places(newest) == [(STREAM, 2)]

    # -------------------------------------------------------------- deletion

    async def test_a_deleted_stream_reads_as_unknown(self, store: EventStore) -> None:
        await store.append(STREAM, some_events(3), NO_STREAM)
        await store.append(OTHER, some_events(1), NO_STREAM)
        await store.delete(STREAM, 2)
        assert await store.head(STREAM) == -1
        assert await collect(store.read(STREAM)) == []
        assert await collect(store.read(STREAM, backwards=True)) == []
        assert places(await collect(store.read(OTHER))) == [(OTHER, 0)]

    @pytest.mark.parametrize("expected", [2, ANY, EXISTS], ids=str)
    async def test_an_existing_stream_admits_deletion(
        self, store: EventStore, expected: int | Expected
    ) -> None:
        await store.append(STREAM, some_events(3), NO_STREAM)
        await store.delete(STREAM, expected)
        assert await store.head(STREAM) == -1

    @pytest.mark.parametrize("expected", [NO_STREAM, -1, 1, 3], ids=str)
    async def test_an_existing_stream_refuses_deletion(
        self, store: EventStore, expected: int | Expected
    ) -> None:
        await store.append(STREAM, some_events(3), NO_STREAM)
        with pytest.raises(ConcurrencyConflictError) as conflict:
            await store.delete(STREAM, expected)
        assert (conflict.value.stream, conflict.value.actual) == (STREAM, 2)
        assert len(await collect(store.read(STREAM))) == 3

    async def test_deleting_an_unknown_stream_changes_nothing(self, store: EventStore) -> None:
        for expected in (ANY, NO_STREAM, -1):
            await store.delete(STREAM, expected)
        for wrong in (EXISTS, 0):
            with pytest.raises(ConcurrencyConflictError) as conflict:
                await store.delete(STREAM, wrong)
            assert conflict.value.actual == -1
        assert (await store.append(STREAM, some_events(1), NO_STREAM)).revision == 0

    async def test_deleting_twice_changes_nothing(self, store: EventStore) -> None:
        await store.append(STREAM, some_events(2), NO_STREAM)
        for expected in (1, 1, ANY, NO_STREAM):
            await store.delete(STREAM, expected)
        with pytest.raises(StreamDeletedError):
            await store.delete(STREAM, EXISTS)
        assert (await store.append(STREAM, some_events(1), NO_STREAM)).revision == 2

    @pytest.mark.parametrize("expected", [NO_STREAM, ANY, 2, -1], ids=str)
    async def test_a_deleted_stream_may_be_written_again_and_revisions_go_on(
        self, store: EventStore, expected: int | Expected
    ) -> None:
        await store.append(STREAM, some_events(3, "old"), NO_STREAM)
        await store.delete(STREAM, ANY)
        new = some_events(2, "new")
        assert (await store.append(STREAM, new, expected)).revision == 4
        assert await store.head(STREAM) == 4
        events = await collect(store.read(STREAM))
        assert places(events) == [(STREAM, 3), (STREAM, 4)]
        assert as_appended(events) == new
        assert await collect(store.read(STREAM, from_revision=1)) == events
        assert await collect(store.read(STREAM, backwards=True)) == events[::-1]
        assert await collect(store.read(STREAM, from_revision=2, backwards=True)) == []

    async def test_a_deleted_stream_refuses_what_expects_it(self, store: EventStore) -> None:
        await store.append(STREAM, some_events(3), NO_STREAM)
        await store.delete(STREAM, ANY)
        with pytest.raises(StreamDeletedError) as deleted:
            await store.append(STREAM, some_events(1), EXISTS)
        assert deleted.value.stream == STREAM
        for wrong in (1, 3):
            with pytest.raises(ConcurrencyConflictError) as conflict:
                await store.append(STREAM, some_events(1), wrong)
            assert (conflict.value.expected, conflict.value.actual) == (wrong, -1)
        assert await store.head(STREAM) == -1

    async def test_an_empty_batch_does_not_bring_a_deleted_stream_back(
        self, store: EventStore
    ) -> None:
        last = await store.append(STREAM, some_events(3), NO_STREAM)
        await store.delete(STREAM, ANY)
        for expected in (NO_STREAM, ANY, 2):
            assert (await store.append(STREAM, [], expected)).revision == -1
        assert await store.head(STREAM) == -1
        assert await store.end_position() >= last.position

    async def test_a_recreated_stream_is_like_any_other(self, store: EventStore) -> None:
        await store.append(STREAM, some_events(2), NO_STREAM)
        await store.delete(STREAM, ANY)
        batch = some_events(2, "new")
        answer = await store.append(STREAM, batch, NO_STREAM)
        assert await store.append(STREAM, batch, NO_STREAM) == answer
        assert await store.append(STREAM, batch, 1) == answer
        with pytest.raises(ConcurrencyConflictError) as conflict:
            await store.append(STREAM, some_events(1), NO_STREAM)
        assert conflict.value.actual == 3
        assert (await store.append(STREAM, some_events(1), EXISTS)).revision == 4
        await store.delete(STREAM, 4)
        assert (await store.append(STREAM, some_events(1), NO_STREAM)).revision == 5
        assert places(await collect(store.read(STREAM))) == [(STREAM, 5)]

    async def test_max_count_counts_only_the_present_life(self, store: EventStore) -> None:
        await store.append(STREAM, some_events(5), NO_STREAM)
        await store.delete(STREAM, ANY)
        await store.append(STREAM, some_events(2), NO_STREAM)
        await store.set_metadata(STREAM, StreamMetadata(max_count=4))
        assert places(await collect(store.read(STREAM))) == [(STREAM, 5), (STREAM, 6)]

    async def test_limits_set_on_a_deleted_stream_leave_it_deleted(self, store: EventStore) -> None:
        await store.append(STREAM, some_events(2), NO_STREAM)
        await store.delete(STREAM, ANY)
        await store.set_metadata(STREAM, StreamMetadata(max_count=1))
        assert await store.head(STREAM) == -1
        assert await collect(store.read(STREAM)) == []
        assert await store.metadata(STREAM) == StreamMetadata(max_count=1)
        await store.append(STREAM, some_events(2), NO_STREAM)
        assert places(await collect(store.read(STREAM))) == [(STREAM, 3)]
        assert await store.metadata(STREAM) == StreamMetadata(max_count=1)

    async def test_a_subscription_follows_a_stream_into_its_next_life(
        self, store: EventStore
    ) -> None:
        await store.append(STREAM, some_events(2), NO_STREAM)
        async with store.subscribe(STREAM) as subscription:
            watch = self.watch(subscription)
            await watch.until_caught_up()
            await store.delete(STREAM, ANY)
            await store.append(STREAM, some_events(2), NO_STREAM)
            assert places(await watch.until_events(4)) == [(STREAM, n) for n in range(4)]
        async with store.subscribe(STREAM) as subscription:
            events = await self.watch(subscription).until_caught_up()
            assert places(events) == [(STREAM, 2), (STREAM, 3)]

    async def test_of_many_deletions_and_appends_at_once_each_sees_a_whole_stream(
        self, store: EventStore
    ) -> None:
        async def delete() -> None:
            await store.delete(STREAM, ANY)

        async def append(number: int) -> Appended:
            return await store.append(STREAM, some_events(2, f"{number}"), ANY)

        calls = [append(number) if number % 3 else delete() for number in range(60)]
        answers = await asyncio.gather(*calls)
        revisions = [a.revision for a in answers if isinstance(a, Appended)]
        assert sorted(revisions) == list(range(1, 80, 2))
        read = [event.revision for event in await collect(store.read(STREAM))]
        assert read == list(range(80 - len(read), 80))

"""Copying streams from one store to another: complete, in order, resumable, and verified."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from aion_es.errors import AppendTooLargeError, StoreCorruptError
from aion_es.ids import StreamName
from aion_es.store.copying import CopyProgress, copy_stream, copy_streams
from aion_es.store.memory import MemoryEventStore
from aion_es.store.port import (
    ANY,
    NO_STREAM,
    EventStore,
    Position,
    StoreLimits,
    StreamMetadata,
)
from aion_es.store.sqlite import SQLiteEventStore
from aion_es.testing.store_contract.base import (
    OTHER,
    STREAM,
    an_event,
    as_appended,
    collect,
    places,
    some_events,
)


@pytest.fixture
async def source() -> AsyncIterator[EventStore]:
    async with await SQLiteEventStore.open(None) as store:
        yield store


@pytest.fixture
def destination() -> MemoryEventStore:
    return MemoryEventStore()


async def _fill(store: EventStore) -> None:
    for number in range(4):
        await store.append(STREAM, some_events(3, f"order {number}"), ANY)
        await store.append(OTHER, some_events(2, f"invoice {number}"), ANY)


async def test_every_event_arrives_in_the_sources_order(
    source: EventStore, destination: MemoryEventStore
) -> None:
    await _fill(source)
    progress = await copy_streams(source, destination)
    expected, arrived = await collect(source.read_all()), await collect(destination.read_all())
    assert as_appended(arrived) == as_appended(expected)
    assert places(arrived) == places(expected)
    size = sum(event.size for event in as_appended(expected))
    assert progress == CopyProgress(
        streams=2, copied=20, found=0, verified=20, size=size, position=expected[-1].position
    )


async def test_only_streams_with_the_prefix_are_copied(
    source: EventStore, destination: MemoryEventStore
) -> None:
    await _fill(source)
    await copy_streams(source, destination, prefix="invoices")
    assert {event.stream for event in await collect(destination.read_all())} == {OTHER}


async def test_one_stream_is_copied_by_its_exact_name(
    source: EventStore, destination: MemoryEventStore
) -> None:
    await _fill(source)
    longer = StreamName(f"{OTHER}0")
    await source.append(longer, some_events(1), NO_STREAM)
    progress = await copy_stream(source, destination, OTHER)
    expected = [event for event in await collect(source.read_all()) if event.stream == OTHER]
    arrived = await collect(destination.read_all())
    assert as_appended(arrived) == as_appended(expected)
    assert progress == CopyProgress(
        streams=1,
        copied=8,
        found=0,
        verified=8,
        size=sum(event.size for event in as_appended(expected)),
        position=expected[-1].position,
    )


async def test_a_stream_that_is_not_there_is_no_stream_to_be_copied(
    source: EventStore, destination: MemoryEventStore
) -> None:
    await _fill(source)
    assert await copy_stream(source, destination, StreamName("unknown")) == CopyProgress()
    assert await collect(destination.read_all()) == []


async def test_a_servers_own_streams_stay_behind_unless_they_are_asked_for(
    source: EventStore, destination: MemoryEventStore
) -> None:
    await source.append(STREAM, some_events(2), NO_STREAM)
    await source.append(StreamName("$epoch-information"), some_events(1), NO_STREAM)
    await copy_streams(source, destination)
    assert {event.stream for event in await collect(destination.read_all())} == {STREAM}
    await copy_streams(source, destination, prefix="$epoch")
    assert await destination.head(StreamName("$epoch-information")) == 0


async def test_progress_names_the_place_in_the_source_also_where_everything_was_found(
    source: EventStore, destination: MemoryEventStore
) -> None:
    await _fill(source)
    end = await source.end_position()
    told: list[Position] = []

    def note(progress: CopyProgress) -> None:
        told.append(progress.position)

    await copy_streams(source, destination, progress=note)
    first = len(told)
    await copy_streams(source, destination, progress=note)
    for positions in (told[:first], told[first:]):
        assert positions == sorted(positions)
        assert positions[-1] == end


async def test_a_copy_that_was_interrupted_goes_on(
    source: EventStore, destination: MemoryEventStore
) -> None:
    await _fill(source)

    def stop(progress: CopyProgress) -> None:
        if progress.copied >= 8:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        await copy_streams(source, destination, progress=stop)
    partly = len(await collect(destination.read_all()))
    assert 8 <= partly < 20
    progress = await copy_streams(source, destination)
    assert (progress.copied, progress.found, progress.verified) == (20 - partly, partly, 20)
    arrived = await collect(destination.read_all())
    assert sorted(places(arrived)) == sorted(places(await collect(source.read_all())))


async def test_copying_twice_changes_nothing(
    source: EventStore, destination: MemoryEventStore
) -> None:
    await _fill(source)
    await copy_streams(source, destination)
    again = await copy_streams(source, destination)
    assert (again.copied, again.found, again.verified) == (0, 20, 20)
    assert len(await collect(destination.read_all())) == 20


async def test_what_was_added_since_is_copied_too(
    source: EventStore, destination: MemoryEventStore
) -> None:
    await _fill(source)
    await copy_streams(source, destination)
    late = some_events(2, "late")
    await source.append(STREAM, late, ANY)
    progress = await copy_streams(source, destination)
    assert (progress.copied, progress.found) == (2, 20)
    assert as_appended(await collect(destination.read(STREAM)))[-2:] == late


async def test_a_large_stream_is_cut_into_appends(
    source: EventStore, destination: MemoryEventStore
) -> None:
    batch = some_events(1_234)
    await source.append(STREAM, batch, NO_STREAM)
    told: list[int] = []

    async def tell(progress: CopyProgress) -> None:
        told.append(progress.copied)

    await copy_streams(source, destination, verify=False, progress=tell)
    assert as_appended(await collect(destination.read(STREAM))) == batch
    assert told == [0, 500, 1_000, 1_234]


async def test_hidden_beginnings_and_deleted_streams_stay_behind(
    source: EventStore, destination: MemoryEventStore
) -> None:
    await source.append(STREAM, some_events(5, "old"), NO_STREAM)
    await source.delete(STREAM, ANY)
    new = some_events(3, "new")
    await source.append(STREAM, new, NO_STREAM)
    await source.append(OTHER, some_events(3), NO_STREAM)
    await source.delete(OTHER, ANY)
    progress = await copy_streams(source, destination)
    arrived = await collect(destination.read_all())
    assert as_appended(arrived) == new
    assert places(arrived) == [(STREAM, 0), (STREAM, 1), (STREAM, 2)]
    assert (progress.streams, progress.copied, progress.verified) == (1, 3, 3)


async def test_limits_on_count_and_age_come_along(
    source: EventStore, destination: MemoryEventStore
) -> None:
    await source.append(STREAM, some_events(5), NO_STREAM)
    limits = StreamMetadata(max_count=2, max_age=timedelta(days=3))
    await source.set_metadata(STREAM, limits)
    await copy_streams(source, destination)
    assert await destination.metadata(STREAM) == limits
    assert len(await collect(destination.read(STREAM))) == 2


async def test_another_stream_of_the_same_name_is_left_alone(
    source: EventStore, destination: MemoryEventStore
) -> None:
    await _fill(source)
    theirs = some_events(2, "theirs")
    await destination.append(STREAM, theirs, NO_STREAM)
    with pytest.raises(
        StoreCorruptError, match=r"orders-1@0: the destination holds something else"
    ):
        await copy_streams(source, destination)
    assert as_appended(await collect(destination.read(STREAM))) == theirs


async def test_a_longer_stream_in_the_destination_is_refused(
    source: EventStore, destination: MemoryEventStore
) -> None:
    await _fill(source)
    await copy_streams(source, destination)
    await destination.append(OTHER, some_events(1, "more"), ANY)
    with pytest.raises(StoreCorruptError, match="invoices-1@8"):
        await copy_streams(source, destination)


async def test_a_stream_that_was_deleted_in_the_destination_is_refused(
    source: EventStore, destination: MemoryEventStore
) -> None:
    await source.append(STREAM, some_events(3), NO_STREAM)
    await destination.append(STREAM, some_events(2), NO_STREAM)
    await destination.delete(STREAM, ANY)
    with pytest.raises(StoreCorruptError, match="deleted it"):
        await copy_streams(source, destination)


async def test_what_reads_back_differently_is_noticed(
    source: EventStore, destination: MemoryEventStore
) -> None:
    await source.append(STREAM, some_events(3), NO_STREAM)
    await copy_streams(source, destination)
    stored = destination._streams[STREAM].events
    stored[1] = stored[1]._replace(data=b"rot")
    with pytest.raises(StoreCorruptError, match="orders-1@1"):
        await copy_streams(source, destination)


async def test_an_event_over_the_destinations_limit_is_named_and_what_came_before_is_there(
    source: EventStore,
) -> None:
    class Small(MemoryEventStore):
        @property
        def limits(self) -> StoreLimits:
            return StoreLimits(max_event_bytes=1_000, max_append_bytes=1_000)

    small = Small()
    await source.append(OTHER, some_events(1), NO_STREAM)
    await source.append(STREAM, [an_event(b"x" * 2_000)], NO_STREAM)
    with pytest.raises(AppendTooLargeError):
        await copy_streams(source, small)
    assert places(await collect(small.read_all())) == [(OTHER, 0)]

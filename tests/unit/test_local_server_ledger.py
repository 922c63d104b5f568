"""EventStoreDB's rules for writing, over a store in memory: decided as the real server decides."""

import asyncio
from typing import Any

import pytest

from aion_es.ids import StreamName
from aion_es.store.memory import MemoryEventStore
from aion_es.store.port import ANY, EXISTS, NO_STREAM, ExpectedRevision
from aion_es.testing.eventstoredb.ledger import Ledger
from aion_es.testing.eventstoredb.reading import Reader, StreamNotFound
from aion_es.testing.eventstoredb.refusals import StreamDeleted, WrongExpectedVersion
from tests.unit.local_server_events import new

S = StreamName("s")


@pytest.fixture
async def ledger() -> Ledger:
    made = Ledger(MemoryEventStore())
    await made.load()
    return made


async def revisions(ledger: Ledger) -> list[int]:
    reading = Reader(ledger).stream(S, from_revision=None, backwards=False, count=100)
    return [event.revision async for event in reading]


async def write(ledger: Ledger, expected: ExpectedRevision, *numbers: int) -> int:
    return (await ledger.append(S, [new(number) for number in numbers], expected)).revision


@pytest.mark.parametrize(
    ("expected", "numbers", "outcome"),
    [
        (1, (7,), 2),  # at the head
        (1, (0,), 2),  # at the head, though the id is there already
        (0, (1,), 1),  # a repetition
        (NO_STREAM, (0, 1), 1),
        (NO_STREAM, (0,), 0),
        (NO_STREAM, (0, 7), WrongExpectedVersion),  # half a repetition
        (0, (7,), WrongExpectedVersion),
        (5, (7,), WrongExpectedVersion),
        (ANY, (1,), 1),
        (ANY, (7,), 2),
        (EXISTS, (0, 1), 1),
        (ANY, (1, 7), WrongExpectedVersion),
        (ANY, (7, 1), 3),  # new from the first on
    ],
)
async def test_an_append_to_a_stream_of_two_events(
    ledger: Ledger, expected: ExpectedRevision, numbers: tuple[int, ...], outcome: Any
) -> None:
    await write(ledger, NO_STREAM, 0, 1)
    if isinstance(outcome, int):
        assert await write(ledger, expected, *numbers) == outcome
    else:
        with pytest.raises(outcome):
            await write(ledger, expected, *numbers)
        assert await revisions(ledger) == [0, 1]


@pytest.mark.parametrize(
    ("expected", "numbers", "outcome"),
    [
        (NO_STREAM, (7,), 2),
        (ANY, (7,), 2),
        (1, (7,), 2),
        (0, (7,), WrongExpectedVersion),
        (EXISTS, (7,), StreamDeleted),
        (NO_STREAM, (0, 1), 1),  # the very first, repeated
        (ANY, (0, 1), 1),
    ],
)
async def test_an_append_to_a_deleted_stream_of_two_events(
    ledger: Ledger, expected: ExpectedRevision, numbers: tuple[int, ...], outcome: Any
) -> None:
    await write(ledger, NO_STREAM, 0, 1)
    await ledger.delete(S, 1)
    if not isinstance(outcome, int):
        with pytest.raises(outcome):
            await write(ledger, expected, *numbers)
    else:
        assert await write(ledger, expected, *numbers) == outcome
    if outcome == 2:
        assert await revisions(ledger) == [2]
    else:
        with pytest.raises(StreamNotFound):
            await revisions(ledger)


async def test_a_deletion_beside_appends_hides_all_or_lets_later_ones_be_read(
    ledger: Ledger,
) -> None:
    await write(ledger, NO_STREAM, 0)
    async with asyncio.TaskGroup() as group:
        appends = [group.create_task(write(ledger, ANY, n)) for n in range(1, 4)]
        group.create_task(ledger.delete(S, ANY))
        appends += [group.create_task(write(ledger, ANY, n)) for n in range(4, 7)]
    assert [task.result() for task in appends] == [1, 2, 3, 4, 5, 6]
    assert await revisions(ledger) == [4, 5, 6]


async def test_only_one_of_many_deletions_at_a_revision_and_an_append_there_wins(
    ledger: Ledger,
) -> None:
    await write(ledger, NO_STREAM, 0)
    outcomes = await asyncio.gather(
        write(ledger, 0, 1), ledger.delete(S, 0), return_exceptions=True
    )
    assert outcomes[0] == 1
    assert isinstance(outcomes[1], WrongExpectedVersion)


async def test_what_a_ledger_wrote_another_one_knows(ledger: Ledger) -> None:
    await write(ledger, NO_STREAM, 0, 1)
    await ledger.delete(S, ANY)
    await ledger.tombstone(StreamName("ended"), ANY)
    other = Ledger(ledger.store)
    await other.load()
    assert other.is_deleted(S)
    with pytest.raises(StreamDeleted):
        other.require_readable("ended")
    with pytest.raises(StreamDeleted):
        other.require_readable("$$ended")


async def test_metadata_may_be_written_after_a_tombstone(ledger: Ledger) -> None:
    await ledger.tombstone(S, ANY)
    written = await ledger.append(StreamName("$$s"), [new(0)], ANY)
    assert written.revision == 0

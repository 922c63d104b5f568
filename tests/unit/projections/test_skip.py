"""An operator has a projection pass over an event; recorded, and never without being told."""

import asyncio
from collections.abc import Sequence
from hashlib import sha256
from typing import ClassVar

import pytest
from sqlalchemy import Column, Connection, MetaData, Table, Text

from aion_es.errors import InvalidArgumentError
from aion_es.projections import Projection, ReadModel
from aion_es.store.memory import MemoryEventStore
from aion_es.store.port import Position, RecordedEvent
from tests.unit.projections.logs import (
    OTHER,
    PATIENCE,
    STREAM,
    Breaking,
    Log,
    append,
    append_around_poison,
    append_poison,
    handled,
    places,
    rebuilt,
    runner_of,
    running,
    standing_still,
    stored_places,
)


async def test_a_skipped_event_is_left_out_and_recorded_with_its_error(
    store: MemoryEventStore, model: ReadModel
) -> None:
    poison, last = await append_around_poison(store, 2)
    runner = runner_of(store, model, Log(), Breaking())
    async with running(runner):
        status = await standing_still(runner)
        assert status.failed_position == poison
        await runner.skip("breaking", poison, reason="known to be bad")
        await handled(runner, last, "breaking")
    wanted = [place for place in await stored_places(store) if place != poison.commit]
    assert await places(model, OTHER) == wanted
    assert await places(model) == await stored_places(store)
    (skipped,) = await runner.skipped("breaking")
    assert (skipped.position, skipped.version, skipped.reason) == (poison, 1, "known to be bad")
    assert (skipped.error, skipped.event) == (
        "LookupError: no such thing",
        f"ActivityScheduled {STREAM}@2",
    )


WIDE = Table("wide", MetaData(), Column("text", Text, primary_key=True))


class Widest(Projection):
    """Writes of an ActivityScheduled more than a row of an index of PostgreSQL may have."""

    name: ClassVar[str] = "widest"
    tables: ClassVar[Sequence[Table]] = (WIDE,)

    def apply(self, connection: Connection, batch: Sequence[RecordedEvent]) -> None:
        for event in batch:
            wide = event.type == "ActivityScheduled"
            numbers = range(event.position.commit, event.position.commit + (200 if wide else 1))
            text = "".join(sha256(str(number).encode()).hexdigest() for number in numbers)
            connection.execute(WIDE.insert().values(text=text))


async def test_an_event_of_which_a_database_cannot_hold_the_rows_is_named_and_may_be_skipped(
    store: MemoryEventStore, postgresql_url: str
) -> None:
    poison, last = await append_around_poison(store, 1)
    async with await ReadModel.open(postgresql_url) as model:
        runner = runner_of(store, model, Widest())
        async with running(runner), asyncio.timeout(PATIENCE.total_seconds()):
            status = await standing_still(runner, "widest")
            assert status.failed_position == poison
            await runner.skip("widest", poison)
            await handled(runner, last, "widest")


async def test_a_projection_that_does_not_stand_there_skips_nothing(
    store: MemoryEventStore, model: ReadModel
) -> None:
    last = (await append(store, 2)).position
    runner = runner_of(store, model, Log())
    async with running(runner):
        await runner.wait_until_caught_up()
        for place in (last, Position(last.commit + 1, last.prepare + 1)):
            with pytest.raises(InvalidArgumentError):
                await runner.skip("log", place)
    assert await runner.skipped("log") == []


async def test_a_skip_holds_for_a_rebuild_and_for_the_next_process(
    store: MemoryEventStore, model: ReadModel
) -> None:
    await append_poison(store)
    last = await append(store, 2)
    for _ in range(2):
        runner = runner_of(store, model, Breaking())
        async with running(runner):
            if not await runner.skipped("breaking"):
                status = await standing_still(runner)
                assert status.failed_position is not None
                await runner.skip("breaking", status.failed_position)
            await handled(runner, last, "breaking")
            await rebuilt(runner, "breaking")
    assert await places(model, OTHER) == (await stored_places(store))[1:]


async def test_another_process_sees_why_a_projection_stands_still_and_may_have_it_skip(
    store: MemoryEventStore, two_models: tuple[ReadModel, ReadModel]
) -> None:
    _, last = await append_around_poison(store, 1)
    runner, operator = [runner_of(store, model, Breaking()) for model in two_models]
    async with running(runner):
        await standing_still(runner)
        status = await standing_still(operator)
        assert (status.error, status.is_active) == ("LookupError: no such thing", False)
        assert status.failed_position is not None
        await operator.skip("breaking", status.failed_position)
        await handled(operator, last, "breaking")
        (status,) = await operator.status()
        assert (status.error, status.lag) == (None, 0)

"""What a runner refuses of projections before it feeds them."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, ClassVar

import pytest
from sqlalchemy import Column, Connection, Integer, MetaData, Table, inspect

from aion_es.errors import InvalidArgumentError
from aion_es.projections import (
    PendingWorkProjection,
    Projection,
    ProjectionRunner,
    ReadModel,
    VisibilityProjection,
)
from aion_es.projections.migrations import TABLES
from aion_es.projections.schedules import SchedulesProjection
from aion_es.store.memory import MemoryEventStore
from aion_es.store.port import RecordedEvent
from tests.unit.projections.logs import Log, append, runner_of, running, standing_still


def table(name: str) -> Table:
    return Table(name, MetaData(), Column("id", Integer, primary_key=True))


class Mine(Projection):
    """A user's, which does nothing."""

    name: ClassVar[str] = "mine"
    tables: ClassVar[Sequence[Table]] = (table("mine"),)

    def apply(self, connection: Connection, batch: Sequence[RecordedEvent]) -> None:
        pass


class Other(Mine):
    name: ClassVar[str] = "other"


def owning(name: str) -> Projection:
    class Owning(Mine):
        tables: ClassVar[Sequence[Table]] = (table(name),)

    return Owning()


class WithCoroutine(Mine):
    async def apply(self, connection: Connection, batch: Sequence[RecordedEvent]) -> None:  # type: ignore[override]  # what is refused
        pass


class WithGenerator(Mine):
    def apply(self, connection: Connection, batch: Sequence[RecordedEvent]) -> Iterator[None]:  # type: ignore[override]  # what is refused
        yield


class WithAsyncGenerator(Mine):
    async def apply(  # type: ignore[override]  # what is refused
        self, connection: Connection, batch: Sequence[RecordedEvent]
    ) -> AsyncIterator[None]:
        yield


def refusal_of(*projections: Projection) -> str:
    unused: Any = None  # refused before it is used
    with pytest.raises(InvalidArgumentError) as refused:
        ProjectionRunner(MemoryEventStore(), unused, projections, prefix="")
    assert refused.value.argument == "projections"
    return refused.value.reason


def test_two_projections_cannot_have_one_name() -> None:
    assert refusal_of(Log(), Log()) == "two are named 'log'"


def test_two_projections_cannot_have_one_table() -> None:
    assert refusal_of(Mine(), Other()) == "'mine' and 'other' both have a table 'mine'"


@pytest.mark.parametrize(
    "name",
    ["visibility", "Visibility", "pending_activities", "schedules", "mine__beside", "mine__aside"],
)
def test_a_table_of_a_built_in_projection_is_nobody_elses(name: str) -> None:
    reason = f"'mine' may not have a table {name!r}: the name is taken"
    assert refusal_of(owning(name)) == reason


@pytest.mark.parametrize("name", sorted(TABLES))
def test_a_table_of_the_read_model_itself_is_no_projections(name: str) -> None:
    reason = f"'mine' may not have a table {name!r}: the name is taken"
    assert refusal_of(owning(name)) == reason


async def test_the_read_models_own_tables_are_those_that_its_migrations_make(
    model: ReadModel,
) -> None:
    assert set(await model.read(lambda c: inspect(c).get_table_names())) == TABLES


@pytest.mark.parametrize("kind", [WithCoroutine, WithGenerator, WithAsyncGenerator])
def test_a_handler_that_would_do_nothing_when_called_is_refused(kind: type[Projection]) -> None:
    assert refusal_of(kind()) == (
        "apply of 'mine' must be a plain function: neither async nor a generator"
    )


async def test_a_handler_that_returns_an_awaitable_stands_still_and_loses_no_event(
    store: MemoryEventStore, model: ReadModel
) -> None:
    class Promising(Mine):
        def apply(self, connection: Connection, batch: Sequence[RecordedEvent]) -> Any:
            return asyncio.sleep(0)

    first = (await append(store, 1)).position
    runner = runner_of(store, model, Promising())
    async with running(runner):
        status = await standing_still(runner, "mine")
    assert status.failed_position == first
    assert status.error == (
        "InvalidArgumentError: projections: apply returned an awaitable; it must not be async"
    )


async def test_the_built_in_projections_and_a_users_share_a_runner(model: ReadModel) -> None:
    built_in = (PendingWorkProjection(), VisibilityProjection(), SchedulesProjection())
    await runner_of(MemoryEventStore(), model, *built_in, Mine()).prepare()

"""A projection that writes every event down, and what tests of the runner need around it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import ClassVar

from sqlalchemy import Column, Connection, Integer, MetaData, Table, Text, func, select

from aion_es.ids import StreamName
from aion_es.projections import Projection, ProjectionRunner, ProjectionStatus, ReadModel
from aion_es.store.memory import MemoryEventStore
from aion_es.store.port import ANY, Appended, Position, RecordedEvent
from tests.unit.projections.histories import new_event, scheduled, started

STREAM = StreamName("aion_workflow-w")
SEEN = Table(
    "seen",
    MetaData(),
    Column("n", Integer, primary_key=True, autoincrement=False),
    Column("place", Integer, index=True),
    Column("type", Text),
)
PATIENCE = timedelta(seconds=20)


class Log(Projection):
    """Writes every event down; a doubled or a lost one shows."""

    name: ClassVar[str] = "log"
    tables: ClassVar[Sequence[Table]] = (SEEN,)

    def apply(self, connection: Connection, batch: Sequence[RecordedEvent]) -> None:
        first = connection.execute(select(func.count()).select_from(SEEN)).scalar_one()
        rows = [
            {"n": first + i, "place": e.position.commit, "type": e.type}
            for i, e in enumerate(batch)
        ]
        if rows:
            connection.execute(SEEN.insert(), rows)


OTHER = Table(
    "other",
    MetaData(),
    Column("place", Integer, primary_key=True, autoincrement=False),
)


class Breaking(Projection):
    """Cannot handle an ActivityScheduled until it is mended; its rows are the places of what it handled."""

    name: ClassVar[str] = "breaking"
    tables: ClassVar[Sequence[Table]] = (OTHER,)
    broken = True

    def apply(self, connection: Connection, batch: Sequence[RecordedEvent]) -> None:
        if self.broken and any(event.type == "ActivityScheduled" for event in batch):
            raise LookupError("no such thing")
        if batch:
            rows = [{"place": event.position.commit} for event in batch]
            connection.execute(OTHER.insert(), rows)


def runner_of(
    store: MemoryEventStore, model: ReadModel, *projections: Projection, max_batch: int = 100
) -> ProjectionRunner:
    return ProjectionRunner(
        store,
        model,
        projections,
        prefix="aion_",
        max_batch=max_batch,
        first_delay=timedelta(milliseconds=1),
        last_delay=timedelta(milliseconds=5),
    )


@asynccontextmanager
async def running(*runners: ProjectionRunner) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(runner.run()) for runner in runners]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


async def append(store: MemoryEventStore, count: int) -> Appended:
    """Append so many events; return the answer to the last."""
    events = [new_event(started(f"r{number}")) for number in range(count)]
    for event in events[:-1]:
        await store.append(STREAM, [event], ANY)
    return await store.append(STREAM, events[-1:], ANY)


async def append_poison(store: MemoryEventStore) -> Appended:
    """Append what `Breaking` cannot handle."""
    return await store.append(STREAM, [new_event(scheduled(0))], ANY)


async def append_around_poison(store: MemoryEventStore, count: int) -> tuple[Position, Appended]:
    """Append so many events, what `Breaking` cannot handle, and as many more.

    Returns:
        Where the poison is, and the answer to the last append.
    """
    await append(store, count)
    poison = await append_poison(store)
    return poison.position, await append(store, count)


async def handled(runner: ProjectionRunner, appended: Appended, *projections: str) -> None:
    """Return when each of the projections has handled what was appended."""
    for projection in projections:
        await runner.wait_until(appended.position, projection=projection, timeout=PATIENCE)


async def caught_up(runner: ProjectionRunner) -> None:
    """Run the runner until every projection has handled what is stored."""
    async with running(runner):
        await runner.wait_until_caught_up()


async def rebuilt(runner: ProjectionRunner, projection: str) -> None:
    """Ask for the projection's rows anew; return when they answer."""
    await runner.rebuild(projection)
    await runner.wait_until_rebuilt(projection, timeout=PATIENCE)


async def places(model: ReadModel, table: Table = SEEN) -> list[int]:
    """Return the positions that the projection wrote down, in the order in which it did."""
    query = select(table.c.place).order_by(*table.primary_key.columns)
    return await model.read(lambda connection: list(connection.execute(query).scalars()))


async def stored_places(store: MemoryEventStore) -> list[int]:
    return [event.position.commit async for event in store.read_all()]


async def standing_still(runner: ProjectionRunner, name: str = "breaking") -> ProjectionStatus:
    """Return the status of the projection once it stands still."""
    while True:
        status = next(status for status in await runner.status() if status.name == name)
        if status.failed_position is not None:
            return status

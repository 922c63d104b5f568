"""The runner: rows and checkpoint together, whoever dies, fails or runs beside it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

import pytest
from sqlalchemy import Column, Connection, Integer, MetaData, Table, Text, func, select

from aion_es.errors import (
    InvalidArgumentError,
    ProjectionLagError,
    SubscriptionDroppedError,
    UnsupportedStoreVersionError,
)
from aion_es.events import workflow as ev
from aion_es.ids import StreamName
from aion_es.projections import Projection, ProjectionRunner, ReadModel
from aion_es.store.memory import MemoryEventStore, MemorySubscription
from aion_es.store.port import ANY, START, Appended, Position, RecordedEvent
from tests.unit.projections.histories import new_event, scheduled, started

STREAM = StreamName("aion_workflow-w")
SEEN = Table(
    "seen",
    MetaData(),
    Column("n", Integer, primary_key=True),
    Column("place", Integer),
    Column("type", Text),
)


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


class Breaking(Log):
    """Cannot handle an ActivityScheduled until it is mended."""

    name: ClassVar[str] = "breaking"
    tables: ClassVar[Sequence[Table]] = (
        Table("other", MetaData(), Column("n", Integer, primary_key=True)),
    )
    broken = True

    def apply(self, connection: Connection, batch: Sequence[RecordedEvent]) -> None:
        if self.broken and any(event.type == "ActivityScheduled" for event in batch):
            raise LookupError("no such thing")


class Dropping(MemoryEventStore):
    """Refuses the first subscription, as a store does that drops it."""

    refused = 0

    def subscribe_all(
        self, *, from_position: Position = START, prefix: str = ""
    ) -> MemorySubscription:
        if not self.refused:
            self.refused += 1
            raise SubscriptionDroppedError("try again")
        return super().subscribe_all(from_position=from_position, prefix=prefix)


@pytest.fixture
async def store() -> AsyncIterator[MemoryEventStore]:
    made = MemoryEventStore()
    yield made
    await made.aclose()


@pytest.fixture
async def model() -> AsyncIterator[ReadModel]:
    async with await ReadModel.open("sqlite://") as made:
        yield made


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
        yield
        for task in tasks:
            task.cancel()


async def append(store: MemoryEventStore, count: int) -> Appended:
    events = [new_event(started(f"r{number}")) for number in range(count)]
    for event in events[:-1]:
        await store.append(STREAM, [event], ANY)
    return await store.append(STREAM, events[-1:], ANY)


async def places(model: ReadModel) -> list[int]:
    query = select(SEEN.c.place).order_by(SEEN.c.n)
    return await model.read(lambda connection: list(connection.execute(query).scalars()))


async def end_places(store: MemoryEventStore) -> list[int]:
    return [event.position.commit async for event in store.read_all()]


async def test_every_event_is_handled_once_in_the_stores_order(
    store: MemoryEventStore, model: ReadModel
) -> None:
    await append(store, 7)
    runner = runner_of(store, model, Log(), max_batch=3)
    async with running(runner):
        await runner.wait_until_caught_up()
        last = await append(store, 4)
        await runner.wait_until(last.position, projection="log")
    assert await places(model) == await end_places(store)


async def test_a_new_runner_goes_on_from_the_checkpoint(
    store: MemoryEventStore, model: ReadModel
) -> None:
    for _ in range(3):
        await append(store, 5)
        runner = runner_of(store, model, Log(), max_batch=2)
        async with running(runner):
            await runner.wait_until_caught_up()
    assert await places(model) == await end_places(store)


async def test_two_runners_on_one_read_model_count_no_event_twice(
    store: MemoryEventStore, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/model.db"
    await append(store, 60)
    async with await ReadModel.open(url) as one, await ReadModel.open(url) as other:
        runners = [runner_of(store, model, Log(), max_batch=2) for model in (one, other)]
        for runner in runners:
            await runner.prepare()
        async with running(*runners):
            for runner in runners:
                await runner.wait_until_caught_up()
            last = await append(store, 10)
            for runner in runners:
                await runner.wait_until(last.position, projection="log")
        assert await places(one) == await end_places(store)


async def test_a_handler_that_raises_stops_only_its_own_projection_and_says_where(
    store: MemoryEventStore, model: ReadModel
) -> None:
    await append(store, 2)
    await store.append(STREAM, [new_event(scheduled(0))], ANY)
    last = await append(store, 2)
    breaking = Breaking()
    runner = runner_of(store, model, Log(), breaking)
    async with running(runner):
        await runner.wait_until(last.position, projection="log")
        with pytest.raises(ProjectionLagError) as refused:
            await runner.wait_until(
                last.position, projection="breaking", timeout=timedelta(milliseconds=50)
            )
        log, failed = await runner.status()
        assert (log.error, log.position) == (None, last.position)
        assert (failed.error, failed.failed_event) == (
            "LookupError: no such thing",
            f"ActivityScheduled {STREAM}@2",
        )
        assert failed.failed_position is not None
        assert failed.position < failed.failed_position
        assert isinstance(refused.value.__cause__, LookupError)
        breaking.broken = False
        await runner.wait_until(last.position, projection="breaking", timeout=timedelta(seconds=10))
        assert (await runner.status())[1].error is None


async def test_a_dropped_subscription_is_opened_again_after_the_last_handled_event(
    model: ReadModel,
) -> None:
    store = Dropping()
    last = await append(store, 3)
    runner = runner_of(store, model, Log())
    async with running(runner):
        await runner.wait_until(last.position, projection="log", timeout=timedelta(seconds=10))
    assert await places(model) == await end_places(store)
    assert store.refused == 1
    await store.aclose()


async def test_only_wanted_event_types_reach_the_handler(
    store: MemoryEventStore, model: ReadModel
) -> None:
    class Choosy(Log):
        wants: ClassVar[frozenset[str] | None] = frozenset({"WorkflowCompleted"})

    await append(store, 2)
    last = await store.append(STREAM, [new_event(ev.WorkflowCompleted())], ANY)
    runner = runner_of(store, model, Choosy())
    async with running(runner):
        await runner.wait_until(last.position, projection="log")
    assert await places(model) == [last.position.commit]


async def test_a_raised_version_folds_everything_anew(
    store: MemoryEventStore, model: ReadModel
) -> None:
    class Newer(Log):
        version: ClassVar[int] = 2

    await append(store, 3)
    for projection in (Log(), Newer()):
        runner = runner_of(store, model, projection)
        async with running(runner):
            await runner.wait_until_caught_up()
    assert await places(model) == await end_places(store)
    with pytest.raises(UnsupportedStoreVersionError):
        await runner_of(store, model, Log()).prepare()


async def test_a_position_that_is_not_reached_in_time_is_a_lag_error(
    store: MemoryEventStore, model: ReadModel
) -> None:
    last = await append(store, 1)
    runner = runner_of(store, model, Log())
    with pytest.raises(ProjectionLagError) as refused:
        await runner.wait_until(last.position, projection="log", timeout=timedelta(0))
    assert (refused.value.position, refused.value.reached) == (str(last.position), str(START))


def test_two_projections_cannot_have_one_name() -> None:
    with pytest.raises(InvalidArgumentError):
        ProjectionRunner(MemoryEventStore(), None, [Log(), Log()], prefix="")  # type: ignore[arg-type]  # refused before it is used

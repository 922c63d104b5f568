"""Rows made anew: beside the old ones, which answer meanwhile, and put in their place at once."""

import threading
from collections.abc import Sequence
from typing import ClassVar

import pytest
from sqlalchemy import Column, Connection, Integer, MetaData, Table, Text, func, inspect, select

from aion_es.errors import InvalidArgumentError
from aion_es.projections import Projection, ProjectionRunner, ReadModel
from aion_es.projections.checkpoints import advance, begin_rebuild, install, swap
from aion_es.store.memory import MemoryEventStore
from aion_es.store.port import START, Position, RecordedEvent
from tests.unit.projections.logs import (
    PATIENCE,
    SEEN,
    Log,
    append,
    append_poison,
    caught_up,
    handled,
    places,
    rebuilt,
    runner_of,
    running,
    stored_places,
)

WAIT = 20.0


class Held(Log):
    """Waits, in every batch but the first, until it is let go."""

    version: ClassVar[int] = 2

    def __init__(self) -> None:
        self.began = threading.Event()
        self.go_on = threading.Event()
        self._batches = 0

    async def is_held(self, runner: ProjectionRunner) -> None:
        """Return when it waits in a batch of the runner."""
        while not self.began.is_set():
            await runner.status()

    def apply(self, connection: Connection, batch: Sequence[RecordedEvent]) -> None:
        super().apply(connection, batch)
        self._batches += 1
        if self._batches > 1:
            self.began.set()
            assert self.go_on.wait(WAIT)


class Older(Log):
    """A version before another."""

    version: ClassVar[int] = 1


class Newer(Log):
    """With a table that the older one has not."""

    version: ClassVar[int] = 2
    tables: ClassVar[Sequence[Table]] = (SEEN, Table("more", MetaData(), Column("id", Integer)))


async def test_a_rebuild_may_be_asked_for_before_there_are_tables_of_that_version(
    store: MemoryEventStore, model: ReadModel
) -> None:
    await append(store, 3)
    for projection in (Older(), Newer()):
        asking = runner_of(store, model, projection)
        await asking.rebuild("log")
        async with running(runner_of(store, model, type(projection)())):
            await asking.wait_until_caught_up()
            await asking.wait_until_rebuilt("log", timeout=PATIENCE)
        assert await places(model) == await stored_places(store)


class Remembering(Log):
    """Numbers its rows from memory, once it has looked how far they are."""

    def __init__(self) -> None:
        self._next: int | None = None

    def apply(self, connection: Connection, batch: Sequence[RecordedEvent]) -> None:
        if self._next is None:
            last = connection.execute(select(func.max(SEEN.c.n))).scalar_one()
            self._next = 0 if last is None else last + 1
        for event in batch:
            row = {"n": self._next, "place": event.position.commit, "type": event.type}
            connection.execute(SEEN.insert(), row)
            self._next += 1

    def forget(self) -> None:
        self._next = None


class Wider(Projection):
    """A later version whose table has a column that the earlier one's lacks."""

    name: ClassVar[str] = "log"
    version: ClassVar[int] = 2
    tables: ClassVar[Sequence[Table]] = (
        Table(
            "seen",
            MetaData(),
            Column("place", Integer, primary_key=True, autoincrement=False),
            Column("stream", Text),
        ),
    )

    def apply(self, connection: Connection, batch: Sequence[RecordedEvent]) -> None:
        (table,) = self.tables
        rows = [{"place": event.position.commit, "stream": event.stream} for event in batch]
        connection.execute(table.insert(), rows)


async def index_names(model: ReadModel) -> list[str]:
    return await model.read(
        lambda c: sorted(str(index["name"]) for index in inspect(c).get_indexes("seen"))
    )


async def spoil(model: ReadModel) -> None:
    """Take rows away that no event takes away, as a mistake of a handler might."""
    await model.write(lambda c: c.execute(SEEN.delete().where(SEEN.c.n < 3)))


async def test_the_old_rows_of_a_raised_version_answer_until_the_new_ones_have_caught_up(
    store: MemoryEventStore, model: ReadModel
) -> None:
    last = await append(store, 30)
    await caught_up(runner_of(store, model, Log()))
    held = Held()
    runner = runner_of(store, model, held, max_batch=2)
    async with running(runner):
        await held.is_held(runner)
        # On PostgreSQL the writer's transaction is in the way of nobody either.
        if model.dialect == "sqlite":
            assert await places(model) == await stored_places(store)
        (status,) = await runner.status()
        assert (status.version, status.position) == (1, last.position)
        assert status.rebuild is not None
        assert (status.rebuild.version, status.rebuild.position < last.position) == (2, True)
        held.go_on.set()
        await handled(runner, last, "log")
        (status,) = await runner.status()
        assert (status.version, status.position, status.rebuild) == (2, last.position, None)
    assert await places(model) == await stored_places(store)


async def test_a_rebuild_mends_the_rows_while_new_events_go_on_coming(
    store: MemoryEventStore, model: ReadModel
) -> None:
    await append(store, 50)
    runner = runner_of(store, model, Log(), max_batch=7)
    async with running(runner):
        await runner.wait_until_caught_up()
        await spoil(model)
        await runner.rebuild("log")
        for _ in range(5):
            last = await append(store, 3)
        await runner.wait_until_rebuilt("log", timeout=PATIENCE)
        last = await append(store, 2)
        await handled(runner, last, "log")
    assert await places(model) == await stored_places(store)


async def test_rows_can_be_rebuilt_again_and_again_and_keep_their_indexes(
    store: MemoryEventStore, model: ReadModel
) -> None:
    await append(store, 5)
    runner = runner_of(store, model, Log())
    async with running(runner):
        await runner.wait_until_caught_up()
        for _ in range(3):
            await rebuilt(runner, "log")
            (name,) = await index_names(model)
            assert name.startswith("ix_seen_place")
    assert await places(model) == await stored_places(store)


async def test_a_rebuild_that_was_interrupted_goes_on_where_it_was(
    store: MemoryEventStore, model: ReadModel
) -> None:
    await append(store, 30)
    await caught_up(runner_of(store, model, Log()))
    held = Held()
    runner = runner_of(store, model, held, max_batch=2)
    async with running(runner):
        await held.is_held(runner)
        held.go_on.set()
    later = Held()
    later.go_on.set()
    again = runner_of(store, model, later, max_batch=2)
    await again.prepare()
    (status,) = await again.status()
    assert status.rebuild is not None
    assert (status.version, status.rebuild.position.commit >= 1) == (1, True)
    await caught_up(again)
    assert await places(model) == await stored_places(store)


async def test_a_version_that_was_taken_back_before_the_swap_leaves_the_old_rows_as_they_were(
    store: MemoryEventStore, model: ReadModel
) -> None:
    await append(store, 4)
    await caught_up(runner_of(store, model, Log()))
    await runner_of(store, model, Held()).prepare()  # begins the rebuild, and makes nothing of it
    old = runner_of(store, model, Log())
    await append(store, 2)
    await caught_up(old)
    (status,) = await old.status()
    assert (status.version, status.rebuild) == (1, None)
    assert await places(model) == await stored_places(store)


async def test_tables_that_lack_a_column_of_the_new_version_are_replaced_at_once(
    store: MemoryEventStore, model: ReadModel
) -> None:
    await append(store, 3)
    await caught_up(runner_of(store, model, Log()))
    runner = runner_of(store, model, Wider())
    await runner.prepare()
    (table,) = Wider.tables
    assert await places(model, table) == []
    await caught_up(runner)
    assert await places(model, table) == await stored_places(store)


async def test_a_rebuild_asked_for_in_another_process_is_made_by_the_active_runner(
    store: MemoryEventStore, two_models: tuple[ReadModel, ReadModel]
) -> None:
    await append(store, 5)
    active, asking = two_models
    runner, operator = runner_of(store, active, Log()), runner_of(store, asking, Log())
    async with running(runner):
        await runner.wait_until_caught_up()
        await spoil(active)
        await operator.prepare()
        await rebuilt(operator, "log")
    assert await places(asking) == await stored_places(store)


async def test_an_unknown_projection_is_not_rebuilt(
    store: MemoryEventStore, model: ReadModel
) -> None:
    runner = runner_of(store, model, Log())
    with pytest.raises(InvalidArgumentError):
        await runner.rebuild("lag")


async def test_a_rebuild_that_fails_leaves_the_rows_that_answer_alone(
    store: MemoryEventStore, model: ReadModel
) -> None:
    class Poisonable(Log):
        poisoned = False

        def apply(self, connection: Connection, batch: Sequence[RecordedEvent]) -> None:
            if self.poisoned and any(event.type == "ActivityScheduled" for event in batch):
                raise LookupError("no such thing")
            super().apply(connection, batch)

    await append(store, 2)
    await append_poison(store)
    await append(store, 2)
    projection = Poisonable()
    runner = runner_of(store, model, projection)
    async with running(runner):
        await runner.wait_until_caught_up()
        Poisonable.poisoned = True
        await runner.rebuild("log")
        while True:
            (status,) = await runner.status()
            if status.rebuild is not None and status.rebuild.error is not None:
                break
        assert (status.error, status.rebuild.failed_position is None) == (None, False)
        last = await append(store, 2)
        await handled(runner, last, "log")
        assert await places(model) == await stored_places(store)


async def test_what_a_projection_remembers_of_the_old_rows_is_forgotten_with_them(
    store: MemoryEventStore, model: ReadModel
) -> None:
    await append(store, 3)
    await caught_up(runner_of(store, model, Remembering()))
    await model.write(lambda c: c.execute(SEEN.update().values(n=SEEN.c.n + 1_000)))
    runner = runner_of(store, model, Remembering())
    async with running(runner):
        last = await append(store, 1)
        await handled(runner, last, "log")
        await rebuilt(runner, "log")
        last = await append(store, 1)
        await handled(runner, last, "log")
    query = select(SEEN.c.n).order_by(SEEN.c.n)
    assert await model.read(lambda c: list(c.execute(query).scalars())) == [0, 1, 2, 3, 4]


async def test_rows_are_not_swapped_for_some_that_are_behind_them(model: ReadModel) -> None:
    projection = Log()

    def change(connection: Connection) -> list[bool]:
        install(connection, projection)
        begin_rebuild(connection, projection)
        advance(connection, projection, START, Position(5, 5))
        advance(connection, projection, START, Position(4, 4), is_beside=True)
        behind = swap(connection, projection, Position(4, 4))
        advance(connection, projection, Position(4, 4), Position(5, 5), is_beside=True)
        return [behind, swap(connection, projection, Position(5, 5))]

    assert await model.write(change) == [False, True]

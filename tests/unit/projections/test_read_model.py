"""The read model's database: whose it is, which version, and what is committed."""

import asyncio
import shutil
import socket
import sqlite3
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import ClassVar, Self, TypeVar

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from aion_es.aggregates.attributes import AttributeSchema
from aion_es.errors import (
    AccessDeniedError,
    StoreClosedError,
    StoreCorruptError,
    StoreUnavailableError,
    UnknownStoreURLError,
    UnsupportedStoreVersionError,
)
from aion_es.projections import (
    PendingWorkIndex,
    PendingWorkProjection,
    Projection,
    ProjectionRunner,
    ReadModel,
    VisibilityProjection,
    read_model,
)
from aion_es.projections.checkpoints import CHECKPOINTS, Checkpoint, checkpoints
from aion_es.projections.databases import open_database
from aion_es.projections.migrations import APPLICATION_ID, MIGRATIONS, VERSION
from aion_es.store.memory import MemoryEventStore
from aion_es.store.port import START, Position
from aion_es.visibility import SearchAttributes

T = TypeVar("T")
STORED = Path(__file__).parent / "stored"


async def version_of(model: ReadModel) -> int:
    query = text("SELECT version FROM read_model")
    version: int = await model.read(lambda c: c.execute(query).scalar_one())
    return version


async def test_it_opens_again_with_what_was_committed(read_model_url: str) -> None:
    async with await ReadModel.open(read_model_url) as model:
        await model.write(lambda c: c.execute(text("CREATE TABLE t (x INTEGER)")))
    async with await ReadModel.open(read_model_url) as model:
        assert await version_of(model) == VERSION
        assert await model.read(lambda c: c.execute(text("SELECT x FROM t")).all()) == []
        if model.dialect == "sqlite":
            mode = await model.read(lambda c: c.execute(text("PRAGMA journal_mode")).scalar())
            assert mode == "wal"


async def test_several_processes_may_make_it_at_once(read_model_url: str) -> None:
    models = await asyncio.gather(*(ReadModel.open(read_model_url) for _ in range(4)))
    assert [await version_of(model) for model in models] == [VERSION] * 4
    for model in models:
        await model.aclose()


async def test_a_reader_cannot_write(postgresql_url: str) -> None:
    async with await ReadModel.open(postgresql_url) as model:
        with pytest.raises(DBAPIError, match="read-only"):
            await model.read(lambda c: c.execute(text("CREATE TABLE t (x INTEGER)")))


async def test_a_read_sees_one_state_however_often_it_asks(read_model_url: str) -> None:
    count = text("SELECT count(*) FROM t")
    async with await ReadModel.open(read_model_url) as model:
        await model.write(lambda c: c.execute(text("CREATE TABLE t (x INTEGER)")))
        first_is_read, second_may_be_read = threading.Event(), threading.Event()

        def twice(connection: Connection) -> tuple[int, int]:
            first = connection.execute(count).scalar_one()
            first_is_read.set()
            assert second_may_be_read.wait(10)
            return first, connection.execute(count).scalar_one()

        async with asyncio.TaskGroup() as group:
            reading = group.create_task(model.read(twice))
            assert await asyncio.to_thread(first_is_read.wait, 10)
            await model.write(lambda c: c.execute(text("INSERT INTO t VALUES (1)")))
            second_may_be_read.set()
        assert reading.result() == (0, 0)


async def test_a_read_model_of_version_1_is_migrated_and_rows_of_older_projections_are_made_anew(
    tmp_path: Path,
) -> None:
    path = tmp_path / "model.db"
    shutil.copyfile(STORED / "read-model-v1.sqlite3", path)
    async with await ReadModel.open(f"sqlite:///{path}") as model:
        assert await version_of(model) == VERSION
        found = await model.read(partial(checkpoints, table=CHECKPOINTS))
        assert found == {
            "pending_work": Checkpoint(1, Position(6, 6), None),
            "visibility": Checkpoint(1, Position(6, 6), None),
        }
        runner = ProjectionRunner(
            MemoryEventStore(),
            model,
            [PendingWorkProjection(), VisibilityProjection()],
            prefix="aion_",
        )
        await runner.prepare()
        # Their older tables lack columns that today's queries name: they could not go on answering.
        for name in ("pending_work", "visibility"):
            assert runner.position(name) == START
        assert await PendingWorkIndex(model).runs_with_activities() == []
        rows = text("SELECT workflow_id, status FROM visibility ORDER BY run_key")
        assert await model.read(lambda c: c.execute(rows).all()) == []


@pytest.mark.parametrize("version", range(1, VERSION))
async def test_every_version_of_the_schema_is_migrated(read_model_url: str, version: int) -> None:
    database = open_database(read_model_url, readers=1, busy_timeout=timedelta(seconds=5))
    with database.write_engine.begin() as connection:
        for statement in (s for step in MIGRATIONS[:version] for s in step):
            connection.execute(text(statement))
        connection.execute(text("UPDATE read_model SET version = :v"), {"v": version})
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
    database.write_engine.dispose()
    async with await ReadModel.open(read_model_url) as model:
        assert await version_of(model) == VERSION
        assert await model.read(partial(checkpoints, table=CHECKPOINTS)) == {}


async def test_a_schema_that_holds_somebody_elses_tables_is_refused(postgresql_url: str) -> None:
    database = open_database(postgresql_url, readers=1, busy_timeout=timedelta(seconds=5))
    with database.write_engine.begin() as connection:
        connection.execute(text("CREATE TABLE theirs (x INTEGER)"))
        connection.execute(text("CREATE SCHEMA ours"))
    database.write_engine.dispose()
    with pytest.raises(StoreCorruptError):
        await ReadModel.open(postgresql_url)
    async with await ReadModel.open(f"{postgresql_url}?options=-csearch_path%3Dours") as model:
        assert await version_of(model) == VERSION


class Held:
    """Holds a read model's writer in one transaction, until it is let go."""

    def __init__(self, model: ReadModel) -> None:
        self._model = model
        self._began = threading.Event()
        self.go_on = threading.Event()

    def _hold(self, connection: Connection) -> None:
        connection.execute(text("UPDATE read_model SET version = version"))
        self._began.set()
        assert self.go_on.wait(20)

    async def __aenter__(self) -> Self:
        self._held = asyncio.ensure_future(self._model.write(self._hold))
        assert await asyncio.to_thread(self._began.wait, 10)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.go_on.set()
        await self._held


async def test_who_joins_waits_for_nothing_that_another_process_is_writing(
    read_model_url: str,
) -> None:
    class Raised(VisibilityProjection):
        version: ClassVar[int] = VisibilityProjection.version + 1

    async def join(*projections: Projection) -> Position:
        async with await ReadModel.open(read_model_url) as model:
            runner = ProjectionRunner(MemoryEventStore(), model, projections, prefix="aion_")
            await runner.prepare()
            await SearchAttributes(model, AttributeSchema()).publish()
            return runner.position("visibility")

    async with await ReadModel.open(read_model_url) as writing:
        await join(VisibilityProjection(), PendingWorkProjection())
        async with Held(writing):
            assert await join(VisibilityProjection(), PendingWorkProjection()) == START
        await join(Raised())  # begins to make its rows beside
        async with Held(writing):
            assert await join(Raised()) == START


async def test_who_writes_for_long_lets_others_write_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_model, "_FAIR", 0.3)
    patience = timedelta(seconds=2)
    async with (
        await ReadModel.open(f"sqlite:///{tmp_path}/model.db") as writing,
        await ReadModel.open(f"sqlite:///{tmp_path}/model.db", busy_timeout=patience) as other,
        asyncio.TaskGroup() as group,
    ):

        async def write_on() -> None:
            while True:
                await writing.write(lambda _: time.sleep(0.15))

        writes = group.create_task(write_on())
        for _ in range(5):
            await other.write(lambda c: c.execute(text("UPDATE read_model SET version = version")))
        writes.cancel()


async def test_what_must_be_written_outlasts_a_transaction_longer_than_the_busy_timeout(
    tmp_path: Path,
) -> None:
    tries: list[ReadModel] = []

    class Trying(ReadModel):
        async def write(self, change: Callable[[Connection], T]) -> T:
            tries.append(self)
            if len(tries) == 3:
                held.go_on.set()
            return await super().write(change)

    url = f"sqlite:///{tmp_path}/model.db"
    patience = timedelta(milliseconds=100)
    async with (
        await ReadModel.open(url) as writing,
        await Trying.open(url, busy_timeout=patience) as other,
        Held(writing) as held,
    ):
        assert await other.insist(lambda c: c.execute(text("SELECT 1")).scalar()) == 1
        assert len(tries) >= 3


async def test_a_server_that_does_not_answer_is_unavailable_and_the_password_stays_secret() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))  # bound, and nobody listens
        url = f"postgresql+psycopg://me:secret@127.0.0.1:{probe.getsockname()[1]}/db"
        with pytest.raises(StoreUnavailableError) as refused:
            await ReadModel.open(url)
    assert "secret" not in str(refused.value)


async def test_a_server_that_goes_away_is_unavailable_and_then_there_again(
    postgresql_url: str,
) -> None:
    kill = text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    async with (
        await ReadModel.open(postgresql_url) as model,
        await ReadModel.open(postgresql_url) as other,
    ):
        await model.read(lambda c: c.execute(text("SELECT 1")))
        await other.write(lambda c: c.execute(kill))
        with pytest.raises(StoreUnavailableError):
            await model.write(lambda c: c.execute(text("SELECT 1")))
        assert await version_of(model) == VERSION
        assert await model.write(lambda c: c.execute(text("SELECT 1")).scalar()) == 1


async def test_what_the_role_may_not_do_is_access_denied(postgresql_url: str) -> None:
    async with await ReadModel.open(postgresql_url) as model:

        def as_somebody(connection: Connection) -> None:
            connection.execute(text("CREATE ROLE somebody"))
            connection.execute(text("SET LOCAL ROLE somebody"))
            connection.execute(text("UPDATE read_model SET version = 0"))

        with pytest.raises(AccessDeniedError):
            await model.write(as_somebody)


async def test_a_change_that_raises_leaves_nothing(read_model_url: str) -> None:
    async with await ReadModel.open(read_model_url) as model:
        with pytest.raises(ZeroDivisionError):
            await model.write(
                lambda c: (c.execute(text("UPDATE read_model SET version = 99")), 1 / 0)
            )
        assert await version_of(model) == VERSION


async def test_a_foreign_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "foreign.db"
    with sqlite3.connect(path) as foreign:
        foreign.execute("CREATE TABLE theirs (x)")
    foreign.close()
    before = path.read_bytes()
    with pytest.raises(StoreCorruptError):
        await ReadModel.open(f"sqlite:///{path}")
    assert path.read_bytes() == before


async def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database at all, but long enough to look at " * 40)
    before = path.read_bytes()
    with pytest.raises(StoreCorruptError):
        await ReadModel.open(f"sqlite:///{path}")
    assert path.read_bytes() == before


async def test_what_a_newer_program_made_is_refused(read_model_url: str) -> None:
    async with await ReadModel.open(read_model_url) as model:
        await model.write(lambda c: c.execute(text("UPDATE read_model SET version = 99")))
    with pytest.raises(UnsupportedStoreVersionError):
        await ReadModel.open(read_model_url)


async def test_a_directory_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError):
        await ReadModel.open(f"sqlite:///{tmp_path}/nowhere/model.db")


@pytest.mark.parametrize(
    "url", ["", "model.db", "mysql://h/d", "sqlite:///x.db?mode=ro", "postgresql://h/d"]
)
async def test_an_unknown_url_is_refused(url: str) -> None:
    with pytest.raises(UnknownStoreURLError):
        await ReadModel.open(url)


async def test_a_closed_read_model_refuses_every_call() -> None:
    model = await ReadModel.open("sqlite://")
    await model.aclose()
    await model.aclose()
    for call in (model.read, model.write):
        with pytest.raises(StoreClosedError):
            await call(lambda c: None)

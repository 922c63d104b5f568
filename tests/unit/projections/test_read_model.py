"""The read model's file: whose it is, which version, and what is committed."""

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import text

from aion_es.errors import (
    StoreClosedError,
    StoreCorruptError,
    StoreUnavailableError,
    UnknownStoreURLError,
    UnsupportedStoreVersionError,
)
from aion_es.projections import ReadModel
from aion_es.projections.migrations import VERSION


async def test_a_file_opens_again_with_what_was_committed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/model.db"
    async with await ReadModel.open(url) as model:
        await model.write(lambda c: c.execute(text("CREATE TABLE t (x INTEGER)")))
    async with await ReadModel.open(url) as model:
        assert (
            await model.read(lambda c: c.execute(text("SELECT version FROM read_model")).scalar())
            == VERSION
        )
        assert await model.read(lambda c: c.execute(text("PRAGMA journal_mode")).scalar()) == "wal"


async def test_a_change_that_raises_leaves_nothing(tmp_path: Path) -> None:
    async with await ReadModel.open(f"sqlite:///{tmp_path}/model.db") as model:
        with pytest.raises(ZeroDivisionError):
            await model.write(
                lambda c: (c.execute(text("UPDATE read_model SET version = 99")), 1 / 0)
            )
        assert (
            await model.read(lambda c: c.execute(text("SELECT version FROM read_model")).scalar())
            == VERSION
        )


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


async def test_a_newer_programs_file_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/model.db"
    async with await ReadModel.open(url) as model:
        await model.write(lambda c: c.execute(text("UPDATE read_model SET version = 99")))
    with pytest.raises(UnsupportedStoreVersionError):
        await ReadModel.open(url)


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

"""The SQLite store's file: what is opened and what is refused, migrations, upkeep, damage."""

# ruff: noqa: ASYNC240 - a test may wait for its disk

import asyncio
import contextlib
import sqlite3
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from aion_es.errors import (
    StoreCorruptError,
    StoreUnavailableError,
    UnsupportedStoreVersionError,
)
from aion_es.ids import StreamName
from aion_es.store.port import (
    ANY,
    NO_STREAM,
    Appended,
    NewEvent,
    Position,
    RecordedEvent,
    StreamMetadata,
)
from aion_es.store.sqlite import SQLiteEventStore, maintenance, schema

S, T = StreamName("s"), StreamName("t")


class HandClock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time


def events(count: int, data: bytes = b"{}") -> list[NewEvent]:
    return [NewEvent(uuid.UUID(int=next(_ids)), "Happened", data, b"{}") for _ in range(count)]


_ids = iter(range(1, 2**62))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
async def store(path: Path, clock: HandClock) -> AsyncIterator[SQLiteEventStore]:
    async with await SQLiteEventStore.open(path, clock=clock) as store:
        yield store


async def everything(store: SQLiteEventStore) -> list[RecordedEvent]:
    return [event async for event in store.read_all()]


async def positions(store: SQLiteEventStore) -> list[int]:
    return [event.position.commit for event in await everything(store)]


async def revisions(store: SQLiteEventStore, stream: StreamName) -> list[int]:
    return [event.revision async for event in store.read(stream)]


# ------------------------------------------------------------------------------------ opening


async def test_a_file_that_is_no_database_is_refused_and_left_untouched(path: Path) -> None:
    path.write_bytes(b"dear diary, " * 100)
    with pytest.raises(StoreCorruptError, match="not an SQLite database; it was left untouched"):
        await SQLiteEventStore.open(path)
    assert path.read_bytes() == b"dear diary, " * 100
    assert list(path.parent.iterdir()) == [path]


async def test_a_database_of_another_program_is_refused_and_left_untouched(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA application_id = 7")
        connection.execute("CREATE TABLE events (mine TEXT)")
    before = path.read_bytes()
    with pytest.raises(StoreCorruptError, match=r"of another program \(application_id 7, not"):
        await SQLiteEventStore.open(path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


async def test_a_file_cut_off_within_its_header_is_refused(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\x00")
    with pytest.raises(StoreCorruptError, match="not an SQLite database"):
        await SQLiteEventStore.open(path)


async def test_an_empty_file_becomes_a_store(path: Path) -> None:
    path.touch()
    async with await SQLiteEventStore.open(path) as store:
        assert await store.append(S, events(1), NO_STREAM) == Appended(0, Position(0, 0))


async def test_a_file_that_cannot_be_read_is_unavailable(path: Path) -> None:
    path.symlink_to(path)
    with pytest.raises(StoreUnavailableError, match="cannot be read"):
        await SQLiteEventStore.open(path)


async def test_a_store_of_a_newer_program_is_refused_and_not_changed(path: Path) -> None:
    async with await SQLiteEventStore.open(path):
        pass
    newer = len(schema.MIGRATIONS) + 1
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {newer}")
    with pytest.raises(UnsupportedStoreVersionError) as refusal:
        await SQLiteEventStore.open(path)
    assert refusal.value.found == str(newer)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (newer,)


def test_an_old_sqlite_library_is_refused() -> None:
    schema.check_library((3, 35, 0))
    with pytest.raises(UnsupportedStoreVersionError) as refusal:
        schema.check_library((3, 34, 1))
    assert str(refusal.value) == (
        "the SQLite library has version 3.34.1; this program needs 3.35.0 or newer"
    )


def test_an_sqlite_library_that_was_built_without_json_is_refused() -> None:
    class WithoutJSON(sqlite3.Connection):
        def execute(self, *args: object) -> sqlite3.Cursor:
            raise sqlite3.OperationalError("no such function: json_array")

    with (
        contextlib.closing(sqlite3.connect(":memory:", factory=WithoutJSON)) as connection,
        pytest.raises(UnsupportedStoreVersionError, match=r"without JSON; this program needs"),
    ):
        schema.check_json(connection)


async def test_a_new_file_that_another_process_holds_is_unavailable(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreUnavailableError, match="database is locked"):
            await SQLiteEventStore.open(path, busy_timeout=timedelta(milliseconds=20))


async def test_many_may_open_a_new_file_at_once(path: Path) -> None:
    stores = await asyncio.gather(*(SQLiteEventStore.open(path) for _ in range(8)))
    await asyncio.gather(
        *(store.append(StreamName(f"s-{n}"), events(1), ANY) for n, store in enumerate(stores))
    )
    assert [await positions(store) for store in stores] == [list(range(8))] * 8
    for store in stores:
        await store.aclose()


# ------------------------------------------------------------------------------------ migrations


def migrated(connection: sqlite3.Connection) -> tuple[int, list[str]]:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    tables = connection.execute("SELECT name FROM sqlite_schema ORDER BY name")
    return version, [name for (name,) in tables]


def test_each_migration_is_applied_once_and_in_order() -> None:
    first, second = ("CREATE TABLE a (x)",), ("ALTER TABLE a RENAME TO b", "CREATE TABLE c (y)")
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        schema.migrate(connection, "here", [first])
        assert migrated(connection) == (1, ["a"])
        schema.migrate(connection, "here", [first, second])
        assert migrated(connection) == (2, ["b", "c"])
        schema.migrate(connection, "here", [first, second])
        assert migrated(connection) == (2, ["b", "c"])


def test_a_migration_that_fails_changes_nothing() -> None:
    broken = ("CREATE TABLE c (y)", "DROP TABLE nowhere")
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        with pytest.raises(sqlite3.OperationalError, match="no such table: nowhere"):
            schema.migrate(connection, "here", [("CREATE TABLE a (x)",), broken])
        assert migrated(connection) == (1, ["a"])
        assert not connection.in_transaction


# ------------------------------------------------------------------------------------ compaction


async def test_compaction_takes_away_what_is_hidden_and_no_read_changes(
    store: SQLiteEventStore, clock: HandClock
) -> None:
    for name in ("deleted", "recreated", "truncated", "counted", "aged", "whole"):
        await store.append(StreamName(name), events(4), ANY)
        clock.time += timedelta(hours=1)
    await store.delete(StreamName("deleted"), 3)
    await store.delete(StreamName("recreated"), 3)
    await store.append(StreamName("recreated"), events(2), NO_STREAM)
    await store.append(StreamName("aged"), events(2), 3)
    await store.set_metadata(StreamName("truncated"), StreamMetadata(truncate_before=1))
    await store.set_metadata(StreamName("counted"), StreamMetadata(max_count=2))
    await store.set_metadata(StreamName("aged"), StreamMetadata(max_age=timedelta(hours=1)))
    expected = {
        "deleted": ([], -1),
        "recreated": ([4, 5], 5),
        "truncated": ([1, 2, 3], 3),
        "counted": ([2, 3], 3),
        "aged": ([4, 5], 5),
        "whole": ([0, 1, 2, 3], 3),
    }

    async def seen() -> dict[str, tuple[list[int], int]]:
        return {
            name: (await revisions(store, StreamName(name)), await store.head(StreamName(name)))
            for name in expected
        }

    assert await seen() == expected
    assert await store.compact() == 4 + 4 + 1 + 2 + 4
    assert await seen() == expected
    assert len(await everything(store)) == 13
    assert await store.compact() == 0
    await store.integrity_check()


async def test_revisions_go_on_where_compaction_took_a_whole_stream(
    store: SQLiteEventStore,
) -> None:
    await store.append(S, events(3), NO_STREAM)
    await store.append(T, events(1), NO_STREAM)
    await store.delete(S, 2)
    assert await store.compact() == 3
    assert await store.head(S) == -1
    assert await store.append(S, events(1), NO_STREAM) == Appended(3, Position(4, 4))
    assert await revisions(store, S) == [3]


async def test_the_newest_event_of_the_store_stays_so_that_its_position_is_not_given_out_again(
    path: Path,
) -> None:
    async with await SQLiteEventStore.open(path) as store:
        await store.append(S, events(3), NO_STREAM)
        await store.delete(S, ANY)
        assert await store.compact() == 2
    async with await SQLiteEventStore.open(path) as store:
        assert await store.append(T, events(1), NO_STREAM) == Appended(0, Position(3, 3))
        assert await store.compact() == 1
        assert await positions(store) == [3]


async def test_compaction_goes_in_steps_and_takes_all(
    store: SQLiteEventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "COMPACT_STEP", 7)
    for n in range(10):
        await store.append(StreamName(f"s-{n}"), events(5), NO_STREAM)
        await store.delete(StreamName(f"s-{n}"), 4)
    await store.append(T, events(1), NO_STREAM)
    assert await store.compact() == 50
    assert await positions(store) == [50]


# ------------------------------------------------------------------------------------ copies


async def test_vacuum_makes_the_file_smaller_and_keeps_everything(
    store: SQLiteEventStore, path: Path
) -> None:
    await store.append(S, events(500, bytes(5000)), NO_STREAM)
    await store.append(T, events(5), NO_STREAM)
    await store.delete(S, ANY)
    await store.compact()
    kept = await everything(store)
    await store.vacuum()
    await store._writer.call(
        lambda connection: connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall(),
        transaction=False,
    )
    assert path.stat().st_size < 500_000
    assert await everything(store) == kept
    assert await store.append(T, events(1), 4) == Appended(5, Position(505, 505))


async def test_a_backup_taken_under_load_is_a_store_of_its_own_with_whole_batches(
    store: SQLiteEventStore, tmp_path: Path
) -> None:
    async def write() -> None:
        for _ in range(200):
            await store.append(S, events(3), ANY)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(write())  # owned by the test
        await asyncio.sleep(0)
        await store.backup(tmp_path / "copy.db")
    async with await SQLiteEventStore.open(tmp_path / "copy.db") as copy:
        await copy.integrity_check()
        count = len(await everything(copy))
        assert count % 3 == 0
        assert await everything(copy) == (await everything(store))[:count]
        assert await copy.append(S, events(1), count - 1) == Appended(count, Position(count, count))
    assert sorted(p.name for p in tmp_path.iterdir() if "copy" in p.name) == ["copy.db"]


async def test_a_memory_store_can_be_copied_to_a_file(path: Path) -> None:
    async with await SQLiteEventStore.open(None) as memory:
        await memory.append(S, events(3), NO_STREAM)
        await memory.backup(path)
        kept = await everything(memory)
    async with await SQLiteEventStore.open(path) as copy:
        assert await everything(copy) == kept


async def test_a_backup_never_replaces_a_file(store: SQLiteEventStore, tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("precious")
    with pytest.raises(StoreUnavailableError, match="a backup never replaces a file"):
        await store.backup(target)
    assert target.read_text() == "precious"


async def test_a_backup_into_a_missing_directory_is_unavailable(
    store: SQLiteEventStore, tmp_path: Path
) -> None:
    with pytest.raises(StoreUnavailableError):
        await store.backup(tmp_path / "no" / "copy.db")


# ------------------------------------------------------------------------------------ damage


async def test_a_sound_store_passes_the_check(store: SQLiteEventStore) -> None:
    await store.append(S, events(3), NO_STREAM)
    await store.integrity_check()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("DELETE FROM events WHERE position = 1", "stream 1: revisions 0 to 2 are 2 events"),
        (
            "UPDATE events SET position = -5 WHERE position = 2",
            "stream 1: revision 2 lies before its predecessor",
        ),
        ("DELETE FROM streams", "the event at position 0 belongs to no stream"),
    ],
)
async def test_a_broken_promise_is_found(store: SQLiteEventStore, damage: str, reason: str) -> None:
    await store.append(S, events(3), NO_STREAM)
    await store._writer.call(lambda connection: connection.execute(damage).rowcount)
    with pytest.raises(StoreCorruptError) as found:
        await store.integrity_check()
    assert found.value.reason == reason


async def test_a_damaged_page_is_corruption_to_reader_and_check(path: Path) -> None:
    async with await SQLiteEventStore.open(path) as store:
        await store.append(S, events(2000, bytes(500)), NO_STREAM)
    with path.open("r+b") as file:
        for page in range(30, 60):
            file.seek(page * 4096)
            file.write(b"\xff" * 4096)
    async with await SQLiteEventStore.open(path) as store:
        with pytest.raises(StoreCorruptError):
            await everything(store)
        with pytest.raises(StoreCorruptError):
            await store.integrity_check()

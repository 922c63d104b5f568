"""Which store a URL opens, and what is said of one that opens none."""

from pathlib import Path

import pytest

from aion_es.errors import StoreUnavailableError, UnknownStoreURLError
from aion_es.ids import StreamName
from aion_es.store.memory import MemoryEventStore
from aion_es.store.port import NO_STREAM
from aion_es.store.sqlite import SQLiteEventStore
from aion_es.store.url import open_store


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


async def synchronous(store: object) -> int:
    assert isinstance(store, SQLiteEventStore)
    answer: int = await store._writer.call(
        lambda connection: connection.execute("PRAGMA synchronous").fetchone()[0]
    )
    return answer


async def test_three_slashes_name_a_file_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = await open_store("sqlite:///here.db")
    await store.aclose()
    assert names_in(tmp_path) == ["here.db"]


async def test_four_slashes_name_an_absolute_path(tmp_path: Path) -> None:
    store = await open_store(f"sqlite:///{tmp_path}/there.db")
    await store.aclose()
    assert names_in(tmp_path) == ["there.db"]


async def test_a_percent_encoded_name_is_decoded(tmp_path: Path) -> None:
    store = await open_store(f"sqlite:///{tmp_path}/a%20%23%3F%25.db")
    await store.aclose()
    assert names_in(tmp_path) == ["a #?%.db"]


async def test_no_name_is_a_private_store_in_memory() -> None:
    first, second = await open_store("sqlite://"), await open_store("sqlite://")
    await first.append(StreamName("s"), [], NO_STREAM)
    assert isinstance(first, SQLiteEventStore)
    assert not first._connections.in_file
    assert first._connections is not second._connections  # type: ignore[attr-defined]  # the same
    await first.aclose()
    await second.aclose()


async def test_memory_is_the_memory_store() -> None:
    store = await open_store("memory://")
    assert isinstance(store, MemoryEventStore)
    await store.aclose()


@pytest.mark.parametrize(
    ("query", "level"), [("", 2), ("?durability=full", 2), ("?durability=normal", 1)]
)
async def test_durability_decides_when_sqlite_syncs(tmp_path: Path, query: str, level: int) -> None:
    store = await open_store(f"sqlite:///{tmp_path}/store.db{query}")
    assert await synchronous(store) == level
    await store.aclose()


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("store.db", "has no scheme"),
        ("postgres://host/db", "unknown scheme 'postgres'; known forms: sqlite:///file.db"),
        ("sqlite://store.db", "names a host; write sqlite:///store.db for a file"),
        ("sqlite:///", "names no file; a store in memory is sqlite://"),
        ("sqlite:///:memory:", "names no file; a store in memory is sqlite://"),
        ("sqlite:///store.db#1", "a file name has no '#'; write %23"),
        ("sqlite:///store.db?durability=some", "durability is full or normal, not 'some'"),
        ("sqlite:///store.db?durability=", "durability is full or normal, not ''"),
        ("sqlite:///store.db?speed=high", "unknown option 'speed'; known: durability"),
        ("sqlite:///store.db?durability", "malformed options 'durability'"),
        ("sqlite:///store.db?durability=full&durability=full", "an option is given twice"),
        ("memory://name", "a store in memory has no name; write memory://"),
        ("memory://?durability=full", "unknown option 'durability'; known: none"),
    ],
)
async def test_a_url_that_names_no_store_is_refused_and_nothing_is_made(
    url: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownStoreURLError) as refusal:
        await open_store(url)
    assert refusal.value.reason.startswith(reason)
    assert refusal.value.url == url
    assert names_in(tmp_path) == []


async def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError, match=r"the directory .*/no does not exist"):
        await open_store(f"sqlite:///{tmp_path}/no/store.db")


async def test_a_directory_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError, match="is a directory, not a file"):
        await open_store(f"sqlite:///{tmp_path}")

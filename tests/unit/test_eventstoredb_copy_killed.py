"""A copy to or from EventStoreDB whose process is killed, again and again: the next run brings the rest."""

import asyncio
import random
import re
import signal
import sys
from contextlib import aclosing
from pathlib import Path

import pytest

from aion_es.ids import StreamName
from aion_es.store.port import ANY, EventStore, NewEvent, RecordedEvent, StreamMetadata
from aion_es.store.url import open_store
from aion_es.testing.store_contract.base import an_event, as_appended, collect, places
from tests.e2e.scenario import until

pytest.importorskip("grpc", reason="no EventStoreDB client is installed: make test-clients")

from aion_es.testing.eventstoredb import LocalEventStoreDB

COPY = (sys.executable, "-m", "aion_es.cli", "copy")
PIPE = asyncio.subprocess.PIPE

PREFIX = "orders-"
STREAMS = [StreamName(f"{PREFIX}{number}") for number in range(40)]
APPENDS = 600
KILLED_AT = (200, 600)
"""A copy is killed when the destination holds so many events; there are about 1,200."""
LIMITS = StreamMetadata(max_count=1_000)
SOON = 10.0


async def _fill(store: EventStore) -> list[NewEvent]:
    """Append batches of one to three events to the streams in turns drawn at random; return all in order."""
    rng = random.Random(7)
    appended: list[NewEvent] = []
    for _ in range(APPENDS):
        batch = [an_event(rng.randbytes(1_000)) for _ in range(rng.randint(1, 3))]
        await store.append(rng.choice(STREAMS), batch, ANY)
        appended += batch
    await store.set_metadata(STREAMS[3], LIMITS)
    return appended


async def _events(store: EventStore) -> list[RecordedEvent]:
    return await collect(store.read_all(prefix=PREFIX))


async def _copy_killed_at(count: int, urls: tuple[str, str], destination: EventStore) -> None:
    """Copy in a process of its own, killed when the destination holds `count` events."""

    async def holds_enough() -> bool:
        return (await destination.end_position()).commit >= count  # both stores count events

    child = await asyncio.create_subprocess_exec(*COPY, *urls, stdout=PIPE, stderr=PIPE)
    try:
        await until(holds_enough, seconds=SOON)
    finally:
        child.kill()
        ended = await child.communicate()
    assert (child.returncode, *ended) == (-signal.SIGKILL, b"", b"")


async def _copy_to_the_end(urls: tuple[str, str]) -> tuple[int, int]:
    """Copy in a process of its own; return how many events it says it copied, and how many it found."""
    child = await asyncio.create_subprocess_exec(*COPY, *urls, stdout=PIPE, stderr=PIPE)
    shown, errors = await child.communicate()
    assert (child.returncode, errors) == (0, b"")
    told = re.fullmatch(
        r"([\d,]+) events copied, ([\d,]+) were there before, 40 streams, all compared\n",
        shown.decode(),
    )
    assert told is not None, shown
    return int(told[1].replace(",", "")), int(told[2].replace(",", ""))


@pytest.mark.parametrize("direction", ["from-a-file-to-a-server", "from-a-server-to-a-file"])
async def test_a_copy_that_was_killed_twice_brings_the_rest_and_nothing_again(
    direction: str, tmp_path: Path
) -> None:
    async with LocalEventStoreDB() as server:
        file = f"sqlite:///{tmp_path}/aion.db"
        urls = (file, server) if direction == "from-a-file-to-a-server" else (server, file)
        async with (
            aclosing(await open_store(urls[0])) as source,
            aclosing(await open_store(urls[1])) as destination,
        ):
            appended = await _fill(source)
            before: list[RecordedEvent] = []
            for count in KILLED_AT:
                await _copy_killed_at(count, urls, destination)
                now = await _events(destination)
                assert now[: len(before)] == before
                before = now
                assert count <= len(before) < len(appended)
            copied, found = await _copy_to_the_end(urls)
            after = await _events(destination)
            assert after[: len(before)] == before
            assert as_appended(after) == appended
            assert places(after) == places(await _events(source))
            # A server may still have been taking in the batch that the killed copy had sent.
            assert found >= len(before)
            assert copied == len(appended) - found
            assert await destination.metadata(STREAMS[3]) == LIMITS

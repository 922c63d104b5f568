"""A writing process is killed two hundred times; whatever it acknowledged is there, whole and in order."""

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest

from aion_es.ids import StreamName
from aion_es.store.port import START, Position, RecordedEvent
from aion_es.store.sqlite import SQLiteEventStore
from tests.crash.forking import Forking

KILLS = 200
KILLS_PER_FILE = 20
LONGEST_LIFE = 0.06


class Writers(Forking):
    """The forking child, and what its writers said before they were killed."""

    def kill_one(self, round_: int, path: Path, life: float) -> list[str]:
        """Run one writer for `life` seconds; return its acknowledgements."""
        self.tell(f"{round_} {path}")
        acknowledged: list[str] = []
        while not (line := self.line()).startswith("pid "):
            acknowledged.append(line)
        time.sleep(life)
        os.kill(int(line.split()[1]), signal.SIGKILL)
        while not (line := self.line()).startswith("dead "):
            acknowledged.append(line)
        return acknowledged


@pytest.fixture
def writers() -> Iterator[Writers]:
    writers = Writers("tests.crash.store_writer")
    yield writers
    writers.close()


def batch_of(event: RecordedEvent) -> tuple[str, int, int]:
    batch, index, size = json.loads(event.data)
    return batch, index, size


class Ledger:
    """Checks what is stored against what was acknowledged, one kill after the other."""

    def __init__(self) -> None:
        self.end: Position = START
        self.heads: dict[StreamName, int] = {}

    def check(self, events: list[RecordedEvent], acknowledged: list[str]) -> None:
        """Check what was added since the last kill."""
        for event in events:
            assert event.position.commit == self.end.commit + 1
            assert event.revision == self.heads.get(event.stream, -1) + 1
            self.end = event.position
            self.heads[event.stream] = event.revision
        stored = {}
        for batch, members in groupby(events, key=lambda event: batch_of(event)[0]):
            whole = list(members)
            assert [batch_of(event)[1] for event in whole] == list(range(batch_of(whole[0])[2]))
            assert batch not in stored
            last = whole[-1]
            stored[batch] = f"ack {last.stream} {last.revision} {last.position} {batch}"
        assert [line for line in acknowledged if stored.get(line.split()[-1]) != line] == []


@pytest.mark.timeout(240)
async def test_whatever_was_acknowledged_survives_two_hundred_kills(
    writers: Writers, tmp_path: Path
) -> None:
    seed = random.SystemRandom().randrange(2**32)
    rng = random.Random(seed)
    total = 0
    for first in range(0, KILLS, KILLS_PER_FILE):
        path = tmp_path / f"store-{first}.db"
        ledger = Ledger()
        for kill in range(first, first + KILLS_PER_FILE):
            # The first on a file dies while it makes the file, or soon after.
            life = rng.uniform(0, LONGEST_LIFE if kill > first else LONGEST_LIFE / 4)
            acknowledged = writers.kill_one(kill, path, life)
            total += len(acknowledged)
            async with await SQLiteEventStore.open(path) as store:
                added = [event async for event in store.read_all(from_position=ledger.end)]
                try:
                    ledger.check(added, acknowledged)
                except AssertionError as error:
                    raise AssertionError(f"after kill {kill}, seed {seed}: {error}") from error
        async with await SQLiteEventStore.open(path) as store:
            await store.integrity_check()
            assert await store.end_position() == ledger.end, f"seed {seed}"
            heads = {name: await store.head(name) for name in ledger.heads}
            assert heads == ledger.heads, f"seed {seed}"
    assert total > KILLS, f"seed {seed}: the writers were killed before they wrote"

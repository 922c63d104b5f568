"""A working engine is killed again and again; its successors finish all that it began, and repeat nothing recorded."""

import itertools
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from os import kill
from pathlib import Path

import pytest

from aion_es.ids import DEFAULT_NAMESPACE, workflow_prefix
from aion_es.store.port import START, RecordedEvent
from aion_es.store.sqlite import SQLiteEventStore
from tests.crash.engine_child import COPIES, name_of
from tests.crash.engine_shapes import (
    SHAPES,
    Decisions,
    completed_keys,
    decisions,
    events_of,
    undisturbed,
)
from tests.crash.forking import Forking

KILLS = 60
KILLS_PER_FILE = 6
"""So few that there still is something to be killed."""
LONGEST_LIFE = 35
"""Executions of activities, of about three hundred that there are to a file."""
_LINE = len("0190a7c0-0000-7000-8000-000000000000/0\n")


class Engines(Forking):
    """The forking child."""

    def run(self, directory: Path, executions: int | None) -> bool:
        """Run an engine, to its end or killed once that many activities more were executed; return if it was killed."""
        outside, log = directory / "outside", directory / "log"
        outside.mkdir(parents=True, exist_ok=True)
        log.touch()
        enough = None if executions is None else log.stat().st_size + executions * _LINE
        self.tell(f"{directory / 'aion.db'} {log} {outside}")
        pid = self.answer("pid")
        if enough is not None:
            with suppress(ProcessLookupError):  # it was done before
                while log.stat().st_size < enough:
                    time.sleep(0.001)
                    kill(pid, 0)
                kill(pid, signal.SIGKILL)
        status = self.answer("dead")
        assert status in {0, -signal.SIGKILL}
        return status != 0


@pytest.fixture
def engines() -> Iterator[Engines]:
    engines = Engines("tests.crash.engine_child")
    yield engines
    engines.close()


def executions(directory: Path) -> Counter[str]:
    log = directory / "log"
    return Counter(log.read_text().split()) if log.exists() else Counter()


async def recorded(directory: Path) -> list[RecordedEvent]:
    async with await SQLiteEventStore.open(directory / "aion.db") as store:
        prefix = workflow_prefix(DEFAULT_NAMESPACE)
        return [event async for event in store.read_all(from_position=START, prefix=prefix)]


async def histories(directory: Path) -> dict[str, Decisions]:
    async with await SQLiteEventStore.open(directory / "aion.db") as store:
        names = [name_of(shape, copy) for copy in range(COPIES) for shape in SHAPES]
        return {name: decisions(await events_of(store, name)) for name in names}


@pytest.mark.timeout(300)
async def test_killed_sixty_times_every_workflow_ends_once_and_nothing_recorded_runs_again(
    engines: Engines, tmp_path: Path
) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # pytest shows it when the test fails
    rng = random.Random(seed)
    expected = {
        name_of(shape, copy): await undisturbed(shape, name_of(shape, copy))
        for copy in range(COPIES)
        for shape in SHAPES
    }
    kills = in_between = 0
    for number in itertools.count():
        directory = tmp_path / str(number)
        settled: dict[str, int] = {}
        recorded_at: list[int] = []
        for _ in range(min(KILLS_PER_FILE, KILLS - kills)):
            if not engines.run(directory, rng.randint(0, LONGEST_LIFE)):
                break
            kills += 1
            ran = executions(directory)
            new = completed_keys(await recorded(directory))
            recorded_at.append(len(new))
            settled |= {key: ran[key] for key in new if key not in settled}
        engines.run(directory, None)
        ran = executions(directory)
        keys = completed_keys(await recorded(directory))
        in_between += sum(0 < count < len(keys) for count in recorded_at)
        assert len(set(keys)) == len(keys)
        assert {key: ran[key] for key in settled} == settled
        assert await histories(directory) == expected
        if kills == KILLS:
            break
    print(f"{in_between} of {kills} kills while there was something done and something to do")
    assert in_between > KILLS // 2, "killed before or after the work, not in it"

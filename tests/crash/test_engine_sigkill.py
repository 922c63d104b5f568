"""A working engine is killed again and again; its successors finish all that it began, and repeat nothing recorded."""

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from aion_es.ids import DEFAULT_NAMESPACE, WorkflowId, workflow_prefix, workflow_stream
from aion_es.store.port import START, RecordedEvent
from aion_es.store.sqlite import SQLiteEventStore
from tests.crash.engine_child import IDS, RESULTS, ROUNDS, type_of
from tests.crash.engine_shapes import completed_keys, decisions

KILLS = 24
LIVES = (0.02, 0.2)
ROOT = Path(__file__).parents[2]


class Engines:
    """The forking child."""

    def __init__(self, path: Path, log: Path) -> None:
        self._line = f"{path} {log}\n"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.engine_child"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, life: float | None) -> int:
        """Run an engine, killed after `life` seconds, or to its end; return its exit status."""
        assert self._process.stdin is not None
        self._process.stdin.write(self._line)
        self._process.stdin.flush()
        pid = int(self._answer("pid"))
        if life is not None:
            time.sleep(life)
            os.kill(pid, signal.SIGKILL)
        return int(self._answer("dead"))

    def _answer(self, word: str) -> str:
        assert self._process.stdout is not None
        said, _, rest = self._process.stdout.readline().partition(" ")
        assert said == word, f"the forking child said {said!r}"
        return rest

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture
def engines(tmp_path: Path) -> Iterator[Engines]:
    engines = Engines(tmp_path / "aion.db", tmp_path / "executions.log")
    yield engines
    engines.close()


def executions(log: Path) -> Counter[str]:
    return Counter(log.read_text().split()) if log.exists() else Counter()


async def read_on(path: Path, events: list[RecordedEvent]) -> list[RecordedEvent]:
    """Add to `events` what was recorded since, and return that."""
    async with await SQLiteEventStore.open(path) as store:
        last = events[-1].position if events else START
        prefix = workflow_prefix(DEFAULT_NAMESPACE)
        new = [event async for event in store.read_all(from_position=last, prefix=prefix)]
    events += new
    return new


@pytest.mark.timeout(120)
async def test_killed_two_dozen_times_every_workflow_ends_once_and_nothing_recorded_runs_again(
    engines: Engines, tmp_path: Path
) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # pytest shows it when the test fails
    rng = random.Random(seed)
    path, log = tmp_path / "aion.db", tmp_path / "executions.log"
    events: list[RecordedEvent] = []
    settled: dict[str, int] = {}
    for _ in range(KILLS):
        assert engines.run(rng.uniform(*LIVES)) == -signal.SIGKILL
        new = completed_keys(await read_on(path, events))
        ran = executions(log)
        settled |= {key: ran[key] for key in new}
    assert engines.run(None) == 0
    await read_on(path, events)
    ran = executions(log)
    assert {key: ran[key] for key in settled} == settled
    keys = completed_keys(events)
    assert len(set(keys)) == len(keys)
    assert set(keys) == set(ran)
    expected = {code: undisturbed(code) for code in RESULTS}
    for index, workflow_id in enumerate(IDS):
        assert decisions(_stream(events, workflow_id)) == expected[type_of(index)], workflow_id
    assert len(settled) < len(keys), "everything was done before the last kill"


def _stream(events: list[RecordedEvent], workflow_id: str) -> list[RecordedEvent]:
    stream = workflow_stream(DEFAULT_NAMESPACE, WorkflowId(workflow_id))
    return [event for event in events if event.stream == stream]


def undisturbed(code: str) -> tuple[list[str], list[str]]:
    """Return the decisions of `code`, written down by hand: no run here was surely undisturbed."""
    if code == "steps":
        types = ("add", "add_in_thread", "odd_attempts_fail")
        commands = [f"ActivityScheduled {i} {types[i % 3]} {i}" for i in range(3 * ROUNDS)]
        facts = [f"completed {i} {i + 1}" for i in range(3 * ROUNDS)]
    elif code == "naps":
        pairs = [(f"TimerStarted {i}", f"ActivityScheduled {i} add {i}") for i in range(ROUNDS)]
        commands = list(itertools.chain.from_iterable(pairs))
        facts = [f"completed {i} {i + 1}" for i in range(ROUNDS)]
        facts += [f"fired {i}" for i in range(ROUNDS)]
    else:
        runs = [
            (
                "TimerStarted 0",
                f"ActivityScheduled 0 add {number}",
                f"ActivityScheduled 1 add_in_thread {number}",
                f"WorkflowContinuedAsNew {number + 1}",
                "WorkflowStarted",
            )
            for number in range(ROUNDS)
        ]
        commands = list(itertools.chain.from_iterable(runs))[:-2]
        facts = [f"completed {i} {number + 1}" for number in range(ROUNDS) for i in range(2)]
        facts += ["fired 0"] * ROUNDS
    return ["WorkflowStarted", *commands, f"WorkflowCompleted {RESULTS[code]}"], sorted(facts)

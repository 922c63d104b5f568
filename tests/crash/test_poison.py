"""A poison activity, which kills the process that runs it, is bounded; what it said before is not lost."""

import asyncio
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from aion_es.ids import DEFAULT_NAMESPACE, WorkflowId, workflow_stream
from aion_es.store.sqlite import SQLiteEventStore

ROOT = Path(__file__).parents[2]


def run(url: str, type: str, input: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.crash.poison_child", url, type, input],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def end_of(process: subprocess.Popen[str]) -> tuple[int, str]:
    output, _ = process.communicate(timeout=60)
    return process.returncode, output.strip()


async def recorded(path: Path) -> list[str]:
    async with await SQLiteEventStore.open(path) as store:
        stream = workflow_stream(DEFAULT_NAMESPACE, WorkflowId("w"))
        return [event.type async for event in store.read(stream)]


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_an_activity_that_kills_its_process_is_begun_max_attempts_times_and_no_more(
    tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "aion.db"
    ends = [end_of(run(f"sqlite:///{path}", "poisoned", kind)) for _ in range(4)]
    assert ends == [(9, ""), (9, ""), (9, ""), (0, "WorkerLost 3")]
    events = await recorded(path)
    assert [events.count(kind) for kind in ("ActivityStarted", "ActivityFailed")] == [3, 3]


async def test_an_activity_that_kills_a_process_of_the_pool_fails_and_the_engine_lives(
    tmp_path: Path,
) -> None:
    path = tmp_path / "aion.db"
    assert end_of(run(f"sqlite:///{path}", "poisoned", "process")) == (0, "BrokenProcessPool 3")
    assert (await recorded(path)).count("ActivityFailed") == 3


def test_no_process_of_the_pool_outlives_an_engine_that_was_killed(tmp_path: Path) -> None:
    engine = run(f"sqlite:///{tmp_path / 'aion.db'}", "working", "")
    assert engine.stdout is not None
    assert engine.stdout.readline() == "begun\n"
    engine.kill()
    # The pipe ends when the last process is gone that has it: those of the pool have it from the engine.
    assert end_of(engine) == (-signal.SIGKILL, "")


def stored_heartbeats(path: Path) -> int:
    with closing(sqlite3.connect(path)) as rows:
        try:
            (count,) = rows.execute("SELECT count(*) FROM activity_heartbeats").fetchone()
        except sqlite3.OperationalError:  # not made yet
            return 0
    return int(count)


async def test_what_an_attempt_said_before_its_process_was_killed_reaches_the_next(
    tmp_path: Path,
) -> None:
    path, sign = tmp_path / "aion.db", tmp_path / "sign"
    first = run(f"sqlite:///{path}", "talking", str(sign))
    deadline = time.monotonic() + 30
    while not stored_heartbeats(tmp_path / "aion.readmodel.db"):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    # The beginning was posted before the row: it is recorded once the store shows it.
    while "ActivityStarted" not in await recorded(path):
        assert time.monotonic() < deadline
    sign.touch()
    assert end_of(first) == (9, "")
    assert end_of(run(f"sqlite:///{path}", "talking", str(sign))) == (0, "{'page': 7}")

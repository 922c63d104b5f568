"""A runner that catches up is killed again and again; its rows are those of one that nobody disturbed."""

import asyncio
import os
import random
import signal
import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from aion_es.projections import ReadModel
from aion_es.projections.checkpoints import CHECKPOINTS, REBUILDS, begin_rebuild, checkpoints
from aion_es.store.port import ANY, NewEvent, Position
from aion_es.store.sqlite import SQLiteEventStore
from tests.crash.forking import Forking
from tests.crash.projection_feeder import projections, runner_on
from tests.unit.projections.histories import History, all_rows, started
from tests.unit.projections.random_histories import _Run

EVENTS = 4_000
WORKFLOWS = 150
KILLS = 100
"""On each of the two databases."""
LONGEST_LIFE = {"sqlite": 0.4, "postgresql": 0.6}
PATIENCE = timedelta(seconds=60)


class Feeders(Forking):
    """The forking child, and the runner that lives at the time."""

    def start(self, url: str, path: Path) -> int:
        """Start a runner; return its process id."""
        self.tell(f"{url} {path}")
        return self.answer("pid")

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        self.answer("dead")


@pytest.fixture
def feeders() -> Iterator[Feeders]:
    made = Feeders("tests.crash.projection_feeder")
    yield made
    made.close()


def load(rng: random.Random) -> History:
    """Return a few thousand events of many workflows at once, with every kind of turn that a run may take."""
    history = History()
    runs: dict[str, _Run] = {}
    while len(history.events) < EVENTS:
        workflow_id = f"w{rng.randrange(WORKFLOWS)}"
        run = runs.get(workflow_id)
        if run is None or run.status == "done":
            run = runs[workflow_id] = _Run(workflow_id, run.number + 1 if run else 1, None)
            history.add(workflow_id, started(run.run_id))
            continue
        minute = len(history.events)
        history.add(
            workflow_id, *run.next(rng.randrange(19)), activated=rng.random() < 0.5, minute=minute
        )
    return history


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SQLiteEventStore]:
    made = await SQLiteEventStore.open(tmp_path / "store.db")
    appends = []
    for number, event in enumerate(load(random.Random(11)).events):
        new = NewEvent(uuid.UUID(int=number), event.type, event.data, event.metadata)
        appends.append(made.submit(event.stream, [new], ANY))
    await asyncio.gather(*appends)
    yield made
    await made.aclose()


async def rows_of(model: ReadModel) -> dict[str, dict[str, list[tuple[object, ...]]]]:
    return {
        p.name: await model.read(lambda c, p=p: all_rows(c, p))  # type: ignore[misc]  # bound at once
        for p in projections()
    }


async def let_finish(store: SQLiteEventStore, model: ReadModel) -> None:
    """Let a runner catch up and finish its rebuilds, undisturbed."""
    runner = runner_on(store, model)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(runner.run())
        async with asyncio.timeout(PATIENCE.total_seconds()):
            await runner.wait_until_caught_up()
        for projection in projections():
            await runner.wait_until_rebuilt(projection.name, timeout=PATIENCE)
        task.cancel()


async def state(model: ReadModel) -> tuple[list[Position], list[Position]]:
    """Return the positions of the rows that answer, and of those that are being made beside them."""
    answering = await model.read(lambda c: checkpoints(c, CHECKPOINTS))
    beside = await model.read(lambda c: checkpoints(c, REBUILDS))
    return [at.position for at in answering.values()], [at.position for at in beside.values()]


@pytest.mark.timeout(300)
async def test_the_rows_survive_a_hundred_kills_on_each_database_also_while_they_are_rebuilt(
    feeders: Feeders, store: SQLiteEventStore, read_model_url: str, tmp_path: Path
) -> None:
    seed = random.SystemRandom().randrange(2**32)
    rng = random.Random(seed)
    end = await store.end_position()
    in_between = 0
    longest = LONGEST_LIFE[read_model_url.partition(":")[0].partition("+")[0]]
    async with await ReadModel.open(read_model_url) as model:
        for _ in range(KILLS):
            pid = feeders.start(read_model_url, tmp_path / "store.db")
            await asyncio.sleep(rng.uniform(0.02, longest))  # a random life is what is tested
            feeders.kill(pid)
            answering, beside = await state(model)
            in_between += any(position < end for position in (*answering, *beside))
            if len(answering) == len(projections()) and all(at == end for at in answering):
                for projection in projections():  # begin again, beside them
                    await model.write(lambda c, p=projection: begin_rebuild(c, p))  # type: ignore[misc]  # bound at once
        await let_finish(store, model)
        disturbed = await rows_of(model)
    async with await ReadModel.open(f"sqlite:///{tmp_path}/undisturbed.db") as model:
        await let_finish(store, model)
        undisturbed = await rows_of(model)
    assert disturbed == undisturbed, f"seed {seed}"
    assert len(disturbed["log"]["seen"]) == EVENTS
    assert in_between > KILLS // 4, f"seed {seed}: killed before or after the work, not in it"


async def test_a_waiting_runner_takes_over_from_one_that_is_killed(
    feeders: Feeders, store: SQLiteEventStore, read_model_url: str, tmp_path: Path
) -> None:
    async with await ReadModel.open(read_model_url) as model:
        pid = feeders.start(read_model_url, tmp_path / "store.db")
        while not any(p.commit > 0 for p in (await state(model))[0]):  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.01)
        runner = runner_on(store, model)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(runner.run())
            feeders.kill(pid)
            async with asyncio.timeout(PATIENCE.total_seconds()):
                await runner.wait_until_caught_up()
            task.cancel()
        rows = await rows_of(model)
    places = [row[1] for row in rows["log"]["seen"]]
    assert places == list(range(len(places)))
    assert len(places) == (await store.end_position()).commit + 1

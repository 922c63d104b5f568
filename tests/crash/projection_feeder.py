"""The child of `test_projection_sigkill`: forks runners that are killed.

Reads lines `<url of the read model> <path of the store>`, each for a process that feeds the read model.
"""

import asyncio
from datetime import timedelta

from aion_es.projections import (
    PendingWorkProjection,
    Projection,
    ProjectionRunner,
    ReadModel,
    VisibilityProjection,
)
from aion_es.store.port import EventStore
from aion_es.store.sqlite import SQLiteEventStore
from tests.crash.forking import fork_for_each_line
from tests.unit.projections.logs import Log

BATCH = 60
"""Events per transaction: few, so that a kill finds many places to strike at."""


def projections() -> list[Projection]:
    return [PendingWorkProjection(), VisibilityProjection(), Log()]


def runner_on(store: EventStore, read_model: ReadModel) -> ProjectionRunner:
    return ProjectionRunner(
        store,
        read_model,
        projections(),
        prefix="aion_",
        interval=timedelta(0),
        max_batch=BATCH,
        first_delay=timedelta(milliseconds=10),
    )


async def feed(url: str, path: str) -> None:
    store = await SQLiteEventStore.open(path)
    async with await ReadModel.open(url, readers=1) as read_model:
        await runner_on(store, read_model).run()


def feeder(line: str) -> None:
    url, path = line.split(maxsplit=1)
    asyncio.run(feed(url, path))


if __name__ == "__main__":
    fork_for_each_line(feeder)

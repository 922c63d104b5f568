"""The child of `test_projection_sigkill`: forks runners that are killed, so that each starts at once.

Reads lines `<url of the read model> <path of the store>`; for each it forks a process that feeds the read
model, says `pid <pid>`, and once that is dead `dead`.
"""

import asyncio
import os
import sys
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


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


def main() -> None:
    for line in sys.stdin:
        url, path = line.split(maxsplit=1)
        pid = os.fork()
        if pid == 0:
            os.close(0)
            asyncio.run(feed(url, path.strip()))
        say(f"pid {pid}")
        os.waitpid(pid, 0)
        say("dead")


if __name__ == "__main__":
    main()

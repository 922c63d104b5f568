"""The child of `test_engine_sigkill`: forks engines that are killed.

Reads lines `<store> <log> <outside>`, each for an engine over that store. Every execution of an activity is a line
in the log: its idempotency key.
"""

import asyncio
import os

from aion_es import Engine, EngineOptions
from aion_es.engine import recovery  # noqa: F401 - what opening an engine imports, once for all forks
from aion_es.projections import pending_work  # noqa: F401 - see above
from aion_es.visibility import query  # noqa: F401 - see above
from tests.crash.engine_shapes import ACTIVITIES, SHAPES, WORKFLOWS, Shape
from tests.crash.forking import fork_for_each_line

COPIES = 3
"""Of each shape, at once."""


def name_of(shape: Shape, copy: int) -> str:
    return f"{shape.code}-{copy}"


async def work(path: str) -> None:
    opening = Engine.open(
        f"sqlite:///{path}?durability=normal",
        workflows=WORKFLOWS,
        activities=ACTIVITIES,
        options=EngineOptions(max_resident=20),
    )
    async with opening as engine, asyncio.TaskGroup() as group:
        for copy in range(COPIES):
            for shape in SHAPES:
                group.create_task(drive(engine, shape, name_of(shape, copy)))


async def drive(engine: Engine, shape: Shape, name: str) -> None:
    assert await shape.drive(engine, shape.code, name) == shape.result, name


def engine(line: str) -> None:
    path, os.environ["EXECUTIONS"], os.environ["OUTSIDE"] = line.split()
    asyncio.run(work(path))


if __name__ == "__main__":
    fork_for_each_line(engine)

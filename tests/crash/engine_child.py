"""The child of `test_engine_sigkill`: forks engines that are killed, so that each starts at once.

Reads lines `<store> <log> <outside>`; for each it forks an engine over that store, says `pid <pid>`, and once
that is dead `dead <status>`. Every execution of an activity is a line in the log: its idempotency key.
"""

import asyncio
import os
import sys

from aion_es import Engine, EngineOptions
from aion_es.engine import recovery  # noqa: F401 - what opening an engine imports, once for all forks
from aion_es.projections import pending_work  # noqa: F401 - see above
from aion_es.visibility import query  # noqa: F401 - see above
from tests.crash.engine_shapes import ACTIVITIES, SHAPES, WORKFLOWS, Shape

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


def main() -> None:
    for line in sys.stdin:
        path, os.environ["EXECUTIONS"], os.environ["OUTSIDE"] = line.split()
        pid = os.fork()
        if pid == 0:
            asyncio.run(work(path))
            os._exit(0)
        print(f"pid {pid}", flush=True)
        _, status = os.waitpid(pid, 0)
        print(f"dead {os.waitstatus_to_exitcode(status)}", flush=True)


if __name__ == "__main__":
    main()

"""The child of `test_engine_sigkill`: forks engines that are killed, so that each starts at once.

Reads lines `<store> <log>`; for each it forks an engine over that store, says `pid <pid>`, and once that is
dead `dead <status>`. Every execution of an activity is a line in the log: its idempotency key.
"""

import asyncio
import os
import sys
from datetime import timedelta
from typing import Any

from aion_es import (
    Context,
    Engine,
    EngineOptions,
    RetryPolicy,
    WorkflowHandle,
    activity,
    workflow,
)
from aion_es.engine import recovery  # noqa: F401 - what opening an engine imports, once for all forks
from aion_es.errors import WorkflowAlreadyStartedError
from aion_es.projections import pending_work  # noqa: F401 - see above
from aion_es.visibility import query  # noqa: F401 - see above

IDS = [f"w{index}" for index in range(66)]
ROUNDS = 30
"""Of each workflow: so many that no engine can be done before it is killed often enough."""
SOON = RetryPolicy(initial_interval=timedelta(milliseconds=5))
BOUNDED = RetryPolicy(initial_interval=timedelta(milliseconds=5), max_attempts=1_000)


def log_execution() -> None:
    line = f"{activity.info().idempotency_key}\n".encode()
    log = os.open(os.environ["EXECUTIONS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, line)  # whole, or not at all
    os.close(log)


@activity(retry=SOON)
async def add(number: int) -> int:
    log_execution()
    await asyncio.sleep(0.01)
    return number + 1


@activity(retry=BOUNDED)
def add_in_thread(number: int) -> int:
    log_execution()
    return number + 1


@activity(retry=SOON)
async def odd_attempts_fail(number: int) -> int:
    log_execution()
    if activity.info().attempt % 2:
        raise RuntimeError("odd")
    return number + 1


@workflow
async def steps(ctx: Context) -> int:
    number = 0
    for _ in range(ROUNDS):
        for step in (add, add_in_thread, odd_attempts_fail):
            number = await ctx.run(step, number)
    return number


@workflow
async def naps(ctx: Context) -> int:
    number = 0
    for _ in range(ROUNDS):
        await asyncio.sleep(0.02)
        number = await ctx.run(add, number)
    return number


@workflow
async def chain(ctx: Context, number: int) -> int:
    await asyncio.sleep(0.02)
    number = max(await asyncio.gather(ctx.run(add, number), ctx.run(add_in_thread, number)))
    if number == ROUNDS:
        return number
    return ctx.continue_as_new(number)


RESULTS = {"steps": 3 * ROUNDS, "naps": ROUNDS, "chain": ROUNDS}


def type_of(index: int) -> str:
    return ("steps", "naps", "chain")[index % 3]


async def work(path: str) -> None:
    async with Engine.open(
        f"sqlite:///{path}?durability=normal",
        workflows=[steps, naps, chain],
        activities=[add, add_in_thread, odd_attempts_fail],
        options=EngineOptions(max_resident=20),
    ) as engine:
        handles = [await begin(engine, index) for index in range(len(IDS))]
        for index, handle in enumerate(handles):
            result = await handle.result(timeout=timedelta(seconds=60))
            assert result == RESULTS[type_of(index)]


async def begin(engine: Engine, index: int) -> WorkflowHandle[Any]:
    """Start a workflow that was never started; what is open goes on, what closed stays closed."""
    workflow_id, code = IDS[index], type_of(index)
    try:
        if code == "chain":
            return await engine.start(
                code, 0, id=workflow_id, on_conflict="use_existing", reuse="reject"
            )
        return await engine.start(code, id=workflow_id, on_conflict="use_existing", reuse="reject")
    except WorkflowAlreadyStartedError:
        return engine.handle(workflow_id)


def main() -> None:
    for line in sys.stdin:
        path, log = line.split()
        pid = os.fork()
        if pid == 0:
            os.environ["EXECUTIONS"] = log
            asyncio.run(work(path))
            os._exit(0)
        print(f"pid {pid}", flush=True)
        _, status = os.waitpid(pid, 0)
        print(f"dead {os.waitstatus_to_exitcode(status)}", flush=True)


if __name__ == "__main__":
    main()

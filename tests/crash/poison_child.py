"""The child of `test_poison`: an engine whose activity takes the process down with it, or says so first."""

import asyncio
import os
import sys
import time
from datetime import timedelta
from typing import Any

from aion_es import ActivityError, Context, Engine, RetryPolicy, activity, workflow

POLICY = RetryPolicy(max_attempts=3, initial_interval=timedelta(milliseconds=1))
TALKER = RetryPolicy(initial_interval=timedelta(milliseconds=1))


@activity(retry=POLICY)
async def dies() -> None:
    os._exit(9)


@activity(retry=POLICY)
def dies_in_a_thread() -> None:
    os._exit(9)


@activity(retry=POLICY, executor="process")
def dies_in_a_process() -> None:
    os._exit(9)


@activity(executor="process")
def never_returns() -> None:
    print("begun", flush=True)
    while True:
        time.sleep(60)


@activity(retry=TALKER)
def speaks_and_dies(path: str) -> Any:
    """Die once what was said is stored, as the test's file tells; the next attempt returns what it is told."""
    info = activity.info()
    if info.attempt > 1:
        return info.heartbeat_details
    activity.heartbeat({"page": 7})
    while not os.path.exists(path):  # noqa: PTH110 - a thread of an activity waits as it can
        time.sleep(0.01)
    os._exit(9)


@workflow
async def poisoned(ctx: Context, kind: str) -> str:
    activities = {"async": dies, "thread": dies_in_a_thread, "process": dies_in_a_process}
    try:
        await ctx.run(activities[kind])
    except ActivityError as error:
        return f"{error.type} {error.attempts}"
    return "survived"


@workflow
async def working(ctx: Context, _: str) -> None:
    await ctx.run(never_returns)


@workflow
async def talking(ctx: Context, path: str) -> Any:
    return await ctx.run(speaks_and_dies, path)


WORKFLOWS = [poisoned, talking, working]
ACTIVITIES = [dies, dies_in_a_thread, dies_in_a_process, never_returns, speaks_and_dies]


async def main(url: str, type: str, input: str) -> None:
    async with Engine.open(url, workflows=WORKFLOWS, activities=ACTIVITIES) as engine:
        handle = await engine.start(type, input, id="w", on_conflict="use_existing", reuse="reject")
        print(await handle.result(timeout=timedelta(seconds=30)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

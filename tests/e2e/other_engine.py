"""The other process of `test_two_engines`: drives the same workflows, or works until it is killed.

`drive URL NAME…` says `open`, drives the shapes under these names to their end, says which ended well, and how
many of its appends came too late. `linger URL` starts what `lingering` has, says `working`, and works on
until it is killed, or told to end, which it does at once.
"""

import asyncio
import sys
from datetime import timedelta
from pathlib import Path

from aion_es import Context, Engine, EngineOptions, RetryPolicy, activity, workflow
from aion_es.store.sqlite import Durability, SQLiteEventStore
from aion_es.testing.faults import FaultyStore
from tests.crash.engine_shapes import ACTIVITIES, SHAPES, WORKFLOWS, add_one


class Place:
    """Where an activity runs: in a process that lingers none comes to its end."""

    lingers = False


async def linger_here() -> int:
    if Place.lingers:
        await asyncio.Event().wait()
    return 2


@activity
async def takes_long() -> int:
    return await linger_here()


@activity(retry=RetryPolicy(initial_interval=timedelta(0), max_attempts=5))
async def takes_long_and_counts() -> int:
    """Each of its attempts is recorded before it runs."""
    return await linger_here()


@workflow
async def runs_long(ctx: Context) -> int:
    return await ctx.run(takes_long)


@workflow
async def runs_long_and_counts(ctx: Context) -> int:
    return await ctx.run(takes_long_and_counts)


@workflow
async def sleeps_a_little(ctx: Context) -> int:
    await asyncio.sleep(1.5)
    return await ctx.run(add_one, 1)


@workflow
async def has_a_child(ctx: Context) -> int:
    return await ctx.spawn(runs_long, id=f"{ctx.info.workflow_id}/child")


LINGERING = [runs_long, runs_long_and_counts, sleeps_a_little, has_a_child]
LINGERING_ACTIVITIES = [takes_long, takes_long_and_counts, add_one]


async def drive(url: str, names: list[str]) -> None:
    path = Path(url.removeprefix("sqlite:///").partition("?")[0])
    async with await SQLiteEventStore.open(path, durability=Durability.NORMAL) as inner:
        store = FaultyStore(inner)
        async with Engine.open(
            store,
            workflows=WORKFLOWS,
            activities=ACTIVITIES,
            read_model=f"sqlite:///{path.with_name('aion.readmodel.db')}",
        ) as engine:
            print("open", flush=True)
            shapes = [SHAPES[index % len(SHAPES)] for index in range(len(names))]
            results = await asyncio.gather(
                *(s.accompany(engine, name) for s, name in zip(shapes, names, strict=True))
            )
    for shape, name, result in zip(shapes, names, results, strict=True):
        if result == shape.result:
            print(name)
    print(f"conflicts={store.conflicts} appends={store.calls}")


async def linger(url: str) -> None:
    Place.lingers = True
    async with Engine.open(
        url,
        workflows=LINGERING,
        activities=LINGERING_ACTIVITIES,
        options=EngineOptions(shutdown_grace=timedelta(0)),
    ) as engine:
        for index in range(5):
            for code in LINGERING:
                await engine.start(code, id=f"{code.__name__}-{index}")
        while engine.activities_executed < 15:  # noqa: ASYNC110 - counted, not announced
            await asyncio.sleep(0.01)
        print("working", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    if sys.argv[1] == "drive":
        asyncio.run(drive(sys.argv[2], sys.argv[3:]))
    else:
        asyncio.run(linger(sys.argv[2]))

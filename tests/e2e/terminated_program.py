"""The program of `test_termination`: runs one workflow until a signal ends it, and says what it gets to do."""

import asyncio
import multiprocessing
import signal
import sys
import time
from datetime import timedelta
from multiprocessing import forkserver

from aion_es import Context, Engine, EngineOptions, activity, workflow
from aion_es.store.memory import MemoryEventStore
from aion_es.store.port import Position

START_METHODS = ("fork", "forkserver", "spawn")


@activity
async def slow() -> str:
    """Say that it has begun, and take a while."""
    print("begun", flush=True)
    await asyncio.sleep(float(sys.argv[3]))
    print("ended", flush=True)
    return "ended"


@activity
async def slower() -> str:
    """End half a second after the other."""
    print("begun", flush=True)
    await asyncio.sleep(float(sys.argv[3]) + 0.5)
    print("ended", flush=True)
    return "ended"


@activity(executor="process")
def slow_elsewhere() -> str:
    """Do the same in a process of the pool."""
    print("begun", flush=True)
    time.sleep(float(sys.argv[3]))
    print("ended", flush=True)
    return "ended"


@workflow
async def waits_for_a_process(ctx: Context) -> str:
    return await ctx.run(slow_elsewhere)


@workflow
async def waits_for_longer(ctx: Context) -> str:
    return await ctx.run(slower)


@workflow
async def waits(ctx: Context) -> str:
    return await ctx.run(slow)


async def main() -> None:
    options = EngineOptions(
        handle_signals=sys.argv[2] != "off", shutdown_grace=timedelta(seconds=30)
    )
    code = waits_for_a_process if sys.argv[2] in START_METHODS else waits
    try:
        async with Engine.open(
            sys.argv[1], workflows=[code], activities=[slow, slow_elsewhere], options=options
        ) as engine:
            try:  # the activity may have begun before its start is answered
                await engine.start(code, id="w")
                await asyncio.Event().wait()
            finally:
                print("leaving", flush=True)
    finally:
        await asyncio.sleep(0)
        print("left", flush=True)


async def one_of_two(namespace: str) -> None:
    async with Engine.open(
        sys.argv[1],
        workflows=[waits, waits_for_longer],
        activities=[slow, slower],
        namespace=namespace,
        options=EngineOptions(shutdown_grace=timedelta(seconds=30)),
    ) as engine:
        await engine.start(waits if namespace == "aion" else waits_for_longer, id="w")
        await asyncio.Event().wait()


async def two_engines() -> None:
    await asyncio.gather(one_of_two("aion"), one_of_two("other"))


class StoreThatWaits(MemoryEventStore):
    """One that an engine waits for when it opens."""

    async def end_position(self) -> Position:
        """Never return."""
        print("begun", flush=True)
        await asyncio.Event().wait()
        raise AssertionError


async def opens() -> None:
    try:
        async with Engine.open(StoreThatWaits()):
            print("open", flush=True)
    finally:
        print("left", flush=True)


if __name__ == "__main__":
    # A shell has its background jobs ignore Ctrl-C, and so would this program.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if sys.argv[2] in START_METHODS:
        multiprocessing.set_start_method(sys.argv[2])
    if sys.argv[2] == "forkserver":
        forkserver.ensure_running()  # as a program has that begins processes of its own
    if sys.argv[2] == "own":
        signal.signal(signal.SIGTERM, lambda *_: print("own handler", flush=True))
    asyncio.run({"two engines": two_engines, "opening": opens}.get(sys.argv[2], main)())

"""The program of `test_termination`: runs one workflow until a signal ends it, and says what it gets to do."""

import asyncio
import signal
import sys
from datetime import timedelta

from aion_es import Context, Engine, EngineOptions, activity, workflow


@activity
async def slow() -> str:
    """Say that it has begun, and take a while."""
    print("begun", flush=True)
    await asyncio.sleep(float(sys.argv[3]))
    print("ended", flush=True)
    return "ended"


@workflow
async def waits(ctx: Context) -> str:
    return await ctx.run(slow)


async def main() -> None:
    options = EngineOptions(
        handle_signals=sys.argv[2] != "off", shutdown_grace=timedelta(seconds=30)
    )
    try:
        async with Engine.open(
            sys.argv[1], workflows=[waits], activities=[slow], options=options
        ) as engine:
            try:  # the activity may have begun before its start is answered
                await engine.start(waits, id="w")
                await asyncio.Event().wait()
            finally:
                print("leaving", flush=True)
    finally:
        await asyncio.sleep(0)
        print("left", flush=True)


if __name__ == "__main__":
    if sys.argv[2] == "own":
        signal.signal(signal.SIGTERM, lambda *_: print("own handler", flush=True))
    asyncio.run(main())

"""The engine on an event loop that is not asyncio's own: many services run on uvloop."""

import asyncio
import contextlib
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from pathlib import Path

import pytest
import uvloop

from aion_es import Context, Engine, Signal, activity, workflow

approval = Signal("approval", str)
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@activity
async def weigh(number: int) -> int:
    """Wait as long as a real activity, a little."""
    await asyncio.sleep(0.001)
    return number * 2


@activity
def weigh_on_a_thread(number: int) -> int:
    """Do the same on a thread."""
    return number * 2


@workflow
async def weighed(ctx: Context, number: int) -> str:
    """Use what reaches the engine's loop: tasks, threads, a timer, a time-out, a signal."""
    here, there = await asyncio.gather(ctx.run(weigh, number), ctx.run(weigh_on_a_thread, number))
    await asyncio.sleep(0.001)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.001):
            await asyncio.Event().wait()
    return f"{here + there} for {await ctx.receive(approval)}"


@pytest.mark.parametrize(("first", "second"), [("uvloop", "asyncio"), ("asyncio", "uvloop")])
def test_a_workflow_begun_on_one_event_loop_goes_on_on_another(
    tmp_path: Path, first: str, second: str
) -> None:
    def opened() -> AbstractAsyncContextManager[Engine]:
        url = f"sqlite:///{tmp_path}/aion.db"
        return Engine.open(url, workflows=[weighed], activities=[weigh, weigh_on_a_thread])

    async def begin() -> None:
        async with opened() as engine:
            await engine.start(weighed, 3, id="w")

    async def end() -> str:
        async with opened() as engine:
            handle = engine.handle("w", weighed)
            await handle.signal(approval, "ana")
            return await handle.result(timeout=timedelta(seconds=30))

    with asyncio.Runner(loop_factory=LOOPS[first]) as runner:
        runner.run(begin())
    with asyncio.Runner(loop_factory=LOOPS[second]) as runner:
        assert runner.run(end()) == "12 for ana"

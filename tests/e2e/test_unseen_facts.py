"""What happened while nobody ran the code is new to it, however much of it there is."""

import logging
from typing import Any

import pytest

from aion_es import Client, Context, Signal, workflow
from tests.e2e.conftest import EngineOpener
from tests.e2e.scenario import SOON, replayed

go = Signal("go")
number = Signal("number", int)


@workflow(name="counts")
async def as_it_was(ctx: Context) -> str:
    await ctx.receive(number)
    await ctx.receive(number)
    await ctx.receive(go)
    return "old"


@workflow(name="counts")
async def as_it_is(ctx: Context) -> str:
    ctx.logger.info("got %s", await ctx.receive(number))
    is_new = ctx.patched("said")
    ctx.logger.info("got %s", await ctx.receive(number))
    await ctx.receive(go)
    return "new" if is_new else "old"


async def test_code_that_comes_to_a_patch_by_it_takes_the_new_way(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([as_it_was]) as engine:
        await engine.start(as_it_was, id="w")
    async with Client.open(open_engine.store) as client:
        for value in (1, 2):
            await client.handle("w").signal(number, value)
    async with open_engine([as_it_is]) as engine:
        handle = engine.handle("w", as_it_is)
        await handle.signal(go)
        assert await handle.result(timeout=SOON) == "new"
        replayed(await handle.history(), as_it_is)


async def test_what_code_says_is_logged_once_however_often_it_is_brought_back(
    open_engine: EngineOpener, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "aion_es.workflow.counts")
    async with open_engine([as_it_is]) as engine:
        await engine.start(as_it_is, id="w")
    async with Client.open(open_engine.store) as client:
        for value in (1, 2):
            await client.handle("w").signal(number, value)
    for _ in range(2):
        async with open_engine([as_it_is]) as engine:
            handle: Any = engine.handle("w", as_it_is)
            await handle.signal(Signal("unheard"))
    assert caplog.messages == ["got 1", "got 2"]

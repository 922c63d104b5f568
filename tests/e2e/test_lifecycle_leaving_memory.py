"""Code that leaves memory: what it does on its way out reaches nothing, and cannot hold up who takes it out."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from aion_es import Context, Signal, activity, workflow
from aion_es.errors import InvalidArgumentError
from tests.e2e.conftest import EngineOpener, resident
from tests.e2e.scenario import SOON, kinds

HOUR = timedelta(hours=1)
go = Signal("go")


@activity
async def quick() -> str:
    return "quick"


async def _receives(ctx: Context) -> None:
    await ctx.receive(go)


async def _runs(ctx: Context) -> None:
    await ctx.receive(go)
    await ctx.run(quick)


async def _sleeps(ctx: Context) -> None:
    async with asyncio.timeout(3_600):
        await ctx.receive(go)


async def _gathers(ctx: Context) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(ctx.receive(go))


async def _limits(ctx: Context) -> None:
    ctx.patched("limits")
    await ctx.with_timeout(ctx.receive(go), HOUR)


async def _makes(ctx: Context) -> None:
    _settings[ctx.side_effect(lambda: "limit", str)] += 1  # fails where it gives something else
    await ctx.receive(go)


_settings = {"limit": 0}


@pytest.mark.parametrize("operation", [_receives, _runs, _sleeps, _gathers, _limits, _makes])
async def test_code_that_catches_everything_does_not_hold_up_the_engine(
    open_engine: EngineOpener,
    operation: Callable[[Context], Awaitable[None]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    @workflow
    async def stubborn(ctx: Context) -> str:
        while True:
            try:
                await operation(ctx)
            except:  # noqa: E722 - what an author may write
                continue
            return "gone on"

    with caplog.at_level(logging.WARNING, logger="aion_es.workflow"):
        async with open_engine([stubborn], [quick]) as engine:
            await engine.start(stubborn, id="w")
    assert "stubborn catches everything and waits again" in caplog.text
    async with open_engine([stubborn], [quick]) as engine:
        handle = engine.handle("w")
        await handle.signal(go)
        assert await handle.result(timeout=SOON) == "gone on"


async def test_a_side_effect_of_code_on_its_way_out_is_not_made(open_engine: EngineOpener) -> None:
    made: list[str] = []

    @workflow
    async def makes_at_its_end(ctx: Context) -> str:
        try:
            await ctx.receive(go)
        finally:
            ctx.side_effect(lambda: made.append("made"))
        return "done"

    async with open_engine([makes_at_its_end]) as engine:
        await engine.start(makes_at_its_end, id="w")
    assert made == []
    async with open_engine([makes_at_its_end]) as engine:
        handle = engine.handle("w")
        await handle.signal(go)
        assert await handle.result(timeout=SOON) == "done"
    assert made == ["made"]


async def test_a_finally_block_logs_when_its_run_ends_and_not_when_it_leaves_memory(
    open_engine: EngineOpener, caplog: pytest.LogCaptureFixture
) -> None:
    @workflow
    async def tidy(ctx: Context) -> str:
        try:
            await ctx.receive(go)
        finally:
            ctx.logger.warning("cleaned up")
        return "done"

    async with open_engine([tidy]) as engine:
        await engine.start(tidy, id="w")
    assert caplog.messages == []
    async with open_engine([tidy]) as engine:
        handle = engine.handle("w")
        await handle.signal(go)
        assert await handle.result(timeout=SOON) == "done"
    assert caplog.messages == ["cleaned up"]


async def test_what_a_finally_block_asks_for_on_its_way_out_is_not_recorded(
    open_engine: EngineOpener,
) -> None:
    @workflow
    async def asks(ctx: Context) -> str:
        try:
            await ctx.receive(go)
        finally:
            ctx.set_attributes({})
            tea = ctx.start_timer("tea", HOUR)
            tea.cancel()
            await ctx.run(quick)
        return "done"

    async with open_engine([asks], [quick]) as engine:
        await engine.start(asks, id="w")
    async with open_engine([asks], [quick]) as engine:
        assert await kinds(engine.handle("w")) == ["WorkflowStarted"]


_OUTSIDE: dict[str, Callable[[Context], Any]] = {
    "run": lambda ctx: ctx.run(quick),
    "timer": lambda ctx: ctx.start_timer("tea", HOUR),
    "handler": lambda ctx: ctx.on_signal(go, lambda _: None),
    "patched": lambda ctx: ctx.patched("p"),
    "side_effect": lambda ctx: ctx.side_effect(lambda: 1),
    "attributes": lambda ctx: ctx.set_attributes({}),
    "send": lambda ctx: ctx.send("other", go),
    "spawn": lambda ctx: ctx.spawn("other"),
    "continue_as_new": lambda ctx: ctx.continue_as_new(),
}


@resident
@pytest.mark.parametrize("ask", _OUTSIDE.values(), ids=_OUTSIDE)
async def test_a_context_is_refused_to_whoever_is_not_its_code(
    open_engine: EngineOpener, ask: Callable[[Context], Any]
) -> None:
    contexts: list[Context] = []

    @workflow
    async def leaks(ctx: Context) -> str:
        contexts.append(ctx)
        await ctx.receive(go)
        return "done"

    async with open_engine([leaks], [quick]) as engine:
        handle = await engine.start(leaks)
        with pytest.raises(InvalidArgumentError, match="only by the code of its own run"):
            ask(contexts[-1])
        await handle.signal(go)
        assert await handle.result(timeout=SOON) == "done"
        assert await kinds(handle) == ["WorkflowStarted", "SignalReceived", "WorkflowCompleted"]

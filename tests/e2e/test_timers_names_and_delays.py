"""Timers: names that look like the engine's own, and delays that are none."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from aion_es import Context, Signal, workflow
from aion_es.errors import InvalidArgumentError, TimerAlreadyStartedError
from aion_es.events.workflow import TimerFired, TimerStarted
from aion_es.testing.clock import ManualClock
from tests.e2e.conftest import EngineOpener
from tests.e2e.scenario import SOON, events_of, is_recorded, kinds, replayed, until

HOUR = timedelta(hours=1)
go = Signal("go")


@workflow
async def names_timers_by_numbers(ctx: Context) -> str:
    named = [ctx.start_timer(name, HOUR) for name in ("0", "1")]
    await ctx.sleep(60)
    with pytest.raises(TimerAlreadyStartedError):
        await ctx.start_timer("1", HOUR)
    await asyncio.gather(*named)
    return "done"


async def test_a_sleep_takes_no_number_that_is_the_name_of_a_timer(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine([names_timers_by_numbers], clock=clock) as engine:
        handle = await engine.start(names_timers_by_numbers)
        assert [e.timer_id for e in await events_of(handle, TimerStarted)] == ["0", "1", "2"]
        clock.advance(timedelta(minutes=1))
        await until(lambda: is_recorded(handle, "TimerFired"))
        clock.advance(HOUR)
        assert await handle.result(timeout=SOON) == "done"
        replayed(await handle.history(), names_timers_by_numbers)


@pytest.mark.parametrize(
    "delay", [timedelta.max, 5, "soon", None], ids=["for ever", "number", "text", "nothing"]
)
async def test_a_delay_that_is_no_duration_is_refused(
    open_engine: EngineOpener, delay: Any
) -> None:
    @workflow
    async def waits_badly(ctx: Context) -> int:
        refusals = 0
        for _ in range(2):
            try:
                await ctx.start_timer("tea", delay)
            except InvalidArgumentError:
                refusals += 1
            try:
                await ctx.with_timeout(ctx.receive(go), delay)
            except InvalidArgumentError:
                refusals += 1
        return refusals

    async with open_engine([waits_badly]) as engine:
        handle = await engine.start(waits_badly)
        assert await handle.result(timeout=SOON) == 4
        assert await kinds(handle) == ["WorkflowStarted", "WorkflowCompleted"]


@workflow
async def three_at_once(ctx: Context) -> list[str]:
    order: list[str] = []

    async def alarm(name: str) -> None:
        await ctx.start_timer(name, HOUR)
        order.append(name)

    alarms = [asyncio.ensure_future(alarm(name)) for name in ("zebra", "ant", "mole")]
    await asyncio.wait([*alarms, asyncio.ensure_future(asyncio.sleep(3_600))])
    return order


async def test_timers_that_are_due_at_once_fire_in_the_order_of_arming_live_and_after_a_restart(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine([three_at_once], clock=clock) as engine:
        live = await engine.start(three_at_once, id="live")
        clock.advance(HOUR)
        assert await live.result(timeout=SOON) == ["zebra", "ant", "mole"]
        await engine.start(three_at_once, id="restarted")
    clock.advance(HOUR)
    async with open_engine([three_at_once], clock=clock) as engine:
        restarted = engine.handle("restarted", three_at_once)
        assert await restarted.result(timeout=SOON) == ["zebra", "ant", "mole"]
        fired = [[e.timer_id for e in await events_of(h, TimerFired)] for h in (live, restarted)]
        assert fired == [["zebra", "ant", "mole", "0"]] * 2

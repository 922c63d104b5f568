"""What is commanded too late, or twice, leaves no record, and a replay demands none."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from aion_es import Context, Engine, Signal, WorkflowHandle, activity, workflow
from aion_es.errors import NonDeterminismError
from aion_es.testing.clock import ManualClock
from tests.e2e.conftest import EngineOpener
from tests.e2e.scenario import SOON, is_recorded, kinds, replayed, until

go = Signal("go")
number = Signal("number", int)
MINUTE = timedelta(minutes=1)


class Gate:
    """What the activity waits for, whichever loop it is of."""

    def __init__(self) -> None:
        self.open = asyncio.Event()


gate = Gate()


@pytest.fixture(autouse=True)
async def _fresh_gate() -> None:
    gate.open = asyncio.Event()


@activity
async def slow() -> str:
    await gate.open.wait()
    return "slow"


@activity
async def quick(name: str) -> str:
    return name


@workflow
async def lingers(ctx: Context) -> str:
    try:
        await ctx.receive(go)
    except asyncio.CancelledError:
        await ctx.sleep(3600)
        raise
    return "went"


@workflow
async def times_an_activity(ctx: Context) -> str:
    try:
        async with asyncio.timeout(60):
            outcome = await ctx.run(slow)
    except TimeoutError:
        outcome = "late"
    await ctx.run(quick, "next")
    await ctx.receive(go)
    return outcome


@workflow
async def bounds_an_activity(ctx: Context) -> str:
    outcome = await ctx.with_timeout(ctx.run(slow), MINUTE)
    await ctx.run(quick, "next")
    await ctx.receive(go)
    return outcome


@workflow
async def times_a_child(ctx: Context) -> str:
    try:
        async with asyncio.timeout(60):
            outcome = await ctx.spawn(lingers, id="child")
    except TimeoutError:
        outcome = "late"
    await ctx.run(quick, "next")
    await ctx.receive(go)
    return outcome


@workflow
async def times_a_signal(ctx: Context) -> str:
    async with asyncio.timeout(60):
        value = await ctx.receive(number)
    await ctx.run(quick, "next")
    await ctx.receive(go)
    return str(value)


@workflow
async def cancels_twice(ctx: Context) -> str:
    child = ctx.spawn(lingers, id="child", parent_close="abandon")
    await ctx.run(quick, "first")
    child.cancel("once")
    child.cancel("twice")
    await ctx.run(quick, "next")
    await ctx.receive(go)
    return "asked"


@workflow
async def cancels_and_gives_up(ctx: Context) -> str:
    child = ctx.spawn(lingers, id="child", parent_close="abandon")
    await ctx.run(quick, "first")
    child.cancel("too slow")
    try:
        async with asyncio.timeout(60):
            await child
    except TimeoutError:
        await ctx.run(quick, "next")
    await ctx.receive(go)
    return "asked"


WORKFLOWS = [
    lingers,
    times_an_activity,
    bounds_an_activity,
    times_a_child,
    times_a_signal,
    cancels_twice,
    cancels_and_gives_up,
]
ACTIVITIES = [slow, quick]


async def goes_on(open_engine: EngineOpener, clock: ManualClock, code: Any) -> Any:
    """Return what the run comes to in the next engine, which has to replay it."""
    async with open_engine(WORKFLOWS, ACTIVITIES, clock=clock) as engine:
        handle = engine.handle("w")
        await handle.signal(go)
        result = await handle.result(timeout=SOON)
        replayed(await handle.history(), code)
        return result


async def paused_within_its_limit(engine: Engine, code: Any) -> WorkflowHandle[str]:
    """Start the code as `w` and pause it once it has armed the timer of its limit."""
    handle = await engine.start(code, id="w")
    await until(lambda: is_recorded(handle, "TimerStarted"))
    await handle.pause()
    return handle


async def the_timer_fires(handle: WorkflowHandle[Any], clock: ManualClock) -> None:
    """Let the minute of the run's timer pass; return when that is recorded."""
    clock.advance(2 * MINUTE)
    await until(lambda: is_recorded(handle, "TimerFired"))


async def activities_complete(handle: WorkflowHandle[Any], times: int) -> None:
    await until(lambda: is_recorded(handle, "ActivityCompleted", times))


@pytest.mark.parametrize("code", [times_an_activity, bounds_an_activity])
async def test_a_timer_that_fired_while_the_run_was_paused_is_cancelled_too_late(
    open_engine: EngineOpener, clock: ManualClock, code: Any
) -> None:
    async with open_engine(WORKFLOWS, ACTIVITIES, clock=clock) as engine:
        handle = await paused_within_its_limit(engine, code)
        gate.open.set()
        await activities_complete(handle, 1)
        await the_timer_fires(handle, clock)
        await handle.resume()
        await activities_complete(handle, 2)
        assert "TimerCancelled" not in await kinds(handle)
    assert await goes_on(open_engine, clock, code) == "slow"


async def test_an_activity_that_ended_while_the_run_was_paused_is_cancelled_too_late(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine(WORKFLOWS, ACTIVITIES, clock=clock) as engine:
        handle = await paused_within_its_limit(engine, times_an_activity)
        await the_timer_fires(handle, clock)
        gate.open.set()
        await activities_complete(handle, 1)
        await handle.resume()
        await activities_complete(handle, 2)
        assert "ActivityCancelRequested" not in await kinds(handle)
    assert await goes_on(open_engine, clock, times_an_activity) == "late"


async def test_a_child_that_ended_while_the_run_was_paused_is_cancelled_too_late(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine(WORKFLOWS, ACTIVITIES, clock=clock) as engine:
        handle = await paused_within_its_limit(engine, times_a_child)
        await the_timer_fires(handle, clock)
        await engine.handle("child").signal(go)
        await until(lambda: is_recorded(handle, "ChildWorkflowCompleted"))
        await handle.resume()
        await activities_complete(handle, 1)
        assert "ChildWorkflowCancelRequested" not in await kinds(handle)
    assert await goes_on(open_engine, clock, times_a_child) == "late"


async def test_a_deadline_that_passed_while_the_code_was_missing_is_cancelled_too_late(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine(WORKFLOWS, ACTIVITIES, clock=clock) as engine:
        await engine.start(times_a_signal, id="w")
    async with open_engine([lingers], ACTIVITIES, clock=clock) as engine:
        handle = engine.handle("w")
        await handle.signal(number, 7)
        await the_timer_fires(handle, clock)
    async with open_engine(WORKFLOWS, ACTIVITIES, clock=clock) as engine:
        await activities_complete(engine.handle("w"), 1)
    assert await goes_on(open_engine, clock, times_a_signal) == "7"


@pytest.mark.parametrize("code", [cancels_twice, cancels_and_gives_up])
async def test_a_child_that_is_cancelled_twice_is_asked_once(
    open_engine: EngineOpener, clock: ManualClock, code: Any
) -> None:
    async with open_engine(WORKFLOWS, ACTIVITIES, clock=clock) as engine:
        handle = await engine.start(code, id="w")
        await until(lambda: is_recorded(handle, "ChildWorkflowCancelRequested"))
        await until(lambda: is_recorded(engine.handle("child"), "TimerStarted"))
        clock.advance(2 * MINUTE)
        await activities_complete(handle, 2)
        assert (await kinds(handle)).count("ChildWorkflowCancelRequested") == 1
    assert await goes_on(open_engine, clock, code) == "asked"


async def test_a_cancelling_that_would_have_added_something_is_still_a_difference(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    """Also if the timer fired in the end: what counts is what was so when the code came there."""

    @workflow(name="code")
    async def before(ctx: Context) -> None:
        _ = ctx.start_timer("a", MINUTE)
        await ctx.receive(number)
        await ctx.receive(go)
        await ctx.run(quick, "next")

    @workflow(name="code")
    async def after(ctx: Context) -> None:
        timer = ctx.start_timer("a", MINUTE)
        await ctx.receive(number)
        timer.cancel()
        await ctx.receive(go)
        await ctx.run(quick, "next")

    async with open_engine([before], ACTIVITIES, clock=clock) as engine:
        handle = await engine.start(before, id="w")
        await handle.signal(number, 1)
        await the_timer_fires(handle, clock)
        await handle.signal(go)
        await handle.result(timeout=SOON)
        history = await handle.history()
    replayed(history, before)
    with pytest.raises(NonDeterminismError) as caught:
        replayed(history, after)
    assert caught.value.recorded == "activity 0 'quick'"
    assert caught.value.commanded == "cancel timer 'a'"

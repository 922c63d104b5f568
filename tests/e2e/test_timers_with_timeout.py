"""`ctx.with_timeout`: what is there already, what came first, and the clean-up of what is cancelled."""

import asyncio
from collections.abc import Awaitable
from datetime import timedelta
from typing import Any, TypeVar

import pytest

from aion_es import Context, Engine, Signal, WorkflowHandle, activity, workflow
from aion_es.authoring.context import WAITS_FOR_CLEAN_UP
from aion_es.events.workflow import ActivityScheduled, MarkerRecorded
from aion_es.ids import TimerId
from aion_es.testing.clock import ManualClock
from tests.e2e.conftest import EngineOpener
from tests.e2e.scenario import SOON, cancelled, events_of, is_recorded, kinds, replayed, until

HOUR = timedelta(hours=1)
T = TypeVar("T")
go = Signal("go")
number = Signal("number", int)
done: list[str] = []
held = asyncio.Event()


@pytest.fixture(autouse=True)
def _nothing_done() -> None:
    done.clear()
    held.clear()


@activity
async def step(name: str) -> str:
    done.append(name)
    return name


@activity
async def step_that_stands() -> str:
    done.append("begun")
    await held.wait()
    return "stood"


@workflow
async def takes_a_number(ctx: Context) -> int:
    await ctx.receive(go)
    return await ctx.with_timeout(ctx.receive(number), HOUR)


@workflow
async def takes_two_numbers_and_goes_on(ctx: Context, taken: int) -> int:
    await ctx.with_timeout(ctx.receive(number), HOUR)
    if taken == 0:
        ctx.continue_as_new(taken + 1)
    return taken


@workflow
async def takes_a_free_lock(ctx: Context) -> bool:
    lock = asyncio.Lock()
    await ctx.with_timeout(lock.acquire(), HOUR)
    return lock.locked()


async def reserve_and_release(ctx: Context) -> None:
    await ctx.run(step, "reserve")
    try:
        await ctx.receive(go)
    finally:
        await ctx.run(step, "release")


@workflow
async def reserves(ctx: Context) -> str:
    try:
        await ctx.with_timeout(reserve_and_release(ctx), HOUR)
    except TimeoutError:
        await ctx.run(step, "told that it is late")
        return "late"
    return "in time"


@workflow
async def stands(ctx: Context) -> str:
    try:
        await ctx.with_timeout(ctx.run(step_that_stands, cancellation="wait"), HOUR)
    except TimeoutError:
        return "late"
    return "in time"


@workflow
async def cleans_up_in_vain(ctx: Context) -> str:
    async def operation() -> None:
        try:
            await ctx.receive(go)
        finally:
            raise ValueError("the key is lost")

    try:
        await ctx.with_timeout(operation(), HOUR)
    except TimeoutError as error:
        return repr(error.__cause__)
    return "in time"


async def has_reserved(engine: Engine, code: Any) -> WorkflowHandle[str]:
    """Start the code; return the run when it has reserved and waits within its limit."""
    handle = await engine.start(code)
    await until(lambda: is_recorded(handle, "ActivityCompleted"))
    return handle


async def test_what_is_there_already_needs_no_timer(open_engine: EngineOpener) -> None:
    async with open_engine([takes_a_number]) as engine:
        handle = await engine.start(takes_a_number)
        await handle.signal(number, 7)
        await handle.signal(go)
        assert await handle.result(timeout=SOON) == 7
        assert await kinds(handle) == [
            "WorkflowStarted",
            "SignalReceived",
            "SignalReceived",
            "WorkflowCompleted",
        ]


async def test_a_free_lock_is_taken_within_its_limit(open_engine: EngineOpener) -> None:
    async with open_engine([takes_a_free_lock]) as engine:
        handle = await engine.start(takes_a_free_lock)
        assert await handle.result(timeout=SOON) is True


async def test_a_carried_signal_is_there_within_its_limit(open_engine: EngineOpener) -> None:
    async with open_engine([takes_two_numbers_and_goes_on]) as engine:
        handle = await engine.start(takes_two_numbers_and_goes_on, 0, id="chain")
        await handle.pause()
        await handle.signal(number, 1)
        await handle.signal(number, 2)
        await handle.resume()
        assert await engine.handle("chain").result(timeout=SOON) == 1


async def test_the_limit_waits_for_the_clean_up_of_what_it_cancels(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine([reserves], [step], clock=clock) as engine:
        handle = await has_reserved(engine, reserves)
        clock.advance(HOUR)
        assert await handle.result(timeout=SOON) == "late"
        assert done == ["reserve", "release", "told that it is late"]
        replayed(await handle.history(), reserves)


async def test_cancelling_the_run_waits_for_the_clean_up_of_what_is_limited(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine([reserves], [step], clock=clock) as engine:
        handle = await has_reserved(engine, reserves)
        await handle.cancel("enough")
        await cancelled(handle)
        assert done == ["reserve", "release"]
        replayed(await handle.history(), reserves)


async def test_the_limit_waits_for_an_activity_whose_cancellation_is_to_be_waited_for(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine([stands], [step_that_stands], clock=clock) as engine:
        handle = await engine.start(stands)
        await until(lambda: done == ["begun"])
        clock.advance(HOUR)
        assert await handle.result(timeout=SOON) == "late"
        assert (await kinds(handle))[-2:] == ["ActivityCancelled", "WorkflowCompleted"]


async def test_an_error_of_the_clean_up_is_the_cause_of_the_timeout(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine([cleans_up_in_vain], clock=clock) as engine:
        handle = await engine.start(cleans_up_in_vain)
        clock.advance(HOUR)
        assert await handle.result(timeout=SOON) == "ValueError('the key is lost')"


async def with_timeout_as_it_was(ctx: Context, operation: Awaitable[T], limit: timedelta) -> T:
    """What `with_timeout` did before it waited for the clean-up of what it cancels."""
    runtime = ctx._runtime
    timer = ctx.start_timer("with_timeout-0", limit)
    work = asyncio.ensure_future(operation)
    waiting: set[asyncio.Future[Any]] = {work, timer}
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    assert not work.done()
    runtime.complete_with_timeout(TimerId("with_timeout-0"), operation_completed=False)
    work.cancel()
    raise TimeoutError


@workflow(name="reserves")
async def reserves_as_it_was(ctx: Context) -> str:
    try:
        await with_timeout_as_it_was(ctx, reserve_and_release(ctx), HOUR)
    except TimeoutError:
        await ctx.run(step, "told that it is late")
        return "late"
    return "in time"


async def test_a_history_from_before_the_clean_up_was_waited_for_is_replayed_as_it_was(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine([reserves_as_it_was], [step], clock=clock) as engine:
        handle = await has_reserved(engine, reserves_as_it_was)
        clock.advance(HOUR)
        assert await handle.result(timeout=SOON) == "late"
        assert sorted(done) == ["release", "reserve", "told that it is late"]
        history = await handle.history()
        scheduled = [e.event.input.data for e in history if isinstance(e.event, ActivityScheduled)]
        assert scheduled == ["reserve", "told that it is late", "release"]
        replayed(history, reserves)


async def test_that_the_clean_up_is_waited_for_is_recorded_once(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine([reserves], [step], clock=clock) as engine:
        handle = await has_reserved(engine, reserves)
        clock.advance(HOUR)
        await handle.result(timeout=SOON)
        assert await events_of(handle, MarkerRecorded) == [
            MarkerRecorded(kind="patch", name=WAITS_FOR_CLEAN_UP)
        ]

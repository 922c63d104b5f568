"""map, race, shield and on_signal: several things at once, the same in every replay."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from aion_es import (
    ActivityError,
    Context,
    EngineOptions,
    NonRetryableError,
    Signal,
    activity,
    workflow,
)
from aion_es.errors import WorkflowCancelledError, WorkflowFailedError
from aion_es.testing.clock import ManualClock
from tests.e2e.conftest import EngineOpener
from tests.e2e.scenario import SOON, is_recorded, kinds, until

number = Signal("number", int)
stop = Signal("stop")


class Gauge:
    """How many of its calls are under way, and how many ever were at once."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self.done: list[str] = []


gauge = Gauge()


@pytest.fixture(autouse=True)
def _fresh_gauge() -> None:
    gauge.__init__()  # type: ignore[misc]


@activity
async def double(value: int) -> int:
    gauge.now += 1
    gauge.most = max(gauge.most, gauge.now)
    await asyncio.sleep(0)
    gauge.now -= 1
    if value < 0:
        raise NonRetryableError(f"{value} is negative")
    return 2 * value


@activity
async def tidy(what: str) -> str:
    gauge.done.append(what)
    return what


@workflow
async def maps(ctx: Context, values: list[int]) -> list[int]:
    return await ctx.map(double, values, concurrency=3)


@workflow
async def maps_all(ctx: Context, values: list[int]) -> list[int]:
    return await ctx.map(double, values)


@workflow
async def settles(ctx: Context, values: list[int]) -> list[str]:
    outcomes = await ctx.map(double, values, concurrency=2, return_exceptions=True)
    return [o.message if isinstance(o, ActivityError) else str(o) for o in outcomes]


@workflow
async def badly(ctx: Context, concurrency: int) -> list[int]:
    return await ctx.map(double, [1], concurrency=concurrency)


@workflow
async def races(ctx: Context) -> str:
    async def tick(name: str, seconds: float) -> str:
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            await ctx.run(tidy, name)
            raise
        return name

    return await ctx.race(tick("slow", 20), tick("fast", 10), tick("slower", 30))


@workflow
async def shields(ctx: Context) -> str:
    try:
        async with asyncio.timeout(10):
            await ctx.shield(asyncio.sleep(60))
    except TimeoutError:
        return f"after {(ctx.now() - ctx.info.started_at).total_seconds():.0f} s"
    return "in time"


@workflow
async def sums(ctx: Context) -> int:
    total = 0

    async def add(value: int) -> None:
        nonlocal total
        total += await ctx.run(double, value)

    _ = ctx.on_signal(number, add)
    await ctx.receive(stop)
    return total


@workflow
async def counts(ctx: Context) -> list[int]:
    got: list[int] = []
    handling = ctx.on_signal(number, got.append)
    await ctx.receive(stop)
    handling.cancel()
    return got


@workflow
async def says_why(ctx: Context) -> str:
    before = (ctx.cancelled, ctx.cancel_reason)
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        await ctx.run(tidy, f"{before} {ctx.cancelled} {ctx.cancel_reason}")
        raise
    return ""


WORKFLOWS: list[Any] = [
    maps,
    maps_all,
    settles,
    badly,
    races,
    shields,
    sums,
    counts,
    says_why,
]
ACTIVITIES = [double, tidy]


@pytest.mark.parametrize("max_resident", [1, 10_000])
@pytest.mark.parametrize(("code", "most"), [(maps, 3), (maps_all, 40)])
async def test_map_gives_results_in_order_and_keeps_to_its_bound(
    open_engine: EngineOpener, max_resident: int, code: Any, most: int
) -> None:
    options = EngineOptions(max_resident=max_resident)
    async with open_engine(WORKFLOWS, ACTIVITIES, options=options) as engine:
        handle = await engine.start(code, list(range(40)))
        assert await handle.result(timeout=SOON) == [2 * n for n in range(40)]
        assert gauge.most <= most


async def test_map_of_nothing_is_nothing(open_engine: EngineOpener) -> None:
    async with open_engine(WORKFLOWS, ACTIVITIES) as engine:
        handle = await engine.start(maps, [])
        assert await handle.result(timeout=SOON) == []
        assert await kinds(handle) == ["WorkflowStarted", "WorkflowCompleted"]


async def test_the_first_failure_of_a_map_is_raised_and_nothing_more_is_scheduled(
    open_engine: EngineOpener,
) -> None:
    async with open_engine(WORKFLOWS, ACTIVITIES) as engine:
        handle = await engine.start(maps, [1, -2, *range(30)])
        with pytest.raises(WorkflowFailedError, match="-2 is negative"):
            await handle.result(timeout=SOON)
        assert (await kinds(handle)).count("ActivityScheduled") < 10


async def test_all_settled_gives_errors_in_their_places(open_engine: EngineOpener) -> None:
    async with open_engine(WORKFLOWS, ACTIVITIES) as engine:
        handle = await engine.start(settles, [1, -2, 3])
        assert await handle.result(timeout=SOON) == ["2", "-2 is negative", "6"]


async def test_a_bound_below_one_is_refused(open_engine: EngineOpener) -> None:
    async with open_engine(WORKFLOWS, ACTIVITIES) as engine:
        with pytest.raises(WorkflowFailedError, match="must be at least 1"):
            await (await engine.start(badly, 0)).result(timeout=SOON)


async def test_the_first_wins_a_race_and_the_others_clean_up(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine(WORKFLOWS, ACTIVITIES, clock=clock) as engine:
        handle = await engine.start(races)
        clock.advance(timedelta(seconds=11))
        assert await handle.result(timeout=SOON) == "fast"
        assert sorted(gauge.done) == ["slow", "slower"]


async def test_a_shielded_step_comes_to_its_end_before_the_timeout_counts(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine(WORKFLOWS, ACTIVITIES, clock=clock) as engine:
        handle = await engine.start(shields)
        clock.advance(timedelta(seconds=11))
        await until(lambda: is_recorded(handle, "TimerFired"))
        clock.advance(timedelta(seconds=60))
        assert await handle.result(timeout=SOON) == "after 71 s"


async def test_a_handler_takes_signals_one_after_the_other(open_engine: EngineOpener) -> None:
    async with open_engine(WORKFLOWS, ACTIVITIES) as engine:
        handle = await engine.start(sums)
        for value in (1, 2, 3):
            await handle.signal(number, value)
        await until(lambda: is_recorded(handle, "ActivityCompleted", 3))
        await handle.signal(stop)
        assert await handle.result(timeout=SOON) == 12
        assert gauge.most == 1


async def test_a_plain_function_handles_signals_too(open_engine: EngineOpener) -> None:
    async with open_engine(WORKFLOWS, ACTIVITIES) as engine:
        handle = await engine.start(counts)
        for value in (1, 2, 3):
            await handle.signal(number, value)
        await handle.signal(stop)
        assert await handle.result(timeout=SOON) == [1, 2, 3]


async def test_what_a_handler_raises_fails_the_run(open_engine: EngineOpener) -> None:
    async with open_engine(WORKFLOWS, ACTIVITIES) as engine:
        handle = await engine.start(sums)
        await handle.signal(number, -1)
        with pytest.raises(WorkflowFailedError, match="-1 is negative"):
            await handle.result(timeout=SOON)


async def test_the_code_is_told_why_it_is_to_end(open_engine: EngineOpener) -> None:
    async with open_engine(WORKFLOWS, ACTIVITIES) as engine:
        handle = await engine.start(says_why)
        await handle.cancel("too late")
        with pytest.raises(WorkflowCancelledError):
            await handle.result(timeout=SOON)
        assert gauge.done == ["(False, None) True too late"]

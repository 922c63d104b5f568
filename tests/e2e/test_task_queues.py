"""Task queues in engines: bounds, rates, order, and queues that another engine serves."""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from aion_es import (
    Context,
    Engine,
    EngineOptions,
    QueueOptions,
    RetryPolicy,
    Signal,
    activity,
    workflow,
)
from aion_es.app import OpeningEngine
from aion_es.events.workflow import ActivityScheduled, ActivityStarted
from aion_es.testing.clock import ManualClock
from tests.e2e.conftest import EngineOpener
from tests.e2e.scenario import SOON, events_of, is_recorded, kinds, until

ONCE = RetryPolicy(max_attempts=1)
AT_ONCE = RetryPolicy(initial_interval=timedelta(0))
NARROW = EngineOptions(queues={"narrow": QueueOptions(max_concurrent=2)})


class Work:
    """An activity that waits for its gate, and keeps count of how many run; a workflow that runs many."""

    def __init__(self, **options: Any) -> None:
        self.began: list[int] = []
        self.running = 0
        self.peak = 0
        self.cancelled = 0
        self.gate = asyncio.Event()

        @activity(name="works", **options)
        async def works(number: int) -> int:
            self.began.append(number)
            self.running += 1
            self.peak = max(self.peak, self.running)
            try:
                await self.gate.wait()
                await asyncio.sleep(0.001)
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            finally:
                self.running -= 1
            return number

        @workflow(name="many")
        async def many(ctx: Context, count: int) -> list[int]:
            return await asyncio.gather(*(ctx.run(works, number) for number in range(count)))

        self.activity, self.workflow = works, many


@pytest.mark.parametrize("retry", [RetryPolicy(), ONCE], ids=["unbounded", "bounded retries"])
async def test_a_full_queue_waits_in_order_and_drops_nothing(
    open_engine: EngineOpener, retry: RetryPolicy
) -> None:
    work = Work(task_queue="narrow", retry=retry)
    async with open_engine([work.workflow], [work.activity], options=NARROW) as engine:
        handle = await engine.start(work.workflow, 20)
        await until(lambda: work.began == [0, 1])
        work.gate.set()
        assert await handle.result(timeout=SOON) == list(range(20))
        assert (work.began, work.peak) == (list(range(20)), 2)


async def test_what_waits_in_a_full_queue_is_not_recorded_as_begun_and_is_not_lost_with_its_engine(
    open_engine: EngineOpener,
) -> None:
    work = Work(task_queue="narrow", retry=RetryPolicy(max_attempts=2, backoff=1.0))
    impatient = EngineOptions(queues=NARROW.queues, shutdown_grace=timedelta(0))
    async with open_engine([work.workflow], [work.activity], options=impatient) as engine:
        handle = await engine.start(work.workflow, 5, id="w")
        await until(lambda: len(work.began) == 2)
        assert len(await events_of(handle, ActivityStarted)) == 2
    work.gate.set()
    async with open_engine([work.workflow], [work.activity], options=NARROW) as engine:
        handle = engine.handle("w", work.workflow)
        assert await handle.result(timeout=SOON) == [0, 1, 2, 3, 4]
        lost = [e for e in await kinds(handle) if e == "ActivityFailed"]
        assert len(lost) == 2


async def test_an_attempt_that_may_be_the_last_is_recorded_before_its_code_runs_although_it_waited(
    open_engine: EngineOpener,
) -> None:
    first, second = asyncio.Event(), asyncio.Event()
    began: list[str] = []

    @activity(task_queue="narrow", retry=ONCE)
    async def waits_for(name: str) -> None:
        began.append(name)
        await {"first": first, "second": second}[name].wait()

    @workflow
    async def waits(ctx: Context, name: str) -> None:
        await ctx.run(waits_for, name)

    options = EngineOptions(queues={"narrow": QueueOptions(max_concurrent=1)})
    async with open_engine([waits], [waits_for], options=options) as engine:
        await engine.start(waits, "first")
        await until(lambda: began == ["first"])
        handle = await engine.start(waits, "second")
        assert await kinds(handle) == ["WorkflowStarted", "ActivityScheduled"]
        first.set()
        await until(lambda: began == ["first", "second"])
        assert (await kinds(handle))[2:] == ["ActivityStarted"]
        second.set()
        await handle.result(timeout=SOON)


async def test_a_place_that_was_kept_and_not_used_is_given_back(open_engine: EngineOpener) -> None:
    work = Work(task_queue="narrow", retry=ONCE)

    @workflow(name="hasty")
    async def hasty(ctx: Context) -> str:
        _ = [ctx.run(work.activity, number) for number in range(3)]
        return "gone before they began"

    async with open_engine([hasty, work.workflow], [work.activity], options=NARROW) as engine:
        await (await engine.start(hasty)).result(timeout=SOON)
        handle = await engine.start(work.workflow, 2)
        await until(lambda: work.peak == 2)
        work.gate.set()
        assert await handle.result(timeout=SOON) == [0, 1]


async def test_a_rate_holds_back_what_begins_too_soon(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    began_at: list[datetime] = []

    @activity(task_queue="slow")
    async def calls() -> None:
        began_at.append(clock.now())

    @workflow
    async def calls_often(ctx: Context) -> None:
        await asyncio.gather(*(ctx.run(calls) for _ in range(4)))

    options = EngineOptions(queues={"slow": QueueOptions(rate_per_second=2)})
    async with open_engine([calls_often], [calls], clock=clock, options=options) as engine:
        start = clock.now()
        handle = await engine.start(calls_often)
        for count in (1, 2, 3, 4):
            await until(lambda expected=count: len(began_at) == expected)
            clock.advance(timedelta(milliseconds=500))
        await handle.result(timeout=SOON)
        assert began_at == [start + timedelta(milliseconds=500) * n for n in range(4)]


async def test_a_pause_takes_what_waits_out_of_the_line_and_a_resumption_puts_it_back(
    open_engine: EngineOpener,
) -> None:
    work = Work(task_queue="narrow")
    async with open_engine([work.workflow], [work.activity], options=NARROW) as engine:
        handle = await engine.start(work.workflow, 4)
        await until(lambda: work.began == [0, 1])
        await handle.pause()
        work.gate.set()
        await until(lambda: is_recorded(handle, "ActivityCompleted", 2))
        assert work.began == [0, 1]
        await handle.resume()
        assert await handle.result(timeout=SOON) == [0, 1, 2, 3]


# ------------------------------------------------------------------------------ two engines


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'aion.db'}?durability=normal"


enough = Signal("enough")


class Gpu(Work):
    """Work on a queue that one of two engines serves, and the workflow's own small step."""

    def __init__(self, **options: Any) -> None:
        super().__init__(task_queue="gpu", **options)

        @activity(name="notes")
        async def notes(numbers: list[int]) -> int:
            return sum(numbers)

        @workflow(name="renders")
        async def renders(ctx: Context, count: int) -> int:
            frames = [ctx.run(self.activity, number) for number in range(count)]
            return await ctx.run(notes, await asyncio.gather(*frames))

        @workflow(name="gives up")
        async def gives_up(ctx: Context, number: int) -> str:
            frame = ctx.run(self.activity, number, cancellation="wait")
            await ctx.receive(enough)
            frame.cancel()
            try:
                await frame
            except asyncio.CancelledError:
                return "given up"
            return "rendered"

        self.notes, self.renders, self.gives_up = notes, renders, gives_up

    def drives(self, url: str, **options: Any) -> OpeningEngine:
        """Open an engine that runs everything but the queue."""
        return Engine.open(
            url,
            workflows=[self.renders, self.gives_up],
            activities=[self.activity, self.notes],
            options=EngineOptions(serves=frozenset({"default"}), **options),
        )

    def serves(self, url: str, **options: Any) -> OpeningEngine:
        """Open an engine that runs the queue, and knows no workflow."""
        return Engine.open(
            url,
            activities=[self.activity],
            options=EngineOptions(serves=frozenset({"gpu"}), **options),
        )


async def test_an_activity_of_a_queue_that_is_not_served_here_runs_in_the_engine_that_serves_it(
    url: str,
) -> None:
    gpu = Gpu()
    gpu.gate.set()
    async with gpu.drives(url) as here, gpu.serves(url) as there:
        handle = await here.start(gpu.renders, 3)
        assert await handle.result(timeout=SOON) == 3
        assert (here.activities_executed, there.activities_executed) == (1, 3)
        scheduled = await events_of(handle, ActivityScheduled)
        assert [(e.task_queue, e.offered) for e in scheduled] == [("gpu", True)] * 3 + [
            ("default", False)
        ]
        started = await events_of(handle, ActivityStarted)
        assert [e.worker for e in started] == [there._core.worker] * 3 + [here._core.worker]


async def test_an_engine_that_opens_later_takes_what_was_left_for_it_at_once(url: str) -> None:
    gpu = Gpu(retry=ONCE)
    gpu.gate.set()
    async with gpu.drives(url) as here:
        handle = await here.start(gpu.renders, 2)
        await until(lambda: is_recorded(handle, "ActivityScheduled", 2))
        assert gpu.began == []
        async with gpu.serves(url):
            assert await handle.result(timeout=timedelta(seconds=5)) == 1


async def test_an_engine_that_runs_only_activities_reports_no_run_as_stuck_or_orphaned(
    url: str,
) -> None:
    gpu = Gpu()
    async with gpu.drives(url) as here:
        handle = await here.start(gpu.renders, 1, id="w")
        await until(lambda: is_recorded(handle, "ActivityScheduled"))
        async with gpu.serves(url) as there:
            await there.wait_recovered(SOON)
            await until(lambda: gpu.began == [0])
            assert there.orphaned == ()
            gpu.gate.set()
            assert await handle.result(timeout=SOON) == 0
            assert there._core.find(handle.workflow_id) is None
            shown = [run async for run in there.visibility.list("WorkflowId = 'w'")]
            assert [run.stuck_reason for run in shown] == [None]


async def test_a_run_that_its_engine_lost_the_code_of_is_still_reported_there(url: str) -> None:
    gpu = Gpu()
    async with gpu.drives(url) as here:
        await here.start(gpu.renders, 1, id="w")
    options = EngineOptions(serves=frozenset({"default"}))
    async with Engine.open(url, activities=[gpu.activity], options=options) as here:
        await here.wait_recovered(SOON)
        assert [error.workflow_type for error in here.orphaned] == ["renders"]


async def test_a_cancellation_reaches_the_engine_that_runs_the_activity(url: str) -> None:
    gpu = Gpu()
    async with gpu.drives(url) as here, gpu.serves(url):
        handle = await here.start(gpu.gives_up, 7)
        await until(lambda: gpu.began == [7])
        await handle.signal(enough)
        assert await handle.result(timeout=SOON) == "given up"
        assert gpu.cancelled == 1


async def test_a_retry_is_the_serving_engines_too(url: str) -> None:
    attempts: list[int] = []

    @activity(task_queue="gpu", retry=AT_ONCE)
    async def flickers() -> int:
        attempts.append(activity.info().attempt)
        if len(attempts) < 3:
            raise ConnectionError("flicker")
        return len(attempts)

    @workflow
    async def watches(ctx: Context) -> int:
        return await ctx.run(flickers)

    def opened(*queues: str, workflows: Any = ()) -> OpeningEngine:
        options = EngineOptions(serves=frozenset(queues))
        return Engine.open(url, workflows=workflows, activities=[flickers], options=options)

    async with opened("default", workflows=[watches]) as here, opened("gpu") as there:
        handle = await here.start(watches)
        assert await handle.result(timeout=SOON) == 3, attempts
        assert (here.activities_executed, there.activities_executed) == (0, 3)


async def test_two_engines_on_one_queue_run_each_activity_once(url: str) -> None:
    gpu = Gpu()
    gpu.gate.set()
    async with gpu.drives(url) as here, gpu.serves(url) as one, gpu.serves(url) as other:
        handle = await here.start(gpu.renders, 20)
        assert await handle.result(timeout=SOON) == sum(range(20))
        assert sorted(gpu.began) == list(range(20))
        assert one.activities_executed + other.activities_executed == 20


async def test_a_run_of_a_queue_that_is_not_served_here_is_driven_by_the_engine_that_serves_it(
    url: str,
) -> None:
    driven: list[str] = []

    def opened(name: str, queue: str) -> OpeningEngine:
        @workflow(name="reports", task_queue="reports")
        async def reports(ctx: Context) -> str:
            driven.append(name)
            return name

        options = EngineOptions(serves=frozenset({queue}))
        return Engine.open(url, workflows=[reports], options=options)

    async with opened("here", "default") as here, opened("there", "reports"):
        start: Callable[..., Any] = here.start
        handle = await start("reports")
        assert await handle.result(timeout=SOON) == "there"
        assert driven == ["there"]

"""What an activity's place, an attempt or a stuck run is held by is let go of when that is gone."""

import asyncio
from datetime import timedelta

import pytest

from aion_es import Context, EngineOptions, RetryPolicy, Signal, activity, workflow
from aion_es.aggregates.lifecycle import StartWorkflow
from aion_es.errors import StoreUnavailableError
from aion_es.ids import RunId, WorkflowId
from tests.e2e.conftest import EngineOpener
from tests.e2e.scenario import SOON, until

go = Signal("go")
ended: list[str] = []
began: list[int] = []


@pytest.fixture(autouse=True)
def _nothing_yet() -> None:
    ended.clear()
    began.clear()


@activity(retry=RetryPolicy(max_attempts=3, initial_interval=timedelta(0)))
async def once() -> str:
    return "ran"


@activity(start_to_close=timedelta(days=365_000), heartbeat=timedelta(days=365_000))
async def unbounded() -> str:
    return "ran"


@activity
async def endless() -> None:
    ended.append("began")
    try:
        await asyncio.Event().wait()
    finally:
        ended.append("stopped")


@activity(retry=RetryPolicy(max_attempts=2, initial_interval=timedelta(0)))
async def fails_first() -> None:
    began.append(activity.info().attempt)
    if len(began) == 1:
        raise ValueError("again")
    await asyncio.Event().wait()


@workflow
async def runs_once(ctx: Context) -> str:
    return await ctx.run(once)


@workflow
async def runs_unbounded(ctx: Context) -> str:
    return await ctx.run(unbounded)


@workflow
async def runs_endless(ctx: Context) -> None:
    await ctx.run(endless)


@workflow
async def runs_failing(ctx: Context) -> None:
    await ctx.run(fails_first)


@workflow
async def waits(ctx: Context) -> str:
    await ctx.receive(go)
    return "went"


async def test_a_start_that_could_not_be_recorded_keeps_no_place_of_its_activities(
    open_engine: EngineOpener,
) -> None:
    options = EngineOptions(max_activities=1, store_patience=timedelta(milliseconds=20))
    async with open_engine([runs_once], [once], options=options) as engine:
        open_engine.store.fail()
        with pytest.raises(StoreUnavailableError):
            await engine.start(runs_once)
        open_engine.store.heal()
        assert await (await engine.start(runs_once)).result(timeout=SOON) == "ran"


async def test_the_activities_of_a_run_that_is_replaced_are_stopped(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([runs_endless, waits], [endless]) as engine:
        await engine.start(runs_endless, id="w")
        await until(lambda: ended == ["began"])
        await engine.start(waits, id="w", on_conflict="terminate_existing")
        await until(lambda: ended == ["began", "stopped"])


async def test_a_run_that_replaces_another_and_is_stuck_at_once_says_so_and_goes_on_with_its_code(
    open_engine: EngineOpener,
) -> None:
    late = workflow(name="waits", version="9")(_later)
    async with open_engine([waits]) as engine:
        await engine.start(waits, id="w")
        command = StartWorkflow(
            workflow_type="waits",
            package_version="9",
            run_id=RunId("second"),
            on_conflict="terminate_existing",
        )
        await engine.gateway.request(
            WorkflowId("w"), lambda w, at: w.start(command, at=at), starts=True
        )
        handle = engine.handle("w", late)
        assert "version '9'" in ((await handle.describe()).stuck_reason or "")
        engine.catalog.register_workflow(late)
        await handle.signal(go)
        assert await handle.result(timeout=SOON) == "went later"


async def _later(ctx: Context) -> str:
    await ctx.receive(go)
    return "went later"


async def test_a_bound_past_all_time_is_none(open_engine: EngineOpener) -> None:
    async with open_engine([runs_unbounded], [unbounded]) as engine:
        assert await (await engine.start(runs_unbounded)).result(timeout=SOON) == "ran"


async def test_an_attempt_whose_beginning_is_recorded_after_the_grace_does_not_begin(
    open_engine: EngineOpener,
) -> None:
    options = EngineOptions(shutdown_grace=timedelta(0))
    store = open_engine.store
    async with open_engine([runs_failing], [fails_first], options=options) as engine:
        record = store.calls + 3  # behind the start and the failure: the second attempt's beginning
        store.hang(record)
        await engine.start(runs_failing, id="w")
        await until(lambda: store.calls >= record)
        healing = asyncio.get_running_loop().call_later(0.1, store.heal)
    healing.cancel()
    assert began == [1]

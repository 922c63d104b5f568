"""Handles: results for any number who wait, registry, describe, history, and starting under a taken id."""

import asyncio
from datetime import timedelta

import pytest

from aion_es import Context, SearchAttribute, Signal, activity, workflow
from aion_es.errors import (
    EngineClosedError,
    RunNotFoundError,
    WaitTimeoutError,
    WorkflowAlreadyStartedError,
    WorkflowFailedError,
    WorkflowNotFoundError,
    WorkflowTerminatedError,
)
from aion_es.testing.clock import ManualClock
from tests.e2e.conftest import EngineOpener, resident
from tests.e2e.scenario import SOON, kinds, stored, stream_of, until

go = Signal("go")
customer = SearchAttribute("customer", str)


@activity
async def endless() -> None:
    await asyncio.sleep(3_600)


@workflow
async def waits(ctx: Context) -> str:
    await ctx.receive(go)
    return "done"


@workflow
async def returns(ctx: Context, value: int) -> int:
    return value


@workflow
async def fails(ctx: Context) -> None:
    raise ValueError("bad")


@workflow
async def busy(ctx: Context) -> None:
    napping = asyncio.ensure_future(asyncio.sleep(60))
    await ctx.run(endless)
    napping.cancel()


async def test_any_number_may_wait_for_one_result(open_engine: EngineOpener) -> None:
    async with open_engine([waits]) as engine:
        handle = await engine.start(waits, id="w")
        others = [engine.handle("w", waits) for _ in range(50)]
        waiting = [asyncio.ensure_future(h.result(timeout=SOON)) for h in [handle, *others] * 2]
        await asyncio.sleep(0)
        await handle.signal(go)
        assert await asyncio.gather(*waiting) == ["done"] * 102


async def test_one_who_stops_waiting_does_not_disturb_the_others(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([waits]) as engine:
        handle = await engine.start(waits)
        leaves = asyncio.ensure_future(handle.result())
        stays = asyncio.ensure_future(handle.result())
        await asyncio.sleep(0)
        leaves.cancel()
        await handle.signal(go)
        assert await asyncio.wait_for(stays, 5) == "done"
        assert leaves.cancelled()


async def test_a_result_can_be_asked_for_after_the_run_closed_and_by_the_next_engine(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([returns]) as engine:
        handle = await engine.start(returns, 7, id="w")
        await handle.result(timeout=SOON)
        assert await handle.result(timeout=SOON) == 7
        assert await engine.handle("w", returns).result(timeout=SOON) == 7
    async with open_engine([returns]) as engine:
        assert await engine.handle("w").result(timeout=SOON) == 7


async def test_waiting_longer_than_allowed_is_told_and_the_run_goes_on(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([waits]) as engine:
        handle = await engine.start(waits, id="w")
        with pytest.raises(WaitTimeoutError) as caught:
            await handle.result(timeout=timedelta(milliseconds=20))
        assert isinstance(caught.value, TimeoutError)
        assert str(caught.value) == "result of workflow 'w': not within 0.02 s"
        await handle.signal(go)
        assert await handle.result(timeout=SOON) == "done"


async def test_a_result_of_an_unknown_workflow_or_run_is_refused(open_engine: EngineOpener) -> None:
    async with open_engine([waits]) as engine:
        with pytest.raises(WorkflowNotFoundError):
            await engine.handle("nobody").result(timeout=SOON)
        await engine.start(waits, id="w")
        with pytest.raises(RunNotFoundError):
            await engine.handle("w", run_id="no-such-run").result(timeout=SOON)


async def test_a_handle_of_an_old_run_keeps_its_result_and_its_history(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([returns]) as engine:
        old = await engine.start(returns, 1, id="w")
        await old.result(timeout=SOON)
        new = await engine.start(returns, 2, id="w")
        await new.result(timeout=SOON)
        assert await engine.handle("w", run_id=old.run_id).result(timeout=SOON) == 1
        assert await engine.handle("w").result(timeout=SOON) == 2
        assert [e.run_id for e in await old.history()] == [old.run_id] * 2
        assert await stream_of(engine, "w") == ["WorkflowStarted", "WorkflowCompleted"] * 2


@resident
async def test_the_registry_holds_open_runs_only(open_engine: EngineOpener) -> None:
    async with open_engine([waits, fails]) as engine:
        first, second = await engine.start(waits, id="a"), await engine.start(waits, id="b")
        assert [(r.workflow_id, r.status, r.residency) for r in engine.registry] == [
            ("a", "Running", "resident"),
            ("b", "Running", "resident"),
        ]
        await first.signal(go)
        await first.result(timeout=SOON)
        assert [r.run_id for r in engine.registry] == [second.run_id]
        failed = await engine.start(fails)
        with pytest.raises(WorkflowFailedError):
            await failed.result(timeout=SOON)
        assert len(engine.registry) == 1


async def test_describe_tells_what_a_run_waits_for(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine([busy], [endless], search_attributes=[customer], clock=clock) as engine:
        handle = await engine.start(busy, id="w", attributes={customer: "ana"})
        shown = await handle.describe()
        assert (shown.workflow_id, shown.run_id, shown.first_run_id) == (
            "w",
            handle.run_id,
            handle.run_id,
        )
        assert (shown.workflow_type, shown.version, shown.status) == ("busy", "1", "Running")
        assert shown.started_at == clock.now()
        assert shown.attributes == {"customer": "ana"}
        assert shown.pending_activities == {0: "endless"}
        assert shown.live_timers == {"0": clock.now() + timedelta(seconds=60)}
        assert (shown.cancel_requested, shown.stuck_reason, shown.history_length) == (
            False,
            None,
            3,
        )
        await handle.terminate()


async def test_describe_and_history_of_an_unknown_workflow_are_refused(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([waits]) as engine:
        with pytest.raises(WorkflowNotFoundError):
            await engine.handle("nobody").describe()
        with pytest.raises(WorkflowNotFoundError):
            await engine.handle("nobody").history()


async def test_an_id_that_is_open_is_taken_and_the_error_names_its_run(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([waits]) as engine:
        first = await engine.start(waits, id="w")
        with pytest.raises(WorkflowAlreadyStartedError) as caught:
            await engine.start(waits, id="w")
        assert (caught.value.run_id, caught.value.status) == (first.run_id, "Running")
        assert await stored(engine) == 1


async def test_an_id_that_is_open_may_be_used_or_taken_over(open_engine: EngineOpener) -> None:
    async with open_engine([waits]) as engine:
        first = await engine.start(waits, id="w")
        used = await engine.start(waits, id="w", on_conflict="use_existing")
        assert used.run_id == first.run_id
        taken = await engine.start(waits, id="w", on_conflict="terminate_existing")
        assert taken.run_id != first.run_id
        with pytest.raises(WorkflowTerminatedError):
            await first.result(timeout=SOON)
        assert await stream_of(engine, "w") == [
            "WorkflowStarted",
            "WorkflowTerminated",
            "WorkflowStarted",
        ]
        await engine.handle("w").signal(go)
        assert await taken.result(timeout=SOON) == "done"


async def test_the_same_request_gives_the_run_that_it_started(open_engine: EngineOpener) -> None:
    async with open_engine([waits]) as engine:
        first = await engine.start(waits, id="w", request_id="r")
        again = await engine.start(waits, id="w", request_id="r")
        assert again.run_id == first.run_id
        assert await kinds(first) == ["WorkflowStarted"]


async def test_a_closed_id_is_reused_as_the_policy_says(open_engine: EngineOpener) -> None:
    async with open_engine([returns, fails]) as engine:
        first = await engine.start(returns, 1, id="w")
        await first.result(timeout=SOON)
        for reuse in ("reject", "allow_if_failed"):
            with pytest.raises(WorkflowAlreadyStartedError) as caught:
                await engine.start(returns, 2, id="w", reuse=reuse)
            assert (caught.value.run_id, caught.value.status) == (first.run_id, "Completed")
        assert await stored(engine) == 2
        await (await engine.start(returns, 2, id="w")).result(timeout=SOON)
        failed = await engine.start(fails, id="f")
        with pytest.raises(WorkflowFailedError):
            await failed.result(timeout=SOON)
        with pytest.raises(WorkflowFailedError):
            await (await engine.start(fails, id="f", reuse="allow_if_failed")).result()


async def test_a_hundred_starts_of_one_id_start_one_run(open_engine: EngineOpener) -> None:
    async with open_engine([waits]) as engine:
        outcomes = await asyncio.gather(
            *(engine.start(waits, id="w") for _ in range(100)), return_exceptions=True
        )
        refused = [o for o in outcomes if isinstance(o, WorkflowAlreadyStartedError)]
        assert len(refused) == 99
        assert await stream_of(engine, "w") == ["WorkflowStarted"]


async def test_an_engine_that_was_left_takes_no_more_commands(open_engine: EngineOpener) -> None:
    async with open_engine([waits]) as engine:
        handle = await engine.start(waits)
    with pytest.raises(EngineClosedError):
        await handle.signal(go)
    with pytest.raises(EngineClosedError):
        await engine.start(waits)


async def test_leaving_the_engine_suspends_open_runs_without_recording_anything(
    open_engine: EngineOpener,
) -> None:
    cleaned: list[str] = []

    @workflow
    async def tidy(ctx: Context) -> None:
        try:
            await ctx.receive(go)
        finally:
            cleaned.append("finally")

    async with open_engine([tidy]) as engine:
        await engine.start(tidy, id="w")
    async with open_engine([tidy]) as engine:
        assert await stream_of(engine, "w") == ["WorkflowStarted"]
        await engine.handle("w").signal(go)
        await engine.handle("w").result(timeout=SOON)
    assert cleaned == ["finally"] * 2  # once when it was taken out of memory, once for good


async def test_search_attributes_set_from_code_and_outside_are_found_by_a_list(
    open_engine: EngineOpener,
) -> None:
    @workflow
    async def sets(ctx: Context) -> None:
        ctx.set_attributes({customer: "bob"})
        await ctx.receive(go)

    async with open_engine([sets], search_attributes=[customer]) as engine:
        handle = await engine.start(sets, id="w", attributes={customer: "ana"})
        assert (await handle.describe()).attributes == {"customer": "bob"}
        await handle.set_attributes({customer: "eve"})

        async def found() -> bool:
            rows = [r async for r in engine.visibility.list("customer = 'eve'")]
            return [row.workflow_id for row in rows] == ["w"]

        await until(found)
        position = handle.last_position
        rows = [r async for r in engine.visibility.list("customer = 'eve'", at_least=position)]
        assert [row.workflow_id for row in rows] == ["w"]
        assert await kinds(handle) == [
            "WorkflowStarted",
            "SearchAttributesUpdated",
            "SearchAttributesUpdated",
        ]

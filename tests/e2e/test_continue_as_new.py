"""Continue-as-new through the engine, point by point as the design numbers them, from each door."""

import asyncio
from datetime import timedelta
from typing import Any, cast

import pytest

from aion_es import Context, Query, SearchAttribute, Signal, activity, workflow
from aion_es.engine.follower import Follower
from aion_es.engine.registry import Completion
from aion_es.errors import (
    ContinueAsNewError,
    InvalidArgumentError,
    PayloadError,
    PendingWorkError,
    RunClosedError,
    RunNotFoundError,
    WorkflowFailedError,
    WorkflowNotFoundError,
    WorkflowTypeNotFoundError,
)
from aion_es.events.workflow import WorkflowContinuedAsNew, WorkflowStarted
from aion_es.ids import WorkflowId
from aion_es.payload import NOTHING
from aion_es.store.port import RecordedEvent
from aion_es.testing.clock import ManualClock
from tests.e2e.conftest import EngineOpener, resident
from tests.e2e.scenario import SOON, is_recorded, kinds, stored, stream_of, until

go = Signal("go")
value = Signal("value", int)
page = Query("page", int)
customer = SearchAttribute("customer", str)
PAIR = ["WorkflowStarted", "WorkflowContinuedAsNew", "WorkflowStarted"]


@activity
async def echo(number: int) -> int:
    return number


@activity
async def endless() -> None:
    await asyncio.sleep(3_600)


@workflow
async def waits(ctx: Context, number: int) -> int:
    ctx.answer(page, lambda: number)
    await ctx.receive(go)
    return number


@workflow
async def counts(ctx: Context, number: int) -> int:
    if number == 3:
        return number
    return ctx.continue_as_new(number + 1)


@workflow
async def counts_with_work(ctx: Context, number: int) -> int:
    number = await ctx.run(echo, number)
    if number == 3:
        return number
    return ctx.continue_as_new(number + 1)


@workflow
async def stubborn(ctx: Context, number: int) -> str:
    """Try to continue with an activity pending; say what happened, then do it properly."""
    if number:
        return f"run {number}"
    pending = ctx.run(endless, cancellation="wait")
    try:
        return ctx.continue_as_new(1)
    except PendingWorkError as error:
        refusal = str(error)
    await ctx.receive(go)
    pending.cancel()
    await asyncio.wait({pending})
    assert "1 pending activity (0)" in refusal
    return ctx.continue_as_new(1)


# ---- point 1


async def test_1_an_unknown_workflow_cannot_continue(open_engine: EngineOpener) -> None:
    async with open_engine([waits]) as engine:
        with pytest.raises(WorkflowNotFoundError):
            await engine.handle("nobody", waits).continue_as_new(1)
        assert await stored(engine) == 0


async def test_1_an_unknown_run_cannot_continue(open_engine: EngineOpener) -> None:
    async with open_engine([waits]) as engine:
        await engine.start(waits, 0, id="w")
        with pytest.raises(RunNotFoundError):
            await engine.handle("w", waits, run_id="01a20bf8-6ef1-76b4").continue_as_new(1)
        assert await stored(engine) == 1


async def test_1_a_run_that_was_succeeded_cannot_continue_again(open_engine: EngineOpener) -> None:
    async with open_engine([waits]) as engine:
        first = await engine.start(waits, 0, id="w")
        assert first.run_id is not None
        await first.continue_as_new(1)
        with pytest.raises((RunNotFoundError, RunClosedError)):
            await engine.handle("w", waits, run_id=first.run_id).continue_as_new(2)
        assert await stream_of(engine, "w") == PAIR


# ---- point 2


async def test_2_the_type_of_a_chain_never_changes(open_engine: EngineOpener) -> None:
    async with open_engine([waits]) as engine:
        handle = await engine.start(waits, 0, id="w")
        with pytest.raises(ContinueAsNewError) as caught:
            await engine.gateway.request(
                handle.workflow_id,
                lambda workflow, at: workflow.continue_as_new(
                    NOTHING, workflow_type="counts", package_version="1", at=at
                ),
            )
        assert caught.value.reason == (
            "must restart the same workflow type: current=waits, requested=counts"
        )
        assert await stored(engine) == 1


# ---- point 3


async def test_3_a_type_that_is_not_routed_cannot_continue(open_engine: EngineOpener) -> None:
    async with open_engine([waits]) as engine:
        await engine.start(waits, 0, id="w")
    async with open_engine([counts]) as engine:
        with pytest.raises(WorkflowTypeNotFoundError) as caught:
            await engine.handle("w").continue_as_new(1)
        assert caught.value.workflow_type == "waits"
        assert await stored(engine) == 1


# ---- point 4


async def test_4_a_closed_run_refuses_and_records_no_second_terminal(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([waits]) as engine:
        handle = await engine.start(waits, 0, id="w")
        await handle.signal(go)
        await handle.result(timeout=SOON)
        before = await stream_of(engine, "w")
        with pytest.raises(RunClosedError, match="already recorded a terminal event"):
            await handle.continue_as_new(1)
        assert await stream_of(engine, "w") == before


# ---- point 5


async def test_5_pending_work_refuses_the_operator_and_the_run_goes_on(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([stubborn], [endless]) as engine:
        handle = await engine.start(stubborn, 0, id="w")
        with pytest.raises(PendingWorkError) as caught:
            await handle.continue_as_new(1)
        assert (caught.value.activities, caught.value.children) == ((0,), ())
        assert await kinds(handle) == ["WorkflowStarted", "ActivityScheduled"]
        known = engine.registry.newest(handle.workflow_id)
        assert known is not None
        assert (known.run_id, known.status) == (handle.run_id, "Running")
        await handle.terminate()


async def test_5_pending_work_is_refused_in_the_code_which_may_catch_it(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([stubborn], [endless]) as engine:
        handle = await engine.start(stubborn, 0, id="w")
        await handle.signal(go)
        assert await handle.result(timeout=SOON) == "run 1"
        assert await stream_of(engine, "w") == [
            "WorkflowStarted",
            "ActivityScheduled",
            "SignalReceived",
            "ActivityCancelRequested",
            "ActivityCancelled",
            "WorkflowContinuedAsNew",
            "WorkflowStarted",
            "WorkflowCompleted",
        ]


async def test_5_pending_work_that_the_code_does_not_catch_fails_the_run(
    open_engine: EngineOpener,
) -> None:
    @workflow
    async def careless(ctx: Context) -> None:
        unawaited = ctx.run(endless)
        assert not unawaited.done()
        ctx.continue_as_new()

    async with open_engine([careless], [endless]) as engine:
        handle = await engine.start(careless)
        with pytest.raises(WorkflowFailedError) as caught:
            await handle.result(timeout=SOON)
        assert caught.value.type == "PendingWorkError"
        assert "WorkflowContinuedAsNew" not in await kinds(handle)


# ---- point 6


async def test_a_pause_ends_with_the_run_that_an_operator_continues_as_new(
    open_engine: EngineOpener,
) -> None:
    @workflow
    async def waits(ctx: Context, number: int) -> int:
        if not number:
            await ctx.sleep(3600)
        return number

    async with open_engine([waits]) as engine:
        handle = await engine.start(waits, 0)
        await handle.pause()
        await handle.continue_as_new(7)
        assert await handle.result(timeout=SOON) == 7


async def test_6_the_operators_door_appends_both_events_at_once(open_engine: EngineOpener) -> None:
    async with open_engine([waits]) as engine:
        handle = await engine.start(waits, 0, id="w")
        new_run = await handle.continue_as_new(1)
        assert await stream_of(engine, "w") == PAIR
        assert open_engine.store.committed[1].types == (
            "WorkflowContinuedAsNew",
            "WorkflowStarted",
        )
        old = (await handle.history())[-1].event
        new = (await engine.handle("w", run_id=new_run).history())[0].event
        assert isinstance(old, WorkflowContinuedAsNew)
        assert isinstance(new, WorkflowStarted)
        assert (old.input.data, old.workflow_type, old.parent_run_id, old.new_run_id) == (
            1,
            "waits",
            handle.run_id,
            new_run,
        )
        assert (new.input.data, new.workflow_type, new.run_id) == (1, "waits", new_run)
        assert (new.parent_run_id, new.first_run_id) == (handle.run_id, handle.run_id)
        assert new.package_version == "1"


async def test_6_the_codes_door_appends_both_events_at_once(open_engine: EngineOpener) -> None:
    @workflow
    async def twice(ctx: Context, number: int) -> int:
        if number:
            await ctx.receive(go)
            return number
        return ctx.continue_as_new(1)

    async with open_engine([twice]) as engine:
        first = await engine.start(twice, 0, id="w")
        handle = engine.handle("w", twice)
        assert await stream_of(engine, "w") == PAIR
        assert open_engine.store.committed[0].types == (
            "WorkflowStarted",
            "WorkflowContinuedAsNew",
            "WorkflowStarted",
        )
        await handle.signal(go)
        assert await first.result(timeout=SOON) == 1


async def test_6_the_successor_takes_the_version_that_is_routed_now(
    open_engine: EngineOpener,
) -> None:
    @workflow(name="versioned", version="1")
    async def old(ctx: Context, number: int) -> str:
        await ctx.receive(go)
        return ctx.continue_as_new(number + 1)

    @workflow(name="versioned", version="2")
    async def new(ctx: Context, number: int) -> str:
        return f"new code, run {number}"

    async with open_engine([old]) as engine:
        await engine.start(old, 0, id="w")
    async with open_engine([old, new]) as engine:
        handle = engine.handle("w", old)
        assert (await handle.describe()).version == "1"
        await handle.signal(go)
        assert await handle.result(timeout=SOON) == "new code, run 1"
        assert (await handle.describe()).version == "2"


# ---- point 7


async def test_7_search_attributes_go_on_into_the_new_run(open_engine: EngineOpener) -> None:
    async with open_engine([waits], search_attributes=[customer]) as engine:
        handle = await engine.start(waits, 0, id="w", attributes={customer: "ana"})
        await handle.continue_as_new(1)
        assert await stream_of(engine, "w") == PAIR
        description = await handle.describe()
        assert (description.attributes, description.run_id != handle.run_id) == (
            {"customer": "ana"},
            True,
        )


async def test_7_unread_signals_go_on_into_the_new_run(open_engine: EngineOpener) -> None:
    @workflow
    async def reads_in_the_second_run(ctx: Context, number: int) -> list[int]:
        if number == 0:
            await ctx.receive(go)
            return ctx.continue_as_new(1)
        return [await ctx.receive(value) for _ in range(2)]

    async with open_engine([reads_in_the_second_run]) as engine:
        handle = await engine.start(reads_in_the_second_run, 0, id="w")
        anyone = engine.handle("w")
        await anyone.signal(value, 1)
        await anyone.signal(go)
        await anyone.signal(value, 2)
        assert await handle.result(timeout=SOON) == [1, 2]


# ---- point 8


async def test_8_who_waits_for_the_old_run_is_told_that_it_continued(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([waits]) as engine:
        first = await engine.start(waits, 0, id="w")
        waiting = asyncio.ensure_future(first.result(follow=False))
        await asyncio.sleep(0)
        new_run = await first.continue_as_new(5)
        with pytest.raises(WorkflowFailedError) as caught:
            await asyncio.wait_for(waiting, 5)
        assert (caught.value.type, caught.value.message, caught.value.details) == (
            "ContinuedAsNew",
            f"went on as run {new_run}",
            5,
        )


async def test_8_the_registry_holds_the_new_run_only(open_engine: EngineOpener) -> None:
    async with open_engine([waits]) as engine:
        first = await engine.start(waits, 0, id="w")
        new_run = await first.continue_as_new(1)
        assert [(r.workflow_id, r.run_id, r.status, r.version) for r in engine.registry] == [
            ("w", new_run, "Running", "1")
        ]
        assert await engine.handle("w", waits).query(page) == 1


async def test_8_a_result_follows_the_chain_to_its_end(open_engine: EngineOpener) -> None:
    async with open_engine([counts]) as engine:
        handle = await engine.start(counts, 0, id="w")
        assert await handle.result(timeout=SOON) == 3
        assert (await stream_of(engine, "w")).count("WorkflowStarted") == 4
        assert list(engine.registry) == []


async def test_8_a_result_that_is_asked_for_later_follows_the_chain_too(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([counts]) as engine:
        first = await engine.start(counts, 0, id="w")
        await first.result(timeout=SOON)
    async with open_engine([counts]) as engine:
        later = engine.handle("w", counts, run_id=first.run_id)
        assert await later.result(timeout=SOON) == 3


async def test_8_a_chain_with_work_in_each_run_keeps_each_history_apart(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([counts_with_work], [echo]) as engine:
        first = await engine.start(counts_with_work, 0, id="w")
        assert await first.result(timeout=SOON) == 3
        assert await kinds(first) == [
            "WorkflowStarted",
            "ActivityScheduled",
            "ActivityStarted",
            "ActivityCompleted",
            "WorkflowContinuedAsNew",
        ]
        assert await kinds(engine.handle("w")) == [
            "WorkflowStarted",
            "ActivityScheduled",
            "ActivityStarted",
            "ActivityCompleted",
            "WorkflowCompleted",
        ]


# ---- point 9


async def test_9_an_input_of_the_wrong_type_is_refused_at_the_operators_door(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([waits]) as engine:
        handle = await engine.start(waits, 0, id="w")
        with pytest.raises(PayloadError):
            await handle.continue_as_new("one")
        assert await stored(engine) == 1


async def test_9_an_input_of_the_wrong_type_is_refused_in_the_code(
    open_engine: EngineOpener,
) -> None:
    @workflow
    async def mistyped(ctx: Context, number: int) -> str:
        try:
            return ctx.continue_as_new(cast("Any", "one"))
        except PayloadError as error:
            return error.what

    async with open_engine([mistyped]) as engine:
        handle = await engine.start(mistyped, 0)
        assert await handle.result(timeout=SOON) == "input of workflow '" + (
            mistyped.__qualname__ + "'"
        )
        assert await kinds(handle) == ["WorkflowStarted", "WorkflowCompleted"]


async def test_9_live_timers_do_not_keep_a_run_from_continuing(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    @workflow
    async def naps(ctx: Context, number: int) -> int:
        if number:
            await asyncio.sleep(60)
            return number
        napping = asyncio.ensure_future(asyncio.sleep(3_600))
        await ctx.receive(go)
        assert not napping.done()
        return ctx.continue_as_new(1)

    async with open_engine([naps], clock=clock) as engine:
        first = await engine.start(naps, 0, id="w")
        anyone = engine.handle("w", naps)
        await anyone.signal(go)
        await until(lambda: is_recorded(anyone, "TimerStarted"))
        clock.advance(timedelta(hours=2))
        assert await first.result(timeout=SOON) == 1
        assert (await stream_of(engine, "w")).count("TimerFired") == 1


async def test_9_continuing_from_a_task_of_the_codes_own_is_refused(
    open_engine: EngineOpener,
) -> None:
    @workflow
    async def elsewhere(ctx: Context, number: int) -> str:
        async def helper() -> None:
            ctx.continue_as_new(1)

        try:
            await asyncio.ensure_future(helper())
        except InvalidArgumentError as error:
            return type(error).__name__
        return "continued"

    async with open_engine([elsewhere]) as engine:
        handle = await engine.start(elsewhere, 0)
        assert await handle.result(timeout=SOON) == "InvalidArgumentError"


async def test_9_code_that_catches_every_exception_still_continues(
    open_engine: EngineOpener,
) -> None:
    @workflow
    async def catches_all(ctx: Context, number: int) -> str:
        if number:
            return "second"
        try:
            return ctx.continue_as_new(1)
        except Exception:  # noqa: BLE001 - it is what the test is about
            return "kept"

    async with open_engine([catches_all]) as engine:
        assert await (await engine.start(catches_all, 0)).result(timeout=SOON) == "second"


async def test_a_long_chain_keeps_going_across_restarts(open_engine: EngineOpener) -> None:
    @workflow
    async def long(ctx: Context, number: int) -> int:
        await ctx.receive(go)
        if number == 5:
            return number
        return ctx.continue_as_new(number + 1)

    for expected in range(6):
        async with open_engine([long]) as engine:
            if expected == 0:
                await engine.start(long, 0, id="w")
            handle = engine.handle("w", long)
            await handle.signal(go)
    async with open_engine([long]) as engine:
        assert await engine.handle("w", long).result(timeout=SOON) == 5
        assert (await stream_of(engine, "w")).count("WorkflowStarted") == 6


@resident  # read again meanwhile, the run would be known for what it is
async def test_who_waits_for_a_run_that_was_taken_for_open_after_its_end_is_told(
    open_engine: EngineOpener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A history that was read before the end may be taken in after the subscription told of it."""
    heard = asyncio.Event()
    hear = Follower._hear_terminal

    def hear_and_say(follower: Follower, workflow_id: WorkflowId, event: RecordedEvent) -> None:
        hear(follower, workflow_id, event)
        heard.set()

    monkeypatch.setattr(Follower, "_hear_terminal", hear_and_say)

    @workflow
    async def twice(ctx: Context, left: int) -> str:
        await ctx.receive(go)
        if left:
            ctx.continue_as_new(left - 1)
        return "over"

    async with open_engine([twice]) as engine:
        handle = await engine.start(twice, 1, id="w")
        stale = engine.registry.newest(handle.workflow_id)
        assert stale is not None
        await handle.signal(go)
        await until(lambda: engine.registry.newest(handle.workflow_id) not in (None, stale))
        await heard.wait()
        late = Completion(stale.workflow_id, stale.run_id)
        engine.registry._completions[stale.workflow_id, stale.run_id] = late
        engine.registry.register(stale)
        waiting = asyncio.ensure_future(
            engine.gateway.outcome(stale.workflow_id, stale.run_id, late)
        )
        await until(lambda: bool(late._waiters))
        process = engine._core.find(stale.workflow_id)
        if process is not None:
            process.forget()
        engine._core.wake(stale.workflow_id)
        assert isinstance(await asyncio.wait_for(waiting, 10), WorkflowContinuedAsNew)

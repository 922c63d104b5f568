"""The store goes away and comes back: nothing is lost, nothing is done twice, and callers are told."""

import asyncio
from collections import Counter
from datetime import timedelta

import pytest

from aion_es import Context, EngineOptions, RetryPolicy, Signal, activity, workflow
from aion_es.errors import StoreUnavailableError
from aion_es.testing.clock import ManualClock
from tests.e2e.conftest import EngineOpener
from tests.e2e.scenario import SOON, kinds, stored, stream_of, until

go = Signal("go")
number = Signal("number", int)
runs: Counter[str] = Counter()

WHOLE = [
    "WorkflowStarted",
    "ActivityScheduled",
    "ActivityStarted",
    "ActivityCompleted",
    "ActivityScheduled",
    "ActivityStarted",
    "ActivityCompleted",
    "WorkflowCompleted",
]


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    runs.clear()


@activity
async def work(step: int) -> int:
    runs[activity.info().idempotency_key] += 1
    return step + 1


@workflow
async def two_steps(ctx: Context) -> int:
    return await ctx.run(work, await ctx.run(work, 0))


@workflow
async def collects(ctx: Context, count: int) -> list[int]:
    return [await ctx.receive(number) for _ in range(count)]


@workflow
async def naps(ctx: Context) -> str:
    await asyncio.sleep(60)
    return "woken"


@pytest.mark.parametrize("first", range(1, 4))
async def test_a_short_absence_at_any_append_is_not_noticed(
    open_engine: EngineOpener, first: int
) -> None:
    open_engine.store.fail(first, times=3)
    async with open_engine([two_steps], [work]) as engine:
        handle = await engine.start(two_steps)
        assert await handle.result(timeout=SOON) == 2
        assert await kinds(handle) == WHOLE
        assert list(runs.values()) == [1, 1]


@pytest.mark.parametrize("first", range(1, 4))
async def test_an_answer_that_is_lost_at_any_append_has_no_second_effect(
    open_engine: EngineOpener, first: int
) -> None:
    open_engine.store.lose_answer(first, times=2)
    async with open_engine([two_steps], [work]) as engine:
        handle = await engine.start(two_steps)
        assert await handle.result(timeout=SOON) == 2
        assert await kinds(handle) == WHOLE
        assert list(runs.values()) == [1, 1]


async def test_answers_that_are_always_lost_still_lead_to_the_end(
    open_engine: EngineOpener,
) -> None:
    """Every append is committed and reported lost; the repeat is then told that it is there, once."""
    store = open_engine.store
    for call in range(1, 20, 2):
        store.lose_answer(call, times=1)
    async with open_engine([two_steps], [work]) as engine:
        handle = await engine.start(two_steps)
        assert await handle.result(timeout=SOON) == 2
        assert await kinds(handle) == WHOLE


async def test_a_starter_is_told_when_the_store_stays_away_and_nothing_is_recorded(
    open_engine: EngineOpener,
) -> None:
    options = EngineOptions(store_patience=timedelta(milliseconds=100))
    async with open_engine([two_steps], [work], options=options) as engine:
        open_engine.store.fail()
        with pytest.raises(StoreUnavailableError) as caught:
            await engine.start(two_steps, id="w")
        assert not caught.value.outcome_unknown
        open_engine.store.heal()
        assert await stored(engine) == 0
        assert await (await engine.start(two_steps, id="w")).result(timeout=SOON) == 2


async def test_a_long_absence_loses_no_outcome_and_repeats_no_activity(
    open_engine: EngineOpener,
) -> None:
    open_engine.store.fail(2)
    options = EngineOptions(store_patience=timedelta(milliseconds=100))  # facts are never given up
    async with open_engine([two_steps], [work], options=options) as engine:
        handle = await engine.start(two_steps)
        await until(lambda: open_engine.store.calls > 5)
        assert list(runs.values()) == [1]
        open_engine.store.heal()
        assert await handle.result(timeout=SOON) == 2
        assert await kinds(handle) == WHOLE
        assert list(runs.values()) == [1, 1]


async def test_an_append_that_hangs_holds_up_its_own_workflow_only(
    open_engine: EngineOpener,
) -> None:
    store = open_engine.store
    async with open_engine([two_steps, collects], [work]) as engine:
        held = await engine.start(collects, 1, id="held")
        store.hang(times=1)
        sending = asyncio.ensure_future(held.signal(number, 7))
        await until(lambda: store.calls == 2)
        assert await (await engine.start(two_steps)).result(timeout=SOON) == 2
        assert not sending.done()
        store.heal()
        await sending
        assert await held.result(timeout=SOON) == [7]


async def test_a_signal_whose_answer_was_lost_is_received_once(open_engine: EngineOpener) -> None:
    async with open_engine([collects]) as engine:
        handle = await engine.start(collects, 3)
        for value in range(3):
            open_engine.store.lose_answer(times=1)
            await handle.signal(number, value)
        assert await handle.result(timeout=SOON) == [0, 1, 2]


async def test_a_timer_that_falls_due_while_the_store_is_away_fires_once_when_it_is_back(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine([naps], clock=clock) as engine:
        handle = await engine.start(naps)
        calls = open_engine.store.calls
        open_engine.store.fail()
        clock.advance(timedelta(minutes=1))
        await until(lambda: open_engine.store.calls > calls + 3)
        open_engine.store.heal()
        assert await handle.result(timeout=SOON) == "woken"
        assert await kinds(handle) == [
            "WorkflowStarted",
            "TimerStarted",
            "TimerFired",
            "WorkflowCompleted",
        ]


async def test_an_engine_can_be_left_while_the_store_is_away_and_the_next_one_goes_on(
    open_engine: EngineOpener,
) -> None:
    open_engine.store.fail(2)
    options = EngineOptions(shutdown_grace=timedelta(0))
    async with open_engine([two_steps], [work], options=options) as engine:
        await engine.start(two_steps, id="w")
        await until(lambda: open_engine.store.calls > 2)
    open_engine.store.heal()
    async with open_engine([two_steps], [work]) as engine:
        assert await engine.handle("w").result(timeout=SOON) == 2


async def test_flickering_during_many_workflows_loses_and_doubles_nothing(
    open_engine: EngineOpener,
) -> None:
    store = open_engine.store
    for call in range(3, 200, 5):
        store.fail(call, times=1)
        store.lose_answer(call + 2, times=1)
    async with open_engine([two_steps], [work]) as engine:
        handles = await asyncio.gather(*(engine.start(two_steps, id=f"w{i}") for i in range(25)))
        results = await asyncio.gather(*(h.result(timeout=SOON) for h in handles))
        assert results == [2] * 25
        assert [await stream_of(engine, f"w{i}") for i in range(25)] == [WHOLE] * 25
        assert set(runs.values()) == {1}
        assert len(runs) == 50


async def test_a_retry_count_is_not_lost_with_an_answer(open_engine: EngineOpener) -> None:
    attempts: list[int] = []

    @activity(retry=RetryPolicy(initial_interval=timedelta(0), max_attempts=3))
    async def flaky() -> int:
        attempts.append(activity.info().attempt)
        if len(attempts) < 3:
            raise RuntimeError("no")
        return len(attempts)

    @workflow
    async def tries(ctx: Context) -> int:
        return await ctx.run(flaky)

    for call in (2, 4, 6):
        open_engine.store.lose_answer(call, times=1)
    async with open_engine([tries], [flaky]) as engine:
        assert await (await engine.start(tries)).result(timeout=SOON) == 3
        assert attempts == [1, 2, 3]


async def test_a_lost_answer_never_counts_as_an_attempt(open_engine: EngineOpener) -> None:
    @activity(retry=RetryPolicy(max_attempts=1))
    async def only_once() -> str:
        return "ran"

    @workflow
    async def runs_once(ctx: Context) -> str:
        return await ctx.run(only_once)

    open_engine.store.lose_answer(1, times=2)
    async with open_engine([runs_once], [only_once]) as engine:
        assert await (await engine.start(runs_once)).result(timeout=SOON) == "ran"


async def test_an_operators_continue_as_new_whose_answer_was_lost_happens_once(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([collects]) as engine:
        handle = await engine.start(collects, 1, id="w")
        open_engine.store.lose_answer(times=1)
        await handle.continue_as_new(1)
        assert await stream_of(engine, "w") == [
            "WorkflowStarted",
            "WorkflowContinuedAsNew",
            "WorkflowStarted",
        ]


@pytest.mark.parametrize("command", ["pause", "terminate", "cancel"])
async def test_a_command_whose_answer_was_lost_succeeds_all_the_same(
    open_engine: EngineOpener, command: str
) -> None:
    async with open_engine([collects]) as engine:
        handle = await engine.start(collects, 1, id="w")
        open_engine.store.lose_answer(times=1)
        await getattr(handle, command)()
        recorded = await kinds(handle)
        assert len(recorded) == len(set(recorded))

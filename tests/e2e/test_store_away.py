"""The store goes away and comes back: nothing is lost, nothing is done twice, and callers are told."""

import asyncio
import random
from collections import Counter
from datetime import timedelta

import pytest

from aion_es import Context, Engine, EngineOptions, RetryPolicy, Signal, activity, workflow
from aion_es.errors import StoreClosedError, StoreUnavailableError
from aion_es.testing.clock import ManualClock
from tests.crash.engine_shapes import ACTIVITIES as SHAPE_ACTIVITIES
from tests.crash.engine_shapes import (
    SHAPES,
    Shape,
    completed_keys,
    decisions,
    events_of,
    executions,
    undisturbed_events,
)
from tests.crash.engine_shapes import WORKFLOWS as SHAPE_WORKFLOWS
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


@pytest.mark.parametrize("ready", [True, False], ids=["in memory", "to be read"])
async def test_an_engine_can_be_left_while_an_append_is_never_answered(
    open_engine: EngineOpener, ready: bool
) -> None:
    store = open_engine.store
    options = EngineOptions(
        shutdown_grace=timedelta(0),
        store_patience=timedelta(milliseconds=20),
        max_resident=10 if ready else 0,
    )
    async with open_engine([collects], options=options) as engine:
        handle = await engine.start(collects, 1, id="w")
        store.hang()
        sending = asyncio.ensure_future(handle.signal(number, 7))
        await until(lambda: store.calls == 2)
    with pytest.raises(StoreUnavailableError) as told:
        await sending
    assert told.value.outcome_unknown
    store.heal()
    async with open_engine([collects]) as engine:
        await engine.handle("w").signal(number, 8)
        assert await engine.handle("w").result(timeout=SOON) == [8]


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


async def test_a_start_that_the_store_refused_leaves_an_engine_that_can_be_left(
    open_engine: EngineOpener,
) -> None:
    """Nothing was recorded and nobody waits: the engine once read the empty stream again and again, for ever."""
    async with asyncio.timeout(SOON.total_seconds()):
        async with open_engine([collects]) as engine:
            open_engine.store.crash_after(0)
            with pytest.raises(StoreClosedError):
                await engine.start(collects, 1, id="w")


# ------------------------------------------------------------------------------ every call


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.code)
async def test_with_faults_at_random_in_every_call_each_shape_ends_as_if_there_were_none(
    open_engine: EngineOpener, shape: Shape
) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # pytest shows it when the test fails
    store = open_engine.store
    ids = [f"{shape.code}-{index}" for index in range(3)]
    executions.clear()
    undisturbed = [await undisturbed_events(shape, name) for name in ids]
    counts = [[executions[key] for key in completed_keys(events)] for events in undisturbed]
    executions.clear()
    async with open_engine(SHAPE_WORKFLOWS, SHAPE_ACTIVITIES) as engine:
        store.disturb(random.Random(seed), rate=0.15, longest=timedelta(milliseconds=20))
        results = await asyncio.gather(*(_insist(engine, shape, name) for name in ids))
        store.heal()
        assert results == [shape.result] * len(ids)
        for name, alone, count in zip(ids, undisturbed, counts, strict=True):
            events = await events_of(store, name)
            assert decisions(events) == decisions(alone)
            keys = completed_keys(events)
            assert len(set(keys)) == len(keys)
            assert sorted(executions[key] for key in keys) == sorted(count)
        await until(lambda: _is_ready(engine))
        await engine.projections.wait_until_caught_up()
        assert await engine.visibility.count("ExecutionStatus = 'Running'") == 0


async def _insist(engine: Engine, shape: Shape, id: str) -> object:
    """Ask until there is an answer: who was told that the store is away asks again."""
    while True:
        try:
            return await shape.drive(engine, shape.code, id)
        except StoreUnavailableError:
            await asyncio.sleep(0.01)


async def _is_ready(engine: Engine) -> bool:
    return (await engine.health()).is_ready


async def test_health_says_that_the_store_is_away_and_that_it_is_back(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([two_steps], [work]) as engine:
        await engine.wait_recovered(SOON)
        await until(lambda: _is_ready(engine))
        open_engine.store.go_away()
        health = await engine.health()
        assert not health.is_ready
        assert health.store_error is not None
        assert "injected" in health.store_error
        assert health.lag is None
        open_engine.store.heal()
        health = await engine.health()
        assert (health.is_ready, health.store_error, health.is_recovered) == (True, None, True)
        assert await (await engine.start(two_steps)).result(timeout=SOON) == 2
        await engine.projections.wait_until_caught_up()
        assert ((await engine.health()).lag, health.stuck) == (0, 0)


async def test_health_counts_the_runs_that_are_stuck(open_engine: EngineOpener) -> None:
    @workflow(name="collects")
    async def differs(ctx: Context, count: int) -> None:
        await ctx.sleep(timedelta(seconds=count))

    async with open_engine([differs]) as engine:
        await engine.start(differs, 60, id="w")
    async with open_engine([collects]) as engine:
        await engine.handle("w").signal(number, 1)
        await until(lambda: _is_stuck(engine))
        health = await engine.health()
        assert (health.stuck, health.store_error) == (1, None)


async def _is_stuck(engine: Engine) -> bool:
    return (await engine.health()).stuck > 0


async def test_nothing_spins_while_the_store_is_away(open_engine: EngineOpener) -> None:
    """Twenty runs have something to record, everything follows the store, and one second passes."""
    store = open_engine.store
    gate = asyncio.Event()

    @activity
    async def gated() -> None:
        await gate.wait()

    @workflow
    async def waits(ctx: Context) -> str:
        await ctx.run(gated)
        return "done"

    async with open_engine([waits], [gated]) as engine:
        handles = [await engine.start(waits) for _ in range(20)]
        await until(lambda: engine.activities_executed == 20)
        store.go_away()
        gate.set()
        before = store.called.total()
        await asyncio.sleep(1)  # what is counted is what happens in this time
        calls = store.called.total() - before
        print(f"{calls} calls in a second")
        assert calls < 20 * 10
        store.heal()
        results = await asyncio.gather(*(h.result(timeout=SOON) for h in handles))
        assert results == ["done"] * 20

"""What a run costs and looks like: one activation is one append, and an attempt is recorded when it must be."""

from datetime import timedelta

from aion_es import Context, RetryPolicy, activity, workflow
from aion_es.events.workflow import ActivityStarted
from tests.e2e.conftest import EngineOpener
from tests.e2e.scenario import SOON, events_of, kinds, stored


@activity
async def unbounded(number: int) -> int:
    return number + 1


@workflow
async def one_activity(ctx: Context, number: int) -> int:
    return await ctx.run(unbounded, number)


@workflow
async def three_in_a_row(ctx: Context, number: int) -> int:
    for _ in range(3):
        number = await ctx.run(unbounded, number)
    return number


async def test_a_workflow_with_one_activity_costs_two_appends(open_engine: EngineOpener) -> None:
    async with open_engine([one_activity], [unbounded]) as engine:
        handle = await engine.start(one_activity, 1)
        assert await handle.result(timeout=SOON) == 2
        assert [append.types for append in open_engine.store.committed] == [
            ("WorkflowStarted", "ActivityScheduled"),
            ("ActivityStarted", "ActivityCompleted", "WorkflowCompleted"),
        ]
        assert open_engine.store.calls == 2


async def test_each_further_activity_costs_one_append(open_engine: EngineOpener) -> None:
    async with open_engine([three_in_a_row], [unbounded]) as engine:
        handle = await engine.start(three_in_a_row, 1)
        assert await handle.result(timeout=SOON) == 4
        assert [append.types for append in open_engine.store.committed] == [
            ("WorkflowStarted", "ActivityScheduled"),
            ("ActivityStarted", "ActivityCompleted", "ActivityScheduled"),
            ("ActivityStarted", "ActivityCompleted", "ActivityScheduled"),
            ("ActivityStarted", "ActivityCompleted", "WorkflowCompleted"),
        ]


async def test_an_unbounded_first_attempt_is_recorded_with_its_outcome(
    open_engine: EngineOpener,
) -> None:
    seen_while_running: list[int] = []

    @activity
    async def look() -> None:
        seen_while_running.append(await stored(engine))

    @workflow
    async def looks(ctx: Context) -> None:
        await ctx.run(look)

    async with open_engine([looks], [look]) as engine:
        handle = await engine.start(looks)
        await handle.result(timeout=SOON)
        assert seen_while_running == [2]  # WorkflowStarted, ActivityScheduled
        assert await kinds(handle) == [
            "WorkflowStarted",
            "ActivityScheduled",
            "ActivityStarted",
            "ActivityCompleted",
            "WorkflowCompleted",
        ]


async def seen_by_an_activity_that_fails_once(
    open_engine: EngineOpener, retry: RetryPolicy
) -> list[int]:
    """Run a workflow of one activity to its end; return how many events were stored when each attempt ran."""
    seen: list[int] = []

    @activity(retry=retry)
    async def look() -> None:
        seen.append(await stored(engine))
        if len(seen) == 1:
            raise RuntimeError("once")

    @workflow
    async def looks(ctx: Context) -> None:
        await ctx.run(look)

    async with open_engine([looks], [look]) as engine:
        handle = await engine.start(looks)
        await handle.result(timeout=SOON)
        assert [e.attempt for e in await events_of(handle, ActivityStarted)] == [1, 2]
    return seen


async def test_an_attempt_that_may_be_the_last_is_recorded_before_its_code_runs(
    open_engine: EngineOpener,
) -> None:
    two_attempts = RetryPolicy(max_attempts=2, initial_interval=timedelta(0))
    assert await seen_by_an_activity_that_fails_once(open_engine, two_attempts) == [3, 5]
    assert [append.types for append in open_engine.store.committed] == [
        ("WorkflowStarted", "ActivityScheduled", "ActivityStarted"),
        ("ActivityFailed",),
        ("ActivityStarted",),
        ("ActivityCompleted", "WorkflowCompleted"),
    ]


async def test_a_later_attempt_is_always_recorded_before_its_code_runs(
    open_engine: EngineOpener,
) -> None:
    unbounded_attempts = RetryPolicy(initial_interval=timedelta(0))
    assert await seen_by_an_activity_that_fails_once(open_engine, unbounded_attempts) == [2, 5]
    assert [append.types for append in open_engine.store.committed] == [
        ("WorkflowStarted", "ActivityScheduled"),
        ("ActivityStarted", "ActivityFailed"),
        ("ActivityStarted",),
        ("ActivityCompleted", "WorkflowCompleted"),
    ]


async def test_every_event_of_one_append_has_the_same_time_and_names_its_run(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([one_activity], [unbounded]) as engine:
        handle = await engine.start(one_activity, 1)
        await handle.result(timeout=SOON)
        history = await handle.history()
        assert {envelope.run_id for envelope in history} == {handle.run_id}
        assert history[0].recorded_at == history[1].recorded_at
        assert len({envelope.recorded_at for envelope in history[2:]}) == 1
        assert history[1].recorded_at <= history[2].recorded_at
        assert [envelope.revision for envelope in history] == [0, 1, 2, 3, 4]


async def test_the_last_event_of_an_append_says_that_the_code_has_seen_it(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([one_activity], [unbounded]) as engine:
        handle = await engine.start(one_activity, 1)
        await handle.result(timeout=SOON)
        assert [e.metadata.activated for e in await handle.history()] == [
            False,
            True,
            False,
            False,
            True,
        ]

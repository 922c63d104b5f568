"""Schedules that fire: each overlap policy live, pause, update, trigger, backfill, describe, list."""

from datetime import datetime, timedelta

import pytest

from aion_es import SearchAttribute
from aion_es.errors import (
    AttributeTypeError,
    DefinitionError,
    InvalidArgumentError,
    InvalidIdError,
    PayloadError,
    ScheduleAlreadyExistsError,
    ScheduleNotFoundError,
    ScheduleSpecError,
    WorkflowCancelledError,
    WorkflowTerminatedError,
    WorkflowTypeNotFoundError,
)
from aion_es.events.workflow import WorkflowStarted
from aion_es.schedules import Calendar, Cron, Interval, Overlap, Schedule, Spec, Start
from aion_es.testing.clock import ManualClock
from aion_es.testing.faults import FaultyStore
from tests.e2e.conftest import EngineOpener
from tests.e2e.scenario import events_of, is_recorded, until
from tests.e2e.schedule_scenario import (
    BEGIN,
    MINUTE,
    NIGHTLY,
    WORKFLOWS,
    begun,
    done,
    echoes,
    every_minute,
    finish,
    has,
    insists,
    is_long,
    minute_by_minute,
    name,
    recorded,
    told,
    waits,
)

customer = SearchAttribute("customer", str)


async def test_an_action_is_started_when_it_is_due_with_everything_that_it_was_given(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine(WORKFLOWS, clock=clock, search_attributes=[customer]) as engine:
        action = Start(
            echoes,
            "hello",
            attributes={customer: "ada"},
            memo={"by": "schedule"},
            task_queue="slow",
            run_timeout=timedelta(hours=1),
            execution_timeout=timedelta(days=1),
        )
        await engine.schedules.create(every_minute(action=action))
        clock.advance(MINUTE)
        handle = engine.handle("nightly-20260101T000100Z", echoes)
        await until(lambda: has(engine, handle.workflow_id))
        assert await handle.result() == "hello"
        (started,) = await events_of(handle, WorkflowStarted)
        assert (started.schedule_id, started.task_queue) == ("nightly", "slow")
        assert started.attributes["customer"].value == "ada"
        assert started.memo is not None
        assert started.memo.data == {"by": "schedule"}
        assert started.run_deadline == BEGIN + MINUTE + timedelta(hours=1)
        assert started.execution_deadline == BEGIN + MINUTE + timedelta(days=1)


async def test_while_an_action_runs_skip_takes_no_other(
    open_engine: EngineOpener, clock: ManualClock, store: FaultyStore
) -> None:
    async with open_engine(WORKFLOWS, clock=clock) as engine:
        await engine.schedules.create(every_minute(Overlap.SKIP))
        await minute_by_minute(engine, clock, 3)
        await finish(engine, BEGIN + MINUTE)
        await minute_by_minute(engine, clock, 1)
    assert await told(store) == [
        "created",
        "triggered 1",
        "skipped 2 (overlap)",
        "skipped 3 (overlap)",
        "triggered 4",
    ]


async def test_while_an_action_runs_buffer_one_lets_one_wait(
    open_engine: EngineOpener, clock: ManualClock, store: FaultyStore
) -> None:
    async with open_engine(WORKFLOWS, clock=clock) as engine:
        await engine.schedules.create(every_minute(Overlap.BUFFER_ONE))
        await minute_by_minute(engine, clock, 3)
        await finish(engine, BEGIN + MINUTE)
        await until(lambda: is_long(store, 5))
    assert await told(store) == [
        "created",
        "triggered 1",
        "buffered 2",
        "skipped 3 (overlap)",
        "triggered 2",
    ]


async def test_while_an_action_runs_buffer_all_lets_all_wait_for_their_turn(
    open_engine: EngineOpener, clock: ManualClock, store: FaultyStore
) -> None:
    async with open_engine(WORKFLOWS, clock=clock) as engine:
        await engine.schedules.create(every_minute(Overlap.BUFFER_ALL))
        await minute_by_minute(engine, clock, 3)
        for minute in (1, 2, 3):
            await begun(engine, minute)
            await finish(engine, BEGIN + minute * MINUTE)
    assert await told(store) == [
        "created",
        "triggered 1",
        "buffered 2",
        "buffered 3",
        "triggered 2",
        "triggered 3",
    ]


async def test_cancel_previous_asks_the_running_action_to_end_and_waits_for_that(
    open_engine: EngineOpener, clock: ManualClock, store: FaultyStore
) -> None:
    async with open_engine(WORKFLOWS, clock=clock) as engine:
        await engine.schedules.create(every_minute(Overlap.CANCEL_PREVIOUS, action=Start(insists)))
        await minute_by_minute(engine, clock, 2)
        first = engine.handle(name(1), insists)
        await until(lambda: is_recorded(first, "WorkflowCancelRequested"))
        await minute_by_minute(engine, clock, 1, events=2)
        assert not await has(engine, name(2))
        await first.signal(done)
        await begun(engine, 3)

    assert await told(store) == [
        "created",
        "triggered 1",
        "buffered 2",
        "skipped 2 (overlap)",
        "buffered 3",
        "triggered 3",
    ]


async def test_cancel_previous_takes_the_next_action_when_the_code_has_given_way(
    open_engine: EngineOpener, clock: ManualClock, store: FaultyStore
) -> None:
    async with open_engine(WORKFLOWS, clock=clock) as engine:
        await engine.schedules.create(every_minute(Overlap.CANCEL_PREVIOUS))
        await minute_by_minute(engine, clock, 2)
        await begun(engine, 2)
        with pytest.raises(WorkflowCancelledError, match="nightly"):
            await engine.handle(name(1), waits).result()
    assert await told(store) == ["created", "triggered 1", "buffered 2", "triggered 2"]


async def test_terminate_previous_ends_the_running_action_without_asking_it(
    open_engine: EngineOpener, clock: ManualClock, store: FaultyStore
) -> None:
    async with open_engine(WORKFLOWS, clock=clock) as engine:
        await engine.schedules.create(
            every_minute(Overlap.TERMINATE_PREVIOUS, action=Start(insists))
        )
        await minute_by_minute(engine, clock, 2)
        await begun(engine, 2)
        with pytest.raises(WorkflowTerminatedError, match="nightly"):
            await engine.handle(name(1), insists).result()
    assert await told(store) == ["created", "triggered 1", "buffered 2", "triggered 2"]


async def test_allow_all_takes_every_action_whatever_runs(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine(WORKFLOWS, clock=clock) as engine:
        await engine.schedules.create(every_minute(Overlap.ALLOW_ALL))
        await minute_by_minute(engine, clock, 3)
        await begun(engine, 3)
        description = await engine.schedules.describe(NIGHTLY)
        assert [action.workflow_id for action in description.running] == [name(1), name(2), name(3)]


async def test_an_action_that_continues_as_new_still_runs(
    open_engine: EngineOpener, clock: ManualClock, store: FaultyStore
) -> None:
    async with open_engine(WORKFLOWS, clock=clock) as engine:
        await engine.schedules.create(every_minute(Overlap.SKIP))
        await minute_by_minute(engine, clock, 1)
        await begun(engine, 1)
        await engine.handle(name(1), waits).continue_as_new()
        await minute_by_minute(engine, clock, 1)
    assert await told(store) == ["created", "triggered 1", "skipped 2 (overlap)"]


async def test_a_pause_holds_what_is_buffered_and_a_resume_lets_it_go_on(
    open_engine: EngineOpener, clock: ManualClock, store: FaultyStore
) -> None:
    async with open_engine(WORKFLOWS, clock=clock) as engine:
        await engine.schedules.create(every_minute(Overlap.BUFFER_ONE))
        await minute_by_minute(engine, clock, 2)
        await engine.schedules.pause(NIGHTLY, "stocktaking")
        await finish(engine, BEGIN + MINUTE)
        clock.advance(2 * MINUTE)
        paused = await engine.schedules.describe(NIGHTLY)
        assert (paused.paused, paused.pause_reason) == (True, "stocktaking")
        assert (paused.next_times, paused.buffered) == ((), (BEGIN + 2 * MINUTE,))
        await engine.schedules.resume(NIGHTLY)
        await begun(engine, 2)
        await finish(engine, BEGIN + 2 * MINUTE)
        await minute_by_minute(engine, clock, 1)
    assert await told(store) == [
        "created",
        "triggered 1",
        "buffered 2",
        "paused",
        "resumed",
        "triggered 2",
        "triggered 5",
    ]


async def test_an_update_keeps_what_is_buffered_and_starts_it_as_the_new_action_says(
    open_engine: EngineOpener, clock: ManualClock, store: FaultyStore
) -> None:
    async with open_engine(WORKFLOWS, clock=clock) as engine:
        await engine.schedules.create(every_minute(Overlap.BUFFER_ONE))
        await minute_by_minute(engine, clock, 2)
        changed = every_minute(
            Overlap.SKIP, action=Start(echoes, "new"), spec=Spec(Interval(10 * MINUTE))
        )
        await engine.schedules.update(changed)
        await engine.schedules.update(changed)
        await finish(engine, BEGIN + MINUTE)
        await begun(engine, 2)
        assert await engine.handle(name(2), echoes).result() == "new"
        description = await engine.schedules.describe(NIGHTLY)
        assert description.next_times[0] == BEGIN + 10 * MINUTE
    assert await told(store) == ["created", "triggered 1", "buffered 2", "updated", "triggered 2"]


async def test_a_deleted_schedule_takes_nothing_more_and_what_runs_goes_on(
    open_engine: EngineOpener, clock: ManualClock, store: FaultyStore
) -> None:
    async with open_engine(WORKFLOWS, clock=clock) as engine:
        await engine.schedules.create(every_minute(Overlap.BUFFER_ONE))
        await minute_by_minute(engine, clock, 2)
        await engine.schedules.delete(NIGHTLY)
        await finish(engine, BEGIN + MINUTE)
        clock.advance(5 * MINUTE)
        with pytest.raises(ScheduleNotFoundError):
            await engine.schedules.describe(NIGHTLY)
        assert await engine.schedules.list() == []
        await engine.schedules.create(every_minute())
        await minute_by_minute(engine, clock, 1)
    assert await told(store) == [
        "created",
        "triggered 1",
        "buffered 2",
        "deleted",
        "created",
        "triggered 8",
    ]


async def test_a_trigger_takes_an_action_at_once_whatever_runs_and_while_paused(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine(WORKFLOWS, clock=clock) as engine:
        await engine.schedules.create(every_minute(action=Start(echoes, "now")))
        await engine.schedules.pause(NIGHTLY)
        first = await engine.schedules.trigger(NIGHTLY)
        second = await engine.schedules.trigger(NIGHTLY)
        assert [await first.result(), await second.result()] == ["now", "now"]
        assert first.workflow_id == "nightly-20260101T000000.000001Z"
        assert second.workflow_id == "nightly-20260101T000000.000002Z"
        last = (await engine.schedules.describe(NIGHTLY)).last_actions
        assert [(a.workflow_id, a.run_id, a.manual) for a in last] == [
            (first.workflow_id, first.run_id, True),
            (second.workflow_id, second.run_id, True),
        ]


async def test_a_backfill_takes_what_was_not_taken_one_after_the_other(
    open_engine: EngineOpener, clock: ManualClock, store: FaultyStore
) -> None:
    async with open_engine(WORKFLOWS, clock=clock) as engine:
        await engine.schedules.create(every_minute(Overlap.ALLOW_ALL, action=Start(echoes, "x")))
        await minute_by_minute(engine, clock, 2)
        await begun(engine, 2)
        times = await engine.schedules.backfill(
            NIGHTLY, BEGIN - 2 * MINUTE, BEGIN + timedelta(days=1)
        )
        assert times == tuple(BEGIN + minute * MINUTE for minute in (-2, -1, 0))
        await begun(engine, -2, -1, 0)
        again = await engine.schedules.backfill(NIGHTLY, BEGIN - 2 * MINUTE, BEGIN + MINUTE)
        assert again == ()
    triggered = [t for t in await told(store) if t.startswith("triggered")]
    assert triggered == [f"triggered {minute}" for minute in (1, 2, -2, -1, 0)]


async def test_a_backfill_may_take_all_at_once_also_for_the_time_of_a_pause(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine(WORKFLOWS, clock=clock) as engine:
        await engine.schedules.create(every_minute())
        await engine.schedules.pause(NIGHTLY)
        clock.advance(3 * MINUTE)
        times = await engine.schedules.backfill(
            NIGHTLY, BEGIN, BEGIN + 9 * MINUTE, Overlap.ALLOW_ALL
        )
        assert times == tuple(BEGIN + minute * MINUTE for minute in range(4))
        running = (await engine.schedules.describe(NIGHTLY)).running
        assert [action.workflow_id for action in running] == [name(m) for m in range(4)]


async def test_an_action_under_its_limit_is_the_last(
    open_engine: EngineOpener, clock: ManualClock, store: FaultyStore
) -> None:
    async with open_engine(WORKFLOWS, clock=clock) as engine:
        spec = Spec(Interval(MINUTE), limit=2)
        await engine.schedules.create(every_minute(Overlap.ALLOW_ALL, spec=spec))
        await minute_by_minute(engine, clock, 2)
        clock.advance(5 * MINUTE)
        description = await engine.schedules.describe(NIGHTLY)
        assert (description.remaining, description.next_times) == (0, ())
    assert await told(store) == ["created", "triggered 1", "triggered 2"]


async def test_with_jitter_an_action_is_taken_after_its_due_time_under_the_id_of_that(
    open_engine: EngineOpener, clock: ManualClock, store: FaultyStore
) -> None:
    async with open_engine(WORKFLOWS, clock=clock) as engine:
        spec = Spec(Interval(2 * MINUTE), jitter=MINUTE)
        await engine.schedules.create(every_minute(spec=spec))
        clock.advance(2 * MINUTE)
        assert await told(store) == ["created"]
        clock.advance(MINUTE)
        await begun(engine, 2)


async def test_a_description_says_what_comes_what_was_and_what_runs(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine(WORKFLOWS, clock=clock) as engine:
        await engine.schedules.create(every_minute(Overlap.ALLOW_ALL))
        await minute_by_minute(engine, clock, 12)
        found = await engine.schedules.describe(NIGHTLY)
        assert found.next_times == tuple(BEGIN + minute * MINUTE for minute in range(13, 23))
        assert [a.workflow_id for a in found.last_actions] == [name(m) for m in range(3, 13)]
        assert (found.schedule_id, found.actions, found.skipped) == (NIGHTLY, 12, 0)
        assert (found.created_at, found.overlap) == (BEGIN, Overlap.ALLOW_ALL)
        assert found.action.workflow_type == "waits"
        assert found.spec == Spec(Interval(MINUTE))


async def test_schedules_are_listed_by_id_paused_or_not_and_by_what_they_start(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine(WORKFLOWS, clock=clock) as engine:
        for schedule_id in ("c", "a", "b"):
            await engine.schedules.create(every_minute(id=schedule_id))
        await engine.schedules.create(every_minute(id="d", action=Start(echoes, "x")))
        await engine.schedules.pause("b", "holiday")
        everything = await engine.schedules.list()
        assert [s.schedule_id for s in everything] == ["a", "b", "c", "d"]
        assert [s.next_due_at for s in everything] == [
            BEGIN + MINUTE,
            None,
            BEGIN + MINUTE,
            BEGIN + MINUTE,
        ]
        assert [s.schedule_id for s in await engine.schedules.list(paused=True)] == ["b"]
        by_type = await engine.schedules.list(workflow_type="waits", limit=2)
        assert [s.schedule_id for s in by_type] == ["a", "b"]
        rest = await engine.schedules.list(workflow_type="waits", after="b")
        assert [s.schedule_id for s in rest] == ["c"]


@pytest.mark.parametrize(
    ("schedule", "error"),
    [
        pytest.param(
            Schedule(id="x" * 231, spec=Cron("@daily"), action=Start(waits)),
            InvalidIdError,
            id="id",
        ),
        pytest.param(
            Schedule(id="x", spec=Cron("@daily"), action=Start("unknown")),
            WorkflowTypeNotFoundError,
            id="type",
        ),
        pytest.param(
            Schedule(id="x", spec=Cron("@daily"), action=Start(echoes, 5)),  # type: ignore[arg-type]  # a type checker refuses it too
            PayloadError,
            id="input",
        ),
        pytest.param(
            Schedule(id="x", spec=Cron("@daily"), action=Start(lambda ctx: None)),  # type: ignore[arg-type,return-value]  # a type checker refuses it too
            DefinitionError,
            id="no workflow",
        ),
        pytest.param(
            Schedule(id="x", spec=Cron("@daily"), action=Start(waits, attributes={customer: 5})),  # type: ignore[arg-type]  # a type checker refuses it too
            AttributeTypeError,
            id="attribute",
        ),
        pytest.param(
            Schedule(id="x", spec=Cron("@daily"), action=Start(waits, run_timeout=timedelta(0))),
            InvalidArgumentError,
            id="timeout",
        ),
        pytest.param(
            Schedule(
                id="x", spec=Cron("@daily"), action=Start(waits, execution_timeout=timedelta.max)
            ),
            InvalidArgumentError,
            id="timeout past all time",
        ),
        pytest.param(
            Schedule(id="x", spec=Cron("@daily"), action=Start(waits), catch_up_window=-MINUTE),
            InvalidArgumentError,
            id="window",
        ),
        pytest.param(
            Schedule(id="x", spec=[], action=Start(waits)), InvalidArgumentError, id="no form"
        ),
        pytest.param(
            Schedule(id="x", spec=Cron("@daily"), action=Start(waits), overlap="wait"),  # type: ignore[arg-type]  # a type checker refuses it too
            InvalidArgumentError,
            id="policy",
        ),
    ],
)
async def test_what_cannot_be_a_schedule_is_refused_and_nothing_is_recorded(
    schedule: Schedule, error: type[Exception], open_engine: EngineOpener, store: FaultyStore
) -> None:
    async with open_engine(WORKFLOWS, search_attributes=[customer]) as engine:
        with pytest.raises(error):
            await engine.schedules.create(schedule)
        assert [e async for e in store.read_all(prefix="aion_schedule-")] == []


async def test_an_update_that_is_refused_leaves_the_schedule_as_it_is(
    open_engine: EngineOpener, store: FaultyStore
) -> None:
    async with open_engine(WORKFLOWS) as engine:
        await engine.schedules.create(every_minute())
        with pytest.raises(WorkflowTypeNotFoundError):
            await engine.schedules.update(every_minute(action=Start("unknown")))
        with pytest.raises(ScheduleSpecError):
            await engine.schedules.update(every_minute(spec=Spec(Calendar(hour=25))))
    assert await told(store) == ["created"]


async def test_commands_need_a_schedule_and_create_needs_none(open_engine: EngineOpener) -> None:
    async with open_engine(WORKFLOWS) as engine:
        schedules = engine.schedules
        now = BEGIN
        for command in (
            lambda: schedules.update(every_minute()),
            lambda: schedules.pause(NIGHTLY),
            lambda: schedules.resume(NIGHTLY),
            lambda: schedules.delete(NIGHTLY),
            lambda: schedules.trigger(NIGHTLY),
            lambda: schedules.describe(NIGHTLY),
            lambda: schedules.backfill(NIGHTLY, now, now),
        ):
            with pytest.raises(ScheduleNotFoundError):
                await command()
        await schedules.create(every_minute())
        with pytest.raises(ScheduleAlreadyExistsError):
            await schedules.create(every_minute())
        with pytest.raises(InvalidArgumentError):
            await schedules.backfill(NIGHTLY, datetime(2026, 1, 1), now)


async def test_a_thousand_actions_leave_a_schedule_as_quick_to_load_as_ever(
    open_engine: EngineOpener, clock: ManualClock, store: FaultyStore
) -> None:
    async with open_engine(WORKFLOWS, clock=clock) as engine:
        await engine.schedules.create(every_minute(action=Start(echoes, "x")))
        await engine.schedules.pause(NIGHTLY)
        clock.advance(1_000 * MINUTE)
        await engine.schedules.backfill(NIGHTLY, BEGIN, BEGIN + 999 * MINUTE, Overlap.ALLOW_ALL)
        assert (await engine.schedules.describe(NIGHTLY)).actions == 1_000
    events = await recorded(store)
    last = max(i for i, e in enumerate(events) if type(e).__name__ == "ScheduleCheckpointed")
    assert len(events) - last < 200

"""What the row of a run shows at every turn of its life, on each database."""

from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from aion_es import (
    Context,
    Engine,
    RetryPolicy,
    SearchAttribute,
    Signal,
    WorkflowHandle,
    activity,
    workflow,
)
from aion_es.app import OpeningEngine
from aion_es.errors import WorkflowFailedError, WorkflowTimedOutError
from aion_es.schedules import Interval, Schedule, Start
from aion_es.visibility import ParentWorkflowId, RootWorkflowId, StuckReason, WorkflowExecution
from tests.e2e.scenario import SOON, until

customer = SearchAttribute("customer", str)
total = SearchAttribute("total", int)
go = Signal("go", str)
broken = True


@activity(retry=RetryPolicy(max_attempts=1))
async def charge(cents: int) -> int:
    if broken:
        raise ValueError("the till is broken")
    return cents


@workflow
async def waits(ctx: Context) -> str:
    return await ctx.receive(go)


@workflow
async def pays(ctx: Context, cents: int) -> int:
    return await ctx.run(charge, cents)


@workflow
async def spawns(ctx: Context) -> str:
    return await ctx.spawn(waits, id="child")


@workflow
async def spawns_spawner(ctx: Context) -> str:
    return await ctx.spawn(spawns, id="parent")


@workflow
async def turns_over(ctx: Context, left: int) -> str:
    ctx.set_attributes({total: left})
    if left:
        ctx.continue_as_new(left - 1)
    return await ctx.receive(go)


ALL = (waits, pays, spawns, spawns_spawner, turns_over)
Opener = Callable[..., OpeningEngine]


@pytest.fixture
def opened(tmp_path: Path, read_model_url: str) -> Opener:
    """Engines on one store, one after the other, whose read model is on each database."""

    def open_engine(workflows: Iterable[Any] = ALL) -> OpeningEngine:
        url = f"sqlite:///{tmp_path}/aion.db"
        return Engine.open(url, workflows=workflows, activities=[charge], read_model=read_model_url)

    return open_engine


async def row(engine: Engine, workflow_id: str) -> WorkflowExecution:
    """Return the newest run of a workflow, as of now."""
    end = await engine.store.end_position()
    await engine.visibility.count(at_least=end)
    return await engine.visibility.get(workflow_id)


async def found(engine: Engine, filter: Any) -> list[str]:
    end = await engine.store.end_position()
    runs = engine.visibility.list(filter, order_by="WorkflowId", at_least=end)
    return [run.workflow_id async for run in runs]


async def failed(engine: Engine, handle: WorkflowHandle[Any]) -> WorkflowExecution:
    with pytest.raises(WorkflowFailedError):
        await handle.result(timeout=SOON)
    return await row(engine, handle.workflow_id)


async def test_a_run_that_took_too_long_is_timed_out_by_the_timeout_that_it_had(
    opened: Opener,
) -> None:
    async with opened() as engine:
        handle = await engine.start(waits, id="w", run_timeout=timedelta(milliseconds=20))
        with pytest.raises(WorkflowTimedOutError):
            await handle.result(timeout=SOON)
        shown = await row(engine, "w")
        assert (str(shown.status), shown.failure_reason) == ("TimedOut", "run timeout")
        assert shown.execution_duration is not None
        assert shown.close_time == shown.start_time + shown.execution_duration


async def test_a_reopened_run_is_open_again_and_forgets_why_it_failed(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened() as engine:
        handle = await engine.start(pays, 5, id="w")
        before = await failed(engine, handle)
        assert (str(before.status), before.failed_step) == ("Failed", "charge")
        assert before.failure_reason is not None
        assert "broken" in before.failure_reason
        monkeypatch.setitem(globals(), "broken", False)
        await handle.reopen()
        assert await engine.handle("w").result(timeout=SOON) == 5
        after = await row(engine, "w")
        assert after.run_id == before.run_id
        assert (str(after.status), after.failed_step, after.failure_type, after.failure_reason) == (
            "Completed",
            None,
            None,
            None,
        )
        assert after.history_length > before.history_length
        assert await engine.visibility.count("ExecutionStatus = 'Failed'") == 0


async def test_a_held_run_is_paused_until_it_is_resumed(opened: Opener) -> None:
    async with opened() as engine:
        handle = await engine.start(waits, id="w")
        statuses: list[str] = [str((await row(engine, "w")).status)]
        await handle.pause("lunch")
        statuses.append(str((await row(engine, "w")).status))
        await handle.resume()
        statuses.append(str((await row(engine, "w")).status))
        assert statuses == ["Running", "Paused", "Running"]
        assert (await row(engine, "w")).close_time is None


async def test_a_run_without_its_code_is_stuck_and_says_why_until_the_code_is_back(
    opened: Opener,
) -> None:
    async with opened() as engine:
        await engine.start(waits, id="w")
        await engine.start(pays, 1, id="other")
        assert await found(engine, StuckReason.is_not_null()) == []
    async with opened([pays]) as engine:
        await engine.handle("w").signal(go, "on")
        await until(lambda: _is_stuck(engine))
        shown = await row(engine, "w")
        assert str(shown.status) == "Running"
        assert "waits" in str(shown.stuck_reason)
        assert await found(engine, StuckReason.is_not_null()) == ["w"]
    async with opened() as engine:
        assert await engine.handle("w").result(timeout=SOON) == "on"
        assert (await row(engine, "w")).stuck_reason is None


async def _is_stuck(engine: Engine) -> bool:
    return (await row(engine, "w")).stuck_reason is not None


async def test_a_child_is_found_by_its_parent_and_by_the_root_of_its_tree(opened: Opener) -> None:
    async with opened() as engine:
        handle = await engine.start(spawns_spawner, id="root")
        await until(lambda: _is_there(engine, "child"))
        await engine.handle("child").signal(go, "on")
        assert await handle.result(timeout=SOON) == "on"
        assert await found(engine, ParentWorkflowId == "parent") == ["child"]
        assert await found(engine, ParentWorkflowId.is_null()) == ["root"]
        assert await found(engine, RootWorkflowId == "root") == ["child", "parent", "root"]
        parent, child = await row(engine, "parent"), await row(engine, "child")
        assert child.parent is not None
        assert (child.parent.workflow_id, child.parent.run_id) == ("parent", parent.run_id)


async def _is_there(engine: Engine, workflow_id: str) -> bool:
    return await engine.visibility.count(f"WorkflowId = '{workflow_id}'") == 1


async def test_what_a_schedule_started_is_found_by_its_id(opened: Opener) -> None:
    async with opened() as engine:
        await engine.start(waits, id="by-hand")
        hourly = Interval(timedelta(hours=1))
        await engine.schedules.create(Schedule(id="hourly", spec=hourly, action=Start(waits)))
        handle = await engine.schedules.trigger("hourly")
        assert (await row(engine, handle.workflow_id)).schedule_id == "hourly"
        assert await found(engine, "ScheduleId = 'hourly'") == [handle.workflow_id]
        assert await found(engine, "ScheduleId IS NULL") == ["by-hand"]


async def test_a_chain_keeps_a_closed_row_for_each_run_and_carries_the_attributes(
    opened: Opener,
) -> None:
    async with opened() as engine:
        await engine.start(turns_over, 2, id="w", attributes={customer: "ana"})
        await until(lambda: _has_runs(engine, 3))
        runs = await engine.visibility.run_chain("w")
        assert [(str(run.status), dict(run.search_attributes)) for run in runs] == [
            ("ContinuedAsNew", {"customer": "ana", "total": 2}),
            ("ContinuedAsNew", {"customer": "ana", "total": 1}),
            ("Running", {"customer": "ana", "total": 0}),
        ]
        assert [run.parent_run_id for run in runs] == [None, runs[0].run_id, runs[1].run_id]
        assert {run.first_run_id for run in runs} == {runs[0].run_id}
        assert [run.close_time is None for run in runs] == [False, False, True]
        assert await found(engine, (customer == "ana") & (total >= 1)) == ["w", "w"]


async def _has_runs(engine: Engine, number: int) -> bool:
    return await engine.visibility.count("total = 0 OR total > 0") == number


async def test_an_attribute_that_is_removed_is_lacking_from_then_on(opened: Opener) -> None:
    async with opened() as engine:
        handle = await engine.start(waits, id="w", attributes=customer.to("ana") | total.to(1))
        await engine.start(waits, id="other", attributes={customer: "ana"})
        assert await found(engine, total.is_null()) == ["other"]
        await handle.set_attributes(total.to(None) | customer.to("bo"))
        assert await found(engine, total.is_null()) == ["other", "w"]
        assert await found(engine, ~customer.is_null()) == ["other", "w"]
        assert await found(engine, customer != "ana") == ["w"]

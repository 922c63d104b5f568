"""Workflows run activities: async, in threads, in processes, with and without values."""

import asyncio
import os
import sys
import threading
from dataclasses import dataclass
from datetime import timedelta

import pytest
from pydantic import BaseModel

from aion_es import ActivityInfo, Context, NonRetryableError, RetryPolicy, activity, workflow
from aion_es.errors import ActivityError, WorkflowFailedError
from aion_es.events.workflow import ActivityScheduled
from tests.e2e.conftest import EngineOpener
from tests.e2e.scenario import SOON, events_of, kinds


class Order(BaseModel):
    id: str
    lines: list[int] = []


@dataclass
class Receipt:
    order: Order
    total: int


@activity
async def price(order: Order) -> Receipt:
    return Receipt(order, sum(order.lines))


@activity
def in_thread(text: str) -> str:
    return f"{text} {threading.current_thread().name.split('_')[0]}"


@activity(executor="process")
def in_process(number: int) -> tuple[int, int]:
    return number + 1, os.getpid()


@activity
async def nothing() -> None:
    return None


@activity
def nothing_in_thread() -> None:
    return None


@activity
async def about_itself() -> tuple[str, int, str]:
    info: ActivityInfo = activity.info()
    return info.activity_type, info.attempt, info.idempotency_key


@activity
async def refuse() -> None:
    raise NonRetryableError("no")


@workflow
async def pricing(ctx: Context, order: Order) -> Receipt:
    return await ctx.run(price, order)


@workflow
async def without_input(ctx: Context) -> None:
    await ctx.run(nothing)
    await ctx.run(nothing_in_thread)


@workflow
async def threads(ctx: Context, text: str) -> str:
    return await ctx.run(in_thread, text)


@workflow
async def processes(ctx: Context, number: int) -> tuple[int, int]:
    return await ctx.run(in_process, number)


@workflow
async def informed(ctx: Context) -> tuple[str, int, str]:
    return await ctx.run(about_itself)


@workflow
async def runs_a_stranger(ctx: Context) -> None:
    await ctx.run(price, Order(id="1"))


@workflow
async def idle(ctx: Context) -> None:
    return None


@workflow
async def fails(ctx: Context) -> None:
    raise LookupError("no such shelf")


@workflow
async def fails_by_activity(ctx: Context) -> None:
    await ctx.run(refuse)


async def test_models_go_in_and_come_out_as_models(open_engine: EngineOpener) -> None:
    async with open_engine([pricing], [price]) as engine:
        handle = await engine.start(pricing, Order(id="7", lines=[3, 4]))
        assert await handle.result(timeout=SOON) == Receipt(Order(id="7", lines=[3, 4]), 7)


async def test_a_workflow_and_activities_without_input_or_result_record_null(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([without_input], [nothing, nothing_in_thread]) as engine:
        handle = await engine.start(without_input)
        await handle.result(timeout=SOON)
        scheduled = await events_of(handle, ActivityScheduled)
        assert [(e.activity_id, e.activity_type, e.input.data) for e in scheduled] == [
            (0, "nothing", None),
            (1, "nothing_in_thread", None),
        ]


async def test_a_def_activity_runs_in_a_thread_of_the_engine(open_engine: EngineOpener) -> None:
    async with open_engine([threads], [in_thread]) as engine:
        handle = await engine.start(threads, "on")
        assert await handle.result(timeout=SOON) == "on aion-activity"


async def test_a_process_activity_runs_in_another_process(open_engine: EngineOpener) -> None:
    async with open_engine([processes], [in_process]) as engine:
        number, pid = await (await engine.start(processes, 41)).result(timeout=SOON)
        assert number == 42
        assert pid != os.getpid()


async def test_an_activity_knows_itself_and_its_idempotency_key(open_engine: EngineOpener) -> None:
    async with open_engine([informed], [about_itself]) as engine:
        handle = await engine.start(informed)
        assert await handle.result(timeout=SOON) == (
            "about_itself",
            1,
            f"{handle.run_id}/0",
        )


async def test_an_activity_that_is_not_registered_is_retried_until_an_engine_has_it(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([runs_a_stranger]) as engine:
        handle = await engine.start(runs_a_stranger, id="stranger")
        failed = [e async for e in engine.store.read_all() if e.type == "ActivityFailed"]
        while not failed:
            failed = [e async for e in engine.store.read_all() if e.type == "ActivityFailed"]
        assert b"ActivityTypeNotFoundError" in failed[0].data
        assert (await handle.describe()).pending_activities == {0: "price"}
    async with open_engine([runs_a_stranger], [price]) as engine:
        await engine.handle("stranger").result(timeout=SOON)


async def test_a_workflow_that_does_nothing_completes_in_its_first_append(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([idle]) as engine:
        handle = await engine.start(idle)
        await handle.result(timeout=SOON)
        assert await kinds(handle) == ["WorkflowStarted", "WorkflowCompleted"]
        assert open_engine.store.calls == 1


async def test_an_exception_that_escapes_workflow_code_fails_the_run_with_its_traceback(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([fails]) as engine:
        handle = await engine.start(fails)
        with pytest.raises(WorkflowFailedError) as caught:
            await handle.result(timeout=SOON)
        assert (caught.value.type, caught.value.message) == ("LookupError", "no such shelf")
        assert caught.value.traceback is not None
        assert "no such shelf" in caught.value.traceback
        assert await kinds(handle) == ["WorkflowStarted", "WorkflowFailed"]


async def exits() -> None:
    sys.exit(3)


def exits_in_thread() -> None:
    sys.exit(3)


ONCE = RetryPolicy(max_attempts=1)
EXITS = {
    "async": activity(retry=ONCE)(exits),
    "thread": activity(retry=ONCE)(exits_in_thread),
}


@workflow
async def runs_one_that_exits(ctx: Context, how: str) -> str:
    try:
        await ctx.run(EXITS[how])
    except ActivityError as error:
        return str(error)
    return "went on"


@pytest.mark.parametrize("how", list(EXITS))
async def test_an_activity_that_calls_exit_has_failed_and_ends_nothing_else(
    open_engine: EngineOpener, how: str
) -> None:
    async with open_engine([runs_one_that_exits], list(EXITS.values())) as engine:
        handle = await engine.start(runs_one_that_exits, how)
        assert "failed after 1 attempt: SystemExit: 3" in await handle.result(timeout=SOON)


@workflow
async def exits_itself(ctx: Context, where: str) -> None:
    async def leave() -> None:
        sys.exit("enough")

    if where == "task":
        async with asyncio.TaskGroup() as group:
            _ = group.create_task(leave())
    elif where == "clean-up":
        try:
            await ctx.sleep(timedelta(days=1))
        finally:
            sys.exit("enough")
    else:
        sys.exit("enough")


@pytest.mark.parametrize("where", ["body", "task", "clean-up"])
async def test_workflow_code_that_calls_exit_fails_its_run_and_ends_nothing_else(
    open_engine: EngineOpener, where: str
) -> None:
    async with open_engine([exits_itself, idle]) as engine:
        handle = await engine.start(exits_itself, where)
        if where == "clean-up":
            await handle.cancel("no more")
        with pytest.raises(WorkflowFailedError) as caught:
            await handle.result(timeout=SOON)
        assert (caught.value.type, caught.value.message) == ("SystemExit", "enough")
        await (await engine.start(idle)).result(timeout=SOON)


async def test_an_activity_error_that_escapes_fails_the_run_with_the_activitys_error_as_cause(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([fails_by_activity], [refuse]) as engine:
        handle = await engine.start(fails_by_activity)
        with pytest.raises(WorkflowFailedError) as caught:
            await handle.result(timeout=SOON)
        assert (caught.value.type, caught.value.message) == (
            "ActivityError",
            "activity 'refuse' failed after 1 attempt: NonRetryableError: no",
        )

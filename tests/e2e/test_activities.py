"""Workflows run activities: async, in threads, in processes, with and without values."""

import asyncio
import os
import sys
import threading
from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar

import pytest
from pydantic import BaseModel, field_validator

from aion_es import (
    ActivityInfo,
    Context,
    Engine,
    EngineOptions,
    NonRetryableError,
    RetryPolicy,
    activity,
    workflow,
)
from aion_es.errors import ActivityError, WorkflowFailedError
from aion_es.events.workflow import ActivityScheduled
from tests.e2e.conftest import EngineOpener
from tests.e2e.scenario import SOON, events_of, kinds, stream_of, until


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


SET_IN_THIS_PROCESS = False


@activity(executor="process")
def is_a_fork() -> bool:
    return SET_IN_THIS_PROCESS


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
async def looks_for_a_fork(ctx: Context) -> bool:
    return await ctx.run(is_a_fork)


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


async def test_a_process_of_the_pool_is_no_fork_of_the_engine_whose_locks_it_would_copy(
    open_engine: EngineOpener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.SET_IN_THIS_PROCESS", True)
    async with open_engine([looks_for_a_fork], [is_a_fork]) as engine:
        handle = await engine.start(looks_for_a_fork)
        assert not await handle.result(timeout=SOON)


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


class Panic(BaseException):
    """What an extension raises that was not written in Python, as pyo3 does."""


RAISED: dict[str, type[BaseException]] = {
    kind.__name__: kind
    for kind in (SystemExit, Panic, StopIteration, GeneratorExit, asyncio.CancelledError)
}


async def raises(what: str) -> None:
    raise RAISED[what]("enough")


def raises_in_thread(what: str) -> None:
    raise RAISED[what]("enough")


def raises_in_process(what: str) -> None:
    raise RAISED[what]("enough")


ONCE = RetryPolicy(max_attempts=1)
RAISING = {
    "async": activity(retry=ONCE)(raises),
    "thread": activity(retry=ONCE)(raises_in_thread),
    "process": activity(retry=ONCE, executor="process")(raises_in_process),
}


@workflow
async def runs_one_that_raises(ctx: Context, how: tuple[str, str]) -> str:
    executor, what = how
    try:
        await ctx.run(RAISING[executor], what)
    except ActivityError as error:
        return f"{error.type}: {error.message}"
    return "went on"


@pytest.mark.parametrize("executor", list(RAISING))
@pytest.mark.parametrize("what", list(RAISED))
async def test_whatever_an_activity_raises_it_has_failed_and_ends_nothing_else(
    open_engine: EngineOpener, executor: str, what: str
) -> None:
    async with open_engine([runs_one_that_raises, idle], list(RAISING.values())) as engine:
        handle = await engine.start(runs_one_that_raises, (executor, what))
        said = f"{what}: enough"
        if (executor, what) == ("async", "StopIteration"):
            said = "RuntimeError: coroutine raised StopIteration"  # Python's doing: PEP 479
        assert await handle.result(timeout=SOON) == said
        await (await engine.start(idle)).result(timeout=SOON)


@workflow
async def awaits_what_was_cancelled(ctx: Context) -> str:
    return await ctx.run(gets_cancelled_twice)


@activity(retry=RetryPolicy(initial_interval=timedelta(0)))
async def gets_cancelled_twice() -> str:
    if activity.info().attempt < 3:
        task = asyncio.ensure_future(asyncio.sleep(60))
        task.cancel()
        await task
    return "the third time"


async def test_an_attempt_that_awaits_a_task_of_its_own_that_was_cancelled_is_retried(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([awaits_what_was_cancelled], [gets_cancelled_twice]) as engine:
        handle = await engine.start(awaits_what_was_cancelled)
        assert await handle.result(timeout=SOON) == "the third time"


async def test_an_attempt_that_the_engine_stops_has_no_outcome(open_engine: EngineOpener) -> None:
    begun = asyncio.Event()

    @activity(retry=ONCE)
    async def lingers() -> None:
        begun.set()
        await asyncio.Event().wait()

    @workflow
    async def runs_it(ctx: Context) -> None:
        await ctx.run(lingers)

    options = EngineOptions(shutdown_grace=timedelta(0))
    async with open_engine([runs_it], [lingers], options=options) as engine:
        await engine.start(runs_it, id="w")
        await begun.wait()
    async with open_engine([]) as engine:
        history = await stream_of(engine, "w")
    assert history == ["WorkflowStarted", "ActivityScheduled", "ActivityStarted"]


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


@workflow
async def panics(ctx: Context) -> None:
    raise Panic("lost it")


async def test_workflow_code_that_raises_what_is_no_exception_fails_its_run_and_ends_nothing_else(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([panics, idle]) as engine:
        handle = await engine.start(panics)
        with pytest.raises(WorkflowFailedError) as caught:
            await handle.result(timeout=SOON)
        assert (caught.value.type, caught.value.message) == ("Panic", "lost it")
        await (await engine.start(idle)).result(timeout=SOON)


@workflow
async def interrupts(ctx: Context) -> None:
    raise KeyboardInterrupt


def run_and_be_interrupted() -> list[str]:
    """Return how far a program gets whose workflow code is interrupted."""
    reached: list[str] = []

    async def program() -> None:
        async with Engine.open("memory://", workflows=[interrupts]) as engine:
            reached.append("open")
            await engine.start(interrupts)

    try:
        asyncio.run(program())
    except KeyboardInterrupt:
        reached.append("interrupted")
    return reached


async def test_an_interrupt_in_workflow_code_ends_the_program_and_holds_nobody_up() -> None:
    async with asyncio.timeout(SOON.total_seconds()):
        assert await asyncio.to_thread(run_and_be_interrupted) == ["open", "interrupted"]


class Fragile(BaseModel):
    """Its type cannot read it while it is broken."""

    is_broken: ClassVar[bool] = False
    text: str

    @field_validator("text")
    @classmethod
    def check(cls, text: str) -> str:
        if cls.is_broken:
            raise Panic("lost it")
        return text


@workflow
async def begins_with(ctx: Context, first: Fragile) -> str:
    await ctx.sleep(timedelta(seconds=0.5))
    return first.text


@workflow
async def is_given(ctx: Context) -> str:
    return (await ctx.run(makes_fragile)).text


@activity
async def makes_fragile() -> Fragile:
    raise AssertionError("the other runs")


@activity(name="makes_fragile")
async def makes_a_dict() -> dict[str, str]:
    return {"text": "made"}


async def test_a_type_that_panics_over_a_result_makes_the_run_stuck_alone(
    open_engine: EngineOpener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Fragile, "is_broken", True)
    async with open_engine([is_given, idle], [makes_a_dict]) as engine:
        handle = await engine.start(is_given)
        await until(lambda: [r.stuck for r in engine.registry] == ["Panic: lost it"])
        await (await engine.start(idle)).result(timeout=SOON)
        monkeypatch.setattr(Fragile, "is_broken", False)
        engine.supervision.retry(handle.workflow_id)
        assert await handle.result(timeout=SOON) == "made"


async def test_a_type_that_panics_in_replay_makes_the_run_stuck_alone(
    open_engine: EngineOpener, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_engine([begins_with]) as engine:
        await engine.start(begins_with, Fragile(text="made"), id="w")
    monkeypatch.setattr(Fragile, "is_broken", True)
    async with open_engine([begins_with, idle]) as engine:
        await until(lambda: [r.stuck for r in engine.registry] == ["Panic: lost it"])
        await (await engine.start(idle)).result(timeout=SOON)
        monkeypatch.setattr(Fragile, "is_broken", False)
        engine.supervision.retry("w")
        assert await engine.handle("w").result(timeout=SOON) == "made"


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

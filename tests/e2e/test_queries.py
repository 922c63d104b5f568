"""Queries look, never write, and are answered by running, suspended and closed runs."""

import asyncio
import sys
from typing import Any, NoReturn, cast

import pytest
from pydantic import BaseModel

from aion_es import Context, EngineOptions, Query, Signal, activity, workflow
from aion_es.errors import (
    PayloadError,
    QueryFailedError,
    QueryNotFoundError,
    WorkflowNotFoundError,
)
from tests.e2e.conftest import EngineOpener, resident
from tests.e2e.scenario import SOON, kinds, stored


class Basket(BaseModel):
    items: list[str]


phase = Query("phase", str)
basket = Query("basket", Basket)
times = Query("times", int, int)
unknown = Query("unknown", str)
raises = Query("raises", str)
commands = Query("commands", str)
wrong = Query("wrong", int)
exits = Query("exits", str)
panics = Query("panics", str)
cancels = Query("cancels", str)
add = Signal("add", str)
done = Signal("done")


class Panic(BaseException):
    """What an extension raises that was not written in Python, as pyo3 does."""


def _raise(error: BaseException) -> NoReturn:
    raise error


@activity
async def nothing() -> None:
    return None


@workflow
async def shopping(ctx: Context) -> int:
    state, held = "choosing", Basket(items=[])
    ctx.answer(phase, lambda: state)
    ctx.answer(basket, lambda: held)
    ctx.answer(times, lambda factor: len(held.items) * factor)
    ctx.answer(raises, lambda: dict[str, str]()["missing"])
    ctx.answer(commands, lambda: str(ctx.run(nothing)))
    ctx.answer(wrong, lambda: cast("Any", "many"))
    ctx.answer(exits, lambda: sys.exit(3))
    ctx.answer(panics, lambda: _raise(Panic("lost it")))
    ctx.answer(cancels, lambda: _raise(asyncio.CancelledError()))
    while True:
        adding = asyncio.ensure_future(ctx.receive(add))
        ending = asyncio.ensure_future(ctx.receive(done))
        await asyncio.wait({adding, ending}, return_when=asyncio.FIRST_COMPLETED)
        if ending.done():
            adding.cancel()
            state = "paid"
            return len(held.items)
        ending.cancel()
        held.items.append(adding.result())


async def test_a_running_workflow_answers_from_its_present_state(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([shopping]) as engine:
        handle = await engine.start(shopping)
        assert await handle.query(phase) == "choosing"
        assert await handle.query(basket) == Basket(items=[])
        await handle.signal(add, "tea")
        assert await handle.query(basket) == Basket(items=["tea"])


async def test_a_query_sees_what_was_recorded_just_before_it(open_engine: EngineOpener) -> None:
    async with open_engine([shopping]) as engine:
        handle = await engine.start(shopping)
        for count in range(1, 20):
            await handle.signal(add, "tea")
            assert await handle.query(times, 1) == count


async def test_an_answer_shares_nothing_with_the_workflow(open_engine: EngineOpener) -> None:
    async with open_engine([shopping]) as engine:
        handle = await engine.start(shopping)
        (await handle.query(basket)).items.append("forged")
        assert await handle.query(basket) == Basket(items=[])


async def test_a_query_may_take_an_argument(open_engine: EngineOpener) -> None:
    async with open_engine([shopping]) as engine:
        handle = await engine.start(shopping)
        await handle.signal(add, "tea")
        assert await handle.query(times, 21) == 21


async def test_an_argument_of_the_wrong_type_is_refused(open_engine: EngineOpener) -> None:
    async with open_engine([shopping]) as engine:
        handle = await engine.start(shopping)
        with pytest.raises(PayloadError) as caught:
            await handle.query(times, cast("Any", "many"))
        assert caught.value.what == "argument of query 'times'"


@resident
async def test_a_suspended_run_is_brought_back_for_a_query(open_engine: EngineOpener) -> None:
    async with open_engine([shopping], options=EngineOptions(max_resident=1)) as engine:
        first = await engine.start(shopping, id="first")
        await first.signal(add, "tea")
        for index in range(3):
            await engine.start(shopping, id=f"other-{index}")
        residency = {r.workflow_id: r.residency for r in engine.registry}
        assert residency[first.workflow_id] == "suspended"
        assert await first.query(basket) == Basket(items=["tea"])
        residency = {r.workflow_id: r.residency for r in engine.registry}
        assert residency[first.workflow_id] == "resident"


async def test_the_next_engine_answers_for_a_run_that_sleeps(open_engine: EngineOpener) -> None:
    async with open_engine([shopping]) as engine:
        handle = await engine.start(shopping, id="w")
        await handle.signal(add, "tea")
    async with open_engine([shopping]) as engine:
        assert await engine.handle("w").query(basket) == Basket(items=["tea"])


async def test_a_closed_run_answers_from_its_history(open_engine: EngineOpener) -> None:
    async with open_engine([shopping]) as engine:
        handle = await engine.start(shopping, id="w")
        await handle.signal(add, "tea")
        await handle.signal(done)
        assert await handle.result(timeout=SOON) == 1
        assert await handle.query(phase) == "paid"
    async with open_engine([shopping]) as engine:
        assert await engine.handle("w").query(phase) == "paid"
        assert await engine.handle("w").query(times, 3) == 3


async def test_an_unknown_query_lists_those_that_are_known(open_engine: EngineOpener) -> None:
    async with open_engine([shopping]) as engine:
        handle = await engine.start(shopping)
        with pytest.raises(QueryNotFoundError) as caught:
            await handle.query(unknown)
        assert caught.value.known == (
            "basket",
            "cancels",
            "commands",
            "exits",
            "panics",
            "phase",
            "raises",
            "times",
            "wrong",
        )


async def test_a_query_to_an_unknown_workflow_is_refused(open_engine: EngineOpener) -> None:
    async with open_engine([shopping]) as engine:
        with pytest.raises(WorkflowNotFoundError):
            await engine.handle("nobody").query(phase)


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        (raises, "KeyError"),
        (commands, "it may only look"),
        (wrong, "PayloadError"),
        (exits, "SystemExit: 3"),
        (panics, "Panic: lost it"),
        (cancels, "CancelledError"),
    ],
    ids=["raises", "commands", "answers with another type", "exits", "panics", "is cancelled"],
)
async def test_a_handler_that_misbehaves_fails_the_query_and_leaves_no_trace(
    open_engine: EngineOpener, question: Query[Any, None], reason: str
) -> None:
    async with open_engine([shopping], [nothing]) as engine:
        handle = await engine.start(shopping)
        with pytest.raises(QueryFailedError, match=reason):
            await handle.query(question)
        assert await stored(engine) == 1
        await handle.signal(done)
        assert await handle.result(timeout=SOON) == 0
        assert await kinds(handle) == ["WorkflowStarted", "SignalReceived", "WorkflowCompleted"]


@pytest.mark.parametrize(
    ("question", "reason"),
    [(exits, "SystemExit: 3"), (panics, "Panic: lost it"), (cancels, "CancelledError")],
    ids=["exits", "panics", "is cancelled"],
)
async def test_a_handler_of_a_closed_run_that_misbehaves_fails_the_query_alone(
    open_engine: EngineOpener, question: Query[Any, None], reason: str
) -> None:
    async with open_engine([shopping]) as engine:
        handle = await engine.start(shopping)
        await handle.signal(done)
        await handle.result(timeout=SOON)
        with pytest.raises(QueryFailedError, match=reason):
            await handle.query(question)
        assert await handle.query(phase) == "paid"


async def test_a_handler_that_commands_does_not_make_the_run_diverge_later(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([shopping], [nothing]) as engine:
        handle = await engine.start(shopping, id="w")
        with pytest.raises(QueryFailedError):
            await handle.query(commands)
        await handle.signal(add, "tea")
        await handle.signal(done)
        assert await handle.result(timeout=SOON) == 1
    async with open_engine([shopping], [nothing]) as engine:
        assert await engine.handle("w").query(phase) == "paid"


async def test_a_handler_that_commands_leaves_the_numbers_of_later_commands_alone(
    open_engine: EngineOpener,
) -> None:
    @workflow
    async def later(ctx: Context) -> str:
        ctx.answer(commands, lambda: str(ctx.run(nothing)))
        await ctx.receive(done)
        await ctx.run(nothing)
        await ctx.receive(done)
        return "ended"

    async with open_engine([later], [nothing]) as engine:
        handle = await engine.start(later, id="w")
        with pytest.raises(QueryFailedError):
            await handle.query(commands)
        await handle.signal(done)
    async with open_engine([later], [nothing]) as engine:
        handle = engine.handle("w", later)
        await handle.signal(done)
        assert await handle.result(timeout=SOON) == "ended"


async def test_a_query_writes_nothing(open_engine: EngineOpener) -> None:
    async with open_engine([shopping]) as engine:
        handle = await engine.start(shopping)
        calls = open_engine.store.calls
        for _ in range(10):
            await handle.query(phase)
        assert open_engine.store.calls == calls


async def test_a_handler_that_commands_and_then_raises_leaves_no_command_behind(
    open_engine: EngineOpener,
) -> None:
    @workflow
    async def sly(ctx: Context) -> None:
        def handler() -> str:
            raise KeyError(str(ctx.run(nothing)))

        ctx.answer(commands, handler)
        await ctx.receive(done)

    async with open_engine([sly], [nothing]) as engine:
        handle = await engine.start(sly)
        with pytest.raises(QueryFailedError, match="KeyError"):
            await handle.query(commands)
        await handle.signal(done)
        await handle.result(timeout=SOON)
        assert await kinds(handle) == ["WorkflowStarted", "SignalReceived", "WorkflowCompleted"]


async def test_a_handler_that_wakes_the_code_fails_the_query_and_changes_nothing(
    open_engine: EngineOpener,
) -> None:
    @workflow
    async def sly(ctx: Context) -> str:
        opened = asyncio.Event()

        def handler() -> str:
            opened.set()
            return "opened"

        ctx.answer(commands, handler)
        waiting = asyncio.ensure_future(opened.wait())
        await ctx.receive(done)
        return "opened" if waiting.done() else "closed"

    async with open_engine([sly]) as engine:
        handle = await engine.start(sly)
        with pytest.raises(QueryFailedError, match="may only look"):
            await handle.query(commands)
        await handle.signal(done)
        assert await handle.result(timeout=SOON) == "closed"

"""What is raised where nobody awaits it any more: it is logged once, and noted on the error that goes on."""

import asyncio
import logging
from datetime import timedelta
from typing import Any

import pytest

from aion_es import ActivityError, Context, NonRetryableError, Signal, activity, workflow
from aion_es.errors import WorkflowCancelledError
from tests.e2e.conftest import EngineOpener
from tests.e2e.scenario import SOON, is_recorded, replayed, until

go = Signal("go")
NOTE = "besides, where nobody awaits it any more: "


@activity
async def fails(what: str) -> str:
    raise NonRetryableError(what)


@activity
async def leaves_a_mess(what: str) -> str:
    try:
        await asyncio.sleep(3_600)
    except asyncio.CancelledError:
        raise NonRetryableError(f"{what} is left half done") from None
    return what


@activity(cancellation="wait")
async def fails_or_leaves_a_mess(what: str) -> str:
    return await (fails(what) if what == "fails" else leaves_a_mess(what))


async def cleans_up_badly() -> str:
    try:
        await asyncio.sleep(3_600)
    finally:
        raise LookupError("no broom")


async def answers(ctx: Context) -> str:
    await ctx.receive(go)
    return "answer"


async def refuses(ctx: Context) -> str:
    await ctx.receive(go)
    raise ValueError("no answer")


@workflow
async def races(ctx: Context) -> str:
    return await ctx.race(answers(ctx), cleans_up_badly())


@workflow
async def races_and_loses(ctx: Context) -> list[str]:
    try:
        await ctx.race(cleans_up_badly(), refuses(ctx))
    except ValueError as error:
        return [str(error), *error.__notes__]
    return []


@workflow
async def maps(ctx: Context) -> list[str]:
    try:
        await ctx.map(fails_or_leaves_a_mess, ["fails", "floor"])
    except ActivityError as error:
        return [error.message, *(note.rpartition(": ")[2] for note in error.__notes__)]
    return []


@workflow
async def shields(ctx: Context) -> list[str]:
    try:
        async with asyncio.timeout(0.001):
            await ctx.shield(refuses(ctx))
    except TimeoutError as error:
        return [] if error.__cause__ is None else error.__cause__.__notes__
    return []


@workflow
async def limits(ctx: Context) -> list[str]:
    try:
        await ctx.with_timeout(cleans_up_badly(), timedelta(hours=1))
    except asyncio.CancelledError as cancelled:
        return cancelled.__notes__
    return []


CODE: list[Any] = [races, races_and_loses, maps, shields, limits]


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [
        (type(record.exc_info[1]).__name__, record.levelname)
        for record in caplog.records
        if record.name.startswith("aion_es.workflow") and record.exc_info is not None
    ]


@pytest.mark.parametrize(
    ("code", "result", "logged"),
    [
        pytest.param(races, "answer", "LookupError", id="race"),
        pytest.param(
            races_and_loses,
            ["no answer", NOTE + "LookupError: no broom"],
            "LookupError",
            id="race-that-raises",
        ),
        pytest.param(maps, ["fails", "floor is left half done"], "ActivityError", id="map"),
        pytest.param(shields, [NOTE + "ValueError: no answer"], "ValueError", id="shield"),
    ],
)
async def test_an_error_that_nobody_awaits_is_logged_and_noted(
    open_engine: EngineOpener, caplog: pytest.LogCaptureFixture, code: Any, result: Any, logged: str
) -> None:
    caplog.set_level(logging.WARNING, "aion_es.workflow")
    async with open_engine(CODE, [fails_or_leaves_a_mess]) as engine:
        handle = await engine.start(code)
        if code is shields:
            await until(lambda: is_recorded(handle, "TimerFired"))
        await handle.signal(go)
        assert await handle.result(timeout=SOON) == result
        assert said(caplog) == [(logged, "WARNING")]
        replayed(await handle.history(), code)
        assert len(said(caplog)) == 1  # not again


async def test_clean_up_that_fails_while_the_run_is_cancelled_is_logged_and_noted(
    open_engine: EngineOpener, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "aion_es.workflow")
    async with open_engine(CODE) as engine:
        handle = await engine.start(limits)
        await until(lambda: is_recorded(handle, "TimerStarted"))
        await handle.cancel()
        assert await handle.result(timeout=SOON) == [NOTE + "LookupError: no broom"]
        assert said(caplog) == [("LookupError", "WARNING")]


async def test_code_that_leaves_memory_in_a_race_says_nothing(
    open_engine: EngineOpener, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_engine(CODE) as engine:
        handle = await engine.start(races)
        await until(lambda: is_recorded(handle, "TimerStarted"))
    assert said(caplog) == []


async def test_a_loser_that_ends_as_it_is_asked_to_is_no_error(
    open_engine: EngineOpener, caplog: pytest.LogCaptureFixture
) -> None:
    @workflow
    async def waits_for_one(ctx: Context) -> str:
        return await ctx.race(answers(ctx), ctx.start_timer("long", timedelta(days=1)))  # type: ignore[arg-type]  # either will do

    async with open_engine([waits_for_one]) as engine:
        handle = await engine.start(waits_for_one)
        await handle.signal(go)
        assert await handle.result(timeout=SOON) == "answer"
        other = await engine.start(waits_for_one)
        await other.cancel()
        with pytest.raises(WorkflowCancelledError):
            await other.result(timeout=SOON)
    assert said(caplog) == []

"""The summary of an activity: a line for people, recorded with it."""

from typing import Any

import pytest

from aion_es import Context, activity, workflow
from aion_es.errors import DefinitionError
from aion_es.events.workflow import ActivityScheduled
from tests.e2e.conftest import EngineOpener
from tests.e2e.scenario import SOON, events_of, replayed


@activity(summary="greet somebody")
async def greet(name: str) -> str:
    return f"hello {name}"


@workflow
async def greets(ctx: Context) -> list[str]:
    return [
        await ctx.run(greet, "ana"),
        await ctx.run(greet, "bo", summary="greet bo, who is late"),
    ]


@workflow(name="greets")
async def greets_without_a_word(ctx: Context) -> list[str]:
    return [await ctx.run(greet, "ana", summary=""), await ctx.run(greet, "bo")]


async def test_a_summary_is_recorded_and_a_call_s_own_one_counts(open_engine: EngineOpener) -> None:
    async with open_engine([greets], [greet]) as engine:
        handle = await engine.start(greets)
        assert await handle.result(timeout=SOON) == ["hello ana", "hello bo"]
        scheduled = await events_of(handle, ActivityScheduled)
        assert [event.summary for event in scheduled] == ["greet somebody", "greet bo, who is late"]


async def test_a_changed_summary_is_no_other_command(open_engine: EngineOpener) -> None:
    async with open_engine([greets], [greet]) as engine:
        handle = await engine.start(greets)
        await handle.result(timeout=SOON)
        replayed(await handle.history(), greets_without_a_word)


@pytest.mark.parametrize(
    "summary",
    [7, None, "two\nlines", "x" * 201, "nul \0", "half a pair \ud800"],
    ids=["number", "none", "lines", "long", "nul", "surrogate"],
)
def test_a_summary_that_is_no_line_is_refused(summary: Any) -> None:
    with pytest.raises(DefinitionError, match="summary must be"):
        activity(summary=summary)(greet)

"""What a run knows of itself: ids, versions, and how long and how large its history is, the same in every replay."""

import asyncio
from typing import Any

import pytest

from aion_es import (
    Context,
    Engine,
    Query,
    RetryPolicy,
    Signal,
    WorkflowHandle,
    activity,
    workflow,
)
from aion_es.engine import execution
from aion_es.ids import DEFAULT_NAMESPACE, WorkflowId, workflow_stream
from tests.e2e.conftest import EngineOpener
from tests.e2e.scenario import SOON, is_recorded, replayed, until

Look = tuple[int, int]
"""What `ctx.info` said of the history: its events, and their bytes."""

go = Signal("go", str)
looks = Query("looks", list[Look])


@activity
async def repeat(text: str) -> str:
    return text * 3


@workflow
async def watches_itself(ctx: Context, text: str) -> list[Look]:
    seen: list[Look] = []

    def look() -> None:
        seen.append((ctx.info.history_length, ctx.info.history_bytes))

    ctx.answer(looks, lambda: seen)
    look()
    for step in range(4):
        await ctx.receive(go)
        look()
        await ctx.run(repeat, text * step)
        look()
        look()  # the same moment
    return seen


@workflow
async def goes_on(ctx: Context, rounds: int) -> Look:
    first = (ctx.info.history_length, ctx.info.history_bytes)
    await ctx.run(repeat, "x" * rounds)
    if rounds:
        ctx.continue_as_new(rounds - 1)
    return first


@workflow(version="7")
async def tells(ctx: Context) -> dict[str, Any]:
    info = ctx.info
    return {
        "ids": [info.workflow_id, info.run_id == info.first_run_id],
        "parents": [info.parent, info.parent_run_id],
        "code": [info.workflow_type, info.version, info.task_queue],
        "begun": info.started_at == ctx.now(),
        "history": [info.history_length, info.continue_as_new_suggested],
    }


async def sizes(engine: Engine, workflow_id: str) -> list[int]:
    """Return the bytes of the data of every event in a workflow's stream."""
    stream = workflow_stream(DEFAULT_NAMESPACE, WorkflowId(workflow_id))
    return [len(event.data) async for event in engine.store.read(stream)]


async def require_true(engine: Engine, handle: WorkflowHandle[Any], seen: list[Look]) -> None:
    """Check that each look told how many bytes the first so many events have."""
    stored = await sizes(engine, handle.workflow_id)
    assert seen == [(length, sum(stored[:length])) for length, _ in seen]


async def test_a_run_knows_who_it_is(open_engine: EngineOpener) -> None:
    async with open_engine([tells]) as engine:
        handle = await engine.start(tells, id="w")
        assert await handle.result(timeout=SOON) == {
            "ids": ["w", True],
            "parents": [None, None],
            "code": ["tells", "7", "default"],
            "begun": True,
            "history": [1, False],
        }


async def test_the_bytes_are_those_of_the_events_that_the_code_has_seen(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([watches_itself], [repeat]) as engine:
        handle = await engine.start(watches_itself, "abc", id="w")
        for _ in range(4):
            await handle.signal(go, "ä" * 100)
        seen = await handle.result(timeout=SOON)
        assert [length for length, _ in seen][:2] == [1, 2]
        assert len(seen) == 13
        await require_true(engine, handle, seen)


async def test_what_one_append_brings_together_is_counted_one_after_the_other(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([watches_itself], [repeat]) as engine:
        handle = await engine.signal_with_start(watches_itself, "abc", go, "now", id="w")
        await until(lambda: is_recorded(handle, "ActivityCompleted"))
        await asyncio.gather(*(handle.signal(go, f"{n}") for n in range(3)))
        seen = await handle.result(timeout=SOON)
        assert [length for length, _ in seen][:2] == [1, 2]  # one append, nothing of it written yet
        await require_true(engine, handle, seen)


async def test_the_next_engine_replays_the_same_bytes(open_engine: EngineOpener) -> None:
    async with open_engine([watches_itself], [repeat]) as engine:
        handle = await engine.start(watches_itself, "abc", id="w")
        await handle.signal(go, "first")
        await until(lambda: is_recorded(handle, "ActivityCompleted"))
        before = await handle.query(looks)
        assert len(before) == 4
    async with open_engine([watches_itself], [repeat]) as engine:
        again = engine.handle("w", watches_itself)
        assert await again.query(looks) == before
        for _ in range(3):
            await again.signal(go, "more")
        seen = await again.result(timeout=SOON)
        assert seen[:4] == before
        await require_true(engine, again, seen)
        assert await again.query(looks) == seen  # of a closed run: replayed from its history


async def test_what_came_while_the_run_was_held_counts_from_where_it_stands(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([watches_itself], [repeat]) as engine:
        handle = await engine.start(watches_itself, "abc", id="w")
        await handle.pause()
        await handle.signal(go, "held")
        await handle.signal(go, "held too")
        await handle.resume()
        await until(lambda: is_recorded(handle, "ActivityCompleted", 2))
        live = await handle.query(looks)
        assert [length for length, _ in live][:2] == [1, 3]
        await require_true(engine, handle, live)
    async with open_engine([watches_itself], [repeat]) as engine:
        assert await engine.handle("w").query(looks) == live


async def test_a_run_that_goes_on_as_a_new_one_begins_to_count_anew(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([goes_on], [repeat]) as engine:
        handle = await engine.start(goes_on, 3, id="w")
        length, size = await handle.result(timeout=SOON)
        last_run = len(await engine.handle("w").history())
        assert (length, size) == (1, (await sizes(engine, "w"))[-last_run])


async def test_a_run_that_replaces_another_begins_to_count_anew(open_engine: EngineOpener) -> None:
    async with open_engine([watches_itself], [repeat]) as engine:
        await engine.start(watches_itself, "abc" * 50, id="w")
        handle = await engine.start(watches_itself, "z", id="w", on_conflict="terminate_existing")
        assert await handle.query(looks) == [(1, (await sizes(engine, "w"))[-1])]


@activity(retry=RetryPolicy(max_attempts=1))
async def fails_at_first(attempts: int) -> int:
    tries.append(attempts)
    if len(tries) < 3:
        raise ConnectionError("not yet")
    return attempts


tries: list[int] = []


@workflow
async def counts_its_attempts(ctx: Context) -> list[int]:
    before = ctx.info.attempt
    try:
        await ctx.receive(go)
    finally:
        await ctx.run(fails_at_first, ctx.info.attempt)
    return [before, ctx.info.attempt]


async def test_each_reopening_is_another_attempt(open_engine: EngineOpener) -> None:
    tries.clear()
    async with open_engine([counts_its_attempts], [fails_at_first]) as engine:
        handle = await engine.start(counts_its_attempts)
        await handle.signal(go, "now")
        for _ in range(2):
            await until(lambda: is_closed(handle))
            await handle.reopen()
        assert await handle.result(timeout=SOON) == [1, 3]
        assert tries == [1, 1, 1]  # it is called with what it was called with
        replayed(await handle.history(), counts_its_attempts)


async def test_an_attempt_that_a_later_reopening_makes_void_counts(
    open_engine: EngineOpener,
) -> None:
    """Cancelled, its clean-up fails, and is reopened; then it is Cancelled, and reopened from the cancellation."""
    tries.clear()
    tries.append(0)
    async with open_engine([counts_its_attempts], [fails_at_first]) as engine:
        handle = await engine.start(counts_its_attempts)
        await handle.cancel()
        for _ in range(2):
            await until(lambda: is_closed(handle))
            await handle.reopen()
        await handle.signal(go, "now")
        assert await handle.result(timeout=SOON) == [1, 3]
        assert tries == [0, 1, 1, 3]
        replayed(await handle.history(), counts_its_attempts)


async def is_closed(handle: WorkflowHandle[Any]) -> bool:
    return not (await handle.describe()).status.is_open


@workflow
async def goes_on_when_it_should(ctx: Context, text: str) -> tuple[int, int]:
    while not ctx.info.continue_as_new_suggested:
        await ctx.run(repeat, text)
    return ctx.info.history_length, ctx.info.history_bytes


async def test_a_new_run_is_suggested_by_many_events_or_by_many_bytes(
    open_engine: EngineOpener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "SUGGEST_CONTINUE_AFTER", 10)
    monkeypatch.setattr(execution, "SUGGEST_CONTINUE_AT", 5_000)
    async with open_engine([goes_on_when_it_should], [repeat]) as engine:
        few = await engine.start(goes_on_when_it_should, "x")
        length, size = await few.result(timeout=SOON)
        assert length >= 10
        assert size < 5_000
        large = await engine.start(goes_on_when_it_should, "x" * 1_500)
        length, size = await large.result(timeout=SOON)
        assert length < 10
        assert size >= 5_000
        replayed(await large.history(), goes_on_when_it_should)

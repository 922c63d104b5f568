"""Replay matches by identity; where an input is computed differently, it says so once."""

import logging
from typing import Any

import pytest

from aion_es import Context, Query, Signal, activity, workflow
from tests.e2e.conftest import EngineOpener, resident
from tests.e2e.scenario import SOON, until

go = Signal("go")
seen = Query("seen", list[str])


@activity
async def echo(text: str) -> str:
    return text


@workflow
async def child(ctx: Context, text: str) -> str:
    return text


def asks_in(order: list[str]) -> Any:
    @workflow(name="asks")
    async def asks(ctx: Context) -> list[str]:
        results: list[str] = []
        ctx.answer(seen, lambda: results)
        results += [await ctx.run(echo, text) for text in order]
        results.append(await ctx.spawn(child, order[0]))
        await ctx.receive(go)
        return results

    return asks


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


async def test_an_input_that_differs_in_replay_is_told_once_for_each_run(
    open_engine: EngineOpener, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_engine([asks_in(["a", "b"]), child], [echo]) as engine:
        await engine.start("asks", id="w")
        await _until_it_waits(engine)
        assert warnings_in(caplog) == []
    async with open_engine([asks_in(["b", "a"]), child], [echo]) as engine:
        handle = engine.handle("w")
        assert await handle.query(seen) == ["a", "b", "a"]
        assert await handle.query(seen) == ["a", "b", "a"]
        await handle.signal(go)
        assert await handle.result(timeout=SOON) == ["a", "b", "a"]
    assert warnings_in(caplog) == [
        'workflow w: activity 0 \'echo\' was recorded with the input "a", and in replay the code gives "b"; what '
        "was recorded stands. Code that computes it from a set, the clock or the surroundings computes it anew"
    ]


@resident
async def test_inputs_that_are_as_they_were_are_passed_over_in_silence(
    open_engine: EngineOpener, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        async with open_engine([asks_in(["a", "b"]), child], [echo]) as engine:
            await engine.start("asks", id="w", on_conflict="use_existing")
            await _until_it_waits(engine)
    assert warnings_in(caplog) == []


async def _until_it_waits(engine: Any) -> None:
    async def waits() -> bool:
        return len(await engine.handle("w").query(seen)) == 3

    await until(waits)

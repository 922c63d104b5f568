"""Handles of children among what is waited for."""

import asyncio
from typing import Any, cast

from aion_es import Context, workflow
from tests.e2e.conftest import EngineOpener
from tests.e2e.scenario import SOON


@workflow
async def echoes(ctx: Context, text: str) -> str:
    return text


@workflow
async def waits_for_a_set(ctx: Context) -> list[str]:
    children = [ctx.spawn(echoes, text) for text in ("a", "b", "c")]
    waiting: Any = set(children)
    done, pending = await asyncio.wait(waiting)
    assert not pending
    return [await child for child in cast("Any", done)]


@workflow
async def waits_for_the_first(ctx: Context) -> list[str]:
    children: Any = [ctx.spawn(echoes, text) for text in ("a", "b", "c")]
    results: list[str] = []
    while children:
        done, children = await asyncio.wait(children, return_when=asyncio.FIRST_COMPLETED)
        results += [await child for child in cast("Any", done)]
    return sorted(results)


async def test_children_can_be_waited_for_in_a_set_that_keeps_their_order(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([waits_for_a_set, echoes]) as engine:
        handle = await engine.start(waits_for_a_set)
        assert sorted(await handle.result(timeout=SOON)) == ["a", "b", "c"]


async def test_children_can_be_waited_for_one_by_one(open_engine: EngineOpener) -> None:
    async with open_engine([waits_for_the_first, echoes]) as engine:
        handle = await engine.start(waits_for_the_first)
        assert await handle.result(timeout=SOON) == ["a", "b", "c"]

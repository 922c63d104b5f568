"""Signals from one workflow to another arrive once, in order, and their senders learn of it."""

import asyncio
from typing import Any

import pytest

from aion_es import Context, Signal, SignalDeliveryError, workflow
from aion_es.events.workflow import SignalReceived, SignalSent
from tests.e2e.conftest import EngineOpener
from tests.e2e.scenario import SOON, events_of, kinds, stream_of

number = Signal("number", int)
go = Signal("go")


@workflow
async def takes(ctx: Context, count: int) -> list[int]:
    return [await ctx.receive(number) for _ in range(count)]


@workflow
async def sends(ctx: Context, target: str) -> str:
    await ctx.send(target, number, 1)
    return "arrived"


@workflow
async def sends_many(ctx: Context, target: str) -> str:
    for n in range(20):
        _ = ctx.send(target, number, n)
    return "sent"


@workflow
async def sends_all(ctx: Context, target: str) -> int:
    return len(await asyncio.gather(*[ctx.send(target, number, n) for n in range(20)]))


@workflow
async def sends_twice(ctx: Context, target: str) -> str:
    await ctx.send(target, number, 5, signal_id="mine")
    await ctx.send(target, number, 6, signal_id="mine")
    return "once"


@workflow
async def dares(ctx: Context, target: str) -> list[str]:
    try:
        await ctx.send(target, number, 1)
    except SignalDeliveryError as error:
        return [error.target_workflow_id, error.signal, error.reason]
    return []


@workflow
async def to_itself(ctx: Context) -> int:
    await ctx.send(ctx.info.workflow_id, number, 8)
    return await ctx.receive(number)


@workflow
async def waits_then_sends(ctx: Context, target: str) -> str:
    await ctx.receive(go)
    await ctx.send(target, number, 1)
    return "arrived"


WORKFLOWS = [takes, sends, sends_many, sends_all, sends_twice, dares, to_itself, waits_then_sends]


async def test_a_signal_arrives_and_its_sender_goes_on(open_engine: EngineOpener) -> None:
    async with open_engine(WORKFLOWS) as engine:
        target = await engine.start(takes, 1, id="t")
        sender = await engine.start(sends, "t", id="s")
        assert await sender.result(timeout=SOON) == "arrived"
        assert await target.result(timeout=SOON) == [1]
        assert await kinds(sender) == [
            "WorkflowStarted",
            "SignalSent",
            "SignalDelivered",
            "WorkflowCompleted",
        ]
        received = (await events_of(target, SignalReceived))[0]
        sent = (await events_of(sender, SignalSent))[0]
        assert received.signal_id == sent.signal_id
        assert received.sender is not None
        assert received.sender.workflow_id == "s"


@pytest.mark.parametrize("sender", [sends_many, sends_all])
async def test_signals_arrive_in_the_order_of_sending(
    open_engine: EngineOpener, sender: Any
) -> None:
    async with open_engine(WORKFLOWS) as engine:
        target = await engine.start(takes, 20, id="t")
        await engine.start(sender, "t")
        assert await target.result(timeout=SOON) == list(range(20))


async def test_a_workflow_may_signal_itself(open_engine: EngineOpener) -> None:
    async with open_engine(WORKFLOWS) as engine:
        assert await (await engine.start(to_itself)).result(timeout=SOON) == 8


async def test_the_same_id_is_sent_once(open_engine: EngineOpener) -> None:
    async with open_engine(WORKFLOWS) as engine:
        target = await engine.start(takes, 2, id="t")
        sender = await engine.start(sends_twice, "t")
        assert await sender.result(timeout=SOON) == "once"
        assert len(await events_of(target, SignalReceived)) == 1


async def test_an_unknown_target_is_reported(open_engine: EngineOpener) -> None:
    async with open_engine(WORKFLOWS) as engine:
        handle = await engine.start(dares, "nobody")
        assert await handle.result(timeout=SOON) == [
            "nobody",
            "number",
            "no workflow 'nobody'",
        ]


async def test_a_closed_target_is_reported(open_engine: EngineOpener) -> None:
    async with open_engine(WORKFLOWS) as engine:
        target = await engine.start(takes, 0, id="t")
        await target.result(timeout=SOON)
        handle = await engine.start(dares, "t")
        result = await handle.result(timeout=SOON)
        assert result[:2] == ["t", "number"]
        assert "Completed" in result[2]


@pytest.mark.parametrize("appends", [1, 2])
async def test_a_crash_on_its_way_neither_loses_nor_doubles_a_signal(
    open_engine: EngineOpener, appends: int
) -> None:
    store = open_engine.store
    async with open_engine(WORKFLOWS) as engine:
        target = await engine.start(takes, 1, id="t")
        sender = await engine.start(waits_then_sends, "t", id="s")
        store.crash_after(appends)  # SignalSent; then also SignalReceived
        await sender.signal(go)
        await store.crashed.wait()
    store.heal()
    async with open_engine(WORKFLOWS) as engine:
        sender = engine.handle("s", waits_then_sends)
        assert await sender.result(timeout=SOON) == "arrived"
        target = engine.handle("t", takes)
        assert await target.result(timeout=SOON) == [1]
        assert (await stream_of(engine, "t")).count("SignalReceived") == 1

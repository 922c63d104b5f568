"""Signals are recorded before they are delivered, kept in order, and never lost."""

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import Any, cast

import pytest
from pydantic import BaseModel

from aion_es import Context, Signal, activity, workflow
from aion_es.errors import (
    InvalidIdError,
    PayloadError,
    RunClosedError,
    WorkflowNotFoundError,
)
from aion_es.events.workflow import SignalReceived, WorkflowStarted
from aion_es.testing.clock import ManualClock
from tests.e2e.conftest import EngineOpener
from tests.e2e.scenario import SOON, events_of, is_recorded, kinds, stored, stream_of, until


class Approval(BaseModel):
    by: str


number = Signal("number", int)
other = Signal("other", int)
approval = Signal("approval", Approval)
bell = Signal("bell")
go = Signal("go")


@activity
async def pause_for(seconds: float) -> None:
    await asyncio.sleep(seconds)


@workflow
async def takes(ctx: Context, count: int) -> list[int]:
    return [await ctx.receive(number) for _ in range(count)]


@workflow
async def takes_late(ctx: Context, count: int) -> list[int]:
    await ctx.receive(go)
    return [await ctx.receive(number) for _ in range(count)]


@workflow
async def iterates(ctx: Context) -> int:
    total = 0
    async for value in ctx.signals(number):
        if value == 0:
            break
        total += value
    return total


@workflow
async def three_receivers(ctx: Context) -> list[int]:
    return list(await asyncio.gather(*(ctx.receive(number) for _ in range(3))))


@workflow
async def gives_up_then_takes(ctx: Context) -> list[int]:
    waiting = asyncio.ensure_future(ctx.receive(number))
    await ctx.receive(go)
    waiting.cancel()
    await asyncio.wait({waiting})
    return [await ctx.receive(number), await ctx.receive(number)]


@workflow
async def impatient(ctx: Context) -> list[int]:
    taken: list[int] = []
    while len(taken) < 3:
        try:
            async with asyncio.timeout(60):
                taken.append(await ctx.receive(number))
        except TimeoutError:
            taken.append(-1)
    return taken


@workflow
async def approves(ctx: Context) -> str:
    return (await ctx.receive(approval)).by


@workflow
async def rings(ctx: Context) -> None:
    await ctx.receive(bell)


@workflow
async def relay(ctx: Context, taken: list[int]) -> list[int]:
    """Take two signals a run; the others go on with the next one."""
    if len(taken) >= 6:
        return taken
    await ctx.receive(go)
    taken = [*taken, await ctx.receive(number), await ctx.receive(number)]
    return ctx.continue_as_new(taken)


async def test_signals_are_received_in_the_order_in_which_they_were_sent(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([takes]) as engine:
        handle = await engine.start(takes, 5)
        for value in (3, 1, 4, 1, 5):
            await handle.signal(number, value)
        assert await handle.result(timeout=SOON) == [3, 1, 4, 1, 5]
        assert await kinds(handle) == [
            "WorkflowStarted",
            *["SignalReceived"] * 5,
            "WorkflowCompleted",
        ]


async def test_signals_that_come_before_anybody_waits_are_kept(open_engine: EngineOpener) -> None:
    async with open_engine([takes_late]) as engine:
        handle = await engine.start(takes_late, 3)
        for value in (1, 2, 3):
            await handle.signal(number, value)
        await handle.signal(go)
        assert await handle.result(timeout=SOON) == [1, 2, 3]


async def test_signals_of_different_names_do_not_mix(open_engine: EngineOpener) -> None:
    async with open_engine([takes]) as engine:
        handle = await engine.start(takes, 2)
        await handle.signal(other, 9)
        await handle.signal(number, 1)
        await handle.signal(other, 9)
        await handle.signal(number, 2)
        assert await handle.result(timeout=SOON) == [1, 2]


async def test_the_iterator_yields_signals_for_ever(open_engine: EngineOpener) -> None:
    async with open_engine([iterates]) as engine:
        handle = await engine.start(iterates)
        for value in (1, 2, 3, 0):
            await handle.signal(number, value)
        assert await handle.result(timeout=SOON) == 6


async def test_the_kth_receive_gets_the_kth_signal(open_engine: EngineOpener) -> None:
    async with open_engine([three_receivers]) as engine:
        handle = await engine.start(three_receivers)
        for value in (10, 20, 30):
            await handle.signal(number, value)
        assert await handle.result(timeout=SOON) == [10, 20, 30]


async def test_a_cancelled_receive_takes_no_signal_with_it(open_engine: EngineOpener) -> None:
    async with open_engine([gives_up_then_takes]) as engine:
        handle = await engine.start(gives_up_then_takes)
        await handle.signal(go)
        await handle.signal(number, 1)
        await handle.signal(number, 2)
        assert await handle.result(timeout=SOON) == [1, 2]


async def test_a_receive_that_timed_out_leaves_its_signal_to_the_next(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine([impatient], clock=clock) as engine:
        handle = await engine.start(impatient)
        clock.advance(timedelta(seconds=60))
        await until(lambda: is_recorded(handle, "TimerFired"))
        await handle.signal(number, 1)
        await handle.signal(number, 2)
        assert await handle.result(timeout=SOON) == [-1, 1, 2]


async def test_a_signal_carries_a_model(open_engine: EngineOpener) -> None:
    async with open_engine([approves]) as engine:
        handle = await engine.start(approves)
        await handle.signal(approval, Approval(by="ana"))
        assert await handle.result(timeout=SOON) == "ana"


async def test_a_signal_may_carry_nothing(open_engine: EngineOpener) -> None:
    async with open_engine([rings]) as engine:
        handle = await engine.start(rings)
        await handle.signal(bell)
        await handle.result(timeout=SOON)
        (received,) = await events_of(handle, SignalReceived)
        assert (received.name, received.payload.data) == ("bell", None)


async def test_the_same_signal_id_is_received_once(open_engine: EngineOpener) -> None:
    async with open_engine([takes]) as engine:
        handle = await engine.start(takes, 2)
        for _ in range(3):
            await handle.signal(number, 1, signal_id="first")
        await handle.signal(number, 2, signal_id="second")
        assert await handle.result(timeout=SOON) == [1, 2]
        assert [e.signal_id for e in await events_of(handle, SignalReceived)] == [
            "first",
            "second",
        ]


async def test_a_hundred_concurrent_senders_lose_nothing(open_engine: EngineOpener) -> None:
    async with open_engine([takes]) as engine:
        handle = await engine.start(takes, 100)
        await asyncio.gather(*(handle.signal(number, i) for i in range(100)))
        received = await handle.result(timeout=SOON)
        assert received == [e.payload.data for e in await events_of(handle, SignalReceived)]
        assert sorted(received) == list(range(100))


async def test_signals_wait_for_the_next_engine(open_engine: EngineOpener) -> None:
    async with open_engine([takes_late]) as engine:
        handle = await engine.start(takes_late, 2, id="w")
        await handle.signal(number, 1)
        await handle.signal(number, 2)
    async with open_engine([takes_late]) as engine:
        handle = engine.handle("w", takes_late)
        await handle.signal(go)
        assert await handle.result(timeout=SOON) == [1, 2]


async def test_signal_with_start_starts_and_signals_in_one_append(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([takes]) as engine:
        handle = await engine.signal_with_start(takes, 2, number, 7, id="w")
        assert open_engine.store.committed[0].types == ("WorkflowStarted", "SignalReceived")
        await engine.signal_with_start(takes, 2, number, 8, id="w")
        assert await handle.result(timeout=SOON) == [7, 8]
        assert (await stream_of(engine, "w")).count("WorkflowStarted") == 1


async def test_signal_with_start_with_the_same_signal_id_has_one_effect(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([takes]) as engine:
        handle = await engine.signal_with_start(takes, 2, number, 7, id="w", signal_id="s")
        await engine.signal_with_start(takes, 2, number, 7, id="w", signal_id="s")
        await handle.signal(number, 8)
        assert await handle.result(timeout=SOON) == [7, 8]


async def test_signal_with_start_begins_anew_after_the_run_closed(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([takes]) as engine:
        first = await engine.signal_with_start(takes, 1, number, 1, id="w")
        assert await first.result(timeout=SOON) == [1]
        second = await engine.signal_with_start(takes, 1, number, 2, id="w")
        assert await second.result(timeout=SOON) == [2]
        assert first.run_id != second.run_id


async def test_a_value_of_the_wrong_type_is_refused_and_not_recorded(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([takes]) as engine:
        handle = await engine.start(takes, 1)
        with pytest.raises(PayloadError) as caught:
            await handle.signal(number, cast("Any", "seven"))
        assert caught.value.what == "payload of signal 'number'"
        assert await kinds(handle) == ["WorkflowStarted"]


async def test_a_signal_to_an_unknown_workflow_is_refused(open_engine: EngineOpener) -> None:
    async with open_engine([takes]) as engine:
        with pytest.raises(WorkflowNotFoundError):
            await engine.handle("nobody").signal(bell)
        assert await stored(engine) == 0


async def test_a_signal_to_a_closed_workflow_is_refused(open_engine: EngineOpener) -> None:
    async with open_engine([rings]) as engine:
        handle = await engine.start(rings)
        await handle.signal(bell)
        await handle.result(timeout=SOON)
        before = await stored(engine)
        with pytest.raises(RunClosedError) as caught:
            await handle.signal(bell)
        assert caught.value.status == "Completed"
        assert await stored(engine) == before


async def test_a_signal_id_without_form_is_refused(open_engine: EngineOpener) -> None:
    async with open_engine([rings]) as engine:
        handle = await engine.start(rings)
        with pytest.raises(InvalidIdError):
            await handle.signal(bell, signal_id="")
        assert await kinds(handle) == ["WorkflowStarted"]


async def test_unread_signals_go_on_through_continue_as_new_exactly_once_and_in_order(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([relay]) as engine:
        handle = await engine.start(relay, [], id="relay")
        for value in range(6):
            await handle.signal(number, value)
        anyone = engine.handle("relay", relay)
        for _ in range(3):
            await anyone.signal(go)
        assert await handle.result(timeout=SOON) == [0, 1, 2, 3, 4, 5]
        stream = [e async for e in engine.store.read(engine.repository.stream("relay"))]
        assert [e.type for e in stream].count("SignalReceived") == 9
        started = [e for e in stream if e.type == "WorkflowStarted"]
        carried = [
            [m.payload.data for m in WorkflowStarted.model_validate_json(e.data).carried_signals]
            for e in started
        ]
        numbers = [[v for v in values if v is not None] for values in carried]
        assert numbers == [[], [2, 3, 4, 5], [4, 5], []]


async def test_signals_sent_while_runs_follow_each_other_are_neither_lost_nor_doubled(
    open_engine: EngineOpener,
) -> None:
    @workflow
    async def fast_relay(ctx: Context, taken: list[int]) -> list[int]:
        taken = [*taken, await ctx.receive(number)]
        if len(taken) == 40:
            return taken
        return ctx.continue_as_new(taken)

    async with open_engine([fast_relay]) as engine:
        handle = await engine.start(fast_relay, [], id="relay")
        anyone = engine.handle("relay")
        await asyncio.gather(*(anyone.signal(number, i, signal_id=f"s{i}") for i in range(40)))
        received = await handle.result(timeout=SOON)
        assert sorted(received) == list(range(40))


async def test_a_signal_that_an_earlier_run_of_the_chain_has_read_is_known_again(
    open_engine: EngineOpener,
) -> None:
    @workflow
    async def one_a_run(ctx: Context, taken: list[int]) -> list[int]:
        taken = [*taken, await ctx.receive(number)]
        if len(taken) == 3:
            return taken
        return ctx.continue_as_new(taken)

    async with open_engine([one_a_run]) as engine:
        handle = await engine.start(one_a_run, [], id="w")
        anyone = engine.handle("w")
        for value in (1, 2, 3):
            for _ in range(2):
                with suppress(RunClosedError):  # the last one ends the chain
                    await anyone.signal(number, value, signal_id=f"s{value}")
        assert await handle.result(timeout=SOON) == [1, 2, 3]

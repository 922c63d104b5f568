"""Code that does anything else than what is recorded is found out, whatever it commands; the diff says what."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, NamedTuple

import pytest

from aion_es import Context, Engine, SearchAttribute, Signal, activity, workflow
from aion_es.errors import NonDeterminismError
from aion_es.events.workflow import MarkerRecorded
from tests.e2e.conftest import EngineOpener
from tests.e2e.scenario import SOON, is_recorded, replayed, until

go = Signal("go")
note = Signal("note", int)
other = Signal("other", int)
customer = SearchAttribute("customer", str)
total = SearchAttribute("total", int)

Code = Callable[[Context], Awaitable[Any]]


@activity
async def first() -> None: ...


@activity
async def second() -> None: ...


@activity
async def never() -> None:
    await asyncio.sleep(3600)


@workflow
async def listens(ctx: Context) -> None:
    await ctx.receive(note)


@workflow
async def listens_too(ctx: Context) -> None:
    await ctx.receive(note)


async def runs_first(ctx: Context) -> None:
    await ctx.run(first)


async def runs_second(ctx: Context) -> None:
    await ctx.run(second)


async def sleeps(ctx: Context) -> None:
    await asyncio.sleep(0.001)


async def arms_a(ctx: Context) -> None:
    _ = ctx.start_timer("a", timedelta(hours=1))


async def arms_b(ctx: Context) -> None:
    _ = ctx.start_timer("b", timedelta(hours=1))


async def disarms(ctx: Context) -> None:
    timer = ctx.start_timer("a", timedelta(hours=1))
    await ctx.run(first)
    timer.cancel()
    await ctx.run(second)


async def arms_only(ctx: Context) -> None:
    _ = ctx.start_timer("a", timedelta(hours=1))
    await ctx.run(first)
    await ctx.run(second)


async def gives_up(ctx: Context) -> None:
    running = ctx.run(never)
    await ctx.run(first)
    running.cancel()
    await ctx.run(second)


async def leaves_running(ctx: Context) -> None:
    _ = ctx.run(never)
    await ctx.run(first)
    await ctx.run(second)


async def bounds(ctx: Context) -> None:
    await ctx.with_timeout(ctx.run(first), timedelta(hours=1))


async def bounds_nothing(ctx: Context) -> None:
    running = ctx.run(first)
    timer = ctx.start_timer("with_timeout-0", timedelta(hours=1))
    await running
    timer.cancel()


async def spawns(ctx: Context) -> None:
    _ = ctx.spawn(listens, id="child", parent_close="terminate")


async def spawns_another_type(ctx: Context) -> None:
    _ = ctx.spawn(listens_too, id="child", parent_close="terminate")


async def spawns_another_id(ctx: Context) -> None:
    _ = ctx.spawn(listens, id="nephew", parent_close="terminate")


async def cancels_child(ctx: Context) -> None:
    child = ctx.spawn(listens, id="child")
    await ctx.run(first)
    child.cancel()
    await ctx.run(second)


async def keeps_child(ctx: Context) -> None:
    _ = ctx.spawn(listens, id="child")
    await ctx.run(first)
    await ctx.run(second)


async def sends_note(ctx: Context) -> None:
    _ = ctx.send("target", note, 1)


async def sends_other(ctx: Context) -> None:
    _ = ctx.send("target", other, 1)


async def sends_elsewhere(ctx: Context) -> None:
    _ = ctx.send("elsewhere", note, 1)


async def sets_customer(ctx: Context) -> None:
    ctx.set_attributes({customer: "ana"})


async def sets_total(ctx: Context) -> None:
    ctx.set_attributes({total: 1})


async def remembers(ctx: Context) -> None:
    ctx.side_effect(lambda: 1, int)


async def patches_first(ctx: Context) -> None:
    if ctx.patched("new"):
        await ctx.run(first)


async def patches_second(ctx: Context) -> None:
    work = ctx.run(first)
    if ctx.patched("new"):
        await work


async def returns(ctx: Context) -> None: ...


async def raises(ctx: Context) -> None:
    raise ValueError("no")


async def raises_another(ctx: Context) -> None:
    raise KeyError("no")


class Case(NamedTuple):
    before: Code
    after: Code
    recorded: str
    commanded: str


CASES = [
    Case(runs_first, runs_second, "activity 0 'first'", "activity 0 'second'"),
    Case(runs_first, sleeps, "activity 0 'first'", "timer '0'"),
    Case(runs_first, returns, "activity 0 'first'", "complete the run"),
    Case(sleeps, runs_first, "timer '0'", "activity 0 'first'"),
    Case(arms_a, arms_b, "timer 'a'", "timer 'b'"),
    Case(disarms, arms_only, "cancel timer 'a'", "activity 1 'second'"),
    Case(arms_only, disarms, "activity 1 'second'", "cancel timer 'a'"),
    Case(gives_up, leaves_running, "cancel activity 0", "activity 2 'second'"),
    Case(
        bounds,
        bounds_nothing,
        "with_timeout 'with_timeout-0' operation_completed",
        "complete the run",
    ),
    Case(spawns, spawns_another_type, "child 'child' of type 'listens'", "of type 'listens_too'"),
    Case(spawns, spawns_another_id, "child 'child' of type 'listens'", "child 'nephew'"),
    Case(spawns, returns, "child 'child' of type 'listens'", "complete the run"),
    Case(cancels_child, keeps_child, "cancel child 'child'", "activity 1 'second'"),
    Case(sends_note, sends_other, "signal 'note' to 'target'", "signal 'other' to 'target'"),
    Case(sends_note, sends_elsewhere, "signal 'note' to 'target'", "signal 'note' to 'elsewhere'"),
    Case(sets_customer, sets_total, "set attributes customer", "set attributes total"),
    Case(remembers, returns, "side_effect ''", "complete the run"),
    Case(patches_first, patches_second, "patch 'new'", "activity 0 'first'"),
    Case(patches_first, returns, "activity 0 'first'", "complete the run"),
    Case(returns, raises, "complete the run", "fail the run with ValueError"),
    Case(raises, returns, "fail the run with ValueError", "complete the run"),
    Case(raises, raises_another, "fail the run with ValueError", "fail the run with KeyError"),
]


@pytest.mark.parametrize(
    "case", CASES, ids=[f"{case.before.__name__}, {case.after.__name__}" for case in CASES]
)
async def test_a_difference_is_found_and_told(case: Case) -> None:
    before, after = (workflow(name="code")(code) for code in (case.before, case.after))
    async with Engine.open(
        "memory://", workflows=[before, listens, listens_too], activities=[first, second, never]
    ) as engine:
        handle = await engine.start(before, id="w")

        async def is_closed() -> bool:
            return not (await handle.describe()).status.is_open

        await until(is_closed, seconds=SOON.total_seconds())
        history = await handle.history()
    replayed(history, before)
    with pytest.raises(NonDeterminismError) as caught:
        replayed(history, after)
    assert f"  - recorded:  {case.recorded}" in str(caught.value)
    assert case.recorded == caught.value.recorded
    assert case.commanded in caught.value.commanded


async def patches_later(ctx: Context) -> None:
    await ctx.run(first)
    ctx.patched("new")


@pytest.mark.parametrize("now", [runs_first, patches_later], ids=lambda code: code.__name__)
async def test_a_patch_can_be_taken_out_of_the_code_of_closed_and_of_open_runs(
    open_engine: EngineOpener, now: Code
) -> None:
    async def goes_on(ctx: Context, code: Code) -> str:
        await code(ctx)
        await ctx.receive(go)
        await ctx.run(second)
        await ctx.receive(go)
        return "patched for good"

    @workflow(name="code")
    async def before(ctx: Context) -> str:
        return await goes_on(ctx, patches_first)

    @workflow(name="code")
    async def after(ctx: Context) -> str:
        return await goes_on(ctx, now)

    activities = [first, second]
    async with open_engine([before], activities) as engine:
        handle = await engine.start(before, id="w")
        await until(lambda: is_recorded(handle, "ActivityCompleted"))
    async with open_engine([after], activities) as engine:
        mended = engine.handle("w")
        await mended.signal(go)
        await until(lambda: is_recorded(mended, "ActivityCompleted", 2))
    async with open_engine([after], activities) as engine:  # what it has recorded is replayed too
        again = engine.handle("w")
        await again.signal(go)
        assert await again.result(timeout=SOON) == "patched for good"
        history = await again.history()
    replayed(history, after)
    assert [e.event.name for e in history if isinstance(e.event, MarkerRecorded)] == ["new"]

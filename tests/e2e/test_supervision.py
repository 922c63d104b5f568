"""Supervision: restarts with backoff, parking, places per type, the tree, steps that hold up the engine."""

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import pytest

from aion_es import Context, Engine, EngineOptions, Query, Signal, activity, workflow
from aion_es.engine.supervision import RestartPolicy, RunNode, TypeNode
from aion_es.errors import PayloadError, QueryNotFoundError
from aion_es.projections import workers
from aion_es.testing.clock import ManualClock
from tests.e2e.conftest import EngineOpener, resident
from tests.e2e.scenario import SOON, kinds, stored, until

go = Signal("go")
where = Query("where", str)
THREE = EngineOptions(restarts=RestartPolicy(max_restarts=3))


class Edited:
    """A workflow that was begun with one step and whose code now takes another, and counts its tries."""

    def __init__(self) -> None:
        self.tries = 0

    def before(self) -> Any:
        @workflow(name="edited")
        async def edited(ctx: Context) -> str:
            ctx.answer(where, lambda: "before")
            await ctx.sleep(timedelta(days=300))
            await ctx.receive(go)
            return "done"

        return edited

    def after(self) -> Any:
        @workflow(name="edited")
        async def edited(ctx: Context) -> str:
            self.tries += 1
            await ctx.run(note)
            return "never"

        return edited


@activity
async def note() -> None: ...


@workflow
async def sibling(ctx: Context) -> str:
    await ctx.receive(go)
    return "fine"


async def left_stuck(open_engine: EngineOpener, clock: ManualClock) -> Edited:
    """Leave two open runs behind, `w` and `other`, which cannot go on once their code is edited."""
    code = Edited()
    async with open_engine([code.before()], clock=clock) as engine:
        handle = await engine.start("edited", id="w")
        assert await kinds(handle) == ["WorkflowStarted", "TimerStarted"]
        await engine.start("edited", id="other")
    return code


@pytest.fixture
async def stuck(open_engine: EngineOpener, clock: ManualClock) -> Edited:
    """The code of runs that were left behind so."""
    return await left_stuck(open_engine, clock)


async def tried_again(code: Edited, clock: ManualClock, after: timedelta) -> None:
    """Let the time pass; return when the code has been tried once more."""
    tries = code.tries
    clock.advance(after)
    await until(lambda: code.tries == tries + 1)


def node(engine: Engine, workflow_id: str) -> RunNode:
    (found,) = [
        run
        for t in engine.supervision.tree().types
        for run in t.runs
        if run.workflow_id == workflow_id
    ]
    return found


def type_node(engine: Engine, workflow_type: str) -> TypeNode:
    (found,) = [t for t in engine.supervision.tree().types if t.workflow_type == workflow_type]
    return found


@resident
async def test_a_run_that_cannot_go_on_is_restarted_ever_more_slowly_and_then_parked(
    open_engine: EngineOpener, clock: ManualClock, stuck: Edited
) -> None:
    async with open_engine([stuck.after(), sibling], [note], clock=clock, options=THREE) as engine:
        await engine.wait_recovered(SOON)
        healthy = await engine.start(sibling)
        await engine.handle("w").signal(go)
        began = clock.now()
        for seconds in (1, 2, 4):
            run = node(engine, "w")
            assert (run.state, run.restarts) == ("restarting", stuck.tries)
            assert run.restart_at == clock.now() + timedelta(seconds=seconds)
            tries = stuck.tries
            clock.advance(timedelta(seconds=seconds, milliseconds=-1))
            await asyncio.sleep(0.01)
            assert stuck.tries == tries
            await tried_again(stuck, clock, timedelta(milliseconds=1))
            await until(lambda: node(engine, "w").restarts == stuck.tries)
        assert clock.now() - began == timedelta(seconds=7)
        assert stuck.tries == 4
        parked = node(engine, "w")
        assert (parked.state, parked.restarts, parked.restart_at) == ("parked", 4, None)
        assert parked.last_error is not None
        assert "the code and its history differ" in parked.last_error
        assert engine.supervision.parked == ("w",)
        clock.advance(timedelta(days=1))
        await asyncio.sleep(0.02)
        assert stuck.tries == 4
        await healthy.signal(go)
        assert await healthy.result(timeout=SOON) == "fine"
        assert (await engine.handle("w").describe()).stuck_reason == parked.last_error


async def parked(engine: Engine, clock: ManualClock, code: Edited) -> None:
    """Let the run be stuck until it is parked."""
    await engine.wait_recovered(SOON)
    await engine.handle("w").signal(go)
    for _ in range(3):
        tries = code.tries
        clock.advance(timedelta(minutes=1))
        await until(lambda: code.tries > tries)  # noqa: B023 - awaited at once
    await until(lambda: engine.supervision.parked == ("w",))


async def signalled(engine: Engine) -> None:
    await engine.handle("w").signal(go)


async def asked(engine: Engine) -> None:
    with pytest.raises(QueryNotFoundError):
        await engine.handle("w").query(where)


async def retried(engine: Engine) -> None:
    engine.supervision.retry("w")


@pytest.mark.parametrize("nudge", [signalled, asked, retried])
async def test_a_parked_run_tries_again_when_there_is_something_new(
    open_engine: EngineOpener, clock: ManualClock, stuck: Edited, nudge: Callable[[Engine], Any]
) -> None:
    async with open_engine([stuck.after()], [note], clock=clock, options=THREE) as engine:
        await parked(engine, clock, stuck)
        assert node(engine, "w").restarts == 4
        await nudge(engine)
        after = ("restarting", 1) if nudge is retried else ("parked", 5)
        await until(lambda: (node(engine, "w").state, node(engine, "w").restarts) == after)


async def test_a_flood_of_signals_has_a_parked_run_tried_once_and_once_more_after_the_longest_wait(
    open_engine: EngineOpener, clock: ManualClock, stuck: Edited
) -> None:
    async with open_engine([stuck.after()], [note], clock=clock, options=THREE) as engine:
        await parked(engine, clock, stuck)
        before = stuck.tries
        for _ in range(50):
            await signalled(engine)
        assert (stuck.tries, node(engine, "w").state) == (before + 1, "parked")
        assert node(engine, "w").restart_at == clock.now() + timedelta(minutes=1)
        await asked(engine)
        assert stuck.tries > before + 1
        tries = stuck.tries
        for _ in range(3):
            await signalled(engine)
            clock.advance(timedelta(seconds=19))
        await asyncio.sleep(0.02)
        assert stuck.tries == tries
        clock.advance(timedelta(seconds=3))
        await until(lambda: stuck.tries == tries + 1)
        clock.advance(timedelta(minutes=5))
        await asyncio.sleep(0.02)
        assert stuck.tries == tries + 1
        assert engine.supervision.parked == ("w",)


@pytest.mark.usefixtures("stuck")
async def test_what_was_put_right_is_found_by_the_next_signal_that_a_parked_run_may_be_tried_for(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    is_right = False

    @workflow(name="edited")
    async def edited(ctx: Context) -> str:
        if not is_right:
            raise LookupError("not there yet")
        await ctx.sleep(timedelta(days=300))
        await ctx.receive(go)
        return "done"

    options = EngineOptions(restarts=RestartPolicy(max_restarts=0))
    async with open_engine([edited], clock=clock, options=options) as engine:
        for _ in range(3):
            await signalled(engine)
        await until(lambda: node(engine, "w").state == "parked")
        is_right = True
        await signalled(engine)
        assert node(engine, "w").state == "parked"
        clock.advance(timedelta(minutes=1))
        await until(lambda: node(engine, "w").state != "parked")
        clock.advance(timedelta(days=300))
        assert await engine.handle("w").result(timeout=SOON) == "done"


async def test_a_parked_run_records_nothing_but_facts_and_goes_on_with_the_code_that_fits(
    open_engine: EngineOpener, clock: ManualClock, stuck: Edited
) -> None:
    async with open_engine([stuck.after()], [note], clock=clock, options=THREE) as engine:
        await parked(engine, clock, stuck)
        count = await stored(engine)
        clock.advance(timedelta(hours=1))
        await asyncio.sleep(0.02)
        assert await stored(engine) == count
    async with open_engine([stuck.before()], clock=clock) as engine:
        clock.advance(timedelta(days=300))
        assert await engine.handle("w").result(timeout=SOON) == "done"


async def test_restarts_that_lie_far_back_do_not_count(
    open_engine: EngineOpener, clock: ManualClock, stuck: Edited
) -> None:
    policy = RestartPolicy(
        max_restarts=2, longest=timedelta(seconds=1), period=timedelta(seconds=30)
    )
    options = EngineOptions(restarts=policy)
    async with open_engine([stuck.after()], [note], clock=clock, options=options) as engine:
        await engine.wait_recovered(SOON)
        await engine.handle("w").signal(go)
        for _ in range(6):
            await tried_again(stuck, clock, timedelta(seconds=20))
        assert engine.supervision.parked == ()


async def test_code_that_is_registered_late_wakes_the_runs_that_missed_it_at_once(
    open_engine: EngineOpener, clock: ManualClock, stuck: Edited
) -> None:
    async with open_engine([sibling], clock=clock) as engine:
        await engine.wait_recovered(SOON)
        handle = engine.handle("w")
        await handle.signal(go)
        assert (await handle.describe()).stuck_reason is not None
        (orphan,) = engine.orphaned
        assert orphan.runs == 2
        engine.catalog.register_workflow(stuck.before())
        clock.advance(timedelta(days=300))
        assert await handle.result(timeout=SOON) == "done"
        assert engine.orphaned == ()


async def reasons(engine: Engine) -> dict[str, str | None]:
    rows = [row async for row in engine.visibility.list("WorkflowType = 'edited'")]
    return {row.workflow_id: row.stuck_reason for row in rows}


async def test_orphans_that_sleep_show_as_stuck_until_their_code_is_there(
    open_engine: EngineOpener, clock: ManualClock, stuck: Edited
) -> None:
    async with open_engine([sibling], clock=clock) as engine:
        await engine.wait_recovered(SOON)
        assert await reasons(engine) == dict.fromkeys(("w", "other"), str(engine.orphaned[0]))
        engine.catalog.register_workflow(stuck.before())

        async def forgotten() -> bool:
            return await reasons(engine) == {"w": None, "other": None}

        await until(forgotten)


async def test_what_an_engine_that_is_gone_reported_is_forgotten_when_the_next_one_opens(
    open_engine: EngineOpener, clock: ManualClock, stuck: Edited
) -> None:
    async with open_engine([sibling], clock=clock) as engine:
        await engine.wait_recovered(SOON)
        assert None not in (await reasons(engine)).values()
    async with open_engine([stuck.before()], clock=clock) as engine:
        await engine.wait_recovered(SOON)
        assert await reasons(engine) == {"w": None, "other": None}


async def test_runs_of_a_living_engine_show_as_stuck_only_once_that_is_gone(
    open_engine: EngineOpener, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "HEARTBEAT", timedelta(milliseconds=50))
    code = Edited()
    async with AsyncExitStack() as stack:
        async with open_engine([code.before()], clock=clock) as there:
            for workflow_id in ("w", "other"):
                await there.start("edited", id=workflow_id)
            await there.projections.wait_until_caught_up()
            here = await stack.enter_async_context(open_engine([sibling], clock=clock))
            await here.wait_recovered(SOON)
            assert [(o.version, o.runs) for o in here.orphaned] == [("1", 2)]
            assert await reasons(here) == {"w": None, "other": None}

        async def shown() -> bool:
            return None not in (await reasons(here)).values()

        await until(shown)
        assert await reasons(here) == dict.fromkeys(("w", "other"), str(here.orphaned[0]))


async def test_what_an_engine_reported_goes_when_that_is_gone_and_another_goes_on(
    open_engine: EngineOpener, clock: ManualClock, stuck: Edited, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "HEARTBEAT", timedelta(milliseconds=50))
    async with AsyncExitStack() as stack:
        async with open_engine([stuck.after()], [note], clock=clock) as there:
            await there.projections.wait_until_caught_up()
            with pytest.raises(QueryNotFoundError):
                await there.handle("w").query(where)

            async def shown() -> bool:
                return (await reasons(there))["w"] is not None

            await until(shown)
            here = await stack.enter_async_context(open_engine([sibling], clock=clock))
            await here.wait_recovered(SOON)
            here.catalog.register_workflow(stuck.before())
            assert await shown()

        async def forgotten() -> bool:
            return await reasons(here) == {"w": None, "other": None}

        await until(forgotten)
        assert await here.handle("w").query(where) == "before"


async def test_what_an_engine_reported_is_said_again_where_the_next_cannot_go_on_either(
    open_engine: EngineOpener, clock: ManualClock, stuck: Edited, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "HEARTBEAT", timedelta(milliseconds=50))
    async with AsyncExitStack() as stack:
        async with open_engine([stuck.after()], [note], clock=clock) as there:
            await there.projections.wait_until_caught_up()
            with pytest.raises(QueryNotFoundError):
                await there.handle("w").query(where)
            await until(lambda: node(there, "w").last_error is not None)

            async def shown() -> bool:
                return (await reasons(there))["w"] is not None

            await until(shown)
            here = await stack.enter_async_context(
                open_engine([stuck.after()], [note], clock=clock)
            )
            await here.wait_recovered(SOON)  # tried, for its code is here
            reason = node(here, "w").last_error
            assert reason is not None
            assert "activity 0 'note'" in reason
            await until(shown)
        await until(lambda: not here._core.effects.activities.others)
        assert await reasons(here) == {"w": reason, "other": None}


async def test_a_run_that_another_engine_can_run_does_not_show_as_stuck(
    open_engine: EngineOpener, clock: ManualClock, stuck: Edited, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As while one engine after the other is deployed: the new one has met a run of the old version."""
    monkeypatch.setattr(workers, "HEARTBEAT", timedelta(milliseconds=50))
    async with (
        open_engine([stuck.before()], clock=clock) as old,
        open_engine([sibling], clock=clock) as new,
    ):
        await new.wait_recovered(SOON)
        handle = new.handle("w")
        await handle.signal(go)
        assert (await handle.describe()).stuck_reason is not None  # so it says itself
        assert await reasons(new) == {"w": None, "other": None}
        await old.projections.wait_until_caught_up()
        clock.advance(timedelta(days=300))
        assert await handle.result(timeout=SOON) == "done"


async def test_orphans_show_as_stuck_until_another_engine_opens_that_has_their_code(
    open_engine: EngineOpener, clock: ManualClock, stuck: Edited
) -> None:
    async with open_engine([sibling], clock=clock) as without:
        await without.wait_recovered(SOON)
        assert None not in (await reasons(without)).values()
        async with open_engine([stuck.before()], clock=clock) as having:
            await having.wait_recovered(SOON)
            assert await reasons(having) == {"w": None, "other": None}


async def test_orphans_show_as_stuck_until_another_engine_gets_their_code(
    open_engine: EngineOpener, clock: ManualClock, stuck: Edited, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is taken back is what each has said itself: they say it in other words."""
    monkeypatch.setattr(workers, "HEARTBEAT", timedelta(milliseconds=50))

    @workflow(name="edited", version="2")
    async def newer(ctx: Context) -> None: ...

    async with open_engine([sibling], clock=clock) as getting:
        await getting.wait_recovered(SOON)
        async with open_engine([newer], clock=clock) as without:
            await without.wait_recovered(SOON)
            said = str(without.orphaned[0])
            assert said != str(getting.orphaned[0])
            assert await reasons(without) == {"w": said, "other": said}
            getting.catalog.register_workflow(stuck.before())

            async def forgotten() -> bool:
                return await reasons(getting) == {"w": None, "other": None}

            await until(forgotten)


async def test_orphans_show_as_stuck_also_while_another_engine_lacks_their_code(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine([sibling], clock=clock):
        await left_stuck(open_engine, clock)
        async with open_engine([sibling], clock=clock) as here:
            await here.wait_recovered(SOON)
            assert await reasons(here) == dict.fromkeys(("w", "other"), str(here.orphaned[0]))


async def test_runs_that_came_after_the_opening_are_reported_when_their_engine_is_gone(
    open_engine: EngineOpener,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(workers, "HEARTBEAT", timedelta(milliseconds=50))
    code = Edited()
    async with open_engine([sibling], clock=clock) as here:
        await here.wait_recovered(SOON)
        async with open_engine([code.before()], clock=clock) as there:
            await there.start("edited", id="w")
        await until(lambda: here.orphaned != ())
        assert [(o.workflow_type, o.version, o.runs) for o in here.orphaned] == [("edited", "1", 1)]
        assert caplog.messages.count(str(here.orphaned[0])) == 1
        here.catalog.register_workflow(code.before())
        assert here.orphaned == ()


# -------------------------------------------------------------------------------- places per type


class Gate:
    """An activity that ends when the test lets it, and the most of it that ever ran at once."""

    def __init__(self) -> None:
        self.order: list[int] = []
        self.now = 0
        self.most = 0
        self.open = asyncio.Event()

        @activity(name="pass_gate")
        async def pass_gate(number: int) -> int:
            self.order.append(number)
            self.now += 1
            self.most = max(self.most, self.now)
            await self.open.wait()
            self.now -= 1
            return number

        @workflow(name="gated")
        async def gated(ctx: Context, number: int) -> int:
            await ctx.run(pass_gate, number)
            return number

        self.activity, self.workflow = pass_gate, gated


TWO = EngineOptions(max_concurrent_runs={"gated": 2, "chained": 1, "patient": 1})


@resident
async def test_no_more_runs_of_a_type_are_under_way_than_it_may_have_and_none_is_lost(
    open_engine: EngineOpener,
) -> None:
    gate = Gate()
    async with open_engine([gate.workflow, sibling], [gate.activity], options=TWO) as engine:
        await engine.wait_recovered(SOON)
        handles = [await engine.start(gate.workflow, n, id=f"g{n}") for n in range(7)]
        other = await engine.start(sibling)
        await until(lambda: len(gate.order) == 2)
        type_ = type_node(engine, "gated")
        assert (type_.limit, type_.under_way, type_.waiting) == (2, 2, 5)
        assert [r.state == "waiting" for r in type_.runs] == [False] * 2 + [True] * 5
        assert await kinds(handles[6]) == ["WorkflowStarted"]
        assert (await handles[6].describe()).stuck_reason is None
        await other.signal(go)
        assert await other.result(timeout=SOON) == "fine"
        gate.open.set()
        assert [await h.result(timeout=SOON) for h in handles] == list(range(7))
        assert gate.most == 2
        assert sorted(gate.order) == list(range(7))
        await until(lambda: type_node(engine, "gated").under_way == 0)


async def test_places_are_given_in_the_order_in_which_the_runs_were_started(
    open_engine: EngineOpener,
) -> None:
    gate = Gate()
    gate.open.set()
    options = EngineOptions(max_concurrent_runs={"gated": 1})
    async with open_engine([gate.workflow], [gate.activity], options=options) as engine:
        await engine.wait_recovered(SOON)
        handles = [await engine.start(gate.workflow, n) for n in range(12)]
        assert [await h.result(timeout=SOON) for h in handles] == list(range(12))
        assert gate.order == list(range(12))


async def test_places_are_kept_across_a_restart(open_engine: EngineOpener) -> None:
    gate = Gate()
    options = EngineOptions(max_concurrent_runs={"gated": 2}, shutdown_grace=timedelta(0))
    async with open_engine([gate.workflow], [gate.activity], options=options) as engine:
        await engine.wait_recovered(SOON)
        for n in range(4):
            await engine.start(gate.workflow, n, id=f"g{n}")
        await until(lambda: len(gate.order) == 2)
    gate.order.clear()
    gate.now = 0
    async with open_engine([gate.workflow], [gate.activity], options=options) as engine:
        await engine.wait_recovered(SOON)
        await until(lambda: len(gate.order) == 2)
        assert sorted(gate.order) == [0, 1]
        assert type_node(engine, "gated").waiting == 2
        gate.open.set()
        results = [await engine.handle(f"g{n}").result(timeout=SOON) for n in range(4)]
        assert results == [0, 1, 2, 3]
        assert gate.most == 2


@workflow
async def patient(ctx: Context) -> str:
    return "+".join([await ctx.receive(word) for _ in range(2)])


word = Signal("word", str)


async def test_runs_that_sleep_when_the_engine_opens_have_their_places(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([patient], options=TWO) as engine:
        await engine.wait_recovered(SOON)
        await engine.start(patient, id="sleeps")
    async with open_engine([patient], options=TWO) as engine:
        late = await engine.start(patient, id="late")
        await engine.wait_recovered(SOON)
        assert (type_node(engine, "patient").under_way, node(engine, "late").state) == (
            1,
            "waiting",
        )
        await engine.handle("sleeps").terminate()
        await until(lambda: node(engine, "late").state != "waiting")
        for text in ("a", "b"):
            await late.signal(word, text)
        assert await late.result(timeout=SOON) == "a+b"


async def test_what_is_sent_to_a_run_that_waits_is_there_when_it_begins(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([patient], options=TWO) as engine:
        await engine.wait_recovered(SOON)
        first = await engine.start(patient)
        second = await engine.start(patient)
        third = await engine.start(patient)
        await second.signal(word, "c")
        await second.signal(word, "d")
        await third.terminate()
        assert await kinds(second) == ["WorkflowStarted", "SignalReceived", "SignalReceived"]
        for text in ("a", "b"):
            await first.signal(word, text)
        assert await first.result(timeout=SOON) == "a+b"
        assert await second.result(timeout=SOON) == "c+d"
        await until(lambda: type_node(engine, "patient").under_way == 0)
        assert type_node(engine, "patient").waiting == 0


@workflow
async def chained(ctx: Context, left: int) -> str:
    await ctx.receive(go)
    return ctx.continue_as_new(left - 1) if left else "end"


async def test_a_run_that_continues_as_new_keeps_its_place(open_engine: EngineOpener) -> None:
    async with open_engine([chained], options=TWO) as engine:
        await engine.wait_recovered(SOON)
        handle = await engine.start(chained, 2)
        waiting = await engine.start(chained, 0)
        for _ in range(2):
            await handle.signal(go)
            await until(lambda: type_node(engine, "chained").under_way == 1)
            assert node(engine, waiting.workflow_id).state == "waiting"
        await engine.handle(handle.workflow_id).signal(go)
        assert await handle.result(timeout=SOON) == "end"
        await waiting.signal(go)
        assert await waiting.result(timeout=SOON) == "end"


async def test_a_parked_run_gives_its_place_to_others(
    open_engine: EngineOpener, clock: ManualClock, stuck: Edited
) -> None:
    options = EngineOptions(
        restarts=RestartPolicy(max_restarts=3), max_concurrent_runs={"edited": 2}
    )
    async with open_engine([stuck.after()], [note], clock=clock, options=options) as engine:
        await engine.wait_recovered(SOON)
        late = await engine.start("edited", id="late")
        assert node(engine, "late").state == "waiting"
        await parked(engine, clock, stuck)
        assert await late.result(timeout=SOON) == "never"


@resident
async def test_the_tree_can_be_read(
    open_engine: EngineOpener, clock: ManualClock, stuck: Edited
) -> None:
    options = EngineOptions(max_concurrent_runs={"sibling": 5})
    async with open_engine([stuck.after(), sibling], clock=clock, options=options) as engine:
        await engine.wait_recovered(SOON)
        await engine.start(sibling, id="s")
        await engine.handle("w").signal(go)
        lines = str(engine.supervision.tree()).splitlines()
        assert lines[0].startswith("engine ")
        assert lines[1] == "  edited: 1 run(s)"
        assert lines[2].startswith("    w restarting, 1 restart(s): ")
        assert lines[3] == "  sibling: 1 run(s), 1 of 5 under way"
        assert lines[4:] in (["    s resident"], ["    s suspended"])


# ------------------------------------------------------------------------------------ the watchdog


WATCHED = EngineOptions(max_step=timedelta(milliseconds=80))


def holds_up(seconds: float) -> str:
    time.sleep(seconds)
    return "computed"


@workflow
async def computes(ctx: Context, seconds: float) -> str:
    await ctx.receive(go)
    holds_up(seconds)
    return "computed"


@resident
async def test_a_step_that_holds_up_the_engine_is_reported_with_its_stack_and_goes_on(
    open_engine: EngineOpener, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_engine([computes], options=WATCHED) as engine:
        handle = await engine.start(computes, 0.4, id="slow")
        await handle.signal(go)
        assert await handle.result(timeout=SOON) == "computed"
        (blocked,) = engine.supervision.tree().blocked
        assert (blocked.workflow_id, blocked.run_id) == ("slow", handle.run_id)
        assert (blocked.workflow_type, blocked.seconds) == ("computes", 0.08)
        assert "in computes" in blocked.stack
        assert blocked.stack.splitlines()[-1].strip() == "time.sleep(seconds)"
    assert "has held up the engine for 0.08 s in one step" in caplog.text


async def test_many_short_steps_are_not_one_long_one(open_engine: EngineOpener) -> None:
    async with open_engine([computes], options=WATCHED) as engine:
        handles = [await engine.start(computes, 0.015) for _ in range(20)]
        for handle in handles:
            await handle.signal(go)
        assert [await h.result(timeout=SOON) for h in handles] == ["computed"] * 20
        assert engine.supervision.tree().blocked == ()


@workflow
async def answers_slowly(ctx: Context) -> None:
    ctx.answer(where, lambda: holds_up(0.3))
    await ctx.receive(go)


async def test_a_query_that_holds_up_the_engine_is_reported_too(open_engine: EngineOpener) -> None:
    async with open_engine([answers_slowly], options=WATCHED) as engine:
        handle = await engine.start(answers_slowly)
        assert await handle.query(where) == "computed"
        (blocked,) = engine.supervision.tree().blocked
        assert blocked.workflow_type == "answers_slowly"


async def test_without_a_bound_no_step_is_watched(open_engine: EngineOpener) -> None:
    async with open_engine([computes], options=EngineOptions(max_step=None)):
        assert "aion-watchdog" not in {thread.name for thread in threading.enumerate()}
    async with open_engine([computes]):
        assert "aion-watchdog" in {thread.name for thread in threading.enumerate()}
    assert "aion-watchdog" not in {thread.name for thread in threading.enumerate()}


@resident
async def test_a_command_that_cannot_be_written_costs_an_open_run_nothing(
    open_engine: EngineOpener,
) -> None:
    """Neither its place among the runs of its type, nor what is known of it."""

    @workflow
    async def placed(ctx: Context) -> str:
        await ctx.receive(Signal("go"))
        return "went"

    options = EngineOptions(max_concurrent_runs={"placed": 1})
    async with open_engine([placed], options=options) as engine:
        first = await engine.start(placed, id="first")
        second = await engine.start(placed, id="second")
        with pytest.raises(PayloadError):
            await first.cancel("\ud800")
        await second.signal(Signal("go"))
        assert (await kinds(second)) == ["WorkflowStarted", "SignalReceived"]
        await first.signal(Signal("go"))
        assert await first.result(timeout=SOON) == "went"
        assert await second.result(timeout=SOON) == "went"

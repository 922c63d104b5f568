"""An event that this program cannot read: its run waits and is shown, and nothing else stands still for it."""

import asyncio
import uuid
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from aion_es import Client, Context, Engine, EngineOptions, Signal, workflow
from aion_es.aggregates import Workflow
from aion_es.aggregates.workflow_repository import WorkflowRepository
from aion_es.engine.supervision import UNREAD, RestartPolicy, RunNode
from aion_es.errors import EventDecodeError, InternalError, UnknownEventTypeError
from aion_es.events.values import SignalMessage
from aion_es.ids import DEFAULT_NAMESPACE, SignalId, WorkflowId, workflow_stream
from aion_es.payload import NOTHING
from aion_es.store.port import EventStore, NewEvent
from aion_es.testing.clock import ManualClock
from tests.e2e.conftest import EngineOpener, resident
from tests.e2e.scenario import SOON, stream_of, until

go = Signal("go")
ONCE = EngineOptions(restarts=RestartPolicy(max_restarts=1))


@workflow
async def waits(ctx: Context) -> str:
    await ctx.receive(go)
    return "went"


@workflow
async def sleeps(ctx: Context) -> str:
    await ctx.sleep(timedelta(hours=3))
    return "rested"


@workflow
async def answers(ctx: Context) -> str:
    return "answered"


@workflow
async def asks(ctx: Context) -> str:
    return await ctx.spawn(answers, id="child")


async def spoil(
    store: EventStore, workflow_id: str, kind: str = "FromTheFuture", metadata: bytes | None = None
) -> None:
    """Record an event, as another program might have, that this one cannot read."""
    stream = workflow_stream(DEFAULT_NAMESPACE, WorkflowId(workflow_id))
    last = [event async for event in store.read(stream)][-1]
    event_id = uuid.uuid5(uuid.NAMESPACE_OID, workflow_id)
    event = NewEvent(event_id, kind, b"{}", last.metadata if metadata is None else metadata)
    await store.append(stream, [event], expected=last.revision)


async def signal_from_outside(store: EventStore, workflow_id: str) -> None:
    """Have another process than the engine's record a signal."""
    message = SignalMessage(signal_id=SignalId("outside"), name="go", payload=NOTHING)
    now = datetime.fromisoformat("2030-01-01T00:00:00+00:00")
    await WorkflowRepository(store).execute(
        workflow_id, lambda w: w.receive_signal(message, at=now)
    )


def node(engine: Engine, workflow_id: str) -> RunNode | None:
    nodes = [n for t in engine.supervision.tree().types for n in t.runs]
    return next((n for n in nodes if n.workflow_id == workflow_id), None)


def state(engine: Engine, workflow_id: str) -> tuple[str, int]:
    found = node(engine, workflow_id)
    return ("unknown", 0) if found is None else (found.state, found.restarts)


async def test_a_run_that_cannot_be_read_is_restarted_parked_and_shown_and_its_siblings_go_on(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine([waits], clock=clock, options=ONCE) as engine:
        bad = await engine.start(waits, id="bad")
        good = await engine.start(waits, id="good")
        await spoil(open_engine.store, "bad")
        with pytest.raises(UnknownEventTypeError):
            await bad.signal(go)
        assert state(engine, "bad") == ("restarting", 1)
        assert (await engine.health()).stuck == 1
        clock.advance(timedelta(seconds=1))
        await until(lambda: state(engine, "bad") == ("parked", 2))
        assert engine.supervision.parked == ("bad",)
        shown = node(engine, "bad")
        assert shown is not None
        assert shown.last_error is not None
        assert "FromTheFuture" in shown.last_error
        await good.signal(go)
        assert await good.result(timeout=SOON) == "went"


async def test_who_waits_for_a_run_that_cannot_be_read_is_told_so_and_so_is_who_asks_later(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine([waits], clock=clock, options=ONCE) as engine:
        bad = await engine.start(waits, id="bad")
        waiting = [asyncio.ensure_future(engine.handle("bad").result()) for _ in range(2)]
        await asyncio.sleep(0)
        await spoil(open_engine.store, "bad")
        with pytest.raises(UnknownEventTypeError):
            await bad.signal(go)
        told = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 10)
        told += await asyncio.gather(
            bad.result(timeout=SOON), bad.describe(), return_exceptions=True
        )
        assert [str(error) for error in told] == [
            "aion_workflow-bad@1: unknown event type 'FromTheFuture'"
        ] * 4
        assert {type(error) for error in told} == {UnknownEventTypeError}


async def test_a_run_that_cannot_be_read_is_listed_with_the_reason(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine([waits], clock=clock, options=ONCE) as engine:
        bad = await engine.start(waits, id="bad")
        await engine.start(waits, id="good")
        await engine.projections.wait_until_caught_up()
        await spoil(open_engine.store, "bad")
        with pytest.raises(UnknownEventTypeError):
            await bad.signal(go)

        async def listed() -> bool:
            rows = [row async for row in engine.visibility.list("")]
            return {row.workflow_id: row.stuck_reason for row in rows} == {
                "bad": "aion_workflow-bad@1: unknown event type 'FromTheFuture'",
                "good": None,
            }

        await until(listed)


async def test_who_waits_for_an_end_that_cannot_be_read_is_told_so(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    """Recorded by another engine, which goes on with what it knows: nothing wakes the run here."""
    async with open_engine([waits], clock=clock, options=ONCE) as engine:
        await engine.start(waits, id="bad")
        waiting = asyncio.ensure_future(engine.handle("bad").result(timeout=SOON))
        await asyncio.sleep(0)
        await spoil(open_engine.store, "bad", "WorkflowFailed")
        with pytest.raises(EventDecodeError, match="aion_workflow-bad@1: cannot read"):
            await waiting
        with pytest.raises(EventDecodeError, match="aion_workflow-bad@1: cannot read"):
            await engine.handle("bad").result(timeout=SOON)


@resident
async def test_a_client_that_waits_for_an_end_which_it_cannot_read_is_told_so(
    open_engine: EngineOpener, tmp_path: Path
) -> None:
    store = open_engine.store
    async with open_engine([waits]) as engine:
        await engine.start(waits, id="bad")
    async with Client.open(store, read_model=f"sqlite:///{tmp_path / 'readmodel.db'}") as client:
        before = store.called["next_batch"]
        waiting = asyncio.ensure_future(client.handle("bad").result(timeout=SOON))
        await until(lambda: store.called["next_batch"] > before)
        await spoil(store, "bad", "WorkflowFailed")
        with pytest.raises(EventDecodeError, match="aion_workflow-bad@1: cannot read"):
            await waiting


@resident
async def test_a_parked_run_that_cannot_be_read_is_not_read_again_for_each_who_asks(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    options = EngineOptions(restarts=RestartPolicy(max_restarts=0))
    async with open_engine([waits], clock=clock, options=options) as engine:
        bad = await engine.start(waits, id="bad")
        await spoil(open_engine.store, "bad")
        for _ in range(2):  # once because it comes, once because it is parked and something is new
            with pytest.raises(UnknownEventTypeError):
                await bad.signal(go)
        reads = open_engine.store.called["read"]
        for _ in range(20):
            with pytest.raises(UnknownEventTypeError):
                await bad.signal(go)
        assert open_engine.store.called["read"] == reads
        assert state(engine, "bad") == ("parked", 2)


async def test_a_run_of_which_nothing_could_be_read_is_shown_without_its_type(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine([waits], clock=clock) as engine:
        await engine.start(waits, id="bad")
        await engine.projections.wait_until_caught_up()
    await spoil(open_engine.store, "bad", "SignalReceived")
    async with open_engine([waits], clock=clock, options=ONCE) as engine:
        with pytest.raises(EventDecodeError):
            await engine.handle("bad").signal(go)
        (of_type,) = engine.supervision.tree().types
        (run,) = of_type.runs
        assert (of_type.workflow_type, run.workflow_id, run.run_id) == (UNREAD, "bad", "")
        assert (run.state, run.restarts) == ("restarting", 1)
        assert (await engine.health()).stuck == 1


async def test_a_failure_of_the_engine_itself_costs_one_run_a_restart_and_no_fact(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    is_broken = True

    def send(aggregate: Workflow, at: datetime) -> None:
        if is_broken:
            raise ZeroDivisionError("a bug of ours")
        message = SignalMessage(signal_id=SignalId("s"), name="go", payload=NOTHING)
        aggregate.receive_signal(message, at=at)

    async with open_engine([waits], clock=clock, options=ONCE) as engine:
        handle = await engine.start(waits, id="w")
        engine._core.post_fact(handle.workflow_id, handle.run_id, send)  # type: ignore[arg-type]  # as couriers do
        await until(lambda: state(engine, "w") == ("restarting", 1))
        shown = node(engine, "w")
        assert shown is not None
        assert shown.last_error == "internal error, please report: ZeroDivisionError: a bug of ours"
        with pytest.raises(InternalError):
            await handle.signal(go)
        is_broken = False
        clock.advance(timedelta(seconds=1))
        assert await handle.result(timeout=SOON) == "went"
        assert await stream_of(engine, "w") == [
            "WorkflowStarted",
            "SignalReceived",
            "WorkflowCompleted",
        ]


async def test_a_command_at_which_the_engine_fails_costs_nobody_else_anything(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    def breaks(aggregate: Workflow, at: datetime) -> None:
        raise ZeroDivisionError("a bug of ours")

    async with open_engine([waits], clock=clock, options=ONCE) as engine:
        handle = await engine.start(waits, id="w")
        for _ in range(3):
            with pytest.raises(InternalError, match="ZeroDivisionError: a bug of ours"):
                await engine._core.request(handle.workflow_id, breaks)
        assert engine.supervision.stuck == 0
        await handle.signal(go)
        assert await handle.result(timeout=SOON) == "went"


async def test_recovery_ends_where_an_errand_meets_a_stream_that_cannot_be_read(
    open_engine: EngineOpener,
) -> None:
    store = open_engine.store
    options = EngineOptions(shutdown_grace=timedelta(0))
    async with open_engine([waits, asks, answers], options=options) as engine:
        await engine.start(waits, id="good")
        store.crash_after(1)
        await engine.start(asks, id="parent")
        await store.crashed.wait()
    store.heal()
    await spoil(store, "parent")
    async with open_engine([waits, asks, answers]) as engine:
        await until(lambda: _stand_still(engine))
        for status in await engine.projections.status():
            if status.failed_position is not None:
                await engine.projections.skip(status.name, status.failed_position)
        await engine.wait_recovered(SOON)
        handle = engine.handle("good")
        await handle.signal(go)
        assert await handle.result(timeout=SOON) == "went"


async def _stand_still(engine: Engine) -> bool:
    return sum(s.failed_position is not None for s in await engine.projections.status()) == 1


async def test_rows_that_stand_still_are_said_to_hold_up_recovery_until_the_event_is_skipped(
    open_engine: EngineOpener, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("aion_es.engine.recovery._LOOK_AFTER", timedelta(milliseconds=20))
    async with open_engine([waits]) as engine:
        await engine.start(waits, id="bad")
    await spoil(open_engine.store, "bad")
    caplog.clear()
    async with open_engine([waits]) as engine:
        await until(lambda: "engine.projections.skip" in caplog.text)
        health = await engine.health()
        assert (health.is_recovered, health.is_ready) == (False, False)
        reason = "UnknownEventTypeError: aion_workflow-bad@1: unknown event type 'FromTheFuture'"
        assert health.recovery_error == reason
        projection = next(s for s in health.projections if s.error is not None)
        assert projection.failed_position is not None
        member = engine.projections._members["pending_work"]
        before = member.failures
        await until(lambda: member.failures > before)  # tried again, and said once
        said = [r.name for r in caplog.records if "stands still" in r.getMessage()]
        assert sorted(said) == ["aion_es.projections", "aion_es.recovery"]
        await engine.projections.skip("pending_work", projection.failed_position)
        await engine.wait_recovered(SOON)
        health = await engine.health()
        assert (health.is_ready, health.recovery_error) == (True, None)


async def test_what_is_recorded_before_an_event_that_cannot_be_read_is_taken_up_all_the_same(
    open_engine: EngineOpener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aion_es.engine.recovery._LOOK_AFTER", timedelta(milliseconds=20))
    async with open_engine([waits]) as engine:
        for workflow_id in ("bad", "good"):
            await engine.start(waits, id=workflow_id)
    await signal_from_outside(open_engine.store, "good")
    await spoil(open_engine.store, "bad")
    async with open_engine([waits]) as engine:
        assert await engine.handle("good").result(timeout=SOON) == "went"
        assert not (await engine.health()).is_recovered


async def test_timers_fire_while_the_rows_that_would_bring_them_in_stand_still(
    open_engine: EngineOpener, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aion_es.engine.recovery._LOOK_AFTER", timedelta(milliseconds=20))
    async with open_engine([waits, sleeps], clock=clock) as engine:
        await engine.start(waits, id="bad")
        await engine.wait_recovered(SOON)
        await spoil(open_engine.store, "bad")
        await until(lambda: _stand_still(engine))
        clock.advance(timedelta(minutes=6))
        await until(lambda: engine._core.effects.horizon is None)
        handle = await engine.start(sleeps, id="sleeper")
        clock.advance(timedelta(hours=3))
        assert await handle.result(timeout=SOON) == "rested"


@pytest.mark.parametrize("kind", ["WorkflowCompleted", "WorkflowContinuedAsNew"])
async def test_an_engine_hears_of_what_comes_after_an_end_that_cannot_be_read(
    open_engine: EngineOpener, kind: str
) -> None:
    async with open_engine([waits]) as engine:
        await engine.start(waits, id="bad")
        good = await engine.start(waits, id="good")
        await spoil(open_engine.store, "bad", kind, metadata=b"not ours")
        await signal_from_outside(open_engine.store, "good")
        assert await good.result(timeout=SOON) == "went"

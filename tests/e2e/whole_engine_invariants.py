"""What holds of an engine's streams and rows whenever it has come to rest, told as naively as can be."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select

from aion_es import Engine
from aion_es.aggregates.state import WorkflowState
from aion_es.engine.replay import bring_back
from aion_es.events.codec import decode_envelope
from aion_es.events.metadata import Envelope
from aion_es.events.workflow import (
    ActivityCompleted,
    ActivityScheduled,
    ActivityStarted,
    SignalReceived,
    TimerFired,
    TimerStarted,
    WorkflowEvent,
    WorkflowStarted,
)
from aion_es.projections import PendingWorkProjection, VisibilityProjection
from aion_es.projections.pending_tables import CHILDREN, OWED, RUNS, SIGNALS
from aion_es.projections.visibility_tables import EXECUTIONS
from aion_es.store.port import RecordedEvent
from tests.unit.projections.histories import all_rows, rows_after

STATUS = {
    "WorkflowStarted": "Running",
    "WorkflowReopened": "Running",
    "WorkflowResumed": "Running",
    "WorkflowPaused": "Paused",
    "WorkflowCompleted": "Completed",
    "WorkflowFailed": "Failed",
    "WorkflowCancelled": "Cancelled",
    "WorkflowTerminated": "Terminated",
    "WorkflowTimedOut": "TimedOut",
    "WorkflowContinuedAsNew": "ContinuedAsNew",
}
OPEN = {"Running", "Paused"}

Run = list[Envelope[WorkflowEvent]]


def runs_of(stream: Sequence[RecordedEvent]) -> list[Run]:
    """Cut a stream into its runs."""
    runs: list[Run] = []
    for recorded in stream:
        envelope: Any = decode_envelope(recorded)
        if isinstance(envelope.event, WorkflowStarted):
            runs.append([])
        runs[-1].append(envelope)
    return runs


def check_stream(stream: Sequence[RecordedEvent]) -> None:
    """Check the form of one workflow's stream: numbered, cut into leases that end once, without a fact twice."""
    assert [event.revision for event in stream] == list(range(len(stream)))
    assert stream[0].type == "WorkflowStarted"
    status = ""
    for event in stream:
        told = STATUS.get(event.type)
        if event.type == "WorkflowStarted":
            assert status not in OPEN, "a run began before the last one had ended"
        elif event.type == "WorkflowReopened":
            assert status not in OPEN | {"Completed", "ContinuedAsNew"}
        else:
            assert status in OPEN, f"{event.type} was recorded of a run that was {status}"
        status = told or status
    assert status != "ContinuedAsNew", "nobody went on"
    received: Counter[tuple[str, str]] = Counter()
    for run in runs_of(stream):
        check_run(run)
        first = run[0].event
        assert isinstance(first, WorkflowStarted)
        received.update(
            (first.first_run_id, e.event.signal_id)
            for e in run
            if isinstance(e.event, SignalReceived)
        )
    assert not [key for key, count in received.items() if count > 1], "a signal was received twice"


def check_run(run: Run) -> None:
    """Check that every fact of a run is there once, after what it is a fact of."""
    started = run[0].event
    assert isinstance(started, WorkflowStarted)
    assert {envelope.run_id for envelope in run} == {started.run_id}
    instants = [envelope.metadata.recorded_at for envelope in run]
    assert instants == sorted(instants)
    asked: set[tuple[str, object]] = set()
    facts: Counter[tuple[str, object]] = Counter()
    attempts: dict[object, int] = defaultdict(int)
    for envelope in run:
        match envelope.event:
            case ActivityScheduled(activity_id=number):
                assert ("activity", number) not in asked
                asked.add(("activity", number))
            case ActivityStarted(activity_id=number, attempt=attempt):
                assert attempt == attempts[number] + 1, "attempts do not count up by one"
                attempts[number] = attempt
            case ActivityCompleted(activity_id=number, attempt=attempt):
                assert attempt == attempts[number]
                facts["activity", number] += 1
            case TimerStarted(timer_id=timer):
                asked.add(("timer", timer))
            case TimerFired(timer_id=timer):
                facts["timer", timer] += 1
            case _:
                pass
    assert set(facts) <= asked
    assert set(facts.values()) <= {1}


async def unsaid(engine: Engine, stream: Sequence[RecordedEvent]) -> str:
    """Return what the code of an open run would do beyond what is recorded; empty if that is nothing.

    The code of every run must do again, strictly, what is recorded.
    """
    core: Any = engine._core  # the only way to the code of a run
    for run in runs_of(stream):
        first = run[0].event
        assert isinstance(first, WorkflowStarted)
        workflow_id = stream[0].stream.partition("-")[2]
        workflow = engine.repository.fold(workflow_id, run)
        definition = core.pinned(first.workflow_type, first.package_version)
        execution = bring_back(definition, workflow, run, core.surroundings)
        commands = execution.take_commands()
        execution.close()
        if workflow.state.is_open and commands:
            return f"{workflow_id}: the code commands {commands}, and nobody lets it"
    return ""


async def check_statuses(engine: Engine, streams: dict[str, list[RecordedEvent]]) -> None:
    """Check the rows of runs and their statuses against the streams, event by event."""
    expected: list[tuple[str, str, str]] = []
    for stream, events in streams.items():
        for run in runs_of(events):
            told = [STATUS[k] for e in run if (k := type(e.event).__name__) in STATUS]
            started = run[0].event
            assert isinstance(started, WorkflowStarted)
            expected.append((stream.partition("-")[2], started.run_id, told[-1]))
    columns = (EXECUTIONS.c.workflow_id, EXECUTIONS.c.run_id, EXECUTIONS.c.status)
    found = await engine.read_model.read(lambda c: c.execute(select(*columns)).all())
    assert sorted(tuple(row) for row in found) == sorted(expected)
    rows = select(RUNS.c.workflow_id, RUNS.c.run_id, RUNS.c.status)
    pending = await engine.read_model.read(lambda c: c.execute(rows).all())
    assert sorted(tuple(row) for row in pending) == sorted(e for e in expected if e[2] in OPEN)


async def check_rows(engine: Engine, streams: dict[str, list[RecordedEvent]]) -> None:
    """Check every row of both projections against a fold of all events that begins from nothing."""
    events = sorted((e for s in streams.values() for e in s), key=lambda e: e.position)
    for projection in (PendingWorkProjection(), VisibilityProjection()):
        found = await engine.read_model.read(lambda c, p=projection: all_rows(c, p))  # type: ignore[misc]  # bound at once
        for table, expected in rows_after(projection, [events]).items():
            there, wanted = set(found[table]), set(expected)
            assert there == wanted, f"{table}: {there - wanted} instead of {wanted - there}"


async def unrest(engine: Engine, streams: dict[str, list[RecordedEvent]], now: datetime) -> str:
    """Return what should have happened by now and has not; empty if all is at rest."""
    for stream in streams:
        workflow = await engine.repository.load(stream.partition("-")[2])
        overdue = _overdue(workflow.state, now) if workflow.state.is_open else ""
        if overdue:
            return f"{stream}: {overdue}"
    children, signals = await engine.read_model.read(
        lambda c: (
            c.execute(select(CHILDREN).where(OWED)).all(),
            c.execute(select(SIGNALS)).all(),
        )
    )
    # One that nobody could take, from a run that has closed and can be told nothing, stays on its way.
    owed = [signal for signal in signals if signal.phase != "left"]
    return f"owed: {children}, {owed}" if children or owed else ""


def status_of(stream: Sequence[RecordedEvent]) -> str:
    """Return the status of a workflow as its stream tells it; empty if there is none."""
    return next((STATUS[event.type] for event in reversed(stream) if event.type in STATUS), "")


def _overdue(state: WorkflowState, now: datetime) -> str:
    for timer_id, fire_at in state.live_timers.items():
        if fire_at <= now:
            return f"timer {timer_id} is due and has not fired"
    for activity_id, activity in state.activities.items():
        if state.paused or not activity.is_pending:
            continue
        if activity.phase != "backoff":
            return f"activity {activity_id} is {activity.phase} and does not end"
        if activity.retry_at is not None and activity.retry_at <= now:
            return f"activity {activity_id} is to be tried again and is not"
    return ""

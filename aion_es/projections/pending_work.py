"""The `pending_work` projection: what the engine recovers from, so that no history is read at start-up.

A batch is folded in memory, stream by stream, and only the net change is written: a run that starts and
completes within one batch writes nothing.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar, Final

from sqlalchemy import Connection, Table

from aion_es.aggregates.status import WorkflowStatus
from aion_es.events import workflow as ev
from aion_es.events.codec import decode
from aion_es.events.metadata import was_activated
from aion_es.projections import bulk
from aion_es.projections.changes import Rows
from aion_es.projections.glance import STATUS_AFTER, last_of
from aion_es.projections.pending_couriers import Children, Signals
from aion_es.projections.pending_fold import (
    Activity,
    OpenRun,
    Timer,
    begun,
    fold,
    frozen,
    is_reopenable,
    recorded_at,
    reopen,
    run_of,
    thawed,
)
from aion_es.projections.pending_tables import (
    ACTIVITIES,
    CLOSED,
    METADATA,
    RUNS,
    TIMERS,
    VERSIONS,
)
from aion_es.projections.workflow_projection import Histories, WorkflowProjection
from aion_es.store.port import RecordedEvent

_WAKES: Final = frozenset(
    {
        "WorkflowCancelRequested",
        "WorkflowResumed",
        "WorkflowReopened",
        "SignalReceived",
        "SignalDelivered",
        "SignalSendFailed",
        "ChildWorkflowCompleted",
        "ChildWorkflowFailed",
        "ChildWorkflowCancelled",
    }
)
"""Events that the run's code has something to do about; beside a start, and what `fold` says so of."""

_FINAL: Final = frozenset({"WorkflowCompleted", "WorkflowContinuedAsNew"})
"""What a run waited for before one of these is of no interest: it can never be reopened."""
_OWN_WORK: Final = frozenset(
    {
        "ActivityScheduled",
        "ActivityStarted",
        "ActivityCompleted",
        "ActivityFailed",
        "ActivityCancelled",
        "TimerStarted",
        "TimerFired",
        "TimerCancelled",
    }
)
_NO_WORK: Final = frozenset(
    {
        "ActivityCancelRequested",
        "WithTimeoutCompleted",
        "MarkerRecorded",
        "SearchAttributesUpdated",
    }
)


class PendingWorkProjection(WorkflowProjection[OpenRun]):
    """Open runs and what they wait for; read through `PendingWorkIndex`."""

    name: ClassVar[str] = "pending_work"
    version: ClassVar[int] = 2
    tables: ClassVar[Sequence[Table]] = tuple(METADATA.sorted_tables)

    def fold(self, connection: Connection, histories: Histories) -> dict[str, OpenRun]:
        """Fold the events and write what changed."""
        work = _Batch(connection, self._known(connection, histories))
        for workflow_id, events in histories.items():
            work.fold(workflow_id, events)
        work.write()
        return work.runs

    def _known(self, connection: Connection, histories: Histories) -> dict[str, OpenRun]:
        """Return the runs that these events go on with: those in memory, and the others read at once."""
        known, missing = self.take_remembered(histories)
        known.update(_read_runs(connection, missing))
        closed = [
            workflow_id
            for workflow_id in missing
            if workflow_id not in known
            and any(event.type == "WorkflowReopened" for event in histories[workflow_id])
        ]
        for workflow_id, _, work in bulk.select(
            connection, CLOSED, ("workflow_id",), [(workflow_id,) for workflow_id in closed]
        ):
            known[workflow_id] = thawed(work)
        return known


class _Batch:
    """One batch being folded: the runs that it touches, and what it changes beside them."""

    def __init__(self, connection: Connection, runs: dict[str, OpenRun]) -> None:
        self.runs = runs
        self._connection = connection
        self._children = Children()
        self._signals = Signals()
        self._opened: Counter[tuple[str, str]] = Counter()
        self._unfrozen: list[tuple[str]] = []

    def fold(self, workflow_id: str, events: Sequence[RecordedEvent]) -> None:
        """Fold the events of one stream."""
        final = last_of(events, _FINAL)
        for index, event in enumerate(events):
            if event.type == "WorkflowStarted":
                self._children.at = event.position
                self._start(workflow_id, event)
                continue
            run = self.runs.get(workflow_id)
            if run is None:
                continue  # foreign history: the fold never refuses
            run.revision = event.revision
            wakes = event.type in _WAKES
            if event.type in _OWN_WORK:
                if index > final:
                    wakes = fold(run, event)
            elif event.type not in _NO_WORK:
                self._other(run, event)
            if was_activated(event.metadata):
                run.unseen = False
            elif wakes:
                run.unseen = True

    def write(self) -> None:
        """Write the net change of the batch."""
        closed = [run for run in self.runs.values() if not run.status.is_open]
        gone = [run for run in closed if run.stored]
        bulk.delete(self._connection, RUNS, ("workflow_id",), [(run.workflow_id,) for run in gone])
        bulk.delete(self._connection, CLOSED, ("workflow_id",), self._unfrozen)
        kept = [(r.workflow_id, r.run_id, frozen(r)) for r in closed if is_reopenable(r)]
        bulk.upsert(self._connection, CLOSED, kept)
        for run in closed:
            run.activities.clear()
            run.timers.clear()
        opened = [run for run in self.runs.values() if run.status.is_open]
        bulk.upsert(self._connection, RUNS, [run.row() for run in opened])
        for run in opened:
            run.stored = True
        self._write_activities()
        self._write_timers()
        self._children.write(self._connection)
        self._signals.write(self._connection)
        self._write_versions()

    # ------------------------------------------------------------------------------- folding

    def _start(self, workflow_id: str, event: RecordedEvent) -> None:
        started: Any = decode(event)
        run = begun(workflow_id, started, event.revision)
        # The activation that continued as new marks the last event of its batch, which is this one; but
        # it was the former run's, and what the successor's code has to do is still unseen.
        run.unseen = started.parent_run_id is not None or not was_activated(event.metadata)
        former = self.runs.get(workflow_id)
        if former is not None:  # its rows have the same keys: they are this run's to replace
            run.stored, run.activities, run.timers = (
                former.stored,
                former.activities,
                former.timers,
            )
            run.activities.clear()
            run.timers.clear()
        self.runs[workflow_id] = run
        self._opened[run.version] += 1
        if event.revision:
            self._unfrozen.append((workflow_id,))
            self._children.renewed(workflow_id, run.run_id)
        self._child_is(run, "started")

    def _other(self, run: OpenRun, event: RecordedEvent) -> None:
        self._children.at = self._signals.at = event.position
        if event.type in _FINAL:
            self._turn(run, STATUS_AFTER[event.type])
            return
        decoded: Any = decode(event)
        match decoded:
            case ev.SignalReceived():
                self._signals.arrived(run.workflow_id, decoded.signal_id)
            case ev.SignalSent():
                self._signals.sent(run.workflow_id, run.run_id, decoded)
            case ev.SignalDelivered() | ev.SignalSendFailed():
                self._signals.settled(run.workflow_id, decoded.signal_id)
            case ev.ChildWorkflowStarted():
                self._children.requested(run.workflow_id, run.run_id, decoded)
            case ev.ChildWorkflowCancelRequested():
                self._children.unwanted(run.workflow_id, run.run_id, decoded.child_workflow_id)
            case ev.ChildWorkflowCompleted():
                self._children.completed(run.workflow_id, run.run_id, decoded.child_workflow_id)
            case ev.ChildWorkflowFailed() | ev.ChildWorkflowCancelled():
                self._children.told(run.workflow_id, run.run_id, decoded.child_workflow_id)
            case ev.WorkflowCancelRequested():
                self._child_is(run, "cancel_requested")
            case ev.WorkflowReopened():
                self._reopen(run, decoded, event)
            case _:
                self._turn(run, STATUS_AFTER[event.type])

    def _turn(self, run: OpenRun, status: WorkflowStatus | None) -> None:
        """Give the run its new status; a terminal ends what it waits for."""
        if status is None:
            return
        was_open, run.status = run.status.is_open, status
        if status.is_open or not was_open:
            return
        self._opened[run.version] -= 1
        final = not is_reopenable(run)
        self._signals.sender_closed(run.workflow_id, run.run_id)
        self._children.parent_is(run.workflow_id, run.run_id, "final" if final else "closed")
        if final:
            run.activities.clear()
            run.timers.clear()
        if (
            status is not WorkflowStatus.CONTINUED_AS_NEW
        ):  # else the chain, which is the child, goes on
            self._child_is(run, "closed")

    def _reopen(self, run: OpenRun, event: ev.WorkflowReopened, recorded: RecordedEvent) -> None:
        if run.status.is_open:
            return
        reopen(run, event, recorded_at(recorded))
        self._opened[run.version] += 1
        self._unfrozen.append((run.workflow_id,))
        self._children.parent_is(run.workflow_id, run.run_id, "open")
        for child_id in () if event.taken_back is None else event.taken_back.awaited:
            self._children.awaited(run.workflow_id, run.run_id, child_id)
        self._child_is(run, "started")

    def _child_is(self, run: OpenRun, phase: Any) -> None:
        if run.parent_workflow_id is not None and run.parent_run_id is not None:
            key = (run.parent_workflow_id, run.parent_run_id, run.workflow_id)
            self._children.child_is(key, phase)

    # ------------------------------------------------------------------------------- writing

    def _write_activities(self) -> None:
        rows: list[bulk.Row] = []
        gone: list[bulk.Row] = []
        for workflow_id, run in self.runs.items():
            if not run.activities.changed:
                continue
            written, deleted = run.activities.settle()
            rows.extend(
                (
                    workflow_id,
                    key,
                    run.run_id,
                    a.activity_type,
                    a.task_queue,
                    a.phase,
                    a.attempt,
                    a.retry_at,
                    a.scheduled_at,
                )
                for key, a in ((key, a.decoded()) for key, a in written)
            )
            gone.extend((workflow_id, key) for key in deleted)
        bulk.delete(self._connection, ACTIVITIES, ("workflow_id", "activity_id"), gone)
        bulk.upsert(self._connection, ACTIVITIES, rows)

    def _write_timers(self) -> None:
        rows: list[bulk.Row] = []
        gone: list[bulk.Row] = []
        for workflow_id, run in self.runs.items():
            if not run.timers.changed:
                continue
            written, deleted = run.timers.settle()
            rows.extend((workflow_id, key, run.run_id, t.fire_at, t.torn) for key, t in written)
            gone.extend((workflow_id, key) for key in deleted)
        bulk.delete(self._connection, TIMERS, ("workflow_id", "timer_id"), gone)
        bulk.upsert(self._connection, TIMERS, rows)

    def _write_versions(self) -> None:
        changed = {version: change for version, change in self._opened.items() if change}
        names = ("workflow_type", "package_version")
        for *version, count in bulk.select(self._connection, VERSIONS, names, list(changed)):
            changed[version[0], version[1]] += count
        bulk.upsert(self._connection, VERSIONS, [(*v, n) for v, n in changed.items() if n])
        bulk.delete(self._connection, VERSIONS, names, [v for v, n in changed.items() if not n])


def _read_runs(connection: Connection, workflow_ids: Sequence[str]) -> dict[str, OpenRun]:
    """Return the open runs among `workflow_ids` as the database has them."""
    ids = [(workflow_id,) for workflow_id in workflow_ids]
    rows = bulk.select(connection, RUNS, ("workflow_id",), ids)
    found = [(row[0],) for row in rows]
    activities: dict[str, list[tuple[int, Activity]]] = {}
    for workflow_id, key, _, kind, queue, phase, attempt, retry_at, at in bulk.select(
        connection, ACTIVITIES, ("workflow_id",), found
    ):
        row = (key, Activity(phase, attempt, retry_at, kind, queue, at))
        activities.setdefault(workflow_id, []).append(row)
    timers: dict[str, list[tuple[str, Timer]]] = {}
    for workflow_id, name, _, fire_at, torn in bulk.select(
        connection, TIMERS, ("workflow_id",), found
    ):
        timers.setdefault(workflow_id, []).append((name, Timer(fire_at, bool(torn))))
    runs: dict[str, OpenRun] = {}
    for row in rows:
        run = run_of(row)
        run.stored = True
        run.activities = Rows(activities.get(run.workflow_id, ()))
        run.timers = Rows(timers.get(run.workflow_id, ()))
        runs[run.workflow_id] = run
    return runs

"""What an open run waits for: the fold of its events, in the form of the `pending_work` rows."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Final, Literal, TypeAlias

from pydantic_core import from_json, to_json

from aion_es.aggregates.status import REOPENABLE, WorkflowStatus
from aion_es.events import workflow as ev
from aion_es.events.codec import decode, decode_metadata
from aion_es.projections.changes import Rows
from aion_es.projections.glance import attempted, scheduled
from aion_es.projections.instants import to_micros
from aion_es.store.port import RecordedEvent

Phase: TypeAlias = Literal["scheduled", "started", "backoff", "failed"]


@dataclass(slots=True)
class Activity:
    """One activity's row.

    Attributes:
        source: The ActivityScheduled that is yet to be decoded: most activities settle within the batch
            that schedules them, and are never looked at.
    """

    phase: Phase = "scheduled"
    attempt: int = 0
    retry_at: int | None = None
    activity_type: str = ""
    task_queue: str = ""
    scheduled_at: int = 0
    source: RecordedEvent | None = None

    def decoded(self) -> "Activity":
        """Return the row with all its columns."""
        if self.source is not None:
            event: Any = decode(self.source)
            self.activity_type, self.task_queue = event.activity_type, event.task_queue
            self.scheduled_at = recorded_at(self.source)
            self.source = None
        return self


@dataclass(slots=True)
class Timer:
    """One timer's row."""

    fire_at: int
    torn: bool = False


def _no_activities() -> Rows[int, Activity]:
    return Rows()


def _no_timers() -> Rows[str, Timer]:
    return Rows()


@dataclass(slots=True)
class OpenRun:
    """One open run; `status` turns to a closed one when its terminal is folded, until the batch is written.

    Attributes:
        stored: The database has a row of this workflow id.
    """

    workflow_id: str
    run_id: str
    workflow_type: str
    package_version: str
    task_queue: str
    status: WorkflowStatus
    revision: int
    unseen: bool
    run_deadline: int | None
    execution_deadline: int | None
    parent_workflow_id: str | None
    parent_run_id: str | None
    stored: bool = False
    activities: Rows[int, Activity] = field(default_factory=_no_activities)
    timers: Rows[str, Timer] = field(default_factory=_no_timers)

    @property
    def version(self) -> tuple[str, str]:
        """Type and version of its code."""
        return self.workflow_type, self.package_version

    def row(self) -> tuple[Any, ...]:
        """Return the row of `pending_runs`."""
        return (
            self.workflow_id,
            self.run_id,
            self.workflow_type,
            self.package_version,
            self.task_queue,
            str(self.status),
            self.revision,
            self.unseen,
            self.run_deadline,
            self.execution_deadline,
            self.parent_workflow_id,
            self.parent_run_id,
        )


def run_of(row: Sequence[Any]) -> OpenRun:
    """Return the run whose `row()` this is, without its activities and timers."""
    workflow_id, run_id, kind, version, queue, status, revision, unseen, *rest = row
    run_deadline, execution_deadline, parent_workflow_id, parent_run_id = rest
    return OpenRun(
        workflow_id,
        run_id,
        kind,
        version,
        queue,
        WorkflowStatus(status),
        revision,
        bool(unseen),
        run_deadline,
        execution_deadline,
        parent_workflow_id,
        parent_run_id,
    )


def begun(workflow_id: str, event: ev.WorkflowStarted, revision: int) -> OpenRun:
    """Return the run that `event` begins."""
    return OpenRun(
        workflow_id,
        event.run_id,
        event.workflow_type,
        event.package_version,
        event.task_queue,
        WorkflowStatus.RUNNING,
        revision,
        False,
        None if event.run_deadline is None else to_micros(event.run_deadline),
        None if event.execution_deadline is None else to_micros(event.execution_deadline),
        None if event.parent is None else event.parent.workflow_id,
        None if event.parent is None else event.parent.run_id,
    )


def fold(run: OpenRun, event: RecordedEvent) -> bool:
    """Take in one event of an activity or timer; return whether it settles what the code may wait for."""
    match event.type:
        case "ActivityScheduled":
            run.activities.put(scheduled(event)[0], Activity(source=event))
        case "ActivityStarted":
            activity_id, attempt = attempted(event)
            _attempted(run, activity_id, "started", attempt, None)
        case "ActivityCompleted":
            run.activities.drop(attempted(event)[0])
            return True
        case "ActivityCancelled":  # kept as one that failed: a reopening may name it
            activity_id, attempt = attempted(event)
            _attempted(run, activity_id, "failed", attempt, None)
            return True
        case "ActivityFailed":
            return _failed(run, event)
        case _:
            return _timer(run, event)
    return False


def _failed(run: OpenRun, event: RecordedEvent) -> bool:
    failed: Any = decode(event)
    final = failed.retry_at is None
    retry_at = None if final else to_micros(failed.retry_at)
    _attempted(run, failed.activity_id, "failed" if final else "backoff", failed.attempt, retry_at)
    return final


def _timer(run: OpenRun, event: RecordedEvent) -> bool:
    decoded = decode(event)
    match decoded:
        case ev.TimerStarted():
            run.timers.put(decoded.timer_id, Timer(to_micros(decoded.fire_at)))
        case ev.TimerFired():
            run.timers.drop(decoded.timer_id)
            return True
        case ev.TimerCancelled():
            timer = run.timers.drop(decoded.timer_id)
            if timer is not None and decoded.cause == "teardown":
                run.timers.put(decoded.timer_id, Timer(timer.fire_at, torn=True))
        case _:
            pass
    return False


def recorded_at(event: RecordedEvent) -> int:
    """Return when the event was recorded, by the writer's clock, in microseconds."""
    return to_micros(decode_metadata(event).recorded_at)


def _attempted(
    run: OpenRun, activity_id: int, phase: Phase, attempt: int, retry_at: int | None
) -> None:
    activity = run.activities.now.get(activity_id)
    if activity is not None:
        activity.phase, activity.attempt, activity.retry_at = phase, attempt, retry_at
        run.activities.put(activity_id, activity)


def reopen(run: OpenRun, event: ev.WorkflowReopened, at: int) -> None:
    """Take a closed run back to Running: what failed and what was pending runs again, torn timers are live.

    Except for what is void by it.
    """
    run.status = WorkflowStatus.RUNNING
    if event.taken_back is not None:
        for void in event.taken_back.activities:
            run.activities.drop(void)
        for name in event.taken_back.timers:
            run.timers.drop(name)
    for activity_id, activity in list(run.activities.now.items()):
        if activity_id in event.reopened or activity.phase != "failed":
            activity.decoded().scheduled_at = at
            _attempted(run, activity_id, "scheduled", activity.attempt, None)
    for timer_id, timer in list(run.timers.now.items()):
        run.timers.put(timer_id, Timer(timer.fire_at))
    # As in the aggregate: a deadline that has passed would close the run again at once.
    if run.run_deadline is not None and run.run_deadline <= at:
        run.run_deadline = None
    if run.execution_deadline is not None and run.execution_deadline <= at:
        run.execution_deadline = None


def is_reopenable(run: OpenRun) -> bool:
    """True for a run that closed without doing what it was asked."""
    return run.status in REOPENABLE


_key: Final = itemgetter(0)  # the order in which a database gives rows back is nobody's business


def frozen(run: OpenRun) -> str:
    """Return what a closed run would wait for again, as the JSON that `thawed` reads."""
    activities = [
        (key, a.phase, a.attempt, a.retry_at, a.activity_type, a.task_queue, a.scheduled_at)
        for key, a in (
            (key, a.decoded()) for key, a in sorted(run.activities.now.items(), key=_key)
        )
    ]
    timers = [(key, t.fire_at, t.torn) for key, t in sorted(run.timers.now.items(), key=_key)]
    return to_json((run.row(), activities, timers)).decode()


def thawed(work: str) -> OpenRun:
    """Return the closed run that `frozen` wrote; none of its rows is stored."""
    row, activities, timers = from_json(work)
    run = run_of(row)
    for key, *rest in activities:
        run.activities.put(key, Activity(*rest))
    for key, fire_at, torn in timers:
        run.timers.put(key, Timer(fire_at, torn))
    return run

"""One attempt of an activity, from its place in the line to the end of its code, and where its outcome goes."""

import asyncio
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from aion_es.aggregates.state import ActivityState, WorkflowState
from aion_es.authoring.activities import ActivityInfo
from aion_es.authoring.definitions import Executor
from aion_es.engine.heartbeats import AttemptKey, Pulse
from aion_es.engine.queues import Ticket
from aion_es.engine.requests import Decide
from aion_es.ids import RunId, WorkflowId

Stage: TypeAlias = Literal["waiting", "beginning", "starting", "running"]
"""In line; being recorded as begun; given to the loop; in its code."""
AttemptOutcome: TypeAlias = Literal["completed", "failed", "timed_out", "cancelled", "abandoned"]
"""`abandoned`: the engine stopped, or nobody waits for it any more."""


class Outbox(Protocol):
    """Where outcomes go: the mailbox of the run they belong to."""

    def post_fact(self, workflow_id: WorkflowId, run_id: RunId, decide: Decide) -> None:
        """Record a fact about this run, for certain, unless the run has closed meanwhile."""
        ...

    def wake(self, workflow_id: WorkflowId, *, reclaim: bool = False) -> None:
        """Let a workflow look at its history; with `reclaim`, take up the activities it waits for."""
        ...


@dataclass(slots=True, eq=False)
class Attempt:
    """One attempt that is this engine's.

    Attributes:
        activity: What the history says of its activity.
        version: Of its run: activities of a package belong to a version.
        is_recorded: Its beginning is in the history, or on its way there.
        is_recorded_first: Its beginning must be there before its code runs.
        ticket: Its place in the line.
        task: What its code runs in.
        is_bounded: Timers watch over it.
        cancel_asked: The workflow no longer wants it, and its end is to be recorded as cancelled.
        counts: Its outcome will be recorded; not so once it timed out or was given up.
        outcome: How it ended, once it has.
        traceparent: W3C trace context in which its activity was scheduled; `None` where nobody records.
    """

    key: AttemptKey
    number: int
    activity: ActivityState
    version: str
    executor: Executor
    pulse: Pulse
    is_recorded: bool
    is_recorded_first: bool
    stage: Stage = "waiting"
    ticket: Ticket | None = None
    task: "asyncio.Task[None] | None" = None
    is_bounded: bool = False
    cancel_asked: bool = False
    counts: bool = True
    outcome: AttemptOutcome = "abandoned"
    traceparent: str | None = None

    def ended(self, outcome: AttemptOutcome) -> None:
        """Note how its code ended, unless it had come to nothing before."""
        if self.counts:
            self.outcome = outcome

    @property
    def is_stopped(self) -> bool:
        """Whether its task was told to end; if not, a `CancelledError` is its code's own."""
        return self.task is not None and self.task.cancelling() > 0

    @property
    def is_thrown_away(self) -> bool:
        """Whether its coroutine is closed from outside, because its loop has ended before it."""
        try:
            return asyncio.current_task() is not self.task
        except RuntimeError:  # no loop runs any more
            return True

    def is_awaited(self, activity: ActivityState, worker: str) -> bool:
        """Return whether `activity`, as the history has it now, waits for this attempt of `worker`."""
        if activity.phase == "started":
            return (activity.attempt, activity.worker) == (self.number, worker)
        return activity.is_pending and activity.attempt == self.number - 1


def is_recorded_first(activity: ActivityState, number: int) -> bool:
    """Return whether the beginning of an attempt must be in the history before its code runs.

    So it is if the attempt may be the last, for should it take the process down with it, that must count;
    and if somebody watches when it begins.
    """
    return (
        number > 1
        or activity.retry.max_attempts is not None
        or activity.timeouts.schedule_to_start is not None
        or activity.heartbeat is not None
        or activity.offered
    )


def info_of(
    key: AttemptKey, state: WorkflowState, activity: ActivityState, number: int
) -> ActivityInfo:
    """Return what an attempt may know about itself."""
    said = activity.heartbeat_details
    return ActivityInfo(
        workflow_id=key.workflow_id,
        run_id=key.run_id,
        workflow_type=state.workflow_type,
        activity_id=key.activity_id,
        activity_type=activity.activity_type,
        attempt=number,
        task_queue=activity.task_queue,
        idempotency_key=f"{key.run_id}/{key.activity_id}",
        scheduled_at=activity.scheduled_at,
        heartbeat_details=None if said is None else said.data,
    )

"""The effects of what was recorded: activities run, timers are armed, those who wait are told.

Nothing here decides and nothing here records. It reads what is in the stream by now, and every effect
that has a consequence sends it back as a command, through the outbox.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, ClassVar, Final, Literal, get_args

from aion_es.aggregates.aggregate import Pending
from aion_es.aggregates.state import ActivityState, WorkflowState
from aion_es.aggregates.workflow import Workflow
from aion_es.engine.dispatcher import AttemptKey, Dispatcher, Outbox
from aion_es.engine.process import RunProcess
from aion_es.engine.registry import Registration, Registry
from aion_es.engine.timers import TimerService
from aion_es.events.values import ActivityFailure
from aion_es.events.workflow import (
    ActivityCancelRequested,
    ActivityFailed,
    ActivityScheduled,
    ActivityStarted,
    TerminalEvent,
    TimerCancelled,
    TimerStarted,
    WorkflowEvent,
    WorkflowResumed,
    WorkflowStarted,
)
from aion_es.ids import ActivityId, RunId, TimerId, WorkflowId

WORKER_LOST: Final = "WorkerLost"
"""Error type of an attempt whose process died before it had an outcome."""
_LOOK_AGAIN: Final = timedelta(seconds=10)
"""After this long it is seen again whether what another engine was doing is still its to do."""


class Effects:
    """Carries out what committed events call for, once they are committed.

    Attributes:
        horizon: Timers due beyond it are not held in memory; `None` holds all.
        others: Workers of other engines that are alive: what they do is not taken up.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        timers: TimerService,
        registry: Registry,
        outbox: Outbox,
        worker: str,
    ) -> None:
        self.horizon: datetime | None = None
        self.others: frozenset[str] = frozenset()
        self._left_to_others: set[AttemptKey] = set()
        self._dispatcher = dispatcher
        self._timers = timers
        self._registry = registry
        self._outbox = outbox
        self._worker = worker

    def committed(self, process: RunProcess, batch: list[Pending[WorkflowEvent]]) -> None:
        """Carry out what a batch that was just recorded calls for, in its order."""
        for pending in batch:
            effect = self._EFFECTS.get(type(pending.event))
            if effect is not None and pending.run_id is not None:
                effect(self, process, pending.run_id, pending.event)

    def loaded(self, process: RunProcess, *, reclaim: bool) -> None:
        """Arm what a run that was just read waits for; take up its activities only if they are ours to take."""
        workflow = process.workflow
        if workflow is None or not workflow.exists:
            return
        state = workflow.state
        if state.terminal is not None:
            self._closed(process, state.run_id, state.terminal)
            return
        self._registered(process, state)
        for timer_id, fire_at in state.live_timers.items():
            self.arm(state.workflow_id, state.run_id, timer_id, fire_at)
        self._arm_deadlines(state)
        for activity_id, activity in state.activities.items():
            if activity.phase == "backoff":
                self._arm_retry(state, activity_id, activity)
            elif reclaim and activity.is_pending and not state.paused:
                self._reclaim(state, activity_id, activity)

    def _on_started(self, process: RunProcess, _run_id: RunId, _event: WorkflowStarted) -> None:
        if process.workflow is not None:
            self._registered(process, process.workflow.state)
            self._arm_deadlines(process.workflow.state)

    def _on_timer_started(self, process: RunProcess, run_id: RunId, event: TimerStarted) -> None:
        self.arm(process.workflow_id, run_id, event.timer_id, event.fire_at)

    def _on_timer_cancelled(
        self, process: RunProcess, run_id: RunId, event: TimerCancelled
    ) -> None:
        self._timers.discard(("timer", process.workflow_id, run_id, event.timer_id))

    def _on_activity_cancel_requested(
        self, process: RunProcess, run_id: RunId, event: ActivityCancelRequested
    ) -> None:
        activity_id = event.activity_id
        if self._dispatcher.cancel(AttemptKey(process.workflow_id, run_id, activity_id)):
            return  # its end is reported by who runs it
        self._timers.discard(("retry", process.workflow_id, run_id, activity_id))

        def cancel(workflow: Workflow, at: datetime) -> None:
            activity = workflow.state.activities[activity_id]
            if activity.is_pending:
                attempt = (
                    activity.attempt if activity.phase != "scheduled" else activity.attempt + 1
                )
                workflow.cancel_activity(activity_id, attempt, at=at)

        self._outbox.post_fact(process.workflow_id, run_id, cancel)

    def _on_resumed(self, process: RunProcess, _run_id: RunId, _event: WorkflowResumed) -> None:
        if process.workflow is not None:
            state = process.workflow.state
            for activity_id, activity in state.activities.items():
                if activity.phase == "scheduled":
                    self._dispatch(state, activity_id, activity)
                elif activity.phase == "backoff":
                    self._arm_retry(state, activity_id, activity)

    def _on_activity(
        self,
        process: RunProcess,
        run_id: RunId,
        event: ActivityScheduled | ActivityStarted | ActivityFailed,
    ) -> None:
        """Dispatch what has no outcome by the end of the batch; arm what will be retried."""
        if process.workflow is None:
            return
        state = process.workflow.state
        if state.run_id != run_id or state.terminal is not None:
            return
        activity = state.activities[event.activity_id]
        if activity.phase == "backoff":
            self._arm_retry(state, event.activity_id, activity)
        elif activity.phase in {"scheduled", "started"} and not state.paused:
            self._dispatch(state, event.activity_id, activity)

    def _stop_activities(self, process: RunProcess, run_id: RunId) -> None:
        """Stop what still runs for a run that has closed; nobody waits for its outcome."""
        if process.workflow is not None and process.workflow.state.run_id == run_id:
            for activity_id in process.workflow.state.pending.activities:
                self._dispatcher.cancel(AttemptKey(process.workflow_id, run_id, activity_id))

    def _closed(self, process: RunProcess, run_id: RunId, event: TerminalEvent) -> None:
        workflow_id = process.workflow_id
        self._stop_activities(process, run_id)
        self._registry.remove(workflow_id, run_id)
        self._registry.tell(workflow_id, run_id, event)
        process.stuck_reason = None
        self._timers.discard(("stuck", workflow_id))
        for timeout in ("run", "execution"):
            self._timers.discard(("deadline", workflow_id, run_id, timeout))
        if process.workflow is not None and process.workflow.state.run_id == run_id:
            for timer_id in process.workflow.state.torn_timers:
                self._timers.discard(("timer", workflow_id, run_id, timer_id))

    _EFFECTS: ClassVar[dict[type[Any], Callable[["Effects", RunProcess, RunId, Any], None]]] = {
        WorkflowStarted: _on_started,
        TimerStarted: _on_timer_started,
        TimerCancelled: _on_timer_cancelled,
        ActivityScheduled: _on_activity,
        ActivityStarted: _on_activity,
        ActivityFailed: _on_activity,
        ActivityCancelRequested: _on_activity_cancel_requested,
        WorkflowResumed: _on_resumed,
        **dict.fromkeys(get_args(TerminalEvent), _closed),
    }

    def _dispatch(
        self, state: WorkflowState, activity_id: ActivityId, activity: ActivityState
    ) -> None:
        number = activity.attempt if activity.phase == "started" else activity.attempt + 1
        if number > 1 and activity.phase == "scheduled":
            # Reopened: every attempt but the first is recorded before its code runs.
            self._start_attempt(state.workflow_id, state.run_id, activity_id, number)
            return
        key = AttemptKey(state.workflow_id, state.run_id, activity_id)
        self._dispatcher.dispatch(key, state.workflow_type, activity, number)

    def _start_attempt(
        self, workflow_id: WorkflowId, run_id: RunId, activity_id: ActivityId, number: int
    ) -> None:
        """Record that an attempt begins; its record, once committed, dispatches it."""

        def start(workflow: Workflow, at: datetime) -> None:
            activity = workflow.state.activities[activity_id]
            if activity.is_pending and activity.attempt == number - 1 and not workflow.state.paused:
                workflow.start_activity(activity_id, number, self._worker, at=at)

        self._outbox.post_fact(workflow_id, run_id, start)

    def _reclaim(
        self, state: WorkflowState, activity_id: ActivityId, activity: ActivityState
    ) -> None:
        """Take up an activity that some engine, perhaps this one, left behind."""
        if self._dispatcher.is_running(AttemptKey(state.workflow_id, state.run_id, activity_id)):
            return
        if self._is_anothers(state, activity_id, activity):
            workflow_id = state.workflow_id
            self._timers.add_after(
                ("reclaim", workflow_id),
                _LOOK_AGAIN,
                lambda: self._outbox.wake(workflow_id, reclaim=True),
            )
            return
        if activity.phase == "scheduled":
            self._start_attempt(state.workflow_id, state.run_id, activity_id, activity.attempt + 1)
            return
        number = activity.attempt
        lost = ActivityFailure(
            kind="retryable",
            type=WORKER_LOST,
            message=f"the process of worker {activity.worker} ended before the attempt did",
        )

        def lose(workflow: Workflow, at: datetime) -> None:
            known = workflow.state.activities[activity_id]
            if known.phase == "started" and known.attempt == number:
                workflow.fail_activity(activity_id, number, lost, at=at)

        self._outbox.post_fact(state.workflow_id, state.run_id, lose)

    def _is_anothers(
        self, state: WorkflowState, activity_id: ActivityId, activity: ActivityState
    ) -> bool:
        """Whether an engine that is alive runs the activity, or, as far as one can tell, is about to."""
        if activity.phase == "started":
            return activity.worker in self.others
        # Who scheduled it is not recorded: leave it to the others once, not for ever.
        key = AttemptKey(state.workflow_id, state.run_id, activity_id)
        if not self.others or key in self._left_to_others:
            self._left_to_others.discard(key)
            return False
        self._left_to_others.add(key)
        return True

    def _arm_retry(
        self, state: WorkflowState, activity_id: ActivityId, activity: ActivityState
    ) -> None:
        if activity.retry_at is None:
            return
        workflow_id, run_id, number = state.workflow_id, state.run_id, activity.attempt + 1
        self._timers.add(
            ("retry", workflow_id, run_id, activity_id),
            activity.retry_at,
            lambda: self._start_attempt(workflow_id, run_id, activity_id, number),
        )

    def arm(
        self, workflow_id: WorkflowId, run_id: RunId, timer_id: TimerId, fire_at: datetime
    ) -> None:
        """Fire a run's timer when it is due; one beyond the horizon is brought in later, from its row."""
        if self.horizon is not None and fire_at >= self.horizon:
            return
        self._timers.add(
            ("timer", workflow_id, run_id, timer_id),
            fire_at,
            lambda: self._outbox.post_fact(
                workflow_id, run_id, lambda w, at: w.fire_timer(timer_id, at=at)
            ),
        )

    def arm_deadline(
        self,
        workflow_id: WorkflowId,
        run_id: RunId,
        timeout: Literal["run", "execution"],
        deadline: datetime,
    ) -> None:
        """Time a run out when its deadline has passed."""
        if self.horizon is not None and deadline >= self.horizon:
            return
        self._timers.add(
            ("deadline", workflow_id, run_id, timeout),
            deadline,
            lambda: self._outbox.post_fact(
                workflow_id, run_id, lambda w, at: w.time_out(timeout, at=at)
            ),
        )

    def _arm_deadlines(self, state: WorkflowState) -> None:
        if state.run_deadline is not None:
            self.arm_deadline(state.workflow_id, state.run_id, "run", state.run_deadline)
        if state.execution_deadline is not None:
            self.arm_deadline(
                state.workflow_id, state.run_id, "execution", state.execution_deadline
            )

    def _registered(self, process: RunProcess, state: WorkflowState) -> None:
        known = self._registry.newest(state.workflow_id)
        if known is not None and known.run_id == state.run_id:
            known.residency, known.status = "resident", state.status
            return
        self._registry.register(
            Registration(
                state.workflow_id,
                state.run_id,
                state.workflow_type,
                state.package_version,
                state.status,
                "resident",
                self._registry.completion(state.workflow_id, state.run_id),
                process.stuck_reason,
            )
        )

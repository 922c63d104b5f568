"""What a run's activities call for: attempts are dispatched, retries and timeouts armed, lost attempts taken up.

As with all effects nothing here decides and nothing here records: it reads what is in the stream by now,
and sends what follows back as a command.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from aion_es.aggregates.state import ActivityState, WorkflowState
from aion_es.aggregates.workflow import Workflow
from aion_es.engine.attempts import Outbox
from aion_es.engine.dispatcher import Dispatcher
from aion_es.engine.heartbeats import AttemptKey, Heartbeats
from aion_es.engine.timers import TimerService, later
from aion_es.events.values import ActivityFailure
from aion_es.events.workflow import (
    ActivityCancelled,
    ActivityCompleted,
    ActivityFailed,
    ActivityScheduled,
    ActivityStarted,
)
from aion_es.ids import ActivityId
from aion_es.payload import Payload

WORKER_LOST: Final = "WorkerLost"
"""Error type of an attempt whose process died before it had an outcome."""
_LOOK_AGAIN: Final = timedelta(seconds=10)
"""After this long it is seen again whether what another engine was doing is still its to do."""


class ActivityEffects:
    """Carries out what the events of activities call for, once they are committed.

    Attributes:
        others: Workers of other engines that are alive: what they do is not taken up.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        timers: TimerService,
        heartbeats: Heartbeats,
        outbox: Outbox,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        worker: str,
        scheduled_in: Callable[[AttemptKey], str | None],
    ) -> None:
        self.others: frozenset[str] = frozenset()
        self._left_to_others: set[AttemptKey] = set()
        self._dispatcher = dispatcher
        self._timers = timers
        self._heartbeats = heartbeats
        self._outbox = outbox
        self._spawn = spawn
        self._worker = worker
        self._scheduled_in = scheduled_in
        self._loop = asyncio.get_running_loop()

    # -------------------------------------------------------------------------- what is recorded

    def recorded(
        self, state: WorkflowState, event: ActivityScheduled | ActivityStarted | ActivityFailed
    ) -> None:
        """Dispatch what has no outcome by the end of the batch; arm what will be retried, or may time out."""
        activity_id = event.activity_id
        activity = state.activities[activity_id]
        key = AttemptKey(state.workflow_id, state.run_id, activity_id)
        if type(event) is ActivityFailed:
            self._heartbeats.forget(key)
            self._dispatcher.settled(key, activity)
        self._arm_timeouts(key, activity)
        if state.terminal is not None:
            return
        if activity.phase == "backoff":
            self._arm_retry(key, activity)
        elif not state.paused:
            self._dispatch(state, key, activity)

    def settled(self, state: WorkflowState, event: ActivityCompleted | ActivityCancelled) -> None:
        """Let go of what was kept for an activity that has its outcome."""
        activity = state.activities[event.activity_id]
        bounds = activity.timeouts
        if self._heartbeats.are_stored or bounds.schedule_to_close or bounds.schedule_to_start:
            key = AttemptKey(state.workflow_id, state.run_id, event.activity_id)
            self._heartbeats.forget(key)
            self._arm_timeouts(key, activity)

    def cancel_requested(self, state: WorkflowState, activity_id: ActivityId) -> None:
        """Tell who runs an activity that it is not wanted any more; if nobody does, that is its end."""
        key = AttemptKey(state.workflow_id, state.run_id, activity_id)
        if self._dispatcher.cancel(key):
            return  # its end is reported by who runs it
        self._timers.discard(("retry", key))
        self._cancel_unless_running_elsewhere(key, is_first_look=True)

    def _cancel_unless_running_elsewhere(
        self, key: AttemptKey, *, is_first_look: bool = False
    ) -> None:
        """Record that an activity ended, unless another engine runs it: that reports its end itself.

        Whether that engine is alive is known only after a while, so it is left to it once in any case.
        """

        def cancel(workflow: Workflow, at: datetime) -> None:
            activity = workflow.state.activities[key.activity_id]
            if not activity.is_pending or not activity.cancel_requested:
                return  # it has ended, or is wanted again: the run was reopened meanwhile
            is_elsewhere = activity.phase == "started" and activity.worker != self._worker
            if is_elsewhere and (is_first_look or activity.worker in self.others):
                again = ("cancel", key)
                self._timers.add_after(
                    again, _LOOK_AGAIN, lambda: self._cancel_unless_running_elsewhere(key)
                )
                return
            number = activity.attempt + (1 if activity.phase == "scheduled" else 0)
            workflow.cancel_activity(key.activity_id, number, at=at)

        self._outbox.post_fact(key.workflow_id, key.run_id, cancel)

    def paused(self, state: WorkflowState) -> None:
        """Begin no attempt that has not begun; what runs goes on."""
        for key, _activity in _pending(state):
            self._dispatcher.hold(key)

    def resumed(self, state: WorkflowState) -> None:
        """Go on with what a pause, or the run's end, held up."""
        for key, activity in _pending(state):
            self._arm_timeouts(key, activity)
            if activity.cancel_requested:
                self.cancel_requested(state, key.activity_id)
            elif activity.phase == "backoff":
                self._arm_retry(key, activity)
            else:
                self._dispatch(state, key, activity)

    def replaced(self, state: WorkflowState) -> None:
        """Stop what still runs for an earlier run whose place the run of `state` took."""
        self._dispatcher.reconcile(state)

    def closed(self, state: WorkflowState) -> None:
        """Stop what still runs for a run that has closed; nobody waits for its outcome."""
        for key, activity in _pending(state):
            self._dispatcher.abandon(key)
            self._heartbeats.forget(key)
            self._discard_timers(key, activity)

    def loaded(self, state: WorkflowState, *, reclaim: bool) -> None:
        """Arm what an open run that was just read waits for; take up what is this engine's to take up."""
        self._dispatcher.reconcile(state)
        for key, activity in _pending(state):
            self._arm_timeouts(key, activity)
            if activity.phase == "backoff":
                self._arm_retry(key, activity)
            elif state.paused:
                continue
            elif reclaim:
                self._reclaim(state, key, activity)
            elif activity.offered and activity.phase == "scheduled":
                self._dispatch(state, key, activity)

    # ------------------------------------------------------------------------------- attempts

    def _dispatch(self, state: WorkflowState, key: AttemptKey, activity: ActivityState) -> None:
        if activity.phase == "scheduled":
            self._begin(state, key, activity, activity.attempt + 1)
            return
        is_ours = activity.phase == "started" and activity.worker == self._worker
        if is_ours and not self._dispatcher.begun(key, activity):
            self._begin(state, key, activity, activity.attempt)

    def _begin(
        self, state: WorkflowState, key: AttemptKey, activity: ActivityState, number: int
    ) -> None:
        context = self._scheduled_in(key)
        self._dispatcher.dispatch(key, state, activity, number, traceparent=context)

    def _arm_retry(self, key: AttemptKey, activity: ActivityState) -> None:
        if activity.retry_at is not None and self._dispatcher.serves(activity.task_queue):
            number = activity.attempt + 1
            retry = ("retry", key)
            self._timers.add(retry, activity.retry_at, lambda: self._retry(key, number))

    def _retry(self, key: AttemptKey, number: int) -> None:
        """Dispatch the next attempt, if the history still waits for it; nothing is recorded by this."""

        def look(workflow: Workflow, _at: datetime) -> None:
            state = workflow.state
            activity = state.activities[key.activity_id]
            if activity.is_pending and activity.attempt == number - 1 and not state.paused:
                context = self._scheduled_in(key)  # now: by then the run may not be in memory
                self._loop.call_soon(
                    partial(
                        self._dispatcher.dispatch,
                        key,
                        state,
                        activity,
                        number,
                        traceparent=context,
                    )
                )

        self._outbox.post_fact(key.workflow_id, key.run_id, look)

    def _reclaim(self, state: WorkflowState, key: AttemptKey, activity: ActivityState) -> None:
        """Take up an activity that some engine, perhaps this one, left behind."""
        if self._dispatcher.is_running(key) or not self._dispatcher.serves(activity.task_queue):
            return
        if activity.phase == "started":
            # One that an engine runs which is alive comes back to us when that engine is gone.
            if activity.worker not in self.others:
                self._spawn(self._lose(key, activity.attempt, activity.worker))
        elif self._is_left_to_others(key, activity):
            workflow_id = key.workflow_id
            self._timers.add_after(
                ("reclaim", workflow_id),
                _LOOK_AGAIN,
                lambda: self._outbox.wake(workflow_id, reclaim=True),
            )
        else:
            number = activity.attempt + 1
            context = self._scheduled_in(key)
            self._dispatcher.dispatch(
                key, state, activity, number, recorded_first=True, traceparent=context
            )

    async def _lose(self, key: AttemptKey, number: int, worker: str) -> None:
        """Record that an attempt died with its process, and what it said before."""
        said: Payload | None = await self._heartbeats.left_by(key, number)
        lost = ActivityFailure(
            kind="retryable",
            type=WORKER_LOST,
            message=f"the process of worker {worker} ended before the attempt did",
        )

        def lose(workflow: Workflow, at: datetime) -> None:
            known = workflow.state.activities[key.activity_id]
            if known.phase == "started" and (known.attempt, known.worker) == (number, worker):
                workflow.fail_activity(key.activity_id, number, lost, heartbeat_details=said, at=at)

        self._outbox.post_fact(key.workflow_id, key.run_id, lose)

    def _is_left_to_others(self, key: AttemptKey, activity: ActivityState) -> bool:
        """Whether an engine that is alive may be about to begin the activity.

        Who scheduled it is not recorded: it is left to the others once, not for ever.
        """
        if activity.offered:
            return False  # who scheduled it does not serve its queue
        if not self.others or key in self._left_to_others:
            self._left_to_others.discard(key)
            return False
        self._left_to_others.add(key)
        return True

    # ------------------------------------------------------------------------------- timeouts

    def _arm_timeouts(self, key: AttemptKey, activity: ActivityState) -> None:
        """Watch over an activity for as long as it waits; costs nothing without the options."""
        bounds = activity.timeouts
        if bounds.schedule_to_close is not None:
            self._arm_schedule_to_close(key, activity, bounds.schedule_to_close)
        if bounds.schedule_to_start is not None:
            self._arm_schedule_to_start(key, activity, bounds.schedule_to_start)

    def _arm_schedule_to_close(
        self, key: AttemptKey, activity: ActivityState, limit: timedelta
    ) -> None:
        timer = ("schedule to close", key)

        def time_out(workflow: Workflow, at: datetime) -> None:
            known = workflow.state.activities[key.activity_id]
            if known.is_pending:
                number = known.attempt + (1 if known.phase == "scheduled" else 0)
                workflow.schedule_to_close_timeout(key.activity_id, number, at=at)

        if activity.is_pending:
            self._watch(timer, key, later(activity.scheduled_at, limit), time_out)
        else:
            self._timers.discard(timer)

    def _arm_schedule_to_start(
        self, key: AttemptKey, activity: ActivityState, limit: timedelta
    ) -> None:
        timer = ("schedule to start", key)
        since = activity.scheduled_at if activity.phase == "scheduled" else activity.retry_at
        if since is None or not activity.is_pending or activity.phase == "started":
            self._timers.discard(timer)
            return
        number = activity.attempt + 1

        def time_out(workflow: Workflow, at: datetime) -> None:
            workflow.schedule_to_start_timeout(key.activity_id, number, at=at)

        self._watch(timer, key, later(since, limit), time_out)

    def _watch(
        self,
        timer: tuple[str, AttemptKey],
        key: AttemptKey,
        due_at: datetime | None,
        time_out: Callable[[Workflow, datetime], None],
    ) -> None:
        if due_at is not None:
            self._timers.add(
                timer,
                due_at,
                lambda: self._outbox.post_fact(key.workflow_id, key.run_id, time_out),
            )

    def _discard_timers(self, key: AttemptKey, activity: ActivityState) -> None:
        if activity.phase == "backoff":
            self._timers.discard(("retry", key))
        if activity.timeouts.schedule_to_close is not None:
            self._timers.discard(("schedule to close", key))
        if activity.timeouts.schedule_to_start is not None:
            self._timers.discard(("schedule to start", key))


def _pending(state: WorkflowState) -> Iterator[tuple[AttemptKey, ActivityState]]:
    """Yield what has no outcome, in the order in which it was scheduled."""
    for activity_id in state.pending.activities:
        activity = state.activities.get(activity_id)
        if activity is not None:
            yield AttemptKey(state.workflow_id, state.run_id, activity_id), activity

"""The effects of what was recorded: activities run, timers are armed, those who wait are told.

Nothing here decides and nothing here records. It reads what is in the stream by now, and every effect
that has a consequence sends it back as a command, through the outbox.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any, ClassVar, Literal, get_args

from aion_es.aggregates.aggregate import Pending
from aion_es.aggregates.state import WorkflowState
from aion_es.aggregates.workflow import Workflow
from aion_es.engine.activity_effects import ActivityEffects
from aion_es.engine.attempts import Outbox
from aion_es.engine.couriers import Couriers
from aion_es.engine.process import RunProcess
from aion_es.engine.registry import Registration, Registry
from aion_es.engine.relatives import Relatives
from aion_es.engine.timers import TimerService
from aion_es.engine.tracing import RunContexts
from aion_es.events.values import WorkflowRef
from aion_es.events.workflow import (
    ActivityCancelled,
    ActivityCancelRequested,
    ActivityCompleted,
    ActivityFailed,
    ActivityScheduled,
    ActivityStarted,
    ChildWorkflowCancelRequested,
    ChildWorkflowStarted,
    SignalSent,
    TerminalEvent,
    TimerCancelled,
    TimerStarted,
    WorkflowContinuedAsNew,
    WorkflowEvent,
    WorkflowPaused,
    WorkflowReopened,
    WorkflowResumed,
    WorkflowStarted,
)
from aion_es.ids import RunId, TimerId, WorkflowId


class Effects:
    """Carries out what committed events call for, once they are committed.

    Attributes:
        horizon: Timers due beyond it are not held in memory; `None` holds all.
        activities: Those of activities.
    """

    def __init__(
        self,
        activities: ActivityEffects,
        timers: TimerService,
        registry: Registry,
        couriers: Couriers,
        relatives: Relatives,
        outbox: Outbox,
    ) -> None:
        self.horizon: datetime | None = None
        self.activities = activities
        self._timers = timers
        self._registry = registry
        self._couriers = couriers
        self._relatives = relatives
        self._outbox = outbox

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
        self._succeeded(state)
        if state.terminal is not None:
            if process.end_is_news or process.effects_lost:
                self._tell_relatives(process, state.run_id, state.terminal)
            self._let_go(process, state.run_id, state.terminal)
            return
        self._registered(process, state)
        if process.effects_lost:
            process.effects_lost = False
            self._couriers.run_again(state, _contexts(process))
            self._relatives.ask_children(state)
        for timer_id, fire_at in state.live_timers.items():
            self.arm(state.workflow_id, state.run_id, timer_id, fire_at)
        self._arm_deadlines(state)
        self.activities.loaded(state, reclaim=reclaim)

    def _succeeded(self, state: WorkflowState) -> None:
        """Let go of an earlier run that is known as open still: it was read before its end, and told of after it."""
        known = self._registry.newest(state.workflow_id)
        if known is not None and known.run_id != state.run_id:
            self._registry.remove(known.workflow_id, known.run_id)
            self._relatives.tell_end(known.workflow_id, known.run_id)

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
        state = _current(process, run_id)
        if state is not None:
            self.activities.cancel_requested(state, event.activity_id)

    def _on_paused(self, process: RunProcess, run_id: RunId, _event: WorkflowPaused) -> None:
        state = _current(process, run_id)
        if state is not None:
            self.activities.paused(state)

    def _on_resumed(self, process: RunProcess, run_id: RunId, _event: WorkflowResumed) -> None:
        state = _current(process, run_id)
        if state is not None:
            self.activities.resumed(state)

    def _on_reopened(self, process: RunProcess, run_id: RunId, _event: WorkflowReopened) -> None:
        """Drive again what has no outcome. The code comes back by replay, which knows what is void."""
        state = _current(process, run_id)
        if state is not None:
            self._registered(process, state)
            self.activities.resumed(state)
            self._relatives.ask_children(state)  # while it was closed nothing was recorded of them

    def _on_activity(
        self,
        process: RunProcess,
        run_id: RunId,
        event: ActivityScheduled | ActivityStarted | ActivityFailed,
    ) -> None:
        state = _current(process, run_id)
        if state is not None:
            self.activities.recorded(state, event)

    def _on_activity_settled(
        self, process: RunProcess, run_id: RunId, event: ActivityCompleted | ActivityCancelled
    ) -> None:
        state = _current(process, run_id)
        if state is not None:
            self.activities.settled(state, event)

    def _on_child_started(
        self, process: RunProcess, run_id: RunId, event: ChildWorkflowStarted
    ) -> None:
        contexts = _contexts(process)
        context = None if contexts is None else contexts.of_child(event.child_workflow_id)
        self._couriers.start_child(_ref(process, run_id), event, context)

    def _on_child_cancel_requested(
        self, process: RunProcess, run_id: RunId, event: ChildWorkflowCancelRequested
    ) -> None:
        self._couriers.cancel_child(_ref(process, run_id), event.child_workflow_id, event.reason)

    def _on_signal_sent(self, process: RunProcess, run_id: RunId, event: SignalSent) -> None:
        contexts = _contexts(process)
        self._couriers.send_signal(
            _ref(process, run_id),
            event.signal_id,
            event.target_workflow_id,
            event.name,
            event.payload,
            None if contexts is None else contexts.of_signal(event.signal_id),
        )

    def _closed(self, process: RunProcess, run_id: RunId, event: TerminalEvent) -> None:
        self._tell_relatives(process, run_id, event)
        self._let_go(process, run_id, event)

    def _let_go(self, process: RunProcess, run_id: RunId, event: TerminalEvent) -> None:
        """Stop what is done for a run that has closed, and tell those who wait for it."""
        workflow_id = process.workflow_id
        state = _current(process, run_id)
        if state is not None:
            self.activities.closed(state)
            process.stuck_reason = None
        elif process.workflow is not None:  # another run took its place in the same append
            self.activities.replaced(process.workflow.state)
        self._registry.remove(workflow_id, run_id)
        self._registry.tell(workflow_id, run_id, event)
        for timeout in ("run", "execution"):
            self._timers.discard(("deadline", workflow_id, run_id, timeout))
        if process.workflow is not None and process.workflow.state.run_id == run_id:
            for timer_id in process.workflow.state.torn_timers:
                self._timers.discard(("timer", workflow_id, run_id, timer_id))

    def _tell_relatives(self, process: RunProcess, run_id: RunId, event: TerminalEvent) -> None:
        """Close the children of a run that has closed, and tell its parent."""
        workflow = process.workflow
        if workflow is None:
            return
        if workflow.state.run_id == run_id:
            process.end_is_news = process.effects_lost = False
            self._couriers.settle_children(workflow.state, contexts=_contexts(process))
            if workflow.state.parent is not None:
                self._couriers.tell_parent(workflow.state.parent, workflow.workflow_id, event)
        elif not isinstance(event, WorkflowContinuedAsNew):
            # A new run has taken its place in the same append: what it leaves behind is in its history only.
            self._relatives.settle_replaced(workflow.workflow_id, run_id)

    _EFFECTS: ClassVar[dict[type[Any], Callable[["Effects", RunProcess, RunId, Any], None]]] = {
        WorkflowStarted: _on_started,
        TimerStarted: _on_timer_started,
        TimerCancelled: _on_timer_cancelled,
        ActivityScheduled: _on_activity,
        ActivityStarted: _on_activity,
        ActivityFailed: _on_activity,
        ActivityCompleted: _on_activity_settled,
        ActivityCancelled: _on_activity_settled,
        ActivityCancelRequested: _on_activity_cancel_requested,
        WorkflowPaused: _on_paused,
        WorkflowResumed: _on_resumed,
        WorkflowReopened: _on_reopened,
        ChildWorkflowStarted: _on_child_started,
        ChildWorkflowCancelRequested: _on_child_cancel_requested,
        SignalSent: _on_signal_sent,
        **dict.fromkeys(get_args(TerminalEvent), _closed),
    }

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
                workflow_id, run_id, lambda w, at: _fire_timer(w, timer_id, fire_at, at)
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

        def time_out(workflow: Workflow, at: datetime) -> None:
            state = workflow.state
            standing = state.run_deadline if timeout == "run" else state.execution_deadline
            if standing == deadline:  # else it closed the run before, and a reopening has lifted it
                workflow.time_out(timeout, at=at)

        self._timers.add(
            ("deadline", workflow_id, run_id, timeout),
            deadline,
            lambda: self._outbox.post_fact(workflow_id, run_id, time_out),
        )

    def _arm_deadlines(self, state: WorkflowState) -> None:
        if state.run_deadline is not None:
            self.arm_deadline(state.workflow_id, state.run_id, "run", state.run_deadline)
        if state.execution_deadline is not None:
            self.arm_deadline(
                state.workflow_id, state.run_id, "execution", state.execution_deadline
            )

    def _registered(self, process: RunProcess, state: WorkflowState) -> None:
        process.end_is_news = True
        known = self._registry.newest(state.workflow_id)
        if known is not None and known.run_id == state.run_id:
            known.residency, known.status = "resident", state.status
            return
        completion = self._registry.find_completion(state.workflow_id, state.run_id)
        if completion is not None:
            completion.outcome = None  # a run that was reopened had one
        self._registry.register(
            Registration(
                state.workflow_id,
                state.run_id,
                state.workflow_type,
                state.package_version,
                state.status,
                "resident",
                -1 if process.workflow is None else process.workflow.revision,
                process.stuck_reason,
            )
        )


def _fire_timer(workflow: Workflow, timer_id: TimerId, fire_at: datetime, at: datetime) -> None:
    """Fire the timer that was armed first of all that are due at this very instant.

    Each of them comes here once, but not always in the order of arming: rows do not know that. The run does.
    """
    live = workflow.state.live_timers.items()
    first = next((armed for armed, due_at in live if due_at == fire_at), timer_id)
    workflow.fire_timer(first, at=at)


def _current(process: RunProcess, run_id: RunId) -> WorkflowState | None:
    """Return the state of a run if it still is its workflow's current one."""
    if process.workflow is None or process.workflow.state.run_id != run_id:
        return None
    return process.workflow.state


def _contexts(process: RunProcess) -> RunContexts | None:
    """Return the trace contexts of a run; `None` where nobody records."""
    return None if process.trace is None else process.trace.contexts


def _ref(process: RunProcess, run_id: RunId) -> WorkflowRef:
    return WorkflowRef(workflow_id=process.workflow_id, run_id=run_id)

"""The decision to reopen a run: where its code takes up again, and what of its doings is void by that.

The code must then stand where it stood before it learned of what ended it. So what is void begins with the
first event, the *cut*, that it learned that from:

- of a run that failed because activities or children failed, the first of those failures. A request to cancel
  that came before stands: the code goes on with what it made of it;
- of any other run that was asked to end, that request;
- else the end of the run itself: the code stands where it stood.
"""

from aion_es.aggregates.guards import require_run
from aion_es.aggregates.state import ChildState, WorkflowState
from aion_es.aggregates.status import REOPENABLE
from aion_es.errors import InvalidStateError
from aion_es.events import workflow as ev
from aion_es.events.values import TakenBack
from aion_es.events.workflow import WorkflowEvent
from aion_es.ids import ActivityId


def reopen(
    state: WorkflowState, operator: str | None, run_id: str | None
) -> tuple[WorkflowEvent, ...]:
    """Take a run that closed without completing back to Running, with the activities that are to run again."""
    require_run(state, run_id)
    if state.status not in REOPENABLE:
        raise InvalidStateError(state.workflow_id, state.status, "reopen")
    since = _cut(state)
    taken_back = TakenBack(
        since=since,
        activities=tuple(
            activity_id
            for activity_id, activity in state.activities.items()
            if activity.scheduled_place >= since
            and (activity.is_pending or activity.phase == "failed")
        ),
        timers=tuple(t for t in state.torn_timers if state.timers_started[t] >= since),
        children=tuple(
            child_id
            for child_id in state.pending.children
            if state.children[child_id].started_place >= since
        ),
        awaited=tuple(
            child_id
            for child_id, child in state.children.items()
            if child.started_place < since and _is_awaited_again(child, since)
        ),
    )
    again = tuple(
        activity_id
        for activity_id, activity in state.activities.items()
        if activity.scheduled_place < since
        and (
            activity.phase == "failed"
            or (activity.phase == "cancelled" and activity.cancel_place >= since)
        )
    )
    return (
        ev.WorkflowReopened(
            run_id=state.run_id, reopened=again, operator=operator, taken_back=taken_back
        ),
    )


def _cut(state: WorkflowState) -> int:
    """Return how many of the run's events stand."""
    roots = [state.activities[activity_id].failed_place for activity_id in _roots(state)]
    if isinstance(state.terminal, ev.WorkflowFailed):
        led = [state.children.get(child_id) for child_id in state.terminal.failed_children]
        roots += [c.end_place for c in led if c is not None and c.phase in {"failed", "cancelled"}]
    if roots:
        return min(roots)
    return state.end_place if state.cancel_requested is None else state.cancel_place


def _is_awaited_again(child: ChildState, since: int) -> bool:
    """Return whether a child's end without a result is void; not if the code had given the child up before."""
    return (
        child.phase in {"failed", "cancelled"}
        and child.end_place >= since
        and (child.cancel_requested is None or child.cancel_place >= since)
    )


def _roots(state: WorkflowState) -> list[ActivityId]:
    """Return the activities whose failure led to the run's, and stands."""
    terminal = state.terminal
    if not isinstance(terminal, ev.WorkflowFailed):
        return []
    failed = {i: a.failed_place for i, a in state.activities.items() if a.phase == "failed"}
    led = terminal.failed_activities
    if not led and terminal.error.type == "ActivityError":  # recorded by hand, without saying which
        led = tuple(sorted(failed, key=failed.__getitem__))[-1:]
    return [activity_id for activity_id in led if activity_id in failed]

"""evolve, status_after and pending_work: the folds."""

from typing import get_args

import pytest

from aion_es.aggregates import Workflow, WorkflowStatus, evolve, pending_work, status_after
from aion_es.events import workflow as ev
from aion_es.ids import SignalId, WorkflowId
from aion_es.testing.aggregates import GIVEN_AT, given
from tests.unit.aggregates.histories import (
    CANCELLED,
    CHILD,
    CLOSED,
    FAILED,
    HOUR,
    NEXT,
    NEXT_RUN,
    NOON,
    OOPS,
    RUN,
    TERMINATED,
    TICK,
    TIMED_OUT,
    act,
    activity_cancelled,
    armed,
    begun,
    child_started,
    completed,
    failed,
    fired,
    received,
    scheduled,
    sent,
    started,
    whole,
)

SIGNAL = SignalId("s1")
ONE_OF_EACH: tuple[ev.WorkflowEvent, ...] = (
    started(),
    CLOSED,
    FAILED,
    ev.WorkflowCancelRequested(),
    CANCELLED,
    TERMINATED,
    TIMED_OUT,
    ev.WorkflowContinuedAsNew(parent_run_id=RUN, new_run_id=NEXT_RUN),
    ev.WorkflowPaused(run_id=RUN),
    ev.WorkflowResumed(run_id=RUN),
    ev.WorkflowReopened(run_id=RUN, reopened=(act(0),)),
    ev.SearchAttributesUpdated(attributes={"total": whole(1), "gone": None}),
    scheduled(0),
    begun(0),
    completed(0),
    failed(0),
    ev.ActivityCancelRequested(activity_id=act(0)),
    activity_cancelled(0),
    armed(),
    fired(),
    ev.TimerCancelled(timer_id=TICK, cause="teardown"),
    ev.WithTimeoutCompleted(timer_id=TICK, outcome="timed_out"),
    received(),
    sent(),
    ev.SignalDelivered(signal_id=SIGNAL),
    ev.SignalSendFailed(signal_id=SIGNAL, reason="closed"),
    child_started(),
    ev.ChildWorkflowCancelRequested(child_workflow_id=CHILD),
    ev.ChildWorkflowCompleted(child_workflow_id=CHILD),
    ev.ChildWorkflowFailed(child_workflow_id=CHILD, error=OOPS),
    ev.ChildWorkflowCancelled(child_workflow_id=CHILD),
    ev.MarkerRecorded(kind="patch", name="p"),
)
LIFECYCLE = {
    "WorkflowStarted": "Running",
    "WorkflowResumed": "Running",
    "WorkflowReopened": "Running",
    "WorkflowPaused": "Paused",
    "WorkflowCompleted": "Completed",
    "WorkflowFailed": "Failed",
    "WorkflowCancelled": "Cancelled",
    "WorkflowTerminated": "Terminated",
    "WorkflowTimedOut": "TimedOut",
    "WorkflowContinuedAsNew": "ContinuedAsNew",
}


def test_the_list_above_holds_one_of_each_event() -> None:
    assert [type(event) for event in ONE_OF_EACH] == list(get_args(ev.WorkflowEvent))


# ------------------------------------------------------------------------------------------ status


@pytest.mark.parametrize("event", ONE_OF_EACH, ids=lambda event: type(event).__name__)
def test_each_lifecycle_event_gives_a_status_and_no_other_does(event: ev.WorkflowEvent) -> None:
    assert status_after(event) == LIFECYCLE.get(type(event).__name__)


def test_running_and_paused_are_open() -> None:
    assert [status for status in WorkflowStatus if status.is_open] == ["Running", "Paused"]


def test_the_last_lifecycle_event_wins() -> None:
    history = (started(), FAILED, ev.WorkflowReopened(run_id=RUN), ev.WorkflowPaused(run_id=RUN))
    assert given(*history, armed()).aggregate.state.status is WorkflowStatus.PAUSED


# ------------------------------------------------------------------------------------ pending work


def test_an_activity_is_pending_until_its_final_outcome() -> None:
    history: list[ev.WorkflowEvent] = [scheduled(ordinal) for ordinal in range(5)]
    history += [begun(1), begun(2), failed(1, retry_at=NOON), failed(2), completed(3)]
    pending = pending_work([*history, activity_cancelled(4)])
    assert (pending.activities, pending.children) == ((act(0), act(1)), ())


def test_an_activity_of_which_only_the_start_is_known_is_pending() -> None:
    assert pending_work([begun(3)]).activities == (act(3),)


def test_a_child_is_pending_until_its_outcome() -> None:
    children = [WorkflowId(f"c{n}") for n in range(4)]
    history: list[ev.WorkflowEvent] = [child_started(child) for child in children]
    history += [
        ev.ChildWorkflowCompleted(child_workflow_id=children[0]),
        ev.ChildWorkflowFailed(child_workflow_id=children[1], error=OOPS),
        ev.ChildWorkflowCancelled(child_workflow_id=children[2]),
    ]
    pending = pending_work(history)
    assert (pending.activities, pending.children) == ((), (children[3],))


def test_a_reopening_makes_its_activities_pending_again_in_the_order_of_scheduling() -> None:
    history: list[ev.WorkflowEvent] = [scheduled(ordinal) for ordinal in range(3)]
    history += [failed(0), failed(1), FAILED]
    history += [ev.WorkflowReopened(run_id=RUN, reopened=(act(1), act(0)))]
    pending = pending_work(history)
    assert pending.activities == (act(0), act(1), act(2))


@pytest.mark.parametrize(
    "event",
    [
        event
        for event in ONE_OF_EACH
        if not type(event).__name__.startswith(("Activity", "ChildWorkflow", "WorkflowReopened"))
        or isinstance(event, ev.ActivityCancelRequested)
    ],
    ids=lambda event: type(event).__name__,
)
def test_every_other_event_leaves_pending_work_unchanged(event: ev.WorkflowEvent) -> None:
    before: list[ev.WorkflowEvent] = [scheduled(0), scheduled(1), child_started()]
    assert pending_work([*before, event]) == pending_work(before)


def test_pending_work_is_true_while_there_is_some() -> None:
    assert not pending_work([])
    assert pending_work([scheduled(0)])
    assert pending_work([child_started()])
    assert pending_work([scheduled(0)]) != pending_work([child_started()])


# ------------------------------------------------------------------------------------------ evolve


@pytest.mark.parametrize("event", ONE_OF_EACH, ids=lambda event: type(event).__name__)
def test_evolve_refuses_no_event_whatever_came_before(event: ev.WorkflowEvent) -> None:
    for history in ((), (started(),), (started(), CLOSED), ONE_OF_EACH):
        wf = given(*history, event).aggregate
        assert wf.exists
        assert wf.revision == len(history)


def test_history_that_is_cut_off_gives_a_run_without_a_name() -> None:
    state = given(received()).aggregate.state
    assert (state.run_id, list(state.unread_signals)) == ("", ["s1"])


def test_a_new_run_begins_with_nothing_of_the_old_one() -> None:
    old = (started(request_id="req"), scheduled(0), armed(), received(), child_started())
    wf = given(*old, TERMINATED, started(run_id=NEXT_RUN, first_run_id=NEXT_RUN)).aggregate
    expected = evolve(
        None,
        started(run_id=NEXT_RUN, first_run_id=NEXT_RUN),
        workflow_id=WorkflowId("order-42"),
        at=GIVEN_AT,
        revision=6,
    )
    assert wf.state == expected


def test_the_state_knows_when_and_where_its_run_started() -> None:
    state = given(FAILED, started(run_deadline=GIVEN_AT + HOUR)).aggregate.state
    assert (state.started_at, state.started_revision, state.run_timeout) == (GIVEN_AT, 1, HOUR)


def test_an_activity_in_backoff_knows_when_it_is_due_until_it_starts() -> None:
    history = (started(), scheduled(0), begun(0), failed(0, retry_at=NOON))
    activity = given(*history).aggregate.state.activities[act(0)]
    assert (activity.phase, activity.attempt, activity.retry_at) == ("backoff", 1, NOON)
    activity = given(*history, begun(0, 2, "w")).aggregate.state.activities[act(0)]
    assert (activity.phase, activity.attempt, activity.retry_at) == ("started", 2, None)
    assert activity.worker == "w"


def test_schedule_to_close_counts_from_the_reopening() -> None:
    wf = given(started(), scheduled(0), failed(0), FAILED).aggregate
    wf.reopen(at=NOON)
    assert wf.state.activities[act(0)].scheduled_at == NOON


def test_uncommitted_events_carry_their_run_and_instant() -> None:
    wf = given(started()).aggregate
    wf.continue_as_new(NEXT, package_version="2", new_run_id=NEXT_RUN, at=NOON)
    wf.fail(OOPS, at=NOON + HOUR)
    assert [(type(p.event).__name__, p.at, p.run_id) for p in wf.uncommitted] == [
        ("WorkflowContinuedAsNew", NOON, RUN),
        ("WorkflowStarted", NOON, NEXT_RUN),
        ("WorkflowFailed", NOON + HOUR, NEXT_RUN),
    ]
    assert wf.state.started_revision == 2


def test_what_is_decided_during_an_append_stays_uncommitted() -> None:
    wf = given(started()).aggregate
    wf.pause(at=NOON)
    wf.resume(at=NOON)
    wf.mark_saved(1, 1)
    assert wf.revision == 1
    assert [pending.event for pending in wf.uncommitted] == [ev.WorkflowResumed(run_id=RUN)]


def test_a_workflow_without_history_is_empty() -> None:
    wf = Workflow(WorkflowId("order-42"))
    assert (wf.exists, wf.revision, wf.uncommitted) == (False, -1, [])

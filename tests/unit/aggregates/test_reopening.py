"""Where a reopened run takes up again, and what is void by it."""

from datetime import timedelta

from aion_es.aggregates import Workflow
from aion_es.aggregates.state import WorkflowState
from aion_es.events import workflow as ev
from aion_es.events.values import Failure, TakenBack
from aion_es.ids import ActivityId, TimerId, WorkflowId
from aion_es.payload import NOTHING
from aion_es.testing.aggregates import given
from tests.unit.aggregates.histories import (
    CANCELLED,
    CHILD,
    FAILED,
    HOUR,
    NEXT,
    NOON,
    OOPS,
    RUN,
    TERMINATED,
    act,
    activity_cancelled,
    armed,
    begun,
    child_started,
    completed,
    failed,
    scheduled,
    started,
)

ASKED = ev.WorkflowCancelRequested(reason="enough")
OTHER = WorkflowId("child-2")


def because_of(*activities: int) -> ev.WorkflowFailed:
    return ev.WorkflowFailed(error=OOPS, failed_activities=tuple(act(i) for i in activities))


def unwanted(ordinal: int) -> ev.ActivityCancelRequested:
    return ev.ActivityCancelRequested(activity_id=act(ordinal))


def reopened(
    since: int, *again: int, activities: tuple[ActivityId, ...] = (), **void: tuple[str, ...]
) -> ev.WorkflowReopened:
    return ev.WorkflowReopened(
        run_id=RUN,
        reopened=tuple(act(i) for i in again),
        taken_back=TakenBack.model_validate({"since": since, "activities": activities, **void}),
    )


def when_reopened(*history: ev.WorkflowEvent, then: ev.WorkflowReopened) -> WorkflowState:
    outcome = given(started(), *history).when(lambda wf: wf.reopen(at=NOON)).then(then)
    aggregate: Workflow = outcome.aggregate
    return aggregate.state


def test_of_several_failures_that_led_to_the_end_the_first_is_the_cut() -> None:
    history = (scheduled(0), scheduled(1), failed(1), scheduled(2), failed(0), failed(2))
    state = when_reopened(*history, because_of(0, 1), then=reopened(3, 0, 1, activities=(act(2),)))
    assert state.pending.activities == (act(0), act(1))
    assert state.activities[act(2)].phase == "cancelled"


def test_a_failure_that_the_code_dealt_with_is_tried_again_and_no_cut() -> None:
    history = (scheduled(0), failed(0), scheduled(1), failed(1))
    when_reopened(*history, because_of(1), then=reopened(4, 0, 1))


def test_a_failure_without_causes_takes_the_last_failed_activity_for_its_own() -> None:
    """So it was recorded before `failed_activities` was."""
    end = ev.WorkflowFailed(error=Failure(type="ActivityError"))
    when_reopened(scheduled(0), failed(0), scheduled(1), failed(1), end, then=reopened(4, 0, 1))


def test_a_run_that_was_asked_to_end_takes_up_before_that_however_it_ended() -> None:
    for end in (CANCELLED, TERMINATED, FAILED):
        state = when_reopened(scheduled(0), ASKED, end, then=reopened(2))
        assert state.cancel_requested is None


def test_a_request_to_end_that_came_before_the_failure_stands() -> None:
    history = (ASKED, scheduled(0), failed(0), because_of(0))
    state = when_reopened(*history, then=reopened(3, 0))
    assert state.cancel_requested == "enough"


def test_a_run_that_nobody_asked_to_end_stands_where_it_stood() -> None:
    when_reopened(scheduled(0), TERMINATED, then=reopened(2))


def test_a_timer_of_what_is_void_is_not_armed_again() -> None:
    late = TimerId("late")
    history = (armed(), scheduled(0), failed(0), armed(late), because_of(0))
    state = when_reopened(*history, then=reopened(3, 0, timers=("late",)))
    assert state.live_timers == {"tick": NOON + HOUR}


def test_a_timer_whose_name_is_used_anew_by_what_is_void_is_void() -> None:
    disarmed = ev.TimerCancelled(timer_id=armed().timer_id)
    history = (armed(), scheduled(0), failed(0), disarmed, armed(), because_of(0))
    state = when_reopened(*history, then=reopened(3, 0, timers=("tick",)))
    assert state.live_timers == {}


def test_an_activity_that_was_cancelled_by_what_is_void_runs_again_as_it_was_called() -> None:
    history = (scheduled(0, input=NEXT), begun(0), ASKED, unwanted(0), activity_cancelled(0))
    activity = when_reopened(*history, CANCELLED, then=reopened(3, 0)).activities[act(0)]
    assert (activity.phase, activity.first_attempt, activity.input) == ("scheduled", 2, NEXT)
    assert not activity.cancel_requested


def test_an_activity_that_the_code_had_cancelled_before_stays_cancelled() -> None:
    history = (scheduled(0), unwanted(0), activity_cancelled(0), ASKED, CANCELLED)
    assert when_reopened(*history, then=reopened(4)).pending.activities == ()


def test_an_activity_that_the_code_had_asked_to_end_before_is_still_asked() -> None:
    history = (scheduled(0), begun(0), unwanted(0), ASKED, CANCELLED)
    assert when_reopened(*history, then=reopened(4)).activities[act(0)].cancel_requested


def test_an_activity_of_what_is_void_is_not_pending() -> None:
    history = (ASKED, scheduled(0, input=NEXT), begun(0), TERMINATED)
    state = when_reopened(*history, then=reopened(1, activities=(act(0),)))
    assert state.pending.activities == ()
    assert state.activities[act(0)].input == NOTHING


def test_a_child_of_what_is_void_is_not_pending_and_its_id_stays_taken() -> None:
    history = (scheduled(0), failed(0), child_started(), because_of(0))
    state = when_reopened(*history, then=reopened(2, 0, children=(CHILD,)))
    assert state.pending.children == ()
    assert CHILD in state.children


def test_a_child_that_was_cancelled_by_what_is_void_is_waited_for_again() -> None:
    asked = ev.ChildWorkflowCancelRequested(child_workflow_id=CHILD)
    ended = ev.ChildWorkflowCancelled(child_workflow_id=CHILD)
    history = (child_started(), child_started(OTHER), ASKED, asked, ended, CANCELLED)
    state = when_reopened(*history, then=reopened(3, awaited=(CHILD,)))
    assert state.pending.children == (OTHER, CHILD)
    assert state.children[CHILD].cancel_requested is None


def test_a_child_that_the_code_had_cancelled_before_stays_cancelled() -> None:
    asked = ev.ChildWorkflowCancelRequested(child_workflow_id=CHILD)
    ended = ev.ChildWorkflowCancelled(child_workflow_id=CHILD)
    state = when_reopened(child_started(), asked, ended, ASKED, CANCELLED, then=reopened(4))
    assert state.pending.children == ()


def test_a_child_whose_failure_led_to_the_end_is_the_cut_and_waited_for_again() -> None:
    oops = ev.ChildWorkflowFailed(child_workflow_id=CHILD, error=OOPS)
    end = ev.WorkflowFailed(error=OOPS, failed_children=(CHILD,))
    history = (child_started(), child_started(OTHER), oops, scheduled(0), end)
    state = when_reopened(*history, then=reopened(3, activities=(act(0),), awaited=(CHILD,)))
    assert state.pending.children == (OTHER, CHILD)
    assert (state.children[CHILD].phase, state.children[CHILD].request) == (
        "started",
        child_started(),
    )


def test_of_an_activity_and_a_child_that_failed_the_first_is_the_cut() -> None:
    oops = ev.ChildWorkflowFailed(child_workflow_id=CHILD, error=OOPS)
    end = ev.WorkflowFailed(error=OOPS, failed_activities=(act(0),), failed_children=(CHILD,))
    when_reopened(
        scheduled(0), child_started(), failed(0), oops, end, then=reopened(3, 0, awaited=(CHILD,))
    )
    when_reopened(
        scheduled(0), child_started(), oops, failed(0), end, then=reopened(3, 0, awaited=(CHILD,))
    )


def test_a_child_that_the_code_had_given_up_before_the_cut_is_not_waited_for_again() -> None:
    asked = ev.ChildWorkflowCancelRequested(child_workflow_id=CHILD)
    oops = ev.ChildWorkflowFailed(child_workflow_id=CHILD, error=OOPS)
    history = (child_started(), scheduled(0), asked, failed(0), oops, because_of(0))
    assert when_reopened(*history, then=reopened(4, 0)).pending.children == ()


def test_a_named_child_that_is_not_known_is_no_cut() -> None:
    when_reopened(
        scheduled(0),
        ev.WorkflowFailed(error=OOPS, failed_children=(CHILD,)),
        then=reopened(2),
    )


def test_the_places_are_counted_in_the_run_wherever_it_begins_in_the_stream() -> None:
    before = (started(), completed(0), ev.WorkflowCompleted())
    again = started(run_id=RUN)
    given(*before, again, scheduled(0), ASKED, CANCELLED).when(
        lambda wf: wf.reopen(at=NOON + timedelta(hours=1))
    ).then(reopened(2))

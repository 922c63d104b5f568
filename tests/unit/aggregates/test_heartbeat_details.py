"""What an attempt said last: recorded with its failure, kept by the fold until the activity has its outcome."""

from collections.abc import Callable

import pytest

from aion_es.aggregates import Workflow
from aion_es.aggregates.state import ActivityState, WorkflowState, evolve
from aion_es.events import workflow as ev
from aion_es.ids import WorkflowId
from aion_es.payload import Payload
from aion_es.testing.aggregates import given
from tests.unit.aggregates.histories import (
    NOON,
    act,
    activity_cancelled,
    begun,
    completed,
    error,
    failed,
    scheduled,
    started,
)

SAID = Payload.of({"page": 7})

COMMANDS: dict[str, Callable[[Workflow], object]] = {
    "fail": lambda wf: wf.fail_activity(act(0), 1, error(), heartbeat_details=SAID, at=NOON),
    "heartbeat": lambda wf: wf.heartbeat_timeout(act(0), 1, heartbeat_details=SAID, at=NOON),
    "start_to_close": lambda wf: wf.start_to_close_timeout(
        act(0), 1, heartbeat_details=SAID, at=NOON
    ),
}


def folded(*events: ev.WorkflowEvent) -> ActivityState:
    state: WorkflowState | None = None
    for revision, event in enumerate(events):
        state = evolve(state, event, workflow_id=WorkflowId("order-42"), at=NOON, revision=revision)
    assert state is not None
    return state.activities[act(0)]


def said(details: Payload | None, attempt: int = 1) -> ev.ActivityFailed:
    plain = failed(0, attempt, retry_at=NOON)
    return plain.model_copy(update={"heartbeat_details": details})


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_failure_records_what_the_attempt_said_last(
    command: Callable[[Workflow], object],
) -> None:
    def recorded(workflow: Workflow) -> None:
        command(workflow)
        event = workflow.uncommitted[-1].event
        assert isinstance(event, ev.ActivityFailed)
        assert event.heartbeat_details == SAID

    given(started(), scheduled(0), begun(0)).when(recorded)


def test_a_timeout_of_an_unrecorded_attempt_names_the_worker_that_ran_it() -> None:
    def recorded(workflow: Workflow) -> None:
        workflow.start_to_close_timeout(act(0), 1, worker="w", at=NOON)
        event = workflow.uncommitted[0].event
        assert isinstance(event, ev.ActivityStarted)
        assert event.worker == "w"

    given(started(), scheduled(0)).when(recorded)


def test_details_are_kept_until_other_ones_come() -> None:
    history: list[ev.WorkflowEvent] = [started(), scheduled(0), begun(0), said(SAID)]
    assert folded(*history).heartbeat_details == SAID
    history += [begun(0, 2), said(None, 2)]
    assert folded(*history).heartbeat_details == SAID
    other = Payload.of("other")
    assert folded(*history, begun(0, 3), said(other, 3)).heartbeat_details == other


@pytest.mark.parametrize("settled", [completed(0, 2), activity_cancelled(0, 2)])
def test_details_are_let_go_with_the_outcome(settled: ev.WorkflowEvent) -> None:
    history: list[ev.WorkflowEvent] = [
        started(),
        scheduled(0),
        begun(0),
        said(SAID),
        begun(0, 2),
        settled,
    ]
    assert folded(*history).heartbeat_details is None


def test_an_offered_activity_is_known_as_such() -> None:
    offered = scheduled(0).model_copy(update={"offered": True})
    assert [folded(started(), event).offered for event in (offered, scheduled(0))] == [True, False]

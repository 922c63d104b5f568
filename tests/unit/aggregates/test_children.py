"""start_child, request_cancel_child, complete_child, fail_child, cancel_child."""

from collections.abc import Callable

import pytest

from aion_es.aggregates import Workflow
from aion_es.errors import (
    ChildAlreadyStartedError,
    ChildNotFoundError,
    InvalidIdError,
    RunClosedError,
    UnregisteredAttributeError,
    WorkflowNotFoundError,
    WorkflowTypeNotFoundError,
)
from aion_es.events import workflow as ev
from aion_es.ids import WorkflowId
from aion_es.testing.aggregates import given
from tests.unit.aggregates.histories import (
    CHILD,
    CLOSED,
    NEXT,
    NOON,
    OOPS,
    child_started,
    schema,
    started,
    text,
)

Command = Callable[[Workflow], object]
RESULT = ev.ChildWorkflowCompleted(child_workflow_id=CHILD, result=NEXT)
FAILURE = ev.ChildWorkflowFailed(child_workflow_id=CHILD, error=OOPS)
CANCELLATION = ev.ChildWorkflowCancelled(child_workflow_id=CHILD, reason="late")

OUTCOMES: dict[str, tuple[Command, ev.WorkflowEvent]] = {
    "complete": (lambda wf: wf.complete_child(CHILD, NEXT, at=NOON), RESULT),
    "fail": (lambda wf: wf.fail_child(CHILD, OOPS, at=NOON), FAILURE),
    "cancel": (lambda wf: wf.cancel_child(CHILD, "late", at=NOON), CANCELLATION),
}
COMMANDS: dict[str, Command] = {
    "start": lambda wf: wf.start_child(CHILD, "ship", package_version="1", at=NOON),
    "request cancel": lambda wf: wf.request_cancel_child(CHILD, "late", at=NOON),
    **{name: command for name, (command, _) in OUTCOMES.items()},
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_closed_run_records_nothing_about_children(command: Command) -> None:
    given(started(), child_started(), CLOSED).when(command).then_refused(RunClosedError)


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_an_unknown_workflow_has_no_children(command: Command) -> None:
    given().when(command).then_refused(WorkflowNotFoundError)


def test_a_child_is_recorded_with_all_that_its_start_needs() -> None:
    given(started(), schema=schema()).when(
        lambda wf: wf.start_child(
            CHILD,
            "ship",
            NEXT,
            package_version="3",
            parent_close="abandon",
            task_queue="slow",
            attributes={"customer": text("ana")},
            at=NOON,
        )
    ).then(
        ev.ChildWorkflowStarted(
            child_workflow_id=CHILD,
            workflow_type="ship",
            input=NEXT,
            package_version="3",
            parent_close="abandon",
            task_queue="slow",
            attributes={"customer": text("ana")},
        )
    )


@pytest.mark.parametrize("outcome", [None, RESULT, FAILURE, CANCELLATION])
def test_a_child_is_started_once_in_a_run(outcome: ev.WorkflowEvent | None) -> None:
    given(started(), child_started(), *([outcome] if outcome else [])).when(
        COMMANDS["start"]
    ).then_refused(ChildAlreadyStartedError, child_workflow_id="child-1")


def test_a_child_of_a_type_that_is_not_routed_is_refused() -> None:
    given(started()).when(
        lambda wf: wf.start_child(CHILD, "ship", package_version=None, at=NOON)
    ).then_refused(WorkflowTypeNotFoundError, workflow_type="ship")


def test_a_child_with_an_unknown_attribute_is_refused() -> None:
    given(started()).when(
        lambda wf: wf.start_child(
            CHILD, "ship", package_version="1", attributes={"customer": text("ana")}, at=NOON
        )
    ).then_refused(UnregisteredAttributeError, name="customer")


def test_a_child_needs_an_id_that_can_be_recorded() -> None:
    given(started()).when(
        lambda wf: wf.start_child(WorkflowId(""), "ship", package_version="1", at=NOON)
    ).then_refused(InvalidIdError, kind="child_workflow_id")


@pytest.mark.parametrize(("command", "event"), OUTCOMES.values(), ids=OUTCOMES)
def test_the_outcome_of_a_pending_child_is_recorded(
    command: Command, event: ev.WorkflowEvent
) -> None:
    given(started(), child_started()).when(command).then(event)


@pytest.mark.parametrize("command", [command for command, _ in OUTCOMES.values()], ids=OUTCOMES)
@pytest.mark.parametrize("settled", [RESULT, FAILURE, CANCELLATION])
def test_a_child_has_one_outcome(command: Command, settled: ev.WorkflowEvent) -> None:
    given(started(), child_started(), settled).when(command).then_nothing()


@pytest.mark.parametrize("command", [command for command, _ in OUTCOMES.values()], ids=OUTCOMES)
def test_the_outcome_of_a_stranger_is_refused(command: Command) -> None:
    given(started(), child_started(WorkflowId("child-2"))).when(command).then_refused(
        ChildNotFoundError, child_workflow_id="child-1"
    )


def test_a_child_is_asked_to_end_once() -> None:
    asked = ev.ChildWorkflowCancelRequested(child_workflow_id=CHILD, reason="late")
    given(started(), child_started()).when(COMMANDS["request cancel"]).then(asked)
    given(started(), child_started(), asked).when(COMMANDS["request cancel"]).then_nothing()


def test_a_child_that_has_ended_is_not_asked_to() -> None:
    given(started(), child_started(), RESULT).when(COMMANDS["request cancel"]).then_nothing()


def test_what_a_child_is_started_with_is_kept_until_it_has_ended() -> None:
    wf = given(started(), child_started()).aggregate
    assert wf.state.children[CHILD].request == child_started()
    wf.complete_child(CHILD, at=NOON)
    assert wf.state.children[CHILD].request is None

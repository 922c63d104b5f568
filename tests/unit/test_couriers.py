"""The couriers: which errands they run for a parent, and which they leave to whoever has looked first."""

from collections.abc import Callable
from typing import Any

import pytest

from aion_es.aggregates.state import WorkflowState
from aion_es.engine.couriers import Couriers
from aion_es.engine.requests import Decide
from aion_es.errors import AionError
from aion_es.events import workflow as ev
from aion_es.ids import RunId, WorkflowId
from aion_es.testing.aggregates import given
from tests.unit.aggregates.histories import CHILD, NOON, OOPS, child_started, started

FAILED = ev.ChildWorkflowFailed(child_workflow_id=CHILD, error=OOPS)
ENDED = ev.WorkflowFailed(error=OOPS, failed_children=(CHILD,))


class Sent:
    """A `Post` that keeps to whom something was sent."""

    def __init__(self) -> None:
        self.to: list[str] = []

    def post_fact(self, workflow_id: WorkflowId, run_id: RunId, decide: Decide) -> None:
        self.to.append(workflow_id)

    def deliver(
        self,
        workflow_id: WorkflowId,
        decide: Decide,
        then: Callable[[AionError | None], None] | None = None,
        *,
        starts: bool = False,
        traceparent: str | None = None,
    ) -> None:
        self.to.append(workflow_id)


def reopened() -> WorkflowState:
    outcome: Any = given(started(), child_started(), FAILED, ENDED).when(
        lambda wf: wf.reopen(at=NOON)
    )
    state: WorkflowState = outcome.aggregate.state
    return state


def pending() -> WorkflowState:
    outcome: Any = given(started(), child_started()).when(lambda wf: wf.pause(at=NOON))
    state: WorkflowState = outcome.aggregate.state
    return state


@pytest.mark.parametrize(
    ("state", "again", "sent"),
    [
        pytest.param(pending, False, [CHILD], id="pending"),
        pytest.param(reopened, False, [], id="waited-for-again"),
        pytest.param(reopened, True, [CHILD], id="waited-for-again-and-never-begun"),
    ],
)
def test_a_child_that_has_ended_once_is_begun_only_if_it_is_known_that_it_never_was(
    state: Callable[[], WorkflowState], again: bool, sent: list[str]
) -> None:
    """Under its id another run may have come and gone: beginning it would be a second run of the first's id."""
    post = Sent()
    Couriers(post).settle_children(state(), again=again)
    assert post.to == sent

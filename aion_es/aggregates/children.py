"""Decisions on child workflows, on the side of their parent."""

from collections.abc import Mapping

from aion_es.aggregates.attributes import AttributeSchema, start_attributes
from aion_es.aggregates.guards import require_open
from aion_es.aggregates.state import WorkflowState
from aion_es.errors import (
    ChildAlreadyStartedError,
    ChildNotFoundError,
    WorkflowTypeNotFoundError,
)
from aion_es.events.values import AttributeValue, Failure, ParentClose
from aion_es.events.workflow import (
    ChildWorkflowCancelled,
    ChildWorkflowCancelRequested,
    ChildWorkflowCompleted,
    ChildWorkflowFailed,
    ChildWorkflowStarted,
    WorkflowEvent,
)
from aion_es.ids import WorkflowId, check_id
from aion_es.payload import Payload


def start_child(
    state: WorkflowState,
    schema: AttributeSchema,
    child_workflow_id: WorkflowId,
    workflow_type: str,
    input: Payload,
    package_version: str | None,
    parent_close: ParentClose,
    task_queue: str,
    attributes: Mapping[str, AttributeValue],
) -> tuple[WorkflowEvent, ...]:
    """Ask for a child, under an id that this run has not used for one."""
    check_id("child_workflow_id", child_workflow_id)
    require_open(state)
    if child_workflow_id in state.children:
        raise ChildAlreadyStartedError(child_workflow_id)
    if package_version is None:
        raise WorkflowTypeNotFoundError(workflow_type)
    return (
        ChildWorkflowStarted(
            child_workflow_id=child_workflow_id,
            workflow_type=workflow_type,
            input=input,
            package_version=package_version,
            parent_close=parent_close,
            task_queue=task_queue,
            attributes=start_attributes(schema, attributes) if attributes else {},
        ),
    )


def request_cancel_child(
    state: WorkflowState, child_workflow_id: WorkflowId, reason: str
) -> tuple[WorkflowEvent, ...]:
    """Say that the code no longer wants a child. Of a settled one, or again, adds nothing."""
    if _is_settled(state, child_workflow_id):
        return ()
    if state.children[child_workflow_id].cancel_requested is not None:
        return ()
    return (ChildWorkflowCancelRequested(child_workflow_id=child_workflow_id, reason=reason),)


def complete_child(
    state: WorkflowState, child_workflow_id: WorkflowId, result: Payload
) -> tuple[WorkflowEvent, ...]:
    """Record the child's result, unless it already has an outcome."""
    if _is_settled(state, child_workflow_id):
        return ()
    return (ChildWorkflowCompleted(child_workflow_id=child_workflow_id, result=result),)


def fail_child(
    state: WorkflowState, child_workflow_id: WorkflowId, error: Failure
) -> tuple[WorkflowEvent, ...]:
    """Record the child's failure, unless it already has an outcome."""
    if _is_settled(state, child_workflow_id):
        return ()
    return (ChildWorkflowFailed(child_workflow_id=child_workflow_id, error=error),)


def cancel_child(
    state: WorkflowState, child_workflow_id: WorkflowId, reason: str
) -> tuple[WorkflowEvent, ...]:
    """Record that the child ended as Cancelled, unless it already has an outcome."""
    if _is_settled(state, child_workflow_id):
        return ()
    return (ChildWorkflowCancelled(child_workflow_id=child_workflow_id, reason=reason),)


def _is_settled(state: WorkflowState, child_workflow_id: WorkflowId) -> bool:
    require_open(state)
    child = state.children.get(child_workflow_id)
    if child is None:
        raise ChildNotFoundError(child_workflow_id)
    return child.phase != "started"

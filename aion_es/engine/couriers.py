"""The couriers: what one workflow's stream owes to another's is brought there, as commands on its aggregate.

Children are started, asked to end and closed with their parent; parents are told how their children
ended; signals are delivered, and their senders told. Each errand is an idempotent command, so that it may be
run again after a crash by whoever finds it owed.
"""

import uuid
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Final, Protocol

from aion_es.aggregates.lifecycle import StartWorkflow
from aion_es.aggregates.state import ChildState, WorkflowState
from aion_es.aggregates.workflow import Workflow
from aion_es.engine.requests import Decide
from aion_es.engine.tracing import RunContexts
from aion_es.errors import AionError, DomainError
from aion_es.events.values import Failure, SignalMessage, WorkflowRef
from aion_es.events.workflow import (
    ChildWorkflowStarted,
    SignalSent,
    TerminalEvent,
    WorkflowCancelled,
    WorkflowCompleted,
    WorkflowContinuedAsNew,
    WorkflowFailed,
    WorkflowTerminated,
    WorkflowTimedOut,
)
from aion_es.ids import RunId, SignalId, WorkflowId
from aion_es.payload import Payload

TERMINATED: Final = "WorkflowTerminated"
TIMED_OUT: Final = "WorkflowTimedOut"
"""Error types of children that ended so."""
PARENT_CLOSED: Final = "its parent closed"


class Post(Protocol):
    """How errands leave: into the mailbox of the workflow they concern."""

    def post_fact(self, workflow_id: WorkflowId, run_id: RunId, decide: Decide) -> None:
        """Record a fact about this run, for certain, unless the run has closed meanwhile."""
        ...

    def deliver(
        self,
        workflow_id: WorkflowId,
        decide: Decide,
        then: Callable[[AionError | None], None] | None = None,
        *,
        starts: bool = False,
        traceparent: str | None = None,
    ) -> None:
        """Give a command for certain, and say how it was taken: `None`, or the refusal."""
        ...


def child_run_id(parent: WorkflowRef, child_workflow_id: WorkflowId) -> RunId:
    """Return the run id of a child: the same whoever starts it, and however often."""
    return RunId(str(uuid.uuid5(_CHILDREN, f"{parent.run_id}\n{child_workflow_id}")))


_CHILDREN: Final = uuid.UUID("0b0a52e3-7d3e-5a6c-8f1b-3f0f5a1f7c52")


class Couriers:
    """Runs errands between workflows. Holds nothing: what is owed is in the streams."""

    def __init__(self, post: Post) -> None:
        self._post = post

    # ----------------------------------------------------------------------------- children

    def start_child(
        self, parent: WorkflowRef, event: ChildWorkflowStarted, traceparent: str | None = None
    ) -> None:
        """Start a child, unless it was; the parent hears of a refusal, and of nothing else."""
        child_id = event.child_workflow_id

        def start(workflow: Workflow, at: datetime) -> None:
            if not _is_childs(workflow, parent):
                workflow.start(_start_of(parent, event), at=at)

        def started(error: AionError | None) -> None:
            if isinstance(error, DomainError):
                failure = Failure(type=type(error).__name__, message=str(error))
                self._post.post_fact(
                    parent.workflow_id,
                    parent.run_id,
                    lambda w, at: w.fail_child(child_id, failure, at=at),
                )

        self._post.deliver(child_id, start, started, starts=True, traceparent=traceparent)

    def cancel_child(self, parent: WorkflowRef, child_workflow_id: WorkflowId, reason: str) -> None:
        """Ask a child to end, if it is open."""

        def cancel(workflow: Workflow, at: datetime) -> None:
            if _is_childs(workflow, parent) and workflow.state.is_open:
                workflow.request_cancel(reason, at=at)

        self._post.deliver(child_workflow_id, cancel)

    def settle_children(
        self,
        state: WorkflowState,
        children: Iterable[WorkflowId] | None = None,
        *,
        contexts: RunContexts | None = None,
        again: bool = False,
    ) -> None:
        """Do what a run owes its children; what was done before changes nothing.

        Args:
            state: Of the run. While it is open it begins them, and asks those to end that it wants no more;
                once it has closed, each child's `parent_close` says.
            children: Which; those without an outcome if not given.
            again: Begin those too that are waited for again. They have ended once, and who has not looked into
                the stream cannot tell whether they were ever begun: under their id another run may have closed since.
            contexts: Trace contexts of the run; `None` where nobody records.
        """
        parent = _ref(state)
        for child_id in state.pending.children if children is None else children:
            child = state.children.get(child_id)
            if child is None or child.request is None:
                continue
            context = None if contexts is None else contexts.of_child(child_id)
            if not state.is_open:
                self._close_child(state, child_id, child, context)
                continue
            if again or child.end_place < 0:
                self.start_child(parent, child.request, context)
            if child.cancel_requested is not None:
                self.cancel_child(parent, child_id, child.cancel_requested)

    def _close_child(
        self,
        state: WorkflowState,
        child_workflow_id: WorkflowId,
        child: ChildState,
        traceparent: str | None,
    ) -> None:
        """Do with one child of a closed run what its `parent_close` says.

        A child that was asked for and not yet begun is begun and closed: its stream tells what became of it.
        One that was reopened since is left alone: it was closed, and somebody wants it nevertheless.
        """
        parent, ended_at = _ref(state), state.ended_at
        request = child.request
        if request is None:
            return
        if child.parent_close == "abandon":
            self.start_child(parent, request, traceparent)
            return

        def close(workflow: Workflow, at: datetime) -> None:
            if not workflow.exists:
                workflow.start(_start_of(parent, request), at=at)
            if not _is_childs(workflow, parent) or not workflow.state.is_open:
                return
            reopened_at = workflow.state.reopened_at
            if ended_at is not None and reopened_at is not None and reopened_at >= ended_at:
                return
            if child.parent_close == "terminate":
                workflow.terminate(PARENT_CLOSED, at=at)
            else:
                workflow.request_cancel(PARENT_CLOSED, at=at)

        self._post.deliver(child_workflow_id, close, starts=True, traceparent=traceparent)

    def tell_parent(
        self, parent: WorkflowRef, child_workflow_id: WorkflowId, event: TerminalEvent
    ) -> None:
        """Tell the parent how its child ended; one that went on as a new run has not."""
        decide = _outcome(child_workflow_id, event)
        if decide is not None:
            self._post.post_fact(parent.workflow_id, parent.run_id, decide)

    # ------------------------------------------------------------------------------ signals

    def send_signal(
        self,
        sender: WorkflowRef,
        signal_id: SignalId,
        target_workflow_id: WorkflowId,
        name: str,
        payload: Payload,
        traceparent: str | None = None,
    ) -> None:
        """Deliver a signal, once, and tell its sender that it arrived or cannot."""
        message = SignalMessage(signal_id=signal_id, name=name, payload=payload, sender=sender)

        def delivered(error: AionError | None) -> None:
            decide: Decide
            if error is None:
                decide = lambda w, at: w.confirm_signal(signal_id, at=at)  # noqa: E731 - one of two
            elif isinstance(error, DomainError):
                reason = str(error)
                decide = lambda w, at: w.fail_signal(signal_id, reason, at=at)  # noqa: E731 - the other
            else:
                return
            self._post.post_fact(sender.workflow_id, sender.run_id, decide)

        self._post.deliver(
            target_workflow_id,
            lambda w, at: w.receive_signal(message, at=at),
            delivered,
            traceparent=traceparent,
        )

    # ----------------------------------------------------------------------------- recovery

    def run_again(self, state: WorkflowState, contexts: RunContexts | None) -> None:
        """Run every errand of an open run that may not have been run: each changes nothing if it was."""
        self.settle_children(state, contexts=contexts)
        parent = _ref(state)
        for sent in state.sent_signals.values():
            if isinstance(sent, SignalSent):
                context = None if contexts is None else contexts.of_signal(sent.signal_id)
                target, name = sent.target_workflow_id, sent.name
                self.send_signal(parent, sent.signal_id, target, name, sent.payload, context)


def _ref(state: WorkflowState) -> WorkflowRef:
    return WorkflowRef(workflow_id=state.workflow_id, run_id=state.run_id)


def _is_childs(workflow: Workflow, parent: WorkflowRef) -> bool:
    """Whether the current run is the parent's child, or a successor of it."""
    return workflow.exists and workflow.state.parent == parent


def _start_of(parent: WorkflowRef, event: ChildWorkflowStarted) -> StartWorkflow:
    return StartWorkflow(
        workflow_type=event.workflow_type,
        package_version=event.package_version,
        run_id=child_run_id(parent, event.child_workflow_id),
        input=event.input,
        task_queue=event.task_queue,
        parent=parent,
        attributes=event.attributes,
    )


def _outcome(child_id: WorkflowId, event: TerminalEvent) -> Decide | None:
    """Return the command that records in the parent's stream how the child ended."""
    match event:
        case WorkflowCompleted():
            return lambda w, at: w.complete_child(child_id, event.result, at=at)
        case WorkflowCancelled():
            return lambda w, at: w.cancel_child(child_id, event.reason, at=at)
        case WorkflowContinuedAsNew():
            return None
        case WorkflowFailed():
            failure = event.error.model_copy(update={"traceback": None})
        case WorkflowTerminated():
            failure = Failure(type=TERMINATED, message=event.reason)
        case WorkflowTimedOut():
            failure = Failure(type=TIMED_OUT, message=f"its {event.timeout} timeout passed")
    return lambda w, at: w.fail_child(child_id, failure, at=at)

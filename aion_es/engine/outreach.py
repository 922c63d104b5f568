"""What one run's code asks of other workflows: its children, and the signals that it sends."""

import asyncio
from collections.abc import Callable, Mapping
from typing import TypeAlias

from aion_es.authoring.children import ChildRequest
from aion_es.engine.commands import Command, RequestChildCancel, SendSignal, StartChild
from aion_es.engine.failures import led_to
from aion_es.engine.handles import ChildFuture
from aion_es.engine.loop import WorkflowLoop
from aion_es.engine.reopening import Cut
from aion_es.errors import ChildAlreadyStartedError, ChildWorkflowError, SignalDeliveryError
from aion_es.events.values import AttributeValue
from aion_es.events.workflow import (
    ChildWorkflowCancelled,
    ChildWorkflowCompleted,
    ChildWorkflowFailed,
    SignalDelivered,
    SignalSendFailed,
)
from aion_es.ids import RunId, SignalId, WorkflowId, check_id
from aion_es.payload import Payload

OutreachFact: TypeAlias = (
    ChildWorkflowCompleted
    | ChildWorkflowFailed
    | ChildWorkflowCancelled
    | SignalDelivered
    | SignalSendFailed
)
CANCELLED = "WorkflowCancelled"
"""Error type of a child that ended as Cancelled."""


class Outreach:
    """Children and sent signals of one run, and the futures that wait for them.

    Args:
        loop: The run's.
        run_id: What ids are made of.
        command: Takes what the code commands.
    """

    def __init__(
        self, loop: WorkflowLoop, run_id: RunId, command: Callable[[Command], None]
    ) -> None:
        self._loop = loop
        self._run_id = run_id
        self._command = command
        self._next_child = 0
        self._next_signal = 0
        self._children: dict[WorkflowId, ChildFuture] = {}
        self._known: set[WorkflowId] = set()
        self._failures: list[tuple[BaseException, WorkflowId]] = []
        self._sent: dict[SignalId, tuple[asyncio.Future[None], WorkflowId, str]] = {}
        self._named: dict[SignalId, asyncio.Future[None]] = {}

    @property
    def pending(self) -> tuple[WorkflowId, ...]:
        """Children without an outcome, in the order in which they were started."""
        return tuple(self._children)

    def clear(self) -> None:
        """Forget everything; the history keeps it."""
        self._children.clear()
        self._failures.clear()
        self._sent.clear()
        self._named.clear()

    def pass_over(self, cut: Cut) -> None:
        """Pass the place of what a reopening has made void: its ids are taken, and its signals are sent."""
        self._next_child = max(self._next_child, cut.next_child)
        self._next_signal = max(self._next_signal, cut.next_signal)
        self._known.update(cut.children)
        for signal_id, (sent, outcome) in cut.signals.items():
            future = self._named[signal_id] = self._loop.create_future()
            self._sent[signal_id] = (future, sent.target_workflow_id, sent.name)
            if isinstance(outcome, SignalDelivered):
                self.delivered(outcome)
            elif outcome is not None:
                self.undeliverable(outcome)
                future.exception()  # looked at: perhaps nobody asks for it

    # ----------------------------------------------------------------------------- children

    def require_new(self, workflow_id: str | None) -> None:
        """Check an id that the author has chosen for a child.

        Raises:
            ChildAlreadyStartedError: This run has, or had, a child with this id.
            InvalidIdError: The id is not 1–255 printable characters.
        """
        if workflow_id is not None and check_id("child workflow id", workflow_id) in self._known:
            raise ChildAlreadyStartedError(workflow_id)

    def start_child(
        self,
        request: ChildRequest,
        package_version: str,
        attributes: Mapping[str, AttributeValue],
    ) -> ChildFuture:
        """Command a child, under an id that `require_new` has let pass or one that is made here."""
        if request.workflow_id is not None:
            workflow_id = WorkflowId(request.workflow_id)
        else:
            workflow_id = WorkflowId(f"{self._run_id}/{self._next_child}")
            self._next_child += 1
        self._command(
            StartChild(
                workflow_id,
                request.workflow_type,
                request.input,
                package_version,
                request.parent_close,
                request.task_queue,
                attributes,
            )
        )
        future = ChildFuture(self, self._loop, workflow_id, request)
        self._known.add(workflow_id)
        self._children[workflow_id] = future
        return future

    def cancel_child(self, workflow_id: WorkflowId, reason: str) -> None:
        """Command that a child be asked to end, unless its end is known."""
        if workflow_id in self._children and not self._loop.is_closed():
            self._command(RequestChildCancel(workflow_id, reason))

    def completed(self, event: ChildWorkflowCompleted) -> None:
        """Take in a child's result."""
        future = self._settled(event.child_workflow_id)
        if future is not None:
            future.set_result(future.request.read_result(event.result))

    def failed(self, event: ChildWorkflowFailed) -> None:
        """Take in a child's failure."""
        future = self._settled(event.child_workflow_id)
        if future is not None:
            failure = event.error
            error = ChildWorkflowError(
                future.request.workflow_type,
                event.child_workflow_id,
                failure.type,
                failure.message,
                failure.details,
            )
            self._failures.append((error, event.child_workflow_id))
            future.set_exception(error)

    def cancelled(self, event: ChildWorkflowCancelled) -> None:
        """Take in that a child ended as Cancelled."""
        future = self._settled(event.child_workflow_id)
        if future is not None:
            error = ChildWorkflowError(
                future.request.workflow_type, event.child_workflow_id, CANCELLED, event.reason
            )
            self._failures.append((error, event.child_workflow_id))
            future.settle_cancelled(error)

    def that_led_to(self, error: BaseException) -> tuple[WorkflowId, ...]:
        """Return the children whose end without a result is what `error` came from."""
        return tuple(child_id for failure, child_id in self._failures if led_to(failure, error))

    def take(self, event: OutreachFact) -> None:
        """Take in what became of a child or of a sent signal."""
        match event:
            case ChildWorkflowCompleted():
                self.completed(event)
            case ChildWorkflowFailed():
                self.failed(event)
            case ChildWorkflowCancelled():
                self.cancelled(event)
            case SignalDelivered():
                self.delivered(event)
            case SignalSendFailed():
                self.undeliverable(event)

    def _settled(self, workflow_id: WorkflowId) -> ChildFuture | None:
        future = self._children.pop(workflow_id, None)
        return None if future is None or future.done() else future

    # ------------------------------------------------------------------------------ signals

    def send(
        self, target_workflow_id: str, name: str, payload: Payload, signal_id: str | None
    ) -> "asyncio.Future[None]":
        """Command a signal to another workflow; the future is done when it has arrived.

        Raises:
            InvalidIdError: An id is not 1–255 printable characters.
        """
        target = WorkflowId(check_id("target workflow id", target_workflow_id))
        if signal_id is not None:
            key = SignalId(check_id("signal_id", signal_id))
        else:
            key = SignalId(f"{self._run_id}/{self._next_signal}")
            self._next_signal += 1
        known = self._named.get(key)
        if known is not None:
            return known  # sent before: it is one signal
        self._command(SendSignal(key, target, name, payload))
        future = self._loop.create_future()
        self._sent[key] = (future, target, name)
        if signal_id is not None:
            self._named[key] = future
        return future

    def delivered(self, event: SignalDelivered) -> None:
        """Take in that a signal has arrived."""
        known = self._sent.pop(event.signal_id, None)
        if known is not None and not known[0].done():
            known[0].set_result(None)

    def undeliverable(self, event: SignalSendFailed) -> None:
        """Take in that a signal cannot be delivered."""
        known = self._sent.pop(event.signal_id, None)
        if known is not None and not known[0].done():
            future, target, name = known
            future.set_exception(SignalDeliveryError(target, name, event.reason))

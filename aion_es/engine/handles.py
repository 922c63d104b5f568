"""What workflow code holds in its hands: futures of activities, timers and children whose cancelling is a command."""

from typing import Any, Literal, Protocol

from aion_es.authoring.children import ChildRequest
from aion_es.authoring.definitions import ActivityDefinition, Cancellation
from aion_es.engine.loop import WorkflowFuture, WorkflowLoop
from aion_es.ids import ActivityId, TimerId, WorkflowId


class Commander(Protocol):
    """What a handle needs of the execution it belongs to."""

    @property
    def loop(self) -> WorkflowLoop:
        """The run's loop."""
        ...

    def request_activity_cancel(
        self, activity_id: ActivityId
    ) -> Literal["asked", "never scheduled"]:
        """Command that an activity be cancelled."""
        ...

    def cancel_timer(self, timer_id: TimerId) -> Literal["done", "never started"]:
        """Command that a timer be cancelled."""
        ...


class ActivityFuture(WorkflowFuture[Any]):
    """The handle of an activity; cancelling it does what the activity's `cancellation` says."""

    def __init__(
        self,
        execution: Commander,
        activity_id: ActivityId,
        definition: ActivityDefinition,
        cancellation: Cancellation,
    ) -> None:
        super().__init__(loop=execution.loop)
        self.definition = definition
        self._execution = execution
        self._activity_id = activity_id
        self._cancellation: Cancellation = cancellation
        self._asked = False

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel the activity as its options say; false if it has an outcome."""
        if self.done():
            return False
        if self._cancellation != "abandon" and not self._asked:
            self._asked = True
            if self._execution.request_activity_cancel(self._activity_id) == "never scheduled":
                return super().cancel(msg)
        if self._cancellation == "wait":
            return True  # the outcome decides: cancelled, completed after all, or failed
        return super().cancel(msg)

    def settle_cancelled(self) -> None:
        """Take in that the activity ended without an outcome."""
        if not self.done():
            super().cancel()


class TimerFuture(WorkflowFuture[None]):
    """The handle of a named timer; cancelling it cancels the timer."""

    def __init__(self, execution: Commander, timer_id: TimerId) -> None:
        super().__init__(loop=execution.loop)
        self._execution = execution
        self.timer_id = timer_id

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel the timer; false if it has fired."""
        if self.done():
            return False
        self._execution.cancel_timer(self.timer_id)
        return super().cancel(msg)


class ChildCanceller(Protocol):
    """What the future of a child needs of those who keep it."""

    def cancel_child(self, workflow_id: WorkflowId, reason: str) -> None:
        """Command that a child be asked to end."""
        ...


class ChildFuture(WorkflowFuture[Any]):
    """A child's end; cancelling it does what the child's `cancellation` says."""

    def __init__(
        self,
        children: ChildCanceller,
        loop: WorkflowLoop,
        workflow_id: WorkflowId,
        request: ChildRequest,
    ) -> None:
        super().__init__(loop=loop)
        self.workflow_id = workflow_id
        self.request = request
        self._children = children
        self._asked = False

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel the child as its options say; false if its end is known."""
        if self.done():
            return False
        cancellation = self.request.cancellation
        if cancellation != "abandon" and not self._asked:
            self._asked = True
            self._children.cancel_child(self.workflow_id, "its parent no longer waits for it")
        if cancellation == "wait":
            return True  # its end decides: cancelled, completed after all, or failed
        return super().cancel(msg)

    def settle_cancelled(self, error: Exception) -> None:
        """Take in that the child ended as Cancelled: what was asked for, or an error like any other."""
        if self._asked:
            super().cancel()
        else:
            self.set_exception(error)

"""How things ended, told to those who wait: runs, activities, children, signals; and what user code raises."""

from typing import Any

from aion_es.errors.base import AionError


class WorkflowOutcomeError(AionError):
    """The run closed without a result."""

    code = "workflow_outcome"

    def __init__(self, workflow_id: str, run_id: str) -> None:
        super().__init__(workflow_id, run_id)
        self.workflow_id, self.run_id = workflow_id, run_id

    def __str__(self) -> str:
        return f"run {self.run_id} of workflow {self.workflow_id!r} closed without a result"


class WorkflowFailedError(WorkflowOutcomeError):
    """The run's code raised.

    Attributes:
        type: Class name of what was raised.
        message: Its text.
        details: What it carried, as plain JSON values.
        traceback: Where it was raised, if it was recorded.
    """

    code = "workflow_failed"

    def __init__(
        self,
        workflow_id: str,
        run_id: str,
        type: str,
        message: str,
        details: Any = None,
        traceback: str | None = None,
    ) -> None:
        super().__init__(workflow_id, run_id)
        self.args = (workflow_id, run_id, type, message, details, traceback)
        self.type, self.message, self.details, self.traceback = type, message, details, traceback

    def __str__(self) -> str:
        return f"workflow {self.workflow_id!r} failed: {self.type}: {self.message}"


class WorkflowCancelledError(WorkflowOutcomeError):
    """The run ended as Cancelled."""

    code = "workflow_cancelled"

    def __init__(self, workflow_id: str, run_id: str, reason: str) -> None:
        super().__init__(workflow_id, run_id)
        self.args = (workflow_id, run_id, reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"workflow {self.workflow_id!r} was cancelled: {self.reason}"


class WorkflowTerminatedError(WorkflowOutcomeError):
    """The run was terminated from outside, without asking its code."""

    code = "workflow_terminated"

    def __init__(self, workflow_id: str, run_id: str, reason: str) -> None:
        super().__init__(workflow_id, run_id)
        self.args = (workflow_id, run_id, reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"workflow {self.workflow_id!r} was terminated: {self.reason}"


class WorkflowTimedOutError(WorkflowOutcomeError):
    """The run, or its chain, was open for longer than allowed."""

    code = "workflow_timed_out"

    def __init__(self, workflow_id: str, run_id: str, timeout: str) -> None:
        super().__init__(workflow_id, run_id)
        self.args = (workflow_id, run_id, timeout)
        self.timeout = timeout

    def __str__(self) -> str:
        return f"workflow {self.workflow_id!r} timed out: {self.timeout} timeout"


class ActivityError(AionError):
    """An activity failed for good: not retryable, or its attempts are used up.

    Attributes:
        type: Class name of the last attempt's error. Replay matches on this and `details`, never on text.
        message: Its text.
        details: What `RetryableError` or `NonRetryableError` carried, as plain JSON values.
        attempts: How many attempts were made, from 1.
    """

    code = "activity"

    def __init__(
        self, activity_type: str, type: str, message: str, details: Any = None, attempts: int = 1
    ) -> None:
        super().__init__(activity_type, type, message, details, attempts)
        self.activity_type, self.type, self.message = activity_type, type, message
        self.details, self.attempts = details, attempts

    def __str__(self) -> str:
        tries = "1 attempt" if self.attempts == 1 else f"{self.attempts} attempts"
        return f"activity {self.activity_type!r} failed after {tries}: {self.type}: {self.message}"


class ChildWorkflowError(AionError):
    """A child ended without a result.

    Attributes:
        workflow_type: Of the child.
        child_workflow_id: Its id.
        type: Class name of what its code raised; `WorkflowCancelled`, `WorkflowTerminated` or
            `WorkflowTimedOut` for a child that ended so; `WorkflowAlreadyStartedError` if its id is taken.
        message: The text of that.
        details: What the error carried, as plain JSON values.
    """

    code = "child_workflow"

    def __init__(
        self,
        workflow_type: str,
        child_workflow_id: str,
        type: str,
        message: str,
        details: Any = None,
    ) -> None:
        super().__init__(workflow_type, child_workflow_id, type, message, details)
        self.workflow_type, self.child_workflow_id = workflow_type, child_workflow_id
        self.type, self.message, self.details = type, message, details

    def __str__(self) -> str:
        return (
            f"child workflow {self.child_workflow_id!r} of type {self.workflow_type!r} "
            f"ended with {self.type}: {self.message}"
        )


class SignalDeliveryError(AionError):
    """A signal to another workflow could not be delivered: there is no such workflow, or it is closed.

    Attributes:
        target_workflow_id: Whom it was for.
        signal: Name of its channel.
        reason: Why it was refused.
    """

    code = "signal_delivery"

    def __init__(self, target_workflow_id: str, signal: str, reason: str) -> None:
        super().__init__(target_workflow_id, signal, reason)
        self.target_workflow_id, self.signal, self.reason = target_workflow_id, signal, reason

    def __str__(self) -> str:
        return f"signal {self.signal!r} to {self.target_workflow_id!r}: {self.reason}"


class ApplicationError(AionError):
    """Raised by user code to say how a failure is to be taken."""

    code = "application"

    def __init__(self, message: str = "", details: Any = None) -> None:
        super().__init__(message, details)
        self.message, self.details = message, details

    def __str__(self) -> str:
        return self.message


class RetryableError(ApplicationError):
    """Try the activity again, as its retry policy says."""

    code = "retryable"


class NonRetryableError(ApplicationError):
    """Do not try the activity again, whatever its retry policy says."""

    code = "non_retryable"

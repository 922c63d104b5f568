"""Short names for the events and instants that these tests are told with."""

from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from aion_es.aggregates import AttributeSchema, StartWorkflow
from aion_es.events import workflow as ev
from aion_es.events.attributes import SearchAttribute
from aion_es.events.values import (
    ActivityFailure,
    ActivityTimeouts,
    AttributeValue,
    Failure,
    RetryPolicy,
    SignalMessage,
    WorkflowRef,
)
from aion_es.ids import ActivityId, RunId, SignalId, TimerId, WorkflowId
from aion_es.payload import NOTHING, Payload

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
RUN = RunId("run-1")
NEXT_RUN = RunId("run-2")
NEXT = Payload.of({"page": 2})
OOPS = Failure(type="ValueError", message="no such card")
TICK = TimerId("tick")
CHILD = WorkflowId("child-1")
CUSTOMER = SearchAttribute("customer", str)
TOTAL = SearchAttribute("total", int)


def schema() -> AttributeSchema:
    return AttributeSchema(CUSTOMER, TOTAL)


def text(value: str) -> AttributeValue:
    return AttributeValue(type="String", value=value)


def whole(value: int) -> AttributeValue:
    return AttributeValue(type="Int", value=value)


def act(ordinal: int) -> ActivityId:
    return ActivityId(ordinal)


def start(**changes: Any) -> StartWorkflow:
    given: dict[str, Any] = {"workflow_type": "checkout", "package_version": "1", "run_id": RUN}
    return StartWorkflow(**(given | changes))


def started(workflow_type: str = "checkout", **changes: Any) -> ev.WorkflowStarted:
    given: dict[str, Any] = {"run_id": RUN, "first_run_id": RUN, "package_version": "1"}
    return ev.WorkflowStarted(workflow_type=workflow_type, **(given | changes))


def scheduled(
    ordinal: int,
    activity_type: str = "charge_card",
    *,
    retry: RetryPolicy | None = None,
    timeouts: ActivityTimeouts | None = None,
    input: Payload = NOTHING,
) -> ev.ActivityScheduled:
    return ev.ActivityScheduled(
        activity_id=act(ordinal),
        activity_type=activity_type,
        input=input,
        retry=retry or RetryPolicy(),
        timeouts=timeouts or ActivityTimeouts(),
    )


def begun(ordinal: int, attempt: int = 1, worker: str = "") -> ev.ActivityStarted:
    return ev.ActivityStarted(activity_id=act(ordinal), attempt=attempt, worker=worker)


def completed(ordinal: int, attempt: int = 1, result: Payload = NOTHING) -> ev.ActivityCompleted:
    return ev.ActivityCompleted(activity_id=act(ordinal), attempt=attempt, result=result)


def error(
    kind: Literal["retryable", "terminal"] = "retryable", type: str = "TimeoutError"
) -> ActivityFailure:
    return ActivityFailure(kind=kind, type=type)


def failed(
    ordinal: int,
    attempt: int = 1,
    *,
    retry_at: datetime | None = None,
    because: ActivityFailure | None = None,
) -> ev.ActivityFailed:
    return ev.ActivityFailed(
        activity_id=act(ordinal),
        attempt=attempt,
        error=because or error("terminal" if retry_at is None else "retryable"),
        retry_at=retry_at,
    )


def activity_cancelled(ordinal: int, attempt: int = 1) -> ev.ActivityCancelled:
    return ev.ActivityCancelled(activity_id=act(ordinal), attempt=attempt)


def armed(timer_id: TimerId = TICK, fire_at: datetime = NOON + HOUR) -> ev.TimerStarted:
    return ev.TimerStarted(timer_id=timer_id, fire_at=fire_at)


def fired(timer_id: TimerId = TICK) -> ev.TimerFired:
    return ev.TimerFired(timer_id=timer_id)


def message(
    signal_id: str = "s1", name: str = "approval", sender: WorkflowRef | None = None
) -> SignalMessage:
    return SignalMessage(signal_id=SignalId(signal_id), name=name, payload=NEXT, sender=sender)


def received(signal_id: str = "s1", name: str = "approval") -> ev.SignalReceived:
    return ev.SignalReceived(signal_id=SignalId(signal_id), name=name, payload=NEXT)


def sent(signal_id: str = "s1") -> ev.SignalSent:
    return ev.SignalSent(
        signal_id=SignalId(signal_id), target_workflow_id=WorkflowId("other"), name="approval"
    )


def child_started(child: WorkflowId = CHILD) -> ev.ChildWorkflowStarted:
    return ev.ChildWorkflowStarted(
        child_workflow_id=child, workflow_type="ship", package_version="1"
    )


CLOSED = ev.WorkflowCompleted()
FAILED = ev.WorkflowFailed(error=OOPS)
CANCELLED = ev.WorkflowCancelled()
TERMINATED = ev.WorkflowTerminated()
TIMED_OUT = ev.WorkflowTimedOut(timeout="run")
TERMINALS: tuple[ev.WorkflowEvent, ...] = (CLOSED, FAILED, CANCELLED, TERMINATED, TIMED_OUT)

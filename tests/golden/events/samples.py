"""One event of every type with every field set, and one with only what its type demands.

`python -m tests.golden.events.samples` writes the golden files that are missing. It never rewrites one:
what a release has written, every later one must be able to read and must go on writing.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from aion_es.events.base import Event
from aion_es.events.catalog import (
    PackageLoaded,
    PackagePartStored,
    PackageUnloaded,
    PackageUploadBegan,
    RoutesChanged,
)
from aion_es.events.codec import encode
from aion_es.events.metadata import EventMetadata
from aion_es.events.schedule import (
    ScheduleBuffered,
    ScheduleCheckpointed,
    ScheduleCreated,
    ScheduleDeleted,
    SchedulePaused,
    ScheduleResumed,
    ScheduleSkipped,
    ScheduleTriggered,
    ScheduleUpdated,
    TakenAction,
    WaitingAction,
)
from aion_es.events.values import (
    ActivityFailure,
    ActivityTimeouts,
    AttributeValue,
    Failure,
    RetryPolicy,
    SignalMessage,
    TakenBack,
    WorkflowRef,
)
from aion_es.events.workflow import (
    ActivityCancelled,
    ActivityCancelRequested,
    ActivityCompleted,
    ActivityFailed,
    ActivityScheduled,
    ActivityStarted,
    ChildWorkflowCancelled,
    ChildWorkflowCancelRequested,
    ChildWorkflowCompleted,
    ChildWorkflowFailed,
    ChildWorkflowStarted,
    MarkerRecorded,
    SearchAttributesUpdated,
    SignalDelivered,
    SignalReceived,
    SignalSendFailed,
    SignalSent,
    TimerCancelled,
    TimerFired,
    TimerStarted,
    WithTimeoutCompleted,
    WorkflowCancelled,
    WorkflowCancelRequested,
    WorkflowCompleted,
    WorkflowContinuedAsNew,
    WorkflowFailed,
    WorkflowPaused,
    WorkflowReopened,
    WorkflowResumed,
    WorkflowStarted,
    WorkflowTerminated,
    WorkflowTimedOut,
)
from aion_es.ids import ActivityId, RunId, ScheduleId, SignalId, TimerId, WorkflowId
from aion_es.payload import Payload

FOLDER: Final = Path(__file__).parent

NOON: Final = datetime(2026, 11, 24, 12, 0, 0, 250000, tzinfo=UTC)
FIRST_RUN: Final = RunId("019ab5a0-0000-7000-8000-000000000001")
RUN: Final = RunId("019ab5a0-0000-7000-8000-000000000002")
NEXT_RUN: Final = RunId("019ab5a0-0000-7000-8000-000000000003")
CHECKOUT: Final = WorkflowId("checkout-42")
SHIPPING: Final = WorkflowId("shipping-42")
PARENT: Final = WorkflowRef(workflow_id=WorkflowId("order-7"), run_id=FIRST_RUN)
ORDER: Final = Payload.of({"order": "Ørsted ✓", "lines": [1, 2.5, None, True]})
PACKAGE: Final = "3f" * 32
ENCODED: Final = Payload(data="H4sIAAAA", encoding=("gzip", "base64"))

ATTRIBUTES: Final = {
    "customer": AttributeValue(type="String", value="Ada"),
    "lines": AttributeValue(type="Int", value=3),
    "total": AttributeValue(type="Float", value=12.5),
    "express": AttributeValue(type="Bool", value=True),
    "due": AttributeValue(type="Datetime", value="2026-11-24T12:00:00.250000Z"),
    "tags": AttributeValue(type="KeywordList", value=("new", "eu")),
}

FAILURE: Final = Failure(
    type="CardRefused",
    message="no funds",
    details={"left": 0},
    cause=Failure(type="OSError", message="reset", traceback='File "bank.py", line 3'),
    traceback='File "shop.py", line 9',
)

APPROVAL: Final = SignalMessage(
    signal_id=SignalId("019ab5a0-0000-7000-8000-0000000000a1"),
    name="approve",
    payload=Payload.of("yes"),
    sender=PARENT,
)

CONFIG: Final = {"spec": {"every": "PT1H"}, "action": {"workflow_type": "report"}, "paused": False}

FULL: Final[Sequence[Event]] = (
    WorkflowStarted(
        workflow_type="checkout",
        input=ORDER,
        run_id=RUN,
        first_run_id=FIRST_RUN,
        parent_run_id=FIRST_RUN,
        package_version="2",
        task_queue="fast",
        parent=PARENT,
        schedule_id=ScheduleId("nightly"),
        run_deadline=NOON + timedelta(hours=1),
        execution_deadline=NOON + timedelta(days=1),
        attributes=ATTRIBUTES,
        carried_signals=(APPROVAL,),
        read_signals=(SignalId("signal-0"),),
        request_id="request-1",
        memo=ENCODED,
        code_hash="0123456789abcdef",
    ),
    WorkflowCompleted(result=ORDER),
    WorkflowFailed(error=FAILURE),
    WorkflowCancelRequested(reason="customer left", operator="ada"),
    WorkflowCancelled(reason="customer left"),
    WorkflowTerminated(reason="runaway", operator="ada"),
    WorkflowTimedOut(timeout="execution"),
    WorkflowContinuedAsNew(
        input=ORDER, workflow_type="checkout", parent_run_id=RUN, new_run_id=NEXT_RUN
    ),
    WorkflowPaused(run_id=RUN, reason="bank is down", operator="ada"),
    WorkflowResumed(run_id=RUN, reason="bank is back", operator="ada"),
    WorkflowReopened(run_id=RUN, reopened=(ActivityId(0), ActivityId(3)), operator="ada"),
    SearchAttributesUpdated(attributes={**ATTRIBUTES, "gone": None}, request_id="request-2"),
    ActivityScheduled(
        activity_id=ActivityId(3),
        activity_type="charge_card",
        input=ORDER,
        task_queue="fast",
        retry=RetryPolicy(
            initial_interval=timedelta(milliseconds=250),
            backoff=1.5,
            max_interval=timedelta(minutes=2),
            max_attempts=5,
            non_retryable=(ValueError, "CardRefused"),
        ),
        timeouts=ActivityTimeouts(
            schedule_to_start=timedelta(seconds=10),
            start_to_close=timedelta(seconds=30, microseconds=1),
            schedule_to_close=timedelta(days=1),
        ),
        heartbeat=timedelta(seconds=5),
    ),
    ActivityStarted(activity_id=ActivityId(3), attempt=2, worker="host-1@4242"),
    ActivityCompleted(activity_id=ActivityId(3), attempt=2, result=ORDER),
    ActivityFailed(
        activity_id=ActivityId(3),
        attempt=1,
        error=ActivityFailure(
            kind="retryable", type="ConnectionError", message="reset", details={"host": "bank"}
        ),
        retry_at=NOON + timedelta(seconds=1),
    ),
    ActivityCancelRequested(activity_id=ActivityId(3)),
    ActivityCancelled(activity_id=ActivityId(3), attempt=2),
    TimerStarted(timer_id=TimerId("reminder"), fire_at=NOON),
    TimerFired(timer_id=TimerId("reminder")),
    TimerCancelled(timer_id=TimerId("reminder"), cause="teardown"),
    WithTimeoutCompleted(
        timer_id=TimerId("1"), outcome="operation_completed", result=Payload.of(42)
    ),
    SignalReceived(
        signal_id=APPROVAL.signal_id, name="approve", payload=Payload.of("yes"), sender=PARENT
    ),
    SignalSent(
        signal_id=APPROVAL.signal_id,
        target_workflow_id=SHIPPING,
        name="approve",
        payload=Payload.of("yes"),
    ),
    SignalDelivered(signal_id=APPROVAL.signal_id),
    SignalSendFailed(signal_id=APPROVAL.signal_id, reason="no workflow 'shipping-42'"),
    ChildWorkflowStarted(
        child_workflow_id=SHIPPING,
        workflow_type="shipping",
        input=ORDER,
        package_version="2",
        parent_close="abandon",
        task_queue="slow",
        attributes=ATTRIBUTES,
    ),
    ChildWorkflowCancelRequested(child_workflow_id=SHIPPING, reason="not wanted"),
    ChildWorkflowCompleted(child_workflow_id=SHIPPING, result=ORDER),
    ChildWorkflowFailed(child_workflow_id=SHIPPING, error=FAILURE),
    ChildWorkflowCancelled(child_workflow_id=SHIPPING, reason="parent closed"),
    MarkerRecorded(kind="side_effect", name="random", value=Payload.of(0.25)),
    ScheduleCreated(config=CONFIG),
    ScheduleUpdated(config={**CONFIG, "paused": True}),
    SchedulePaused(reason="holidays"),
    ScheduleResumed(),
    ScheduleDeleted(),
    ScheduleTriggered(scheduled_for=NOON, workflow_id=CHECKOUT, run_id=RUN, manual=True),
    ScheduleSkipped(scheduled_for=NOON, reason="overlap"),
    ScheduleBuffered(scheduled_for=NOON, manual=True, previous="cancel"),
    ScheduleCheckpointed(
        config=CONFIG,
        created_at=NOON - timedelta(days=2),
        updated_at=NOON - timedelta(days=1),
        decided_until=NOON,
        paused=True,
        pause_reason="holidays",
        buffered=(WaitingAction(scheduled_for=NOON, manual=True, previous="terminate"),),
        open=(TakenAction(scheduled_for=NOON, workflow_id=CHECKOUT, run_id=RUN, manual=True),),
        recent=(TakenAction(scheduled_for=NOON, workflow_id=CHECKOUT, run_id=RUN),),
        remaining=7,
        actions=41,
        skipped=2,
        last_scheduled_for=NOON,
    ),
    PackageUploadBegan(size=7),
    PackagePartStored(offset=3, data=b"\x00\xff\n\x7f"),
    PackageLoaded(
        version=PACKAGE,
        name="shop-2.zip",
        workflows=("checkout", "shipping"),
        activities=("charge_card",),
    ),
    RoutesChanged(routes={"checkout": PACKAGE, "shipping": "2"}),
    PackageUnloaded(version=PACKAGE),
)

MINIMAL: Final[Sequence[Event]] = (
    WorkflowStarted(workflow_type="checkout", run_id=RUN, first_run_id=RUN, package_version="1"),
    WorkflowCompleted(),
    WorkflowFailed(error=Failure(type="CardRefused")),
    WorkflowCancelRequested(),
    WorkflowCancelled(),
    WorkflowTerminated(),
    WorkflowContinuedAsNew(parent_run_id=RUN, new_run_id=NEXT_RUN),
    WorkflowPaused(run_id=RUN),
    WorkflowResumed(run_id=RUN),
    WorkflowReopened(run_id=RUN),
    SearchAttributesUpdated(attributes={}),
    ActivityScheduled(activity_id=ActivityId(0), activity_type="charge_card"),
    ActivityStarted(activity_id=ActivityId(0), attempt=1),
    ActivityCompleted(activity_id=ActivityId(0), attempt=1),
    ActivityFailed(
        activity_id=ActivityId(0),
        attempt=1,
        error=ActivityFailure(kind="terminal", type="CardRefused"),
    ),
    TimerCancelled(timer_id=TimerId("reminder")),
    WithTimeoutCompleted(timer_id=TimerId("1"), outcome="timed_out"),
    SignalReceived(signal_id=APPROVAL.signal_id, name="approve"),
    SignalSent(signal_id=APPROVAL.signal_id, target_workflow_id=SHIPPING, name="approve"),
    ChildWorkflowStarted(child_workflow_id=SHIPPING, workflow_type="shipping", package_version="1"),
    ChildWorkflowCancelRequested(child_workflow_id=SHIPPING),
    ChildWorkflowCompleted(child_workflow_id=SHIPPING),
    ChildWorkflowFailed(child_workflow_id=SHIPPING, error=Failure(type="WorkflowTerminated")),
    ChildWorkflowCancelled(child_workflow_id=SHIPPING),
    MarkerRecorded(kind="patch", name="charge-in-euro"),
    SchedulePaused(),
    ScheduleTriggered(scheduled_for=NOON, workflow_id=CHECKOUT, run_id=RUN),
    ScheduleBuffered(scheduled_for=NOON),
    ScheduleCheckpointed(config=CONFIG, created_at=NOON, updated_at=NOON, decided_until=NOON),
    PackageLoaded(version=PACKAGE, name="shop-2.zip"),
)

LATER: Final[Sequence[Event]] = (
    WorkflowFailed(error=FAILURE, failed_activities=(ActivityId(0), ActivityId(3))),
    WorkflowReopened(
        run_id=RUN,
        reopened=(ActivityId(3),),
        taken_back=TakenBack(
            since=12,
            activities=(ActivityId(4),),
            timers=(TimerId("reminder"),),
            children=(CHECKOUT,),
            awaited=(SHIPPING,),
        ),
    ),
    ActivityScheduled(activity_id=ActivityId(3), activity_type="charge_card", offered=True),
    ActivityFailed(
        activity_id=ActivityId(3),
        attempt=1,
        error=ActivityFailure(kind="retryable", type="HeartbeatTimeout"),
        retry_at=NOON + timedelta(seconds=1),
        heartbeat_details=ORDER,
    ),
    ScheduleTriggered(scheduled_for=NOON, workflow_id=CHECKOUT, run_id=RUN, beside=(SHIPPING,)),
    ScheduleSkipped(scheduled_for=NOON, reason="catch_up", until=NOON + timedelta(days=1)),
)
"""Events with the fields that their type got later (`Event.LATER`), which the samples above leave unset."""

LATER_STILL: Final[Sequence[Event]] = (
    WorkflowFailed(error=FAILURE, failed_children=(SHIPPING,)),
    ActivityScheduled(
        activity_id=ActivityId(3), activity_type="charge_card", summary="charge ana's card"
    ),
)
"""The same, of fields that came when the golden file of the earlier ones was written."""

METADATA: Final = {
    "metadata.json": EventMetadata(
        recorded_at=NOON,
        run_id=RUN,
        causation_id="019ab5a0-0000-7000-8000-0000000000c1",
        correlation_id="checkout-42",
        traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        activated=True,
    ),
    "metadata.minimal.json": EventMetadata(recorded_at=NOON),
}

EVENTS: Final = (
    {f"{type(event).__name__}.json": event for event in FULL}
    | {f"{type(event).__name__}.minimal.json": event for event in MINIMAL}
    | {f"{type(event).__name__}.later.json": event for event in LATER}
    | {f"{type(event).__name__}.later-2.json": event for event in LATER_STILL}
)
"""Every sample by the name of its golden file."""


def write_missing() -> None:
    """Write the golden files that are not there yet."""
    forms = {name: encode(event) for name, event in EVENTS.items()}
    forms |= {name: metadata.to_bytes() for name, metadata in METADATA.items()}
    for name, form in forms.items():
        path = FOLDER / name
        if not path.exists():
            path.write_bytes(form)


if __name__ == "__main__":
    write_missing()

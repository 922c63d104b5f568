"""Trace contexts as text and back, the span that stands for others, and what a run's history keeps of its trace."""

from datetime import UTC, datetime
from uuid import UUID

import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from aion_es import telemetry
from aion_es.engine.tracing import RunContexts
from aion_es.events.metadata import Envelope, EventMetadata
from aion_es.events.values import Failure
from aion_es.events.workflow import (
    ActivityCompleted,
    ActivityScheduled,
    ChildWorkflowFailed,
    ChildWorkflowStarted,
    SignalDelivered,
    SignalSent,
    TimerStarted,
    WorkflowEvent,
    WorkflowStarted,
)
from aion_es.ids import ActivityId, RunId, SignalId, StreamName, TimerId, WorkflowId
from aion_es.payload import NOTHING
from tests.unit.recorded_spans import RecordedSpans, spans

__all__ = ["spans"]

RECORDED = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


# ------------------------------------------------------------------------------ contexts as text


def test_a_context_comes_back_from_its_text() -> None:
    span = trace.get_current_span(telemetry.after(RECORDED))
    assert span.get_span_context().is_remote
    assert telemetry.traceparent(span) == RECORDED


def test_outside_any_span_there_is_no_context() -> None:
    assert telemetry.traceparent() is None


@pytest.mark.parametrize(
    "text",
    [None, "", "nonsense", "00-0-0-01", f"00-{'0' * 32}-00f067aa0ba902b7-01"],
    ids=["none", "empty", "nonsense", "short", "all zeros"],
)
def test_what_follows_from_no_context_begins_a_trace(text: str | None) -> None:
    assert trace.get_current_span(telemetry.after(text)) is trace.INVALID_SPAN


def test_what_follows_from_a_context_is_not_below_the_present_span(spans: RecordedSpans) -> None:
    with spans.provider.get_tracer("shop").start_as_current_span("present"):
        telemetry.begin("late", telemetry.after(None), {}).end()
    assert spans.only("late").parent is None


def test_a_process_goes_on_in_the_context_that_it_was_given() -> None:
    with telemetry.following(RECORDED):
        assert telemetry.traceparent() == RECORDED
    assert telemetry.traceparent() is None
    with telemetry.following(None):
        assert telemetry.traceparent() is None


def test_of_a_value_so_many_characters_are_put_on_a_span() -> None:
    assert telemetry.payload_text({"a": [1, None]}) == '{"a":[1,null]}'
    assert len(telemetry.payload_text("x" * 10_000)) == telemetry.PAYLOAD_CHARACTERS


# --------------------------------------------------------------------- the span that stands for others


def a_span(number: int) -> NonRecordingSpan:
    context = SpanContext(number, number, is_remote=False, trace_flags=TraceFlags(1))
    return NonRecordingSpan(context)


def test_a_code_span_stands_for_the_activation_under_way_and_for_none_in_replay() -> None:
    replaying = False
    code = telemetry.CodeSpan(lambda: replaying)
    assert not code.get_span_context().trace_flags.sampled
    code.activation = a_span(7)
    assert code.get_span_context().span_id == 7
    code.activation = a_span(8)
    assert code.get_span_context().span_id == 8
    replaying = True
    assert not code.get_span_context().trace_flags.sampled
    assert code.get_span_context().is_valid


def test_workflow_code_can_put_attributes_and_events_on_its_activation_and_not_end_it(
    spans: RecordedSpans,
) -> None:
    activation = telemetry.begin("activation", telemetry.after(None), {})
    code = telemetry.CodeSpan(lambda: False)
    code.activation = activation
    code.set_attribute("order", 7)
    code.set_attributes({"shop": "north"})
    code.add_event("decided")
    code.add_link(a_span(3).get_span_context())
    code.record_exception(ValueError("no"))
    code.set_status(trace.StatusCode.ERROR, "no")
    code.update_name("another")
    code.end()
    assert spans.all == ()
    assert code.is_recording()
    activation.end()
    assert spans.facts("activation") == {"order": 7, "shop": "north"}
    ended = spans.only("activation")
    assert [event.name for event in ended.events] == ["decided", "exception"]
    assert [link.context.span_id for link in ended.links] == [3]
    assert ended.status.status_code is trace.StatusCode.ERROR


# ------------------------------------------------------------------------------ a run's contexts


def history(*recorded: tuple[WorkflowEvent, str | None]) -> list[Envelope[WorkflowEvent]]:
    return [
        Envelope(
            event,
            StreamName("w"),
            revision,
            revision,
            UUID(int=revision),
            EventMetadata(NOON, traceparent=context),
            0,
        )
        for revision, (event, context) in enumerate(recorded)
    ]


STARTED = WorkflowStarted(
    workflow_type="t",
    input=NOTHING,
    run_id=RunId("r"),
    first_run_id=RunId("r"),
    package_version="1",
)
SCHEDULED = ActivityScheduled(activity_id=ActivityId(0), activity_type="a", input=NOTHING)
SPAWNED = ChildWorkflowStarted(
    child_workflow_id=WorkflowId("c"), workflow_type="t", input=NOTHING, package_version="1"
)
SENT = SignalSent(
    signal_id=SignalId("s"), target_workflow_id=WorkflowId("o"), name="n", payload=NOTHING
)


def test_a_history_gives_each_activity_child_and_signal_its_own_context() -> None:
    contexts = RunContexts.of(
        history((STARTED, "start"), (SCHEDULED, "1"), (SPAWNED, "2"), (SENT, "3"))
    )
    assert contexts.run == "start"
    assert contexts.of_activity(ActivityId(0)) == "1"
    assert contexts.of_child(WorkflowId("c")) == "2"
    assert contexts.of_signal(SignalId("s")) == "3"


def test_what_has_its_outcome_is_forgotten() -> None:
    failed = ChildWorkflowFailed(
        child_workflow_id=WorkflowId("c"), error=Failure(type="E", message="")
    )
    contexts = RunContexts.of(
        history(
            (STARTED, "start"),
            (SCHEDULED, "1"),
            (SPAWNED, "2"),
            (SENT, "3"),
            (ActivityCompleted(activity_id=ActivityId(0), attempt=1, result=NOTHING), "4"),
            (failed, "5"),
            (SignalDelivered(signal_id=SignalId("s")), "6"),
        )
    )
    assert contexts._owed == {}


def test_a_run_that_began_while_nobody_recorded_follows_from_the_first_context_it_has() -> None:
    timer = TimerStarted(timer_id=TimerId("0"), fire_at=NOON)
    contexts = RunContexts.of(history((STARTED, None), (timer, "1"), (SCHEDULED, "2")))
    assert contexts.run == "1"


def test_the_next_run_of_a_chain_keeps_nothing_of_the_one_before() -> None:
    contexts = RunContexts.of(history((STARTED, "start"), (SCHEDULED, "1"), (STARTED, "2")))
    assert (contexts.run, contexts._owed) == ("2", {})

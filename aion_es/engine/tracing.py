"""Tracing: the spans of activations and attempts, and the trace contexts that a run's events carry.

What joins a trace is recorded, never only remembered. Every event's metadata may hold a trace context:

- what a command recorded holds that of who gave it: a start, a signal, a parent that starts a child;
- what workflow code commanded, and what else an activation recorded, holds the activation's.

An activation's span follows from the context of the run's WorkflowStarted, an attempt's from that of its
ActivityScheduled, a child's start from that of its ChildWorkflowStarted. What else led to an activation,
such as a signal, is linked to it: a span has one parent, and the run's is its start.
"""

from collections.abc import Generator, Iterable, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final, TypeAlias

from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from aion_es import telemetry as t
from aion_es.aggregates.aggregate import Pending
from aion_es.aggregates.lifecycle import StartWorkflow
from aion_es.aggregates.state import WorkflowState
from aion_es.engine.attempts import Attempt
from aion_es.engine.execution import CodeExecution
from aion_es.engine.processes import FailedElsewhereError
from aion_es.engine.requests import QueryRequest, Request
from aion_es.events.metadata import Envelope
from aion_es.events.workflow import (
    ActivityCancelled,
    ActivityCompleted,
    ActivityScheduled,
    ChildWorkflowCancelled,
    ChildWorkflowCompleted,
    ChildWorkflowFailed,
    ChildWorkflowStarted,
    SignalDelivered,
    SignalSendFailed,
    SignalSent,
    WorkflowCancelled,
    WorkflowCompleted,
    WorkflowContinuedAsNew,
    WorkflowEvent,
    WorkflowFailed,
    WorkflowStarted,
    WorkflowTerminated,
    WorkflowTimedOut,
)
from aion_es.ids import ActivityId, ScheduleId, SignalId, WorkflowId
from aion_es.payload import Payload

Owed: TypeAlias = ActivityId | tuple[str, str]
"""What a context is kept for: an activity, ("child", its workflow id), ("signal", its id)."""

_MOST_LINKS: Final = 32
"""More commands than this that one activation took in are not linked to it."""

_OUTCOMES: Final[dict[type[Any], str]] = {
    WorkflowCompleted: "completed",
    WorkflowFailed: "failed",
    WorkflowCancelled: "cancelled",
    WorkflowTerminated: "terminated",
    WorkflowTimedOut: "timed_out",
    WorkflowContinuedAsNew: "continued_as_new",
}


class Tracing:
    """What one engine's spans have in common. There is none where nobody records: then nothing here costs anything.

    Attributes:
        records_payloads: Inputs and results are put on spans, up to `telemetry.PAYLOAD_CHARACTERS` of each.
    """

    def __init__(self, *, records_payloads: bool) -> None:
        self.records_payloads = records_payloads

    def begin_activation(
        self, state: WorkflowState, after: str | None, links: Iterable[str]
    ) -> Span:
        """Begin the span of an activation of a run, which follows from the context `after`."""
        return t.begin(
            f"aion.activation {state.workflow_type}",
            t.after(after),
            {
                t.WORKFLOW_ID: state.workflow_id,
                t.RUN_ID: state.run_id,
                t.WORKFLOW_TYPE: state.workflow_type,
                t.WORKFLOW_VERSION: state.package_version,
                t.TASK_QUEUE: state.task_queue,
            },
            [t.link_to(recorded) for recorded in links],
        )

    @contextmanager
    def attempt(self, attempt: Attempt) -> Generator[Span]:
        """Run a block, the code of an attempt, in its span, which is the present one meanwhile."""
        info = attempt.pulse.info
        span = t.begin(
            f"aion.activity {info.activity_type}",
            t.after(attempt.traceparent),
            {
                t.WORKFLOW_ID: info.workflow_id,
                t.RUN_ID: info.run_id,
                t.WORKFLOW_TYPE: info.workflow_type,
                t.ACTIVITY_TYPE: info.activity_type,
                t.ACTIVITY_ID: info.activity_id,
                t.ATTEMPT: attempt.number,
                t.TASK_QUEUE: info.task_queue,
            },
        )
        self.put(span, t.INPUT, attempt.activity.input)
        try:
            with t.current(span):
                yield span
        except BaseException as error:
            _note_failed_attempt(span, attempt, error)
            raise
        finally:
            span.end()

    def scheduled_start(
        self,
        schedule_id: ScheduleId,
        command: StartWorkflow,
        workflow_id: WorkflowId,
        *,
        manual: bool,
    ) -> AbstractContextManager[Span]:
        """Run a block, the start of a schedule's action, in a span: it begins a trace unless a person triggered it."""
        return t.calling(
            f"aion.start {command.workflow_type}",
            {
                t.WORKFLOW_ID: workflow_id,
                t.RUN_ID: command.run_id,
                t.WORKFLOW_TYPE: command.workflow_type,
                t.SCHEDULE_ID: schedule_id,
            },
            SpanKind.PRODUCER,
            None if manual else t.after(None),
        )

    def put(self, span: Span, key: str, payload: Payload) -> None:
        """Put a value on a span, if values are to be seen there."""
        if self.records_payloads:
            span.set_attribute(key, t.payload_text(payload.data))


class RunContexts:
    """The trace contexts that are still needed of one run, as its history holds them.

    Attributes:
        run: What its activations follow from: the context of its WorkflowStarted, or, should that have none,
            the first one in its history.
    """

    __slots__ = ("_owed", "run")

    def __init__(self) -> None:
        self.run: str | None = None
        self._owed: dict[Owed, str] = {}

    @classmethod
    def of(cls, history: Iterable[Envelope[WorkflowEvent]]) -> "RunContexts":
        """Return those that a history holds."""
        contexts = cls()
        for envelope in history:
            contexts.take(envelope.event, envelope.metadata.traceparent)
        return contexts

    def take(self, event: WorkflowEvent, context: str | None) -> None:
        """Take in one event with its context; what is settled is forgotten."""
        match event:
            case WorkflowStarted():
                self.run = context
                self._owed.clear()
            case ActivityScheduled():
                self._keep(event.activity_id, context)
            case ChildWorkflowStarted():
                self._keep(("child", event.child_workflow_id), context)
            case SignalSent():
                self._keep(("signal", event.signal_id), context)
            case ActivityCompleted() | ActivityCancelled():
                self._owed.pop(event.activity_id, None)
            case ChildWorkflowCompleted() | ChildWorkflowFailed() | ChildWorkflowCancelled():
                self._owed.pop(("child", event.child_workflow_id), None)
            case SignalDelivered() | SignalSendFailed():
                self._owed.pop(("signal", event.signal_id), None)
            case _:
                pass
        if self.run is None:
            self.run = context

    def of_activity(self, activity_id: ActivityId) -> str | None:
        """Return the context in which an activity was scheduled."""
        return self._owed.get(activity_id, self.run)

    def of_child(self, child_workflow_id: WorkflowId) -> str | None:
        """Return the context in which a child was asked for."""
        return self._owed.get(("child", child_workflow_id), self.run)

    def of_signal(self, signal_id: SignalId) -> str | None:
        """Return the context in which a signal was sent."""
        return self._owed.get(("signal", signal_id), self.run)

    def _keep(self, owed: Owed, context: str | None) -> None:
        if context is not None:
            self._owed[owed] = context


class RunTrace:
    """One process's part in the trace of its run: the activation that is under way, and what events carry.

    Attributes:
        contexts: What is still needed of the run's.
    """

    __slots__ = ("_code", "_links", "_noted", "_span", "_tracing", "contexts")

    def __init__(self, tracing: Tracing) -> None:
        self.contexts = RunContexts()
        self._tracing = tracing
        self._span: Span | None = None
        self._code: t.CodeSpan | None = None
        self._links: list[str] = []
        self._noted: list[str | None] = []  # contexts of the events that wait for their append

    # ---------------------------------------------------------------------------- what is read

    def read(self, history: Sequence[Envelope[WorkflowEvent]]) -> None:
        """Learn the contexts of a run from its history, and what its code has not seen of it."""
        self.contexts = RunContexts.of(history)
        for envelope in reversed(history):
            context = envelope.metadata.traceparent
            if envelope.metadata.activated:
                break
            if context is not None:
                self._links.append(context)

    def forget(self) -> None:
        """Forget it again; an activation that is under way has come to nothing."""
        if self._span is not None:
            self._span.set_attribute(t.DISCARDED, "true")
        self._end()
        self._links.clear()
        self._noted.clear()
        self.contexts = RunContexts()

    # ------------------------------------------------------------------------------- one turn

    def turn(self, items: Iterable[Request | QueryRequest]) -> None:
        """Begin a turn that takes in `items`: their givers are linked to its activation."""
        self._noted.clear()
        for item in items:
            if isinstance(item, Request) and item.traceparent is not None:
                self._links.append(item.traceparent)

    def decided(
        self, uncommitted: Sequence[Pending[WorkflowEvent]], first: int, item: Request
    ) -> None:
        """Note what `item` has added, from `first` on; what stands before it was commanded by the code."""
        self._note_up_to(first)
        for pending in uncommitted[first:]:
            event, context = pending.event, item.traceparent
            if isinstance(event, WorkflowStarted):
                if event.parent_run_id is not None:
                    # It continues a run, whoever told it to, and stays in that run's trace.
                    context = self._present
                self._end()
                self.contexts.take(event, context)
            self._noted.append(self._present if context is None else context)

    def activate(self, execution: CodeExecution) -> None:
        """See to it that an activation is under way, of which the code's next step is a part."""
        if self._span is None:
            self._begin(execution.workflow.state)
        if execution.span is not None and execution.span is not self._code:
            self._code = execution.span
            self._code.activation = self._span

    def resume(
        self, state: WorkflowState, history: Sequence[Envelope[WorkflowEvent]]
    ) -> Span | None:
        """Return the span of the steps that the code takes at the end of its history, if there may be any."""
        if history[-1].metadata.activated:
            return None
        if self._span is None:
            self._begin(state)
        return self._span

    def traceparents(self, count: int) -> list[str | None]:
        """Return the context of each of the `count` events that the turn has recorded, in their order."""
        self._note_up_to(count)
        return self._noted.copy()

    def current(self) -> AbstractContextManager[object]:
        """Run a block as part of the activation, if there is one."""
        return nullcontext() if self._span is None else t.current(self._span)

    def failed(self, error: BaseException) -> None:
        """Say of the activation that the code could not go on."""
        if self._span is not None:
            t.note_failure(self._span, error)

    def recorded(
        self, batch: Sequence[Pending[WorkflowEvent]], traceparents: Sequence[str | None] | None
    ) -> None:
        """End the activation, whose turn is recorded, and keep what is needed of its events' contexts."""
        for pending, context in zip(batch, traceparents or (), strict=True):
            self.contexts.take(pending.event, context)
            if self._span is not None:
                self._describe(self._span, pending.event)
        if self._span is not None:
            self._span.set_attribute(t.EVENTS, len(batch))
        self._end()
        self._links.clear()

    def _describe(self, span: Span, event: WorkflowEvent) -> None:
        if isinstance(event, WorkflowStarted):
            self._tracing.put(span, t.INPUT, event.input)
        elif type(event) in _OUTCOMES:
            span.set_attribute(t.OUTCOME, _OUTCOMES[type(event)])
        if isinstance(event, WorkflowCompleted):
            self._tracing.put(span, t.RESULT, event.result)
        elif isinstance(event, WorkflowFailed):
            span.set_attribute("error.type", event.error.type)
            span.set_status(Status(StatusCode.ERROR, event.error.message))

    @property
    def _present(self) -> str | None:
        """The context of what is recorded now."""
        return self.contexts.run if self._span is None else t.traceparent(self._span)

    def _begin(self, state: WorkflowState) -> None:
        after = self.contexts.run
        links = dict.fromkeys(link for link in self._links if link != after)
        self._span = self._tracing.begin_activation(state, after, [*links][:_MOST_LINKS])
        if after is None:
            self.contexts.run = t.traceparent(self._span)

    def _end(self) -> None:
        if self._code is not None:
            self._code.activation = None
            self._code = None
        if self._span is not None:
            self._span.end()
            self._span = None

    def _note_up_to(self, count: int) -> None:
        missing = count - len(self._noted)
        if missing > 0:
            self._noted += [self._present] * missing


def _note_failed_attempt(span: Span, attempt: Attempt, error: BaseException) -> None:
    if isinstance(error, FailedElsewhereError):  # what it raised stayed there
        span.set_attribute("error.type", error.failure.type)
        span.set_status(Status(StatusCode.ERROR, error.failure.message))
    elif attempt.outcome == "timed_out":
        span.set_attribute("error.type", "timed_out")
        span.set_status(Status(StatusCode.ERROR))
    else:
        t.note_failure(span, error)
        if isinstance(error, Exception):
            span.record_exception(error)

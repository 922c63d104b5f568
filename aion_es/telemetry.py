"""OpenTelemetry, as far as this package needs it: spans, and the trace context that events carry.

Only the API is used. Without an SDK in the program nothing here is called but `is_recording`, once for each
engine, client and store.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final, TypeAlias

from opentelemetry import trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from pydantic_core import to_json

from aion_es.errors import AionError

Attributes: TypeAlias = Mapping[str, int | str]

WORKFLOW_ID: Final = "aion.workflow_id"
RUN_ID: Final = "aion.run_id"
WORKFLOW_TYPE: Final = "aion.workflow_type"
WORKFLOW_VERSION: Final = "aion.workflow_version"
SCHEDULE_ID: Final = "aion.schedule_id"
SIGNAL_NAME: Final = "aion.signal_name"
SIGNAL_ID: Final = "aion.signal_id"
ACTIVITY_TYPE: Final = "aion.activity_type"
ACTIVITY_ID: Final = "aion.activity_id"
ATTEMPT: Final = "aion.attempt"
TASK_QUEUE: Final = "aion.task_queue"
EVENTS: Final = "aion.events"
OUTCOME: Final = "aion.outcome"
DISCARDED: Final = "aion.discarded"
INPUT: Final = "aion.input"
RESULT: Final = "aion.result"
PROJECTION: Final = "aion.projection"
READ_MODEL: Final = "aion.read_model"
REBUILD: Final = "aion.rebuild"

PAYLOAD_CHARACTERS: Final = 4_096
"""Of an input or a result so much is put on a span; the rest is cut off."""

_TRACER: Final = trace.get_tracer("aion_es")
_W3C: Final = TraceContextTextMapPropagator()
_UNSAMPLED: Final = NonRecordingSpan(SpanContext(trace_id=1, span_id=1, is_remote=False))
"""Whose children a sampler drops that heeds the parent, which is the default."""


def traceparent(span: Span | None = None) -> str | None:
    """Return the W3C trace context of a span, by default the present one; `None` outside any."""
    context = (trace.get_current_span() if span is None else span).get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def after(recorded: str | None) -> Context:
    """Return the context of what follows from the span of a trace context; of what begins a trace for `None`.

    The span may be of another process, long gone. Text that is no trace context counts as `None`.
    """
    if recorded is None:
        return Context()
    return _W3C.extract({"traceparent": recorded}, Context())


@contextmanager
def following(recorded: str | None) -> Generator[None]:
    """Run a block in which the span of a trace context, of another process, is the present one."""
    if recorded is None:
        yield
        return
    token = attach(after(recorded))
    try:
        yield
    finally:
        detach(token)


def link_to(recorded: str) -> Link:
    """Return the link to the span of a trace context."""
    return Link(trace.get_current_span(after(recorded)).get_span_context())


def is_recording() -> bool:
    """Return whether the program has installed an SDK; asked once per engine, since the answer is dear."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def payload_text(data: Any) -> str:
    """Return plain JSON values as the text that is put on a span, cut to `PAYLOAD_CHARACTERS`."""
    return to_json(data).decode()[:PAYLOAD_CHARACTERS]


def begin(name: str, parent: Context, attributes: Attributes, links: Sequence[Link] = ()) -> Span:
    """Begin the span of work that was asked for earlier; it is not made the present one. `end_call` ends it."""
    return _TRACER.start_span(
        name, parent, kind=SpanKind.CONSUMER, attributes=attributes, links=links
    )


def current(span: Span) -> AbstractContextManager[Span]:
    """Run a block with `span` as the present one; it does not end with it."""
    return trace.use_span(span, record_exception=False, set_status_on_exception=False)


def make_current(span: Span) -> None:
    """Make `span` the present one for good, in the context variables that this is called in."""
    attach(trace.set_span_in_context(span, Context()))


def begin_call(name: str, attributes: Attributes) -> Span:
    """Begin the span of a call to something outside; it is nobody's parent. `end_call` ends it."""
    return _TRACER.start_span(name, kind=SpanKind.CLIENT, attributes=attributes)


def end_call(span: Span, error: BaseException | None = None) -> None:
    """End the span of a call.

    Args:
        span: Which.
        error: How the call failed: it becomes the attribute `error.type` (our own errors' `code`, of others
            the class) and the span's status. One that only says that somebody stopped it (a
            cancellation, a generator that was closed) changes no status.
    """
    if error is not None:
        note_failure(span, error)
    span.end()


@contextmanager
def calling(
    name: str,
    attributes: Attributes,
    kind: SpanKind = SpanKind.CLIENT,
    parent: Context | None = None,
) -> Generator[Span, None, None]:
    """Run a block as a call to something outside; the span is the parent of what begins meanwhile.

    Args:
        name: Of the span.
        attributes: What is known when it begins.
        kind: Default: a call whose answer is waited for.
        parent: Default: the present context.
    """
    with _TRACER.start_as_current_span(
        name,
        parent,
        kind=kind,
        attributes=attributes,
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            yield span
        except BaseException as error:
            note_failure(span, error)
            raise


def note_failure(span: Span, error: BaseException) -> None:
    """Say on a span how it failed; see `end_call`."""
    kind = error.code if isinstance(error, AionError) else type(error).__name__
    span.set_attribute("error.type", kind)
    if isinstance(error, Exception):
        span.set_status(Status(StatusCode.ERROR, str(error)))


class CodeSpan(Span):
    """Stands for the span of the activation that is under way, in all tasks of one run's code.

    A task keeps the context in which it was made, so what is present in workflow code must be one object that
    stands for another span in each activation. In replay, and between activations, it stands for one that
    is not sampled: spans that the code makes of its own are then dropped, by samplers that heed the parent.

    Attributes:
        activation: For which it stands.
    """

    def __init__(self, is_replaying: Callable[[], bool]) -> None:
        """Stand for none yet.

        Args:
            is_replaying: Says whether the code does again what it did before.
        """
        self.activation: Span | None = None
        self._is_replaying = is_replaying

    @property
    def _present(self) -> Span:
        if self.activation is None or self._is_replaying():
            return _UNSAMPLED
        return self.activation

    def get_span_context(self) -> SpanContext:
        """See `Span`."""
        return self._present.get_span_context()

    def is_recording(self) -> bool:
        """See `Span`."""
        return self._present.is_recording()

    def set_attribute(self, key: str, value: Any) -> None:
        """See `Span`."""
        self._present.set_attribute(key, value)

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """See `Span`."""
        self._present.set_attributes(attributes)

    def add_event(self, name: str, attributes: Any = None, timestamp: int | None = None) -> None:
        """See `Span`."""
        self._present.add_event(name, attributes, timestamp)

    def add_link(self, context: SpanContext, attributes: Any = None) -> None:
        """See `Span`."""
        self._present.add_link(context, attributes)

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """See `Span`."""
        self._present.set_status(status, description)

    def record_exception(
        self,
        exception: BaseException,
        attributes: Any = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        """See `Span`."""
        self._present.record_exception(exception, attributes, timestamp, escaped)

    def update_name(self, name: str) -> None:
        """Do nothing: activations are found by their name."""

    def end(self, end_time: int | None = None) -> None:
        """Do nothing: the engine ends it."""

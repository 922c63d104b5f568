"""OpenTelemetry, as far as this package needs it: spans, and the trace context that events carry.

Only the API is used. Without an SDK in the program every call here costs a fraction of a microsecond.
"""

from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Final, TypeAlias

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from aion_es.errors import AionError

Attributes: TypeAlias = Mapping[str, int | str]

_TRACER: Final = trace.get_tracer("aion_es")


def traceparent() -> str | None:
    """Return the W3C trace context of the present span; `None` outside any."""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def is_recording() -> bool:
    """Return whether the program has installed an SDK; asked once per engine, since the answer is dear."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def span(name: str, subject: str, **attributes: int | str) -> AbstractContextManager[object]:
    """Return a span `{name} {subject}` to run a block in; an exception is recorded on it and goes on."""
    return _TRACER.start_as_current_span(
        f"{name} {subject}", attributes={f"aion.{key}": value for key, value in attributes.items()}
    )


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
        _note_failure(span, error)
    span.end()


@contextmanager
def calling(name: str, attributes: Attributes) -> Generator[Span, None, None]:
    """Run a block as a call to something outside; the span is the parent of what begins meanwhile."""
    with _TRACER.start_as_current_span(
        name,
        kind=SpanKind.CLIENT,
        attributes=attributes,
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            yield span
        except BaseException as error:
            _note_failure(span, error)
            raise


def _note_failure(span: Span, error: BaseException) -> None:
    kind = error.code if isinstance(error, AionError) else type(error).__name__
    span.set_attribute("error.type", kind)
    if isinstance(error, Exception):
        span.set_status(Status(StatusCode.ERROR, str(error)))

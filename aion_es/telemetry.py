"""OpenTelemetry, as far as this package needs it: spans, and the trace context that events carry.

Only the API is used. Without an SDK in the program every call here costs a fraction of a microsecond.
"""

from contextlib import AbstractContextManager
from typing import Final

from opentelemetry import trace

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

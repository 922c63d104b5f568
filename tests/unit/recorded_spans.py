"""Spans that are kept for a test to look at: an SDK of its own, which nothing outside the test sees."""

from collections.abc import Iterator

import pytest

pytest.importorskip("opentelemetry.sdk", reason="the OpenTelemetry SDK is not installed")

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from aion_es import telemetry


class RecordedSpans:
    """Every span that has ended, in that order."""

    def __init__(self, exporter: InMemorySpanExporter, provider: TracerProvider) -> None:
        self._exporter = exporter
        self.provider = provider

    @property
    def all(self) -> tuple[ReadableSpan, ...]:
        return self._exporter.get_finished_spans()

    @property
    def names(self) -> list[str]:
        return [span.name for span in self.all]

    def only(self, name: str) -> ReadableSpan:
        """Return the one span of this name."""
        (span,) = (span for span in self.all if span.name == name)
        return span

    def facts(self, name: str) -> dict[str, object]:
        """Return the attributes of the one span of this name."""
        return dict(self.only(name).attributes or {})


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[RecordedSpans]:
    """Install an SDK for the test."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(telemetry, "_TRACER", provider.get_tracer("aion_es"))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    yield RecordedSpans(exporter, provider)
    provider.shutdown()

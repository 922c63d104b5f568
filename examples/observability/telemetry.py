"""The SDK of OpenTelemetry, set up as a program does it, with exporters that print one line for each span and value.

A real program has `OTLPSpanExporter` and `OTLPMetricExporter` here, and the rest stays as it is.
"""

from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    ConsoleMetricExporter,
    HistogramDataPoint,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

HIDDEN = ("aion.store.", "aion.projection")


def install(service: str) -> MeterProvider:
    """Install the SDK: once in a process, before an engine is opened.

    Returns:
        What exports the metrics; it prints them when it is flushed or shut down.
    """
    resource = Resource({"service.name": service})
    tracing = TracerProvider(resource=resource)
    tracing.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(formatter=span_line)))
    trace.set_tracer_provider(tracing)
    never_by_itself = float("inf")
    reader = PeriodicExportingMetricReader(
        ConsoleMetricExporter(formatter=metric_lines), export_interval_millis=never_by_itself
    )
    measuring = MeterProvider([reader], resource=resource)
    metrics.set_meter_provider(measuring)
    return measuring


def span_line(span: ReadableSpan) -> str:
    """Return the line of a span that has ended: its trace, its parent, how long it took."""
    if span.name.startswith(HIDDEN):
        return ""
    parent = " " * 8 if span.parent is None else short(span.parent.span_id, 16)
    ids = f"trace {short(span.context.trace_id, 32)}  span {short(span.context.span_id, 16)}"
    milliseconds = ((span.end_time or 0) - (span.start_time or 0)) / 1e6
    failed = (span.attributes or {}).get("error.type", "")
    return f"{ids}  in {parent}  {milliseconds:8.1f} ms  {span.name} {failed}".rstrip() + "\n"


def short(id: int, digits: int) -> str:
    """Return the beginning of an id: enough to tell a few apart."""
    return f"{id:0{digits}x}"[:8]


def metric_lines(data: MetricsData) -> str:
    """Return a line for each value of the engine's metrics."""
    lines = [
        f"{metric.name} {of(point.attributes)} {value(point)} {metric.unit}\n"
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if not metric.name.startswith(HIDDEN)
        for point in metric.data.data_points
    ]
    return "".join(sorted(lines))


def of(attributes: object) -> str:
    """Return what a value is of, without its namespace."""
    facts = dict(attributes) if isinstance(attributes, dict) else {}
    return " ".join(str(fact) for key, fact in sorted(facts.items()) if key != "aion.namespace")


def value(point: object) -> str:
    """Return a value as it is read: of a histogram how many, and their mean."""
    if isinstance(point, HistogramDataPoint):
        return f"{point.count} times, {point.sum / max(1, point.count):.4f}"
    return str(getattr(point, "value", ""))

"""Metrics that are kept for a test to look at: the process's one SDK for them, which stays once it is there."""

from functools import cache
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk", reason="the OpenTelemetry SDK is not installed")

from opentelemetry import metrics
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader


class RecordedMetrics:
    """What is exported, as it stands when somebody asks."""

    def __init__(self, reader: InMemoryMetricReader) -> None:
        self._reader = reader

    def points(self, name: str, **of: object) -> list[tuple[dict[str, Any], Any]]:
        """Return attributes and data point of every value of a metric whose attributes hold `of`.

        Args:
            name: Of the metric.
            of: Attributes without their `aion.`.
        """
        wanted = {f"aion.{key}": value for key, value in of.items()}
        return [
            (attributes, point)
            for metric, attributes, point in self._points()
            if metric == name and wanted.items() <= attributes.items()
        ]

    def values(self, name: str, by: str | None = None, **of: object) -> dict[Any, Any]:
        """Return a metric's values by one of their attributes, or by `None` if there is one only."""
        key = None if by is None else f"aion.{by}"
        return {
            None if key is None else attributes.get(key): point.value
            for attributes, point in self.points(name, **of)
        }

    @property
    def names(self) -> set[str]:
        """The metrics that have values now."""
        return {name for name, _, _ in self._points()}

    def collect(self) -> None:
        """Ask for everything once, as an exporter does from time to time."""
        self._points()

    def _points(self) -> list[tuple[str, dict[str, Any], Any]]:
        data = self._reader.get_metrics_data()
        return [
            (metric.name, dict(point.attributes or {}), point)
            for resource in ([] if data is None else data.resource_metrics)
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in metric.data.data_points
        ]


@cache
def installed_reader() -> InMemoryMetricReader:
    """Return the reader of the process's SDK: there can be one SDK in a process, and it stays."""
    # Every test has a read model with a name of its own, and each is one more value of the process's counters. Beyond
    # 2,000 the SDK keeps no more apart, unless it is told to.
    reader = InMemoryMetricReader(cardinality_limits={Counter: 1_000_000, Histogram: 1_000_000})
    metrics.set_meter_provider(MeterProvider([reader]))
    return reader


@pytest.fixture
def measured() -> RecordedMetrics:
    """Install an SDK, if it is not there yet."""
    return RecordedMetrics(installed_reader())

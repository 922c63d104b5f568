"""Metrics: every instrument of this package, by name, on the OpenTelemetry API.

Only the API is used. Without an SDK in the program a counter costs a fraction of a microsecond, and a
gauge nothing: nobody asks for its values, so nobody looks for them.
"""

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Final, TypeAlias

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

Attributes: TypeAlias = Mapping[str, str | int | bool]
Values: TypeAlias = Iterable[tuple[int | float, Attributes]]
"""Values, each with what it is of."""

_METER: Final = metrics.get_meter("aion_es")


class Gauge:
    """A figure that is looked up when somebody collects it, from whoever has such a figure then.

    Attributes:
        is_asked: Somebody has collected it: whoever must work for its values knows that it is worth it.
    """

    def __init__(self, name: str, unit: str, description: str) -> None:
        """Make the instrument; once in a process for each name."""
        self.is_asked = False
        self._sources: list[Callable[[], Values]] = []
        _METER.create_observable_gauge(name, [self._observe], unit, description)

    @contextmanager
    def fed_by(self, source: Callable[[], Values]) -> Generator[None]:
        """Have the figure for as long as the block runs.

        Args:
            source: Gives the values, at once, on whichever thread collects them.
        """
        self._sources.append(source)
        try:
            yield
        finally:
            self._sources.remove(source)

    def _observe(self, _options: CallbackOptions) -> Iterable[Observation]:
        self.is_asked = True
        for source in self._sources.copy():
            for value, attributes in source():
                yield Observation(value, attributes)


# ------------------------------------------------------------------------------------ projections

PROJECTION_LAG: Final = Gauge(
    "aion.projection.lag",
    "{position}",
    "Positions of the store behind which the rows of a projection are; the embedded store counts events.",
)
PROJECTION_LAG_TIME: Final = Gauge(
    "aion.projection.lag_time",
    "s",
    "How much later than the last event in the rows the last one in the store was recorded.",
)
PROJECTION_STOPPED: Final = Gauge(
    "aion.projection.stopped",
    "1",
    "1 while a projection stands still, because it cannot handle an event or the read model; else 0.",
)
PROJECTION_SKIPPED: Final = Gauge(
    "aion.projection.skipped",
    "{event}",
    "Events that operators had this version of a projection skip.",
)
PROJECTION_EVENTS: Final = _METER.create_counter(
    "aion.projection.events", "{event}", "Events that a projection has handled."
)
PROJECTION_FAILURES: Final = _METER.create_counter(
    "aion.projection.failures", "{try}", "Tries of a projection that failed, retries included."
)

"""Metrics: every instrument of this package, by name, on the OpenTelemetry API.

Only the API is used. Without an SDK in the program appends, activations and attempts are neither counted nor
timed (`is_measuring`), and a gauge costs nothing: nobody asks for its values, so nobody looks for them.
"""

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from time import perf_counter
from typing import Final, TypeAlias

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

from aion_es.errors import AionError, ConcurrencyConflictError

Attributes: TypeAlias = Mapping[str, str | int | bool]
Values: TypeAlias = Iterable[tuple[int | float, Attributes]]
"""Values, each with what it is of."""

_METER: Final = metrics.get_meter("aion_es")

_SECONDS: Final = (
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    60.0,
    600.0,
)
"""Bounds of a duration's buckets: from one append to an activity that takes minutes."""


def is_measuring() -> bool:
    """Return whether the program has installed an SDK; asked once per engine and repository."""
    # The stand-ins of the API itself have no public name.
    return not type(metrics.get_meter_provider()).__module__.startswith("opentelemetry.metrics")


class Gauge:
    """A figure that is looked up when somebody collects it, from whoever has such a figure then.

    Attributes:
        name: By which it is exported.
        unit: By UCUM.
        is_asked: Somebody has collected it: whoever must work for its values knows that it is worth it.
    """

    def __init__(self, name: str, unit: str, description: str) -> None:
        """Make the instrument; once in a process for each name."""
        self.name = name
        self.unit = unit
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

# ---------------------------------------------------------------------------------------- appends

APPEND_DURATION: Final = _METER.create_histogram(
    "aion.append.duration",
    "s",
    "How long an append to a workflow's or a schedule's stream took.",
    explicit_bucket_boundaries_advisory=_SECONDS,
)
APPEND_CONFLICTS: Final = _METER.create_counter(
    "aion.append.conflicts", "{conflict}", "Appends that met a stream which had moved on."
)


def append_timer() -> Callable[[BaseException | None], None]:
    """Return what is to be called when the append that begins now has its answer: with its error, or `None`."""
    began = perf_counter()

    def ended(error: BaseException | None) -> None:
        kind = error.code if isinstance(error, AionError) else type(error).__name__
        attributes = {} if error is None else {"error.type": kind}
        APPEND_DURATION.record(perf_counter() - began, attributes)
        if isinstance(error, ConcurrencyConflictError):
            APPEND_CONFLICTS.add(1)

    return ended


# ----------------------------------------------------------------------------------------- engine

ACTIVATIONS: Final = _METER.create_counter(
    "aion.activations", "{activation}", "Steps of workflow code; replayed ones are not counted."
)
ACTIVITY_DURATION: Final = _METER.create_histogram(
    "aion.activity.duration",
    "s",
    "How long the code of an activity attempt ran, by how it ended.",
    explicit_bucket_boundaries_advisory=_SECONDS,
)
RUNS_RESIDENT: Final = Gauge("aion.runs.resident", "{run}", "Open runs whose code is in memory.")
RUNS_STUCK: Final = Gauge(
    "aion.runs.stuck",
    "{run}",
    "Open runs, of those that the engine knows, whose code cannot go on.",
)
RUNS_ORPHANED: Final = Gauge(
    "aion.runs.orphaned",
    "{run}",
    "Open runs that were pinned, when the engine opened, to a version that is not loaded.",
)
ACTIVITIES_PENDING: Final = Gauge(
    "aion.activities.pending",
    "{activity}",
    "Activities that wait for a place in the engine, or run in it.",
)
TIMERS_ARMED: Final = Gauge(
    "aion.timers.armed",
    "{timer}",
    "Timers, timeouts and retries that the engine holds in memory.",
)
TIMERS_OVERDUE: Final = Gauge(
    "aion.timers.overdue", "{timer}", "Those of them that should have fired by now."
)
FOLLOWER_LAG: Final = Gauge(
    "aion.follower.lag",
    "{position}",
    "Positions of the store behind which the engine is in hearing what others recorded.",
)
SCHEDULE_LAG: Final = Gauge(
    "aion.schedule.lag", "s", "How long the schedule has been due that waits longest."
)
ENGINE_READY: Final = Gauge(
    "aion.engine.ready",
    "1",
    "1 while the engine can do its work, as `engine.health()` says; else 0.",
)

"""What may be said about how an engine runs, and which of it makes no sense."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from aion_es.engine.bounds import require_count, require_span
from aion_es.engine.queues import QueueOptions
from aion_es.engine.supervision import RestartPolicy
from aion_es.errors import InvalidArgumentError


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How an engine runs.

    Attributes:
        max_resident: Runs kept in memory at once, 0 or more; the least recently used idle ones are suspended, and come
            back by replay.
        max_activities: Attempts that run at once, 1 or more; more wait, none is dropped.
        queues: Bounds of single task queues, within those of the engine.
        serves: Task queues whose runs this engine drives and whose activities it runs; others are left to
            the engines that serve them. `None` for all.
        start_to_close: Bound on activity attempts that set none of their own; `None` for no bound.
        shutdown_grace: How long running activities may go on when the engine is left.
        store_patience: How long a command is tried again while the store is away, before its caller is told.
            Facts are tried for ever.
        collector_threshold: While the engine is open, Python's cyclic garbage collector runs after so many
            new objects instead of 700 (2,000 from Python 3.13 on): two fifths of the CPU time of
            short workflows go into it otherwise. `None` leaves it alone.
        max_concurrent_runs: By workflow type, how many of its runs may be under way at once in this engine. A
            run is under way from its first step until it closes, also while it sleeps. More are recorded
            when they are started, and take their first step when a place is free, first come first
            served; what is sent to them meanwhile is recorded. Types that are not named have no limit; one is 1 or more.
        restarts: What becomes of a run that an error of the engine or its surroundings stops.
        max_step: A step of workflow code that takes longer is reported with its stack, and goes on; `None`
            for no watch.
        handle_signals: On SIGTERM leave the engine's block as Ctrl-C does: drain, then end the program with
            status 143. Only in the main thread, and only if nothing else handles the signal.
        record_payloads: Put inputs, results and signals' payloads on the spans of OpenTelemetry, the first 4,096
            characters of each. They may hold what must not be seen there: off by default.
        guard_doors: Refuse threads, processes, sockets and event loops that workflow code makes by itself. For that
            a dozen functions of the standard library are replaced, once, for the life of the program.
    """

    max_resident: int = 10_000
    max_activities: int = 1_000
    queues: Mapping[str, QueueOptions] = field(default_factory=dict[str, QueueOptions])
    serves: frozenset[str] | None = None
    start_to_close: timedelta | None = None
    shutdown_grace: timedelta = timedelta(seconds=5)
    store_patience: timedelta = timedelta(seconds=5)
    collector_threshold: int | None = 50_000
    max_concurrent_runs: Mapping[str, int] = field(default_factory=dict[str, int])
    restarts: RestartPolicy = field(default_factory=RestartPolicy)
    max_step: timedelta | None = timedelta(seconds=2)
    handle_signals: bool = True
    record_payloads: bool = False
    guard_doors: bool = True

    def __post_init__(self) -> None:
        """Check each.

        Raises:
            InvalidArgumentError: One is out of its bounds: nothing would ever run, or nothing ever end.
        """
        require_count("max_resident", self.max_resident, least=0)
        require_count("max_activities", self.max_activities, least=1)
        if self.collector_threshold is not None:
            require_count("collector_threshold", self.collector_threshold, least=0)
        for workflow_type, limit in self.max_concurrent_runs.items():
            require_count(f"max_concurrent_runs[{workflow_type!r}]", limit, least=1)
        if isinstance(self.serves, str):
            raise InvalidArgumentError(
                "serves", f"must be a set of task queues, got {self.serves!r}"
            )
        require_span("shutdown_grace", self.shutdown_grace, may_be_zero=True)
        require_span("store_patience", self.store_patience, may_be_zero=True)
        if self.start_to_close is not None:
            require_span("start_to_close", self.start_to_close)
        if self.max_step is not None:
            require_span("max_step", self.max_step)

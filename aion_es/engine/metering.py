"""What an engine's metrics show: its runs, activities and timers, how late it is, and whether it is ready.

What is in memory is looked up when somebody collects it. What the store or the read model must be asked for
is asked once a second, from the first collection on; so the first one does not have it yet.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Final

from aion_es.clock import Clock
from aion_es.engine.core import EngineCore
from aion_es.engine.follower import Follower
from aion_es.engine.health import answer_of
from aion_es.engine.orphans import Orphans
from aion_es.engine.supervision import UNREAD
from aion_es.ids import Namespace
from aion_es.metrics import (
    ACTIVITIES_PENDING,
    ENGINE_READY,
    FOLLOWER_LAG,
    RUNS_ORPHANED,
    RUNS_RESIDENT,
    RUNS_STUCK,
    SCHEDULE_LAG,
    TIMERS_ARMED,
    TIMERS_OVERDUE,
    Gauge,
    Values,
)
from aion_es.projections.schedule_index import ScheduleIndex
from aion_es.store.port import EventStore
from aion_es.telemetry import TASK_QUEUE, WORKFLOW_TYPE, WORKFLOW_VERSION

_LOG: Final = logging.getLogger("aion_es.engine")

LOOK_EVERY: Final = timedelta(seconds=1)
NAMESPACE: Final = "aion.namespace"
STATE: Final = "aion.state"


class EngineMeter:
    """The gauges of one engine, while it is open; each value says of which namespace.

    Args:
        core: Whose runs, activities and timers.
        store: Whose end the engine's follower should have come to.
        follower: How far it has come.
        orphans: Runs whose version is not loaded.
        schedules: When they are due.
        recovered: Set when what earlier engines left behind has been taken up.
        clock: The present instant.
        namespace: Of the engine.
    """

    def __init__(
        self,
        core: EngineCore,
        store: EventStore,
        follower: Follower,
        orphans: Orphans,
        schedules: ScheduleIndex,
        recovered: asyncio.Event,
        clock: Clock,
        namespace: Namespace,
    ) -> None:
        self._core = core
        self._store = store
        self._follower = follower
        self._orphans = orphans
        self._schedules = schedules
        self._recovered = recovered
        self._clock = clock
        self._of = {NAMESPACE: namespace}
        self._follower_lag: int | None = None
        self._schedule_lag: float | None = None
        self._ready: bool | None = None

    @contextmanager
    def shown(self) -> Generator[None]:
        """Have the gauges for as long as the block runs."""
        sources: tuple[tuple[Gauge, Callable[[], Values]], ...] = (
            (RUNS_RESIDENT, self._resident),
            (RUNS_STUCK, self._stuck),
            (RUNS_ORPHANED, self._orphaned),
            (ACTIVITIES_PENDING, self._pending),
            (TIMERS_ARMED, self._armed),
            (TIMERS_OVERDUE, self._overdue),
            (FOLLOWER_LAG, lambda: self._one(self._follower_lag)),
            (SCHEDULE_LAG, lambda: self._one(self._schedule_lag)),
            (ENGINE_READY, lambda: self._one(None if self._ready is None else int(self._ready))),
        )
        with ExitStack() as stack:
            for gauge, source in sources:
                stack.enter_context(gauge.fed_by(source))
            yield

    async def run(self) -> None:
        """Ask for what is not in memory, while somebody collects it; ends only by cancellation."""
        while True:
            if any(gauge.is_asked for gauge in (FOLLOWER_LAG, SCHEDULE_LAG, ENGINE_READY)):
                try:
                    await self._look()
                except Exception:  # noqa: BLE001 - a missing figure must not take the engine down
                    _LOG.exception("the engine could not be measured")
            await asyncio.sleep(LOOK_EVERY.total_seconds())

    async def _look(self) -> None:
        # Those whose store or read model is away have no value meanwhile, and the engine is not ready.
        (
            (_, store_error),
            (self._follower_lag, _),
            (self._schedule_lag, read_model_error),
        ) = await asyncio.gather(
            answer_of(self._store.health),
            answer_of(self._look_at_follower),
            answer_of(self._look_at_schedules),
        )
        self._ready = store_error is None and read_model_error is None and self._recovered.is_set()

    # ---------------------------------------------------------------------- looked up at once

    def _resident(self) -> Values:
        resident = Counter[str]()
        for run in self._core.registry:
            resident[run.workflow_type] += run.residency == "resident"
        return [(count, self._of | {WORKFLOW_TYPE: kind}) for kind, count in resident.items()]

    def _stuck(self) -> Values:
        stuck = Counter[tuple[str, str]]()
        for run in self._core.registry:
            stuck[run.workflow_type, run.version] += run.stuck is not None
        if unread := self._core.supervision.unread:
            stuck[UNREAD, ""] = unread
        return [
            (count, self._of | {WORKFLOW_TYPE: kind, WORKFLOW_VERSION: version})
            for (kind, version), count in stuck.items()
        ]

    def _orphaned(self) -> Values:
        return [
            (
                orphan.runs,
                self._of | {WORKFLOW_TYPE: orphan.workflow_type, WORKFLOW_VERSION: orphan.version},
            )
            for orphan in self._orphans.current
        ]

    def _pending(self) -> Values:
        counts = Counter(self._core.dispatcher.pending())
        return [
            (count, self._of | {TASK_QUEUE: queue, STATE: "running" if runs else "waiting"})
            for (queue, runs), count in counts.items()
        ]

    def _armed(self) -> Values:
        return self._one(len(self._core.timers))

    def _overdue(self) -> Values:
        return self._one(self._core.timers.overdue())

    def _one(self, value: float | None) -> Values:
        return [] if value is None else [(value, self._of)]

    # ----------------------------------------------------------------------- asked for before

    async def _look_at_follower(self) -> int:
        end, heard = await self._store.end_position(), self._follower.position
        # Other streams move the end, too: it counts only what the follower is to hear of.
        async for last in self._store.read_all(
            prefix=self._follower.prefix, backwards=True, limit=1
        ):
            return 0 if last.position <= heard else max(0, end.commit - heard.commit)
        return 0

    async def _look_at_schedules(self) -> float:
        now = self._clock.now()
        due = await self._schedules.due_before(now, limit=1)
        return (now - due[0].fires_at).total_seconds() if due else 0.0

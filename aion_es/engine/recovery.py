"""Recovery: what earlier engines left behind is taken up, from the pending-work rows, not from histories.

Its cost grows with the work that is due, never with what sleeps: a run comes back when something is
due for it. The same rows feed the timer service for as long as the engine lives, one horizon at a time.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final

from aion_es.clock import SleepingClock
from aion_es.engine.catalog import Catalog
from aion_es.engine.core import EngineCore
from aion_es.errors import OperationalError, VersionNotLoadedError
from aion_es.projections.pending_index import PendingTimer, PendingWorkIndex
from aion_es.projections.pending_work import PendingWorkProjection
from aion_es.projections.runner import ProjectionRunner
from aion_es.store.port import EventReader, Position

_LOG: Final = logging.getLogger("aion_es.recovery")

HORIZON: Final = timedelta(minutes=10)
"""How far ahead timers are held in memory."""
_PAGE: Final = 1_000
_RETRY_AFTER: Final = 1.0


class Recovery:
    """Takes up what is due when the engine opens, and what falls due later.

    Attributes:
        done: Set when everything that was due at the start has been taken up.
        orphaned: Versions that open runs need and that are not loaded.
    """

    def __init__(
        self,
        core: EngineCore,
        store: EventReader,
        runner: ProjectionRunner,
        index: PendingWorkIndex,
        catalog: Catalog,
        clock: SleepingClock,
    ) -> None:
        self.done = asyncio.Event()
        self.orphaned: tuple[VersionNotLoadedError, ...] = ()
        self._core = core
        self._store = store
        self._runner = runner
        self._index = index
        self._catalog = catalog
        self._clock = clock
        core.effects.horizon = clock.now() + HORIZON

    async def run(self, end: Position) -> None:
        """Recover what was stored up to `end`, then keep the timer service supplied, for ever."""
        await self._persistently(lambda: self._take_up(end))
        self.done.set()
        while True:
            horizon = self._core.effects.horizon or self._clock.now()
            await self._clock.sleep_until(horizon - HORIZON / 2)
            await self._persistently(self._move_horizon)

    async def _persistently(self, job: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await job()
            except OperationalError as error:
                _LOG.warning("recovery: %s; trying again in %g s", error, _RETRY_AFTER)
                await asyncio.sleep(_RETRY_AFTER)
            else:
                return

    async def _take_up(self, end: Position) -> None:
        await self._runner.wait_until(end, projection=PendingWorkProjection.name, timeout=None)
        await self._report_orphans()
        with_activities = await self._index.runs_with_activities()
        unseen = [workflow_id for workflow_id, _ in await self._index.unseen_runs()]
        await self._arm_until(self._core.effects.horizon or self._clock.now())
        await self._core.wake_all(with_activities, reclaim=True)
        known = set(with_activities)
        await self._core.wake_all((i for i in unseen if i not in known), reclaim=True)

    async def _move_horizon(self) -> None:
        """Move the horizon, then bring in what lies before it; in that order, so that no timer falls between."""
        horizon = self._core.effects.horizon = self._clock.now() + HORIZON
        await self._runner.wait_until(
            await self._store.end_position(), projection=PendingWorkProjection.name, timeout=None
        )
        await self._arm_until(horizon)

    async def _arm_until(self, horizon: datetime) -> None:
        last: PendingTimer | None = None
        while page := await self._index.timers_due(horizon, after=last, limit=_PAGE):
            for timer in page:
                self._core.effects.arm(
                    timer.workflow_id, timer.run_id, timer.timer_id, timer.fire_at
                )
            last = page[-1]
        for due in await self._index.deadlines_due(horizon):
            self._core.effects.arm_deadline(due.workflow_id, due.run_id, due.timeout, due.deadline)

    async def _report_orphans(self) -> None:
        orphaned: list[VersionNotLoadedError] = []
        for row in await self._index.open_versions():
            try:
                self._catalog.pinned(row.workflow_type, row.package_version, row.runs)
            except VersionNotLoadedError as error:
                orphaned.append(error)
                _LOG.error("%s", error)
        self.orphaned = tuple(orphaned)

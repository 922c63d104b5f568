"""Recovery: what earlier engines left behind is taken up, from the pending-work rows, not from histories.

Its cost grows with the work that is due, never with what sleeps: a run comes back when something is
due for it. The same rows feed the timer service for as long as the engine lives, one horizon at a time.
"""

import asyncio
import logging
from collections.abc import Collection, Generator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from itertools import groupby
from typing import Final

from aion_es.clock import SleepingClock
from aion_es.engine.core import EngineCore
from aion_es.engine.orphans import Orphans
from aion_es.engine.patience import UNREADABLE, persistently
from aion_es.errors import DomainError, ProjectionLagError
from aion_es.events.values import WorkflowRef
from aion_es.ids import WorkflowId
from aion_es.projections.pending_index import PendingTimer, PendingWorkIndex
from aion_es.projections.pending_work import PendingWorkProjection
from aion_es.projections.runner import ProjectionRunner
from aion_es.store.port import EventReader, Position

_LOG: Final = logging.getLogger("aion_es.recovery")

HORIZON: Final = timedelta(minutes=10)
"""How far ahead timers are held in memory."""
_LOOK_AFTER: Final = timedelta(seconds=2)
"""How long the rows may be behind before it is looked whether they stand still."""
_PAGE: Final = 1_000
_TRIED: Final = 1_000
"""So many runs are tried at most because another engine has said that they cannot go on. A deploy may have
left a hundred thousand asleep: the others say so when something comes for them."""


class Recovery:
    """Takes up what is due when the engine opens, and what falls due later.

    Attributes:
        done: Set when everything that was due at the start has been taken up.
    """

    def __init__(
        self,
        core: EngineCore,
        store: EventReader,
        runner: ProjectionRunner,
        index: PendingWorkIndex,
        orphans: Orphans,
        clock: SleepingClock,
    ) -> None:
        self.done = asyncio.Event()
        self._core = core
        self._store = store
        self._runner = runner
        self._index = index
        self._orphans = orphans
        self._clock = clock
        core.effects.horizon = clock.now() + HORIZON
        self._supply_at = clock.now() + HORIZON / 2

    async def run(self, end: Position) -> None:
        """Recover what was stored up to `end`, and keep the timer service supplied, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_supplied())
            await persistently(lambda: self._take_up(end), log=_LOG, what="recovery")
            self.done.set()

    async def _keep_supplied(self) -> None:
        while True:
            await self._clock.sleep_until(self._supply_at)
            self._supply_at = self._clock.now() + HORIZON / 2
            await persistently(self._move_horizon, log=_LOG, what="recovery")

    async def _take_up(self, end: Position) -> None:
        served = self._core.served_queues
        if not await self._is_caught_up(end):
            # What they say may be over by now; whoever is woken reads what is true.
            await self._take_up_rows(served)
            await self._runner.wait_until(end, projection=PendingWorkProjection.name, timeout=None)
        if not self._core.effects.activities.others:
            await self._orphans.forget_reports()
        await self._orphans.report(end, served=served)
        supervision = self._core.supervision
        supervision.supply(await self._index.runs_under_way(supervision.limited_types))
        await self._take_up_rows(served)

    async def take_over(self) -> None:
        """Take up what another engine was doing that is not alive any more; this one has only to be open.

        What an engine that is still alive is doing is left to it, as at the start.
        """
        await self.done.wait()
        await persistently(self._take_up_now, log=_LOG, what="recovery")

    async def _take_up_now(self) -> None:
        end = await self._store.end_position()
        await self._is_caught_up(end)
        served = self._core.served_queues
        await self._orphans.report(end, served=served)
        await self._take_up_rows(served)

    async def _take_up_rows(self, served: Collection[str] | None) -> None:
        """Take up what the rows say is due, owed or unseen."""
        with_activities = await self._index.runs_with_activities(served)
        # Before they are woken: those that cannot go on here either say so anew.
        doubted = await self._orphans.doubted(served)
        unseen = [workflow_id for workflow_id, _ in await self._index.unseen_runs(served)]
        await self._arm_until(self._core.effects.horizon or self._clock.now())
        await self._core.wake_all(with_activities, reclaim=True)
        known = set(with_activities)
        await self._core.wake_all((i for i in unseen if i not in known), reclaim=True)
        known.update(unseen)
        await self._core.wake_all([i for i in doubted[:_TRIED] if i not in known], reclaim=True)
        await self._run_errands()

    async def _run_errands(self) -> None:
        """Run what earlier engines owed between workflows and were not seen to have done."""
        couriers, relatives = self._core.couriers, self._core.relatives
        for signal in await self._index.signals():
            sender = WorkflowRef(workflow_id=signal.workflow_id, run_id=signal.run_id)
            context: str | None = None
            with suppress(DomainError), _an_errand(sender.workflow_id):
                context = await relatives.sent_in(sender, signal.signal_id)
            target, name = signal.target_workflow_id, signal.name
            couriers.send_signal(sender, signal.signal_id, target, name, signal.payload, context)
        owed = await self._index.children()
        for (workflow_id, run_id), group in groupby(owed, key=lambda c: (c.workflow_id, c.run_id)):
            parent = WorkflowRef(workflow_id=workflow_id, run_id=run_id)
            children = list(group)
            for child in children:
                if child.owed == "outcome":
                    with suppress(DomainError), _an_errand(child.child_workflow_id):
                        await relatives.ask_child(parent, child.child_workflow_id)
            if any(child.owed != "outcome" for child in children):
                with _an_errand(workflow_id):
                    await relatives.settle_children(parent, [c.child_workflow_id for c in children])

    async def _move_horizon(self) -> None:
        """Move the horizon, then bring in what lies before it; in that order, so that no timer falls between.

        Where the rows stand still they will not bring in what is recorded now, so all of that is held.
        """
        horizon = self._clock.now() + HORIZON
        if self._core.effects.horizon is not None:
            self._core.effects.horizon = horizon
        is_caught_up = await self._is_caught_up(await self._store.end_position())
        self._core.effects.horizon = horizon if is_caught_up else None
        await self._arm_until(horizon)

    async def _is_caught_up(self, position: Position) -> bool:
        """Wait until the rows have got so far; return False, and log it, if they stand still before."""
        name = PendingWorkProjection.name
        while True:
            try:
                await self._runner.wait_until(position, projection=name, timeout=_LOOK_AFTER)
            except ProjectionLagError as lag:
                if lag.__cause__ is None:
                    continue  # there is much to fold
                _LOG.error(
                    "what earlier engines left behind is taken up only as far as the projection %s has come,"
                    " which stands still: %s; engine.projections.skip passes over what it cannot handle",
                    name,
                    lag.__cause__,
                )
                return False
            else:
                return True

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


@contextmanager
def _an_errand(workflow_id: WorkflowId) -> Generator[None]:
    """Run one errand. Where a stream cannot be read it is left owed, for an engine that can, and the others go on."""
    try:
        yield
    except UNREADABLE as error:
        _LOG.error("what is owed to or by workflow %s is left for now: %s", workflow_id, error)

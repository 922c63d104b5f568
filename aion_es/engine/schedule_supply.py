"""What the schedules' process manager works on: rows of what is due soon and what is owed, and others' events."""

import asyncio
import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from aion_es.clock import SleepingClock
from aion_es.engine.patience import follow, persistently
from aion_es.engine.recovery import HORIZON
from aion_es.engine.schedule_actions import ScheduledActions
from aion_es.engine.schedules import ScheduleDriver
from aion_es.engine.timers import TimerService
from aion_es.errors import StoreError
from aion_es.events.codec import decode
from aion_es.events.schedule import ScheduleTriggered
from aion_es.ids import ScheduleId, WorkflowId
from aion_es.projections.runner import ProjectionRunner
from aion_es.projections.schedule_index import DueSchedule, ScheduleIndex
from aion_es.projections.schedules import SchedulesProjection
from aion_es.store.port import EventStore, Position, RecordedEvent

_LOG: Final = logging.getLogger("aion_es.schedules")

_OTHERS_TIME: Final = timedelta(seconds=10)
"""After this long it is seen whether another engine has started what it took."""
_TURNS: Final = frozenset(
    {"ScheduleCreated", "ScheduleUpdated", "ScheduleResumed", "ScheduleBuffered"}
)
"""After these, recorded elsewhere, something may be due here or may wait."""


class ScheduleSupply:
    """Brings to the driver what falls due within the horizon, what is owed, and what others did.

    Attributes:
        done: Set when everything that was due or owed at the start has been handed to the driver.
    """

    def __init__(
        self,
        driver: ScheduleDriver,
        actions: ScheduledActions,
        store: EventStore,
        runner: ProjectionRunner,
        index: ScheduleIndex,
        timers: TimerService,
        clock: SleepingClock,
        prefix: str,
    ) -> None:
        self.done = asyncio.Event()
        self._driver = driver
        self._actions = actions
        self._store = store
        self._runner = runner
        self._index = index
        self._timers = timers
        self._clock = clock
        self._prefix = prefix

    async def run(self, end: Position) -> None:
        """Take up what was stored up to `end`, then keep the driver supplied, for ever."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            group.create_task(self._follow(end))
            await persistently(lambda: self._take_up(end), log=_LOG, what="schedules")
            self.done.set()
            while True:
                await self._clock.sleep_until(self._driver.horizon - HORIZON / 2)
                await persistently(self._move_horizon, log=_LOG, what="schedules")

    async def _take_up(self, end: Position) -> None:
        await self._arm_after(end)
        last: ScheduleId | None = None
        while page := await self._index.owed(after=last):
            for schedule_id in page:
                self._driver.suspect(schedule_id)
            last = page[-1]

    async def _move_horizon(self) -> None:
        """Move the horizon, then bring in what lies before it; in that order, so that nothing falls between."""
        self._driver.horizon = self._clock.now() + HORIZON
        await self._arm_after(await self._store.end_position())

    async def _arm_after(self, position: Position) -> None:
        await self._runner.wait_until(position, projection=SchedulesProjection.name, timeout=None)
        last: DueSchedule | None = None
        while page := await self._index.due_before(self._driver.horizon, after=last):
            for due in page:
                self._driver.arm(due.schedule_id, due.fires_at)
            last = page[-1]

    # ----------------------------------------------------------------------------- following

    async def _follow(self, position: Position) -> None:
        """Hear of what is recorded about schedules after `position`."""

        async def take(events: Sequence[RecordedEvent]) -> None:
            nonlocal position
            for event in events:
                self._hear(event)
                position = event.position

        await follow(
            lambda: self._store.subscribe_all(from_position=position, prefix=self._prefix),
            take,
            log=_LOG,
            what="schedules",
        )

    def _hear(self, event: RecordedEvent) -> None:
        schedule_id = ScheduleId(event.stream[len(self._prefix) :])
        if self._driver.was_recorded_here(event.event_id):
            return
        if event.type in _TURNS:
            self._driver.ready(schedule_id)
        elif event.type == "ScheduleTriggered":
            taken = decode(event)
            if isinstance(taken, ScheduleTriggered):
                self._expect(schedule_id, taken.workflow_id)

    def _expect(self, schedule_id: ScheduleId, workflow_id: WorkflowId) -> None:
        """Look after a while whether what another engine took was started: it may have died in between."""

        def look() -> None:
            self._group.create_task(self._look(schedule_id, workflow_id))

        self._timers.add_after(("schedule expects", workflow_id), _OTHERS_TIME, look)

    async def _look(self, schedule_id: ScheduleId, workflow_id: WorkflowId) -> None:
        try:
            is_missing = await self._actions.stage(workflow_id) == "unstarted"
        except StoreError:
            is_missing = True  # who looks again finds out
        if is_missing:
            self._driver.suspect(schedule_id)

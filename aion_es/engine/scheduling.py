"""The schedules' part of an engine, put together: what decides, what starts, and what supplies them."""

import asyncio

from aion_es.aggregates.schedule_repository import ScheduleRepository
from aion_es.aggregates.workflow_repository import WorkflowRepository
from aion_es.clock import SleepingClock
from aion_es.engine.catalog import Catalog
from aion_es.engine.core import EngineCore
from aion_es.engine.follower import Follower
from aion_es.engine.schedule_actions import ScheduledActions
from aion_es.engine.schedule_supply import ScheduleSupply
from aion_es.engine.schedules import ScheduleDriver
from aion_es.ids import IdSource, Namespace, schedule_prefix
from aion_es.projections.read_model import ReadModel
from aion_es.projections.runner import ProjectionRunner
from aion_es.projections.schedule_index import ScheduleIndex
from aion_es.store.port import EventStore, Position


class Scheduling:
    """The parts that schedules need of one engine.

    Attributes:
        repository: The only way into a schedule's stream.
        driver: Takes the schedules' turns.
        actions: Starts and ends what they take.
        supply: Says which of them need a turn.
        index: Their rows.
    """

    def __init__(
        self,
        core: EngineCore,
        follower: Follower,
        store: EventStore,
        workflows: WorkflowRepository,
        catalog: Catalog,
        runner: ProjectionRunner,
        read_model: ReadModel,
        *,
        namespace: Namespace,
        clock: SleepingClock,
        ids: IdSource,
    ) -> None:
        self.index = ScheduleIndex(read_model)
        self.repository = ScheduleRepository(store, namespace=namespace, ids=ids)
        self.actions = ScheduledActions(core, store, workflows, catalog)
        alone = not core.effects.activities.others
        self.driver = ScheduleDriver(
            self.repository, self.actions, core.timers, clock, ids, alone=alone
        )
        self.supply = ScheduleSupply(
            self.driver,
            self.actions,
            store,
            runner,
            self.index,
            core.timers,
            clock,
            schedule_prefix(namespace),
        )
        follower.on_closed = self.driver.heard_closing

    async def run(self, end: Position) -> None:
        """Take up what was stored up to `end`, then whatever falls due, for ever; ends only by cancellation."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.driver.run())
            group.create_task(self.supply.run(end))

"""The process manager of schedules: it decides what is due when it is due, and carries out what was decided.

A decision is recorded before it has effects: `ScheduleTriggered` first, then the start of the workflow, whose id
and run id that event holds. So whoever finds the event and no workflow starts it, and nobody can start it twice.
`schedule_supply.py` says which schedules are due soon, and which ones somebody left with something owed.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from aion_es.aggregates.schedule import Schedule
from aion_es.aggregates.schedule_decisions import LATE, Moment
from aion_es.aggregates.schedule_repository import ExecutedSchedule, ScheduleRepository
from aion_es.aggregates.schedule_state import ScheduleState
from aion_es.clock import SleepingClock
from aion_es.engine.recovery import HORIZON
from aion_es.engine.schedule_actions import Look, ScheduledActions
from aion_es.engine.timers import TimerService
from aion_es.errors import ConcurrencyConflictError, EngineClosedError, OperationalError
from aion_es.events.schedule import ScheduleEvent, ScheduleTriggered
from aion_es.ids import IdSource, RunId, ScheduleId, WorkflowId, deterministic_event_id
from aion_es.schedules.naming import schedule_of
from aion_es.schedules.policies import Overlap

_LOG: Final = logging.getLogger("aion_es.schedules")

AT_ONCE: Final = 32
"""Schedules that are worked on at once; more wait."""
_MANY_OPEN: Final = 32
"""With more actions of unknown end it is looked which of them have ended, although the policy does not ask: once
after each checkpoint, since at every due time it would be read of all that run."""
_RETRY_AFTER: Final = timedelta(seconds=1)

Decide = Callable[[Schedule, datetime], object]
"""Gives a command to a schedule; may be called more than once, after a conflict."""


class ScheduleDriver:
    """Takes turns for schedules, one at a time for each, many beside each other.

    Attributes:
        horizon: What is due beyond it is not held in memory; its row brings it in.
        since: From when on somebody has been here to decide.
    """

    def __init__(
        self,
        schedules: ScheduleRepository,
        actions: ScheduledActions,
        timers: TimerService,
        clock: SleepingClock,
        ids: IdSource,
        *,
        alone: bool,
    ) -> None:
        self.horizon = clock.now() + HORIZON
        # While others are there, what was due a moment ago is theirs to decide, and not missed.
        self.since = clock.now() if alone else clock.now() - LATE
        self._schedules = schedules
        self._actions = actions
        self._timers = timers
        self._clock = clock
        self._ids = ids
        self._ready: deque[ScheduleId] = deque()
        self._queued: set[ScheduleId] = set()
        self._busy: set[ScheduleId] = set()
        self._again: set[ScheduleId] = set()
        self._waiting: set[ScheduleId] = set()  # something is buffered, or may be in a moment
        self._suspect: set[ScheduleId] = set()  # something that was taken may not have been started
        self._without_code: set[ScheduleId] = set()
        self._own: set[UUID] = set()  # ids of events that are recorded here and not yet heard of
        self._group: asyncio.TaskGroup | None = None
        self._workers = 0
        self._idle = asyncio.Event()
        self._closed = False

    # ------------------------------------------------------------------------------ its life

    async def run(self) -> None:
        """Take turns for ever; ends only by cancellation."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            self._employ()
            await asyncio.get_running_loop().create_future()

    async def stop(self) -> None:
        """Begin no more turns, and return when those that are under way have come to their end."""
        self._closed = True
        while self._workers:
            self._idle.clear()
            await self._idle.wait()

    # ------------------------------------------------------------------------- what it hears

    def ready(self, schedule_id: ScheduleId) -> None:
        """Let a schedule have a turn soon."""
        if schedule_id in self._busy:
            self._again.add(schedule_id)
        elif schedule_id not in self._queued:
            self._queued.add(schedule_id)
            self._ready.append(schedule_id)
            self._employ()

    def suspect(self, schedule_id: ScheduleId) -> None:
        """Let it be looked whether everything that the schedule has taken was started."""
        self._suspect.add(schedule_id)
        self.ready(schedule_id)

    def heard_closing(self, workflow_id: WorkflowId) -> None:
        """Hear that some workflow has closed: an action may wait for it."""
        schedule_id = schedule_of(workflow_id)
        if schedule_id is not None and schedule_id in self._waiting:
            self.ready(schedule_id)

    def was_recorded_here(self, event_id: UUID) -> bool:
        """Return whether an event that was heard of is of this engine's doing; asked once for each."""
        known = event_id in self._own
        self._own.discard(event_id)
        return known

    def code_arrived(self) -> None:
        """Look again at the schedules whose workflow type was not registered."""
        for schedule_id in tuple(self._without_code):
            self._without_code.discard(schedule_id)
            self.ready(schedule_id)

    def arm(self, schedule_id: ScheduleId, fires_at: datetime) -> None:
        """Let a schedule have a turn when it is due; one beyond the horizon is brought in later, from its row."""
        key = ("schedule", schedule_id)
        if fires_at < self.horizon:
            self._timers.add(key, fires_at, lambda: self.ready(schedule_id))
        else:
            self._timers.discard(key)

    # ----------------------------------------------------------------------- what it is told

    async def command(
        self,
        schedule_id: ScheduleId,
        decide: Decide,
        *,
        look: Look | None = None,
    ) -> ExecutedSchedule:
        """Give a command to a schedule, carry out what it decided, and return what came of it.

        Args:
            schedule_id: Which.
            decide: Gives the command.
            look: What was seen of the actions, if what is decided depends on it.

        Raises:
            DomainError: It was refused; nothing was recorded.
            StoreError: The store is away.
            EngineClosedError: The engine is shutting down. If it came in between, what was recorded is carried
                out when an engine opens the store again.
        """
        if self._closed:
            raise EngineClosedError
        command_id = self._ids.new()
        noted: set[UUID] = set()

        def once(schedule: Schedule) -> None:
            self._own.difference_update(noted)  # of a try that lost its race
            decide(schedule, self._clock.now())
            noted.update(self._note(schedule, command_id))

        try:
            executed = await self._schedules.execute(schedule_id, once, command_id=command_id)
        except BaseException:
            self._own.difference_update(noted)
            raise
        try:
            await self._carry_out(executed.schedule, executed.events, look)
        except BaseException:
            self.suspect(schedule_id)
            raise
        self._settle(executed.schedule)
        is_waiting = executed.schedule.exists and executed.schedule.state.buffered
        if is_waiting or schedule_id in self._suspect or schedule_id in self._busy:
            # What it waits for may have ended, or come, and a turn under way does not know of this.
            self.ready(schedule_id)
        return executed

    def moment(self, running: frozenset[WorkflowId] | None) -> Moment:
        """Return what a decision is made from now."""
        return Moment(
            now=self._clock.now(),
            since=self.since,
            running=running,
            new_run_id=lambda: RunId(self._ids.new()),
        )

    # -------------------------------------------------------------------------------- turns

    def _employ(self) -> None:
        """See to it that somebody works on what is ready."""
        if self._group is None or self._closed:
            return
        while self._workers < min(AT_ONCE, len(self._ready)):
            self._workers += 1
            self._group.create_task(self._work())

    async def _work(self) -> None:
        try:
            while self._ready and not self._closed:
                schedule_id = self._ready.popleft()
                self._queued.discard(schedule_id)
                self._busy.add(schedule_id)
                try:
                    await self._try_turn(schedule_id)
                finally:
                    self._busy.discard(schedule_id)
                if schedule_id in self._again:
                    self._again.discard(schedule_id)
                    self.ready(schedule_id)
        finally:
            self._workers -= 1
            self._idle.set()

    async def _try_turn(self, schedule_id: ScheduleId) -> None:
        try:
            await self._turn(schedule_id)
        except EngineClosedError:
            self._closed = True  # what is owed is found by whoever opens the store next
        except Exception as error:  # noqa: BLE001 - one schedule's trouble is not its siblings'
            if isinstance(error, OperationalError):
                _LOG.warning("schedule %s: %s; again in %s", schedule_id, error, _RETRY_AFTER)
            else:
                _LOG.exception("schedule %s: the engine failed", schedule_id)
            self._suspect.add(schedule_id)
            again = ("schedule again", schedule_id)
            self._timers.add_after(again, _RETRY_AFTER, lambda: self.ready(schedule_id))

    async def _turn(self, schedule_id: ScheduleId) -> None:
        """Decide what is due until nothing is, and carry it out."""
        is_suspect = schedule_id in self._suspect
        # Before reading: whatever is suspected from here on is for the next turn to look into.
        self._suspect.discard(schedule_id)
        schedule = await self._schedules.load(schedule_id)
        while schedule.exists:
            if not self._is_ours(schedule_id, schedule.state):
                if is_suspect:
                    self._suspect.add(schedule_id)  # until it is
                break
            look = await self._look(schedule_id, schedule.state, is_suspect)
            moment = self.moment(None if look is None else look.running)
            events = schedule.take_due(moment, at=moment.now)
            try:
                await self._save(schedule)
            except ConcurrencyConflictError:
                schedule = await self._schedules.load(schedule_id)
                continue
            await self._carry_out(schedule, events, look)
            due = schedule.state.next_due(schedule_id)
            if not events or due is None or due[1] > moment.now:
                break
        self._settle(schedule)

    def _is_ours(self, schedule_id: ScheduleId, state: ScheduleState) -> bool:
        """Whether this engine can start what the schedule takes: else it leaves it to those who can."""
        if state.plan is None:
            return False
        if self._actions.can_start(state.plan.action):
            self._without_code.discard(schedule_id)
            return True
        if schedule_id not in self._without_code:
            self._without_code.add(schedule_id)
            workflow_type = state.plan.action.workflow_type
            _LOG.warning("schedule %s: %r is not registered here", schedule_id, workflow_type)
        return False

    async def _look(
        self, schedule_id: ScheduleId, state: ScheduleState, is_suspect: bool
    ) -> Look | None:
        """Return which actions still run, if the decision depends on it, or it is time to know."""
        allows_all = state.plan is None or state.plan.overlap is Overlap.ALLOW_ALL
        if not allows_all or state.buffered:
            self._waiting.add(
                schedule_id
            )  # before looking: what closes meanwhile must not be missed
        elif not is_suspect and (len(state.open) <= _MANY_OPEN or state.length > 1):
            return None
        return await self._actions.look(schedule_id, state)

    async def _carry_out(
        self, schedule: Schedule, events: Iterable[ScheduleEvent], look: Look | None
    ) -> None:
        """Start what was taken, and see to the end of what stands in the way of what waits."""
        taken = [event for event in events if isinstance(event, ScheduleTriggered)]
        if not schedule.exists:
            return
        if taken:
            await self._actions.start(schedule.schedule_id, schedule.state, taken)
        if schedule.state.buffered:
            how = schedule.state.buffered[-1].previous
            if how != "wait":
                in_the_way = {event.workflow_id for event in taken}
                if look is not None:
                    in_the_way |= look.still_running(schedule.state)
                await self._actions.end(schedule.schedule_id, in_the_way, how)

    def _settle(self, schedule: Schedule) -> None:
        """Wait for what comes next: the next due time, or the end of what runs."""
        schedule_id = schedule.schedule_id
        if not schedule.exists:
            self._without_code.discard(schedule_id)
            self._suspect.discard(schedule_id)
        is_ours = schedule.exists and self._is_ours(schedule_id, schedule.state)
        due = schedule.state.next_due(schedule_id) if is_ours else None
        if due is None:
            self._timers.discard(("schedule", schedule_id))
        else:
            self.arm(schedule_id, due[1])
        if not schedule.exists or not schedule.state.buffered:
            self._waiting.discard(schedule_id)

    # ------------------------------------------------------------- what was recorded by itself

    async def _save(self, schedule: Schedule) -> None:
        """Record what was decided, as this engine's."""
        command_id = self._ids.new()
        noted = self._note(schedule, command_id)
        try:
            await self._schedules.save(schedule, command_id=command_id)
        except BaseException:
            self._own.difference_update(noted)
            raise

    def _note(self, schedule: Schedule, command_id: str) -> set[UUID]:
        """Remember what is about to be recorded, so that hearing of it says nothing new; return its ids."""
        stream = self._schedules.stream(schedule.schedule_id)
        noted = {
            deterministic_event_id(stream, command_id, ordinal)
            for ordinal in range(len(schedule.uncommitted))
        }
        self._own |= noted
        return noted

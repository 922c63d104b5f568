"""The schedules' door: create, change, trigger, backfill, describe and list them. `engine.schedules` is one."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Final, TypeVar

from aion_es.aggregates import schedule as aggregate
from aion_es.aggregates.lifecycle import deadline
from aion_es.aggregates.schedule_repository import ExecutedSchedule, ScheduleRepository
from aion_es.aggregates.schedule_state import ScheduleState
from aion_es.authoring.definitions import workflow_definition
from aion_es.client import WorkflowClient, WorkflowHandle
from aion_es.engine.limits import max_payload_bytes, require_size
from aion_es.engine.schedule_actions import Look, ScheduledActions
from aion_es.engine.schedules import Decide, ScheduleDriver
from aion_es.errors import InvalidArgumentError, ScheduleNotFoundError
from aion_es.events.schedule import ScheduleBuffered, ScheduleTriggered, TakenAction
from aion_es.ids import RunId, ScheduleId
from aion_es.payload import Payload
from aion_es.projections.runner import ProjectionRunner
from aion_es.projections.schedule_index import ScheduleIndex, ScheduleSummary
from aion_es.projections.schedules import SchedulesProjection
from aion_es.schedules.config import ScheduleConfig, StartAction
from aion_es.schedules.definition import Schedule, Start
from aion_es.schedules.naming import action_id, check_schedule_id
from aion_es.schedules.policies import CatchUp, Overlap
from aion_es.schedules.spec import Spec, in_utc
from aion_es.schedules.times import next_times, times_between
from aion_es.store.port import Position, StoreLimits

P = TypeVar("P", Overlap, CatchUp)

_NEXT: Final = 10
_CHUNK: Final = 100
"""Due times of a backfill that are decided at once."""
_MICROSECOND: Final = timedelta(microseconds=1)
_CONFIG_PART: Final = 2
"""A configuration may have one part in so many of what an event may: a checkpoint repeats it, beside the actions
that are open and that wait."""
_REASON_PART: Final = 32
"""The same for the reason of a pause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleDescription:
    """What a schedule's own events say about it now.

    Attributes:
        updated_at: When it was created, changed, paused or resumed last.
        next_times: Its next due times, at most ten; none while it is paused, or when its limit is reached.
        last_actions: The last actions that were taken, at most ten, oldest first.
        running: Actions that run now, or are about to.
        buffered: Due times whose action waits for the end of earlier ones.
        actions: How often an action was taken.
        skipped: How often it was recorded that none was.
        remaining: So many more will be taken by themselves; `None` for no limit.
    """

    schedule_id: ScheduleId
    spec: Spec
    action: StartAction
    overlap: Overlap
    catch_up: CatchUp
    catch_up_window: timedelta
    paused: bool
    pause_reason: str | None
    created_at: datetime
    updated_at: datetime
    next_times: tuple[datetime, ...]
    last_actions: tuple[TakenAction, ...]
    running: tuple[TakenAction, ...]
    buffered: tuple[datetime, ...]
    actions: int
    skipped: int
    remaining: int | None


class Schedules:
    """The schedules of one namespace. What a command did is recorded when it returns."""

    def __init__(
        self,
        client: WorkflowClient,
        driver: ScheduleDriver,
        actions: ScheduledActions,
        repository: ScheduleRepository,
        index: ScheduleIndex,
        runner: ProjectionRunner,
        limits: StoreLimits,
    ) -> None:
        self._client = client
        self._driver = driver
        self._actions = actions
        self._repository = repository
        self._index = index
        self._runner = runner
        self._max_payload = max_payload_bytes(limits)
        self._max_config = limits.max_event_bytes // _CONFIG_PART
        self._max_reason = limits.max_event_bytes // _REASON_PART
        self._last_position: Position | None = None

    async def create(self, schedule: Schedule) -> None:
        """Create a schedule. What would have been due before now is not made up for: see `backfill`.

        Raises:
            ScheduleAlreadyExistsError: There is one of this id.
            ScheduleSpecError: A cron expression, a calendar's field or a time zone is not understood; names the
                character.
            WorkflowTypeNotFoundError: The workflow is not registered here.
            PayloadError, PayloadTooLargeError: The input does not fit its type, or is too large; or all that is
                recorded of the schedule is larger than half of what the store takes in an event.
            UnregisteredAttributeError, ConflictingAttributeTypeError, AttributeTypeError: An attribute does not fit.
            InvalidIdError, InvalidArgumentError: The id, a length or a bound has another form. In all cases
                nothing was recorded.
        """
        config = await self._recorded(schedule)
        await self._command(schedule.id, lambda s, at: s.create(config, at=at))

    async def update(self, schedule: Schedule) -> None:
        """Replace everything about a schedule but its id; the same again does nothing.

        It begins anew from now: what was due before and is not decided is not made up for, and the limit counts
        anew. What runs goes on. What is buffered is taken when its turn comes, as the new action says.

        Raises:
            ScheduleNotFoundError: There is none of this id.
            What `create` raises of the schedule itself. In all cases nothing was recorded.
        """
        config = await self._recorded(schedule)
        await self._command(schedule.id, lambda s, at: s.update(config, at=at))

    async def pause(self, schedule_id: str, reason: str | None = None) -> None:
        """Take no more actions, but those that `trigger` and `backfill` ask for; what is buffered waits.

        Raises:
            ScheduleNotFoundError: There is none of this id.
            PayloadTooLargeError: The reason is larger than a thirty-second of what the store takes in an event. In
                both cases nothing was recorded.
        """
        require_size(
            Payload(data=reason), self._max_reason, f"reason to pause schedule {schedule_id!r}"
        )
        await self._command(schedule_id, lambda s, at: s.pause(reason, at=at))

    async def resume(self, schedule_id: str) -> None:
        """Take actions again. What was due during the pause is not made up for: see `backfill`.

        Raises:
            ScheduleNotFoundError: There is none of this id; nothing was recorded.
        """
        await self._command(schedule_id, lambda s, at: s.resume(at=at))

    async def delete(self, schedule_id: str) -> None:
        """Delete a schedule, and with it what is buffered; what runs goes on. Its id may be taken again.

        Raises:
            ScheduleNotFoundError: There is none of this id; nothing was recorded.
        """
        await self._command(schedule_id, lambda s, at: s.delete(at=at))

    async def trigger(self, schedule_id: str) -> WorkflowHandle[Any]:
        """Take an action now, whatever the specification and the policies say, also while it is paused.

        Returns:
            A handle to the workflow, which is started.

        Raises:
            ScheduleNotFoundError: There is none of this id.
            WorkflowTypeNotFoundError: What it starts is not registered here. In both cases nothing was recorded.
        """
        run_id = RunId(self._client.ids.new())

        def decide(schedule: aggregate.Schedule, at: datetime) -> None:
            if schedule.state.plan is not None:
                self._actions.require_startable(schedule.state.plan.action)
            due = _free_instant(schedule, at)
            schedule.trigger(due, action_id(schedule.schedule_id, due), run_id, True, at=at)

        executed = await self._command(schedule_id, decide)
        taken = executed.schedule.state.recent[-1]
        return self._client.handle(taken.workflow_id, run_id=taken.run_id)

    async def backfill(
        self,
        schedule_id: str,
        from_at: datetime,
        until: datetime,
        overlap: Overlap = Overlap.BUFFER_ALL,
    ) -> tuple[datetime, ...]:
        """Take the actions of past due times for which none was taken, also while it is paused.

        Args:
            schedule_id: Whose.
            from_at: The first instant, inclusive.
            until: The last instant, inclusive; what is not decided yet comes by itself, and is left out.
            overlap: Among these actions and with those that run. Default: one after the other.

        Returns:
            The due times for which an action was taken, or now waits.

        Raises:
            ScheduleNotFoundError: There is none of this id.
            WorkflowTypeNotFoundError: What it starts is not registered here. In both cases nothing was recorded.
            InvalidArgumentError: An instant is naive, or `overlap` is no policy; nothing was recorded.
            StoreError: The store is away; asked for again, it goes on.
        """
        begin, end = in_utc("from_at", from_at), in_utc("until", until)
        overlap = _policy("overlap", Overlap, overlap)
        schedule = await self._existing(schedule_id)
        state, plan = schedule.state, schedule.state.plan
        if plan is None:
            return ()
        self._actions.require_startable(plan.action)
        decided = self._driver.moment(None).now if state.paused else state.decided_until
        times = times_between(plan.spec, begin - _MICROSECOND, min(end, decided))
        done: list[datetime] = []
        while chunk := list(islice(times, _CHUNK)):
            done += await self._backfill(schedule.schedule_id, chunk, overlap)
        return tuple(done)

    async def _backfill(
        self, schedule_id: ScheduleId, chunk: list[datetime], overlap: Overlap
    ) -> list[datetime]:
        stages = await self._actions.stages([action_id(schedule_id, due) for due in chunk])
        missing = [due for due, stage in zip(chunk, stages, strict=True) if stage == "unstarted"]
        look = await self._actions.look(schedule_id, (await self._existing(schedule_id)).state)

        def decide(schedule: aggregate.Schedule, at: datetime) -> None:
            moment = self._driver.moment(look.still_running(schedule.state))
            schedule.backfill(missing, overlap, moment, at=at)

        executed = await self._command(schedule_id, decide, look=look)
        return [
            event.scheduled_for
            for event in executed.events
            if isinstance(event, ScheduleTriggered | ScheduleBuffered)
        ]

    async def describe(self, schedule_id: str) -> ScheduleDescription:
        """Return what there is to know about a schedule, from its own events.

        Raises:
            ScheduleNotFoundError: There is none of this id, or a newer program configured it.
            StoreError: The store is away.
        """
        schedule = await self._existing(schedule_id)
        state, plan = schedule.state, schedule.state.plan
        if plan is None:
            raise ScheduleNotFoundError(schedule_id)
        return ScheduleDescription(
            schedule_id=schedule.schedule_id,
            spec=plan.spec,
            action=plan.action,
            overlap=plan.overlap,
            catch_up=plan.catch_up,
            catch_up_window=plan.catch_up_window,
            paused=state.paused,
            pause_reason=state.pause_reason,
            created_at=state.created_at,
            updated_at=state.updated_at,
            next_times=_next_times(state, plan),
            last_actions=tuple(state.recent),
            running=await self._actions.running(state),
            buffered=tuple(waiting.scheduled_for for waiting in state.buffered),
            actions=state.actions,
            skipped=state.skipped,
            remaining=state.remaining,
        )

    async def list(
        self,
        *,
        paused: bool | None = None,
        workflow_type: str | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> list[ScheduleSummary]:
        """Return schedules by id, with everything that was recorded through this object.

        Args:
            paused: Only those that are paused, or only those that are not.
            workflow_type: Only those that start this type.
            after: The last id of the former page.
            limit: Size of a page.

        Raises:
            StoreError: The read model does not answer.
        """
        if self._last_position is not None:
            await self._runner.wait_until(
                self._last_position, projection=SchedulesProjection.name, timeout=None
            )
        return await self._index.page(
            paused=paused, workflow_type=workflow_type, after=after, limit=limit
        )

    async def _command(
        self,
        schedule_id: str,
        decide: Decide,
        *,
        look: Look | None = None,
    ) -> ExecutedSchedule:
        known = check_schedule_id(schedule_id)
        executed = await self._driver.command(known, decide, look=look)
        if executed.position is not None:
            self._last_position = executed.position
        return executed

    async def _existing(self, schedule_id: str) -> aggregate.Schedule:
        schedule = await self._repository.load(check_schedule_id(schedule_id))
        if not schedule.exists:
            raise ScheduleNotFoundError(schedule_id)
        return schedule

    async def _recorded(self, schedule: Schedule) -> Mapping[str, Any]:
        """Return the configuration of a schedule in its recorded form, checked."""
        check_schedule_id(schedule.id)
        if schedule.catch_up_window < timedelta(0):
            raise InvalidArgumentError("catch_up_window", "must not be negative")
        plain = ScheduleConfig(
            spec=schedule.full_spec,
            action=await self._action(schedule.id, schedule.action),
            overlap=_policy("overlap", Overlap, schedule.overlap),
            catch_up=_policy("catch_up", CatchUp, schedule.catch_up),
            catch_up_window=schedule.catch_up_window,
        ).plain()
        what = f"configuration of schedule {schedule.id!r}"
        require_size(Payload(data=plain), self._max_config, what)
        return plain

    async def _action(self, schedule_id: str, start: Start) -> StartAction:
        name = start.workflow
        catalog = self._client.catalog
        definition = catalog.routed(
            name if isinstance(name, str) else workflow_definition(name).type
        )
        payload = definition.signature.write_input(start.input)
        require_size(payload, self._max_payload, f"input of schedule {schedule_id!r}")
        now = self._driver.moment(None).now
        deadline("run_timeout", start.run_timeout, now)
        deadline("execution_timeout", start.execution_timeout, now)
        typed = await self._client.search_attributes.typed(start.attributes)
        return StartAction(
            workflow_type=definition.type,
            input=payload,
            task_queue=start.task_queue,
            attributes={name: value for name, value in typed.items() if value is not None},
            memo=None if start.memo is None else Payload.of(start.memo, what="memo"),
            run_timeout=start.run_timeout,
            execution_timeout=start.execution_timeout,
        )


def _free_instant(schedule: aggregate.Schedule, at: datetime) -> datetime:
    """Return an instant for an action that a person asks for now; due times have whole seconds, so it has a fraction."""
    taken = {action.scheduled_for for action in (*schedule.state.open, *schedule.state.recent)}
    due = at
    while due.microsecond == 0 or due in taken:
        due += _MICROSECOND
    return due


def _next_times(state: ScheduleState, plan: ScheduleConfig) -> tuple[datetime, ...]:
    if state.paused:
        return ()
    count = _NEXT if state.budget is None else min(_NEXT, state.budget)
    return tuple(next_times(plan.spec, state.decided_until, count))


def _policy(name: str, policies: type[P], value: str) -> P:
    """Return the policy that was given, or named."""
    try:
        return policies(value)
    except ValueError as error:
        known = ", ".join(repr(policy.value) for policy in policies)
        raise InvalidArgumentError(name, f"must be one of {known}, got {value!r}") from error

"""The actions of schedules: whether they still run, how they are started, how they are asked to end."""

import asyncio
import logging
from collections.abc import Awaitable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from typing import Final, Literal, NamedTuple, TypeAlias, TypeVar

from aion_es.aggregates.lifecycle import StartWorkflow
from aion_es.aggregates.schedule_state import ScheduleState
from aion_es.aggregates.workflow import Workflow
from aion_es.aggregates.workflow_repository import WorkflowRepository
from aion_es.engine.catalog import Catalog
from aion_es.engine.core import EngineCore
from aion_es.engine.follower import TERMINAL_TYPES
from aion_es.errors import (
    DomainError,
    RunClosedError,
    WorkflowAlreadyStartedError,
    WorkflowNotFoundError,
    WorkflowTypeNotFoundError,
)
from aion_es.events.schedule import Previous, ScheduleTriggered, TakenAction
from aion_es.ids import ScheduleId, WorkflowId
from aion_es.schedules.config import StartAction
from aion_es.store.port import EventReader

_LOG: Final = logging.getLogger("aion_es.schedules")

T = TypeVar("T")

Stage = Literal["unstarted", "running", "ended"]
_Taken: TypeAlias = TakenAction | ScheduleTriggered

_LOOKS_AT_ONCE: Final = 32
"""Streams whose last event is read at once."""


class Look(NamedTuple):
    """What was seen when somebody looked at a schedule's actions.

    Attributes:
        at: The actions that were looked at.
        running: Those of them that still ran.
    """

    at: frozenset[WorkflowId]
    running: frozenset[WorkflowId]

    def still_running(self, state: ScheduleState) -> frozenset[WorkflowId]:
        """Return the actions of a later state that may run: those that did, and what was taken since."""
        return self.running | (frozenset(state.open_ids) - self.at)


class ScheduledActions:
    """Gives the commands on workflows that schedules owe. Each may be given again: it then does nothing."""

    def __init__(
        self,
        core: EngineCore,
        store: EventReader,
        workflows: WorkflowRepository,
        catalog: Catalog,
    ) -> None:
        self._core = core
        self._store = store
        self._workflows = workflows
        self._catalog = catalog

    def can_start(self, action: StartAction) -> bool:
        """Return whether this engine has the code that the action starts."""
        return self._catalog.routed_version(action.workflow_type) is not None

    def require_startable(self, action: StartAction) -> None:
        """Check that this engine has the code that the action starts.

        Raises:
            WorkflowTypeNotFoundError: It does not; lists what it has.
        """
        self._catalog.routed(action.workflow_type)

    async def stage(self, workflow_id: WorkflowId) -> Stage:
        """Return how far an action is; reads the last event of its stream.

        Raises:
            StoreError: It cannot be read.
        """
        reading = self._store.read(self._workflows.stream(workflow_id), backwards=True, limit=1)
        async for last in reading:
            # A run that continues as new has its successor's beginning behind its end.
            return "ended" if last.type in TERMINAL_TYPES else "running"
        return "unstarted"

    async def stages(self, workflow_ids: Sequence[WorkflowId]) -> list[Stage]:
        """Return how far each of many actions is.

        Raises:
            StoreError: They cannot be read.
        """
        found: list[Stage] = []
        for first in range(0, len(workflow_ids), _LOOKS_AT_ONCE):
            chunk = workflow_ids[first : first + _LOOKS_AT_ONCE]
            found += await _together(self.stage(workflow_id) for workflow_id in chunk)
        return found

    async def running(self, state: ScheduleState) -> tuple[TakenAction, ...]:
        """Return the actions that run, or are about to; starts none.

        Raises:
            StoreError: They cannot be read.
        """
        stages = await self.stages(state.open_ids)
        return tuple(
            action for action, stage in zip(state.open, stages, strict=True) if stage != "ended"
        )

    async def look(self, schedule_id: ScheduleId, state: ScheduleState) -> Look:
        """Return which actions still run, after starting what was taken and never started.

        Raises:
            OperationalError: The store is away, or the engine closes; what was started is started.
        """
        running: set[WorkflowId] = set()
        opened = tuple(state.open)
        stages = await self.stages([action.workflow_id for action in opened])
        for action, stage in zip(opened, stages, strict=True):
            if stage == "unstarted" and not await self._start(schedule_id, state, action):
                continue  # it can never be started, and must not keep others from it
            if stage != "ended":
                running.add(action.workflow_id)
        return Look(frozenset(action.workflow_id for action in opened), frozenset(running))

    async def start(
        self, schedule_id: ScheduleId, state: ScheduleState, taken: Iterable[ScheduleTriggered]
    ) -> None:
        """Start what was just taken, all at once.

        Raises:
            OperationalError: The store is away, or the engine closes; some may be started.
        """
        await _together(self._start(schedule_id, state, action) for action in taken)

    async def end(
        self, schedule_id: ScheduleId, workflow_ids: Iterable[WorkflowId], how: Previous
    ) -> None:
        """Ask actions to end, or end them; those that have ended already are left alone.

        Raises:
            OperationalError: The store is away, or the engine closes.
        """
        reason = f"schedule {schedule_id!r}: its next action is due"

        def decide(workflow: Workflow, at: datetime) -> None:
            if how == "terminate":
                workflow.terminate(reason, at=at)
            else:
                workflow.request_cancel(reason, at=at)

        for workflow_id in workflow_ids:
            try:
                await self._core.request(workflow_id, decide)
            except (RunClosedError, WorkflowNotFoundError):
                continue

    async def _start(self, schedule_id: ScheduleId, state: ScheduleState, taken: _Taken) -> bool:
        """Start an action; return whether there is a workflow of its id now, whoever started it."""
        if state.plan is None:
            return False
        try:
            command = self._command(schedule_id, state.plan.action, taken)
            with self._span(schedule_id, command, taken):
                await self._core.request(
                    taken.workflow_id, lambda w, at: w.start(command, at=at), starts=True
                )
        except WorkflowAlreadyStartedError:
            return True  # by another engine, or by this one before its process died
        except WorkflowTypeNotFoundError as error:
            _LOG.warning("schedule %s: %s waits for its code: %s", schedule_id, taken, error)
            return True
        except DomainError:
            _LOG.exception("schedule %s: %s can never be started", schedule_id, taken.workflow_id)
            return False
        return True

    def _span(
        self, schedule_id: ScheduleId, command: StartWorkflow, taken: _Taken
    ) -> AbstractContextManager[object]:
        tracing = self._core.tracing
        if tracing is None:
            return nullcontext()
        return tracing.scheduled_start(schedule_id, command, taken.workflow_id, manual=taken.manual)

    def _command(
        self, schedule_id: ScheduleId, action: StartAction, taken: _Taken
    ) -> StartWorkflow:
        definition = self._catalog.routed(action.workflow_type)
        for name, value in action.attributes.items():
            self._core.surroundings.schema.register(name, value.type)
        return StartWorkflow(
            workflow_type=definition.type,
            package_version=definition.version,
            run_id=taken.run_id,
            input=action.input,
            task_queue=action.task_queue or definition.task_queue,
            schedule_id=schedule_id,
            run_timeout=action.run_timeout,
            execution_timeout=action.execution_timeout,
            attributes=action.attributes,
            memo=action.memo,
            code_hash=definition.code_hash,
            reuse="reject",
        )


async def _together(awaitables: Iterable[Awaitable[T]]) -> list[T]:
    """Await all of them at once and to their ends; then raise the first error, if there was one."""
    outcomes: list[T] = []
    for outcome in await asyncio.gather(*awaitables, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome
        outcomes.append(outcome)
    return outcomes

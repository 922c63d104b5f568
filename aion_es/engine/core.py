"""The engine's core: the processes in memory, the doors through which commands reach them, their end."""

import asyncio
import itertools
import logging
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final, Protocol

from aion_es.aggregates.aggregate import Pending
from aion_es.aggregates.workflow import Workflow
from aion_es.aggregates.workflow_repository import WorkflowRepository
from aion_es.authoring.definitions import WorkflowDefinition
from aion_es.clock import SleepingClock
from aion_es.engine.activity_effects import ActivityEffects
from aion_es.engine.catalog import Catalog
from aion_es.engine.commands import ScheduleActivity
from aion_es.engine.couriers import Couriers
from aion_es.engine.dispatcher import Dispatcher
from aion_es.engine.effects import Effects
from aion_es.engine.execution import CodeExecution
from aion_es.engine.executors import Executors
from aion_es.engine.heartbeats import AttemptKey, Heartbeats
from aion_es.engine.limits import max_payload_bytes
from aion_es.engine.options import EngineOptions
from aion_es.engine.patience import FIRST_RETRY, LAST_RETRY, UNREADABLE
from aion_es.engine.process import RunProcess
from aion_es.engine.queues import TaskQueues
from aion_es.engine.registry import Completion, Registry
from aion_es.engine.relatives import Relatives
from aion_es.engine.requests import Committed, Decide, QueryRequest, Request
from aion_es.engine.sandbox import guard_doors
from aion_es.engine.supervision import UNREAD, Supervision
from aion_es.engine.surroundings import Surroundings
from aion_es.engine.timers import TimerService
from aion_es.engine.tracing import Tracing
from aion_es.errors import (
    AionError,
    EngineClosedError,
    InternalError,
    StoreError,
    StoreUnavailableError,
    VersionNotLoadedError,
)
from aion_es.events.workflow import (
    TerminalEvent,
    WorkflowEvent,
)
from aion_es.ids import IdSource, RunId, WorkflowId
from aion_es.metrics import ACTIVATIONS, is_measuring
from aion_es.store.port import EventStore
from aion_es.telemetry import WORKFLOW_TYPE, is_recording, traceparent

_LOG: Final = logging.getLogger("aion_es.engine")

_LEAST_PATIENCE: Final = 1.0
"""Seconds for which a turn that is under way is waited for at least when the engine is left."""


class SharedAttributes(Protocol):
    """The search attributes that the processes on one read model share."""

    async def settle(self) -> bool:
        """Ask for what the schema has unsettled; True if what was decided with it must be decided again."""
        ...


class EngineCore:
    """Processes, registry, dispatcher and timers of one engine. Implements `Host` and `Outbox`."""

    def __init__(
        self,
        store: EventStore,
        repository: WorkflowRepository,
        catalog: Catalog,
        surroundings: Surroundings,
        group: asyncio.TaskGroup,
        *,
        clock: SleepingClock,
        ids: IdSource,
        options: EngineOptions,
        attributes: SharedAttributes | None = None,
    ) -> None:
        if options.guard_doors:
            guard_doors()
        self.repository = repository
        self.clock = clock
        self.surroundings = surroundings
        self.tracing = Tracing(records_payloads=options.record_payloads) if is_recording() else None
        self.worker = ids.new()
        self.registry = Registry()
        self.timers = TimerService(clock)
        self.heartbeats = Heartbeats(self.timers, clock, group)
        self.dispatcher = self._dispatcher(catalog, group, options, max_payload_bytes(store.limits))
        activities = ActivityEffects(
            self.dispatcher,
            self.timers,
            self.heartbeats,
            self,
            self.spawn,
            self.worker,
            self._scheduled_in,
        )
        self.couriers = Couriers(self)
        self.relatives = Relatives(
            repository,
            self.couriers,
            self.registry,
            group.create_task,
            traced=self.tracing is not None,
        )
        self.effects = Effects(
            activities, self.timers, self.registry, self.couriers, self.relatives, self
        )
        self.supervision = Supervision(
            self.worker,
            self.registry,
            self.timers,
            clock,
            self.wake,
            lambda workflow_id: workflow_id in self._processes,
            policy=options.restarts,
            limits=options.max_concurrent_runs,
        )
        self.on_stuck: Callable[[WorkflowId, RunId | None, str | None], None] | None = None
        self.is_elsewhere: Callable[[str, str], bool] = _is_nowhere
        self._measures = is_measuring()
        self._attributes = attributes
        self._catalog = catalog
        self._group = group
        self._options = options
        self._commands = itertools.count()
        self._processes: dict[WorkflowId, RunProcess] = {}
        self._driving: dict[WorkflowId, asyncio.Task[None]] = {}
        self._loop = asyncio.get_running_loop()
        self._patience = options.store_patience.total_seconds()
        self._busy = 0
        self._turned = 0
        self._quiet = asyncio.Event()
        self._closing = False
        self._given_up = False

    def _dispatcher(
        self, catalog: Catalog, group: asyncio.TaskGroup, options: EngineOptions, max_bytes: int
    ) -> Dispatcher:
        executors = Executors(options.max_activities, max_bytes // 4)
        queues = TaskQueues(
            self.timers,
            self.clock,
            max_concurrent=options.max_activities,
            queues=options.queues,
            serves=options.serves,
            executors=executors.places,
        )
        return Dispatcher(
            catalog,
            self,
            group,
            queues=queues,
            executors=executors,
            heartbeats=self.heartbeats,
            timers=self.timers,
            clock=self.clock,
            worker=self.worker,
            start_to_close=options.start_to_close,
            max_result_bytes=max_bytes,
            tracing=self.tracing,
        )

    # ---------------------------------------------------------------------------- the doors

    async def request(
        self, workflow_id: WorkflowId, decide: Decide, *, starts: bool = False
    ) -> Committed:
        """Give a command to a workflow's aggregate and return what came of it.

        Raises:
            DomainError: The aggregate refused; nothing was recorded.
            StoreUnavailableError: The store is away.
            EngineClosedError: The engine is shutting down; nothing was recorded.
        """
        answer: asyncio.Future[Committed] = asyncio.get_running_loop().create_future()
        given = None if self.tracing is None else traceparent()
        self._post(workflow_id, Request(decide, answer, starts=starts, traceparent=given), answer)
        return await answer

    async def ask(
        self, workflow_id: WorkflowId, run_id: RunId | None, ask: Callable[[CodeExecution], Any]
    ) -> Any:
        """Ask a workflow's code and return its answer.

        Raises:
            WorkflowNotFoundError: No such workflow.
            QueryNotFoundError, QueryFailedError: The code has no answer.
        """
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._post(workflow_id, QueryRequest(ask, answer, run_id), answer)
        return await answer

    def post_fact(self, workflow_id: WorkflowId, run_id: RunId, decide: Decide) -> None:
        """See `Outbox`."""
        process = self._process(workflow_id)
        process.post(Request(decide, run_id=run_id))
        self._hand_over(process)

    def deliver(
        self,
        workflow_id: WorkflowId,
        decide: Decide,
        then: Callable[[AionError | None], None] | None = None,
        *,
        starts: bool = False,
        traceparent: str | None = None,
    ) -> None:
        """See `Post`. When the engine closes first nobody is told: what is owed is found at recovery."""
        if self._closing:
            return
        answer: asyncio.Future[Committed] = self._loop.create_future()
        answer.add_done_callback(lambda answer: _taken(answer, then))
        process = self._process(workflow_id)
        process.post(Request(decide, answer, starts=starts, certain=True, traceparent=traceparent))
        self._hand_over(process)

    def wake(self, workflow_id: WorkflowId, *, reclaim: bool = False) -> None:
        """Let a workflow look at its history; with `reclaim`, take up the activities it waits for."""
        process = self._process(workflow_id)
        process.reclaim |= reclaim
        process.wake()
        self.schedule(process)

    async def wake_all(self, workflow_ids: Iterable[WorkflowId], *, reclaim: bool) -> None:
        """Wake many workflows, a few hundred at a time, and return when each has had its turn."""
        ids = iter(workflow_ids)
        while chunk := list(itertools.islice(ids, 256)):
            for workflow_id in chunk:
                self.wake(workflow_id, reclaim=reclaim)
            turns = [self._driving[i] for i in chunk if i in self._driving]
            if turns:
                await asyncio.wait(turns)

    def completion(self, workflow_id: WorkflowId, run_id: RunId) -> Completion:
        """Return the completion of a run, to be held by who waits for it."""
        return self.registry.completion(workflow_id, run_id)

    def _post(
        self, workflow_id: WorkflowId, item: Request | QueryRequest, answer: "asyncio.Future[Any]"
    ) -> None:
        if self._closing:
            answer.set_exception(EngineClosedError())
            return
        process = self._process(workflow_id)
        process.post(item)
        self._hand_over(process, asks=isinstance(item, QueryRequest))

    def _hand_over(self, process: RunProcess, *, asks: bool = False) -> None:
        """See to it that what was posted is taken; a parked run may try again, for there is something new."""
        put_off = process.put_off
        if put_off is not None:
            if not self.supervision.nudge(process.workflow_id):
                process.refuse_all(put_off)  # facts stay
                return
            process.wake()
        elif (
            process.stuck_reason is not None
            and self.supervision.is_parked(process.workflow_id)
            and self.supervision.nudge(process.workflow_id, insists=asks)
        ):
            process.wake()
        self.schedule(process)

    # ---------------------------------------------------------------------------- processes

    def _process(self, workflow_id: WorkflowId) -> RunProcess:
        process = self._processes.pop(workflow_id, None)
        if process is None:
            process = RunProcess(workflow_id, self)
            known = self.registry.newest(workflow_id)
            process.stuck_reason = None if known is None else known.stuck
        self._processes[workflow_id] = process  # last in the order: most recently used
        return process

    def find(self, workflow_id: WorkflowId) -> RunProcess | None:
        """Return the process of a workflow that is in memory."""
        return self._processes.get(workflow_id)

    def schedule(self, process: RunProcess) -> None:
        """See to it that a process takes its turns: at once if all is in memory, else in a task."""
        if process.busy:
            return
        process.busy = True
        self._busy += 1
        if process.is_ready:
            self._loop.call_soon(process.take_turn)
            return
        driving = self._drive(process)
        try:
            self._driving[process.workflow_id] = self._group.create_task(driving)
        except RuntimeError:  # the group is being torn down: by the program, or an error of ours
            driving.close()
            self._closing = self._given_up = True
            process.refuse_all(EngineClosedError())
            self.turned(process)

    def turned(self, process: RunProcess) -> None:
        """See `Host`."""
        process.busy = False
        self._busy -= 1
        self._turned += 1
        if process.has_work and not self._given_up:
            self.schedule(process)
        elif process.put_off is not None:
            pass  # kept as it is, with the facts in its mailbox
        elif not process.is_open:
            process.forget()
            self._processes.pop(process.workflow_id, None)
            self.dispatcher.release_claims(process.workflow_id)
            self.supervision.gone(process.workflow_id)
        elif self._options.serves is not None and not self._concerns(process):
            self.supervision.recovered(process.workflow_id)  # its code is others' to run
            self._suspend(process)
        elif len(self._processes) > self._options.max_resident:
            self._evict()
        if self._busy == 0:
            self._quiet.set()

    def spawn(self, job: Coroutine[Any, Any, None]) -> None:
        """See `Host`."""
        self._group.create_task(job)

    async def _drive(self, process: RunProcess) -> None:
        """Let a process read and take its turns; try again, ever more slowly, while the store is away."""
        try:
            await self._drive_patiently(process)
        finally:
            del self._driving[process.workflow_id]
            self.turned(process)

    async def _drive_patiently(self, process: RunProcess) -> None:
        delay, began = FIRST_RETRY, self._loop.time()
        while process.has_work:
            try:
                await process.drive()
            except Exception as error:  # noqa: BLE001 - one run's trouble is not its siblings'
                if isinstance(error, UNREADABLE):
                    self._put_off(process, error)
                    return
                if not isinstance(error, StoreError):
                    _LOG.exception("workflow %s: the engine failed", process.workflow_id)
                    error = InternalError(f"{type(error).__name__}: {error}")
                    if not process.refuse_all(error):  # it was no command that is gone now
                        self._put_off(process, error)
                        return
                _LOG.warning("workflow %s: %s; again in %.2f s", process.workflow_id, error, delay)
                waited = self._loop.time() - began
                if not isinstance(error, StoreUnavailableError) or waited >= self._patience:
                    process.refuse_all(error)
                if self._closing:
                    self._given_up = True  # what is not recorded happens again at the next recovery
                    return
                await asyncio.sleep(delay)
                delay = min(delay * 2, LAST_RETRY)

    def _put_off(self, process: RunProcess, error: Exception) -> None:
        """Tell who waits that nothing can be done for this run, and leave it to the supervision when it is tried again.

        To try at once, and for ever, would not make its stream readable, nor mend a mistake of ours.
        """
        process.refuse_all(error)
        process.put_off = error
        process.stuck_reason = str(error)
        known = self.registry.newest(process.workflow_id)
        if known is not None:
            known.stuck = process.stuck_reason
        if isinstance(error, UNREADABLE):
            self.registry.fail(process.workflow_id, error)
        if self.on_stuck is not None:
            run_id = None if known is None else known.run_id
            self.on_stuck(process.workflow_id, run_id, process.stuck_reason)
        workflow_type = UNREAD if known is None else known.workflow_type
        self.supervision.failed(process.workflow_id, workflow_type, process.stuck_reason)

    async def stuck_reason(self, workflow_id: WorkflowId, run_id: RunId) -> str | None:
        """Return why a run's code cannot go on here, as far as this engine knows."""
        known = self.registry.newest(workflow_id)
        return known.stuck if known is not None and known.run_id == run_id else None

    async def outcome(
        self, workflow_id: WorkflowId, run_id: RunId, completion: Completion
    ) -> TerminalEvent:
        """Return the terminal event of a run, waiting for it.

        Args:
            workflow_id: Whose run.
            run_id: Which run.
            completion: Of that run, held by the caller from before.

        Raises:
            WorkflowNotFoundError, RunNotFoundError: There is no such run.
            UnknownEventTypeError, EventDecodeError, StreamDeletedError: Its stream cannot be read here, now or
                any more: this engine will not learn how it ends.
        """
        if completion.outcome is not None:
            return completion.outcome
        known = self.registry.newest(workflow_id)
        if known is None or known.run_id != run_id:
            end = await self.repository.run_end(workflow_id, run_id)
            if end.event is not None:
                return end.event
        process = self._processes.get(workflow_id)
        if process is not None and isinstance(process.put_off, UNREADABLE):
            raise process.put_off
        return await completion.wait()

    def _evict(self) -> None:
        """Suspend the least recently used process that is idle."""
        for process in self._processes.values():
            if not process.busy and process.put_off is None:
                self._suspend(process)
                return

    def _suspend(self, process: RunProcess) -> None:
        process.forget()
        del self._processes[process.workflow_id]
        known = self.registry.newest(process.workflow_id)
        if known is not None:
            known.residency = "suspended"

    def _concerns(self, process: RunProcess) -> bool:
        """Return whether this engine has to hear of what happens to a run: it drives it, or runs an activity of it."""
        workflow = process.workflow
        if workflow is None or self.serves(workflow.state.task_queue):
            return True
        return self.dispatcher.works_for(process.workflow_id)

    def _scheduled_in(self, key: AttemptKey) -> str | None:
        """Return the trace context in which an activity of a run in memory was scheduled."""
        process = self._processes.get(key.workflow_id)
        if process is None or process.trace is None:
            return None
        return process.trace.contexts.of_activity(key.activity_id)

    # -------------------------------------------------------------------------- Host, for processes

    def pinned(self, workflow_type: str, version: str) -> WorkflowDefinition:
        """See `Host`."""
        return self._catalog.pinned(workflow_type, version)

    def admit(self, workflow_id: WorkflowId, workflow_type: str, *, begun: bool) -> bool:
        """See `Host`."""
        return self.supervision.admit(workflow_id, workflow_type, begun=begun)

    def next_command_id(self) -> str:
        """See `Host`."""
        return f"{self.worker}/{next(self._commands)}"

    @property
    def served_queues(self) -> frozenset[str] | None:
        """Task queues that this engine serves; `None` for all."""
        return self._options.serves

    def serves(self, task_queue: str) -> bool:
        """See `Host`."""
        return self.dispatcher.serves(task_queue)

    def starts_at_once(self, workflow: Workflow, command: ScheduleActivity) -> bool:
        """See `Host`."""
        state = workflow.state
        key = AttemptKey(state.workflow_id, state.run_id, command.activity_id)
        queue = command.settings.task_queue
        return self.dispatcher.claim(key, command.activity_type, state.package_version, queue)

    async def settle_attributes(self) -> bool:
        """See `Host`."""
        if self._attributes is not None:
            return await self._attributes.settle()
        return self.surroundings.schema.settle_alone()

    def committed(self, process: RunProcess, batch: list[Pending[WorkflowEvent]]) -> None:
        """See `Host`."""
        self.effects.committed(process, batch)
        self.dispatcher.release_claims(process.workflow_id)

    def loaded(self, process: RunProcess, *, reclaim: bool) -> None:
        """See `Host`."""
        self.dispatcher.release_claims(process.workflow_id)
        self.effects.loaded(process, reclaim=reclaim)

    def stuck(self, process: RunProcess, error: BaseException | None) -> None:
        """See `Host`. What becomes of the run is the supervision's to say."""
        known = self.registry.newest(process.workflow_id)
        if known is not None:
            known.stuck = process.stuck_reason
        workflow = process.workflow
        is_others = isinstance(error, VersionNotLoadedError) and self.is_elsewhere(
            error.workflow_type, error.version
        )
        if (
            self.on_stuck is not None
            and workflow is not None
            and workflow.exists
            and not is_others  # what the rows say holds for all engines
        ):
            self.on_stuck(process.workflow_id, workflow.state.run_id, process.stuck_reason)
        if error is None:
            self.supervision.recovered(process.workflow_id)
        elif process.workflow is not None:
            workflow_type = process.workflow.state.workflow_type
            self.supervision.failed(process.workflow_id, workflow_type, process.stuck_reason or "")

    def activated(self, workflow_type: str) -> None:
        """See `Host`."""
        if self._measures:
            ACTIVATIONS.add(1, {WORKFLOW_TYPE: workflow_type})

    # ------------------------------------------------------------------------------- the end

    async def drain(self) -> None:
        """Take no more commands; let activities and turns come to their end; suspend every run."""
        self._closing = True
        self.relatives.close()
        await self.dispatcher.drain(self._options.shutdown_grace)
        if not await self._has_settled():
            await self._abandon()
        for process in self._processes.values():
            process.refuse_all(EngineClosedError())
            process.forget()
        self._processes.clear()

    async def _has_settled(self) -> bool:
        """Wait for the turns that are under way; return False if none ends for longer than the store is waited for."""
        while self._busy:
            turned = self._turned
            self._quiet.clear()
            try:
                async with asyncio.timeout(max(self._patience, _LEAST_PATIENCE)):
                    await self._quiet.wait()
            except TimeoutError:
                if self._turned == turned:
                    return False
        return True

    async def _abandon(self) -> None:
        """Let go of turns that the store does not answer: what is not recorded happens again at the next recovery."""
        self._given_up = True
        silent = [process for process in self._processes.values() if process.busy]
        _LOG.warning("left without an answer of the store for %d workflow(s)", len(silent))
        for process in silent:
            process.abandon()
        for driving in self._driving.values():
            driving.cancel()
        await self._has_settled()
        for process in silent:
            process.refuse_all(
                StoreUnavailableError("no answer until the engine was left", outcome_unknown=True)
            )


def _is_nowhere(_workflow_type: str, _version: str) -> bool:
    """Stand for what is known of other engines' code where there are none."""
    return False


def _taken(
    answer: "asyncio.Future[Committed]", then: Callable[[AionError | None], None] | None
) -> None:
    """Say how an errand was taken, unless it was not taken at all."""
    if answer.cancelled():
        return
    error = answer.exception()
    if isinstance(error, EngineClosedError) or then is None:
        return
    then(error if isinstance(error, AionError) else None)

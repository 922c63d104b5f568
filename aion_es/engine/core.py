"""The engine's core: the processes in memory, the doors through which commands reach them, their end."""

import asyncio
import itertools
import logging
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, cast, get_args

from aion_es.aggregates.aggregate import Pending
from aion_es.aggregates.repository import WorkflowRepository
from aion_es.authoring.definitions import WorkflowDefinition
from aion_es.clock import SleepingClock
from aion_es.engine.catalog import Catalog
from aion_es.engine.dispatcher import Dispatcher
from aion_es.engine.effects import Effects
from aion_es.engine.execution import CodeExecution, Surroundings
from aion_es.engine.limits import max_payload_bytes
from aion_es.engine.process import RunProcess
from aion_es.engine.registry import Completion, Registry
from aion_es.engine.requests import Committed, Decide, QueryRequest, Request
from aion_es.engine.timers import TimerService
from aion_es.errors import EngineClosedError, InternalError, StoreError, StoreUnavailableError
from aion_es.events.workflow import (
    TerminalEvent,
    WorkflowEvent,
    WorkflowReopened,
)
from aion_es.ids import IdSource, RunId, WorkflowId
from aion_es.store.port import EventStore

_LOG: Final = logging.getLogger("aion_es.engine")

_FIRST_RETRY: Final = 0.05
_LAST_RETRY: Final = 5.0
"""Seconds between tries to go on while the store is away."""
_STUCK_FIRST: Final = timedelta(seconds=1)
_STUCK_LAST: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How an engine runs.

    Attributes:
        max_resident: Runs kept in memory at once; the least recently used idle ones are suspended, and come
            back by replay.
        max_activities: Attempts that run at once; more wait, none is dropped.
        start_to_close: Bound on activity attempts that set none of their own; `None` for no bound.
        shutdown_grace: How long running activities may go on when the engine is left.
        store_patience: How long a command is tried again while the store is away, before its caller is told.
            Facts are tried for ever.
        collector_threshold: While the engine is open, Python's cyclic garbage collector runs after so many
            new objects instead of 700 (2,000 from Python 3.12 on): two fifths of the CPU time of
            short workflows go into it otherwise. `None` leaves it alone.
    """

    max_resident: int = 10_000
    max_activities: int = 1_000
    start_to_close: timedelta | None = None
    shutdown_grace: timedelta = timedelta(seconds=5)
    store_patience: timedelta = timedelta(seconds=5)
    collector_threshold: int | None = 50_000


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
    ) -> None:
        self.repository = repository
        self.clock = clock
        self.surroundings = surroundings
        self.worker = ids.new()
        self.registry = Registry()
        self.timers = TimerService(clock)
        self.dispatcher = Dispatcher(
            catalog,
            self,
            group,
            worker=self.worker,
            max_concurrent=options.max_activities,
            start_to_close=options.start_to_close,
            max_result_bytes=max_payload_bytes(store.limits),
        )
        self.effects = Effects(self.dispatcher, self.timers, self.registry, self, self.worker)
        self.on_stuck: Callable[[RunProcess, str | None], None] | None = None
        self._catalog = catalog
        self._group = group
        self._options = options
        self._commands = itertools.count()
        self._processes: dict[WorkflowId, RunProcess] = {}
        self._driving: dict[WorkflowId, asyncio.Task[None]] = {}
        self._loop = asyncio.get_running_loop()
        self._patience = options.store_patience.total_seconds()
        self._busy = 0
        self._quiet = asyncio.Event()
        self._closing = False
        self._given_up = False

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
        self._post(workflow_id, Request(decide, answer, starts=starts), answer)
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
        self.schedule(process)

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
        self.schedule(process)

    # ---------------------------------------------------------------------------- processes

    def _process(self, workflow_id: WorkflowId) -> RunProcess:
        process = self._processes.pop(workflow_id, None)
        if process is None:
            process = RunProcess(workflow_id, self)
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
        if process.has_work and not self._given_up:
            self.schedule(process)
        elif not process.is_open:
            process.forget()
            self._processes.pop(process.workflow_id, None)
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
        delay, began = _FIRST_RETRY, self._loop.time()
        while process.has_work:
            try:
                await process.drive()
            except Exception as error:  # noqa: BLE001 - one run's trouble is not its siblings'
                if isinstance(error, StoreError):
                    _LOG.warning(
                        "workflow %s: %s; again in %.2f s", process.workflow_id, error, delay
                    )
                else:
                    _LOG.exception("workflow %s: the engine failed", process.workflow_id)
                    error = InternalError(f"{type(error).__name__}: {error}")
                waited = self._loop.time() - began
                if not isinstance(error, StoreUnavailableError) or waited >= self._patience:
                    process.refuse_all(error)
                if self._closing:
                    self._given_up = True  # what is not recorded happens again at the next recovery
                    return
                await asyncio.sleep(delay)
                delay = min(delay * 2, _LAST_RETRY)

    def stuck_reason(self, workflow_id: WorkflowId, run_id: RunId) -> str | None:
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
        """
        known = self.registry.newest(workflow_id)
        if completion.outcome is None and (known is None or known.run_id != run_id):
            history = await self.repository.run_history(workflow_id, run_id)
            for envelope in reversed(history):
                # A reopened run has a terminal event that no longer counts.
                if isinstance(envelope.event, WorkflowReopened):
                    break
                if isinstance(envelope.event, get_args(TerminalEvent)):
                    return cast("TerminalEvent", envelope.event)
        return await completion.wait()

    def _evict(self) -> None:
        """Suspend the least recently used process that is idle."""
        for workflow_id, process in self._processes.items():
            if not process.busy:
                process.forget()
                del self._processes[workflow_id]
                known = self.registry.newest(workflow_id)
                if known is not None:
                    known.residency = "suspended"
                return

    # -------------------------------------------------------------------------- Host, for processes

    def pinned(self, workflow_type: str, version: str) -> WorkflowDefinition:
        """See `Host`."""
        return self._catalog.pinned(workflow_type, version)

    def next_command_id(self) -> str:
        """See `Host`."""
        return f"{self.worker}/{next(self._commands)}"

    def starts_at_once(self) -> bool:
        """See `Host`."""
        return self.dispatcher.has_room()

    def committed(self, process: RunProcess, batch: list[Pending[WorkflowEvent]]) -> None:
        """See `Host`."""
        self.effects.committed(process, batch)

    def loaded(self, process: RunProcess, *, reclaim: bool) -> None:
        """See `Host`."""
        self.effects.loaded(process, reclaim=reclaim)

    def stuck(self, process: RunProcess, error: Exception | None) -> None:
        """See `Host`. A stuck run tries again, ever more slowly."""
        known = self.registry.newest(process.workflow_id)
        if known is not None:
            known.stuck = process.stuck_reason
        if self.on_stuck is not None:
            self.on_stuck(process, process.stuck_reason)
        key = ("stuck", process.workflow_id)
        if error is None:
            self.timers.discard(key)
            return
        _LOG.error("workflow %s is stuck: %s", process.workflow_id, process.stuck_reason)
        delay = min(_STUCK_FIRST * 2 ** min(process.stuck_count - 1, 16), _STUCK_LAST)
        workflow_id = process.workflow_id
        self.timers.add_after(key, delay, lambda: self.wake(workflow_id))

    # ------------------------------------------------------------------------------- the end

    async def drain(self) -> None:
        """Take no more commands; let activities and turns come to their end; suspend every run."""
        self._closing = True
        await self.dispatcher.drain(self._options.shutdown_grace)
        while self._busy:
            self._quiet.clear()
            await self._quiet.wait()
        for process in self._processes.values():
            process.refuse_all(EngineClosedError())
            process.forget()
        self._processes.clear()

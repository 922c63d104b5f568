"""The engine's core: keeps processes, lets what they record have its effects, and follows the store.

It is a subscriber that answers events with commands. What it has recorded itself it hands on directly;
the subscription is how it learns of everybody else's.
"""

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, cast, get_args

from aion_es.aggregates.aggregate import Pending
from aion_es.aggregates.repository import WorkflowRepository
from aion_es.aggregates.state import ActivityState, WorkflowState
from aion_es.authoring.definitions import WorkflowDefinition
from aion_es.clock import SleepingClock
from aion_es.engine.catalog import Catalog
from aion_es.engine.dispatcher import AttemptKey, Decide, Dispatcher
from aion_es.engine.execution import CodeExecution, Surroundings
from aion_es.engine.limits import max_payload_bytes
from aion_es.engine.process import Committed, QueryRequest, Request, RunProcess
from aion_es.engine.registry import Completion, Registration, Registry
from aion_es.engine.timers import TimerService
from aion_es.errors import EngineClosedError, InternalError, StoreError
from aion_es.events.codec import decode, decode_metadata
from aion_es.events.metadata import was_activated
from aion_es.events.values import ActivityFailure
from aion_es.events.workflow import (
    ActivityCancelRequested,
    ActivityFailed,
    ActivityScheduled,
    ActivityStarted,
    TerminalEvent,
    TimerCancelled,
    TimerStarted,
    WorkflowEvent,
    WorkflowReopened,
    WorkflowResumed,
    WorkflowStarted,
)
from aion_es.ids import ActivityId, IdSource, RunId, TimerId, WorkflowId, workflow_prefix
from aion_es.store.port import EventStore, Position, RecordedEvent

_LOG: Final = logging.getLogger("aion_es.engine")

TERMINAL_TYPES: Final = frozenset(cls.__name__ for cls in get_args(TerminalEvent))
WORKER_LOST: Final = "WorkerLost"
"""Error type of an attempt whose process died before it had an outcome."""

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
    """

    max_resident: int = 10_000
    max_activities: int = 1_000
    start_to_close: timedelta | None = None
    shutdown_grace: timedelta = timedelta(seconds=5)


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
        namespace: str,
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
        self.activations = 0
        self.horizon: datetime | None = None
        """Timers due beyond it are not held in memory; `None` holds all."""
        self.on_stuck: Callable[[RunProcess, str | None], None] | None = None
        self._store = store
        self._catalog = catalog
        self._group = group
        self._options = options
        self._prefix = workflow_prefix(cast("Any", namespace))
        self._commands = itertools.count()
        self._processes: dict[WorkflowId, RunProcess] = {}
        self._running: dict[WorkflowId, asyncio.Task[None]] = {}
        self._reclaiming: set[WorkflowId] = set()
        self._closing = False

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
        self._schedule(process)

    def wake(self, workflow_id: WorkflowId, *, reclaim: bool = False) -> None:
        """Let a workflow look at its history; with `reclaim`, take up the activities it waits for."""
        process = self._process(workflow_id)
        process.reclaim = process.reclaim or reclaim
        process.wake()
        self._schedule(process)

    async def wake_all(self, workflow_ids: Iterable[WorkflowId], *, reclaim: bool) -> None:
        """Wake many workflows, a few hundred at a time, and return when each has had its turn."""
        ids = iter(workflow_ids)
        while chunk := list(itertools.islice(ids, 256)):
            for workflow_id in chunk:
                self.wake(workflow_id, reclaim=reclaim)
            turns = [self._running[i] for i in chunk if i in self._running]
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
        self._schedule(process)

    # ---------------------------------------------------------------------------- processes

    def _process(self, workflow_id: WorkflowId) -> RunProcess:
        process = self._processes.pop(workflow_id, None)
        if process is None:
            process = RunProcess(workflow_id, self)
        self._processes[workflow_id] = process  # last in the order: most recently used
        return process

    def _schedule(self, process: RunProcess) -> None:
        if process.workflow_id not in self._running:
            self._running[process.workflow_id] = self._group.create_task(self._drive(process))

    async def _drive(self, process: RunProcess) -> None:
        """Let a process take its turns; try again, ever more slowly, while the store is away."""
        delay = _FIRST_RETRY
        try:
            while process.has_work:
                try:
                    await process.run()
                except StoreError as error:
                    _LOG.warning(
                        "workflow %s: %s; trying again in %.2f s", process.workflow_id, error, delay
                    )
                    if self._closing:
                        return  # what is not recorded happens again at the next recovery
                    await asyncio.sleep(delay)
                    delay = min(delay * 2, _LAST_RETRY)
                except Exception as error:  # noqa: BLE001 - one run's trouble is not its siblings'
                    _LOG.exception("workflow %s: the engine failed", process.workflow_id)
                    process.refuse_all(InternalError(f"{type(error).__name__}: {error}"))
                    await asyncio.sleep(delay)
                    delay = min(delay * 2, _LAST_RETRY)
        finally:
            del self._running[process.workflow_id]
        self._retire(process)

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
            for envelope in reversed(
                history
            ):  # a reopened run has a terminal event that no longer counts
                if isinstance(envelope.event, WorkflowReopened):
                    break
                if type(envelope.event).__name__ in TERMINAL_TYPES:
                    return cast("TerminalEvent", envelope.event)
        return await completion.wait()

    def _retire(self, process: RunProcess) -> None:
        if process.has_work:
            self._schedule(process)
        elif not process.is_open:
            process.forget()
            self._processes.pop(process.workflow_id, None)
        elif len(self._processes) > self._options.max_resident:
            self._evict()

    def _evict(self) -> None:
        """Suspend the least recently used process that is idle."""
        for workflow_id, process in self._processes.items():
            if workflow_id not in self._running:
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
        """See `Host`. The effects of what was recorded, in its order."""
        self.activations += 1
        for pending in batch:
            effect = self._EFFECTS.get(type(pending.event))
            if effect is not None and pending.run_id is not None:
                effect(self, process, pending.run_id, pending.event)
        workflow = process.workflow
        if workflow is not None and workflow.exists:
            self._settle_activities(workflow.state, batch)

    def loaded(self, process: RunProcess, *, reclaim: bool) -> None:
        """See `Host`. Arms what waits for time; takes up activities only if they are ours to take."""
        workflow = process.workflow
        if workflow is None or not workflow.exists:
            return
        state = workflow.state
        if state.terminal is not None:
            self._closed(process, state.run_id, state.terminal)
            return
        self._registered(process, state)
        for timer_id, fire_at in state.live_timers.items():
            self.arm(state.workflow_id, state.run_id, timer_id, fire_at)
        self._arm_deadlines(state)
        for activity_id, activity in state.activities.items():
            if activity.phase == "backoff":
                self._arm_retry(state, activity_id, activity)
            elif reclaim and activity.is_pending and not state.paused:
                self._reclaim(state, activity_id, activity)

    def stuck(self, process: RunProcess, error: Exception | None) -> None:
        """See `Host`. A stuck run tries again, ever more slowly, and whenever something new happens to it."""
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
        self.timers.add(key, self.clock.now() + delay, lambda: self.wake(workflow_id))

    # ------------------------------------------------------------------------------ effects

    def _on_started(self, process: RunProcess, _run_id: RunId, _event: WorkflowStarted) -> None:
        if process.workflow is not None:
            self._registered(process, process.workflow.state)
            self._arm_deadlines(process.workflow.state)

    def _on_timer_started(self, process: RunProcess, run_id: RunId, event: TimerStarted) -> None:
        self.arm(process.workflow_id, run_id, event.timer_id, event.fire_at)

    def _on_timer_cancelled(
        self, process: RunProcess, run_id: RunId, event: TimerCancelled
    ) -> None:
        self.timers.discard(("timer", process.workflow_id, run_id, event.timer_id))

    def _on_activity_cancel_requested(
        self, process: RunProcess, run_id: RunId, event: ActivityCancelRequested
    ) -> None:
        activity_id = event.activity_id
        if self.dispatcher.cancel(AttemptKey(process.workflow_id, run_id, activity_id)):
            return  # its end is reported by who runs it
        self.timers.discard(("retry", process.workflow_id, run_id, activity_id))

        def cancel(workflow: Any, at: datetime) -> None:
            activity = workflow.state.activities[activity_id]
            if activity.is_pending:
                attempt = (
                    activity.attempt if activity.phase != "scheduled" else activity.attempt + 1
                )
                workflow.cancel_activity(activity_id, attempt, at=at)

        self.post_fact(process.workflow_id, run_id, cancel)

    def _on_resumed(self, process: RunProcess, _run_id: RunId, _event: WorkflowResumed) -> None:
        if process.workflow is not None:
            state = process.workflow.state
            for activity_id, activity in state.activities.items():
                if activity.phase == "scheduled":
                    self._dispatch(state, activity_id, activity)
                elif activity.phase == "backoff":
                    self._arm_retry(state, activity_id, activity)

    def _on_terminal(self, process: RunProcess, run_id: RunId, event: TerminalEvent) -> None:
        self._closed(process, run_id, event)

    _EFFECTS: Final[dict[type[Any], Callable[["EngineCore", RunProcess, RunId, Any], None]]] = {
        WorkflowStarted: _on_started,
        TimerStarted: _on_timer_started,
        TimerCancelled: _on_timer_cancelled,
        ActivityCancelRequested: _on_activity_cancel_requested,
        WorkflowResumed: _on_resumed,
        **dict.fromkeys(get_args(TerminalEvent), _on_terminal),
    }

    def _settle_activities(self, state: WorkflowState, batch: list[Pending[WorkflowEvent]]) -> None:
        """Dispatch what was scheduled or begun in `batch` and has no outcome in it; arm what will be retried."""
        for pending in batch:
            event = pending.event
            if (
                not isinstance(event, ActivityScheduled | ActivityStarted | ActivityFailed)
                or pending.run_id != state.run_id
            ):
                continue
            activity = state.activities.get(event.activity_id)
            if activity is None or state.terminal is not None:
                continue
            if activity.phase == "backoff":
                self._arm_retry(state, event.activity_id, activity)
            elif activity.phase in {"scheduled", "started"} and not state.paused:
                self._dispatch(state, event.activity_id, activity)

    def _dispatch(
        self, state: WorkflowState, activity_id: ActivityId, activity: ActivityState
    ) -> None:
        number = activity.attempt if activity.phase == "started" else activity.attempt + 1
        if (
            number > 1 and activity.phase == "scheduled"
        ):  # reopened: every later attempt is recorded first
            self._start_attempt(state.workflow_id, state.run_id, activity_id, number)
            return
        key = AttemptKey(state.workflow_id, state.run_id, activity_id)
        self.dispatcher.dispatch(key, state.workflow_type, activity, number)

    def _start_attempt(
        self, workflow_id: WorkflowId, run_id: RunId, activity_id: ActivityId, number: int
    ) -> None:
        """Record that an attempt begins; its record, once committed, dispatches it."""

        def start(workflow: Any, at: datetime) -> None:
            activity = workflow.state.activities[activity_id]
            if activity.is_pending and activity.attempt == number - 1 and not workflow.state.paused:
                workflow.start_activity(activity_id, number, self.worker, at=at)

        self.post_fact(workflow_id, run_id, start)

    def _reclaim(
        self, state: WorkflowState, activity_id: ActivityId, activity: ActivityState
    ) -> None:
        """Take up an activity that some engine, perhaps this one, left behind."""
        if self.dispatcher.is_running(AttemptKey(state.workflow_id, state.run_id, activity_id)):
            return
        if activity.phase == "scheduled":
            self._start_attempt(state.workflow_id, state.run_id, activity_id, activity.attempt + 1)
            return
        number = activity.attempt
        lost = ActivityFailure(
            kind="retryable",
            type=WORKER_LOST,
            message=f"the process of worker {activity.worker} ended before the attempt did",
        )

        def lose(workflow: Any, at: datetime) -> None:
            known = workflow.state.activities[activity_id]
            if known.phase == "started" and known.attempt == number:
                workflow.fail_activity(activity_id, number, lost, at=at)

        self.post_fact(state.workflow_id, state.run_id, lose)

    def _arm_retry(
        self, state: WorkflowState, activity_id: ActivityId, activity: ActivityState
    ) -> None:
        if activity.retry_at is None:
            return
        workflow_id, run_id, number = state.workflow_id, state.run_id, activity.attempt + 1
        self.timers.add(
            ("retry", workflow_id, run_id, activity_id),
            activity.retry_at,
            lambda: self._start_attempt(workflow_id, run_id, activity_id, number),
        )

    def arm(
        self, workflow_id: WorkflowId, run_id: RunId, timer_id: TimerId, fire_at: datetime
    ) -> None:
        """Fire a run's timer when it is due; one beyond the horizon is brought in later, from its row."""
        if self.horizon is not None and fire_at >= self.horizon:
            return
        self.timers.add(
            ("timer", workflow_id, run_id, timer_id),
            fire_at,
            lambda: self.post_fact(
                workflow_id, run_id, lambda w, at: w.fire_timer(timer_id, at=at)
            ),
        )

    def arm_deadline(
        self, workflow_id: WorkflowId, run_id: RunId, timeout: Any, deadline: datetime
    ) -> None:
        """Time a run out when its deadline has passed."""
        if self.horizon is not None and deadline >= self.horizon:
            return
        self.timers.add(
            ("deadline", workflow_id, run_id, timeout),
            deadline,
            lambda: self.post_fact(workflow_id, run_id, lambda w, at: w.time_out(timeout, at=at)),
        )

    def _arm_deadlines(self, state: WorkflowState) -> None:
        for timeout, deadline in (
            ("run", state.run_deadline),
            ("execution", state.execution_deadline),
        ):
            if deadline is not None:
                self.arm_deadline(state.workflow_id, state.run_id, timeout, deadline)

    def _registered(self, process: RunProcess, state: WorkflowState) -> None:
        known = self.registry.newest(state.workflow_id)
        if known is not None and known.run_id == state.run_id:
            known.residency, known.status = "resident", state.status
            return
        self.registry.register(
            Registration(
                state.workflow_id,
                state.run_id,
                state.workflow_type,
                state.package_version,
                state.status,
                "resident",
                self.registry.completion(state.workflow_id, state.run_id),
                process.stuck_reason,
            )
        )

    def _closed(self, process: RunProcess, run_id: RunId, event: TerminalEvent) -> None:
        workflow_id = process.workflow_id
        self.dispatcher.abandon_run(workflow_id, run_id)
        self.registry.remove(workflow_id, run_id)
        self._tell(workflow_id, run_id, event)
        process.stuck_reason = None
        self.timers.discard(("stuck", workflow_id))
        for timeout in ("run", "execution"):
            self.timers.discard(("deadline", workflow_id, run_id, timeout))
        if process.workflow is not None and process.workflow.state.run_id == run_id:
            for timer_id in process.workflow.state.torn_timers:
                self.timers.discard(("timer", workflow_id, run_id, timer_id))

    def _tell(self, workflow_id: WorkflowId, run_id: RunId, event: TerminalEvent) -> None:
        completion = self.registry.find_completion(workflow_id, run_id)
        if completion is not None:
            completion.tell(event)

    # ------------------------------------------------------------------------ following the store

    async def follow(self, position: Position) -> None:
        """Hear of everything that is recorded after `position`, for ever; ends only by cancellation."""
        delay = _FIRST_RETRY
        while True:
            try:
                async with self._store.subscribe_all(
                    from_position=position, prefix=self._prefix
                ) as subscription:
                    while batch := await subscription.next_batch():
                        events = [m for m in batch if isinstance(m, RecordedEvent)]
                        if events:
                            self._hear(events)
                            position = events[-1].position
                        delay = _FIRST_RETRY
            except StoreError as error:
                _LOG.warning("following the store: %s; again in %.2f s", error, delay)
            await asyncio.sleep(delay)
            delay = min(delay * 2, _LAST_RETRY)

    def _hear(self, events: list[RecordedEvent]) -> None:
        """Bring what others recorded to those whom it concerns; what this engine recorded it knows already."""
        newest = {event.stream: event for event in events}
        cut = len(self._prefix)
        for event in events:
            if event.type in TERMINAL_TYPES:
                self._hear_terminal(WorkflowId(event.stream[cut:]), event)
        for stream, event in newest.items():
            workflow_id = WorkflowId(stream[cut:])
            process = self._processes.get(workflow_id)
            if process is not None:
                process.heard_of(event.revision)
                if process.has_work:
                    self._schedule(process)
            elif not was_activated(event.metadata) and event.type not in TERMINAL_TYPES:
                self.wake(workflow_id)

    def _hear_terminal(self, workflow_id: WorkflowId, event: RecordedEvent) -> None:
        run_id = decode_metadata(event).run_id
        if run_id is None or workflow_id in self._processes:
            return  # a process tells those who wait itself, when it has read it
        if self.registry.find_completion(workflow_id, run_id) is not None:
            self._tell(workflow_id, run_id, cast("TerminalEvent", decode(event)))
        self.registry.remove(workflow_id, run_id)

    # ------------------------------------------------------------------------------- the end

    async def drain(self) -> None:
        """Take no more commands; let activities and turns come to their end; suspend every run."""
        self._closing = True
        await self.dispatcher.drain(self._options.shutdown_grace)
        while self._running:
            await asyncio.wait(list(self._running.values()))
        for process in self._processes.values():
            process.refuse_all(EngineClosedError())
            process.forget()
        self._processes.clear()

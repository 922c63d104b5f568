"""The dispatcher: runs activity attempts, bounds them, and hands every outcome back as a command.

Activities run at least once. An attempt is this engine's as long as it is in `_running`; whatever
happens to it (a result, an exception, a timeout, a cancellation) becomes exactly one command on its
run's aggregate, which decides whether it still counts.
"""

import asyncio
import contextvars
from collections import deque
from collections.abc import Coroutine
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple, Protocol

from aion_es.aggregates.state import ActivityState
from aion_es.authoring.activities import RUNNING, ActivityInfo, RunningActivity
from aion_es.authoring.definitions import ActivityDefinition
from aion_es.engine.catalog import Catalog
from aion_es.engine.failures import activity_failure_of
from aion_es.engine.limits import require_size
from aion_es.engine.requests import Decide
from aion_es.ids import ActivityId, RunId, WorkflowId
from aion_es.payload import Payload
from aion_es.telemetry import is_recording, span


class AttemptKey(NamedTuple):
    """One attempt of one activity."""

    workflow_id: WorkflowId
    run_id: RunId
    activity_id: ActivityId


class Outbox(Protocol):
    """Where outcomes go: the mailbox of the run they belong to."""

    def post_fact(self, workflow_id: WorkflowId, run_id: RunId, decide: Decide) -> None:
        """Record a fact about this run, for certain, unless the run has closed meanwhile."""
        ...

    def wake(self, workflow_id: WorkflowId, *, reclaim: bool = False) -> None:
        """Let a workflow look at its history; with `reclaim`, take up the activities it waits for."""
        ...


@dataclass(slots=True)
class _Attempt:
    number: int
    running: RunningActivity
    task: "asyncio.Task[None] | None" = None
    started: bool = False
    cancel_asked: bool = False


class Dispatcher:
    """Runs attempts in tasks of the engine's group, `def` activities in threads or processes.

    Args:
        catalog: Where the functions are.
        outbox: Where outcomes go.
        group: Owner of the tasks.
        worker: Name of this engine in the history.
        max_concurrent: Attempts that run at once; more wait in order, none is dropped.
        start_to_close: Bound on an attempt whose activity sets none; `None` for no bound.
        max_result_bytes: A larger result is a failure that is not retried.
    """

    def __init__(
        self,
        catalog: Catalog,
        outbox: Outbox,
        group: asyncio.TaskGroup,
        *,
        worker: str,
        max_concurrent: int,
        start_to_close: timedelta | None,
        max_result_bytes: int,
    ) -> None:
        self._catalog = catalog
        self._outbox = outbox
        self._group = group
        self._worker = worker
        self._free = max_concurrent
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._default_start_to_close = start_to_close
        self._max_result_bytes = max_result_bytes
        self._max_threads = max_concurrent
        self._threads: ThreadPoolExecutor | None = None
        self._processes: ProcessPoolExecutor | None = None
        self._running: dict[AttemptKey, _Attempt] = {}
        self._closing = False
        self._traced = is_recording()
        self.executed = 0

    def __len__(self) -> int:
        return len(self._running)

    def is_running(self, key: AttemptKey) -> bool:
        """Return whether this engine runs, or is about to run, an attempt of this activity."""
        return key in self._running

    def has_room(self) -> bool:
        """Return whether an attempt that is dispatched now begins at once."""
        return self._free > 0

    def dispatch(
        self, key: AttemptKey, workflow_type: str, activity: ActivityState, number: int
    ) -> None:
        """Run attempt `number`; does nothing while an attempt of the same activity runs here."""
        if self._closing or key in self._running:
            return
        info = ActivityInfo(
            workflow_id=key.workflow_id,
            run_id=key.run_id,
            workflow_type=workflow_type,
            activity_id=key.activity_id,
            activity_type=activity.activity_type,
            attempt=number,
            task_queue=activity.task_queue,
            idempotency_key=f"{key.run_id}/{key.activity_id}",
            scheduled_at=activity.scheduled_at,
        )
        attempt = _Attempt(number, RunningActivity(info))
        self._running[key] = attempt
        attempt.task = self._group.create_task(self._run(key, attempt, activity))

    def cancel(self, key: AttemptKey) -> bool:
        """Tell a running attempt that it is no longer wanted; false if none runs here."""
        attempt = self._running.get(key)
        if attempt is None:
            return False
        attempt.cancel_asked = True
        attempt.running.cancelled = True
        definition = self._catalog.activity(attempt.running.info.activity_type)
        if attempt.task is not None and (definition.executor == "async" or not attempt.started):
            attempt.task.cancel()
        return True

    async def drain(self, grace: timedelta) -> None:
        """Take no more; give what runs `grace` to end; then stop it. What is stopped runs again at recovery."""
        self._closing = True
        tasks = [attempt.task for attempt in self._running.values() if attempt.task is not None]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=grace.total_seconds())
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        for pool in (self._threads, self._processes):
            if pool is not None:
                pool.shutdown(wait=False, cancel_futures=True)

    async def _run(self, key: AttemptKey, attempt: _Attempt, activity: ActivityState) -> None:
        try:
            outcome = await self._outcome(key, attempt, activity)
        finally:
            del self._running[key]
        self._outbox.post_fact(key.workflow_id, key.run_id, outcome)

    async def _outcome(self, key: AttemptKey, attempt: _Attempt, activity: ActivityState) -> Decide:
        """Run an attempt and return the command that records what came of it."""
        ordinal, number, worker = key.activity_id, attempt.number, self._worker
        try:
            result = await self._in_a_slot(attempt, activity)
        except asyncio.CancelledError:
            if attempt.cancel_asked:
                return lambda w, at: w.cancel_activity(ordinal, number, at=at)
            raise  # the engine stops: nothing is recorded, and recovery runs the activity again
        except _StartToCloseTimeoutError:
            return lambda w, at: w.start_to_close_timeout(ordinal, number, at=at)
        except Exception as error:  # noqa: BLE001 - whatever the activity raises is its outcome
            failure = activity_failure_of(error, activity.retry)
            return lambda w, at: w.fail_activity(ordinal, number, failure, worker=worker, at=at)
        return lambda w, at: w.complete_activity(ordinal, number, result, worker=worker, at=at)

    async def _in_a_slot(self, attempt: _Attempt, activity: ActivityState) -> Payload:
        if self._free > 0:
            self._free -= 1
        else:
            await self._wait_for_slot()
        try:
            attempt.started = True
            self.executed += 1
            return await self._attempt(attempt, activity)
        finally:
            self._give_slot()

    async def _wait_for_slot(self) -> None:
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        try:
            await waiting
        except asyncio.CancelledError:
            if waiting.done() and not waiting.cancelled():
                self._give_slot()  # it came, and is not needed any more
            raise

    def _give_slot(self) -> None:
        """Hand a slot to who has waited for one the longest, or back."""
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(None)
                return
        self._free += 1

    async def _attempt(self, attempt: _Attempt, activity: ActivityState) -> Payload:
        definition = self._catalog.activity(activity.activity_type)
        argument = definition.signature.read_input(activity.input)
        limit = activity.timeouts.start_to_close or self._default_start_to_close
        RUNNING.set(attempt.running)  # in this task's own context: nobody else sees it
        call = self._call(definition, argument)
        if limit is not None:
            call = _bounded(call, limit)
        if self._traced:
            with span("aion.activity", definition.type, attempt=attempt.number):
                value = await call
        else:
            value = await call
        payload = definition.signature.write_result(value)
        require_size(payload, self._max_result_bytes, f"result of {definition.signature.where}")
        return payload

    async def _call(self, definition: ActivityDefinition, argument: Any) -> Any:
        function = definition.function
        arguments = () if definition.signature.input_name is None else (argument,)
        if definition.executor == "async":
            return await function(*arguments)
        loop = asyncio.get_running_loop()
        if definition.executor == "process":
            if self._processes is None:
                self._processes = ProcessPoolExecutor()
            return await loop.run_in_executor(self._processes, function, *arguments)
        if self._threads is None:
            self._threads = ThreadPoolExecutor(
                min(self._max_threads, 64), thread_name_prefix="aion-activity"
            )
        context = contextvars.copy_context()
        return await loop.run_in_executor(self._threads, lambda: context.run(function, *arguments))


class _StartToCloseTimeoutError(TimeoutError):
    """Our own bound passed, as opposed to a TimeoutError of the activity's."""


async def _bounded(call: Coroutine[Any, Any, Any], limit: timedelta) -> Any:
    bound = asyncio.timeout(limit.total_seconds())
    try:
        async with bound:
            return await call
    except TimeoutError as error:
        if bound.expired():
            raise _StartToCloseTimeoutError from error
        raise

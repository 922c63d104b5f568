"""The dispatcher: runs activity attempts, bounds them, and hands every outcome back as a command.

Activities run at least once. An attempt is this engine's as long as it is in `_attempts`; whatever
happens to it (a result, an exception, a timeout, a cancellation) becomes exactly one command on its
run's aggregate, which decides whether it still counts.

An attempt waits in its queue for a place; its beginning is recorded, if that has to come before its code
runs; then it runs. It keeps its place until its code has really ended, also if nobody waits for it any more.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, Literal, TypeAlias

from aion_es.aggregates.state import ActivityState, WorkflowState
from aion_es.aggregates.workflow import Workflow
from aion_es.authoring.definitions import Executor
from aion_es.clock import Clock
from aion_es.engine.attempts import Attempt, Outbox, info_of, is_recorded_first
from aion_es.engine.catalog import Catalog
from aion_es.engine.executors import Executors
from aion_es.engine.failures import activity_failure_of
from aion_es.engine.heartbeats import AttemptKey, Heartbeats, Pulse
from aion_es.engine.limits import require_size
from aion_es.engine.processes import BEAT_INTERVAL, FailedElsewhereError
from aion_es.engine.queues import TaskQueues
from aion_es.engine.requests import Decide
from aion_es.engine.timers import TimerService, later
from aion_es.engine.tracing import Tracing
from aion_es.errors import ActivityTypeNotFoundError
from aion_es.events.values import ActivityFailure
from aion_es.ids import WorkflowId
from aion_es.metrics import ACTIVITY_DURATION, is_measuring
from aion_es.payload import Payload
from aion_es.telemetry import ACTIVITY_TYPE, OUTCOME, RESULT, TASK_QUEUE

_Bound: TypeAlias = Literal["start_to_close", "heartbeat"]
_BOUNDS: Final[tuple[_Bound, ...]] = ("start_to_close", "heartbeat")


class Dispatcher:
    """Runs attempts in tasks of the engine's group, `def` activities in threads or processes.

    Args:
        catalog: Where the functions are.
        outbox: Where outcomes go.
        group: Owner of the tasks.
        queues: Places to run in.
        executors: Where the code runs.
        heartbeats: What attempts say of themselves.
        timers: Watches over attempts that are bounded.
        clock: The present instant.
        worker: Name of this engine in the history.
        start_to_close: Bound on an attempt whose activity sets none; `None` for no bound.
        max_result_bytes: A larger result is a failure that is not retried; heartbeat details may have a
            quarter of it.
        tracing: What makes spans; `None` where nobody records.
    """

    def __init__(
        self,
        catalog: Catalog,
        outbox: Outbox,
        group: asyncio.TaskGroup,
        *,
        queues: TaskQueues,
        executors: Executors,
        heartbeats: Heartbeats,
        timers: TimerService,
        clock: Clock,
        worker: str,
        start_to_close: timedelta | None,
        max_result_bytes: int,
        tracing: Tracing | None = None,
    ) -> None:
        self._catalog = catalog
        self._outbox = outbox
        self._group = group
        self._queues = queues
        self._executors = executors
        self._heartbeats = heartbeats
        self._timers = timers
        self._clock = clock
        self._worker = worker
        self._default_start_to_close = start_to_close
        self._max_result_bytes = max_result_bytes
        self._loop = asyncio.get_running_loop()
        self._attempts: dict[AttemptKey, Attempt] = {}
        self._by_workflow: dict[WorkflowId, dict[AttemptKey, Attempt]] = {}
        self._late: set[Attempt] = set()  # they do not count any more, and still run
        self._claims: dict[WorkflowId, dict[AttemptKey, tuple[str, Executor]]] = {}
        self._closing = False
        self._drained = False
        self._tracing = tracing
        self._measures = is_measuring()
        self.executed = 0

    def __len__(self) -> int:
        return len(self._attempts)

    def serves(self, queue: str) -> bool:
        """Return whether activities of this queue run here."""
        return self._queues.serves(queue)

    def pending(self) -> list[tuple[str, bool]]:
        """Return queue and whether it runs, of every attempt that is here; may be asked on any thread."""
        attempts = tuple(self._attempts.values())
        return [(a.activity.task_queue, a.stage in {"starting", "running"}) for a in attempts]

    def is_running(self, key: AttemptKey) -> bool:
        """Return whether this engine runs, or is about to run, an attempt of this activity."""
        return key in self._attempts

    def works_for(self, workflow_id: WorkflowId) -> bool:
        """Return whether an attempt of any of this workflow's activities is this engine's."""
        return workflow_id in self._by_workflow

    # ------------------------------------------------------------------------------ beginning

    def claim(self, key: AttemptKey, activity_type: str, version: str, queue: str) -> bool:
        """Keep a place for an activity that is about to be scheduled, if it can begin at once; say whether it can.

        `dispatch` uses the place up, `release_claims` gives back what was not used.

        Args:
            key: Of the activity.
            activity_type: Its type.
            version: Of its run.
            queue: Where it would wait.
        """
        if self._closing or not self._queues.serves(queue):
            return False
        claims = self._claims.get(key.workflow_id)
        if claims is not None and key in claims:
            return True  # derived anew
        executor = self._executor_of(activity_type, version)
        if not self._queues.take(queue, executor):
            return False
        self._claims.setdefault(key.workflow_id, {})[key] = (queue, executor)
        return True

    def release_claims(self, workflow_id: WorkflowId) -> None:
        """Give back the places that were kept for a workflow and not used."""
        if self._claims:
            for queue, executor in self._claims.pop(workflow_id, {}).values():
                self._queues.give_back(queue, executor)

    def dispatch(
        self,
        key: AttemptKey,
        state: WorkflowState,
        activity: ActivityState,
        number: int,
        *,
        recorded_first: bool = False,
        traceparent: str | None = None,
    ) -> None:
        """Run attempt `number` when its queue has a place; nothing if an attempt of the activity is here already.

        Args:
            key: Of the activity.
            state: Of its run.
            activity: Its state; phase `started` if the attempt is recorded as begun by this engine.
            number: From 1.
            recorded_first: Its beginning is recorded before its code runs, whatever its options say.
            traceparent: W3C trace context in which its activity was scheduled.
        """
        if key in self._attempts or self._closing or not self._queues.serves(activity.task_queue):
            return
        attempt = self._attempt_of(key, state, activity, number, recorded_first=recorded_first)
        attempt.traceparent = traceparent
        self._attempts[key] = attempt
        self._by_workflow.setdefault(key.workflow_id, {})[key] = attempt
        queue, executor = activity.task_queue, attempt.executor
        if (self._claims and self._use_claim(key)) or self._queues.take(queue, executor):
            self._placed(attempt)
        else:
            attempt.ticket = self._queues.wait(queue, executor, partial(self._placed, attempt))

    def begun(self, key: AttemptKey, activity: ActivityState) -> bool:
        """Run an attempt whose beginning is recorded now, and that waited for it; say whether it is here."""
        attempt = self._attempts.get(key)
        if attempt is None:
            return False
        if attempt.is_awaited(activity, self._worker):
            attempt.activity = activity
            self._may_run(attempt)
        return True

    def _attempt_of(
        self,
        key: AttemptKey,
        state: WorkflowState,
        activity: ActivityState,
        number: int,
        *,
        recorded_first: bool,
    ) -> Attempt:
        pulse = Pulse(
            key,
            info_of(key, state, activity, number),
            activity.heartbeat,
            clock=self._clock,
            max_details_bytes=self._max_result_bytes // 4,
            loop=self._loop,
            heard=self._heard,
        )
        return Attempt(
            key,
            number,
            activity,
            state.package_version,
            self._executor_of(activity.activity_type, state.package_version),
            pulse,
            is_recorded=activity.phase == "started",
            is_recorded_first=recorded_first or is_recorded_first(activity, number),
        )

    def _executor_of(self, activity_type: str, version: str) -> Executor:
        try:
            return self._catalog.activity(activity_type, version).executor
        except ActivityTypeNotFoundError:
            return "async"  # it fails there, for that reason, and is tried again

    def _use_claim(self, key: AttemptKey) -> bool:
        claims = self._claims.get(key.workflow_id)
        if claims is None or claims.pop(key, None) is None:
            return False
        if not claims:
            del self._claims[key.workflow_id]
        return True

    def _placed(self, attempt: Attempt) -> None:
        """Go on with an attempt that has its place."""
        attempt.ticket = None
        if attempt.is_recorded or not attempt.is_recorded_first:
            self._start(attempt)
        else:
            attempt.stage = "beginning"
            self._record_start(attempt)

    def _record_start(self, attempt: Attempt) -> None:
        """Have it recorded that an attempt begins; its record, once committed, comes back to `begun`."""
        attempt.is_recorded = True
        key, number = attempt.key, attempt.number

        def start(workflow: Workflow, at: datetime) -> None:
            activity = workflow.state.activities.get(key.activity_id)
            is_held = attempt.stage == "beginning" and (workflow.state.paused or self._closing)
            if (
                activity is None
                or not attempt.counts
                or not attempt.is_awaited(activity, self._worker)
            ):
                self._loop.call_soon(self._is_refused, attempt)
            elif activity.phase == "started":
                self._loop.call_soon(self._may_run, attempt)
            elif is_held:
                self._loop.call_soon(self._is_refused, attempt)
            else:
                workflow.start_activity(key.activity_id, number, self._worker, at=at)

        self._outbox.post_fact(key.workflow_id, key.run_id, start)

    def _may_run(self, attempt: Attempt) -> None:
        """Run an attempt that waited only for the record of its beginning."""
        if attempt.stage != "beginning" or not attempt.counts:
            return
        if self._drained:
            self._give_up(attempt)  # the grace is over: recovery takes it up
        elif attempt.cancel_asked:
            self._give_up(attempt)
            self.post_cancelled(attempt.key)
        else:
            self._start(attempt)

    def _is_refused(self, attempt: Attempt) -> None:
        """Let go of an attempt that somebody else began, that is not wanted any more, or not now."""
        if self._attempts.get(attempt.key) is not attempt:
            return
        cancelled = attempt.cancel_asked and attempt.stage == "beginning"
        self._give_up(attempt)
        if cancelled:
            self.post_cancelled(attempt.key)

    # -------------------------------------------------------------------------------- running

    def _start(self, attempt: Attempt) -> None:
        attempt.stage = "starting"
        self.executed += 1
        activity = attempt.activity
        limit = activity.timeouts.start_to_close or self._default_start_to_close
        if limit is not None or activity.heartbeat is not None:
            self._bound(attempt, limit, activity.heartbeat)
        attempt.task = self._group.create_task(self._run(attempt))

    async def _run(self, attempt: Attempt) -> None:
        attempt.stage = "running"
        began = self._loop.time() if self._measures else 0.0
        try:
            outcome = await self._outcome(attempt)
        finally:
            self._let_go(attempt)
            if self._measures:
                self._measure(attempt, self._loop.time() - began)
        if attempt.counts:
            self._outbox.post_fact(attempt.key.workflow_id, attempt.key.run_id, outcome)

    def _measure(self, attempt: Attempt, seconds: float) -> None:
        activity = attempt.activity
        ACTIVITY_DURATION.record(
            seconds,
            {
                ACTIVITY_TYPE: activity.activity_type,
                TASK_QUEUE: activity.task_queue,
                OUTCOME: attempt.outcome,
            },
        )

    async def _outcome(self, attempt: Attempt) -> Decide:
        """Run an attempt and return the command that records what came of it."""
        ordinal, number, worker = attempt.key.activity_id, attempt.number, self._worker
        failure: ActivityFailure
        try:
            if self._tracing is None:
                result = await self._value(attempt)
            else:
                with self._tracing.attempt(attempt) as span:
                    result = await self._value(attempt)
                    self._tracing.put(span, RESULT, result)
        except asyncio.CancelledError as error:
            if attempt.cancel_asked:
                attempt.outcome = "cancelled"
                return lambda w, at: w.cancel_activity(ordinal, number, at=at)
            if attempt.is_stopped:
                if attempt.counts:
                    self._heartbeats.keep(attempt.pulse)
                raise  # the engine stops: nothing is recorded, and recovery runs the activity again
            failure = activity_failure_of(error, attempt.activity.retry)
        except FailedElsewhereError as error:
            failure = error.failure
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever the activity raises is its outcome
            if isinstance(error, GeneratorExit) and attempt.is_thrown_away:
                raise
            failure = activity_failure_of(error, attempt.activity.retry)
        else:
            attempt.ended("completed")
            return lambda w, at: w.complete_activity(ordinal, number, result, worker=worker, at=at)
        attempt.ended("failed")
        said = attempt.pulse.details
        return lambda w, at: w.fail_activity(
            ordinal, number, failure, heartbeat_details=said, worker=worker, at=at
        )

    async def _value(self, attempt: Attempt) -> Payload:
        activity = attempt.activity
        definition = self._catalog.activity(activity.activity_type, attempt.version)
        signature = definition.signature
        argument = signature.read_input(activity.input)
        arguments = () if signature.input_name is None else (argument,)
        value: Any
        value = await self._executors.call(definition, arguments, attempt.pulse, activity.retry)
        payload = signature.write_result(value)
        require_size(payload, self._max_result_bytes, f"result of {signature.where}")
        return payload

    def _heard(self, pulse: Pulse) -> None:
        """Take in that an attempt said something new.

        What it said is kept for whoever takes it up, which only an attempt is that is recorded as begun.
        """
        attempt = self._attempts.get(pulse.key)
        if attempt is None or attempt.pulse is not pulse:
            return
        if not attempt.is_recorded:
            self._record_start(attempt)
        self._heartbeats.note(pulse)

    def _let_go(self, attempt: Attempt) -> None:
        """Give back the place of an attempt whose code has ended, or never began."""
        self._queues.give_back(attempt.activity.task_queue, attempt.executor)
        self._unwatch(attempt)
        self._late.discard(attempt)

    def _unwatch(self, attempt: Attempt) -> None:
        self._heartbeats.stop(attempt.pulse)
        if attempt.is_bounded:
            for bound in _BOUNDS:
                self._timers.discard(("attempt", attempt.key, attempt.number, bound))
        key = attempt.key
        if self._attempts.get(key) is attempt:
            del self._attempts[key]
            of_workflow = self._by_workflow[key.workflow_id]
            del of_workflow[key]
            if not of_workflow:
                del self._by_workflow[key.workflow_id]

    # --------------------------------------------------------------------------------- bounds

    def _bound(self, attempt: Attempt, limit: timedelta | None, silence: timedelta | None) -> None:
        attempt.is_bounded = True
        now = self._clock.now()
        if limit is not None:
            due_at = later(now, limit)
            self._watch(attempt, "start_to_close", due_at, partial(self._is_late, attempt))
        if silence is not None:
            check = partial(self._is_silent, attempt, silence, now)
            self._watch(attempt, "heartbeat", _silent_at(attempt, now, silence), check)

    def _watch(
        self, attempt: Attempt, bound: _Bound, due_at: datetime | None, fire: Callable[[], None]
    ) -> None:
        if due_at is not None:
            self._timers.add(("attempt", attempt.key, attempt.number, bound), due_at, fire)

    def _is_late(self, attempt: Attempt) -> None:
        ordinal, number, said = attempt.key.activity_id, attempt.number, attempt.pulse.details
        self._time_out(
            attempt,
            lambda w, at: w.start_to_close_timeout(
                ordinal, number, heartbeat_details=said, worker=self._worker, at=at
            ),
        )

    def _is_silent(self, attempt: Attempt, silence: timedelta, began_at: datetime) -> None:
        """Time an attempt out, or look again when it may be, if it has spoken meanwhile."""
        due_at = _silent_at(attempt, attempt.pulse.beat_at or began_at, silence)
        if due_at is None or due_at > self._clock.now():
            check = partial(self._is_silent, attempt, silence, began_at)
            self._watch(attempt, "heartbeat", due_at, check)
            return
        ordinal, number, said = attempt.key.activity_id, attempt.number, attempt.pulse.details
        self._time_out(
            attempt,
            lambda w, at: w.heartbeat_timeout(
                ordinal, number, heartbeat_details=said, worker=self._worker, at=at
            ),
        )

    def _time_out(self, attempt: Attempt, outcome: Decide) -> None:
        """Record at once that an attempt timed out; what its code does later comes to nothing."""
        if attempt.counts:
            attempt.outcome = "timed_out"
            self._give_up(attempt)
            self._outbox.post_fact(attempt.key.workflow_id, attempt.key.run_id, outcome)

    # ------------------------------------------------------------------------------- stopping

    def cancel(self, key: AttemptKey) -> bool:
        """Tell an attempt that it is no longer wanted; false if none is here whose end will be reported."""
        attempt = self._attempts.get(key)
        if attempt is None:
            return False
        attempt.cancel_asked = True
        if attempt.stage == "beginning":
            return True  # its end is reported when its beginning is recorded, or refused
        if attempt.stage == "running":
            self._stop(attempt)
            return True
        self._give_up(attempt)
        return False

    def settled(self, key: AttemptKey, activity: ActivityState) -> None:
        """Give up an attempt that its activity, as it is now recorded, does not wait for any more."""
        attempt = self._attempts.get(key)
        if attempt is not None and not attempt.is_awaited(activity, self._worker):
            self._give_up(attempt)

    def abandon(self, key: AttemptKey) -> None:
        """Stop an attempt whose outcome nobody waits for; none is recorded."""
        attempt = self._attempts.get(key)
        if attempt is not None:
            self._give_up(attempt)

    def hold(self, key: AttemptKey) -> None:
        """Take an attempt that has no place yet out of its line; it is dispatched again later."""
        attempt = self._attempts.get(key)
        if attempt is not None and attempt.stage == "waiting":
            self._give_up(attempt)

    def reconcile(self, state: WorkflowState) -> None:
        """Bring what runs here for a workflow into line with its history, which was just read.

        What others settled or began is given up; what the code no longer wants is told so.
        """
        for attempt in list(self._by_workflow.get(state.workflow_id, {}).values()):
            key = attempt.key
            activity = state.activities.get(key.activity_id) if key.run_id == state.run_id else None
            if activity is None or not attempt.is_awaited(activity, self._worker):
                self._give_up(attempt)
            elif activity.cancel_requested and not attempt.cancel_asked:
                if not self.cancel(key):
                    self.post_cancelled(key)
            elif activity.phase == "started":
                attempt.activity = activity
                self._may_run(attempt)

    def post_cancelled(self, key: AttemptKey) -> None:
        """Record that an activity ended without an outcome, whatever it is waiting for."""

        def cancel(workflow: Workflow, at: datetime) -> None:
            activity = workflow.state.activities[key.activity_id]
            if activity.is_pending and activity.cancel_requested:
                is_awaited = activity.phase == "scheduled"
                number = activity.attempt + 1 if is_awaited else activity.attempt
                workflow.cancel_activity(key.activity_id, number, at=at)

        self._outbox.post_fact(key.workflow_id, key.run_id, cancel)

    def _give_up(self, attempt: Attempt) -> None:
        """Stop counting on an attempt, and stop it as far as that can be done."""
        attempt.counts = False
        match attempt.stage:
            case "waiting":
                if attempt.ticket is not None:
                    attempt.ticket.withdrawn = True
                self._unwatch(attempt)
            case "beginning":
                self._let_go(attempt)
            case "starting":  # a task that is cancelled before its first step never takes it
                self._stop(attempt)
                self._let_go(attempt)
            case "running":
                self._unwatch(attempt)
                self._late.add(attempt)
                self._stop(attempt)

    def _stop(self, attempt: Attempt) -> None:
        attempt.pulse.cancelled = True
        self._executors.tell_cancelled(attempt.pulse)
        if attempt.task is not None and (
            attempt.executor == "async" or attempt.stage == "starting"
        ):
            attempt.task.cancel()

    async def drain(self, grace: timedelta) -> None:
        """Take no more; give what runs `grace` to end; then stop it. What is stopped runs again at recovery."""
        self._closing = True
        for attempt in list(self._attempts.values()):
            self.hold(attempt.key)
        ends_at = self._loop.time() + grace.total_seconds()
        while tasks := [
            attempt.task
            for attempt in (*self._attempts.values(), *self._late)
            if attempt.task is not None and not attempt.task.done()
        ]:
            left = max(0.0, ends_at - self._loop.time())
            _, late = await asyncio.wait(tasks, timeout=left)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        self._drained = True
        self._executors.close()


def _silent_at(attempt: Attempt, heard_at: datetime, silence: timedelta) -> datetime | None:
    """Return when an attempt that was last heard of at `heard_at` has been silent for too long."""
    due_at = later(heard_at, silence)
    if due_at is None or attempt.executor != "process":
        return due_at
    return later(due_at, timedelta(seconds=BEAT_INTERVAL))  # so late a heartbeat may be passed on

"""One run's code in memory: facts go in, in their recorded order; commands come out, in the same order ever.

Live and in replay this is the same machine. Each fact is delivered, then the code runs until it can do
nothing more; what it commanded on the way is collected. Live, the commands are recorded. In replay they
are held against what is recorded, one by one; a difference is a `NonDeterminismError`, never a guess.
"""

import asyncio
import contextvars
import logging
import random
from collections.abc import Callable, Coroutine, Iterable
from datetime import datetime, timedelta
from typing import Any, ClassVar, Final, Literal, NoReturn, get_args

from aion_es.aggregates.workflow import Workflow
from aion_es.authoring.channels import Query
from aion_es.authoring.children import ChildRequest
from aion_es.authoring.context import Context
from aion_es.authoring.definitions import (
    ActivityDefinition,
    ActivitySettings,
    WorkflowDefinition,
)
from aion_es.authoring.runtime import WorkflowInfo
from aion_es.engine.attribute_calls import REFUSED, AttributeCalls, refusal
from aion_es.engine.child_calls import REFUSED_CHILD, ChildCalls
from aion_es.engine.child_calls import refusal as child_refusal
from aion_es.engine.commands import (
    CancelRun,
    CancelTimer,
    Command,
    CompleteRun,
    CompleteWithTimeout,
    ContinueRunAsNew,
    FailRun,
    RecordMarker,
    RequestActivityCancel,
    ScheduleActivity,
    StartTimer,
)
from aion_es.engine.failures import activity_error_of, failure_of, led_to
from aion_es.engine.handles import ActivityFuture, TimerFuture
from aion_es.engine.limits import require_size
from aion_es.engine.loop import DurableTimerHandle, EvictedError, WorkflowLoop
from aion_es.engine.mailboxes import Mailboxes
from aion_es.engine.outreach import Outreach, OutreachFact
from aion_es.engine.reopening import Cut
from aion_es.engine.run_logger import RunLogger
from aion_es.engine.side_effects import SideEffects
from aion_es.engine.surroundings import Surroundings
from aion_es.errors import (
    InternalError,
    InvalidArgumentError,
    PayloadError,
    PendingWorkError,
    QueryFailedError,
    QueryNotFoundError,
    TimerAlreadyStartedError,
    UnregisteredAttributeError,
    WorkflowTypeNotFoundError,
)
from aion_es.events.attributes import SearchAttributeValues
from aion_es.events.values import SignalMessage
from aion_es.events.workflow import (
    ActivityCancelled,
    ActivityCompleted,
    ActivityFailed,
    MarkerRecorded,
    SignalReceived,
    TimerFired,
    WorkflowCancelRequested,
    WorkflowEvent,
    WorkflowPaused,
    WorkflowReopened,
    WorkflowResumed,
    WorkflowStarted,
)
from aion_es.ids import ActivityId, TimerId, WorkflowId, check_id
from aion_es.payload import Payload
from aion_es.telemetry import CodeSpan, make_current

SUGGEST_CONTINUE_AFTER: Final = 10_000
"""Events after which `continue_as_new_suggested` turns true; Temporal warns at the same length."""
SUGGEST_CONTINUE_AT: Final = 10_000_000
"""Bytes of data at which it does, however few the events; Temporal warns at about this size."""


class _ContinueAsNewRequest(BaseException):
    """Unwinds the code after `ctx.continue_as_new`; not an `Exception`, so that no handler keeps it."""

    def __init__(self, input: Payload) -> None:
        super().__init__()
        self.input = input


class CodeExecution:
    """The code of one run, and everything it waits for. Implements `WorkflowRuntime`.

    Attributes:
        disturbed: A query's handler did more than look: this is no longer what replay gives, and must be
            thrown away.
        span: What is the present span in all tasks of the code; `None` where nobody records.
    """

    def __init__(
        self, definition: WorkflowDefinition, workflow: Workflow, surroundings: Surroundings
    ) -> None:
        self.definition = definition
        self.workflow = workflow
        self.loop = WorkflowLoop.of(self, workflow.state.run_id)
        self.disturbed = False
        self.span = CodeSpan(self.is_replaying) if surroundings.traced else None
        self._surroundings = surroundings
        self._main: asyncio.Task[Any] | None = None
        self._finished = False
        self._commands: list[Command] = []
        self.replaying = False
        self._revision = -1
        self._paused = False
        self._held: list[tuple[WorkflowEvent, datetime, int]] = []
        self._cancel_reason: str | None = None
        # activities: all that have no outcome yet, and the futures that still wait for one
        self._next_activity = 0
        self._unsettled: dict[ActivityId, str] = {}
        self._activities: dict[ActivityId, ActivityFuture] = {}
        self._failed_activities: list[tuple[BaseException, ActivityId]] = []
        # timers: live ones, by name or ordinal
        self._next_timer = 0
        self._timers: dict[TimerId, DurableTimerHandle | TimerFuture] = {}
        self._disarmed: dict[TimerId, datetime] = {}
        self._mailboxes = Mailboxes(self.loop)
        self._outreach = Outreach(self.loop, workflow.state.run_id, self._command)
        self._failure: BaseException | None = None
        self._queries: dict[str, tuple[Query[Any, Any], Callable[..., Any]]] = {}
        # markers: what the history holds, and what was decided
        self.attribute_calls = AttributeCalls(surroundings.schema)
        self.child_calls = ChildCalls(surroundings.schema, self._child_version)
        self._recorded_patches: set[str] = set()
        self._side_effects = SideEffects(
            getattr(definition.function, "__globals__", {}),
            surroundings.max_payload_bytes,
            self._command,
        )
        self._patches: dict[str, bool] = {}
        self._attempt = 1
        self._random: random.Random | None = None
        self._logger: RunLogger | None = None

    # ------------------------------------------------------------------- the engine's side

    @property
    def finished(self) -> bool:
        """Whether the code has returned, raised, ended as cancelled or continued as new."""
        return self._finished

    def deliver(self, event: WorkflowEvent, at: datetime, revision: int) -> None:
        """Deliver one fact and let the code run until it can do nothing more.

        Args:
            event: The fact.
            at: When it was recorded.
            revision: Its place in the stream.

        Raises:
            PayloadError: A recorded value does not fit the type that the code declares now.
        """
        self.loop.set_time(at)
        self._revision = revision
        if self._paused and type(event) not in _NEVER_HELD:
            self._held.append((event, at, revision))
            return
        handler = self.HANDLERS.get(type(event))
        if handler is None:
            raise InternalError(f"{type(event).__name__} is not a fact for workflow code")
        handler(self, event)
        self._step()

    def expect_markers(self, markers: Iterable[MarkerRecorded]) -> None:
        """Learn, before a replay, what the code was told when it ran first."""
        for marker in markers:
            if marker.kind == "patch":
                self._recorded_patches.add(marker.name)
            elif marker.name not in {REFUSED, REFUSED_CHILD}:
                self._side_effects.expect(marker)

    def pass_over(self, cut: Cut) -> None:
        """Pass, in a replay, the place of what a reopening has made void."""
        self._next_activity = max(self._next_activity, cut.next_activity)
        self._next_timer = max(self._next_timer, cut.next_timer)
        self._outreach.pass_over(cut)
        self._patches.update(dict.fromkeys(cut.patches, True))
        self._disarmed.update(cut.timers)
        self._attempt += cut.reopenings
        if cut.redraws is not None:
            self.random.seed(cut.redraws)  # else what is void would share its draws with what comes

    def note_input(self, command: Command, recorded: WorkflowEvent) -> None:
        """Hear, in a replay, which event records a command."""
        state = self.workflow.state
        self._surroundings.drift.compare(state.workflow_id, state.run_id, command, recorded)

    def take_commands(self) -> list[Command]:
        """Return what the code commanded since the last call, in order."""
        commands, self._commands = self._commands, []
        return commands

    def put_back(self, commands: Iterable[Command]) -> None:
        """Put in front what a replay has found to be commanded and not yet recorded."""
        self._commands = [*commands, *self._commands]

    def query(self, name: str, argument: Any) -> Any:
        """Return the answer of the code's handler.

        Raises:
            QueryNotFoundError: The code answers no query of this name; lists those it does.
            QueryFailedError: The handler raised, or did something other than look.
        """
        known = self._queries.get(name)
        if known is None:
            raise QueryNotFoundError(name, sorted(self._queries))
        query, handler = known
        call = handler if query.argument is None else (lambda: handler(argument))
        before = (len(self._commands), self.loop.ready)
        watch = self._surroundings.watch
        watch.step = self
        watch.count += 1
        numbers = None if self._random is None else self._random.getstate()
        try:
            answer = query.copy_result(self.loop.call_inside(call))
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise QueryFailedError(name, f"{type(error).__name__}: {error}") from error
        finally:
            watch.step = None
            self.disturbed |= before != (len(self._commands), self.loop.ready)
            # The code goes on with the numbers that it would have got had nobody asked.
            if self._random is not None and numbers is not None:
                self._random.setstate(numbers)
            else:
                self._random = None
        if self.disturbed:
            raise QueryFailedError(name, "the handler commanded something; it may only look")
        return answer

    def close(self) -> None:
        """Take the code out of memory. Nothing is recorded; replay brings it back."""
        self.loop.close()
        for waiting in (
            self._activities,
            self._timers,
            self._mailboxes,
            self._outreach,
            self._queries,
        ):
            waiting.clear()
        self._main = None

    # ----------------------------------------------------------------------------- stepping

    def _step(self) -> None:
        main = self._main
        if main is None or self._finished:
            return
        watch = self._surroundings.watch
        watch.step = self
        watch.count += 1
        try:
            self.loop.run_ready(main.done)
        finally:
            watch.step = None
        if main.done():
            self._finished = True
            self._finish(main)

    def _finish(self, main: "asyncio.Task[Any]") -> None:
        if self._failure is not None:
            _ = main.cancelled() or main.exception()  # looked at: it is not what ends the run
            self._fail(self._failure)
        elif main.cancelled():
            if self._cancel_reason is not None:
                # What the unwinding disarmed counts as torn down with the run: cancel() records that itself.
                self._commands = [c for c in self._commands if type(c) is not CancelTimer]
                self._commands.append(CancelRun(self._cancel_reason))
            else:
                self._fail(asyncio.CancelledError("cancelled by the code itself"))
        else:
            self._finish_uncancelled(main)

    def _finish_uncancelled(self, main: "asyncio.Task[Any]") -> None:
        error = main.exception()
        if isinstance(error, _ContinueAsNewRequest):
            # Where no route is left, its own code is there all the same.
            route = self._surroundings.route(self.definition.type)
            version = self.workflow.state.package_version if route is None else route
            self._commands.append(ContinueRunAsNew(error.input, version))
        elif error is not None:
            self._fail(error)
        else:
            try:
                self._commands.append(
                    CompleteRun(self.definition.signature.write_result(main.result()))
                )
            except PayloadError as unfit:
                self._fail(unfit)

    def _fail(self, error: BaseException) -> None:
        activities = tuple(i for e, i in self._failed_activities if led_to(e, error))
        children = self._outreach.that_led_to(error)
        self._commands.append(FailRun(failure_of(error), activities, children))

    # -------------------------------------------------------------------------------- facts

    def _on_started(self, event: WorkflowStarted) -> None:
        self._mailboxes.carry(event.carried_signals)
        context = Context(self)
        if self.definition.signature.input_name is None:
            code = self.definition.function(context)
        else:
            code = self.definition.function(
                context, self.definition.signature.read_input(event.input)
            )
        # Context variables of who started the run are not there in replay: let them not be there at all.
        context_variables = contextvars.Context()
        if self.span is not None:
            context_variables.run(make_current, self.span)
        self._main = self.loop.create_task(code, context=context_variables)

    def _on_activity_completed(self, event: ActivityCompleted) -> None:
        self._unsettled.pop(event.activity_id, None)
        future = self._activities.pop(event.activity_id, None)
        if future is not None and not future.done():
            future.set_result(future.definition.signature.read_result(event.result))

    def _on_activity_failed(self, event: ActivityFailed) -> None:
        if event.retry_at is not None:
            return  # another attempt will come: nothing for the code to know
        self._unsettled.pop(event.activity_id, None)
        future = self._activities.pop(event.activity_id, None)
        if future is not None and not future.done():
            error = activity_error_of(future.definition.type, event)
            self._failed_activities.append((error, event.activity_id))
            future.set_exception(error)

    def _on_activity_cancelled(self, event: ActivityCancelled) -> None:
        self._unsettled.pop(event.activity_id, None)
        future = self._activities.pop(event.activity_id, None)
        if future is not None:
            future.settle_cancelled()

    def _on_timer_fired(self, event: TimerFired) -> None:
        waiting = self._timers.pop(event.timer_id, None)
        if isinstance(waiting, DurableTimerHandle):
            self.loop.run_timer(waiting)
        elif waiting is not None and not waiting.done():
            waiting.set_result(None)

    def _on_signal(self, event: SignalReceived) -> None:
        message = SignalMessage.model_construct(
            signal_id=event.signal_id, name=event.name, payload=event.payload, sender=event.sender
        )
        self._mailboxes.put(message)

    def _on_outreach(self, event: OutreachFact) -> None:
        self._outreach.take(event)

    def _on_cancel_requested(self, event: WorkflowCancelRequested) -> None:
        if self._cancel_reason is None:
            self._cancel_reason = event.reason
            if self._main is not None:
                self._main.cancel()

    def _on_paused(self, _event: WorkflowPaused) -> None:
        self._paused = True

    def _on_resumed(self, _event: WorkflowResumed) -> None:
        self._release()

    def _release(self) -> None:
        """Let the code see what came while the run was held."""
        self._paused = False
        held, self._held = self._held, []
        for event, at, revision in held:
            self.deliver(event, at, revision)

    def _on_reopened(self, event: WorkflowReopened) -> None:
        self._attempt += 1
        if event.taken_back is None:
            self._cancel_reason = None
        disarmed, self._disarmed = self._disarmed, {}
        for timer_id, fire_at in disarmed.items():
            if timer_id in self._timers:
                self._commands.append(StartTimer(timer_id, fire_at))
        self._release()

    HANDLERS: ClassVar[dict[type[Any], Callable[["CodeExecution", Any], None]]] = {
        WorkflowStarted: _on_started,
        ActivityCompleted: _on_activity_completed,
        ActivityFailed: _on_activity_failed,
        ActivityCancelled: _on_activity_cancelled,
        TimerFired: _on_timer_fired,
        SignalReceived: _on_signal,
        **dict.fromkeys(get_args(OutreachFact), _on_outreach),
        WorkflowCancelRequested: _on_cancel_requested,
        WorkflowPaused: _on_paused,
        WorkflowResumed: _on_resumed,
        WorkflowReopened: _on_reopened,
    }

    # ------------------------------------------------------------- WorkflowRuntime: commands

    def schedule_activity(
        self, definition: ActivityDefinition, settings: ActivitySettings, input: Payload
    ) -> "asyncio.Future[Any]":
        """See `WorkflowRuntime`."""
        if self._is_evicted():
            return self.loop.create_future()
        require_size(
            input, self._surroundings.max_payload_bytes, f"input of {definition.signature.where}"
        )
        activity_id = ActivityId(self._next_activity)
        self._next_activity += 1
        offered = not self._surroundings.serves(settings.task_queue)
        self._commands.append(
            ScheduleActivity(activity_id, definition.type, input, settings, offered)
        )
        future = ActivityFuture(self, activity_id, definition, settings.cancellation)
        self._activities[activity_id] = future
        self._unsettled[activity_id] = definition.type
        return future

    def request_activity_cancel(
        self, activity_id: ActivityId
    ) -> Literal["asked", "never scheduled"]:
        """Command that an activity be cancelled; one that was scheduled in this very step never happens."""
        if self.loop.is_closed() or self._finished:
            return "asked"  # nobody listens any more
        for index, command in enumerate(self._commands):
            if isinstance(command, ScheduleActivity) and command.activity_id == activity_id:
                del self._commands[index]
                self._unsettled.pop(activity_id, None)
                self._activities.pop(activity_id, None)
                return "never scheduled"
        if activity_id in self._unsettled:
            self._commands.append(RequestActivityCancel(activity_id))
        return "asked"

    def start_child(self, request: ChildRequest) -> "tuple[WorkflowId, asyncio.Future[Any]]":
        """See `WorkflowRuntime`."""
        if self._is_evicted():
            return WorkflowId(request.workflow_id or ""), self.loop.create_future()
        what = f"input of child workflow {request.workflow_type!r}"
        require_size(request.input, self._surroundings.max_payload_bytes, what)
        self._outreach.require_new(request.workflow_id)
        try:
            version, attributes = self.child_calls.decide(request.workflow_type, request.attributes)
        except (WorkflowTypeNotFoundError, UnregisteredAttributeError) as refused:
            self._commands.append(child_refusal(request.workflow_type, refused))
            raise
        future = self._outreach.start_child(request, version, attributes)
        return future.workflow_id, future

    def _child_version(self, child_type: str) -> str | None:
        state = self.workflow.state
        return self._surroundings.child_version(
            state.workflow_type, state.package_version, child_type
        )

    def cancel_child(self, child_workflow_id: WorkflowId, reason: str) -> None:
        """See `ChildRuntime`."""
        if not self._is_evicted():
            self._outreach.cancel_child(child_workflow_id, reason)

    def send_signal(
        self, target_workflow_id: str, name: str, payload: Payload, signal_id: str | None
    ) -> "asyncio.Future[None]":
        """See `ChildRuntime`."""
        if self._is_evicted():
            return self.loop.create_future()
        require_size(payload, self._surroundings.max_payload_bytes, f"payload of signal {name!r}")
        return self._outreach.send(target_workflow_id, name, payload, signal_id)

    def arm(self, fire_at: datetime, handle: DurableTimerHandle) -> None:
        """See `TimerPort`."""
        timer_id = self._next_timer_id()
        handle.timer_id = timer_id
        self._timers[timer_id] = handle
        self._commands.append(StartTimer(timer_id, fire_at))

    def disarm(self, handle: DurableTimerHandle) -> None:
        """See `TimerPort`."""
        if handle.timer_id is not None:
            self.cancel_timer(TimerId(handle.timer_id))
            handle.timer_id = None

    def start_timer(self, timer_id: TimerId | None, delay: timedelta) -> "asyncio.Future[None]":
        """See `WorkflowRuntime`."""
        if self._is_evicted():
            return self.loop.create_future()
        if timer_id is not None:
            check_id("timer name", timer_id)
        else:
            timer_id = self._next_timer_id()
        if timer_id in self._timers:
            raise TimerAlreadyStartedError(timer_id)
        fire_at = self.loop.instant_after(delay)
        future = TimerFuture(self, timer_id)
        self._timers[timer_id] = future
        self._commands.append(StartTimer(timer_id, fire_at))
        return future

    def _next_timer_id(self) -> TimerId:
        while (timer_id := TimerId(str(self._next_timer))) in self._timers:
            self._next_timer += 1  # the author has named a timer so
        self._next_timer += 1
        return timer_id

    def cancel_timer(self, timer_id: TimerId) -> Literal["done", "never started"]:
        """Command that a live timer be cancelled; one that was armed in this very step never happens."""
        if self._timers.pop(timer_id, None) is None or self.loop.is_closed():
            return "done"
        for index in range(len(self._commands) - 1, -1, -1):
            command = self._commands[index]
            if isinstance(command, StartTimer) and command.timer_id == timer_id:
                del self._commands[index]
                return "never started"
        self._commands.append(CancelTimer(timer_id))
        return "done"

    def complete_with_timeout(self, timer_id: TimerId, operation_completed: bool) -> None:
        """See `WorkflowRuntime`."""
        if operation_completed and self.cancel_timer(timer_id) == "never started":
            return  # there was nothing to wait for, so nothing was decided
        outcome: Any = "operation_completed" if operation_completed else "timed_out"
        self._commands.append(CompleteWithTimeout(timer_id, outcome))

    def set_attributes(self, attributes: SearchAttributeValues) -> None:
        """See `WorkflowRuntime`."""
        if self._is_evicted():
            return
        try:
            self._commands.append(self.attribute_calls.decide(attributes))
        except UnregisteredAttributeError as refused:
            self._commands.append(refusal(refused))
            raise

    def continue_as_new(self, input: object) -> NoReturn:
        """See `WorkflowRuntime`."""
        if self._is_evicted():
            raise EvictedError
        payload = self.definition.signature.write_input(input)
        require_size(
            payload,
            self._surroundings.max_payload_bytes,
            f"input of {self.definition.signature.where}",
        )
        if self._unsettled or self._outreach.pending:
            raise PendingWorkError(sorted(self._unsettled), self._outreach.pending)
        if asyncio.current_task() is not self._main:
            raise InvalidArgumentError(
                "continue_as_new",
                "must be called from the workflow's own task, not from one it started",
            )
        raise _ContinueAsNewRequest(payload)

    def patched(self, name: str) -> bool:
        """See `WorkflowRuntime`."""
        decided = self._patches.get(check_id("patch name", name))
        if self._is_evicted():
            return decided or False
        if decided is None:
            decided = name in self._recorded_patches or not self.replaying
            self._patches[name] = decided
            if decided:
                self._commands.append(RecordMarker("patch", name))
        return decided

    def side_effect(self, make: Callable[[], Payload]) -> Payload:
        """See `WorkflowRuntime`."""
        if self._is_evicted():
            return self._side_effects.refuse(make)
        return self._side_effects.value(make, replaying=self.replaying)

    # ------------------------------------------------------- WorkflowRuntime: looking, waiting

    def now(self) -> datetime:
        """See `WorkflowRuntime`."""
        return self.loop.now

    def is_replaying(self) -> bool:
        """See `WorkflowRuntime`."""
        return self.replaying

    def info(self) -> WorkflowInfo:
        """See `WorkflowRuntime`."""
        state = self.workflow.state
        length = self._revision - state.started_revision + 1
        size = self.workflow.history_bytes(length)
        return WorkflowInfo(
            workflow_id=state.workflow_id,
            run_id=state.run_id,
            first_run_id=state.first_run_id,
            parent_run_id=state.parent_run_id,
            parent=state.parent,
            workflow_type=state.workflow_type,
            version=state.package_version,
            task_queue=state.task_queue,
            started_at=state.started_at,
            attempt=self._attempt,
            history_length=length,
            history_bytes=size,
            continue_as_new_suggested=length >= SUGGEST_CONTINUE_AFTER
            or size >= SUGGEST_CONTINUE_AT,
        )

    async def next_signal(self, name: str) -> Payload:
        """See `WorkflowRuntime`."""
        if self._is_evicted():
            await self.loop.create_future()
        message = await self._mailboxes.take(name)
        self.workflow.signal_read(message.signal_id)
        return message.payload

    def answer(self, query: Query[Any, Any], handler: Callable[..., Any]) -> None:
        """See `WorkflowRuntime`."""
        self._queries[query.name] = (query, handler)

    @property
    def random(self) -> random.Random:
        """See `WorkflowRuntime`."""
        if self._random is None:
            self._random = random.Random(self.workflow.state.run_id)  # noqa: S311 - repeatable is what it is for
        return self._random

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """See `WorkflowRuntime`."""
        if self._logger is None:
            self._logger = RunLogger(
                self.workflow.state, lambda: self.replaying or self.loop.is_closed()
            )
        return self._logger

    @property
    def cancel_reason(self) -> str | None:
        """See `WorkflowRuntime`."""
        return self._cancel_reason

    def run_beside(self, code: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """See `WorkflowRuntime`."""
        try:
            self._is_evicted()
        except InvalidArgumentError:
            code.close()
            raise
        task = self.loop.create_task(code)
        task.add_done_callback(self._beside_ended)
        return task

    def _beside_ended(self, task: "asyncio.Task[None]") -> None:
        if task.cancelled() or task.exception() is None or self._main is None:
            return
        if self._failure is None and not self._main.done():
            self._failure = task.exception()
            self._main.cancel()

    def _command(self, command: Command) -> None:
        self._commands.append(command)

    def _is_evicted(self) -> bool:
        """Return whether the code is on its way out of memory, where nothing comes of what it asks for.

        Raises:
            InvalidArgumentError: It is not the code that asks.
        """
        if self._surroundings.watch.step is self:
            return False
        if self.loop.is_closed():
            return True
        raise InvalidArgumentError(
            "Context", "can be used only by the code of its own run, while that takes a step"
        )


_NEVER_HELD: Final = frozenset({WorkflowResumed, WorkflowPaused, WorkflowReopened})
FACTS: Final = frozenset(CodeExecution.HANDLERS)
"""The types of the events that reach the code: all else in a history records commands, or is none of its business."""

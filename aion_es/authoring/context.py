"""`Context`: everything that workflow code may ask of the engine, typed end to end."""

import asyncio
import logging
import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NoReturn, Protocol, TypeVar, overload

from typing_extensions import Unpack

from aion_es.authoring.channels import Query, Readable
from aion_es.authoring.definitions import (
    ActivityDefinition,
    ActivityOptions,
    ActivitySettings,
    activity_definition,
)
from aion_es.errors import InvalidArgumentError
from aion_es.events.attributes import SearchAttribute
from aion_es.events.values import WorkflowRef
from aion_es.ids import RunId, TimerId, WorkflowId
from aion_es.payload import Payload, decoder, encoder, inline

I = TypeVar("I")  # noqa: E741 - the field's letter for an input
O = TypeVar("O")  # noqa: E741 - and for an output
T = TypeVar("T")
A = TypeVar("A")


@dataclass(frozen=True, slots=True)
class WorkflowInfo:
    """What a run knows about itself.

    Attributes:
        history_length: Events of this run so far.
        continue_as_new_suggested: The history is long enough that a new run would be cheaper to replay.
    """

    workflow_id: WorkflowId
    run_id: RunId
    first_run_id: RunId
    parent_run_id: RunId | None
    parent: WorkflowRef | None
    workflow_type: str
    version: str
    task_queue: str
    started_at: datetime
    history_length: int
    continue_as_new_suggested: bool


class WorkflowRuntime(Protocol):
    """What stands behind a `Context`; the engine's activation implements it."""

    def now(self) -> datetime:
        """Return the recorded time of the event that caused this activation."""
        ...

    def info(self) -> WorkflowInfo:
        """Return what the run knows about itself."""
        ...

    def is_replaying(self) -> bool:
        """Return whether the present step was already recorded."""
        ...

    def schedule_activity(
        self, definition: ActivityDefinition, settings: ActivitySettings, input: Payload
    ) -> "asyncio.Future[Any]":
        """Command an activity."""
        ...

    async def next_signal(self, name: str) -> Payload:
        """Return the next unread signal of this name, waiting for it."""
        ...

    def start_timer(self, timer_id: TimerId | None, delay: timedelta) -> "asyncio.Future[None]":
        """Command a durable timer."""
        ...

    def complete_with_timeout(self, timer_id: TimerId, operation_completed: bool) -> None:
        """Command that the outcome of a `with_timeout` be recorded."""
        ...

    def answer(self, query: Query[Any, Any], handler: Callable[..., Any]) -> None:
        """Take the handler of a query."""
        ...

    def set_attributes(self, attributes: Mapping[SearchAttribute[Any] | str, object]) -> None:
        """Command search attributes."""
        ...

    def continue_as_new(self, input: object) -> NoReturn:
        """End this run and begin its successor."""
        ...

    def patched(self, name: str) -> bool:
        """Return whether the code after the change is to run."""
        ...

    def side_effect(self, make: Callable[[], Payload]) -> Payload:
        """Return a value made once."""
        ...

    @property
    def random(self) -> random.Random:
        """The run's own generator."""
        ...

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """Silent in replay."""
        ...


class Context:
    """What a workflow's code is given as its first argument.

    Everything here is deterministic: asked again in replay, it answers as it did the first time. Workflow code
    takes time, ids and randomness from here, and does everything else in activities. `asyncio.sleep`, `timeout`,
    `gather`, `wait`, `TaskGroup`, `Event`, `Queue`, `Lock` and `create_task` work, and are durable where they wait.
    """

    __slots__ = ("_runtime", "_with_timeouts")

    def __init__(self, runtime: WorkflowRuntime) -> None:
        self._runtime = runtime
        self._with_timeouts = 0

    # ------------------------------------------------------------------------- activities

    @overload
    def run(
        self, activity: Callable[[I], Awaitable[O]], input: I, /, **options: Unpack[ActivityOptions]
    ) -> "asyncio.Future[O]": ...
    @overload
    def run(
        self, activity: Callable[[], Awaitable[O]], /, **options: Unpack[ActivityOptions]
    ) -> "asyncio.Future[O]": ...
    @overload
    def run(
        self, activity: Callable[[I], O], input: I, /, **options: Unpack[ActivityOptions]
    ) -> "asyncio.Future[O]": ...
    @overload
    def run(
        self, activity: Callable[[], O], /, **options: Unpack[ActivityOptions]
    ) -> "asyncio.Future[O]": ...
    def run(
        self, activity: Callable[..., Any], input: Any = None, /, **options: Unpack[ActivityOptions]
    ) -> "asyncio.Future[Any]":
        """Run an activity: recorded, retried and timed out by the engine, and never run again once it completed.

        The activity is scheduled at the call; await the handle for its result, or pass it to `asyncio.gather`,
        `asyncio.wait` and friends. Cancelling the handle cancels the activity as its `cancellation` says.

        Args:
            activity: A function decorated with `@activity`.
            input: Its input.
            **options: On top of those of the decorator.

        Returns:
            A future of the activity's result. It raises `ActivityError` when the activity failed for good.

        Raises:
            DefinitionError: Not an activity, or an option is wrong. Nothing is scheduled.
            PayloadError: The input is not of the declared type. Nothing is scheduled.
        """
        definition = activity_definition(activity)
        settings = (
            definition.settings.merged(options, definition.signature.where)
            if options
            else definition.settings
        )
        return self._runtime.schedule_activity(
            definition, settings, definition.signature.write_input(input)
        )

    # ------------------------------------------------------------------------------- time

    def now(self) -> datetime:
        """Return the present instant as the history knows it: UTC, never going backwards within a run."""
        return self._runtime.now()

    async def sleep(self, delay: timedelta | float) -> None:
        """Sleep durably; the process may die meanwhile. A number counts seconds; `asyncio.sleep` does the same."""
        await asyncio.sleep(delay.total_seconds() if isinstance(delay, timedelta) else delay)

    def start_timer(self, name: str, delay: timedelta) -> "asyncio.Future[None]":
        """Arm a named durable timer and return its future; cancelling the future cancels the timer.

        Raises:
            TimerAlreadyStartedError: A live timer of this run has that name.
        """
        return self._runtime.start_timer(TimerId(name), delay)

    async def with_timeout(self, operation: Awaitable[T], limit: timedelta) -> T:
        """Await `operation`, but no longer than `limit`; what decided is recorded.

        Raises:
            TimeoutError: The limit came first; the operation was cancelled.
        """
        name = TimerId(f"with_timeout-{self._with_timeouts}")
        self._with_timeouts += 1
        timer = self._runtime.start_timer(name, limit)
        work = asyncio.ensure_future(operation)
        try:
            waiting: set[asyncio.Future[Any]] = {work, timer}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            work.cancel()
            timer.cancel()
            raise
        if work.done():
            timer.cancel()
            self._runtime.complete_with_timeout(name, operation_completed=True)
            return work.result()
        self._runtime.complete_with_timeout(name, operation_completed=False)
        work.cancel()
        raise TimeoutError(f"not within {limit}")

    # ---------------------------------------------------------------------------- signals

    async def receive(self, signal: Readable[T]) -> T:
        """Return the next signal of this channel, in the order of arrival, waiting for it if need be.

        A signal that came before anybody waited for it is kept, also across continue-as-new.

        Raises:
            PayloadError: What was sent is not of the channel's type; the signal counts as read.
        """
        return signal.read(await self._runtime.next_signal(signal.name))

    async def signals(self, signal: Readable[T]) -> AsyncIterator[T]:
        """Yield the channel's signals for ever, in the order of arrival."""
        while True:
            yield await self.receive(signal)

    # ---------------------------------------------------------------------------- queries

    @overload
    def answer(self, query: Query[O, None], handler: Callable[[], O]) -> None: ...
    @overload
    def answer(self, query: Query[O, A], handler: Callable[[A], O]) -> None: ...
    def answer(self, query: Query[Any, Any], handler: Callable[..., Any]) -> None:
        """Answer `query` from now on by calling `handler`, which must only look, never command or wait."""
        self._runtime.answer(query, handler)

    # -------------------------------------------------------------------- attributes, runs

    def set_attributes(self, attributes: Mapping[SearchAttribute[Any] | str, object]) -> None:
        """Set search attributes; `None` removes one.

        Raises:
            UnregisteredAttributeError: A name that is a plain `str` is not registered.
            ConflictingAttributeTypeError: A name is registered with another type.
            AttributeTypeError: A value does not fit. In all three cases nothing is set.
        """
        self._runtime.set_attributes(attributes)

    def continue_as_new(self, input: object = None) -> NoReturn:
        """End this run and go on as a new one with an empty history, on the version that is routed now.

        Search attributes and unread signals go on with it.

        Args:
            input: Of the new run; of this workflow's own input type.

        Raises:
            PendingWorkError: Activities or children are pending; await or cancel them first. Nothing is
                recorded, and the run goes on.
            PayloadError: The input is not of the declared type. Nothing is recorded, and the run goes on.
        """
        self._runtime.continue_as_new(input)

    @property
    def info(self) -> WorkflowInfo:
        """What the run knows about itself."""
        return self._runtime.info()

    # ---------------------------------------------------------------- determinism made easy

    @property
    def random(self) -> random.Random:
        """A generator that is seeded by the run id: the same numbers in every replay."""
        return self._runtime.random

    def uuid4(self) -> uuid.UUID:
        """Return a random UUID, the same in every replay."""
        return uuid.UUID(int=self._runtime.random.getrandbits(128), version=4)

    def patched(self, name: str) -> bool:
        """Return whether the code after the change `name` is to run: false for runs that passed here before it.

        Guard a change with `if ctx.patched("…"): new code else: old code`, and histories of both match.
        """
        return self._runtime.patched(name)

    def side_effect(self, make: Callable[[], T], type: type[T] | Any = Any) -> T:
        """Return what `make` returned when it was first called here; replay does not call it again.

        For small local things, such as reading a setting. What can fail or take long is an activity.

        Raises:
            PayloadError: The value is not of `type`, or cannot be written as JSON.
        """
        what = "value of a side effect"
        payload = self._runtime.side_effect(
            lambda: inline(encoder(type)(make(), what)),
        )
        value: T = decoder(type)(payload.data, what)
        return value

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger with the run's ids, silent while the code is replayed."""
        return self._runtime.logger

    def __copy__(self) -> NoReturn:
        raise InvalidArgumentError("Context", "belongs to its run and cannot be copied")

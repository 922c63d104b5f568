"""`Context`: everything that workflow code may ask of the engine, typed end to end."""

import asyncio
import logging
import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from datetime import datetime, timedelta
from typing import Any, Final, Literal, NoReturn, TypeVar, overload

from typing_extensions import Unpack

from aion_es.authoring import combinators
from aion_es.authoring.channels import Query, Readable, Signal
from aion_es.authoring.children import ChildHandle, ChildOptions, ChildRequest, check_options
from aion_es.authoring.definitions import (
    ActivityOptions,
    activity_definition,
    workflow_definition,
)
from aion_es.authoring.runtime import WorkflowInfo, WorkflowRuntime
from aion_es.errors import InvalidArgumentError
from aion_es.events.attributes import SearchAttributeValues
from aion_es.ids import DEFAULT_TASK_QUEUE, TimerId
from aion_es.payload import Payload, decoder, encoder, inline

I = TypeVar("I")  # noqa: E741 - the field's letter for an input
O = TypeVar("O")  # noqa: E741 - and for an output
T = TypeVar("T")
A = TypeVar("A")

WAITS_FOR_CLEAN_UP: Final = "aion: with_timeout waits for clean-up"
"""Patch of runs whose `with_timeout` waits until what it cancels has ended; there are older ones."""


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

    @overload
    async def map(
        self,
        activity: Callable[[I], Awaitable[O]],
        items: Iterable[I],
        /,
        *,
        concurrency: int | None = None,
        return_exceptions: Literal[False] = False,
        **options: Unpack[ActivityOptions],
    ) -> list[O]: ...
    @overload
    async def map(
        self,
        activity: Callable[[I], Awaitable[O]],
        items: Iterable[I],
        /,
        *,
        concurrency: int | None = None,
        return_exceptions: Literal[True],
        **options: Unpack[ActivityOptions],
    ) -> "list[O | BaseException]": ...
    @overload
    async def map(
        self,
        activity: Callable[[I], O],
        items: Iterable[I],
        /,
        *,
        concurrency: int | None = None,
        return_exceptions: Literal[False] = False,
        **options: Unpack[ActivityOptions],
    ) -> list[O]: ...
    @overload
    async def map(
        self,
        activity: Callable[[I], O],
        items: Iterable[I],
        /,
        *,
        concurrency: int | None = None,
        return_exceptions: Literal[True],
        **options: Unpack[ActivityOptions],
    ) -> "list[O | BaseException]": ...
    async def map(
        self,
        activity: Callable[[Any], Any],
        items: Iterable[Any],
        /,
        *,
        concurrency: int | None = None,
        return_exceptions: bool = False,
        **options: Unpack[ActivityOptions],
    ) -> list[Any]:
        """Run an activity for each item and return the results in the order of the items.

        Args:
            activity: A function decorated with `@activity`.
            items: Its inputs.
            concurrency: How many are scheduled at once, from 1. Default: all.
            return_exceptions: Let every one come to its end, and return what failed as its exception. If not,
                the first failure is raised when the others are cancelled, with a note of what else failed.
            **options: As of `run`.

        Raises:
            InvalidArgumentError: `concurrency` is less than 1. Nothing is scheduled.
            ActivityError: An activity failed for good.
            DefinitionError, PayloadError: See `run`; what is scheduled already is cancelled.
        """
        return await combinators.map_items(
            lambda item: self.run(activity, item, **options),
            items,
            self._dropped,
            concurrency=concurrency,
            return_exceptions=return_exceptions,
        )

    # --------------------------------------------------------------------------- children

    @overload
    def spawn(
        self,
        workflow: "Callable[[Context, I], Awaitable[O]]",
        input: I,
        /,
        **options: Unpack[ChildOptions],
    ) -> ChildHandle[O]: ...
    @overload
    def spawn(
        self, workflow: "Callable[[Context], Awaitable[O]]", /, **options: Unpack[ChildOptions]
    ) -> ChildHandle[O]: ...
    @overload
    def spawn(
        self, workflow: str, input: object = None, /, **options: Unpack[ChildOptions]
    ) -> ChildHandle[Any]: ...
    def spawn(
        self,
        workflow: Callable[..., Awaitable[Any]] | str,
        input: Any = None,
        /,
        **options: Unpack[ChildOptions],
    ) -> ChildHandle[Any]:
        """Start a child workflow, once, whatever crashes meanwhile; await the handle for its result.

        Args:
            workflow: A workflow function, or the name of a type, whose input and result are then plain JSON.
            input: Its input, of the declared type.
            **options: See `ChildOptions`.

        Raises:
            WorkflowTypeNotFoundError: No version of the type is known to this engine. Nothing is started.
            ChildAlreadyStartedError: This run has, or had, a child with that id. Nothing is started.
            PayloadError: The input does not fit. Nothing is started.
            DefinitionError: It is no workflow, or an option is wrong. Nothing is started.
        """
        if isinstance(workflow, str):
            kind, queue = workflow, DEFAULT_TASK_QUEUE
            payload = Payload.of(input, what=f"input of child workflow {workflow!r}")
            read: Callable[[Payload], Any] = _plain
        else:
            definition = workflow_definition(workflow)
            kind, queue = definition.type, definition.task_queue
            payload = definition.signature.write_input(input)
            read = definition.signature.read_result
        if options:
            check_options(kind, options)
        request = ChildRequest(
            kind,
            payload,
            options.get("id"),
            options.get("parent_close", "cancel"),
            options.get("cancellation", "try_cancel"),
            options.get("task_queue", queue),
            options.get("attributes", {}),
            read,
        )
        return ChildHandle(self._runtime, *self._runtime.start_child(request))

    # --------------------------------------------------------------------- several at once

    async def race(self, *operations: Awaitable[T]) -> T:
        """Return the result of whichever is done first, or raise its error; the others are cancelled.

        Of several that are done already the first argument wins. What the others raise, in their clean-up for
        example, is logged by `logger`, and noted on the error if one is raised here.

        Raises:
            InvalidArgumentError: There is none.
        """
        return await combinators.race(operations, self._dropped)

    async def shield(self, operation: Awaitable[T]) -> T:
        """Await `operation` to its end even if this await is cancelled meanwhile; then be cancelled.

        For clean-up that must not be cut short, by a timeout around it for example. What it raises after this await
        was cancelled is logged by `logger`, and noted on the cancellation.
        """
        return await combinators.shield(operation, self._dropped)

    def _dropped(self, error: BaseException) -> None:
        self._runtime.logger.warning(
            "a %s where nobody awaits it any more", type(error).__name__, exc_info=error
        )

    @property
    def cancelled(self) -> bool:
        """Whether somebody has asked the run to end."""
        return self._runtime.cancel_reason is not None

    @property
    def cancel_reason(self) -> str | None:
        """Why somebody asked the run to end, perhaps empty; `None` if nobody did."""
        return self._runtime.cancel_reason

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
            TimerAlreadyStartedError: A live timer of this run has that name. (Sleeps and timeouts are numbered.)
            InvalidArgumentError: `delay` is no `timedelta`, or past every calendar. Nothing is armed.
        """
        return self._runtime.start_timer(TimerId(name), delay)

    async def with_timeout(self, operation: Awaitable[T], limit: timedelta) -> T:
        """Await `operation`, but no longer than `limit`; what decided is recorded, if it was not decided at once.

        An operation that is cancelled, by the limit or with this await, is awaited to the end of its clean-up. What that
        raises when this await is cancelled is logged by `logger`, and noted on the cancellation.

        Raises:
            TimeoutError: The limit came first, and the operation has ended by now; its cause is what the
                clean-up raised.
            InvalidArgumentError: `limit` is no `timedelta`, or past every calendar. The operation is not begun.
        """
        name = TimerId(f"with_timeout-{self._with_timeouts}")
        self._with_timeouts += 1
        try:
            timer = self._runtime.start_timer(name, limit)
        except InvalidArgumentError:
            if asyncio.iscoroutine(operation):
                operation.close()
            raise
        work = asyncio.ensure_future(operation)
        try:
            waiting: set[asyncio.Future[Any]] = {work, timer}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError as cancelled:
            work.cancel()
            timer.cancel()
            await self._end_of(work)
            combinators.drop(work, self._dropped, cancelled)
            raise
        if work.done():
            self._runtime.complete_with_timeout(name, operation_completed=True)
            return work.result()
        self._runtime.complete_with_timeout(name, operation_completed=False)
        work.cancel()
        await self._end_of(work)
        failed = None if not work.done() or work.cancelled() else work.exception()
        raise TimeoutError(f"not within {limit}") from failed

    async def _end_of(self, cancelled: "asyncio.Future[Any]") -> None:
        if not cancelled.done() and self._runtime.patched(WAITS_FOR_CLEAN_UP):
            await asyncio.gather(cancelled, return_exceptions=True)

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

    def on_signal(
        self, signal: Readable[T], handler: Callable[[T], Awaitable[None] | None]
    ) -> "asyncio.Task[None]":
        """Call `handler` for every signal of this channel from now on, one after the other, also unread ones.

        Args:
            signal: The channel; nobody else should receive from it meanwhile.
            handler: `def` or `async def`. What it raises fails the run.

        Returns:
            The task that calls it; cancel it to stop.
        """
        return self._runtime.run_beside(self._handle(signal, handler))

    async def _handle(
        self, signal: Readable[T], handler: Callable[[T], Awaitable[None] | None]
    ) -> None:
        while True:
            handling = handler(await self.receive(signal))
            if handling is not None:
                await handling

    @overload
    def send(
        self, workflow_id: str, signal: Signal[None], /, *, signal_id: str | None = None
    ) -> "asyncio.Future[None]": ...
    @overload
    def send(
        self, workflow_id: str, signal: Signal[T], value: T, /, *, signal_id: str | None = None
    ) -> "asyncio.Future[None]": ...
    def send(
        self,
        workflow_id: str,
        signal: Signal[Any],
        value: Any = None,
        /,
        *,
        signal_id: str | None = None,
    ) -> "asyncio.Future[None]":
        """Send a signal to another workflow; it is delivered once, in the order of sending, whatever crashes.

        Args:
            workflow_id: Of the target; its current run receives it.
            signal: The channel.
            value: Of the channel's type.
            signal_id: The target receives the same id once. Default: made of the run id and an ordinal.

        Returns:
            A future that is done when the signal is recorded with its target. It need not be awaited. It raises
            `SignalDeliveryError` if there is no such workflow, or it is closed.

        Raises:
            PayloadError: The value is not of the channel's type. Nothing is sent.
            InvalidIdError: An id is not 1–255 printable characters. Nothing is sent.
        """
        return self._runtime.send_signal(workflow_id, signal.name, signal.write(value), signal_id)

    # ---------------------------------------------------------------------------- queries

    @overload
    def answer(self, query: Query[O, None], handler: Callable[[], O]) -> None: ...
    @overload
    def answer(self, query: Query[O, A], handler: Callable[[A], O]) -> None: ...
    def answer(self, query: Query[Any, Any], handler: Callable[..., Any]) -> None:
        """Answer `query` from now on by calling `handler`, which must only look, never command or wait."""
        self._runtime.answer(query, handler)

    # -------------------------------------------------------------------- attributes, runs

    def set_attributes(self, attributes: SearchAttributeValues) -> None:
        """Set search attributes; `None` removes one.

        Args:
            attributes: A dict of keys of one type, `{customer: "ana"}`, or of registered names; of several types
                `customer.to("ana") | total.to(3)`.

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
            PendingWorkError: Activities or children are pending, perhaps cancelled ones; await their ends first. What
                has `cancellation="wait"` is awaited to its end where it is cancelled. Nothing is recorded, and
                the run goes on.
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

        For small local things, such as reading a setting. What can fail or take long is an activity. Where code keeps
        everything in a bare `except`, `make` may be called once more when the run leaves memory, for nothing.

        Raises:
            PayloadError: The value is not of `type`, or cannot be written as JSON.
            Exception: What `make` raised. That is recorded too: replay raises it again, made of its arguments; one
                that cannot be made so, or whose class is local to a function, as the nearest base that can.
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


def _plain(payload: Payload) -> Any:
    return payload.data

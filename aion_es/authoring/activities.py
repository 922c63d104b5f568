"""`activity`: the decorator, and what activity code may ask about itself while it runs."""

import contextvars
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple, Protocol, overload

from typing_extensions import TypeVar, Unpack

from aion_es.authoring.definitions import ActivityOptions, define_activity
from aion_es.errors import InvalidArgumentError
from aion_es.ids import ActivityId, RunId, WorkflowId

F = TypeVar("F", bound=Callable[..., Any])


class ActivityInfo(NamedTuple):
    """What an attempt knows about itself.

    Attributes:
        attempt: From 1.
        idempotency_key: The same for every attempt of this activity and for no other: give it to the
            service that is called, since activities run at least once.
        scheduled_at: When the workflow asked for it.
        heartbeat_details: What an earlier attempt of this activity said last with `activity.heartbeat`, as
            plain JSON values; `None` if none said anything.
    """

    workflow_id: WorkflowId
    run_id: RunId
    workflow_type: str
    activity_id: ActivityId
    activity_type: str
    attempt: int
    task_queue: str
    idempotency_key: str
    scheduled_at: datetime
    heartbeat_details: Any = None


class RunningActivity(Protocol):
    """The attempt that the present code belongs to, set by the engine around it."""

    @property
    def info(self) -> ActivityInfo:
        """What it may know about itself."""
        ...

    def is_cancelled(self) -> bool:
        """Return whether its outcome is no longer wanted; called from any thread."""
        ...

    def heartbeat(self, details: object) -> None:
        """Note that it lives, and what it says; called from any thread."""
        ...


RUNNING: Final[contextvars.ContextVar[RunningActivity]] = contextvars.ContextVar("aion_es_activity")


class _Activity:
    """See `activity`."""

    @overload
    def __call__(self, function: F, /) -> F: ...
    @overload
    def __call__(
        self,
        function: None = None,
        /,
        *,
        name: str | None = None,
        executor: Literal["thread", "process"] | None = None,
        **options: Unpack[ActivityOptions],
    ) -> Callable[[F], F]: ...
    def __call__(
        self,
        function: Any = None,
        /,
        *,
        name: str | None = None,
        executor: Literal["thread", "process"] | None = None,
        **options: Unpack[ActivityOptions],
    ) -> Any:
        """Make a `def` or `async def f(input: I) -> O` an activity; the input is optional.

        Args:
            function: The function, when used without parentheses.
            name: Type name in the history. Default: the function's name.
            executor: Where a `def` function runs: in a thread (default) or in a process pool.
            **options: Defaults for every call; see `ActivityOptions`.

        Raises:
            DefinitionError: The function cannot be an activity; says what is wrong.
        """

        def decorate(target: Any) -> Any:
            return define_activity(target, name=name, executor=executor, options=options)

        return decorate if function is None else decorate(function)

    def info(self) -> ActivityInfo:
        """Return what the running attempt knows about itself.

        Raises:
            InvalidArgumentError: Called outside an activity that an engine runs.
        """
        return self._running().info

    def is_cancelled(self) -> bool:
        """Return whether this attempt's outcome is no longer wanted; `def` activities look here.

        That is so when the workflow cancelled it, when it has run into a timeout, and when the run has closed.
        An `async def` activity gets `asyncio.CancelledError` instead.

        Raises:
            InvalidArgumentError: Called outside an activity that an engine runs.
        """
        return self._running().is_cancelled()

    def heartbeat(self, details: object = None) -> None:
        """Say that this attempt lives, and how far it is; may be called often, and from any thread.

        Nothing is written for most calls: the engine keeps the last details in memory, and stores them from
        time to time. If the attempt fails, or its process dies, the next one finds them in
        `activity.info().heartbeat_details`; what was said just before a process died may be missing.

        Args:
            details: Plain JSON values, or one value that pydantic can write; at most a quarter of what an
                activity's input may have. `None` says only that it lives, and leaves the former details.

        Raises:
            InvalidArgumentError: Called outside an activity that an engine runs.
            PayloadError: The details cannot be written.
            PayloadTooLargeError: They are too large.
        """
        self._running().heartbeat(details)

    @staticmethod
    def _running() -> RunningActivity:
        running = RUNNING.get(None)
        if running is None:
            raise InvalidArgumentError(
                "activity", "no attempt is running here; call this from activity code"
            )
        return running


activity: Final = _Activity()
"""The decorator `@activity`, with `info()`, `heartbeat()` and `is_cancelled()` for the code inside."""

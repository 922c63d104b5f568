"""`activity`: the decorator, and what activity code may ask about itself while it runs."""

import contextvars
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple, overload

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


class RunningActivity:
    """The attempt that the present code belongs to, set by the engine around it.

    Attributes:
        info: What it may know about itself.
        cancelled: The workflow no longer wants it; set on the loop, read from any thread.
    """

    __slots__ = ("cancelled", "info")

    def __init__(self, info: ActivityInfo) -> None:
        self.info = info
        self.cancelled = False


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
        """Return whether the workflow no longer wants this attempt; `def` activities look here.

        An `async def` activity gets `asyncio.CancelledError` instead.

        Raises:
            InvalidArgumentError: Called outside an activity that an engine runs.
        """
        return self._running().cancelled

    @staticmethod
    def _running() -> RunningActivity:
        running = RUNNING.get(None)
        if running is None:
            raise InvalidArgumentError(
                "activity", "no attempt is running here; call this from activity code"
            )
        return running


activity: Final = _Activity()
"""The decorator `@activity`, with `activity.info()` and `activity.is_cancelled()` for the code inside."""

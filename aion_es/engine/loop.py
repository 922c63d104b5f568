"""The event loop that workflow code runs on: FIFO, virtual time, no I/O; deterministic by construction.

A real `asyncio` loop sleeps, polls sockets and wakes threads. This one only runs what is ready, in the
order in which it became ready, until nothing is; waiting for time becomes a durable timer. So the same
facts, delivered in the same order, always lead the code through the same steps.
"""

import asyncio
import contextvars
import itertools
import logging
import sys
import weakref
import zlib
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NoReturn, Protocol, TypeVar

from typing_extensions import TypeVarTuple

from aion_es.errors import InvalidArgumentError, WorkflowSandboxError

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_LOG = logging.getLogger("aion_es.workflow")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_UNWINDINGS: Final = 8
"""So often a coroutine is closed that awaits again meanwhile."""


class EvictedError(BaseException):
    """Raised in code on its way out of memory where a call must give something and nothing can be given.

    Not an `Exception`, so that few handlers keep it. One that does may ask again, for ever: so what can
    be waited for gives a future that is never done instead, and `close` gets its hands on the code again.
    """


class TimerPort(Protocol):
    """Where the loop's waiting for time becomes durable."""

    def arm(self, fire_at: datetime, handle: "DurableTimerHandle") -> None:
        """Command a timer that runs `handle` when it fires."""
        ...

    def disarm(self, handle: "DurableTimerHandle") -> None:
        """Command that the timer of `handle` be cancelled, if it is still live."""
        ...


class DurableTimerHandle(asyncio.TimerHandle):
    """What `call_at` returns; cancelling it cancels the durable timer."""

    timer_id: str | None = None


class WorkflowTask(asyncio.Task[T]):
    """A task whose place in a set depends on its birth, not on its address.

    `asyncio` keeps tasks in sets and walks them (TaskGroup cancels its members so); with the default
    hash that order would differ from one process to the next, and with it the order of commands.
    """

    def __init__(
        self, coro: Coroutine[Any, Any, T], *, loop: "WorkflowLoop", **options: Any
    ) -> None:
        self._birth = loop.next_birth()  # before super(): asyncio hashes the task in there
        super().__init__(coro, loop=loop, **options)

    def __hash__(self) -> int:
        return self._birth


class WorkflowFuture(asyncio.Future[T]):
    """A future with the same deterministic hash as `WorkflowTask`."""

    def __init__(self, *, loop: "WorkflowLoop") -> None:
        super().__init__(loop=loop)
        self._birth = loop.next_birth()

    def __hash__(self) -> int:
        return self._birth


class WorkflowLoop(asyncio.AbstractEventLoop):
    """One run's loop. It never runs by itself: `run_ready` steps it, on whatever thread the engine is on."""

    def __init__(self, timers: TimerPort, salt: int) -> None:
        self._timers = timers
        self._ready: deque[asyncio.Handle] = deque()
        self._births = itertools.count(salt)
        self._tasks: list[weakref.ref[WorkflowTask[Any]]] = []
        self._prune_at = 64
        self._now = _EPOCH
        self._closed = False

    @classmethod
    def of(cls, timers: TimerPort, run_id: str) -> "WorkflowLoop":
        """Return a fresh loop for a run.

        The run id sets where the births begin: `asyncio` keeps the tasks of all runs in one set, where the
        same small numbers would collide.
        """
        # What is abstract in AbstractEventLoop is refused below, name by name; type checkers cannot see that.
        return cls(timers, zlib.crc32(run_id.encode()) << 20)  # pyright: ignore[reportAbstractUsage]

    # ------------------------------------------------------------------- the engine's side

    def set_time(self, now: datetime) -> None:
        """Move virtual time to `now`; it never goes backwards."""
        self._now = max(self._now, now)

    @property
    def now(self) -> datetime:
        """Virtual time as an instant."""
        return self._now

    def instant_after(self, delay: timedelta) -> datetime:
        """Return the instant `delay` from now.

        Raises:
            InvalidArgumentError: It is past every calendar, or `delay` is no `timedelta`.
        """
        try:
            return self._now + delay
        except TypeError as error:
            raise InvalidArgumentError("delay", f"must be a timedelta, got {delay!r}") from error
        except OverflowError as error:
            reason = f"{delay} from now is not on any calendar"
            raise InvalidArgumentError("delay", reason) from error

    @property
    def ready(self) -> int:
        """How many callbacks wait to be run."""
        return len(self._ready)

    def run_ready(self, done: Callable[[], bool]) -> None:
        """Run everything that is ready, and what that makes ready, until nothing is or `done()`."""
        ready = self._ready
        with _AsRunningLoop(self):
            while ready and not done():
                handle = ready.popleft()
                if handle.cancelled():
                    continue
                try:
                    handle._run()  # noqa: SLF001 - the loop is what calls this
                except SystemExit as error:
                    # Its task holds it, as it would any error; asyncio raises it through the loop besides.
                    _LOG.warning("sys.exit(%r) ends the workflow code that called it", error.code)

    def call_inside(self, function: Callable[[], T]) -> T:
        """Return what `function` returns when this is the running loop."""
        with _AsRunningLoop(self):
            return function()

    def run_timer(self, handle: DurableTimerHandle) -> None:
        """Make the callback of a fired timer ready."""
        handle.timer_id = None
        self._ready.append(handle)

    def next_birth(self) -> int:
        """Return the next number of the order in which tasks and futures were made."""
        return next(self._births)

    # --------------------------------------------------------------------- asyncio's side

    def time(self) -> float:
        """Return virtual time in seconds since 1970."""
        return self._now.timestamp()

    def call_soon(
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        """Run `callback` after what is ready now."""
        handle = asyncio.Handle(callback, args, self, context)
        if not self._closed:
            self._ready.append(handle)
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Run `callback` after `delay` seconds, by a durable timer."""
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Run `callback` at virtual time `when`, by a durable timer; at once if that has come.

        Raises:
            InvalidArgumentError: `when` is past every calendar, or not a number.
        """
        handle = DurableTimerHandle(when, callback, args, self, context)
        if self._closed:
            return handle
        delay = when - self.time()
        if delay <= 0:
            self._ready.append(handle)
            return handle
        try:
            # Whole microseconds: virtual time as a float is no finer.
            fire_at = self._now + timedelta(seconds=round(delay, 6))
        except (OverflowError, ValueError) as error:
            raise InvalidArgumentError(
                "delay", f"{delay:g} s from now is not on any calendar"
            ) from error
        self._timers.arm(fire_at, handle)
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        if isinstance(handle, DurableTimerHandle) and handle.timer_id is not None:
            self._timers.disarm(handle)

    def create_future(self) -> "asyncio.Future[Any]":
        """Return a future of this loop."""
        return WorkflowFuture(loop=self)

    def create_task(self, coro: Any, **options: Any) -> "asyncio.Task[Any]":
        """Start a task on this loop."""
        if self._closed:
            coro.close()  # the task will not take a step
            return WorkflowTask[Any](coro, loop=self, **options)
        task = WorkflowTask[Any](coro, loop=self, **options)
        self._tasks.append(weakref.ref(task))
        if len(self._tasks) >= self._prune_at:
            self._tasks = [known for known in self._tasks if _is_alive(known)]
            self._prune_at = max(64, 2 * len(self._tasks))
        return task

    def get_debug(self) -> bool:
        """Return false: debug mode measures wall-clock time."""
        return False

    def set_debug(self, enabled: bool) -> None:
        """Do nothing; see `get_debug`."""

    def is_running(self) -> bool:
        """Return whether a step is being taken."""
        return events._get_running_loop() is self  # noqa: SLF001 - the public form raises where there is none

    def is_closed(self) -> bool:
        """Return whether the run was taken out of memory."""
        return self._closed

    def close(self) -> None:
        """Take the code out of memory. Its `finally` blocks run, and reach nothing: what they ask for never comes."""
        self._closed = True
        self._ready.clear()
        with _AsRunningLoop(self):
            for known in self._tasks:
                task = known()
                if task is not None and not task.done():
                    self._unwind(task)
        self._tasks.clear()

    def _unwind(self, task: WorkflowTask[Any]) -> None:
        """Close a task's coroutine; one that awaits again while it is closed is closed again, a few times."""
        coro: Any = task.get_coro()
        asyncio.tasks._enter_task(self, task)  # noqa: SLF001 - asyncio.timeout and TaskGroup ask for it
        try:
            for _ in range(_UNWINDINGS):
                # What it raises on its way out nobody listens to.
                with suppress(EvictedError, Exception, SystemExit):
                    coro.close()
                    return
        finally:
            asyncio.tasks._leave_task(self, task)  # noqa: SLF001 - see above
        _LOG.warning(
            "%s catches everything and waits again: it cannot be ended, and what it holds stays in memory; "
            "let it catch Exception",
            getattr(coro, "__qualname__", coro),
        )
        _never_finalize(coro)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Log what a callback raised, or what a future carried that nobody looked at."""
        if not self._closed:
            _LOG.warning(
                "in workflow code: %s", context.get("message"), exc_info=context.get("exception")
            )

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """Do the same."""
        self.call_exception_handler(context)


def _is_alive(known: "weakref.ref[WorkflowTask[Any]]") -> bool:
    task = known()
    return task is not None and not task.done()


def _never_finalize(coro: Any) -> None:
    """Keep a coroutine for as long as the process lives.

    Its finalizer would close it once more, at any time and on any thread. There is no loop of its own there, so all
    that it waits for is refused at once, and it would ask again for ever.
    """
    import ctypes  # not at the top: hardly anybody comes here

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(coro))


def _refuse(name: str) -> Callable[..., NoReturn]:
    def refused(_self: WorkflowLoop, *_args: object, **_options: object) -> NoReturn:
        raise WorkflowSandboxError(f"loop.{name}()")

    refused.__name__ = name
    return refused


# Everything else that a loop can do reaches outside: threads, sockets, processes, signals.
for _name in dir(asyncio.AbstractEventLoop):
    if not _name.startswith("_") and _name not in vars(WorkflowLoop):
        setattr(WorkflowLoop, _name, _refuse(_name))

# From 3.14 on a task may only be stepped while no other is being stepped, whichever loop it is on.
_swap_current_task: Final[Callable[[Any, Any], Any] | None] = (
    getattr(asyncio.tasks, "_swap_current_task", None) if sys.version_info >= (3, 14) else None
)


def _has_current_task(loop: asyncio.AbstractEventLoop | None) -> bool:
    return loop is not None and asyncio.current_task(loop) is not None


class _AsRunningLoop:
    """Makes `loop` the running one, inside a step of the engine's own loop, and puts that back.

    A class, not a generator: it is entered for every fact, and costs half as much.
    """

    __slots__ = ("_hooks", "_loop", "_outer", "_task")

    def __init__(self, loop: WorkflowLoop) -> None:
        self._loop = loop
        self._outer: asyncio.AbstractEventLoop | None = None
        self._task: Any = None

    def __enter__(self) -> None:
        self._outer = events._get_running_loop()  # noqa: SLF001 - nesting loops is what we are here for
        if _swap_current_task is not None and _has_current_task(self._outer):
            self._task = _swap_current_task(self._outer, None)
        events._set_running_loop(self._loop)  # noqa: SLF001 - see above
        # An async generator of the code's must not be finished by the outer loop, after the run is gone.
        self._hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(None, None)

    def __exit__(self, *_error: object) -> None:
        sys.set_asyncgen_hooks(*self._hooks)
        events._set_running_loop(self._outer)  # noqa: SLF001 - see above
        if _swap_current_task is not None and self._task is not None:
            _swap_current_task(self._outer, self._task)

"""The doors out of workflow code that its event loop does not see: threads, processes, sockets, other loops.

`guard_doors` puts a check in front of each. It refuses only while a step of workflow code is being taken in the
present thread; to everybody else a door costs a tenth of a microsecond more. What is recorded (`ctx.side_effect`)
or is no part of the code (logging, tracing, imports, a debugger) goes through.
"""

import asyncio
import concurrent.futures
import functools
import inspect
import multiprocessing.process
import os
import socket
import subprocess
import threading
from asyncio import base_events, events, runners
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final

from aion_es.authoring.context import Context
from aion_es.engine.loop import WorkflowLoop
from aion_es.errors import WorkflowSandboxError

_DOORS: Final[tuple[tuple[Any, str, str], ...]] = (
    (threading.Thread, "start", "threading.Thread.start()"),
    # Made first by every executor's submit(), also by one whose threads or processes are there already.
    (concurrent.futures.Future, "__init__", "an executor of concurrent.futures"),
    (multiprocessing.process.BaseProcess, "start", "multiprocessing.Process.start()"),
    (subprocess.Popen, "__init__", "subprocess.Popen()"),
    *((os, name, f"os.{name}()") for name in ("fork", "forkpty", "posix_spawn", "posix_spawnp")),
    (os, "system", "os.system()"),
    (socket.socket, "__init__", "socket.socket()"),
    (socket, "getaddrinfo", "socket.getaddrinfo()"),
    (socket, "gethostbyname", "socket.gethostbyname()"),
)
"""Owner, name, and what a refusal calls it. A door that a platform does not have is left out."""

_LET_THROUGH: Final = frozenset({"logging", "opentelemetry", "importlib", "_pydevd_bundle"})
"""Packages that do what they do for somebody else, though workflow code calls them."""

_guarded = False


def guard_doors() -> None:
    """Put the checks in place, once for the life of the program; later calls do nothing."""
    global _guarded  # noqa: PLW0603 - the doors are the program's, and so is this
    if _guarded:
        return
    _guarded = True
    for owner, name, operation in _DOORS:
        if hasattr(owner, name):
            setattr(owner, name, _checked(getattr(owner, name), operation))
    base_events.BaseEventLoop.__init__ = _checked_loop(base_events.BaseEventLoop.__init__)  # type: ignore[method-assign]  # a door
    asyncio.run = runners.run = _checked_run(asyncio.run)


def _checked(door: Callable[..., Any], operation: str) -> Callable[..., Any]:
    @functools.wraps(door)
    def checked(*args: Any, **options: Any) -> Any:
        _require_outside(operation)
        return door(*args, **options)

    return checked


def _checked_loop(door: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(door)
    def checked(loop: Any, *args: Any, **options: Any) -> None:
        try:
            _require_outside("asyncio.new_event_loop()")
        except WorkflowSandboxError:
            loop._closed = True  # noqa: SLF001 - or its end would be reported, of a loop that never began
            raise
        door(loop, *args, **options)

    return checked


def _checked_run(door: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(door)
    def checked(main: Any, **options: Any) -> Any:
        try:
            _require_outside("asyncio.run()")
        except WorkflowSandboxError:
            if inspect.iscoroutine(main):
                main.close()  # or it would be reported as never awaited
            raise
        return door(main, **options)

    return checked


def _require_outside(operation: str) -> None:
    """Check that no workflow code asks.

    Raises:
        WorkflowSandboxError: A step is being taken in this thread, and nothing else is in between.
    """
    if type(events._get_running_loop()) is WorkflowLoop and not _is_let_through():  # noqa: SLF001 - see loop.py
        raise WorkflowSandboxError(operation)


def _is_let_through() -> bool:
    for frame in _callers():
        module = str(frame.f_globals.get("__name__"))
        if module == WorkflowLoop.__module__:
            return False  # what is further out is the engine's own business, not the code's
        if module.partition(".")[0] in _LET_THROUGH or frame.f_code is Context.side_effect.__code__:
            return True
    return False


def _callers() -> Iterator[FrameType]:
    frame = inspect.currentframe()
    while frame is not None:
        yield frame
        frame = frame.f_back

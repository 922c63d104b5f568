"""Executors: where the code of an attempt runs, on the engine's loop, in its threads, or in its processes."""

import asyncio
import contextvars
import functools
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from aion_es.authoring.activities import RUNNING
from aion_es.authoring.definitions import ActivityDefinition, Executor
from aion_es.engine.failures import activity_failure_of
from aion_es.engine.heartbeats import Pulse
from aion_es.engine.processes import FailedElsewhereError, ProcessWorkers
from aion_es.events.values import RetryPolicy

_MAX_THREADS: Final = 64
"""More threads than this take more time from each other than they spend waiting."""


class Executors:
    """The threads and processes of one engine; they are started when they are first needed.

    A thread, or a process of a pool, cannot be stopped: what runs in one and is no longer wanted goes on
    until it ends by itself, or asks `activity.is_cancelled()`.
    """

    def __init__(self, max_concurrent: int, max_details_bytes: int) -> None:
        self._max_threads = min(max_concurrent, _MAX_THREADS)
        self._max_processes = min(max_concurrent, os.cpu_count() or 1)
        self._max_details_bytes = max_details_bytes
        self._threads: ThreadPoolExecutor | None = None
        self._processes: ProcessWorkers | None = None

    @property
    def places(self) -> Mapping[Executor, int]:
        """How many attempts each executor runs at once; one that is not named has no bound."""
        return {"thread": self._max_threads, "process": self._max_processes}

    async def call(
        self,
        definition: ActivityDefinition,
        arguments: tuple[Any, ...],
        pulse: Pulse,
        policy: RetryPolicy,
    ) -> Any:
        """Run an attempt's code and return its result, or raise what it raised.

        The caller's task is the attempt's own: what the code may ask about itself is set in its context.

        Raises:
            FailedElsewhereError: It raised in another process, or what cannot leave its thread; says what is
                recorded of that.
        """
        function = definition.function
        if definition.executor == "process":
            if self._processes is None:
                self._processes = ProcessWorkers(self._max_processes, self._max_details_bytes)
            return await self._processes.call(function, arguments, pulse, policy)
        RUNNING.set(pulse)
        if definition.executor == "async":
            return await function(*arguments)
        if self._threads is None:
            self._threads = ThreadPoolExecutor(
                self._max_threads, thread_name_prefix="aion-activity"
            )
        context = contextvars.copy_context()
        call = functools.partial(_call_in_thread, function, arguments, policy)
        return await asyncio.get_running_loop().run_in_executor(self._threads, context.run, call)

    def tell_cancelled(self, pulse: Pulse) -> None:
        """Let code that runs in a process see that it is no longer wanted; elsewhere it sees for itself."""
        if self._processes is not None:
            self._processes.tell_cancelled(pulse)

    def close(self) -> None:
        """Take nothing more; what runs in threads and processes ends by itself."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
        if self._processes is not None:
            self._processes.close()


def _call_in_thread(
    function: Callable[..., Any], arguments: tuple[Any, ...], policy: RetryPolicy
) -> Any:
    try:
        return function(*arguments)
    except (StopIteration, GeneratorExit) as error:
        # No future takes the one, no coroutine that awaits lives on after the other.
        raise FailedElsewhereError(activity_failure_of(error, policy)) from error

"""The tasks that an open store runs: started here only, ended by the store's `aclose`."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, Final

_LOG: Final = logging.getLogger("aion_es.store.eventstoredb")


class Tasks:
    """Owns the tasks of one store.

    A store is opened in one call and closed in another, so no `async with TaskGroup` can stand around
    its life; this class gives the same guarantee by other means: none outlives `aclose`, and a failure
    that nobody expects is logged.
    """

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
        """Start a task; it may end by itself."""
        task = asyncio.create_task(work, name=name)  # noqa: TID251 - owned here, see the class
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Start a task that ends by itself, and that nobody asks after."""
        self._running.add(self.start(work, name))

    async def end(self, task: "asyncio.Task[None]") -> None:
        """Cancel one task and wait until it is over."""
        task.cancel()
        await asyncio.wait({task})

    async def aclose(self) -> None:
        """Cancel all tasks but the one that asks, and wait until they are over."""
        running = self._running - {asyncio.current_task()}
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _LOG.error(
                "%s ended by a failure that nobody expected", task.get_name(), exc_info=error
            )

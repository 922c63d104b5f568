"""The registry: which runs this engine knows, and the completion that anybody may await."""

import asyncio
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from aion_es.aggregates.status import WorkflowStatus
from aion_es.events.workflow import TerminalEvent
from aion_es.ids import RunId, WorkflowId

Residency: TypeAlias = Literal["resident", "suspended"]
"""In memory with its coroutine, or only in its history until something wakes it."""


class Completion:
    """How one run ends: told once, to any number who wait. Lives as long as somebody holds it."""

    __slots__ = ("__weakref__", "_waiters", "outcome", "run_id", "workflow_id")

    def __init__(self, workflow_id: WorkflowId, run_id: RunId) -> None:
        self.workflow_id = workflow_id
        self.run_id = run_id
        self.outcome: TerminalEvent | None = None
        self._waiters: list[asyncio.Future[TerminalEvent]] = []

    async def wait(self) -> TerminalEvent:
        """Return the run's terminal event, waiting for it.

        Raises:
            Exception: What `fail` was called with while this waited.
        """
        if self.outcome is not None:
            return self.outcome
        waiter: asyncio.Future[TerminalEvent] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            return await waiter
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def tell(self, outcome: TerminalEvent) -> None:
        """Tell everybody who waits, and everybody who asks later."""
        self.outcome = outcome
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(outcome)

    def fail(self, error: Exception) -> None:
        """Tell everybody who waits now that this process will not learn how the run ends; later ones wait anew."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(error)


@dataclass(slots=True)
class Registration:
    """One open run that this engine has had in memory.

    Attributes:
        open_at: A revision at which it is known to have been open: an end before that was undone.
        stuck: Why its code cannot go on here; `None` if it can.
    """

    workflow_id: WorkflowId
    run_id: RunId
    workflow_type: str
    version: str
    status: WorkflowStatus
    residency: Residency
    open_at: int
    stuck: str | None = None


class Registry:
    """Open runs by workflow id (the newest run), and completions by run.

    Attributes:
        on_closed: Told of every run that is known to have closed, whether it was registered or not.
    """

    def __init__(self) -> None:
        self.on_closed: Callable[[WorkflowId], None] | None = None
        self._open: dict[WorkflowId, Registration] = {}
        self._completions: weakref.WeakValueDictionary[tuple[WorkflowId, RunId], Completion] = (
            weakref.WeakValueDictionary()
        )

    def __iter__(self) -> Iterator[Registration]:
        return iter(tuple(self._open.values()))

    def __len__(self) -> int:
        return len(self._open)

    def completion(self, workflow_id: WorkflowId, run_id: RunId) -> Completion:
        """Return the completion of a run; the same object for everybody while anybody holds it."""
        completion = self._completions.get((workflow_id, run_id))
        if completion is None:
            completion = Completion(workflow_id, run_id)
            self._completions[workflow_id, run_id] = completion
        return completion

    def find_completion(self, workflow_id: WorkflowId, run_id: RunId) -> Completion | None:
        """Return the completion that somebody holds, if anybody does."""
        return self._completions.get((workflow_id, run_id))

    def tell(self, workflow_id: WorkflowId, run_id: RunId, outcome: TerminalEvent) -> None:
        """Tell those who wait for a run how it ended, if anybody does."""
        completion = self.find_completion(workflow_id, run_id)
        if completion is not None:
            completion.tell(outcome)

    def fail(self, workflow_id: WorkflowId, error: Exception) -> None:
        """Tell those who wait for any run of a workflow, because its stream cannot be read here."""
        for completion in list(self._completions.values()):
            if completion.workflow_id == workflow_id:
                completion.fail(error)

    def newest(self, workflow_id: WorkflowId) -> Registration | None:
        """Return the open run of this id, if this engine knows one."""
        return self._open.get(workflow_id)

    def register(self, registration: Registration) -> None:
        """Take an open run in; a newer run takes the place of an older one of the same id."""
        self._open[registration.workflow_id] = registration

    def remove(self, workflow_id: WorkflowId, run_id: RunId) -> None:
        """Forget a run that closed; never a newer one of the same id."""
        known = self._open.get(workflow_id)
        if known is not None and known.run_id == run_id:
            del self._open[workflow_id]
        if self.on_closed is not None:
            self.on_closed(workflow_id)

"""What is told of a run from its history: to its parent, its children, and those who wait for its end."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from typing import Any, Final

from aion_es.aggregates.state import WorkflowState
from aion_es.aggregates.workflow_repository import WorkflowRepository
from aion_es.engine.couriers import Couriers, child_run_id
from aion_es.engine.patience import UNREADABLE, persistently
from aion_es.engine.registry import Registry
from aion_es.engine.tracing import RunContexts
from aion_es.errors import DomainError, RunNotFoundError
from aion_es.events.values import WorkflowRef
from aion_es.events.workflow import WorkflowContinuedAsNew
from aion_es.ids import RunId, SignalId, WorkflowId

_LOG: Final = logging.getLogger("aion_es.engine")


class Relatives:
    """Reads what became of runs, and sends the couriers."""

    def __init__(
        self,
        repository: WorkflowRepository,
        couriers: Couriers,
        registry: Registry,
        spawn: Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"],
        *,
        traced: bool,
    ) -> None:
        self._repository = repository
        self._couriers = couriers
        self._registry = registry
        self._spawn = spawn
        self._traced = traced
        self._jobs: set[asyncio.Task[None]] = set()
        self._closed = False

    async def settle_children(self, parent: WorkflowRef, children: Iterable[WorkflowId]) -> None:
        """Start, cancel or close children of a run, from what its own history says of them.

        Raises:
            StoreError: The history cannot be read.
        """
        state, contexts = await self._traced_state(parent.workflow_id, parent.run_id)
        self._couriers.settle_children(state, children, contexts=contexts)

    async def sent_in(self, sender: WorkflowRef, signal_id: SignalId) -> str | None:
        """Return the trace context in which a run sent a signal; `None` where nobody records.

        Raises:
            StoreError: The history cannot be read.
            RunNotFoundError: There is no such run.
        """
        if not self._traced:
            return None
        _, contexts = await self._traced_state(sender.workflow_id, sender.run_id)
        return None if contexts is None else contexts.of_signal(signal_id)

    def settle_replaced(self, workflow_id: WorkflowId, run_id: RunId) -> None:
        """Close the children of a run that another has replaced, and tell its parent of its end."""
        self._insist(lambda: self._settle_replaced(workflow_id, run_id))

    def tell_end(self, workflow_id: WorkflowId, run_id: RunId) -> None:
        """Tell those who wait for a run that has been succeeded how it ended, if there are any."""
        if self._registry.find_completion(workflow_id, run_id) is not None:
            self._insist(lambda: self._tell_end(workflow_id, run_id))

    def ask_children(self, state: WorkflowState) -> None:
        """Tell a run again how those of its children ended that have: it may have been closed when it was told."""
        parent = WorkflowRef(workflow_id=state.workflow_id, run_id=state.run_id)
        for child_id in state.pending.children:
            self._insist(lambda child_id=child_id: self.ask_child(parent, child_id))  # type: ignore[misc]  # bound at once

    async def ask_child(self, parent: WorkflowRef, child_workflow_id: WorkflowId) -> None:
        """Tell a parent how its child ended, if it has, from the child's history; begin one that never was.

        Its parent may have been told that it cannot be begun, and have been reopened since.

        Raises:
            StoreError: A history cannot be read.
        """
        try:
            begun = await self._tell_parent(parent, child_workflow_id)
        except RunNotFoundError:
            begun = False  # its id was given to another
        if not begun:
            state, contexts = await self._traced_state(parent.workflow_id, parent.run_id)
            children = [child_workflow_id]
            self._couriers.settle_children(state, children, contexts=contexts, again=True)

    async def _tell_parent(self, parent: WorkflowRef, child_workflow_id: WorkflowId) -> bool:
        """Tell of the end of the chain that the child began; return whether it began one.

        Raises:
            RunNotFoundError: It did not, and its id has been given to another.
        """
        state = await self._current(child_workflow_id)
        run_id = child_run_id(parent, child_workflow_id)
        while state is not None and (
            state.parent != parent or isinstance(state.terminal, WorkflowContinuedAsNew)
        ):
            state = await self._state(child_workflow_id, run_id)
            if isinstance(state.terminal, WorkflowContinuedAsNew):
                run_id = state.terminal.new_run_id
        if state is not None and state.terminal is not None:
            self._couriers.tell_parent(parent, child_workflow_id, state.terminal)
        return state is not None

    def close(self) -> None:
        """Stop: what is owed is found at the next recovery."""
        self._closed = True
        for job in self._jobs:
            job.cancel()

    async def _settle_replaced(self, workflow_id: WorkflowId, run_id: RunId) -> None:
        state, contexts = await self._traced_state(workflow_id, run_id)
        self._couriers.settle_children(state, contexts=contexts)
        if state.parent is not None and state.terminal is not None:
            self._couriers.tell_parent(state.parent, workflow_id, state.terminal)

    async def _tell_end(self, workflow_id: WorkflowId, run_id: RunId) -> None:
        state = await self._state(workflow_id, run_id)
        if state.terminal is not None:
            self._registry.tell(workflow_id, run_id, state.terminal)

    async def _current(self, workflow_id: WorkflowId) -> WorkflowState | None:
        current = await self._repository.load(workflow_id)
        return current.state if current.exists else None

    async def _state(self, workflow_id: WorkflowId, run_id: RunId) -> WorkflowState:
        return (await self._traced_state(workflow_id, run_id))[0]

    async def _traced_state(
        self, workflow_id: WorkflowId, run_id: RunId
    ) -> tuple[WorkflowState, RunContexts | None]:
        history = await self._repository.run_history(workflow_id, run_id)
        contexts = RunContexts.of(history) if self._traced else None
        return self._repository.fold(workflow_id, history).state, contexts

    def _insist(self, job: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if self._closed:
            return
        task = self._spawn(self._try(job))
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)

    async def _try(self, job: Callable[[], Coroutine[Any, Any, None]]) -> None:
        with suppress(DomainError):  # there is no such run: nothing is owed
            try:
                await persistently(job, log=_LOG, what="an errand between workflows")
            except UNREADABLE as error:
                _LOG.error("an errand between workflows is left for now: %s", error)

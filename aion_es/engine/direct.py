"""A gateway without an engine: commands go straight to the aggregates, ends are learnt from the stream.

What it records, an engine on the same store hears of and follows up.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final, cast, get_args

from aion_es.aggregates.workflow_repository import WorkflowRepository
from aion_es.clock import Clock
from aion_es.engine.catalog import Catalog
from aion_es.engine.execution import CodeExecution
from aion_es.engine.failures import reason_without_code
from aion_es.engine.patience import UNREADABLE, follow
from aion_es.engine.registry import Completion, Registry
from aion_es.engine.replay import ask_history
from aion_es.engine.requests import Committed, Decide
from aion_es.engine.surroundings import Surroundings
from aion_es.errors import QueryFailedError, VersionNotLoadedError
from aion_es.events.codec import decode_envelope
from aion_es.events.workflow import TerminalEvent
from aion_es.ids import RunId, WorkflowId
from aion_es.store.port import EventSubscriber, RecordedEvent
from aion_es.telemetry import is_recording, traceparent

_LOG: Final = logging.getLogger("aion_es.client")
_TERMINAL: Final = get_args(TerminalEvent)
_ENDS: Final = frozenset(kind.__name__ for kind in _TERMINAL)


class DirectGateway:
    """Implements `Gateway` for a process that runs no workflow code.

    Args:
        store: Where the streams are followed.
        repository: The way to the aggregates.
        catalog: Code that may answer queries here; may be empty.
        surroundings: What code needs when it is brought back for a query.
        clock: The present instant.
        stuck: Gives the reason why a run is stuck, as some engine has noted it.
    """

    def __init__(
        self,
        store: EventSubscriber,
        repository: WorkflowRepository,
        catalog: Catalog,
        surroundings: Surroundings,
        clock: Clock,
        stuck: Callable[[WorkflowId, RunId], Any],
    ) -> None:
        self._store = store
        self._repository = repository
        self._catalog = catalog
        self._surroundings = surroundings
        self._clock = clock
        self._stuck = stuck
        self._registry = Registry()
        self._traced = is_recording()

    async def request(
        self,
        workflow_id: WorkflowId,
        decide: Decide,
        *,
        starts: bool = False,  # noqa: ARG002 - here every command may meet an unknown id
    ) -> Committed:
        """Give a command to a workflow's aggregate and return what came of it.

        Raises:
            DomainError: The aggregate refused; nothing was recorded.
            ConcurrencyConflictError: Others were faster, again and again; nothing was recorded.
            StoreError: The store is away, or refuses.
        """
        executed = await self._repository.execute(
            workflow_id,
            lambda workflow: decide(workflow, self._clock.now()),
            traceparent=traceparent() if self._traced else None,
        )
        return Committed(executed.events, executed.workflow.state.run_id, executed.position)

    async def ask(
        self, workflow_id: WorkflowId, run_id: RunId | None, ask: Callable[[CodeExecution], Any]
    ) -> Any:
        """Ask a workflow's code, brought back here from its history for that.

        Raises:
            WorkflowNotFoundError, RunNotFoundError: There is no such run.
            QueryFailedError: This process was opened without the code of the run.
            QueryNotFoundError: The code answers no query of this name.
        """
        if run_id is None:
            run_id = await self._repository.current_run(workflow_id)
        try:
            return await ask_history(
                self._repository, workflow_id, run_id, self._catalog.pinned, self._surroundings, ask
            )
        except VersionNotLoadedError as error:
            advice = "queries are answered by code: open the client with workflows=[…]"
            raise QueryFailedError("", f"{reason_without_code(error)}; {advice}") from error

    def completion(self, workflow_id: WorkflowId, run_id: RunId) -> Completion:
        """Return the completion of a run, to be held by who waits for it."""
        return self._registry.completion(workflow_id, run_id)

    async def outcome(
        self, workflow_id: WorkflowId, run_id: RunId, completion: Completion
    ) -> TerminalEvent:
        """Return the terminal event of a run, waiting for it.

        Raises:
            WorkflowNotFoundError, RunNotFoundError: There is no such run.
            UnknownEventTypeError, EventDecodeError: Its newest event, or its end, cannot be read here. What
                comes in between is not read: engines go on with the run that know more than this process.
        """
        if completion.outcome is not None:
            return completion.outcome
        outcome, revision = await self._repository.run_end(workflow_id, run_id)
        if outcome is None:
            outcome = await self._follow(workflow_id, run_id, revision + 1)
        completion.tell(outcome)
        return outcome

    async def stuck_reason(self, workflow_id: WorkflowId, run_id: RunId) -> str | None:
        """Return why a run's code cannot go on, as some engine has noted it."""
        reason: str | None = await self._stuck(workflow_id, run_id)
        return reason

    async def _follow(self, workflow_id: WorkflowId, run_id: RunId, revision: int) -> TerminalEvent:
        """Return the terminal event of a run that comes at `revision` or later."""
        stream = self._repository.stream(workflow_id)
        ends: list[TerminalEvent | Exception] = []

        async def take(events: Sequence[RecordedEvent]) -> bool:
            nonlocal revision
            for event in events:
                revision = event.revision + 1
                if event.type not in _ENDS:
                    continue
                try:
                    envelope = decode_envelope(event)
                except UNREADABLE as error:  # it will not be readable when it comes again
                    ends.append(error)
                    return True
                if envelope.run_id == run_id:
                    ends.append(cast("TerminalEvent", envelope.event))
                    return True
            return False

        await follow(
            lambda: self._store.subscribe(stream, from_revision=revision),
            take,
            log=_LOG,
            what=stream,
        )
        if isinstance(ends[0], Exception):
            raise ends[0]
        return ends[0]

"""Loading and saving workflows: `repository.py` does the I/O, this says what is read of a stream of runs."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import NamedTuple, cast, get_args

from aion_es.aggregates.attributes import AttributeSchema
from aion_es.aggregates.repository import (
    Origin,
    PreparedAppend,
    ReadWriteStore,
    Repository,
    Saved,
    decoded,
)
from aion_es.aggregates.retries import DEFAULT_RETRIES, RetrySettings
from aion_es.aggregates.workflow import Workflow
from aion_es.errors import RunNotFoundError, WorkflowNotFoundError
from aion_es.events.codec import decode, decode_envelope, decode_metadata
from aion_es.events.metadata import Envelope
from aion_es.events.workflow import TerminalEvent, WorkflowEvent
from aion_es.ids import (
    DEFAULT_NAMESPACE,
    IdSource,
    RunId,
    StreamName,
    WorkflowId,
    check_id,
    workflow_stream,
)
from aion_es.store.port import Appended, Position, RecordedEvent


class Executed(NamedTuple):
    """What a command on a workflow did.

    Attributes:
        events: What it added; empty if it had already had its effect.
        workflow: As it is now.
        revision: Of its last event; -1 if there is none.
        position: Of its last event in the store; `None` if nothing was appended.
    """

    events: tuple[WorkflowEvent, ...]
    workflow: Workflow
    revision: int
    position: Position | None


class RunEnd(NamedTuple):
    """How far a run has come.

    Attributes:
        event: Its terminal event; `None` while it is open.
        revision: Of its newest event.
    """

    event: TerminalEvent | None
    revision: int


class WorkflowRepository(Repository[Workflow, WorkflowEvent]):
    """Workflows in a store, each in its own stream."""

    _begins = "WorkflowStarted"

    def __init__(
        self,
        store: ReadWriteStore,
        *,
        namespace: str = DEFAULT_NAMESPACE,
        schema: AttributeSchema | None = None,
        ids: IdSource | None = None,
        retries: RetrySettings = DEFAULT_RETRIES,
    ) -> None:
        """Keep what is needed; nothing is read.

        Args:
            store: Where the streams are.
            namespace: `[a-z0-9_]{1,64}`, the first part of every stream's name.
            schema: The search attributes that may be set. Default: none.
            ids: Makes command ids for those who bring none. Default: UUIDv7.
            retries: Of conflicts in `execute`, and of appends while the store is away.

        Raises:
            InvalidIdError: The namespace has another form.
        """
        super().__init__(store, namespace=namespace, ids=ids, retries=retries)
        self._schema = schema if schema is not None else AttributeSchema()

    def stream(self, workflow_id: str) -> StreamName:
        """Return the name of the stream that holds every run of `workflow_id`.

        Raises:
            InvalidIdError: The id is not 1–255 printable characters.
        """
        return workflow_stream(self._namespace, WorkflowId(check_id("workflow_id", workflow_id)))

    def new(self, workflow_id: str) -> Workflow:
        """Return an aggregate without history: what it saves expects that there is no stream.

        Raises:
            InvalidIdError: The id is not 1–255 printable characters.
        """
        return Workflow(WorkflowId(workflow_id), schema=self._schema)

    async def load(self, workflow_id: str) -> Workflow:
        """Return the workflow with its current run; an unknown id gives an empty aggregate.

        Reads the current run only, however long the chain.

        Raises:
            InvalidIdError: The id is not 1–255 printable characters.
            StoreError: The history cannot be read.
        """
        return await self._load(workflow_id)

    def fold(self, workflow_id: str, history: Sequence[Envelope[WorkflowEvent]]) -> Workflow:
        """Return the aggregate of a history that was read before."""
        return self._fold(workflow_id, history)

    async def history(self, workflow_id: str) -> list[Envelope[WorkflowEvent]]:
        """Return the current run's events, oldest first; an unknown id gives none.

        Raises:
            StoreError: The history cannot be read.
        """
        return await self._current(self.stream(workflow_id))

    async def run_history(self, workflow_id: str, run_id: str) -> list[Envelope[WorkflowEvent]]:
        """Return the events of any run of the workflow, oldest first; reads back as far as that run.

        Raises:
            WorkflowNotFoundError: No run was ever started under this id.
            RunNotFoundError: None of its runs has this id.
            StoreError: The history cannot be read.
        """
        known = False
        run: list[RecordedEvent] = []
        async with aclosing(self._backwards(self.stream(workflow_id))) as pages:
            async for page in pages:
                known = True
                for stored in page:
                    run.append(stored)
                    if not self._is_beginning(stored):
                        continue
                    if decode_envelope(stored).run_id == run_id:
                        return decoded(run)
                    run.clear()
        raise RunNotFoundError(workflow_id, run_id) if known else WorkflowNotFoundError(workflow_id)

    async def current_run(self, workflow_id: str) -> RunId:
        """Return the id of the workflow's newest run; reads one event.

        Raises:
            WorkflowNotFoundError: No run was ever started under this id.
            StoreError: The history cannot be read.
        """
        newest = self._store.read(self.stream(workflow_id), backwards=True, limit=1)
        async for stored in newest:
            run_id = decode_envelope(stored).run_id
            if run_id is not None:
                return run_id
        raise WorkflowNotFoundError(workflow_id)

    async def run_end(self, workflow_id: str, run_id: str) -> RunEnd:
        """Return how a run has ended, if it has; reads back as far as the run's newest event, which tells.

        Raises:
            WorkflowNotFoundError: No run was ever started under this id.
            RunNotFoundError: None of its runs has this id.
            StoreError: The history cannot be read.
        """
        known = False
        async with aclosing(self._backwards(self.stream(workflow_id))) as pages:
            async for page in pages:
                known = True
                for stored in page:
                    if decode_metadata(stored).run_id == run_id:
                        event = decode(stored)
                        ended = isinstance(event, get_args(TerminalEvent))
                        return RunEnd(
                            cast("TerminalEvent", event) if ended else None, stored.revision
                        )
        raise RunNotFoundError(workflow_id, run_id) if known else WorkflowNotFoundError(workflow_id)

    async def save(
        self,
        workflow: Workflow,
        *,
        command_id: str | None = None,
        activated: bool = False,
        causation_id: str | None = None,
        correlation_id: str | None = None,
        traceparent: str | None = None,
    ) -> Saved | None:
        """Append what the aggregate holds uncommitted, in one batch, at the revision it was loaded at.

        Args:
            workflow: As it was loaded, with what its commands added.
            command_id: Identity of the command: the events' ids derive from it. Default: a fresh one.
            activated: The run's code has seen everything up to the last of these events.
            causation_id: The event or command that led here.
            correlation_id: What the whole conversation is about. Default: the workflow id.
            traceparent: W3C trace context.

        Returns:
            Where the last event stands; `None` if there was nothing to append.

        Raises:
            ConcurrencyConflictError: The stream moved; nothing was written. Throw the aggregate away.
            PayloadTooLargeError: An event, or all of them, exceeds what the store takes; nothing was written.
            PayloadError: An event cannot be written as JSON (a lone surrogate); nothing was written.
            StoreUnavailableError: The store stayed away for all attempts, each with the same ids;
                `outcome_unknown` if one of them may have been written.
            StoreError: Anything else; nothing was written.
        """
        origin = Origin(command_id, causation_id, correlation_id, traceparent)
        return await self._save(workflow, origin, activated=activated)

    def prepare(
        self,
        workflow: Workflow,
        *,
        command_id: str,
        activated: bool,
        traceparents: Sequence[str | None] | None = None,
    ) -> list[PreparedAppend]:
        """Return the appends of what the aggregate holds uncommitted, for `submit`, in order.

        One, unless it is larger than the store takes at once. Then it is cut between events: a history
        that ends behind one of the cuts is a right one, and replay derives the rest anew.

        Args:
            workflow: As it was loaded, with what its commands added.
            command_id: Identity of the command: the events' ids derive from it.
            activated: The run's code has seen everything up to the last of these events.
            traceparents: W3C trace context of each event; `None` for none at all.

        Raises:
            PayloadTooLargeError: An event exceeds what the store accepts.
            PayloadError: A value cannot be written as JSON.
        """
        origin = Origin(command_id, None, None, None)
        return self._prepare_parts(workflow, origin, traceparents, activated=activated)

    def submit(self, prepared: PreparedAppend) -> "asyncio.Future[Appended]":
        """Begin an append that is tried once; `workflow.mark_saved` is the caller's, when it is answered.

        Raises:
            What `EventWriter.submit` raises; so does the future.
        """
        return self._submit(prepared)

    async def execute(
        self,
        workflow_id: str,
        decide: Callable[[Workflow], object],
        *,
        command_id: str | None = None,
        causation_id: str | None = None,
        correlation_id: str | None = None,
        traceparent: str | None = None,
    ) -> Executed:
        """Load, decide, append; on a conflict read only what is new, and decide anew.

        Args:
            workflow_id: Whose aggregate.
            decide: Gives one or more commands to the aggregate; called again after each conflict.
            command_id: As in `save`, as are the others.
            causation_id: The event or command that led here.
            correlation_id: What the whole conversation is about. Default: the workflow id.
            traceparent: W3C trace context.

        Raises:
            DomainError: `decide` was refused; that is final, and nothing was written.
            ConcurrencyConflictError: Every attempt lost its race; nothing was written.
            StoreError: As `save`.
        """
        origin = Origin(command_id, causation_id, correlation_id, traceparent)
        events, workflow, saved = await self._execute(workflow_id, decide, origin)
        return Executed(events, workflow, workflow.revision, saved.position if saved else None)

    def _new(self, id: str) -> Workflow:
        return self.new(id)

    def _stream(self, id: str) -> StreamName:
        return self.stream(id)

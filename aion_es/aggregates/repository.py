"""Loading and saving aggregates: the only I/O of this package, and the only way into a stream.

A command is load, guard, append with the revision that was loaded. The guard and the append see the same
revision, so no check can be outrun; whoever loses the race reads what is new and is guarded again.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Final,
    Generic,
    NamedTuple,
    Protocol,
    TypeVar,
    cast,
    get_args,
)

from pydantic_core import PydanticSerializationError

from aion_es.aggregates.aggregate import Aggregate
from aion_es.aggregates.attributes import AttributeSchema
from aion_es.aggregates.retries import DEFAULT_RETRIES, RetrySettings
from aion_es.aggregates.schedule import Schedule
from aion_es.aggregates.workflow import Workflow
from aion_es.collector import paused_collector
from aion_es.errors import (
    ConcurrencyConflictError,
    PayloadError,
    PayloadTooLargeError,
    RunNotFoundError,
    StoreUnavailableError,
    WorkflowNotFoundError,
)
from aion_es.events.base import Event
from aion_es.events.codec import (
    UPCASTERS,
    decode,
    decode_envelope,
    decode_history,
    decode_metadata,
)
from aion_es.events.metadata import Envelope, EventMetadata, activated_form
from aion_es.events.schedule import ScheduleEvent
from aion_es.events.workflow import TerminalEvent, WorkflowEvent
from aion_es.ids import (
    DEFAULT_NAMESPACE,
    IdSource,
    RunId,
    StreamName,
    UUIDv7Source,
    WorkflowId,
    check_id,
    check_namespace,
    deterministic_event_id,
    workflow_stream,
)
from aion_es.metrics import append_timer, is_measuring
from aion_es.store.port import (
    NO_STREAM,
    Appended,
    EventReader,
    EventWriter,
    ExpectedRevision,
    NewEvent,
    Position,
    RecordedEvent,
)

if TYPE_CHECKING:
    from tenacity import AsyncRetrying

E = TypeVar("E", bound=Event)
A = TypeVar("A", bound=Aggregate[Any])

FIRST_PAGE: Final = 8
"""Events in the first page of a backward read: a run that has just continued as new is no longer."""
LARGEST_PAGE: Final = 1024


class ReadWriteStore(EventReader, EventWriter, Protocol):
    """What a repository needs of a store."""


class Saved(NamedTuple):
    """Where the last event of an append stands."""

    revision: int
    position: Position


class PreparedAppend(NamedTuple):
    """What an aggregate holds uncommitted, as the store takes it: ids and expected revision are fixed."""

    stream: StreamName
    events: Sequence[NewEvent]
    expected: ExpectedRevision


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


class ExecutedSchedule(NamedTuple):
    """What a command on a schedule did; the fields of `Executed`."""

    events: tuple[ScheduleEvent, ...]
    schedule: Schedule
    revision: int
    position: Position | None


class Origin(NamedTuple):
    """Where a command comes from, as its events' metadata tell it."""

    command_id: str | None
    causation_id: str | None
    correlation_id: str | None
    traceparent: str | None


class Repository(ABC, Generic[A, E]):
    """Loads, saves and executes; what kind of aggregate is the subclass's to say."""

    _begins: ClassVar[str]
    """Type of the event before which nothing needs to be read."""

    def __init__(
        self,
        store: ReadWriteStore,
        *,
        namespace: str = DEFAULT_NAMESPACE,
        ids: IdSource | None = None,
        retries: RetrySettings = DEFAULT_RETRIES,
    ) -> None:
        self._store = store
        self._namespace = check_namespace(namespace)
        self._ids = ids if ids is not None else UUIDv7Source()
        self._retries = retries
        self._measures = is_measuring()

    @abstractmethod
    def _new(self, id: str) -> A: ...

    @abstractmethod
    def _stream(self, id: str) -> StreamName: ...

    # -------------------------------------------------------------------------------- reading

    async def _load(self, id: str) -> A:
        return self._fold(id, await self._current(self._stream(id)))

    def _fold(self, id: str, history: Sequence[Envelope[E]]) -> A:
        aggregate = self._new(id)
        with paused_collector():
            for envelope in history:
                aggregate.replay(envelope)
        return aggregate

    async def _current(self, stream: StreamName) -> list[Envelope[E]]:
        """Return the events from the last beginning on, oldest first; nothing older is decoded."""
        newest_first: list[RecordedEvent] = []
        async with aclosing(self._backwards(stream)) as pages:
            async for page in pages:
                for index, stored in enumerate(page):
                    if self._is_beginning(stored):
                        newest_first += page[: index + 1]
                        return _decoded(newest_first)
                newest_first += page
        return _decoded(newest_first)  # the beginning was cut off by the stream's limits

    async def _backwards(self, stream: StreamName) -> AsyncGenerator[list[RecordedEvent], None]:
        """Yield the stream newest first, in pages that grow: a short run costs one small read."""
        limit, before = FIRST_PAGE, None
        while True:
            reading = self._store.read(stream, from_revision=before, backwards=True, limit=limit)
            page = [stored async for stored in reading]
            if page:
                yield page
            if len(page) < limit or page[-1].revision == 0:
                return
            before = page[-1].revision - 1
            limit = min(limit * 8, LARGEST_PAGE)

    async def _extend(self, stream: StreamName, history: list[Envelope[E]]) -> None:
        """Read what is new since `history` was, and only that."""
        if not history:
            history += await self._current(stream)
            return
        async for stored in self._store.read(stream, from_revision=history[-1].revision + 1):
            history.append(decode_envelope(stored))

    def _is_beginning(self, stored: RecordedEvent) -> bool:
        if stored.type == self._begins:
            return True
        upcaster = UPCASTERS.get(stored.type)
        return upcaster is not None and upcaster.to == self._begins

    # -------------------------------------------------------------------------------- writing

    async def _save(self, aggregate: A, origin: Origin, *, activated: bool = False) -> Saved | None:
        count = len(aggregate.uncommitted)
        if not count:
            return None
        prepared = self._prepare(aggregate, origin, activated=activated)
        appended = await self._append(prepared)
        aggregate.mark_saved(appended.revision, count)
        return Saved(appended.revision, appended.position)

    def _prepare(self, aggregate: A, origin: Origin, *, activated: bool) -> PreparedAppend:
        stream = self._stream(aggregate.id)
        batch, total = self._encode(stream, aggregate, origin, activated)
        limit = self._store.limits.max_append_bytes
        if total > limit:
            what = f"append of {len(batch)} events ({batch[0].type} …) to {aggregate.id!r}"
            raise PayloadTooLargeError(total, limit, what)
        return PreparedAppend(
            stream, batch, aggregate.revision if aggregate.revision >= 0 else NO_STREAM
        )

    def _encode(
        self,
        stream: StreamName,
        aggregate: Aggregate[E],
        origin: Origin,
        activated: bool,
        traceparents: Sequence[str | None] | None = None,
    ) -> tuple[list[NewEvent], int]:
        command_id = origin.command_id if origin.command_id is not None else self._ids.new()
        name, pending = aggregate.id, aggregate.uncommitted
        correlation_id = origin.correlation_id if origin.correlation_id is not None else name
        limits = self._store.limits
        last = len(pending) - 1
        total = 0
        batch: list[NewEvent] = []
        written: tuple[datetime, RunId | None, str | None] | None = None
        metadata = b""
        traceparent = origin.traceparent
        for ordinal, (event, at, run_id) in enumerate(pending):
            if traceparents is not None:
                traceparent = traceparents[ordinal]
            if written != (at, run_id, traceparent):  # most events of a batch share their metadata
                written = (at, run_id, traceparent)
                metadata = EventMetadata(
                    at, run_id, origin.causation_id, correlation_id, traceparent
                ).to_bytes()
            new = NewEvent(
                deterministic_event_id(stream, command_id, ordinal),
                type(event).__name__,
                _encoded(aggregate, ordinal),
                activated_form(metadata) if activated and ordinal == last else metadata,
            )
            size = new.size
            if size > limits.max_event_bytes:
                raise PayloadTooLargeError(size, limits.max_event_bytes, f"{new.type} of {name!r}")
            total += size
            batch.append(new)
        return batch, total

    async def _append_once(self, prepared: PreparedAppend) -> Appended:
        if not self._measures:
            return await self._store.append(*prepared)
        ended = append_timer()
        try:
            appended = await self._store.append(*prepared)
        except BaseException as error:
            ended(error)
            raise
        ended(None)
        return appended

    async def _append(self, prepared: PreparedAppend) -> Appended:
        try:
            return await self._append_once(prepared)
        except StoreUnavailableError as error:
            if self._retries.attempts <= 1:
                raise
            unknown = error.outcome_unknown

        async def again() -> Appended:
            nonlocal unknown
            try:
                return await self._append_once(prepared)
            except StoreUnavailableError as error:
                unknown = unknown or error.outcome_unknown
                raise

        try:
            result: Appended = await self._retrying(StoreUnavailableError)(again)
        except StoreUnavailableError as error:
            # One lost answer is enough: an earlier try may be there, whatever the last one said.
            raise StoreUnavailableError(error.reason, unknown) from error
        return result

    async def _execute(
        self, id: str, decide: Callable[[A], object], origin: Origin
    ) -> tuple[tuple[E, ...], A, Saved | None]:
        stream = self._stream(id)
        history = await self._current(stream)

        async def once() -> tuple[tuple[E, ...], A, Saved | None]:
            aggregate = self._fold(id, history)
            decide(aggregate)
            events = tuple(pending.event for pending in aggregate.uncommitted)
            return events, aggregate, await self._save(aggregate, origin)

        async def again() -> tuple[tuple[E, ...], A, Saved | None]:
            await self._extend(stream, history)
            return await once()

        try:
            return await once()
        except ConcurrencyConflictError:
            if self._retries.attempts <= 1:
                raise
        result: tuple[tuple[E, ...], A, Saved | None]
        result = await self._retrying(ConcurrencyConflictError)(again)
        return result

    def _retrying(self, error: type[Exception]) -> "AsyncRetrying":
        # Imported when the first retry comes: the way without one needs none of it.
        from tenacity import (
            AsyncRetrying,
            retry_if_exception_type,
            stop_after_attempt,
            wait_random_exponential,
        )

        return AsyncRetrying(
            retry=retry_if_exception_type(error),
            stop=stop_after_attempt(self._retries.attempts - 1),
            wait=wait_random_exponential(
                multiplier=self._retries.initial.total_seconds(),
                max=self._retries.longest.total_seconds(),
            ),
            reraise=True,
        )


def _cut(batch: Sequence[NewEvent], limit: int) -> Iterator[list[NewEvent]]:
    """Yield `batch` in parts of at most `limit` bytes; a run and its successor are never cut apart."""
    part: list[NewEvent] = []
    size = 0
    for event in batch:
        together = bool(part) and part[-1].type == "WorkflowContinuedAsNew"
        if part and size + event.size > limit and not together:
            yield part
            part, size = [], 0
        part.append(event)
        size += event.size
    yield part


def _decoded(newest_first: list[RecordedEvent]) -> list[Envelope[Any]]:
    return decode_history(newest_first[::-1])


def _encoded(aggregate: Aggregate[Any], ordinal: int) -> bytes:
    try:
        return aggregate.data_of(ordinal)
    except (PydanticSerializationError, ValueError) as error:
        what = f"{type(aggregate.uncommitted[ordinal].event).__name__} of {aggregate.id!r}"
        raise PayloadError(what, "$", f"cannot be written as JSON: {error}") from error


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
                        return _decoded(run)
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
            run_id = decode_metadata(stored).run_id
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
        stream = self._stream(workflow.id)
        batch, total = self._encode(stream, workflow, origin, activated, traceparents)
        expected = workflow.revision if workflow.revision >= 0 else NO_STREAM
        limit = self._store.limits.max_append_bytes
        if total <= limit:
            return [PreparedAppend(stream, batch, expected)]
        appends: list[PreparedAppend] = []
        for part in _cut(batch, limit):
            appends.append(PreparedAppend(stream, part, expected))
            expected = (expected if isinstance(expected, int) else -1) + len(part)
        return appends

    def submit(self, prepared: PreparedAppend) -> "asyncio.Future[Appended]":
        """Begin an append that is tried once; `workflow.mark_saved` is the caller's, when it is answered.

        Raises:
            What `EventWriter.submit` raises; so does the future.
        """
        if not self._measures:
            return self._store.submit(*prepared)
        ended = append_timer()
        answer = self._store.submit(*prepared)
        answer.add_done_callback(
            lambda answer: ended(
                asyncio.CancelledError() if answer.cancelled() else answer.exception()
            )
        )
        return answer

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

"""Loading and saving aggregates: the only I/O of this package, and the only way into a stream.

A command is load, guard, append with the revision that was loaded. The guard and the append see the same
revision, so no check can be outrun; whoever loses the race reads what is new and is guarded again.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, NamedTuple, Protocol, TypeVar

from pydantic_core import PydanticSerializationError

from aion_es.aggregates.aggregate import Aggregate, Pending
from aion_es.aggregates.attributes import AttributeSchema
from aion_es.aggregates.schedule import Schedule
from aion_es.aggregates.workflow import Workflow
from aion_es.errors import (
    ConcurrencyConflictError,
    InvalidArgumentError,
    PayloadError,
    PayloadTooLargeError,
    RunNotFoundError,
    StoreUnavailableError,
    WorkflowNotFoundError,
)
from aion_es.events.base import Event
from aion_es.events.codec import UPCASTERS, decode_envelope, encode
from aion_es.events.metadata import Envelope, EventMetadata
from aion_es.events.schedule import ScheduleEvent
from aion_es.events.workflow import WorkflowEvent
from aion_es.ids import (
    DEFAULT_NAMESPACE,
    IdSource,
    RunId,
    ScheduleId,
    StreamName,
    UUIDv7Source,
    WorkflowId,
    check_id,
    check_namespace,
    deterministic_event_id,
    schedule_stream,
    workflow_stream,
)
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

FIRST_PAGE: Final = 64
"""Events in the first page of a backward read; most runs are shorter."""
LARGEST_PAGE: Final = 1024


class ReadWriteStore(EventReader, EventWriter, Protocol):
    """What a repository needs of a store."""


@dataclass(frozen=True, slots=True)
class RetrySettings:
    """How a conflicted command and an append to a store that is away are tried again.

    The first repeat comes at once; before the n-th further one lies a random time up to
    `min(initial * 2 ** n, longest)`.

    Attributes:
        attempts: In all, the first included; at least 1.
        initial: Default 5 ms.
        longest: Default 250 ms.
    """

    attempts: int = 20
    initial: timedelta = timedelta(milliseconds=5)
    longest: timedelta = timedelta(milliseconds=250)

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            InvalidArgumentError: There is not one attempt, or a time is negative.
        """
        if self.attempts < 1:
            raise InvalidArgumentError("attempts", f"must be at least 1, got {self.attempts}")
        if min(self.initial, self.longest) < timedelta(0):
            raise InvalidArgumentError("initial, longest", "must not be negative")


class Saved(NamedTuple):
    """Where the last event of an append stands."""

    revision: int
    position: Position


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


class _Origin(NamedTuple):
    """Where a command comes from, as its events' metadata tell it."""

    command_id: str | None
    causation_id: str | None
    correlation_id: str | None
    traceparent: str | None


class _Repository(ABC, Generic[A, E]):
    """Loads, saves and executes; what kind of aggregate is the subclass's to say."""

    _begins: ClassVar[str]
    """Type of the event before which nothing needs to be read."""

    def __init__(
        self,
        store: ReadWriteStore,
        *,
        namespace: str = DEFAULT_NAMESPACE,
        ids: IdSource | None = None,
        retries: RetrySettings = RetrySettings(),
    ) -> None:
        self._store = store
        self._namespace = check_namespace(namespace)
        self._ids = ids if ids is not None else UUIDv7Source()
        self._retries = retries

    @abstractmethod
    def _new(self, id: str) -> A: ...

    @abstractmethod
    def _stream(self, id: str) -> StreamName: ...

    # -------------------------------------------------------------------------------- reading

    async def _load(self, id: str) -> A:
        return self._fold(id, await self._current(self._stream(id)))

    def _fold(self, id: str, history: Sequence[Envelope[E]]) -> A:
        aggregate = self._new(id)
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
            limit = min(limit * 2, LARGEST_PAGE)

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

    async def _save(
        self, aggregate: A, origin: _Origin, *, activated: bool = False
    ) -> Saved | None:
        pending: list[Pending[E]] = aggregate.uncommitted
        count = len(pending)
        if not count:
            return None
        stream = self._stream(aggregate.id)
        batch = self._encode(stream, aggregate.id, pending, origin, activated)
        expected = aggregate.revision if aggregate.revision >= 0 else NO_STREAM
        appended = await self._append(stream, batch, expected)
        aggregate.mark_saved(appended.revision, count)
        return Saved(appended.revision, appended.position)

    def _encode(
        self,
        stream: StreamName,
        id: str,
        pending: Sequence[Pending[E]],
        origin: _Origin,
        activated: bool,
    ) -> list[NewEvent]:
        command_id = origin.command_id if origin.command_id is not None else self._ids.new()
        correlation_id = origin.correlation_id if origin.correlation_id is not None else id
        limits = self._store.limits
        last = len(pending) - 1
        total = 0
        batch: list[NewEvent] = []
        written: tuple[datetime, RunId | None] | None = None
        metadata = b""
        for ordinal, (event, at, run_id) in enumerate(pending):
            seen = activated and ordinal == last
            if seen or written != (at, run_id):  # most events of a batch share their metadata
                written = (at, run_id)
                metadata = EventMetadata(
                    at, run_id, origin.causation_id, correlation_id, origin.traceparent, seen
                ).to_bytes()
            new = NewEvent(
                deterministic_event_id(stream, command_id, ordinal),
                type(event).__name__,
                _encoded(event, id),
                metadata,
            )
            size = new.size
            if size > limits.max_event_bytes:
                raise PayloadTooLargeError(size, limits.max_event_bytes, f"{new.type} of {id!r}")
            total += size
            batch.append(new)
        if total > limits.max_append_bytes:
            what = f"append of {len(batch)} events ({batch[0].type} …) to {id!r}"
            raise PayloadTooLargeError(total, limits.max_append_bytes, what)
        return batch

    async def _append(
        self, stream: StreamName, batch: Sequence[NewEvent], expected: ExpectedRevision
    ) -> Appended:
        try:
            return await self._store.append(stream, batch, expected)
        except StoreUnavailableError as error:
            if self._retries.attempts <= 1:
                raise
            unknown = error.outcome_unknown

        async def again() -> Appended:
            nonlocal unknown
            try:
                return await self._store.append(stream, batch, expected)
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
        self, id: str, decide: Callable[[A], object], origin: _Origin
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


def _decoded(newest_first: list[RecordedEvent]) -> list[Envelope[Any]]:
    return [decode_envelope(stored) for stored in reversed(newest_first)]


def _encoded(event: Event, id: str) -> bytes:
    try:
        return encode(event)
    except (PydanticSerializationError, ValueError) as error:
        what = f"{type(event).__name__} of {id!r}"
        raise PayloadError(what, "$", f"cannot be written as JSON: {error}") from error


class WorkflowRepository(_Repository[Workflow, WorkflowEvent]):
    """Workflows in a store, each in its own stream."""

    _begins = "WorkflowStarted"

    def __init__(
        self,
        store: ReadWriteStore,
        *,
        namespace: str = DEFAULT_NAMESPACE,
        schema: AttributeSchema | None = None,
        ids: IdSource | None = None,
        retries: RetrySettings = RetrySettings(),
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
        origin = _Origin(command_id, causation_id, correlation_id, traceparent)
        return await self._save(workflow, origin, activated=activated)

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
        origin = _Origin(command_id, causation_id, correlation_id, traceparent)
        events, workflow, saved = await self._execute(workflow_id, decide, origin)
        return Executed(events, workflow, workflow.revision, saved.position if saved else None)

    def _new(self, id: str) -> Workflow:
        return self.new(id)

    def _stream(self, id: str) -> StreamName:
        return self.stream(id)


class ScheduleRepository(_Repository[Schedule, ScheduleEvent]):
    """Schedules in a store, each in its own stream. Promises and errors are those of `WorkflowRepository`."""

    _begins = "ScheduleCreated"

    def stream(self, schedule_id: str) -> StreamName:
        """Return the name of the stream that holds the schedule.

        Raises:
            InvalidIdError: The id is not 1–255 printable characters.
        """
        return schedule_stream(self._namespace, ScheduleId(check_id("schedule_id", schedule_id)))

    async def load(self, schedule_id: str) -> Schedule:
        """Return the schedule since it was last created; an unknown id gives an empty aggregate."""
        return await self._load(schedule_id)

    async def save(
        self,
        schedule: Schedule,
        *,
        command_id: str | None = None,
        causation_id: str | None = None,
        correlation_id: str | None = None,
        traceparent: str | None = None,
    ) -> Saved | None:
        """Append what the aggregate holds uncommitted; `correlation_id` defaults to the schedule id."""
        origin = _Origin(command_id, causation_id, correlation_id, traceparent)
        return await self._save(schedule, origin)

    async def execute(
        self,
        schedule_id: str,
        decide: Callable[[Schedule], object],
        *,
        command_id: str | None = None,
        causation_id: str | None = None,
        correlation_id: str | None = None,
        traceparent: str | None = None,
    ) -> ExecutedSchedule:
        """Load, decide, append; on a conflict read only what is new, and decide anew."""
        origin = _Origin(command_id, causation_id, correlation_id, traceparent)
        events, schedule, saved = await self._execute(schedule_id, decide, origin)
        return ExecutedSchedule(
            events, schedule, schedule.revision, saved.position if saved else None
        )

    def _new(self, id: str) -> Schedule:
        return Schedule(ScheduleId(id))

    def _stream(self, id: str) -> StreamName:
        return self.stream(id)

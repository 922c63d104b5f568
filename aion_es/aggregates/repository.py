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
)

from pydantic_core import PydanticSerializationError

from aion_es.aggregates.aggregate import Aggregate
from aion_es.aggregates.retries import DEFAULT_RETRIES, RetrySettings
from aion_es.collector import paused_collector
from aion_es.errors import (
    ConcurrencyConflictError,
    PayloadError,
    PayloadTooLargeError,
    StoreUnavailableError,
)
from aion_es.events.base import Event
from aion_es.events.codec import (
    UPCASTERS,
    decode_envelope,
    decode_history,
)
from aion_es.events.metadata import Envelope, EventMetadata, activated_form
from aion_es.ids import (
    DEFAULT_NAMESPACE,
    IdSource,
    RunId,
    StreamName,
    UUIDv7Source,
    check_namespace,
    deterministic_event_id,
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
                        return decoded(newest_first)
                newest_first += page
        return decoded(newest_first)  # the beginning was cut off by the stream's limits

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

    def _prepare_parts(
        self,
        aggregate: A,
        origin: Origin,
        traceparents: Sequence[str | None] | None,
        *,
        activated: bool,
    ) -> list[PreparedAppend]:
        """Do as `_prepare`, in more than one append if the store does not take it in one."""
        stream = self._stream(aggregate.id)
        batch, total = self._encode(stream, aggregate, origin, activated, traceparents)
        expected = aggregate.revision if aggregate.revision >= 0 else NO_STREAM
        limit = self._store.limits.max_append_bytes
        if total <= limit:
            return [PreparedAppend(stream, batch, expected)]
        appends: list[PreparedAppend] = []
        for part in _cut(batch, limit):
            appends.append(PreparedAppend(stream, part, expected))
            expected = (expected if isinstance(expected, int) else -1) + len(part)
        return appends

    def _submit(self, prepared: PreparedAppend) -> "asyncio.Future[Appended]":
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


def decoded(newest_first: list[RecordedEvent]) -> list[Envelope[Any]]:
    """Return events that were read backwards, decoded, oldest first."""
    return decode_history(newest_first[::-1])


def _encoded(aggregate: Aggregate[Any], ordinal: int) -> bytes:
    try:
        return aggregate.data_of(ordinal)
    except (PydanticSerializationError, ValueError) as error:
        what = f"{type(aggregate.uncommitted[ordinal].event).__name__} of {aggregate.id!r}"
        raise PayloadError(what, "$", f"cannot be written as JSON: {error}") from error

"""A store that fails when a test says so: calls that are refused, lost, unanswered or endless, and counted.

Wrap any store, give the wrapper to `Engine.open` or to a repository, and say what goes wrong::

    store = FaultyStore(MemoryEventStore())
    store.crash_after(3)                 # three appends succeed; then the process is as good as dead
    store.disturb(random.Random(7))      # or: every tenth call, of whatever kind, goes wrong somehow
    async with Engine.open(store, workflows=[checkout]) as engine: ...
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from typing import Literal, NamedTuple, TypeAlias

from aion_es.errors import (
    ConcurrencyConflictError,
    StoreClosedError,
    StoreError,
    StoreUnavailableError,
)
from aion_es.ids import StreamName
from aion_es.store.port import (
    START,
    Appended,
    Consumer,
    ConsumerGroupChanges,
    ConsumerGroupSettings,
    EventStore,
    ExpectedRevision,
    NewEvent,
    Position,
    RecordedEvent,
    StoreLimits,
    StreamMetadata,
    Subscription,
)
from aion_es.testing.disturbances import BreakingSubscription, Disturbance, Harm

Kind: TypeAlias = Literal["fail", "lose", "hang"]


class CommittedAppend(NamedTuple):
    """One append that is in the store, whether or not its caller was told.

    Attributes:
        stream: Where.
        types: Type names of its events, in order.
    """

    stream: StreamName
    types: tuple[str, ...]


class _Fault(NamedTuple):
    kind: Kind
    first: int
    last: float
    error: Callable[[], StoreError]


class FaultyStore:
    """Passes everything on to `store`, except what a test has spoiled. An `EventStore`.

    Appends are numbered from 1 as they are called, retries included. Where several faults name the same
    append, the one that was asked for last counts.

    Attributes:
        calls: Appends that were called so far.
        called: How often each method was called, by name; `next_batch` stands for subscriptions.
        committed: Appends that were committed through this wrapper, in order.
        conflicts: Appends that were refused because somebody else was first.
        crashed: Set when an append was refused because of `crash_after`.
    """

    def __init__(self, store: EventStore) -> None:
        self.calls = 0
        self.called: Counter[str] = Counter()
        self.committed: list[CommittedAppend] = []
        self.conflicts = 0
        self.crashed = asyncio.Event()
        self._gone = asyncio.Event()
        self._disturbance: Disturbance | None = None
        self._store = store
        self._faults: list[_Fault] = []
        self._healed = asyncio.Event()

    # ------------------------------------------------------------------------------- the faults

    def fail(self, first: int | None = None, *, times: int | None = None) -> None:
        """Refuse appends with `StoreUnavailableError`; nothing is written.

        Args:
            first: Number of the first that is refused. Default: the next.
            times: How many; `None` for all until `heal`.
        """
        self._spoil(
            "fail", first, times, lambda: StoreUnavailableError("injected: the store is away")
        )

    def lose_answer(self, first: int | None = None, *, times: int | None = None) -> None:
        """Commit appends, and answer them with `StoreUnavailableError(outcome_unknown=True)`.

        Args:
            first: Number of the first whose answer is lost. Default: the next.
            times: How many; `None` for all until `heal`.
        """
        self._spoil(
            "lose", first, times, lambda: StoreUnavailableError("injected: no answer", True)
        )

    def hang(self, first: int | None = None, *, times: int | None = None) -> None:
        """Let appends wait until `heal`; then they are made.

        Args:
            first: Number of the first that waits. Default: the next.
            times: How many; `None` for all until `heal`.
        """
        self._spoil(
            "hang", first, times, lambda: StoreUnavailableError("injected: no answer", True)
        )

    def crash_after(self, count: int) -> None:
        """Let `count` more appends through; every later one is refused for ever with `StoreClosedError`.

        So an engine can be left behind as a crash leaves it: nothing that it does afterwards is recorded.
        """

        def crash() -> StoreError:
            self.crashed.set()
            return StoreClosedError("injected: the process is as good as dead")

        self._spoil("fail", self.calls + count + 1, None, crash)

    def go_away(self) -> None:
        """Refuse every call with `StoreUnavailableError`, and break every subscription, until `heal`."""
        self._gone.set()

    def disturb(
        self,
        rng: random.Random,
        *,
        rate: float = 0.1,
        longest: timedelta = timedelta(milliseconds=50),
    ) -> None:
        """Let calls of every kind go wrong at random, until `heal`.

        One that is struck is refused, or times out without having been made, or is made and its answer
        lost; a read breaks off after its first event, a subscription before a batch.

        Args:
            rng: Where chance comes from. Print its seed, so that a failure can be repeated.
            rate: Share of the calls that go wrong, from 0 to 1.
            longest: How long one waits at most before it times out.
        """
        self._disturbance = Disturbance(rng, rate, longest)

    def heal(self) -> None:
        """Take back every fault, and let appends that hang go on."""
        self._faults.clear()
        self._gone.clear()
        self._disturbance = None
        self._healed.set()
        self._healed = asyncio.Event()

    def _spoil(
        self, kind: Kind, first: int | None, times: int | None, error: Callable[[], StoreError]
    ) -> None:
        begin = self.calls + 1 if first is None else first
        last = float("inf") if times is None else begin + times - 1
        self._faults.append(_Fault(kind, begin, last, error))

    def _fault_of(self, number: int) -> _Fault | None:
        for fault in reversed(self._faults):
            if fault.first <= number <= fault.last:
                return fault
        return None

    async def _begin(self, method: str) -> Harm | None:
        """Count a call, and refuse it if it is to be; return what becomes of its answer."""
        self._count(method)
        if self._gone.is_set():
            raise StoreUnavailableError("injected: the store is away")
        return None if self._disturbance is None else await self._disturbance.strike()

    def _count(self, method: str) -> Disturbance | None:
        self.called[method] += 1
        return self._disturbance

    # --------------------------------------------------------------------------------- the port

    @property
    def limits(self) -> StoreLimits:
        """See `EventWriter`."""
        return self._store.limits

    async def append(
        self, stream: StreamName, events: Sequence[NewEvent], expected: ExpectedRevision
    ) -> Appended:
        """See `EventWriter`; spoiled if a test said so."""
        self.calls += 1
        fault = self._fault_of(self.calls)
        if fault is not None and fault.kind == "hang":
            await self._healed.wait()
        if fault is not None and fault.kind == "fail":
            raise fault.error()
        harm = await self._begin("append")
        try:
            appended = await self._store.append(stream, events, expected)
        except ConcurrencyConflictError:
            self.conflicts += 1
            raise
        self.committed.append(CommittedAppend(stream, tuple(event.type for event in events)))
        if fault is not None and fault.kind == "lose":
            raise fault.error()
        _end(harm)
        return appended

    def submit(
        self, stream: StreamName, events: Sequence[NewEvent], expected: ExpectedRevision
    ) -> "asyncio.Future[Appended]":
        """See `EventWriter`; spoiled if a test said so."""
        return asyncio.ensure_future(self.append(stream, tuple(events), expected))

    def read(
        self,
        stream: StreamName,
        *,
        from_revision: int | None = None,
        backwards: bool = False,
        limit: int | None = None,
    ) -> AsyncIterator[RecordedEvent]:
        """See `EventReader`."""
        events = self._store.read(
            stream, from_revision=from_revision, backwards=backwards, limit=limit
        )
        return self._reading("read", events)

    def read_all(
        self,
        *,
        from_position: Position = START,
        prefix: str = "",
        backwards: bool = False,
        limit: int | None = None,
    ) -> AsyncIterator[RecordedEvent]:
        """See `EventReader`."""
        events = self._store.read_all(
            from_position=from_position, prefix=prefix, backwards=backwards, limit=limit
        )
        return self._reading("read_all", events)

    async def _reading(
        self, method: str, events: AsyncIterator[RecordedEvent]
    ) -> AsyncIterator[RecordedEvent]:
        harm = await self._begin(method)
        async for event in events:
            yield event
            _end(harm)
        _end(harm)

    async def head(self, stream: StreamName) -> int:
        """See `EventReader`."""
        harm = await self._begin("head")
        answer = await self._store.head(stream)
        _end(harm)
        return answer

    async def end_position(self) -> Position:
        """See `EventReader`."""
        harm = await self._begin("end_position")
        answer = await self._store.end_position()
        _end(harm)
        return answer

    def subscribe_all(self, *, from_position: Position = START, prefix: str = "") -> Subscription:
        """See `EventSubscriber`."""
        inner = self._store.subscribe_all(from_position=from_position, prefix=prefix)
        return BreakingSubscription(inner, self._gone, lambda: self._count("next_batch"))

    def subscribe(self, stream: StreamName, *, from_revision: int = 0) -> Subscription:
        """See `EventSubscriber`."""
        inner = self._store.subscribe(stream, from_revision=from_revision)
        return BreakingSubscription(inner, self._gone, lambda: self._count("next_batch"))

    async def create_consumer_group(
        self, name: str, settings: ConsumerGroupSettings | None = None
    ) -> None:
        """See `CompetingConsumers`."""
        harm = await self._begin("create_consumer_group")
        await self._store.create_consumer_group(name, settings)
        _end(harm)

    async def update_consumer_group(self, name: str, changes: ConsumerGroupChanges) -> None:
        """See `CompetingConsumers`."""
        harm = await self._begin("update_consumer_group")
        await self._store.update_consumer_group(name, changes)
        _end(harm)

    async def delete_consumer_group(self, name: str) -> None:
        """See `CompetingConsumers`."""
        harm = await self._begin("delete_consumer_group")
        await self._store.delete_consumer_group(name)
        _end(harm)

    async def replay_parked(self, name: str) -> int:
        """See `CompetingConsumers`."""
        harm = await self._begin("replay_parked")
        answer = await self._store.replay_parked(name)
        _end(harm)
        return answer

    def consume(self, name: str) -> Consumer:
        """See `CompetingConsumers`."""
        return self._store.consume(name)

    async def metadata(self, stream: StreamName) -> StreamMetadata:
        """See `EventStore`."""
        harm = await self._begin("metadata")
        answer = await self._store.metadata(stream)
        _end(harm)
        return answer

    async def set_metadata(self, stream: StreamName, metadata: StreamMetadata) -> None:
        """See `EventStore`."""
        harm = await self._begin("set_metadata")
        await self._store.set_metadata(stream, metadata)
        _end(harm)

    async def delete(self, stream: StreamName, expected: ExpectedRevision) -> None:
        """See `EventStore`."""
        harm = await self._begin("delete")
        await self._store.delete(stream, expected)
        _end(harm)

    async def health(self) -> None:
        """See `EventStore`."""
        harm = await self._begin("health")
        await self._store.health()
        _end(harm)

    async def aclose(self) -> None:
        """See `EventStore`; closes the store that is wrapped."""
        await self._store.aclose()


def _end(harm: Harm | None) -> None:
    """Lose the answer of a call that was made, if that was drawn."""
    if harm is not None:
        raise StoreUnavailableError("injected: no answer", True)

"""One projection as the runner feeds it: where it stands, and what happens when it cannot handle an event."""

import asyncio
import logging
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from inspect import isawaitable
from typing import Final, TypeAlias

from opentelemetry.trace import SpanKind
from sqlalchemy import Connection

from aion_es.clock import Clock
from aion_es.errors import (
    InvalidArgumentError,
    StoreClosedError,
    StoreError,
    StoreUnavailableError,
)
from aion_es.metrics import PROJECTION_EVENTS, PROJECTION_FAILURES, Attributes
from aion_es.projections import beside
from aion_es.projections.checkpoints import advance, position_of
from aion_es.projections.failures import (
    Failure,
    clear_failure,
    record_failure,
    skipped_positions,
)
from aion_es.projections.instants import to_micros
from aion_es.projections.projection import Projection
from aion_es.projections.read_model import ReadModel
from aion_es.store.port import START, Position, RecordedEvent
from aion_es.telemetry import EVENTS, PROJECTION, READ_MODEL, REBUILD, after, calling, is_recording

_log = logging.getLogger("aion_es.projections")

_WINDOW: Final = 10.0
"""Seconds over which the rate is measured."""
Raised: TypeAlias = Exception | SystemExit
_RAISED: Final = (Exception, SystemExit)
"""What stops one projection only: `sys.exit` ends the handler that called it, not the program."""


class Pace:
    """How fast a projection moves, in positions of the store, over the last seconds."""

    __slots__ = ("_samples",)

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def note(self, position: Position) -> None:
        """Take in that it has come to `position`; a step back begins anew."""
        now = time.monotonic()
        samples = self._samples
        if samples and samples[-1][1] > position.commit:
            samples.clear()
        samples.append((now, position.commit))
        while len(samples) > 2 and samples[1][0] < now - _WINDOW:
            samples.popleft()

    @property
    def rate(self) -> float | None:
        """Positions per second; `None` before two samples."""
        if len(self._samples) < 2:
            return None
        (began, first), (_, last) = self._samples[0], self._samples[-1]
        elapsed = time.monotonic() - began
        return (last - first) / elapsed if elapsed > 0 else None


class CheckpointMovedError(Exception):
    """Another process handled part of the batch; its transaction was rolled back."""

    def __init__(self, position: Position) -> None:
        super().__init__(position)
        self.position = position


@dataclass(slots=True, eq=False)
class Member:
    """One projection in a runner: where it stands, and why if it stands still.

    Attributes:
        is_beside: The rows that it makes do not answer yet.
        is_twin: It makes them for an operator, while another member keeps the rows that answer.
        caught_up: It has handled all that was stored, and is live.
        events: Handled since the runner began.
        recorded_at: When the store recorded the last event handled, in microseconds, if known.
        failures: Failed tries in a row.
        is_noted: The read model says that it stands still.
        skipped: Positions of the events that an operator had it skip.
        retry: Set to end the wait before the next try.
    """

    projection: Projection
    position: Position = START
    is_beside: bool = False
    is_twin: bool = False
    caught_up: bool = False
    events: int = 0
    recorded_at: int | None = None
    error: Raised | None = None
    failed_event: RecordedEvent | None = None
    failures: int = 0
    is_noted: bool = False
    skipped: frozenset[Position] = frozenset()
    retry: asyncio.Event = field(default_factory=asyncio.Event)
    pace: Pace = field(default_factory=Pace)

    @property
    def answers_up_to(self) -> Position:
        """Everything up to here is in the rows that answer, as far as they are of this version."""
        return START if self.is_beside else self.position

    @property
    def failure(self) -> Failure | None:
        """Why it stands still."""
        return None if self.error is None else failure_of(self.error, self.failed_event)


class Handler:
    """Gives batches to members: rows and checkpoint in one transaction each."""

    def __init__(self, read_model: ReadModel, clock: Clock) -> None:
        self._read_model = read_model
        self._clock = clock
        self._traced = is_recording()

    async def handle(
        self, member: Member, batch: Sequence[RecordedEvent], position: Position
    ) -> bool:
        """Commit the batch for one projection; False, with the reason in the member, if it fails.

        Raises:
            StoreClosedError: The read model was closed.
        """
        try:
            await self._commit(member, batch, position)
        except StoreClosedError:
            raise
        except StoreUnavailableError as error:  # the read model's: no event is to blame
            await self._failed(member, error, None)
            return False
        except _RAISED as error:  # a handler may raise anything; it is shown and retried
            if not await self._isolate(member, batch, position, error):
                return False
        member.error = member.failed_event = None
        member.failures = 0
        if member.is_noted:
            await self._clear(member)
        return True

    async def reconsider(self, member: Member) -> None:
        """Learn what an operator said meanwhile about the events that the member cannot handle.

        Raises:
            StoreClosedError: The read model was closed.
        """
        projection = member.projection
        try:
            member.skipped = await self._read_model.read(
                partial(skipped_positions, projection=projection.name, version=projection.version)
            )
        except StoreClosedError:
            raise
        except StoreError:
            return  # then it will fail again, and come back here

    async def _isolate(
        self,
        member: Member,
        batch: Sequence[RecordedEvent],
        position: Position,
        error: Raised,
    ) -> bool:
        """Find the event that cannot be handled: those before it are committed one by one."""
        if not batch:
            await self._failed(member, error, None)
            return False
        for event in batch[_first_after(batch, member.position) :]:
            try:
                await self._commit(member, [event], event.position)
            except StoreClosedError:
                raise
            except _RAISED as found:  # as above
                blamed = None if isinstance(found, StoreUnavailableError) else event
                await self._failed(member, found, blamed)
                return False
        # It was the batch as a whole, and it went through in single steps.
        return await self.handle(member, [], position)

    async def _failed(self, member: Member, error: Raised, event: RecordedEvent | None) -> None:
        is_news = member.failure != failure_of(error, event)
        member.error, member.failed_event = error, event
        member.failures += 1
        member.caught_up = False
        PROJECTION_FAILURES.add(1, self._of(member))
        projection = member.projection
        if is_news:  # it is tried again and again
            _log.error(
                "projection %s stands still at %s, on %s",
                projection.name,
                member.position,
                "the read model" if event is None else _named(event),
                exc_info=error,
            )
        note = partial(
            record_failure,
            projection=projection.name,
            version=projection.version,
            failure=failure_of(error, event),
            is_beside=member.is_beside,
            at=self._clock.now(),
        )
        member.is_noted = True
        await self._write_note(member, note)

    async def _clear(self, member: Member) -> None:
        name = member.projection.name
        clear = partial(clear_failure, projection=name, is_beside=member.is_beside)
        member.is_noted = not await self._write_note(member, clear)

    async def _write_note(self, member: Member, note: Callable[[Connection], None]) -> bool:
        """Write what other processes should see of a failure; False if that is not possible now."""
        try:
            await self._read_model.write(note)
        except StoreClosedError:
            raise
        except StoreError as away:
            _log.warning("projection %s: not noted: %s", member.projection.name, away)
            return False
        return True

    async def _commit(
        self, member: Member, batch: Sequence[RecordedEvent], position: Position
    ) -> None:
        """Commit what of the batch is new to the projection, whoever else may be moving its checkpoint."""
        projection = member.projection
        while member.position < position:
            new = batch[_first_after(batch, member.position) :]
            recorded_at = to_micros(new[-1].recorded_at) if new else None
            try:
                wanted = _wanted(member, new)
                with self._span(member, len(wanted)):
                    await self._read_model.write(
                        partial(
                            _apply,
                            projection=projection,
                            batch=wanted,
                            expected=member.position,
                            position=position,
                            recorded_at=recorded_at,
                            is_beside=member.is_beside,
                        )
                    )
            except CheckpointMovedError as moved:
                projection.forget()
                member.position = moved.position
            except _RAISED:
                projection.forget()  # what it remembers may be ahead of the rows, now rolled back
                raise
            else:
                member.position = position
                member.events += len(new)
                if new:
                    PROJECTION_EVENTS.add(len(new), self._of(member))
                member.recorded_at = recorded_at or member.recorded_at
                member.pace.note(position)

    def _span(self, member: Member, events: int) -> AbstractContextManager[object]:
        """Run a block, one batch for one projection, in a span that begins a trace, where somebody records."""
        if not self._traced or not events:
            return nullcontext()
        name = member.projection.name
        facts: dict[str, int | str] = {
            PROJECTION: name,
            READ_MODEL: self._read_model.name,
            REBUILD: member.is_beside,
            EVENTS: events,
        }
        return calling(f"aion.projection {name}", facts, SpanKind.CONSUMER, after(None))

    def _of(self, member: Member) -> Attributes:
        return labels(member.projection.name, self._read_model.name, member.is_beside)


def labels(projection: str, read_model: str, is_rebuild: bool) -> Attributes:
    """Return what every figure of a projection is labelled with."""
    return {
        "aion.projection": projection,
        "aion.read_model": read_model,
        "aion.rebuild": is_rebuild,
    }


def _apply(
    connection: Connection,
    projection: Projection,
    batch: Sequence[RecordedEvent],
    expected: Position,
    position: Position,
    recorded_at: int | None,
    is_beside: bool,
) -> None:
    # The checkpoint first: it takes the lock, and whoever lost the race folds nothing.
    moved = advance(
        connection, projection, expected, position, recorded_at=recorded_at, is_beside=is_beside
    )
    if not moved:
        raise CheckpointMovedError(position_of(connection, projection, is_beside=is_beside))
    if not batch:
        return
    with beside.turned(connection, projection.tables) if is_beside else nullcontext():
        try:
            result: object = projection.apply(connection, batch)
        except StopIteration as error:  # no future can hold it: whoever waits would do so for ever
            raise RuntimeError(f"apply raised {error!r}") from error
        _require_done(result)


def _require_done(result: object) -> None:
    """Refuse what only promises that the batch will be handled: nobody would wait for it.

    Raises:
        InvalidArgumentError: `apply` returned an awaitable.
    """
    if isawaitable(result):
        if isinstance(result, Coroutine):
            result.close()
        raise InvalidArgumentError(
            "projections", "apply returned an awaitable; it must not be async"
        )


def _wanted(member: Member, events: Sequence[RecordedEvent]) -> Sequence[RecordedEvent]:
    wants, skipped = member.projection.wants, member.skipped
    if wants is not None:
        events = [event for event in events if event.type in wants]
    if skipped:
        events = [event for event in events if event.position not in skipped]
    return events


def _first_after(batch: Sequence[RecordedEvent], position: Position) -> int:
    return bisect_right(batch, position, key=lambda event: event.position)


def failure_of(error: Raised, event: RecordedEvent | None) -> Failure:
    """Return why a projection stands still: on `event`, or without one that is to blame."""
    return Failure(
        f"{type(error).__name__}: {error}",
        None if event is None else _named(event),
        None if event is None else event.position,
    )


def _named(event: RecordedEvent) -> str:
    return f"{event.type} {event.stream}@{event.revision}"

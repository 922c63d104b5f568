"""Catch-up subscriptions: one task each that reads ahead, and subscribes again whenever it is cut off."""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Any, Final, Self

from aion_es.errors import StoreClosedError, StoreUnavailableError, SubscriptionDroppedError
from aion_es.ids import StreamName
from aion_es.store.closing import ClosesOnExit
from aion_es.store.eventstoredb.client import Backoff, Connection
from aion_es.store.eventstoredb.errors import CallFailedError
from aion_es.store.eventstoredb.messages import Messages, recorded
from aion_es.store.eventstoredb.reader import Reader
from aion_es.store.eventstoredb.tasks import Tasks
from aion_es.store.port import (
    START,
    CaughtUp,
    Checkpoint,
    FellBehind,
    Position,
    RecordedEvent,
    SubscriptionMessage,
)

_LOG: Final = logging.getLogger("aion_es.store.eventstoredb")

AHEAD: Final = 2_048
"""Messages read ahead of the subscriber. When they are there, the server is left to wait."""
FIRST_PROBE: Final = 0.05
LAST_PROBE: Final = 1.0
"""Seconds between two looks at whether a quiet subscription may move on; doubled while nothing happens."""


class EventStoreDBSubscription(ClosesOnExit, ABC):
    """A subscription that survives its calls.

    The task remembers what it handed over last and subscribes again after that, so a call that breaks
    loses no event and repeats none. A subscriber that was live is told `FellBehind`, then `CaughtUp`.

    Args:
        connection: Whose stub it uses.
        tasks: Run the task.
        forget: Called when it is closed.

    Attributes:
        stream: The one that it follows; empty if it follows all.
    """

    stream = StreamName("")

    def __init__(
        self,
        connection: Connection,
        tasks: Tasks,
        forget: "Callable[[EventStoreDBSubscription], None]",
    ) -> None:
        self._connection = connection
        self._tasks = tasks
        self._forget = forget
        self._buffer: deque[SubscriptionMessage] = deque()
        self._ready = asyncio.Event()
        self._room = asyncio.Event()
        self._live = False
        self._closed = False
        self._error: Exception | None = None
        self._backoff = Backoff()
        self._task = tasks.start(self._run(), "aion-es-eventstoredb-subscription")

    # ---------------------------------------------------------------- the subscriber's side

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SubscriptionMessage:
        await self._wait()
        if not self._buffer:
            raise StopAsyncIteration
        message = self._buffer.popleft()
        self._room.set()
        return message

    async def next_batch(self) -> Sequence[SubscriptionMessage]:
        """Return all messages that are ready, at least one, waiting for it; empty only when closed."""
        await self._wait()
        batch = tuple(self._buffer)
        self._buffer.clear()
        self._room.set()
        return batch

    async def _wait(self) -> None:
        """Return when a message is there, or none will come."""
        while not self._buffer and not self._closed:
            if self._error is not None:
                raise self._error
            self._ready.clear()
            await self._ready.wait()

    async def aclose(self) -> None:
        """End it; whoever waits for a message gets none."""
        self._closed = True
        self._buffer.clear()
        self._ready.set()
        self._forget(self)
        if not self._task.done():
            await self._tasks.end(self._task)

    def fail(self, error: Exception) -> None:
        """Let whoever waits, now or later, get `error` after what is ready."""
        if self._error is None:
            self._error = error
        self._ready.set()

    # ---------------------------------------------------------------- the task

    @abstractmethod
    def _request(self) -> Any:
        """Return the request to go on after what was handed over last."""

    @abstractmethod
    def _is_new(self, event: RecordedEvent) -> bool:
        """Say whether an event lies beyond what was handed over, and note it."""

    @abstractmethod
    async def _stored_end(self) -> Any:
        """Return where what is stored ends now: with `_has_reached`, for servers that do not say."""

    @abstractmethod
    def _has_reached(self, end: Any) -> bool:
        """Say whether everything up to `end` was handed over."""

    @abstractmethod
    def _checkpoint(self, position: Position) -> None:
        """Take in a checkpoint of the server's."""

    @property
    @abstractmethod
    def _subject(self) -> str:
        """What it follows, for errors."""

    async def _run(self) -> None:
        while True:
            generation = self._connection.generation
            try:
                await self._through_one_call()
            except CallFailedError as failure:
                if not failure.again or not self._backoff.failed():
                    self.fail(self._told(failure))
                    return
                _LOG.info(
                    "%s: subscription to %s: %s", self._connection.where, self._subject, failure
                )
                if self._live:
                    self._turn(live=False)
                await self._connection.mend(failure, generation)
                await self._backoff.pause()
            except (StoreClosedError, StoreUnavailableError) as error:
                self.fail(error)
                return
            except Exception as error:  # noqa: BLE001 - whatever it is, the subscriber must be told
                self.fail(error)
                return

    def _told(self, failure: CallFailedError) -> Exception:
        told = self._connection.told(failure, f"subscribing to {self._subject}", self.stream)
        if isinstance(told, StoreUnavailableError) and failure.code == "ABORTED":
            return SubscriptionDroppedError(failure.details)
        return told

    async def _through_one_call(self) -> None:
        """Hand over what one call gives, until it breaks.

        Raises:
            CallFailedError: It broke.
        """
        connection = self._connection
        connection.require_open()
        tells = connection.version.tells_caught_up
        end = None if tells else await self._stored_end()
        if not tells and self._has_reached(end):
            self._turn(live=True)
        request = self._request()
        async with aclosing(
            connection.answers(lambda: connection.streams.Read(request, **connection.options()))
        ) as answers:
            async for answer in answers:
                self._take(answer)
                if not tells and not self._live and self._has_reached(end):
                    self._turn(live=True)
                while len(self._buffer) >= AHEAD:
                    self._room.clear()
                    await self._room.wait()
        raise CallFailedError("UNAVAILABLE", "the server ended the subscription")

    def _take(self, answer: Any) -> None:
        match answer.WhichOneof("content"):
            case "event":
                event = recorded(answer.event)
                if event is not None and self._is_new(event):
                    self._backoff.succeeded()
                    self._put(event)
            case "checkpoint":
                self._checkpoint(
                    Position(answer.checkpoint.commit_position, answer.checkpoint.prepare_position)
                )
            case "caught_up":
                self._backoff.succeeded()
                self._turn(live=True)
            case "fell_behind":
                self._turn(live=False)
            case _:  # the confirmation, and what later servers add
                pass

    def _turn(self, *, live: bool) -> None:
        if live != self._live:
            self._live = live
            self._put(CaughtUp() if live else FellBehind())

    def _put(self, message: SubscriptionMessage) -> None:
        self._buffer.append(message)
        self._ready.set()


class StreamSubscription(EventStoreDBSubscription):
    """Follows one stream."""

    def __init__(
        self,
        connection: Connection,
        messages: Messages,
        reader: Reader,
        tasks: Tasks,
        forget: Callable[[EventStoreDBSubscription], None],
        stream: StreamName,
        from_revision: int,
    ) -> None:
        self._messages = messages
        self._reader = reader
        self.stream = stream
        self._after = max(from_revision, 0) - 1
        super().__init__(connection, tasks, forget)

    @property
    def _subject(self) -> str:
        return repr(str(self.stream))

    def _request(self) -> Any:
        return self._messages.subscribe_stream(self.stream, self._after)

    def _is_new(self, event: RecordedEvent) -> bool:
        if event.revision <= self._after:
            return False
        self._after = event.revision
        return True

    def _checkpoint(self, position: Position) -> None:
        """A stream's subscription has none: its revisions have no gaps."""

    async def _stored_end(self) -> int:
        newest = await self._reader.page(self.stream, None, 1, backwards=True)
        return newest[0].revision if newest else -1

    def _has_reached(self, end: int) -> bool:
        return self._after >= end


class AllSubscription(EventStoreDBSubscription):
    """Follows the streams that begin with a prefix.

    What a restart may begin after is the position of a handled event, or of a checkpoint. Some servers
    (24.10.3, 24.10.4, 25.0.0) send checkpoints that run ahead of events to come, at the border to live;
    so one of the server's is believed only when an event beyond it, or another checkpoint, follows
    before `CaughtUp`. While live, the subscription's own are used: see `move_on`.

    Attributes:
        prefix: What it follows.
        reached: Everything that matches, up to here, was handed over.
    """

    def __init__(
        self,
        connection: Connection,
        messages: Messages,
        reader: Reader,
        tasks: Tasks,
        forget: Callable[[EventStoreDBSubscription], None],
        prefix: str,
        after: Position,
    ) -> None:
        self._messages = messages
        self._reader = reader
        self.prefix = prefix
        self.reached = after
        self._doubtful: Position | None = None
        super().__init__(connection, tasks, forget)

    @property
    def _subject(self) -> str:
        return f"streams beginning with {self.prefix!r}" if self.prefix else "all streams"

    def _request(self) -> Any:
        self._doubtful = None
        return self._messages.subscribe_all(self.reached, self.prefix)

    def _is_new(self, event: RecordedEvent) -> bool:
        if event.position <= self.reached:
            return False
        self._believe(event.position)
        self.reached = event.position
        return True

    def _checkpoint(self, position: Position) -> None:
        if self._live:
            return
        self._believe(position)
        self._doubtful = position

    def _believe(self, follower: Position) -> None:
        """Hand over the checkpoint that waits, now that what lies beyond it has come."""
        doubtful, self._doubtful = self._doubtful, None
        if doubtful is not None and self.reached < doubtful < follower:
            self.reached = doubtful
            self._put(Checkpoint(doubtful))

    async def _stored_end(self) -> Position:
        newest = await self._reader.page_of_all(START, self.prefix, 1, backwards=True)
        return newest[0].position if newest else START

    def _has_reached(self, end: Position) -> bool:
        return self.reached >= end

    async def move_on(self, end: Position, generation: int) -> bool:
        """Hand over a checkpoint at `end` if nothing that matches lies between what came last and there.

        Args:
            end: Position of an event, read before this is called.
            generation: Over which connection.

        Returns:
            Whether it moved.
        """
        reached = self.reached
        if not self._live or reached >= end or self._buffer:
            return False
        following = await self._reader.page_of_all(reached, self.prefix, 1, backwards=False)
        if following and following[0].position <= end:
            return False  # it is on its way
        # Another node may have been behind the one that told the end.
        if generation != self._connection.generation or self.reached >= end or not self._live:
            return False
        self.reached = end
        self._put(Checkpoint(end))
        return True

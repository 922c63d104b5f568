"""Consumers: members of a persistent subscription to `$all`, which the server keeps."""

import asyncio
import logging
import uuid
from collections import deque
from collections.abc import Callable
from contextlib import aclosing
from typing import Any, Final, NamedTuple, Self

from aion_es.errors import (
    AionError,
    ConsumerGroupNotFoundError,
    UnsupportedStoreVersionError,
)
from aion_es.store.closing import ClosesOnExit
from aion_es.store.eventstoredb.client import Backoff, Connection
from aion_es.store.eventstoredb.errors import LOST, CallFailedError, call_failure
from aion_es.store.eventstoredb.messages import Messages, recorded, start_of
from aion_es.store.eventstoredb.tasks import Tasks
from aion_es.store.port import START, ConsumerGroupChanges, Delivery, NackAction, Position

_LOG: Final = logging.getLogger("aion_es.store.eventstoredb")

_PARTING: Final = 0.25
"""Seconds that a leaving consumer waits for the server to take in its last answers."""
_SETTLING: Final = 0.1
"""Seconds between two looks at a number that is to stand still."""


class GroupInfo(NamedTuple):
    """What the server knows of a group.

    Attributes:
        buffer_size: Deliveries that one consumer may hold.
        start: Where the group begins, exclusive.
        parked: How many events are parked.
    """

    buffer_size: int
    start: Position
    parked: int


class Groups:
    """Creates, changes, deletes and looks at consumer groups."""

    def __init__(self, connection: Connection, messages: Messages) -> None:
        self._connection = connection
        self._messages = messages

    async def info(self, name: str) -> GroupInfo:
        """Return what the server knows of a group.

        Raises:
            ConsumerGroupNotFoundError: There is none.
        """
        answer = await self.call("GetInfo", self._messages.group_info(name), name)
        info = answer.subscription_info
        return GroupInfo(
            max(1, info.read_batch_size),
            start_of(info) or START,
            info.parked_message_count,
        )

    async def update(self, name: str, changes: ConsumerGroupChanges) -> None:
        """Change a group's settings. A server replaces all of them, so the others are read first.

        Raises:
            ConsumerGroupNotFoundError: There is none.
            InvalidArgumentError: A change cannot keep the strategy that it has.
            UnsupportedStoreVersionError: The server would forget the prefix.
        """
        version = self._connection.version
        if not version.keeps_filters:
            raise UnsupportedStoreVersionError(
                f"the server at {self._connection.where}",
                version.text,
                "23.10 or later for changing a consumer group",
            )
        answer = await self.call("GetInfo", self._messages.group_info(name), name)
        request = self._messages.update_group(name, answer.subscription_info, changes)
        await self.call("Update", request, name)

    async def replay_parked(self, name: str) -> int:
        """Deliver parked events again; return how many.

        The server says nothing when it has parked an event, so what consumers parked a moment ago may
        still be on its way: this waits until the number stands still.
        """
        parked = -1
        while parked != (info := await self.info(name)).parked:
            parked = info.parked
            await asyncio.sleep(_SETTLING)
        if parked:
            await self.call("ReplayParked", self._messages.replay_parked(name), name)
        return parked

    async def call(self, method: str, request: Any, name: str) -> Any:
        """Make one call about a group, again while that makes sense."""
        connection = self._connection

        async def once() -> Any:
            return await connection.answer(
                lambda: getattr(connection.persistent, method)(
                    request, **connection.options(leader=True, timeout=connection.deadline)
                )
            )

        return await connection.persistently(
            once, f"{method} of consumer group {name!r}", stream=name
        )


class _JoinedTooEarlyError(Exception):
    """The group was changed between the look at its settings and joining it: to join again is all it takes."""


class _Answer(NamedTuple):
    """An acknowledgement or refusal on its way to the server."""

    event_id: uuid.UUID
    action: NackAction | None
    written: "asyncio.Future[None]"


class EventStoreDBConsumer(ClosesOnExit):
    """One member of a group; joins again whenever its call breaks.

    What it held then is delivered again, to it or to another.

    Args:
        name: The group's.
        connection: Whose stub it uses.
        messages: Of the same library.
        groups: Tells of the group.
        tasks: Run the task that receives.
        forget: Called when it is closed.
    """

    def __init__(
        self,
        name: str,
        connection: Connection,
        messages: Messages,
        groups: Groups,
        tasks: Tasks,
        forget: "Callable[[EventStoreDBConsumer], None]",
    ) -> None:
        self.name = name
        self._forget = forget
        self._connection = connection
        self._messages = messages
        self._groups = groups
        self._tasks = tasks
        self._deliveries: deque[Delivery] = deque()
        self._ready = asyncio.Event()
        self._answers: deque[_Answer] = deque()
        self._answered = asyncio.Event()
        self._unanswered: set[uuid.UUID] = set()
        self._task: asyncio.Task[None] | None = None
        self._leaving = False
        self._closed = False
        self._error: Exception | None = None
        self._backoff = Backoff()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delivery:
        if self._task is None and not self._closed:
            self._connection.require_open()
            self._task = self._tasks.start(self._run(), "aion-es-eventstoredb-consumer")
        while not self._deliveries and not self._closed:
            if self._error is not None:
                raise self._error
            self._ready.clear()
            await self._ready.wait()
        if self._closed:
            raise StopAsyncIteration
        return self._deliveries.popleft()

    async def ack(self, delivery: Delivery) -> None:
        """Say that the event was handled; returns when that is on its way."""
        await self._answer(delivery, None)

    async def nack(self, delivery: Delivery, action: NackAction = "retry") -> None:
        """Say that it was not."""
        await self._answer(delivery, action)

    async def _answer(self, delivery: Delivery, action: NackAction | None) -> None:
        event_id = delivery.event.event_id
        if event_id not in self._unanswered:
            return  # answered before, or delivered over a call that is gone: it comes again
        self._unanswered.discard(event_id)
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._answers.append(_Answer(event_id, action, written))
        self._answered.set()
        await written

    async def aclose(self) -> None:
        """Leave the group; what was answered is told to the server first."""
        self._closed = True
        self._forget(self)
        self._deliveries.clear()
        self._ready.set()
        task = self._task
        if task is not None and not task.done():
            self._leaving = True
            self._answered.set()
            await asyncio.wait({task}, timeout=_PARTING)
            await self._tasks.end(task)

    def fail(self, error: Exception) -> None:
        """Let whoever waits get `error`."""
        if self._error is None:
            self._error = error
        self._ready.set()

    # ---------------------------------------------------------------- the task

    async def _run(self) -> None:
        while True:
            generation = self._connection.generation
            try:
                await self._through_one_call()
            except _JoinedTooEarlyError:
                continue
            except CallFailedError as failure:
                self._lose_hold()
                if self._leaving:
                    return
                dropped = failure.kind == "persistent-subscription-dropped"
                if not (failure.again or dropped) or not self._backoff.failed():
                    self.fail(self._told(failure))
                    return
                _LOG.info("%s: consumer of %r: %s", self._connection.where, self.name, failure)
                await self._connection.mend(failure, generation)
                await self._backoff.pause()
            except AionError as error:
                self.fail(error)
                return
            except Exception as error:  # noqa: BLE001 - whatever it is, the consumer must be told
                self.fail(error)
                return
            finally:
                self._lose_hold()

    def _told(self, failure: CallFailedError) -> Exception:
        if failure.code == "NOT_FOUND":
            return ConsumerGroupNotFoundError(self.name)
        return self._connection.told(failure, f"consumer group {self.name!r}", self.name)

    def _lose_hold(self) -> None:
        """Forget what a call that ended had delivered: the server delivers it again."""
        self._deliveries.clear()
        self._unanswered.clear()
        while self._answers:
            _done(self._answers.popleft())

    async def _through_one_call(self) -> None:
        """Receive and answer until the call ends.

        Raises:
            CallFailedError: It broke.
            _JoinedTooEarlyError: It was begun with settings that hold no more.
        """
        connection = self._connection
        info = await self._groups.info(self.name)
        call: Any = None
        try:
            call = connection.persistent.Read(**connection.options(leader=True))
            async with asyncio.TaskGroup() as group:
                group.create_task(self._send(call, info.buffer_size))
                group.create_task(self._receive(call, info))
        except BaseExceptionGroup as several:
            raise _first_failure(several) from several
        except Exception as error:
            failure = call_failure(error)
            if failure is None:
                raise
            raise failure from error
        finally:
            if call is not None:
                call.cancel()

    async def _send(self, call: Any, buffer_size: int) -> None:
        messages = self._messages
        await self._write(call, messages.consume(self.name, buffer_size))
        while True:
            while not self._answers and not self._leaving:
                self._answered.clear()
                await self._answered.wait()
            if not self._answers:
                await self._connection.answer(call.done_writing)
                return
            first = self._answers.popleft()
            batch = [first]
            while self._answers and self._answers[0].action == first.action and len(batch) < 500:
                batch.append(self._answers.popleft())
            ids = [answer.event_id for answer in batch]
            try:
                await self._write(
                    call,
                    messages.ack(ids) if first.action is None else messages.nack(ids, first.action),
                )
            finally:
                for answer in batch:
                    _done(answer)

    async def _write(self, call: Any, request: Any) -> None:
        await self._connection.answer(lambda: call.write(request))

    async def _receive(self, call: Any, info: GroupInfo) -> None:
        async with aclosing(self._connection.answers(lambda: call)) as answers:
            async for answer in answers:
                if answer.WhichOneof("content") != "event":
                    self._backoff.succeeded()
                    # From the confirmation on, a change ends the call.
                    if (await self._groups.info(self.name)).buffer_size != info.buffer_size:
                        raise _JoinedTooEarlyError
                    continue
                event = recorded(answer.event)
                if event is None:
                    continue
                self._unanswered.add(event.event_id)
                delivery = Delivery(event, answer.event.retry_count + 1)
                if event.position == info.start:
                    # Servers differ in whether a group begins with its start or after it.
                    self._unanswered.discard(event.event_id)
                    self._answers.append(
                        _Answer(event.event_id, None, asyncio.get_running_loop().create_future())
                    )
                    self._answered.set()
                    continue
                self._deliveries.append(delivery)
                self._ready.set()
        raise CallFailedError("UNAVAILABLE", "the server ended the call")


def _done(answer: _Answer) -> None:
    if not answer.written.done():
        answer.written.set_result(None)


def _first_failure(several: "BaseExceptionGroup[BaseException]") -> BaseException:
    failures = [error for error in several.exceptions if isinstance(error, CallFailedError)]
    if len(failures) < len(several.exceptions):
        return next(e for e in several.exceptions if not isinstance(e, CallFailedError))
    return next((failure for failure in failures if failure.code != LOST), failures[0])

"""Appends: all of a store's go through one long `BatchAppend` call, side by side.

That is this adapter's group commit: no call is set up per append, and the server takes many in at once.
Appends to different streams overtake each other; those to one stream are sent one after the other, so
that they are made in the order of the calls even if one of them has to be repeated.

An append whose outcome is unknown, because its answer was lost, is repeated with the same ids at the
same revision: the server compares ids and answers as the first time. `ANY` and `EXISTS` name no
revision, so there the stream is read first.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from aion_es.errors import (
    AionError,
    AppendTooLargeError,
    ConcurrencyConflictError,
    InternalError,
    InvalidArgumentError,
    StoreClosedError,
    StoreUnavailableError,
    StreamDeletedError,
)
from aion_es.ids import StreamName
from aion_es.store.eventstoredb.client import RETRY_FOR, Backoff, Connection
from aion_es.store.eventstoredb.deletion import Deletion
from aion_es.store.eventstoredb.errors import (
    LOST,
    SILENT,
    CallFailedError,
    access_denied,
    call_failure,
)
from aion_es.store.eventstoredb.messages import Messages, has_form
from aion_es.store.eventstoredb.reader import Reader
from aion_es.store.eventstoredb.tasks import Tasks
from aion_es.store.port import (
    ANY,
    EXISTS,
    NO_STREAM,
    Appended,
    ExpectedRevision,
    NewEvent,
    Position,
    RecordedEvent,
)

_LOG: Final = logging.getLogger("aion_es.store.eventstoredb")

_GRACE: Final = 2.0
"""Seconds beyond the deadline after which the call itself counts as broken."""
_LOOK_BACK: Final = 1_000
"""Newest events of a stream among which an append without revision is looked for."""


class Append:
    """One append on its way.

    Attributes:
        answer: What the caller waits for.
        unknown: It was sent once, and the answer was lost.
        sent_at: When it was last sent, on the loop's clock.
        give_up_at: When to stop repeating.
    """

    __slots__ = (
        "answer",
        "events",
        "expected",
        "give_up_at",
        "request",
        "sent_at",
        "stream",
        "unknown",
    )

    def __init__(
        self,
        stream: StreamName,
        events: Sequence[NewEvent],
        expected: ExpectedRevision,
        request: Any,
        answer: "asyncio.Future[Appended]",
        give_up_at: float,
    ) -> None:
        self.stream = stream
        self.events = events
        self.expected = expected
        self.request = request
        self.answer = answer
        self.give_up_at = give_up_at
        self.sent_at = 0.0
        self.unknown = False


class Appender:
    """The queue in front of the call, and the task that keeps the call going.

    Args:
        connection: Whose stub it uses.
        messages: Of the same library.
        reader: Settles what an answer does not.
        deletion: Knows of deleted streams.
        tasks: Run what goes on in the background.
    """

    def __init__(
        self,
        connection: Connection,
        messages: Messages,
        reader: Reader,
        deletion: Deletion,
        tasks: Tasks,
    ) -> None:
        self._connection = connection
        self._messages = messages
        self._reader = reader
        self._deletion = deletion
        self._tasks = tasks
        self._loop = asyncio.get_running_loop()
        self._ready: deque[Append] = deque()
        self._waiting: dict[StreamName, deque[Append]] = {}  # behind the one of that stream
        self._sent: dict[int, Append] = {}
        self._number = 0
        self._unsettled = 0
        self._wanted = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_open = True
        self._keeper: asyncio.Task[None] | None = None
        self._backoff = Backoff()

    def submit(
        self, stream: StreamName, events: Sequence[NewEvent], expected: ExpectedRevision
    ) -> "asyncio.Future[Appended]":
        """Queue an append, now.

        Raises:
            StoreClosedError: The store was closed; nothing was queued.
        """
        if not self._is_open:
            raise StoreClosedError(self._connection.where)
        answer: asyncio.Future[Appended] = self._loop.create_future()
        deadline = self._connection.deadline
        request = (
            self._messages.append(stream, events, expected, deadline)
            if has_form(expected)
            else None
        )
        job = Append(
            stream, events, expected, request, answer, self._loop.time() + deadline + RETRY_FOR
        )
        self._unsettled += 1
        self._idle.clear()
        behind = self._waiting.get(stream)
        if behind is None:
            self._waiting[stream] = deque()
            self._begin(job)
        else:
            behind.append(job)
        return answer

    async def aclose(self) -> None:
        """Take no more; settle what was accepted, then end the call."""
        self._is_open = False
        await self._idle.wait()
        if self._keeper is not None:
            await self._tasks.end(self._keeper)

    def _begin(self, job: Append) -> None:
        """Take an append whose turn it is in its stream."""
        if job.request is None or not job.events:
            self._tasks.spawn(self._check(job), "aion-es-eventstoredb-lookup")
        else:
            self._offer(job)

    async def _check(self, job: Append) -> None:
        """Settle an append that writes nothing, by reading where its stream stands."""
        try:
            head = await self._reader.head(job.stream)
            expected = job.expected
            holds = _holds(expected, head)
            if head < 0 and isinstance(expected, int) and expected >= 0 and has_form(expected):
                holds = await self._deletion.was_last(job.stream, expected)
            answer = Appended(head, await self._reader.end_position())
        except AionError as error:
            self._fail(job, error)
            return
        if holds:
            self._settle(job, answer)
        else:
            self._fail(job, _conflict(job, head))

    def _offer(self, job: Append) -> None:
        self._ready.append(job)
        self._wanted.set()
        if self._keeper is None:
            self._keeper = self._tasks.start(self._keep(), "aion-es-eventstoredb-appends")

    # ---------------------------------------------------------------- the call

    async def _keep(self) -> None:
        """Hold one call open while there is something to send, and a new one whenever it breaks."""
        while True:
            while not self._ready:
                self._wanted.clear()
                await self._wanted.wait()
            generation = self._connection.generation
            try:
                await self._through_one_call()
            except CallFailedError as failure:
                self._take_back(failure)
                self._backoff.failed()
                await self._connection.mend(failure, generation)
                await self._backoff.pause()
            except Exception as error:  # noqa: BLE001 - whoever waits must be told, and the next be served
                _LOG.exception("%s: appending", self._connection.where)
                self._give_up(InternalError(f"appending: {type(error).__name__}: {error}"))

    async def _through_one_call(self) -> None:
        """Send and hear until the call ends.

        Raises:
            CallFailedError: It ended; what was sent and not answered is in doubt.
        """
        connection = self._connection
        call: Any = None
        try:
            call = connection.streams.BatchAppend(**connection.options(leader=True))
            async with asyncio.TaskGroup() as group:
                group.create_task(self._send(call))
                group.create_task(self._hear(call))
                group.create_task(self._watch())
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

    async def _send(self, call: Any) -> None:
        ready, sent, messages, loop = self._ready, self._sent, self._messages, self._loop
        while True:
            while not ready:
                self._wanted.clear()
                await self._wanted.wait()
            job = ready.popleft()
            self._number += 1
            sent[self._number] = job
            messages.correlate(job.request, self._number)
            job.sent_at = loop.time()
            try:
                await call.write(job.request)
            except BaseException as error:
                failure = call_failure(error)
                if failure is None:
                    raise
                raise failure from error

    async def _hear(self, call: Any) -> None:
        try:
            async for response in call:
                job = self._sent.pop(self._messages.correlation(response), None)
                if job is not None:
                    self._backoff.succeeded()
                    self._hear_of(job, response)
        except BaseException as error:
            failure = call_failure(error)
            if failure is None:
                raise
            raise failure from error
        raise CallFailedError("UNAVAILABLE", "the server ended the call")

    async def _watch(self) -> None:
        """Break a call that is silent: a half-open connection tells of itself in no other way."""
        patience = self._connection.deadline + _GRACE
        while True:
            await asyncio.sleep(1.0)
            oldest = next(iter(self._sent.values()), None)
            if oldest is not None and self._loop.time() - oldest.sent_at > patience:
                raise CallFailedError(SILENT, f"no answer within {patience:g} s")

    def _take_back(self, failure: CallFailedError) -> None:
        """Put what was sent back in front, in order; give up what cannot or need not be repeated."""
        doubtful = list(self._sent.values())
        self._sent.clear()
        if failure.code != LOST:
            _LOG.info("%s: appending: %s", self._connection.where, failure)
        jobs = [*doubtful, *self._ready]
        self._ready.clear()
        for job in doubtful:
            # Also where the node is not the leader any more: it may have been when it took this one in.
            job.unknown = True
        for job in jobs:
            if failure.again:
                self._again(job, str(failure))
            else:
                self._fail(job, self._told(job, failure))

    def _give_up(self, error: InternalError) -> None:
        """Fail everything that was sent or waits to be."""
        jobs = [*self._sent.values(), *self._ready]
        self._sent.clear()
        self._ready.clear()
        for job in jobs:
            self._fail(job, error)

    def _again(self, job: Append, reason: str) -> None:
        """Queue an append once more, after reading if its outcome cannot be told by repeating it."""
        if self._loop.time() > job.give_up_at:
            where = f"{self._connection.where}: appending to {job.stream!r}: {reason}"
            self._fail(job, StoreUnavailableError(where, job.unknown))
        elif job.unknown and job.expected in (ANY, EXISTS):
            self._tasks.spawn(self._look_then_offer(job), "aion-es-eventstoredb-lookup")
        else:
            self._offer(job)

    # ---------------------------------------------------------------- answers

    def _hear_of(self, job: Append, response: Any) -> None:
        if response.WhichOneof("result") != "success":
            self._hear_refusal(job, response)
            return
        success = response.success
        if (
            success.WhichOneof("current_revision_option") == "current_revision"
            and success.WhichOneof("position_option") == "position"
        ):
            at = success.position
            self._settle(
                job,
                Appended(
                    success.current_revision, Position(at.commit_position, at.prepare_position)
                ),
            )
        else:
            self._tasks.spawn(self._answer_by_reading(job), "aion-es-eventstoredb-lookup")

    def _hear_refusal(self, job: Append, response: Any) -> None:
        details = self._messages.error_details(response)
        where = f"{self._connection.where}: appending to {job.stream!r}"
        match type(details).__name__:
            case "WrongExpectedVersion":
                actual = -1
                if (
                    details.WhichOneof("current_stream_revision_option")
                    == "current_stream_revision"
                ):
                    actual = details.current_stream_revision
                self._conflict(job, actual)
            case "StreamDeleted":
                self._fail(job, StreamDeletedError(job.stream))
            case "AccessDenied":
                self._fail(job, access_denied(where))
            case "MaximumAppendSizeExceeded":
                size = sum(event.size for event in job.events)
                self._fail(job, AppendTooLargeError(size, details.maxAppendSize))
            case "BadRequest":
                self._fail(job, InvalidArgumentError("append", details.message))
            case "InvalidTransaction":
                self._fail(job, InternalError(f"{where}: invalid transaction"))
            case _:  # too late, not ready, too busy, not the leader: all of them pass
                job.unknown = True
                self._tasks.spawn(
                    self._after_a_pause(
                        job, response.error.message or "timeout", self._connection.generation
                    ),
                    "aion-es-eventstoredb-again",
                )

    async def _after_a_pause(self, job: Append, reason: str, generation: int) -> None:
        self._backoff.failed()
        # Not ready, or not the leader any more: in a cluster, look who is.
        await self._connection.mend(CallFailedError("UNAVAILABLE", reason), generation)
        await self._backoff.pause()
        self._again(job, reason)

    def _conflict(self, job: Append, actual: int) -> None:
        if actual < 0:
            self._fail(job, _conflict(job, -1))
        else:
            self._tasks.spawn(self._look_at_conflict(job, actual), "aion-es-eventstoredb-lookup")

    async def _look_at_conflict(self, job: Append, actual: int) -> None:
        """Settle a refusal that may be none, or whose head may be that of a deleted stream."""
        try:
            repeated = await self._repeated_in_a_later_life(job)
            if repeated is not None:
                self._settle(job, repeated)
                return
            visible = await self._reader.head(job.stream)
        except AionError as error:
            self._fail(job, error)
        else:
            self._fail(job, _conflict(job, actual if visible >= 0 else -1))

    async def _repeated_in_a_later_life(self, job: Append) -> Appended | None:
        """Return the first answer if the batch is what a stream that was deleted before begins with now.

        The server compares from the very first event, which belongs to an earlier life.
        """
        if job.expected not in (NO_STREAM, -1) or not job.events:
            return None
        first = await self._reader.page(job.stream, None, len(job.events), backwards=False)
        if first and first[0].revision > 0 and _same_ids(first, job.events):
            return Appended(first[-1].revision, first[-1].position)
        return None

    async def _look_then_offer(self, job: Append) -> None:
        """Look for an append without revision among the stream's newest events; repeat it if it is not there."""
        try:
            newest = await self._reader.page(job.stream, None, _LOOK_BACK, backwards=True)
        except StoreUnavailableError as error:
            self._fail(job, StoreUnavailableError(error.reason, outcome_unknown=True))
        except AionError as error:
            self._fail(job, error)
        else:
            found = _found(newest[::-1], job.events)
            if found is None:
                self._offer(job)
            else:
                self._settle(job, found)

    async def _answer_by_reading(self, job: Append) -> None:
        """Answer an append of which the server says only that all is well."""
        try:
            newest = await self._reader.page(job.stream, None, _LOOK_BACK, backwards=True)
            found = _found(newest[::-1], job.events)
            if found is None:
                raise StoreUnavailableError(
                    f"{self._connection.where}: {job.stream!r} does not show what was appended yet",
                    outcome_unknown=True,
                )
        except AionError as error:
            self._fail(job, error)
        else:
            self._settle(job, found)

    # ---------------------------------------------------------------- settling

    def _settle(self, job: Append, answer: Appended) -> None:
        if not job.answer.done():
            job.answer.set_result(answer)
        self._next_of(job.stream)

    def _fail(self, job: Append, error: BaseException) -> None:
        if not job.answer.done():
            job.answer.set_exception(error)
        self._next_of(job.stream)

    def _next_of(self, stream: StreamName) -> None:
        behind = self._waiting[stream]
        if behind:
            self._begin(behind.popleft())
        else:
            del self._waiting[stream]
        self._unsettled -= 1
        if not self._unsettled:
            self._idle.set()

    def _told(self, job: Append, failure: CallFailedError) -> AionError:
        return self._connection.told(
            failure, f"appending to {job.stream!r}", job.stream, outcome_unknown=job.unknown
        )


def _holds(expected: ExpectedRevision, head: int) -> bool:
    if isinstance(expected, int):
        return expected == head
    return expected is ANY or (head < 0) == (expected is NO_STREAM)


def _conflict(job: Append, actual: int) -> ConcurrencyConflictError:
    expected = job.expected if isinstance(job.expected, int) else job.expected.value
    return ConcurrencyConflictError(job.stream, expected, actual)


def _same_ids(stored: Sequence[RecordedEvent], events: Sequence[NewEvent]) -> bool:
    return [event.event_id for event in stored] == [event.event_id for event in events]


def _found(stored: Sequence[RecordedEvent], events: Sequence[NewEvent]) -> Appended | None:
    """Return where `events` stand in a row among `stored`, the last place first; None if nowhere."""
    count = len(events)
    for start in range(len(stored) - count, -1, -1):
        part = stored[start : start + count]
        if _same_ids(part, events):
            return Appended(part[-1].revision, part[-1].position)
    return None


def _first_failure(several: "BaseExceptionGroup[BaseException]") -> BaseException:
    """Return what broke a call: sending and hearing see the same end, and one of them knows why."""
    failures = [error for error in several.exceptions if isinstance(error, CallFailedError)]
    if len(failures) < len(several.exceptions):
        return next(e for e in several.exceptions if not isinstance(e, CallFailedError))
    return next((failure for failure in failures if failure.code != LOST), failures[0])

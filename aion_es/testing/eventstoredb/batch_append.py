"""The method `BatchAppend`: many appends over one call, each with its own answer."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

from aion_es.clock import Clock
from aion_es.ids import StreamName
from aion_es.store.port import (
    ANY,
    EXISTS,
    NO_STREAM,
    ExpectedRevision,
    NewEvent,
)
from aion_es.testing.eventstoredb.access import WRITE
from aion_es.testing.eventstoredb.calls import Call, Send, refusal_for
from aion_es.testing.eventstoredb.faults import Faults
from aion_es.testing.eventstoredb.ledger import Ledger, Written
from aion_es.testing.eventstoredb.refusals import (
    MAX_APPEND_SIZE,
    AccessDenied,
    MaximumAppendSizeExceeded,
    Refused,
    StreamDeleted,
    WrongExpectedVersion,
)
from aion_es.testing.eventstoredb.streams import StreamAccess, expected_of, stream_of
from aion_es.testing.eventstoredb.stubs import Stubs
from aion_es.testing.eventstoredb.wire import outer, read_event


class _Batch:
    """An append whose last part has not come yet."""

    def __init__(
        self, options: Any, stream: StreamName, expected: ExpectedRevision, patience: float | None
    ) -> None:
        self.options = options
        self.stream = stream
        self.expected = expected
        self._due_at = None if patience is None else time.monotonic() + patience
        self.events: list[NewEvent] = []
        self.size = 0

    def require_time(self) -> None:
        """Return if the time that the client gives is not over.

        Raises:
            Refused: It is.
        """
        if self._due_at is not None and time.monotonic() >= self._due_at:
            raise Refused("DEADLINE_EXCEEDED", "Timeout")


class BatchAppend:
    """Handles the method."""

    def __init__(
        self, stubs: Stubs, ledger: Ledger, access: StreamAccess, faults: Faults, clock: Clock
    ) -> None:
        self._stubs = stubs
        self._clock = clock
        self._ledger = ledger
        self._access = access
        self._faults = faults

    async def batch_append(self, requests: AsyncIterator[Any], call: Call, send: Send) -> None:
        """Send the answers as they come, which need not be the order of the requests."""
        answers = _Answers()
        async with asyncio.TaskGroup() as group:
            receiving = group.create_task(self._receive(requests, call, answers, group))
            async for answer in answers:
                await send(answer)
            receiving.cancel()

    async def _receive(
        self,
        requests: AsyncIterator[Any],
        call: Call,
        answers: "_Answers",
        group: asyncio.TaskGroup,
    ) -> None:
        pending: dict[bytes, _Batch] = {}
        try:
            async for request in requests:
                batch = self._take(request, call, pending, answers)
                if batch is not None:
                    answers.expect()
                    group.create_task(self._append(request.correlation_id, batch, call, answers))
        except Refused as error:
            answers.fail(error)
        answers.close()

    def _take(
        self, request: Any, call: Call, pending: dict[bytes, _Batch], answers: "_Answers"
    ) -> _Batch | None:
        """Add a request to its append; return that if it is complete, and answer if it is refused."""
        key = request.correlation_id.SerializeToString()
        try:
            if request.HasField("options") and key not in pending:
                pending[key] = self._begin(request.options, call)
            batch = pending.get(key)
            if batch is None:
                return None
            self._add(batch, request)
        except Refused as error:
            pending.pop(key, None)
            answers.expect()
            answers.put(self._refused(request.correlation_id, request.options, error))
            return None
        if not request.is_final:
            return None
        return pending.pop(key)

    def _begin(self, options: Any, call: Call) -> _Batch:
        stream = stream_of(options)
        self._access.require(call.user, WRITE, stream)
        expected = expected_of(options, "expected_stream_position", "stream_position")
        batch = _Batch(options, stream, expected, self._patience(options))
        batch.require_time()
        return batch

    def _patience(self, options: Any) -> float | None:
        """Return how many seconds the client still waits; older ones send the instant until when."""
        match options.WhichOneof("deadline_option"):
            case "deadline":
                return _seconds(options.deadline)
            case "deadline_21_10_0":
                return _seconds(options.deadline_21_10_0) - self._clock.now().timestamp()
            case _:
                return None

    @staticmethod
    def _add(batch: _Batch, request: Any) -> None:
        for message in request.proposed_messages:
            event = read_event(message)
            batch.events.append(event)
            batch.size += event.size
        if batch.size > MAX_APPEND_SIZE:
            raise MaximumAppendSizeExceeded

    async def _append(
        self, correlation_id: Any, batch: _Batch, call: Call, answers: "_Answers"
    ) -> None:
        try:
            after_commit = await self._faults.strike("BatchAppend")
            if call.requires_leader:
                self._faults.require_leader()
        except Refused as error:  # the whole call ends, as if the connection broke
            answers.fail(error)
            return
        try:
            batch.require_time()
            written = await self._ledger.append(batch.stream, batch.events, batch.expected)
        except Exception as error:  # noqa: BLE001 - every one becomes the answer
            answers.put(self._refused(correlation_id, batch.options, refusal_for(error)))
            return
        try:
            after_commit()
        except Refused as error:
            answers.fail(error)
            return
        answers.put(self._appended(correlation_id, batch.options, written))

    # ---------------------------------------------------------------- answers

    def _appended(self, correlation_id: Any, options: Any, written: Written) -> Any:
        messages = self._stubs.streams.BatchAppendResp
        success = messages.Success()
        if written.revision < 0:
            success.no_stream.SetInParent()
        else:
            success.current_revision = written.revision
        if written.position is None:
            success.no_position.SetInParent()
        else:
            commit, prepare = outer(written.position)
            success.position.commit_position = commit
            success.position.prepare_position = prepare
        return messages(
            correlation_id=correlation_id,
            stream_identifier=options.stream_identifier,
            success=success,
        )

    def _refused(self, correlation_id: Any, options: Any, error: Refused) -> Any:
        messages, shared = self._stubs.streams.BatchAppendResp, self._stubs.shared
        name, code, details = "Unknown", 2, shared.Unknown()
        match error:
            case WrongExpectedVersion():
                name, code = "WrongExpectedVersion", 6
                details = self._wrong_expected_version(options, error.actual)
            case StreamDeleted():
                name, code = "StreamDeleted", 5
                details = shared.StreamDeleted(stream_identifier=options.stream_identifier)
            case AccessDenied():
                name, code, details = "AccessDenied", 7, shared.AccessDenied()
            case MaximumAppendSizeExceeded():
                name, code = "MaximumAppendSizeExceeded", 3
                details = shared.MaximumAppendSizeExceeded(maxAppendSize=MAX_APPEND_SIZE)
            case Refused(code="DEADLINE_EXCEEDED"):
                name, code, details = "Timeout", 4, shared.Timeout()
            case Refused(code="INVALID_ARGUMENT"):
                name, code = "BadRequest", 3
                details = shared.BadRequest(message=error.details)
            case _:
                pass
        packed = self._stubs.any.Any()
        packed.Pack(details)
        status = self._stubs.status.Status(code=code, message=name, details=packed)
        return messages(
            correlation_id=correlation_id,
            stream_identifier=options.stream_identifier,
            error=status,
        )

    def _wrong_expected_version(self, options: Any, actual: int) -> Any:
        details = self._stubs.shared.WrongExpectedVersion()
        if actual < 0:
            details.current_no_stream.SetInParent()
        else:
            details.current_stream_revision = actual
        expected = expected_of(options, "expected_stream_position", "stream_position")
        if expected is NO_STREAM:
            details.expected_no_stream.SetInParent()
        elif expected is ANY:
            details.expected_any.SetInParent()
        elif expected is EXISTS:
            details.expected_stream_exists.SetInParent()
        else:
            details.expected_stream_position = expected
        return details


class _Answers:
    """Answers on their way out; ends when no more requests come and each has its answer."""

    def __init__(self) -> None:
        self._ready: deque[Any] = deque()
        self._changed = asyncio.Event()
        self._waited_for = 0
        self._closed = False
        self._error: Refused | None = None

    def expect(self) -> None:
        """Say that one more answer will come."""
        self._waited_for += 1

    def put(self, answer: Any) -> None:
        """Give an answer."""
        self._ready.append(answer)
        self._changed.set()

    def close(self) -> None:
        """Say that no more requests come."""
        self._closed = True
        self._changed.set()

    def fail(self, error: Refused) -> None:
        """End the call with `error`."""
        self._error = error
        self._changed.set()

    def __aiter__(self) -> "_Answers":
        return self

    async def __anext__(self) -> Any:
        while True:
            self._changed.clear()
            if self._error is not None:
                raise self._error
            if self._ready:
                self._waited_for -= 1
                return self._ready.popleft()
            if self._closed and self._waited_for <= 0:
                raise StopAsyncIteration
            await self._changed.wait()


def _seconds(message: Any) -> float:
    """Return what a duration, or an instant, is in seconds."""
    seconds: float = message.seconds + message.nanos / 1_000_000_000
    return seconds

"""The service `Streams`: append, read, subscribe, delete and tombstone."""

import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import uuid_utils

from aion_es.ids import StreamName
from aion_es.store.port import (
    ANY,
    EXISTS,
    NO_STREAM,
    START,
    CaughtUp,
    Checkpoint,
    ExpectedRevision,
    NewEvent,
    Position,
    RecordedEvent,
)
from aion_es.testing.eventstoredb.access import (
    DELETE,
    READ,
    READ_METADATA,
    WRITE,
    WRITE_METADATA,
    Access,
    User,
)
from aion_es.testing.eventstoredb.calls import Call, Send
from aion_es.testing.eventstoredb.faults import Faults
from aion_es.testing.eventstoredb.filters import Filter, FilterSpec
from aion_es.testing.eventstoredb.ledger import Ledger, Written
from aion_es.testing.eventstoredb.reading import Reader, StreamNotFound
from aion_es.testing.eventstoredb.refusals import (
    MAX_APPEND_SIZE,
    MaximumAppendSizeExceeded,
    WrongExpectedVersion,
    bad_request,
)
from aion_es.testing.eventstoredb.stream_metadata import is_metastream
from aion_es.testing.eventstoredb.stubs import Stubs
from aion_es.testing.eventstoredb.subscriptions import Message, Subscriptions
from aion_es.testing.eventstoredb.wire import EventWriter, inner, outer, read_event

_ALL = "$all"


class StreamAccess:
    """Decides about streams; what holds for a stream's metadata is said by the stream itself."""

    def __init__(self, access: Access, ledger: Ledger) -> None:
        self._access = access
        self._ledger = ledger

    def require(self, user: User, right: str, stream: str) -> None:
        """Return if `user` has `right` on `stream`.

        Raises:
            AccessDenied: Not so.
        """
        owner = stream
        if is_metastream(stream):
            owner = stream[2:]
            right = {READ: READ_METADATA, WRITE: WRITE_METADATA}.get(right, right)
        self._access.require(user, right, owner, self._ledger.metadata(owner))


class Streams:
    """Handles the calls of the service, but for `BatchAppend`."""

    def __init__(self, stubs: Stubs, ledger: Ledger, access: StreamAccess, faults: Faults) -> None:
        self._stubs = stubs
        self._ledger = ledger
        self._access = access
        self._faults = faults
        self._reader = Reader(ledger)
        self._subscriptions = Subscriptions(ledger, self._reader)

    # ---------------------------------------------------------------- writing

    async def append(self, requests: AsyncIterator[Any], call: Call) -> Any:
        """Append what follows the options, all or nothing."""
        options: Any = None
        events: list[NewEvent] = []
        size = 0
        async for request in requests:
            if options is None:
                options = request.options
                continue
            events.append(read_event(request.proposed_message))
            size += events[-1].size
            if size > MAX_APPEND_SIZE:
                raise MaximumAppendSizeExceeded
        if options is None:
            raise bad_request("An append begins with its options")
        after_commit = await self._faults.strike("Append")
        self._require_leader(call)
        stream = stream_of(options)
        expected = expected_of(options, "expected_stream_revision", "revision")
        self._access.require(call.user, WRITE, stream)
        try:
            written = await self._ledger.append(stream, events, expected)
        except WrongExpectedVersion as error:
            return self._wrong_expected_version(expected, error.actual)
        after_commit()
        return self._stubs.streams.AppendResp(success=self._success(written))

    def _success(self, written: Written) -> Any:
        messages = self._stubs.streams.AppendResp
        fields: dict[str, Any] = {}
        if written.revision < 0:
            fields["no_stream"] = self._stubs.shared.Empty()
        else:
            fields["current_revision"] = written.revision
        if written.position is None:
            fields["no_position"] = self._stubs.shared.Empty()
        else:
            commit, prepare = outer(written.position)
            fields["position"] = messages.Position(commit_position=commit, prepare_position=prepare)
        return messages.Success(**fields)

    def _wrong_expected_version(self, expected: ExpectedRevision, actual: int) -> Any:
        """Return the answer that clients since 20.6 look for, and the older ones."""
        empty = self._stubs.shared.Empty()
        fields: dict[str, Any] = {}
        if actual < 0:
            fields |= {"current_no_stream": empty, "no_stream_20_6_0": empty}
        else:
            fields |= {"current_revision": actual, "current_revision_20_6_0": actual}
        if expected is EXISTS:
            fields |= {"expected_stream_exists": empty, "stream_exists_20_6_0": empty}
        elif expected is ANY:
            fields |= {"expected_any": empty, "any_20_6_0": empty}
        elif isinstance(expected, int):
            fields |= {"expected_revision": expected, "expected_revision_20_6_0": expected}
        else:
            fields |= {"expected_no_stream": empty, "expected_revision_20_6_0": 2**64 - 1}
        messages = self._stubs.streams.AppendResp
        return messages(wrong_expected_version=messages.WrongExpectedVersion(**fields))

    async def delete(self, request: Any, call: Call) -> Any:
        """Delete a stream softly."""
        after_commit, stream, expected = await self._begin_deletion("Delete", request, call)
        position = await self._ledger.delete(stream, expected)
        after_commit()
        return self._deleted(self._stubs.streams.DeleteResp, position)

    async def tombstone(self, request: Any, call: Call) -> Any:
        """End a stream for good."""
        after_commit, stream, expected = await self._begin_deletion("Tombstone", request, call)
        position = await self._ledger.tombstone(stream, expected)
        after_commit()
        return self._deleted(self._stubs.streams.TombstoneResp, position)

    async def _begin_deletion(self, method: str, request: Any, call: Call) -> Any:
        after_commit = await self._faults.strike(method)
        self._require_leader(call)
        stream = stream_of(request.options)
        self._access.require(call.user, DELETE, stream)
        expected = expected_of(request.options, "expected_stream_revision", "revision")
        return after_commit, stream, expected

    def _deleted(self, response: Any, position: Position | None) -> Any:
        if position is None:
            return response(no_position=self._stubs.shared.Empty())
        commit, prepare = outer(position)
        return response(
            position=response.Position(commit_position=commit, prepare_position=prepare)
        )

    # ---------------------------------------------------------------- reading

    async def read(self, request: Any, call: Call, send: Send) -> None:
        """Read or subscribe to a stream or `$all`."""
        await self._faults.strike("Read")
        self._require_leader(call)
        options = request.options
        kind = options.WhichOneof("stream_option")
        if kind is None:
            raise bad_request("A read names a stream or $all")
        self._access.require(call.user, READ, _ALL if kind == "all" else stream_of(options.stream))
        subscription = options.WhichOneof("count_option") == "subscription"
        reading = {
            ("all", True): self._subscribe_all,
            ("all", False): self._read_all,
            ("stream", True): self._subscribe_stream,
            ("stream", False): self._read_stream,
        }[kind, subscription]
        async with aclosing(reading(options, self._writer(options))) as responses:
            async for response in responses:
                await send(response)

    def _writer(self, options: Any) -> EventWriter:
        text_ids = options.uuid_option.WhichOneof("content") == "string"
        return EventWriter(self._stubs, self._stubs.streams, text_ids=text_ids)

    async def _read_stream(self, options: Any, writer: EventWriter) -> AsyncGenerator[Any, None]:
        response = self._stubs.streams.ReadResp
        backwards = bool(options.read_direction)
        stream = stream_of(options.stream)
        begin = options.stream.WhichOneof("revision_option")
        if (begin == "end") is not backwards and begin in {"start", "end"}:
            count = 0 if begin == "end" else min(options.count, 1)
            first: int | None = None if begin == "end" else 0
        else:
            count = options.count
            first = options.stream.revision if begin == "revision" else None
        shown = 0
        try:
            async for event in self._reader.stream(
                stream, from_revision=first, backwards=backwards, count=_bounded(count)
            ):
                shown += 1
                yield await self._response(options, writer, event)
            if options.control_option.compatibility >= 1:
                last = await self._reader.last(stream)
                if not shown and not backwards and last >= 0:
                    yield response(first_stream_position=last + 1)
                yield response(last_stream_position=max(last, 0))
        except StreamNotFound:
            name = self._stubs.shared.StreamIdentifier(stream_name=stream.encode())
            yield response(stream_not_found=response.StreamNotFound(stream_identifier=name))

    async def _read_all(self, options: Any, writer: EventWriter) -> AsyncGenerator[Any, None]:
        backwards = bool(options.read_direction)
        begin = options.all.WhichOneof("all_option")
        if begin == "start" and backwards:
            return
        if begin == "end" and not backwards:
            return
        position = _position(options.all.position) if begin == "position" else None
        async for event in self._reader.all(
            position=position,
            backwards=backwards,
            count=_bounded(options.count),
            wanted=_filter(options),
        ):
            yield await self._response(options, writer, event)

    async def _response(self, options: Any, writer: EventWriter, event: RecordedEvent) -> Any:
        if not options.resolve_links:
            return writer.response(event)
        return writer.response(*await self._reader.resolve(event))

    # ---------------------------------------------------------------- subscribing

    async def _subscribe_all(self, options: Any, writer: EventWriter) -> AsyncGenerator[Any, None]:
        begin = options.all.WhichOneof("all_option")
        after = START
        if begin == "end":  # looked up before the confirmation: what is written after it is to come
            after = await self._ledger.store.end_position()
        elif begin == "position":
            after = _position(options.all.position)
        messages = self._subscriptions.to_all(after=after, wanted=_filter(options))
        async with aclosing(self._told(options, writer, messages)) as responses:
            async for response in responses:
                yield response

    async def _subscribe_stream(
        self, options: Any, writer: EventWriter
    ) -> AsyncGenerator[Any, None]:
        stream = stream_of(options.stream)
        begin = options.stream.WhichOneof("revision_option")
        first = 0
        if begin == "end":
            first = await self._subscriptions.end_of(stream)
        elif begin == "revision":
            first = options.stream.revision + 1
        messages = self._subscriptions.to_stream_until_its_end(stream, from_revision=first)
        async with aclosing(self._told(options, writer, messages)) as responses:
            async for response in responses:
                yield response

    async def _told(
        self, options: Any, writer: EventWriter, messages: AsyncGenerator[Message, None]
    ) -> AsyncGenerator[Any, None]:
        response = self._stubs.streams.ReadResp
        name = str(uuid.UUID(bytes=uuid_utils.uuid7().bytes))
        yield response(confirmation=response.SubscriptionConfirmation(subscription_id=name))
        async with aclosing(messages):
            async for message in messages:
                if isinstance(message, RecordedEvent):
                    yield await self._response(options, writer, message)
                elif isinstance(message, Checkpoint):
                    commit, prepare = outer(message.position)
                    yield response(
                        checkpoint=response.Checkpoint(
                            commit_position=commit, prepare_position=prepare
                        )
                    )
                elif isinstance(message, CaughtUp):
                    yield response(caught_up=response.CaughtUp())
                else:
                    yield response(fell_behind=response.FellBehind())

    def _require_leader(self, call: Call) -> None:
        if call.requires_leader:
            self._faults.require_leader()


def stream_of(options: Any) -> StreamName:
    """Return the stream that a message names.

    Raises:
        Refused: It names none, or not in UTF-8.
    """
    try:
        name: str = options.stream_identifier.stream_name.decode()
    except UnicodeDecodeError as error:
        raise bad_request("The stream's name is not UTF-8") from error
    if not name:
        raise bad_request("The stream has no name")
    return StreamName(name)


def expected_of(options: Any, group: str, revision: str) -> ExpectedRevision:
    """Return what a message expects of its stream.

    Args:
        options: The message.
        group: Name of the choice.
        revision: Name of the choice's field for an exact revision.

    Raises:
        Refused: It says nothing of that.
    """
    kind = options.WhichOneof(group)
    if kind is None:
        raise bad_request("'None' is not a valid expected stream revision")
    if kind == revision:
        exact: int = getattr(options, revision)
        return exact if exact < 2**63 else NO_STREAM
    return {"any": ANY, "no_stream": NO_STREAM, "stream_exists": EXISTS}[kind]


def _filter(options: Any) -> Filter | None:
    if options.WhichOneof("filter_option") != "filter":
        return None
    return Filter(FilterSpec.parse(options.filter))


def _position(message: Any) -> Position:
    commit: int = message.commit_position
    prepare: int = message.prepare_position
    return inner(min(commit, 2**63 - 1), min(prepare, 2**63 - 1))


def _bounded(count: int) -> int:
    return min(count, 2**63 - 1)

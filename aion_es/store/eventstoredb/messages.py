"""The protocol's messages: requests out of our words, and our words out of responses."""

import re
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from aion_es.errors import InvalidArgumentError, StoreCorruptError
from aion_es.ids import StreamName
from aion_es.store.eventstoredb.client import Library
from aion_es.store.port import (
    START,
    ConsumerGroupSettings,
    ConsumerStrategy,
    Expected,
    ExpectedRevision,
    NackAction,
    NewEvent,
    Position,
    RecordedEvent,
)

MAX_REVISION: Final = 2**63 - 1
WINDOW: Final = 500
"""Events that the server looks through at once for a filter's matches."""
CHECKPOINT_EVERY: Final = 2
"""A subscription gets a checkpoint after so many windows in which nothing matched."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_HALF: Final = 2**64 - 1
_STRATEGIES: Final = {
    ConsumerStrategy.ROUND_ROBIN: "RoundRobin",
    ConsumerStrategy.PINNED: "Pinned",
}
_MILLISECOND: Final = timedelta(milliseconds=1)


def filter_regex(prefix: str) -> str:
    """Return the server-side filter for the streams that begin with `prefix`.

    An empty prefix means every stream but the server's own, whose names begin with `$`.
    """
    # Not the protocol's own prefix filter: whether it compares code points is not documented.
    return f"^{re.escape(prefix)}" if prefix else r"^[^\$]"


def stream_bytes(stream: str) -> bytes:
    """Return a stream's name as it is sent.

    Raises:
        InvalidArgumentError: It cannot be written as UTF-8.
    """
    return _encoded("stream", stream)


def check_prefix(prefix: str) -> None:
    """Return if a stream's name can begin with `prefix`.

    Raises:
        InvalidArgumentError: It has half of a surrogate pair.
    """
    _encoded("prefix", prefix)


def _encoded(argument: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(argument, "has half of a surrogate pair") from error


class Messages:
    """Builds requests and reads responses with one client package's classes."""

    def __init__(self, library: Library) -> None:
        self._streams = library.streams
        self._persistent = library.persistent
        self._shared = library.shared
        self._empty = library.shared.Empty()
        self._proposed = library.streams.BatchAppendReq.ProposedMessage
        self._uuid = library.shared.UUID
        self._text_ids = library.streams.ReadReq.Options.UUIDOption(string=self._empty)

    def _identifier(self, stream: str) -> Any:
        return self._shared.StreamIdentifier(stream_name=stream_bytes(stream))

    # ---------------------------------------------------------------- appending

    def append(
        self,
        stream: StreamName,
        events: Sequence[NewEvent],
        expected: ExpectedRevision,
        deadline: float,
    ) -> Any:
        """Return the request to append `events`, without correlation id."""
        request = self._streams.BatchAppendReq(
            proposed_messages=[self._proposal(event) for event in events], is_final=True
        )
        options = request.options
        options.stream_identifier.stream_name = stream_bytes(stream)
        options.deadline.seconds = int(deadline)
        options.deadline.nanos = int(deadline % 1 * 1e9)
        match expected:
            case Expected.ANY:
                options.any.SetInParent()
            case Expected.EXISTS:
                options.stream_exists.SetInParent()
            case Expected.NO_STREAM | -1:
                options.no_stream.SetInParent()
            case int():
                options.stream_position = expected
        return request

    def _proposal(self, event: NewEvent) -> Any:
        try:
            return self._proposed(
                id=self._uuid(string=str(event.event_id)),
                metadata={"type": event.type, "content-type": _content_type(event.data)},
                custom_metadata=event.metadata,
                data=event.data,
            )
        except UnicodeEncodeError as error:
            raise InvalidArgumentError("type", "has half of a surrogate pair") from error

    def correlate(self, request: Any, number: int) -> None:
        """Give a request the correlation id that `correlation` reads back."""
        request.correlation_id.string = f"00000000-0000-0000-0000-{number:012x}"

    def correlation(self, response: Any) -> int:
        """Return the number that a response's request was given."""
        return _uuid_int(response.correlation_id)

    def error_details(self, response: Any) -> Any:
        """Return what a refused append says beside its text: one of the `shared` messages, or None."""
        packed = response.error.details
        for name in (
            "WrongExpectedVersion",
            "StreamDeleted",
            "AccessDenied",
            "MaximumAppendSizeExceeded",
            "BadRequest",
            "InvalidTransaction",
            "Timeout",
        ):
            message = getattr(self._shared, name)
            if packed.Is(message.DESCRIPTOR):
                details = message()
                packed.Unpack(details)
                return details
        return None

    # ---------------------------------------------------------------- reading

    def read_stream(
        self, stream: StreamName, revision: int | None, count: int, *, backwards: bool
    ) -> Any:
        """Return the request to read one stream: from `revision`, inclusive, or from its first (last) event."""
        request = self._read(backwards=backwards)
        wanted = request.options.stream
        wanted.stream_identifier.stream_name = stream_bytes(stream)
        if revision is not None:
            wanted.revision = min(max(revision, 0), MAX_REVISION)
        elif backwards:
            wanted.end.SetInParent()
        else:
            wanted.start.SetInParent()
        request.options.count = count
        request.options.no_filter.SetInParent()
        return request

    def read_head(self, stream: StreamName) -> Any:
        """Return the request for a stream's last event, and for where it ends should that be hidden."""
        request = self.read_stream(stream, None, 1, backwards=True)
        request.options.control_option.compatibility = 1
        return request

    def read_all(self, position: Position, prefix: str, count: int, *, backwards: bool) -> Any:
        """Return the request to read matching streams: forwards what lies at `position`, too."""
        request = self._read(backwards=backwards)
        self._from(request.options.all, position, at_end=backwards)
        self._filter(request.options.filter, prefix)
        request.options.count = count
        return request

    def subscribe_stream(self, stream: StreamName, after: int) -> Any:
        """Return the request to subscribe to one stream after a revision, -1 for all of it."""
        request = self.read_stream(stream, None if after < 0 else after, 0, backwards=False)
        request.options.subscription.SetInParent()
        return request

    def subscribe_all(self, after: Position, prefix: str) -> Any:
        """Return the request to subscribe to matching streams after a position."""
        request = self.read_all(after, prefix, 0, backwards=False)
        request.options.subscription.SetInParent()
        return request

    def _read(self, *, backwards: bool) -> Any:
        options = self._streams.ReadReq.Options
        request = self._streams.ReadReq()
        request.options.read_direction = options.Backwards if backwards else options.Forwards
        request.options.uuid_option.CopyFrom(self._text_ids)
        return request

    def _from(self, wanted: Any, position: Position, *, at_end: bool) -> None:
        if position != START:
            wanted.position.commit_position, wanted.position.prepare_position = position
        elif at_end:
            wanted.end.SetInParent()
        else:
            wanted.start.SetInParent()

    def _filter(self, wanted: Any, prefix: str) -> None:
        wanted.stream_identifier.regex = filter_regex(prefix)
        wanted.max = WINDOW
        wanted.checkpointIntervalMultiplier = CHECKPOINT_EVERY

    # ---------------------------------------------------------------- deleting

    def delete(self, stream: StreamName, expected: ExpectedRevision) -> Any:
        """Return the request to delete a stream softly."""
        request = self._streams.DeleteReq()
        request.options.stream_identifier.stream_name = stream_bytes(stream)
        match expected:
            case Expected.ANY:
                request.options.any.SetInParent()
            case Expected.EXISTS:
                request.options.stream_exists.SetInParent()
            case Expected.NO_STREAM | -1:
                request.options.no_stream.SetInParent()
            case int():
                request.options.revision = expected
        return request

    # ---------------------------------------------------------------- consumer groups

    def create_group(self, name: str, settings: ConsumerGroupSettings) -> Any:
        """Return the request to create a persistent subscription to `$all`."""
        request = self._persistent.CreateReq()
        request.options.group_name = name
        self._from(request.options.all, settings.from_position, at_end=False)
        self._filter(request.options.all.filter, settings.prefix)
        # What one consumer may hold has no place of its own in a group; the size of the batches in which
        # the server reads for it does (a history buffer must be larger), and is what consumers ask back.
        buffer = settings.buffer_size
        wanted = request.options.settings
        wanted.read_batch_size = buffer
        wanted.history_buffer_size = wanted.live_buffer_size = max(500, 2 * buffer)
        wanted.max_retry_count = settings.max_retries
        wanted.message_timeout_ms = max(1, settings.message_timeout // _MILLISECOND)
        wanted.checkpoint_after_ms = 1_000
        wanted.min_checkpoint_count = 1
        wanted.max_checkpoint_count = 500
        wanted.max_subscriber_count = 0  # no limit
        wanted.consumer_strategy = _STRATEGIES[settings.strategy]
        return request

    def delete_group(self, name: str) -> Any:
        """Return the request to delete a persistent subscription to `$all`."""
        request = self._persistent.DeleteReq()
        request.options.group_name = name
        request.options.all.SetInParent()
        return request

    def group_info(self, name: str) -> Any:
        """Return the request for what the server knows of one."""
        request = self._persistent.GetInfoReq()
        request.options.group_name = name
        request.options.all.SetInParent()
        return request

    def replay_parked(self, name: str) -> Any:
        """Return the request to deliver parked events again, all of them."""
        request = self._persistent.ReplayParkedReq()
        request.options.group_name = name
        request.options.all.SetInParent()
        request.options.no_limit.SetInParent()
        return request

    def consume(self, name: str, buffer_size: int) -> Any:
        """Return the request to join one."""
        request = self._persistent.ReadReq()
        request.options.group_name = name
        request.options.buffer_size = buffer_size
        request.options.all.SetInParent()
        request.options.uuid_option.string.SetInParent()
        return request

    def ack(self, event_ids: Sequence[uuid.UUID]) -> Any:
        """Return the word that events were handled."""
        return self._persistent.ReadReq(
            ack=self._persistent.ReadReq.Ack(ids=[self._uuid(string=str(i)) for i in event_ids])
        )

    def nack(self, event_ids: Sequence[uuid.UUID], action: NackAction) -> Any:
        """Return the word that events were not handled."""
        kinds = self._persistent.ReadReq.Nack
        actions = {"retry": kinds.Retry, "park": kinds.Park, "skip": kinds.Skip}
        return self._persistent.ReadReq(
            nack=kinds(ids=[self._uuid(string=str(i)) for i in event_ids], action=actions[action])
        )


def recorded(read: Any) -> RecordedEvent | None:
    """Return the event of a response; None for a link to one that is gone.

    Raises:
        StoreCorruptError: The response lacks what every event has.
    """
    event = read.event
    if not event.HasField("id"):
        return None
    metadata = event.metadata
    try:
        return RecordedEvent(
            _uuid(event.id.string),
            metadata["type"],
            event.data,
            event.custom_metadata,
            StreamName(event.stream_identifier.stream_name.decode()),
            event.stream_revision,
            Position(event.commit_position, event.prepare_position),
            # Ticks of 100 ns since 1970.
            _EPOCH + timedelta(microseconds=int(metadata["created"]) // 10),
        )
    except ValueError as error:
        where = event.stream_identifier.stream_name.decode(errors="replace")
        raise StoreCorruptError(f"{where}@{event.stream_revision}", str(error)) from error


def _content_type(data: bytes) -> str:
    """Return what the server's own tools take the data for: an object of JSON, or just bytes."""
    is_object = data[:1] == b"{" and data[-1:] == b"}"
    return "application/json" if is_object else "application/octet-stream"


def _uuid_int(value: Any) -> int:
    if value.WhichOneof("value") == "structured":
        high, low = value.structured.most_significant_bits, value.structured.least_significant_bits
        return int((high & _HALF) << 64 | low & _HALF)
    return int(value.string.replace("-", ""), 16)


def _uuid(text: str) -> uuid.UUID:
    """Return `UUID(text)` for the text that a server writes, in a third of the time: every event pays for it."""
    made = uuid.UUID.__new__(uuid.UUID)
    _set_int(made, int(text.replace("-", ""), 16))
    _set_safe(made, uuid.SafeUUID.unknown)
    return made


_set_int = uuid.UUID.__dict__["int"].__set__
_set_safe = uuid.UUID.__dict__["is_safe"].__set__

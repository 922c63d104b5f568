"""The protocol's messages: requests out of our words, and our words out of responses."""

import re
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from aion_es.errors import InvalidArgumentError, StoreCorruptError
from aion_es.ids import StreamName
from aion_es.store.arguments import MAX_REVISION
from aion_es.store.eventstoredb.client import Library
from aion_es.store.port import (
    START,
    ConsumerGroupChanges,
    ConsumerGroupSettings,
    ConsumerStrategy,
    Expected,
    ExpectedRevision,
    NackAction,
    NewEvent,
    Position,
    RecordedEvent,
)

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
_POSITION: Final = re.compile(r"C:(\d+)/P:(\d+)")
_KEPT: Final = {
    "resolve_links": "resolve_link_tos",
    "extra_statistics": "extra_statistics",
    "max_retry_count": "max_retry_count",
    "min_checkpoint_count": "min_check_point_count",
    "max_checkpoint_count": "max_check_point_count",
    "max_subscriber_count": "max_subscriber_count",
    "live_buffer_size": "live_buffer_size",
    "read_batch_size": "read_batch_size",
    "history_buffer_size": "buffer_size",
    "message_timeout_ms": "message_timeout_milliseconds",
    "checkpoint_after_ms": "check_point_after_milliseconds",
}
"""A group's settings: what a request calls them, and what the server's answer does."""
_MILLISECOND: Final = timedelta(milliseconds=1)


def filter_regex(prefix: str) -> str:
    """Return the server-side filter for the streams that begin with `prefix`.

    An empty prefix means every stream but the server's own, whose names begin with `$`.
    """
    # Not the protocol's own prefix filter: whether it compares code points is not documented.
    return f"^{re.escape(prefix)}" if prefix else r"^[^\$]"


def has_form(expected: ExpectedRevision) -> bool:
    """Say whether an expectation can be sent; one that cannot never holds: no stream has that revision.

    The highest number stands for the end of a deleted stream on the server.
    """
    return isinstance(expected, Expected) or -1 <= expected < MAX_REVISION


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
        return self._shared.StreamIdentifier(stream_name=stream.encode())

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
        options.stream_identifier.stream_name = stream.encode()
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
        return self._proposed(
            id=self._uuid(string=str(event.event_id)),
            metadata={"type": event.type, "content-type": _content_type(event.data)},
            custom_metadata=event.metadata,
            data=event.data,
        )

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
        wanted.stream_identifier.stream_name = stream.encode()
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
        request.options.stream_identifier.stream_name = stream.encode()
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
        wanted = request.options.settings
        _set_buffer(wanted, settings.buffer_size)
        wanted.max_retry_count = settings.max_retries
        wanted.message_timeout_ms = settings.message_timeout // _MILLISECOND
        wanted.checkpoint_after_ms = 1_000
        wanted.min_checkpoint_count = 1
        wanted.max_checkpoint_count = 500
        wanted.max_subscriber_count = 0  # no limit
        wanted.consumer_strategy = _STRATEGIES[settings.strategy]
        return request

    def update_group(self, name: str, info: Any, changes: ConsumerGroupChanges) -> Any:
        """Return the request to change a persistent subscription to `$all`, of which the server says `info`.

        Raises:
            InvalidArgumentError: It has a strategy that this request has no form for.
        """
        request = self._persistent.UpdateReq()
        request.options.group_name = name
        start = start_of(info)
        self._from(request.options.all, start or START, at_end=start is None)
        wanted = request.options.settings
        for ours, theirs in _KEPT.items():
            setattr(wanted, ours, getattr(info, theirs))
        if changes.message_timeout is not None:
            wanted.message_timeout_ms = changes.message_timeout // _MILLISECOND
        if changes.max_retries is not None:
            wanted.max_retry_count = changes.max_retries
        if changes.buffer_size is not None:
            _set_buffer(wanted, changes.buffer_size)
        strategy = info.named_consumer_strategy
        if changes.strategy is not None:
            strategy = _STRATEGIES[changes.strategy]
        numbers = self._persistent.UpdateReq.ConsumerStrategy
        if strategy not in numbers.keys():  # noqa: SIM118 - it is no mapping
            raise InvalidArgumentError(
                "strategy", f"the group has {strategy}, which a change cannot keep; name one"
            )
        wanted.named_consumer_strategy = numbers.Value(strategy)
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


def start_of(info: Any) -> Position | None:
    """Return where a persistent subscription to `$all` begins; None if at the end that it once had."""
    start = _POSITION.search(info.start_from)
    return None if start is None else Position(int(start[1]), int(start[2]))


def _set_buffer(wanted: Any, buffer: int) -> None:
    # What one consumer may hold has no place of its own in a group; the size of the batches in which
    # the server reads for it does (a history buffer must be larger), and is what consumers ask back.
    wanted.read_batch_size = buffer
    wanted.history_buffer_size = wanted.live_buffer_size = max(500, 2 * buffer)


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

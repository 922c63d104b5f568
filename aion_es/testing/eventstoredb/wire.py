"""The protocol's messages and ours: ids, positions, events, and what an event's envelope carries.

The store keeps data and metadata as they came. Two things of EventStoreDB it has no place for: the
content type, which is marked in the metadata where the data does not tell it, and positions that
begin at 0 with nothing before them, so the server's are one higher than the store's.
"""

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from aion_es.store.port import START, NewEvent, Position, RecordedEvent
from aion_es.testing.eventstoredb.refusals import bad_request, missing_property
from aion_es.testing.eventstoredb.stubs import Stubs

JSON: Final = "application/json"
OCTETS: Final = "application/octet-stream"
DELETED_REVISION: Final = 2**63 - 1
"""The revision of the event that ends a stream for good; as `$tb`, that the stream is deleted."""
LINK: Final = "$>"
STREAM_DELETED: Final = "$streamDeleted"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_JSON_MARK: Final = b"\xc1json\n"  # 0xC1 begins neither JSON, UTF-8 nor MessagePack
_OCTETS_MARK: Final = b"\xc1octets\n"


def outer(position: Position) -> tuple[int, int]:
    """Return a position of the store as the protocol counts it: commit and prepare."""
    return position.commit + 1, position.prepare + 1


def inner(commit: int, prepare: int) -> Position:
    """Return the store's position for one of the protocol; 0 is before everything."""
    return START if commit == 0 else Position(commit - 1, prepare - 1)


def before(position: Position) -> Position:
    """Return the position after which an inclusive read from `position` begins."""
    return START if position.commit < 1 else Position(position.commit - 1, position.commit - 1)


def read_uuid(message: Any) -> uuid.UUID:
    """Return the id that a UUID message carries, structured or as text.

    Raises:
        Refused: It carries none.
    """
    if message.WhichOneof("value") == "structured":
        high = message.structured.most_significant_bits & 0xFFFFFFFFFFFFFFFF
        low = message.structured.least_significant_bits & 0xFFFFFFFFFFFFFFFF
        return uuid.UUID(int=(high << 64) | low)
    try:
        return uuid.UUID(message.string)
    except ValueError as error:
        raise bad_request(f"'{message.string}' is not a UUID") from error


def read_event(message: Any) -> NewEvent:
    """Return the event that a proposed message carries.

    Raises:
        Refused: Its type or content type is missing, or its id is none.
    """
    metadata: Mapping[str, str] = message.metadata
    for name in ("type", "content-type"):
        if name not in metadata:
            raise missing_property(name)
    data: bytes = message.data
    return NewEvent(
        read_uuid(message.id),
        metadata["type"],
        data,
        seal(data, message.custom_metadata, is_json=metadata["content-type"] == JSON),
    )


def seal(data: bytes, metadata: bytes, *, is_json: bool) -> bytes:
    """Return the metadata to store: as it is, with a mark where the data does not tell its type."""
    if is_json == _looks_like_json(data):
        return metadata
    return (_JSON_MARK if is_json else _OCTETS_MARK) + metadata


def unseal(data: bytes, metadata: bytes) -> tuple[bytes, str]:
    """Return the metadata without the mark, and the content type."""
    if metadata[:1] == b"\xc1":
        for mark, content_type in ((_JSON_MARK, JSON), (_OCTETS_MARK, OCTETS)):
            if metadata.startswith(mark):
                return metadata[len(mark) :], content_type
    return metadata, JSON if _looks_like_json(data) else OCTETS


def _looks_like_json(data: bytes) -> bool:
    return data[:1] in b'{["-0123456789tfn'  # the empty one too


class EventWriter:
    """Writes events as one service's messages, with ids as the client asked for them.

    Args:
        stubs: Where the messages come from.
        service: The stubs of the service whose `ReadResp` is written.
        text_ids: Ids as text; else as two numbers.
    """

    def __init__(self, stubs: Stubs, service: Any, *, text_ids: bool) -> None:
        self._shared = stubs.shared
        self._event = service.ReadResp.ReadEvent
        self._recorded = service.ReadResp.ReadEvent.RecordedEvent
        self._response = service.ReadResp
        self._text_ids = text_ids

    def response(
        self, event: RecordedEvent | None, link: RecordedEvent | None = None, **more: Any
    ) -> Any:
        """Return the response that carries `event`, found through `link` if that is given."""
        at = link or event
        fields: dict[str, Any] = {"commit_position": at.position.commit + 1} if at else {}
        if event is not None:
            fields["event"] = self._record(event)
        if link is not None:
            fields["link"] = self._record(link)
        return self._response(event=self._event(**fields, **more))

    def _record(self, event: RecordedEvent) -> Any:
        metadata, content_type = unseal(event.data, event.metadata)
        commit, prepare = outer(event.position)
        ticks = (event.recorded_at - _EPOCH) // _MICROSECOND * 10
        return self._recorded(
            id=self._id(event.event_id),
            stream_identifier=self._shared.StreamIdentifier(stream_name=event.stream.encode()),
            stream_revision=event.revision,
            commit_position=commit,
            prepare_position=prepare,
            metadata={"type": event.type, "content-type": content_type, "created": str(ticks)},
            custom_metadata=metadata,
            data=event.data,
        )

    def _id(self, event_id: uuid.UUID) -> Any:
        if self._text_ids:
            return self._shared.UUID(string=str(event_id))
        high, low = event_id.int >> 64, event_id.int & 0xFFFFFFFFFFFFFFFF
        return self._shared.UUID(
            structured=self._shared.UUID.Structured(
                most_significant_bits=_signed(high), least_significant_bits=_signed(low)
            )
        )


def _signed(bits: int) -> int:
    return bits - (1 << 64) if bits >> 63 else bits

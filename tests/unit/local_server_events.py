"""Events for the tests of the local EventStoreDB server."""

import uuid
from datetime import UTC, datetime

from aion_es.ids import StreamName
from aion_es.store.port import NewEvent, Position, RecordedEvent


def event_id(number: int) -> uuid.UUID:
    return uuid.UUID(int=number + 1)


def new(number: int) -> NewEvent:
    return NewEvent(event_id(number), "A", b"{}", b"")


def recorded(number: int, *, stream: str = "s") -> RecordedEvent:
    place = Position(number, number)
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return RecordedEvent(event_id(number), "A", b"{}", b"", StreamName(stream), number, place, at)

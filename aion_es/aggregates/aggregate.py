"""What every aggregate shares: a fold of recorded events, and a buffer of new ones that wait for their append."""

from abc import ABC, abstractmethod
from datetime import datetime
from typing import Generic, NamedTuple, TypeVar

from aion_es.events.base import Event
from aion_es.events.codec import encode
from aion_es.events.metadata import Envelope
from aion_es.ids import RunId

E = TypeVar("E", bound=Event)


class Pending(NamedTuple, Generic[E]):
    """An event that is decided and not yet recorded.

    Attributes:
        at: When it was decided; becomes its `recorded_at`.
        run_id: The run it belongs to; `None` on schedules.
    """

    event: E
    at: datetime
    run_id: RunId | None = None


class Aggregate(ABC, Generic[E]):
    """The boundary of consistency: its events are decided on one state and appended at one revision.

    A command that is refused changes nothing. After a conflict, or any other error of the append, the
    aggregate holds events that are not recorded: throw it away and load anew.

    Attributes:
        id: What the stream is named by.
        revision: Of the last event that was applied from the store or saved; -1 for none.
        uncommitted: What the commands added since, in order.
    """

    __slots__ = ("_encoded", "id", "revision", "uncommitted")

    def __init__(self, id: str) -> None:
        self.id = id
        self.revision = -1
        self.uncommitted: list[Pending[E]] = []
        self._encoded: list[bytes] = []

    def replay(self, envelope: Envelope[E]) -> None:
        """Take in one recorded event; they come in the order of the stream."""
        self._evolve(envelope.event, envelope.metadata.recorded_at, envelope.revision)
        self.revision = envelope.revision

    def mark_saved(self, revision: int, count: int | None = None) -> None:
        """Say that the first `count` uncommitted events (default: all) were appended, the last at `revision`.

        What was decided while their append was under way stays uncommitted.
        """
        self.revision = revision
        saved = len(self.uncommitted) if count is None else count
        del self.uncommitted[:saved]
        del self._encoded[:saved]

    def data_of(self, ordinal: int) -> bytes:
        """Return the data of an uncommitted event as it will be recorded. It is encoded once, whoever asks first.

        Raises:
            PydanticSerializationError, ValueError: A value in it cannot be written as JSON.
        """
        encoded = self._encoded
        while len(encoded) <= ordinal:
            encoded.append(encode(self.uncommitted[len(encoded)].event))
        return encoded[ordinal]

    def _record(self, events: tuple[E, ...], at: datetime) -> tuple[E, ...]:
        """Evolve over `events` and keep them for the append."""
        uncommitted = self.uncommitted
        revision = self.revision + len(uncommitted)
        for event in events:
            revision += 1
            uncommitted.append(Pending(event, at, self._evolve(event, at, revision)))
        return events

    @abstractmethod
    def _evolve(self, event: E, at: datetime, revision: int) -> RunId | None:
        """Fold one event into the state; return the run that it belongs to."""

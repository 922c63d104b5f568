"""Events as bytes and back: JSON both ways, by class name, with upcasters for names that were retired."""

import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from operator import attrgetter
from typing import Any, Final, NamedTuple, Protocol, cast, get_args

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from aion_es.collector import paused_collector
from aion_es.errors import EventDecodeError, UnknownEventTypeError
from aion_es.events.base import Event
from aion_es.events.catalog import CatalogEvent, PackageEvent
from aion_es.events.metadata import Envelope, EventMetadata
from aion_es.events.schedule import ScheduleEvent
from aion_es.events.workflow import WorkflowEvent
from aion_es.ids import StreamName

EVENT_TYPES: Final[Mapping[str, type[Event]]] = {
    cls.__name__: cls
    for union in (WorkflowEvent, ScheduleEvent, PackageEvent, CatalogEvent)
    for cls in get_args(union)
}
"""Every event type by its name on the wire."""


class Upcaster(NamedTuple):
    """How an event that is no longer written is read: as another type, its JSON object translated."""

    to: str
    translate: Callable[[dict[str, Any]], dict[str, Any]]


UPCASTERS: Final[dict[str, Upcaster]] = {}
"""Retired event names. A changed meaning is a new name; the old one stays readable for ever, from here."""


class StoredEvent(Protocol):
    """What the codec needs of an event as a store gives it."""

    @property
    def event_id(self) -> uuid.UUID:
        """Unique."""
        ...

    @property
    def type(self) -> str:
        """The name on the wire."""
        ...

    @property
    def data(self) -> bytes:
        """The event, as JSON."""
        ...

    @property
    def metadata(self) -> bytes:
        """What was recorded about it, as JSON."""
        ...

    @property
    def stream(self) -> StreamName:
        """Where it stands."""
        ...

    @property
    def revision(self) -> int:
        """Its place there, from 0."""
        ...

    @property
    def position(self) -> Any:
        """Its place in the store; opaque here."""
        ...


_encoders: dict[type[Event], Callable[[Event], bytes]] = {}
_decoders: dict[str, Callable[[bytes], Event]] = {}


def encode(event: Event) -> bytes:
    """Return the event's data: a JSON object of its fields, in the order of their declaration.

    Of the fields that came later (`Event.LATER`) only those that are set are written.
    """
    write = _encoders.get(type(event))
    if write is None:
        write = _encoders[type(event)] = _encoder_of(type(event))
    return write(event)


def _encoder_of(event_type: type[Event]) -> Callable[[Event], bytes]:
    event_type.model_rebuild()  # deferred until now; see RecordedModel
    write: Callable[..., bytes] = event_type.__pydantic_serializer__.to_json
    defaults = {name: event_type.model_fields[name].default for name in event_type.LATER}
    if not defaults:
        return write
    unset = attrgetter(*defaults)(event_type.model_construct(**defaults))
    values, all_later = attrgetter(*defaults), set(defaults)

    def write_what_is_set(event: Event) -> bytes:
        if values(event) == unset:  # nearly always
            return write(event, exclude=all_later)
        return write(
            event, exclude={name for name in all_later if getattr(event, name) == defaults[name]}
        )

    return write_what_is_set


def decode(stored: StoredEvent) -> Event:
    """Return the event that `stored` records, its data only.

    Raises:
        UnknownEventTypeError: No event has this name, now or formerly.
        EventDecodeError: The data is not of the form that its type promises.
    """
    read = _decoders.get(stored.type) or _find_decoder(stored)
    try:
        return read(stored.data)
    except (ValidationError, ValueError, KeyError, TypeError) as error:
        raise EventDecodeError(stored.type, stored.stream, stored.revision, str(error)) from error


def decode_metadata(stored: StoredEvent) -> EventMetadata:
    """Return what was recorded about the event, without decoding the event.

    Raises:
        EventDecodeError: The metadata is not ours.
    """
    try:
        return EventMetadata.from_bytes(stored.metadata)
    except ValueError as error:
        raise EventDecodeError(
            stored.type, stored.stream, stored.revision, f"metadata: {error}"
        ) from error


def decode_envelope(stored: StoredEvent) -> Envelope[Any]:
    """Return the event with everything that is known about it.

    Raises:
        UnknownEventTypeError: No event has this name, now or formerly.
        EventDecodeError: Data or metadata are not of the form that the type promises.
    """
    return Envelope(
        decode(stored),
        stored.stream,
        stored.revision,
        stored.position,
        stored.event_id,
        decode_metadata(stored),
        len(stored.data),
    )


def decode_history(stored: Sequence[StoredEvent]) -> list[Envelope[Any]]:
    """Return many events, decoded in their order.

    Raises:
        UnknownEventTypeError: No event has one of the names, now or formerly.
        EventDecodeError: Data or metadata are not of the form that their type promises.
    """
    with paused_collector():
        return [decode_envelope(event) for event in stored]


def _find_decoder(stored: StoredEvent) -> Callable[[bytes], Event]:
    known = EVENT_TYPES.get(stored.type)
    if known is not None:
        read = _decoders[stored.type] = _reader(known)
        return read
    upcaster = UPCASTERS.get(stored.type)
    if upcaster is None:
        raise UnknownEventTypeError(stored.type, stored.stream, stored.revision)
    return _upcasting_reader(upcaster)


@cache  # by the upcaster, not by the retired name: the table alone says what a name means
def _upcasting_reader(upcaster: Upcaster) -> Callable[[bytes], Event]:
    read_current = _reader(EVENT_TYPES[upcaster.to])

    def read(data: bytes) -> Event:
        form = from_json(data)
        if not isinstance(form, dict):
            raise ValueError("not a JSON object")  # noqa: TRY004 - the data is wrong, not a call
        return read_current(to_json(upcaster.translate(cast("dict[str, Any]", form))))

    return read


def _reader(event_type: type[Event]) -> Callable[[bytes], Event]:
    event_type.model_rebuild()
    return event_type.__pydantic_validator__.validate_json

"""Events as bytes and back: golden files, round trips, evolution, and what is said of damaged data."""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from types import UnionType
from typing import Annotated, Any, Final, Literal, NewType, Union, get_args, get_origin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import AwareDatetime
from pydantic.fields import FieldInfo

from aion_es.errors import EventDecodeError, UnknownEventTypeError
from aion_es.events.base import Event
from aion_es.events.codec import (
    EVENT_TYPES,
    UPCASTERS,
    Upcaster,
    decode,
    decode_envelope,
    decode_metadata,
    encode,
)
from aion_es.events.metadata import Envelope, EventMetadata
from aion_es.events.values import AttributeValue, Failure
from aion_es.events.workflow import TimerFired
from aion_es.ids import RunId, StreamName, TimerId
from aion_es.payload import Payload
from tests.golden.events.samples import (
    EVENTS,
    FOLDER,
    FULL,
    LATER,
    LATER_STILL,
    METADATA,
    NOON,
    RUN,
)

STREAM: Final = StreamName("aion_workflow-checkout-42")
EVENT_ID: Final = uuid.UUID(int=7)


@dataclass(frozen=True)
class Stored:
    """An event as a store gives it."""

    type: str
    data: bytes
    metadata: bytes = b'{"recorded_at":"2026-11-24T12:00:00Z"}'
    revision: int = 3
    stream: StreamName = STREAM
    event_id: uuid.UUID = EVENT_ID
    position: int = 11


def stored(event: Event) -> Stored:
    return Stored(type(event).__name__, encode(event))


# -------------------------------------------------------------------------------- golden files


def test_every_event_type_has_a_sample_and_every_sample_an_event_type() -> None:
    assert [type(event).__name__ for event in FULL] == list(EVENT_TYPES)


def test_every_sample_has_a_golden_file_and_every_golden_file_a_sample() -> None:
    # After adding an event or a field, `python -m tests.golden.events.samples` writes the new files.
    found = {path.name for path in FOLDER.glob("*.json")}
    assert found == EVENTS.keys() | METADATA.keys()


@pytest.mark.parametrize("event", FULL, ids=lambda event: type(event).__name__)
def test_a_full_sample_leaves_no_field_at_its_default(event: Event) -> None:
    fields: Mapping[str, FieldInfo] = type(event).model_fields
    untouched = [
        name
        for name, field in fields.items()
        if not field.is_required()
        and getattr(event, name) == field.get_default(call_default_factory=True)
    ]
    assert untouched == list(type(event).LATER)


@pytest.mark.parametrize("event_type", [type(event) for event in LATER], ids=lambda t: t.__name__)
def test_later_samples_set_every_field_that_came_later(event_type: type[Event]) -> None:
    samples = [e for e in (*LATER, *LATER_STILL) if type(e) is event_type]
    fields = event_type.model_fields
    assert [
        name
        for name in event_type.LATER
        if all(getattr(sample, name) == fields[name].default for sample in samples)
    ] == []


def test_every_type_with_later_fields_has_a_later_sample() -> None:
    later = [name for name, event_type in EVENT_TYPES.items() if event_type.LATER]
    assert [type(event).__name__ for event in LATER] == later


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_is_written_exactly_as_its_golden_file(name: str) -> None:
    assert encode(EVENTS[name]) == (FOLDER / name).read_bytes()


@pytest.mark.parametrize("name", EVENTS)
def test_a_golden_file_is_read_as_its_event(name: str) -> None:
    event = decode(Stored(name.split(".", maxsplit=1)[0], (FOLDER / name).read_bytes()))
    assert event == EVENTS[name]


@pytest.mark.parametrize("name", METADATA)
def test_metadata_is_written_exactly_as_its_golden_file(name: str) -> None:
    assert METADATA[name].to_bytes() == (FOLDER / name).read_bytes()


@pytest.mark.parametrize("name", METADATA)
def test_a_golden_file_of_metadata_is_read_as_what_was_written(name: str) -> None:
    assert EventMetadata.from_bytes((FOLDER / name).read_bytes()) == METADATA[name]


# --------------------------------------------------------------------------------- round trips

text = st.text(max_size=12)
offsets = st.integers(min_value=-14 * 60, max_value=14 * 60).map(
    lambda minutes: timezone(timedelta(minutes=minutes))
)
instants = st.datetimes(
    min_value=datetime(1990, 1, 1), max_value=datetime(2100, 1, 1), timezones=offsets | st.just(UTC)
)
plain_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)
failures: st.SearchStrategy[Failure] = st.recursive(
    st.builds(Failure, type=text, message=text, details=plain_values),
    lambda cause: st.builds(Failure, type=text, cause=cause, traceback=st.none() | text),
    max_leaves=4,
)
attribute_values = (
    st.builds(AttributeValue, type=st.just("String"), value=text)
    | st.builds(AttributeValue, type=st.just("Int"), value=st.integers(-(2**63), 2**63 - 1))
    | st.builds(
        AttributeValue,
        type=st.just("Float"),
        value=st.floats(allow_nan=False, allow_infinity=False),
    )
    | st.builds(AttributeValue, type=st.just("Bool"), value=st.booleans())
    | st.builds(AttributeValue, type=st.just("KeywordList"), value=st.lists(text).map(tuple))
)
STRATEGIES: Final[dict[Any, st.SearchStrategy[Any]]] = {
    Any: plain_values,
    AttributeValue: attribute_values,
    AwareDatetime: instants,
    Failure: failures,
    Payload: st.builds(Payload, data=plain_values),
    bool: st.booleans(),
    bytes: st.binary(max_size=24),
    float: st.floats(min_value=1, allow_nan=False, allow_infinity=False),
    int: st.integers(min_value=1, max_value=2**40),
    str: st.text(min_size=1, max_size=12),
    timedelta: st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=400)),
    type(None): st.none(),
}


def strategy(annotation: Any) -> st.SearchStrategy[Any]:
    """Values that a field so annotated can hold."""
    if annotation in STRATEGIES:
        return STRATEGIES[annotation]
    if isinstance(annotation, NewType):
        return strategy(annotation.__supertype__)
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return st.sampled_from(args)
    if origin is Annotated:
        return strategy(args[0])
    if origin in {Union, UnionType}:
        return st.one_of(*(strategy(member) for member in args))
    if origin is tuple:
        return st.lists(strategy(args[0]), max_size=3).map(tuple)
    if origin is dict:
        return st.dictionaries(text, strategy(args[1]), max_size=3)
    fields: dict[str, FieldInfo] = annotation.model_fields
    return st.builds(
        annotation, **{name: strategy(field.annotation) for name, field in fields.items()}
    )


any_event: Final = st.one_of(*(strategy(event_type) for event_type in EVENT_TYPES.values()))


@pytest.mark.parametrize("event_type", EVENT_TYPES.values(), ids=lambda each: each.__name__)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_an_event_is_read_as_it_was_written(event_type: type[Event], data: st.DataObject) -> None:
    event = data.draw(strategy(event_type))
    assert decode(stored(event)) == event


@settings(max_examples=50, deadline=None)
@given(event=any_event)
def test_an_event_that_was_read_is_written_as_the_same_bytes(event: Event) -> None:
    form = encode(event)
    assert encode(decode(Stored(type(event).__name__, form))) == form


@given(
    metadata=st.builds(
        EventMetadata,
        recorded_at=instants,
        run_id=st.none() | text.map(RunId),
        causation_id=st.none() | text,
        correlation_id=st.none() | text,
        traceparent=st.none() | text,
        activated=st.booleans(),
    )
)
def test_metadata_is_read_as_it_was_written(metadata: EventMetadata) -> None:
    assert EventMetadata.from_bytes(metadata.to_bytes()) == metadata


def test_an_envelope_brings_event_place_identity_metadata_and_size() -> None:
    event, metadata = FULL[0], METADATA["metadata.json"]
    written = Stored("WorkflowStarted", encode(event), metadata.to_bytes())

    assert decode_envelope(written) == Envelope(
        event,
        STREAM,
        3,
        11,
        EVENT_ID,
        metadata,
        len(written.data),
    )


def test_an_envelope_gives_time_and_run_of_its_metadata() -> None:
    event = TimerFired(timer_id=TimerId("1"))
    envelope = Envelope(event, STREAM, 0, 0, EVENT_ID, METADATA["metadata.json"], 0)
    assert (envelope.recorded_at, envelope.run_id) == (NOON, RUN)


# ----------------------------------------------------------------------------------- evolution


@pytest.mark.parametrize("event", FULL, ids=lambda event: type(event).__name__)
def test_fields_of_a_newer_program_are_ignored(event: Event) -> None:
    newer = json.loads(encode(event)) | {"of_a_newer_program": {"a": [1]}}
    assert decode(Stored(type(event).__name__, json.dumps(newer).encode())) == event


def test_unknown_fields_of_a_nested_value_are_ignored() -> None:
    event = FULL[list(EVENT_TYPES).index("WorkflowFailed")]
    newer = json.loads(encode(event))
    newer["error"]["cause"]["of_a_newer_program"] = 1
    assert decode(Stored("WorkflowFailed", json.dumps(newer).encode())) == event


def test_an_unknown_event_type_is_named_with_its_stream_and_revision() -> None:
    with pytest.raises(UnknownEventTypeError) as caught:
        decode_envelope(Stored("WorkflowTeleported", b"{}"))
    error = caught.value
    assert (error.event_type, error.stream, error.revision) == ("WorkflowTeleported", STREAM, 3)
    assert str(error) == f"{STREAM}@3: unknown event type 'WorkflowTeleported'"


def test_a_retired_name_is_read_as_its_successor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(UPCASTERS, "AlarmRang", Upcaster("TimerFired", timer_of_alarm))
    old = Stored("AlarmRang", b'{"alarm":"reminder"}')

    assert decode(old) == TimerFired(timer_id=TimerId("reminder"))
    assert decode(old) == TimerFired(timer_id=TimerId("reminder"))


def test_a_name_without_its_upcaster_is_unknown_again(monkeypatch: pytest.MonkeyPatch) -> None:
    old = Stored("AlarmRang", b'{"alarm":"reminder"}')
    with monkeypatch.context() as patch:
        patch.setitem(UPCASTERS, "AlarmRang", Upcaster("TimerFired", timer_of_alarm))
        decode(old)

    with pytest.raises(UnknownEventTypeError):
        decode(old)


def test_a_changed_upcaster_takes_the_place_of_the_former(monkeypatch: pytest.MonkeyPatch) -> None:
    old = Stored("AlarmRang", b'{"alarm":"reminder"}')
    monkeypatch.setitem(UPCASTERS, "AlarmRang", Upcaster("TimerFired", timer_of_alarm))
    decode(old)

    monkeypatch.setitem(
        UPCASTERS, "AlarmRang", Upcaster("TimerFired", lambda form: {"timer_id": "changed"})
    )

    assert decode(old) == TimerFired(timer_id=TimerId("changed"))


@pytest.mark.parametrize("data", [b"[]", b"7", b"{", b"{}", b'{"alarm":7}'])
def test_damaged_data_of_a_retired_name_is_refused(
    data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(UPCASTERS, "AlarmRang", Upcaster("TimerFired", timer_of_alarm))
    with pytest.raises(EventDecodeError) as caught:
        decode(Stored("AlarmRang", data))
    assert (caught.value.event_type, caught.value.stream, caught.value.revision) == (
        "AlarmRang",
        STREAM,
        3,
    )


def test_no_upcaster_stands_for_a_name_in_use_or_leads_to_one_that_is_not() -> None:
    assert UPCASTERS.keys() & EVENT_TYPES.keys() == set()
    assert {upcaster.to for upcaster in UPCASTERS.values()} <= EVENT_TYPES.keys()


def timer_of_alarm(form: dict[str, Any]) -> dict[str, Any]:
    return {"timer_id": form.pop("alarm")}


# -------------------------------------------------------------------------------- damaged data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\xff\xfe",
        b"{}",
        b'{"timer_id":"1"}',
        b'{"timer_id":"1","fire_at":"soon"}',
        b'{"timer_id":"1","fire_at":"2026-11-24T12:00:00"}',
        b'{"timer_id":7,"fire_at":"2026-11-24T12:00:00Z"}',
    ],
)
def test_data_that_is_not_of_its_type_is_named_with_type_stream_and_revision(data: bytes) -> None:
    with pytest.raises(EventDecodeError) as caught:
        decode(Stored("TimerStarted", data))
    error = caught.value
    assert (error.event_type, error.stream, error.revision) == ("TimerStarted", STREAM, 3)
    assert str(error).startswith(f"{STREAM}@3: cannot read TimerStarted: ")


@given(data=st.binary(max_size=40))
def test_no_data_whatever_raises_another_error(data: bytes) -> None:
    with pytest.raises(EventDecodeError):
        decode(Stored("TimerStarted", data))


@pytest.mark.parametrize(
    "metadata",
    [
        b"",
        b"{",
        b"null",
        b"7",
        b"[]",
        b'"recorded_at"',
        b"{}",
        b'{"recorded_at":null}',
        b'{"recorded_at":1764000000}',
        b'{"recorded_at":"yesterday"}',
        b'{"recorded_at":"2026-11-24"}',
        b'{"recorded_at":"2026-11-24T12:00:00"}',
        b'{"recorded_at":"0001-01-01T00:00:00+01:00"}',
    ],
)
def test_metadata_without_a_time_that_names_an_instant_is_refused(metadata: bytes) -> None:
    with pytest.raises(EventDecodeError, match="cannot read TimerFired: metadata: "):
        decode_metadata(Stored("TimerFired", b'{"timer_id":"1"}', metadata))


def test_metadata_with_a_naive_time_is_never_written() -> None:
    with pytest.raises(ValueError, match="no offset"):
        EventMetadata(recorded_at=datetime(2026, 11, 24)).to_bytes()


# ------------------------------------------------------------------------------------ metadata


def test_metadata_uses_the_stores_own_names_for_causation_and_correlation() -> None:
    assert json.loads(METADATA["metadata.json"].to_bytes()) == {
        "recorded_at": "2026-11-24T12:00:00.250000Z",
        "run_id": RUN,
        "$causationId": "019ab5a0-0000-7000-8000-0000000000c1",
        "$correlationId": "checkout-42",
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "activated": True,
    }


def test_unset_metadata_is_not_written() -> None:
    assert json.loads(EventMetadata(recorded_at=NOON).to_bytes()).keys() == {"recorded_at"}


def test_unknown_fields_of_metadata_are_ignored() -> None:
    form = json.loads(METADATA["metadata.json"].to_bytes()) | {"$userId": "ada", "newer": [1]}
    assert EventMetadata.from_bytes(json.dumps(form).encode()) == METADATA["metadata.json"]


def test_a_recorded_time_with_another_offset_is_read_in_utc() -> None:
    read = EventMetadata.from_bytes(b'{"recorded_at":"2026-11-24T14:00:00.250000+02:00"}')
    assert (read.recorded_at, read.recorded_at.tzinfo) == (NOON, UTC)

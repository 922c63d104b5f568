"""Search attribute keys, and values on the way into an event and out of it."""

import enum
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aion_es.errors import AttributeTypeError, InvalidArgumentError
from aion_es.events.attributes import (
    BUILT_IN_FIELDS,
    SearchAttribute,
    check_attribute_value,
    from_attribute,
    to_attribute,
)
from aion_es.events.codec import decode_envelope, encode
from aion_es.events.metadata import EventMetadata
from aion_es.events.values import AttributeType, AttributeValue
from aion_es.events.workflow import SearchAttributesUpdated
from aion_es.ids import StreamName, deterministic_event_id
from aion_es.store.port import Position, RecordedEvent

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


class Colour(str, enum.Enum):  # noqa: UP042 - the old form, whose str() is not its value
    RED = "red"


# -------------------------------------------------------------------------------------------- keys


@pytest.mark.parametrize(
    ("key", "type"),
    [
        (SearchAttribute("a", str), "String"),
        (SearchAttribute("a", int), "Int"),
        (SearchAttribute("a", float), "Float"),
        (SearchAttribute("a", bool), "Bool"),
        (SearchAttribute("a", datetime), "Datetime"),
        (SearchAttribute("a", list[str]), "KeywordList"),
    ],
)
def test_a_python_type_stands_for_an_attribute_type(
    key: SearchAttribute[Any], type: AttributeType
) -> None:
    assert (key.name, key.type) == ("a", type)


def test_keys_are_equal_by_name_and_type() -> None:
    assert SearchAttribute("a", str) == SearchAttribute("a", str)
    assert len({SearchAttribute("a", str), SearchAttribute("a", str)}) == 1
    assert SearchAttribute("a", str) != SearchAttribute("b", str)
    text: SearchAttribute[Any] = SearchAttribute("a", str)
    number: SearchAttribute[Any] = SearchAttribute("a", int)
    assert text != number


def test_a_key_does_not_change() -> None:
    key = SearchAttribute("a", str)
    with pytest.raises(AttributeError):
        key.name = "b"  # type: ignore[misc] # this is the test


def test_values_that_keys_are_given_are_merged_in_their_order_and_the_later_wins() -> None:
    customer, total = SearchAttribute("customer", str), SearchAttribute("total", int)
    merged = customer.to("ana") | total.to(3) | {"region": "eu"} | customer.to(None)
    assert list(merged.items()) == [(total, 3), ("region", "eu"), (customer, None)]
    assert list(({"region": "eu"} | total.to(3)).items()) == [("region", "eu"), (total, 3)]


def test_the_later_value_of_a_name_wins_whether_it_is_given_by_key_or_by_name() -> None:
    customer = SearchAttribute("customer", str)
    by_name = customer.to("ana") | {"customer": "bo"}
    assert list(by_name.items()) == [("customer", "bo")]
    assert list((by_name | customer.to("cy")).items()) == [(customer, "cy")]


def test_merging_values_changes_neither_side() -> None:
    customer, names = SearchAttribute("customer", str), {"region": "eu"}
    given = customer.to("ana")
    assert len(given | names) == len(names | given) == 2
    assert given == {customer: "ana"}
    assert names == {"region": "eu"}
    assert repr(given) == f"TypedAttributes({{{customer!r}: 'ana'}})"


def test_values_merge_with_nothing_but_a_mapping() -> None:
    given: Any = SearchAttribute("customer", str).to("ana")
    with pytest.raises(TypeError, match="unsupported operand"):
        _ = given | [("region", "eu")]
    with pytest.raises(TypeError, match="unsupported operand"):
        _ = [("region", "eu")] | given


@pytest.mark.parametrize("python_type", [dict, list, bytes, None, list[int], tuple])
def test_no_other_python_type_is_taken(python_type: Any) -> None:
    with pytest.raises(InvalidArgumentError):
        SearchAttribute("a", python_type)


@pytest.mark.parametrize("name", ["a", "Z", "a_1", "A" * 64])
def test_names_that_may_be_used(name: str) -> None:
    assert SearchAttribute(name, str).name == name


@pytest.mark.parametrize("name", ["", "1a", "_a", "a-b", "a b", "a\n", "é", "A" * 65, 3])
def test_names_of_another_form_are_refused(name: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="search attribute"):
        SearchAttribute(name, str)


@pytest.mark.parametrize("name", sorted(BUILT_IN_FIELDS))
def test_names_of_built_in_fields_are_refused(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match="built-in"):
        SearchAttribute(name, str)


# ------------------------------------------------------------------------------------------ values


@pytest.mark.parametrize(
    ("type", "value", "recorded"),
    [
        ("String", "ana", "ana"),
        ("String", Colour.RED, "red"),
        ("String", "", ""),
        ("String", "x" * 2048, "x" * 2048),
        ("Int", 2**63 - 1, 2**63 - 1),
        ("Int", -(2**63), -(2**63)),
        ("Float", 1.5, 1.5),
        ("Float", 3, 3.0),
        ("Bool", False, False),
        ("Datetime", NOON, "2026-11-24T12:00:00.000000Z"),
        (
            "Datetime",
            datetime(2026, 11, 24, 13, 0, 0, 7, tzinfo=timezone(timedelta(hours=1))),
            "2026-11-24T12:00:00.000007Z",
        ),
        ("Datetime", datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00.000000Z"),
        ("KeywordList", ["vip", "new"], ("vip", "new")),
        ("KeywordList", ("vip",), ("vip",)),
        ("KeywordList", [], ()),
        ("KeywordList", ["x"] * 100, ("x",) * 100),
    ],
)
def test_a_value_that_fits_is_recorded(
    type: AttributeType, value: object, recorded: object
) -> None:
    attribute = to_attribute("a", type, value)
    assert (attribute.type, attribute.value) == (type, recorded)
    assert isinstance(attribute.value, recorded.__class__)


@pytest.mark.parametrize(
    ("type", "value", "actual"),
    [
        ("String", 1, "int 1"),
        ("String", "é" * 1025, "text of 2,050 bytes, over the limit of 2,048"),
        ("String", "\ud800", "text with a lone surrogate"),
        ("Int", True, "bool True"),
        ("Int", 1.0, "float 1.0"),
        ("Int", "1", "str '1'"),
        ("Int", 2**63, "an integer past 64 bits"),
        ("Int", -(2**63) - 1, "an integer past 64 bits"),
        ("Float", True, "bool True"),
        ("Float", float("nan"), "nan"),
        ("Float", float("inf"), "inf"),
        ("Float", float("-inf"), "-inf"),
        ("Float", 10**400, "an integer past the range of a float"),
        ("Bool", 1, "int 1"),
        ("Datetime", datetime(2026, 11, 24), "naive datetime 2026-11-24T00:00:00"),
        ("Datetime", "2026-11-24T12:00:00Z", "str '2026-11-24T12:00:00Z'"),
        (
            "Datetime",
            datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1))),
            "0001-01-01T00:00:00+01:00, outside the years 1 to 9999 in UTC",
        ),
        ("KeywordList", "vip", "str 'vip'"),
        ("KeywordList", ["x"] * 101, "a list of 101, over the limit of 100"),
        ("KeywordList", ["a", 1], "a list with int 1"),
        ("KeywordList", ["\udfff"], "a list with text with a lone surrogate"),
        ("String", None, "NoneType None"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_with_the_reason(
    type: AttributeType, value: object, actual: str
) -> None:
    with pytest.raises(AttributeTypeError) as refused:
        to_attribute("a", type, value)
    assert refused.value.args == ("a", type, actual)


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        (AttributeValue(type="Datetime", value="2026-11-24T12:00:00.000000Z"), NOON),
        (AttributeValue(type="Float", value=3), 3.0),
        (AttributeValue(type="KeywordList", value=("a", "b")), ("a", "b")),
    ],
)
def test_a_recorded_value_is_given_back_in_its_python_type(
    attribute: AttributeValue, value: object
) -> None:
    given_back = from_attribute(attribute)
    assert given_back == value
    assert isinstance(given_back, value.__class__)


@pytest.mark.parametrize(
    "attribute",
    [
        AttributeValue(type="Datetime", value="yesterday"),
        AttributeValue(type="Datetime", value=3),
        AttributeValue(type="Int", value="3"),
        AttributeValue(type="Float", value="x"),
        AttributeValue(type="Bool", value=1),
        AttributeValue(type="String", value=("a",)),
    ],
)
def test_a_value_that_was_made_by_hand_is_checked(attribute: AttributeValue) -> None:
    with pytest.raises(AttributeTypeError):
        check_attribute_value("a", attribute)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES = st.one_of(
    st.tuples(st.just("String"), TEXT),
    st.tuples(st.just("Int"), st.integers(-(2**63), 2**63 - 1)),
    st.tuples(st.just("Float"), st.floats(allow_nan=False, allow_infinity=False)),
    st.tuples(st.just("Bool"), st.booleans()),
    st.tuples(st.just("Datetime"), st.datetimes(timezones=st.just(UTC))),
    st.tuples(st.just("KeywordList"), st.lists(TEXT, max_size=5).map(tuple)),
)


@given(VALUES)
def test_a_value_survives_the_event_and_its_form_on_the_wire(typed: tuple[Any, Any]) -> None:
    type_, value = typed
    event = SearchAttributesUpdated(attributes={"a": to_attribute("a", type_, value)})
    stream = StreamName("s")
    stored = RecordedEvent(
        deterministic_event_id(stream, "c", 0),
        "SearchAttributesUpdated",
        encode(event),
        EventMetadata(NOON).to_bytes(),
        stream,
        0,
        Position(0, 0),
        NOON,
    )
    read = decode_envelope(stored).event
    assert read == event
    given_back = from_attribute(read.attributes["a"])
    assert given_back == value
    assert type(given_back) is type(value)


@given(st.lists(st.datetimes(timezones=st.just(UTC)), min_size=2))
def test_the_order_of_recorded_datetimes_as_text_is_their_order_in_time(
    instants: list[datetime],
) -> None:
    def text(instant: datetime) -> str:
        return str(to_attribute("a", "Datetime", instant).value)

    assert sorted(instants) == sorted(instants, key=text)

"""User data both ways: a value comes back equal, whatever its type and however it is nested."""

import math
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from aion_es.errors import PayloadError
from aion_es.payload import NOTHING, Payload, decoder, encoder, inline
from tests.unit.payload_models import (
    ORDER,
    PARIS,
    Address,
    Aliased,
    Anything,
    Base64Blob,
    Colour,
    Crate,
    GiftLine,
    Handle,
    HandleField,
    Level,
    Line,
    Open,
    Order,
    Page,
    Painted,
    Parcel,
    Partial,
    PlainBlob,
    Point,
    Span,
    TextLimits,
    Tracked,
    recorded,
)

# ---------------------------------------------------------------------------------- both ways

ROUND_TRIPS: Final[list[tuple[Any, Any, Any]]] = [
    (int, 7, 7),
    (int, -(2**63), -(2**63)),
    (int, 10**40, 10**40),
    (str, "Ørsted ✓ 𝛼 \x00\n", "Ørsted ✓ 𝛼 \x00\n"),
    (str, "", ""),
    (bool, True, True),
    (None, None, None),
    (type(None), None, None),
    (float, 0.1, 0.1),
    (float, -0.0, -0.0),
    (float, 5e-324, 5e-324),
    (float, 1.7976931348623157e308, 1.7976931348623157e308),
    (float, 1, 1.0),
    (Decimal, Decimal("1.10"), "1.10"),
    (Decimal, Decimal("1E+30"), "1E+30"),
    (UUID, UUID(int=7), "00000000-0000-0000-0000-000000000007"),
    (datetime, datetime(2026, 11, 24, 12, 0, 0, 5), "2026-11-24T12:00:00.000005"),
    (datetime, datetime(2026, 11, 24, 12, tzinfo=UTC), "2026-11-24T12:00:00Z"),
    (
        datetime,
        datetime(2026, 11, 24, 12, tzinfo=timezone(timedelta(hours=-5, minutes=-30))),
        "2026-11-24T12:00:00-05:30",
    ),
    (datetime, datetime(2026, 7, 1, 12, tzinfo=PARIS), "2026-07-01T12:00:00+02:00"),
    (date, date(2026, 11, 24), "2026-11-24"),
    (time, time(9, 30, 0, 1), "09:30:00.000001"),
    (timedelta, timedelta(days=3, microseconds=1), "P3DT0.000001S"),
    (timedelta, timedelta(microseconds=-1), "-PT0.000001S"),
    (timedelta, timedelta.max, "P2739726Y9DT23H59M59.999999S"),
    (timedelta, timedelta.min, "-P2739726Y9D"),
    (bytes, b"\xff\x00", "_wA="),
    (list[bytes], [b"", b"\xff"], ["", "_w=="]),
    (Colour, Colour.RED, "red"),
    (Level, Level.LOW, 1),
    (Literal["a", 1], 1, 1),
    (Literal[Colour.RED], Colour.RED, "red"),
    (Literal[Colour.RED, 3, "x"], "x", "x"),
    (Literal[Colour.RED, 3, "x"] | None, Colour.RED, "red"),
    (Literal[Span.SHORT], Span.SHORT, [1, 2]),
    (dict[Literal[Colour.RED], int], {Colour.RED: 1}, {"red": 1}),
    (list[Painted], [Painted(colour=Colour.RED)], [{"colour": "red", "name": {"type": "literal"}}]),
    (int | str, "1", "1"),
    (int | str | None, None, None),
    (int | float, 1.0, 1.0),
    (float | Decimal, Decimal("1.0"), "1.0"),
    (datetime | str, datetime(2026, 11, 24), "2026-11-24T00:00:00"),
    (datetime | str, "soon", "soon"),
    (str | datetime, "2026-11-24T12:00:00", "2026-11-24T12:00:00"),
    (list[int], [3, 1, 2], [3, 1, 2]),
    (tuple[int, str], (1, "a"), [1, "a"]),
    (tuple[int, ...], (), []),
    (set[int], {1}, [1]),
    (frozenset[str], frozenset({"a"}), ["a"]),
    (dict[str, int], {"b": 1, "a": 2}, {"b": 1, "a": 2}),
    (dict[int, str], {1: "a", -2: "b"}, {"1": "a", "-2": "b"}),
    (dict[UUID, int], {UUID(int=7): 1}, {"00000000-0000-0000-0000-000000000007": 1}),
    (dict[date, int], {date(2026, 11, 24): 1}, {"2026-11-24": 1}),
    (dict[Colour, bool], {Colour.GREEN: False}, {"green": False}),
    (Line, Line(sku="a"), {"sku": "a", "quantity": 1}),
    (list[Line], [Line(sku="a")], [{"sku": "a", "quantity": 1}]),
    (dict[str, Line | None], {"a": Line(sku="a"), "b": None}, None),
    (Order, ORDER, None),
    (Page[Line], Page[Line](items=[Line(sku="a")], after=3), None),
    (Page[tuple[int, ...]], Page[tuple[int, ...]](items=[(1, 2)]), None),
    (Line | GiftLine, Line(sku="a"), None),
    (Line | GiftLine, GiftLine(sku="a", card="for you"), None),
    (Base64Blob, Base64Blob(raw=b"\xff"), {"raw": "_w=="}),
    (PlainBlob, PlainBlob(raw="é".encode()), {"raw": "é"}),
    (Aliased, Aliased(userName="ada"), {"userName": "ada"}),
    (Open, Open.model_validate({"known": 1, "new": [2]}), {"known": 1, "new": [2]}),
    (Tracked, Tracked(net=2), {"net": 2}),
    (Partial, Partial(shown=2), {"shown": 2}),
    (TextLimits, TextLimits(upper=math.inf), {"upper": "Infinity"}),
    (Anything, Anything(value={"a": [1, None]}), {"value": {"a": [1, None]}}),
    (Parcel, Parcel(1.5, ("a", "b"), datetime(2026, 1, 1, tzinfo=UTC)), None),
    (Crate, Crate([Parcel(2.0)], b"ok"), None),
    (Address, {"street": "a"}, {"street": "a"}),
    (Address, {"street": "a", "number": 1}, {"street": "a", "number": 1}),
    (Point, Point(1, 2), [1, 2]),
    (Annotated[int, Field(ge=1)], 1, 1),
    (Any, {"a": [1, 2.5, "x", None, True, {"b": []}]}, None),
    (object, ["plain"], ["plain"]),
]


@pytest.mark.parametrize(("declared", "value", "form"), ROUND_TRIPS, ids=repr)
def test_a_value_of_its_declared_type_comes_back_equal(
    declared: Any, value: Any, form: Any
) -> None:
    payload = Payload.of(value, declared)
    back = recorded(payload).to(declared)
    assert (back, type(back)) == (value, type(back if isinstance(value, int) else value))
    if form is not None:
        assert payload.data == form


def test_the_second_of_two_equal_wall_clock_times_comes_back_as_the_same_instant() -> None:
    # PEP 495: such times are unequal to everything in another zone, and JSON knows no zones.
    second = datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=PARIS)
    back = recorded(Payload.of([second], list[datetime])).to(list[datetime])
    assert [each.astimezone(UTC) for each in back] == [datetime(2026, 10, 25, 1, 30, tzinfo=UTC)]


def test_an_object_without_equality_is_compared_by_what_it_holds() -> None:
    back = recorded(Payload.of([Handle(3)], list[HandleField])).to(list[HandleField])
    assert [handle.target for handle in back] == [3]


@pytest.mark.parametrize(
    "value",
    [ORDER, Parcel(1.5), datetime(2026, 1, 1, tzinfo=UTC), UUID(int=1), (1, "a"), {1}, b"\xff"],
    ids=repr,
)
def test_without_a_declared_type_the_class_of_the_value_reads_it(value: Any) -> None:
    assert recorded(Payload.of(value)).to(type(value)) == value


def test_without_a_declared_type_plain_json_is_itself() -> None:
    value = {"page": 2, "tags": ["a", None, 1.5, True]}
    assert Payload.of(value).data == value
    assert recorded(Payload.of(value)).to(Any) == value


def test_nothing_is_the_payload_of_none() -> None:
    assert (NOTHING, NOTHING.to(type(None))) == (Payload.of(None, None), None)


def test_an_inline_payload_is_a_payload_like_any_other() -> None:
    made, built = inline({"a": 1}), Payload(data={"a": 1})
    assert (made, made.model_dump_json(), repr(made)) == (
        built,
        built.model_dump_json(),
        repr(built),
    )
    assert made.model_copy(update={"data": 2}) == Payload(data=2)


def test_a_payload_shares_nothing_with_the_value_that_it_records() -> None:
    value = {"a": [1]}
    payload = Payload.of(value)
    value["a"].append(2)
    assert payload.data == {"a": [1]}


def test_a_payload_shares_nothing_with_the_value_that_it_gives() -> None:
    payload = Payload.of({"a": [1]})
    payload.to(Any)["a"].append(2)
    assert payload.data == {"a": [1]}


def test_the_order_of_a_union_decides_whichever_was_used_first() -> None:
    as_text, as_time = (
        Payload.of("2026-11-24", str | date),
        Payload.of(date(2026, 11, 24), date | str),
    )
    assert (as_text.data, as_time.data) == ("2026-11-24", "2026-11-24")
    assert (as_text.to(str | date), as_time.to(date | str)) == ("2026-11-24", date(2026, 11, 24))


# ------------------------------------------------------------------------------------ property

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.text(st.characters(categories=["Cs", "Ll"]), max_size=3)
    | st.binary(max_size=4)
    | st.decimals(allow_nan=False)
    | st.datetimes(timezones=st.none() | st.timezones())
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.uuids()
    | st.sampled_from([Colour.RED, Level.LOW])
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(scalars, inner, max_size=3)
        | st.sets(scalars, max_size=3)
        | st.builds(Anything, value=inner)
        | st.builds(Line, sku=st.text(max_size=3), quantity=st.integers())
        | st.builds(Parcel, st.floats())
    ),
    max_leaves=6,
)
DECLARED: Final[list[Any]] = [
    *(
        Any,
        object,
        int,
        str,
        bool,
        float,
        None,
        bytes,
        Decimal,
        UUID,
        datetime,
        date,
        time,
        timedelta,
    ),
    *(Colour, Level, Anything, Line, Parcel, dict, list, tuple, set, Literal[1, "a"], int | str),
    *(
        list[Any],
        list[float],
        tuple[Any, ...],
        dict[Any, Any],
        dict[str, Any],
        set[Any],
        float | None,
    ),
]

Pair = tuple[Any, st.SearchStrategy[Any]]
"""A type, and values of it that JSON can say."""

hashable: Final[list[Pair]] = [
    (int, st.integers()),
    (str, st.text()),
    (bool, st.booleans()),
    (float, st.floats(allow_nan=False, allow_infinity=False)),
    (UUID, st.uuids()),
    (date, st.dates()),
    (timedelta, st.timedeltas()),
    (Colour, st.sampled_from(Colour)),
    (bytes, st.binary()),
    (Decimal, st.decimals(allow_nan=False, allow_infinity=False)),
]
whole: Final[list[Pair]] = [
    *hashable,
    (None, st.none()),
    (time, st.times()),
    (datetime, st.datetimes(timezones=st.none() | st.just(UTC))),
    (Line, st.builds(Line, sku=st.text(), quantity=st.integers())),
    (Parcel, st.builds(Parcel, st.floats(allow_nan=False, allow_infinity=False))),
]


def containers(inner: st.SearchStrategy[Pair]) -> st.SearchStrategy[Pair]:
    """Lists, tuples, dicts and models of what `inner` gives."""
    keys = st.sampled_from(hashable)
    return (
        inner.map(lambda of: (list.__class_getitem__(of[0]), st.lists(of[1], max_size=3)))
        | inner.map(lambda of: (Page.__class_getitem__(of[0]), pages(of)))
        | keys.map(lambda of: (set.__class_getitem__(of[0]), st.sets(of[1], max_size=3)))
        | st.tuples(inner, inner).map(
            lambda two: (
                tuple.__class_getitem__((two[0][0], two[1][0])),
                st.tuples(two[0][1], two[1][1]),
            )
        )
        | st.tuples(keys, inner).map(
            lambda two: (
                dict.__class_getitem__((two[0][0], two[1][0])),
                st.dictionaries(two[0][1], two[1][1], max_size=3),
            )
        )
    )


def pages(of: Pair) -> st.SearchStrategy[Any]:
    page: Any = Page.__class_getitem__(of[0])
    return st.builds(page, items=st.lists(of[1], max_size=3))


pairs: st.SearchStrategy[Pair] = st.recursive(st.sampled_from(whole), containers, max_leaves=3)


@settings(max_examples=200, deadline=None)
@given(pair=pairs, data=st.data())
def test_every_value_of_a_declared_type_is_taken_and_comes_back_equal(
    pair: Pair, data: st.DataObject
) -> None:
    declared, written = pair
    value = data.draw(written)
    assert recorded(Payload.of(value, declared)).to(declared) == value


def same(one: object, other: object) -> bool:
    """Equal, or the same instants: see the test of wall clock times above."""
    if isinstance(one, datetime) and isinstance(other, datetime) and one.tzinfo and other.tzinfo:
        return one.astimezone(UTC) == other.astimezone(UTC)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        pairs = zip(one, other, strict=False)
        return type(one) is type(other) and len(one) == len(other) and all(same(*p) for p in pairs)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, Anything) and isinstance(other, Anything):
        return same(one.value, other.value)
    return one == other


@settings(max_examples=400, deadline=None)
@given(value=values, declared=st.sampled_from(DECLARED))
def test_any_value_of_any_type_comes_back_equal_or_is_refused(value: Any, declared: Any) -> None:
    try:
        payload = Payload.of(value, declared)
    except PayloadError:
        return
    back = recorded(payload).to(type(value) if declared is Any else declared)
    assert same(back, value)


@settings(max_examples=200, deadline=None)
@given(value=values)
def test_a_value_without_a_declared_type_comes_back_equal_or_is_refused(value: Any) -> None:
    encode, decode = encoder(Any), decoder(Any)
    try:
        data = encode(value, "result")
    except PayloadError:
        return
    assert same(decode(recorded(inline(data)).data, "result"), value)

"""User data that is refused: where the mistake is, what was found, and what is said of it."""

import math
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import pytest
from pydantic import BaseModel, Field, InstanceOf, SecretStr

from aion_es.errors import PayloadError
from aion_es.events.values import SignalMessage
from aion_es.events.workflow import WorkflowStarted
from aion_es.ids import RunId, SignalId
from aion_es.payload import Payload, decoder, encoder
from tests.unit.payload_models import (
    ORDER,
    Address,
    Aliased,
    Anything,
    Base64Blob,
    Closed,
    Colour,
    Crate,
    GiftLine,
    Handle,
    HandleField,
    Limits,
    Line,
    Order,
    Parcel,
    Partial,
    PlainBlob,
    TextLimits,
    Tracked,
)

# ------------------------------------------------------------------------------------ refusals

cyclic: list[Any] = [1]
cyclic.append({"again": cyclic})


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


class Mute:
    def __repr__(self) -> str:
        raise RuntimeError("no text")


REFUSALS: Final[list[tuple[Any, Any, str, str | None]]] = [
    (int, 1.0, "$", "Input should be a valid integer, got float 1.0"),
    (int, True, "$", "Input should be a valid integer, got bool True"),
    (int, "1", "$", "Input should be a valid integer, got str '1'"),
    (bool, 1, "$", "Input should be a valid boolean, got int 1"),
    (str, 1, "$", "Input should be a valid string, got int 1"),
    (str, None, "$", "Input should be a valid string, got NoneType None"),
    (None, 0, "$", "Input should be None, got int 0"),
    (float, True, "$", "Input should be a valid number, got bool True"),
    (
        float,
        2**53 + 1,
        "$",
        "int 9007199254740993 would come back as float 9007199254740992.0; "
        "declare a type that keeps it",
    ),
    (Decimal, 1.5, "$", "Input should be an instance of Decimal, got float 1.5"),
    (UUID, "x", "$", "Input should be an instance of UUID, got str 'x'"),
    (date, datetime(2026, 1, 1), "$", None),
    (Colour, "red", "$", "Input should be an instance of Colour, got str 'red'"),
    (Literal["a", "b"], "c", "$", "Input should be 'a' or 'b', got str 'c'"),
    (bytes, bytearray(b"a"), "$", "Input should be a valid bytes, got bytearray bytearray(b'a')"),
    (tuple[int, str], [1, "a"], "$", "Input should be a valid tuple, got list [1, 'a']"),
    (
        list[int],
        [1, 2, "x", None],
        "$[2]",
        "Input should be a valid integer, got str 'x' (and 1 more)",
    ),
    (
        int | str,
        True,
        "$",
        "Input should be a valid integer, or: Input should be a valid string, got bool True",
    ),
    (
        list[dict[str, int | None]],
        [{}, {"a": 1, "b": "x"}],
        "$[1].b",
        "Input should be a valid integer, got str 'x'",
    ),
    (dict[int, str], {1: "a", 2: 3}, "$.2", "Input should be a valid string, got int 3"),
    (dict[str, int], {"order-1": "x"}, "$['order-1']", None),
    (dict[str, int], {"a.b": 1, "it's": "x"}, '$["it\'s"]', None),
    (
        dict[date, int],
        {date(2026, 11, 24): "1"},
        "$['2026-11-24']",
        "Input should be a valid integer, got str '1'",
    ),
    (dict[datetime, int], {datetime(2026, 11, 24): "1"}, "$['2026-11-24T00:00:00']", None),
    (dict[date, list[Line]], {date(2026, 1, 2): [1]}, "$['2026-01-02'][0]", None),
    (dict[UUID, int], {UUID(int=1): "1"}, "$['00000000-0000-0000-0000-000000000001']", None),
    (dict[Colour, int], {Colour.RED: "1"}, "$.red", None),
    (dict[Decimal, int], {Decimal("1.50"): "1"}, "$['1.50']", None),
    (dict[tuple[date, int], int], {(date(2026, 1, 2), 1): "1"}, "$['2026-01-02,1']", None),
    (dict[bool, int], {False: 1, True: "1"}, "$.true", None),
    (dict[float, int], {1.5: "1"}, "$['1.5']", None),
    (dict[bytes, int], {b"\xff": "1"}, "$[\"b'\\\\xff'\"]", None),
    (dict[int | str, int], {1: 1, "1": "x"}, "$.1", "Input should be a valid integer, got str 'x'"),
    (dict[date, float], {date(2026, 1, 2): math.nan}, "$['2026-01-02']", None),
    (dict[date, Any], {date(2026, 1, 2): [object]}, "$['2026-01-02'][0]", None),
    (dict[date, Any], {date(2026, 1, 2): [(1,)]}, "$['2026-01-02'][0]", None),
    (
        dict[Annotated[Mute, InstanceOf()], int],
        {Mute(): "x"},
        "$['<unprintable Mute object>']",
        None,
    ),
    (Address, {"number": 1}, "$.street", "Field required, got dict {'number': 1}"),
    (Annotated[int, Field(ge=1)], 0, "$", "Input should be greater than or equal to 1, got int 0"),
    # Models are not validated again when they are passed: what was assigned later shows when read back.
    (
        list[Order],
        [
            ORDER.model_copy(
                update={"lines": [Line(sku="a").model_copy(update={"quantity": "many"})]}
            )
        ],
        "$[0].lines[0].quantity",
        "would be written as str 'many' and refused when read: Input should be a valid integer, "
        "unable to parse string as an integer",
    ),
    (
        Line,
        Line(sku="a").model_copy(update={"quantity": "2"}),
        "$.quantity",
        "str '2' would come back as int 2; declare a type that keeps it",
    ),
    (
        Line,
        GiftLine(sku="a", card="for you"),
        "$",
        "GiftLine GiftLine(sku='a', quantity=1, card='for you') would come back as "
        "Line Line(sku='a', quantity=1); declare a type that keeps it",
    ),
    (
        str | datetime,
        datetime(2026, 1, 1),
        "$",
        "datetime datetime.datetime(2026, 1, 1, 0, 0) would come back as "
        "str '2026-01-01T00:00:00'; declare a type that keeps it",
    ),
    (
        Anything,
        Anything(value=[(1, 2)]),
        "$.value[0]",
        "tuple (1, 2) would come back as list [1, 2]; declare a type that keeps it",
    ),
    (
        dict[str, Any],
        {"when": date(2026, 1, 1)},
        "$.when",
        "date datetime.date(2026, 1, 1) would come back as str '2026-01-01'; "
        "declare a type that keeps it",
    ),
    (Any, {"a": {1: 2}}, "$.a", "key int 1 would come back as something else"),
    (dict[int | str, int], {1: 1, "1": 2}, "$", "key int 1 would come back as something else"),
    (
        dict[tuple[int, int], int],
        {(1, 2): 3},
        "$['1,2']",
        "would be written as str '1,2' and refused when read: Input should be a valid array",
    ),
    (Tracked, tracked := Tracked(), "$._seen", None),
    (
        Partial,
        Partial(hidden=3),
        "$.hidden",
        "int 3 would come back as int 0; declare a type that keeps it",
    ),
    (
        Closed,
        Closed(net=1),
        "$.gross",
        "would be written as int 2 and refused when read: Extra inputs are not permitted",
    ),
    (SecretStr, SecretStr("x"), "$", None),
    (list[HandleField], [Handle((1, 2))], "$[0]", None),
    (GiftLine | Line, Line(sku="a"), "$", None),
    (datetime | str, "2026-11-24T12:00:00", "$", None),
    (set[Any], {(1, 2)}, "$[0]", None),
    (set[Any], {date(2026, 1, 1)}, "$", None),
    (float, math.nan, "$", "NaN and infinities cannot be written as JSON"),
    (float, -math.inf, "$", "NaN and infinities cannot be written as JSON"),
    (float | None, math.nan, "$", "NaN and infinities cannot be written as JSON"),
    (Any, [{"a": math.nan}], "$[0].a", "NaN and infinities cannot be written as JSON"),
    (
        list[Parcel],
        [Parcel(math.inf)],
        "$[0].weight",
        "NaN and infinities cannot be written as JSON",
    ),
    (Limits, Limits(upper=math.inf), "$.upper", "NaN and infinities cannot be written as JSON"),
    (
        TextLimits,
        TextLimits(upper=math.nan),
        "$.upper",
        "NaN and infinities cannot be written as JSON",
    ),
    (Decimal, Decimal("NaN"), "$", "Input should be a finite number, got Decimal Decimal('NaN')"),
    (str, "a\ud800", "$", None),
    (list[str], ["a", "\udc80"], "$[1]", None),
    (Any, {"a": ["\ud800"]}, "$.a[0]", None),
    (dict[str, int], {"\ud800": 1}, "$", "key str '\\ud800' would come back as something else"),
    (Crate, Crate(label=b"\xff"), "$.label", None),
    (PlainBlob, PlainBlob(raw=b"\xff"), "$.raw", None),
    (tuple[bytes, Any], (b"\xff", object), "$[1]", None),
    (Any, cyclic, "$[1].again", "list contains itself"),
    (list[Any], cyclic, "$[1].again", "list contains itself"),
    (Any, nested(181), "$", "is nested more than 180 levels deep"),
    (list[Any], nested(400), "$", "is nested more than 180 levels deep"),
    (Any, nested(100_000), "$", "is nested more than 180 levels deep"),
    (int, 10**5000, "$", None),
    (Any, [1, 10**5000], "$[1]", None),
    (Any, {"a": [Mute()]}, "$.a[0]", None),
]


@pytest.mark.parametrize(
    ("declared", "value", "path", "reason"),
    REFUSALS,
    ids=[f"{number}-{str(row[0])[:40]}" for number, row in enumerate(REFUSALS)],
)
def test_a_value_that_would_not_come_back_equal_is_refused_where_the_mistake_is(
    declared: Any, value: Any, path: str, reason: str | None
) -> None:
    with pytest.raises(PayloadError) as caught:
        Payload.of(value, declared, "input of workflow 'checkout'")
    assert caught.value.what == "input of workflow 'checkout'"
    assert caught.value.path == path
    if reason is not None:
        assert caught.value.reason == reason


tracked._seen = 1


@pytest.mark.parametrize(
    "value", [object(), print, iter([1]), range(3), int], ids=lambda v: type(v).__name__
)
def test_a_value_that_is_no_data_is_refused(value: Any) -> None:
    with pytest.raises(PayloadError, match="at \\$: "):
        Payload.of(value)


def test_bytes_that_are_no_text_are_refused_with_the_remedy() -> None:
    with pytest.raises(PayloadError) as caught:
        Payload.of([PlainBlob(raw=b"ok"), PlainBlob(raw=b"\xff")], list[PlainBlob])
    assert caught.value.path == "$[1].raw"
    assert caught.value.reason.startswith("bytes b'\\xff' cannot be written as JSON: ")
    assert caught.value.reason.endswith(
        '; give its model ser_json_bytes="base64" and val_json_bytes="base64"'
    )


def test_a_type_that_cannot_be_validated_is_refused_by_its_name() -> None:
    with pytest.raises(PayloadError, match=r"type <class '.*Handle'>, at \$: pydantic cannot"):
        encoder(Handle)


@pytest.mark.parametrize("declared", [BaseModel, list[BaseModel | None]], ids=str)
def test_a_model_without_fields_is_no_type_for_a_value(declared: Any) -> None:
    with pytest.raises(PayloadError, match="BaseModel has no fields; declare the model itself"):
        encoder(declared)


def test_a_field_of_a_model_without_fields_is_refused_when_it_is_written() -> None:
    class Envelope(BaseModel):
        content: BaseModel

    with pytest.raises(PayloadError, match="input of workflow 'checkout', at"):
        Payload.of(Envelope(content=Line(sku="a")), what="input of workflow 'checkout'")


@pytest.mark.parametrize("declared", [len, lambda: 1], ids=["built-in", "lambda"])
def test_a_function_is_no_type(declared: Any) -> None:
    with pytest.raises(PayloadError, match="is a function, not a type"):
        encoder(declared)


def test_a_literal_takes_its_own_member_only() -> None:
    with pytest.raises(PayloadError, match=r"got Colour <Colour.GREEN: 'green'>"):
        Payload.of(Colour.GREEN, Literal[Colour.RED])
    with pytest.raises(PayloadError, match="got str 'red'"):
        Payload.of("red", Literal[Colour.RED])
    with pytest.raises(PayloadError, match="got str 'green'"):
        Payload(data="green").to(Literal[Colour.RED])


def test_a_type_with_an_annotation_that_cannot_be_looked_up_is_refused() -> None:
    with pytest.raises(PayloadError, match="cannot be looked up: unhashable type: 'dict'"):
        Payload.of(1, Annotated[int, {"unit": "s"}])


def test_a_type_that_names_something_unknown_is_refused() -> None:
    class Lost(BaseModel):
        link: "Nowhere"  # type: ignore[name-defined]  # noqa: F821 - that is the point

    with pytest.raises(PayloadError, match="pydantic cannot validate it: name 'Nowhere'"):
        decoder(Lost)


def test_the_deepest_payload_that_is_taken_can_be_read_from_the_deepest_place_of_an_event() -> None:
    deepest = Payload.of(nested(180), Any)
    signal = SignalMessage(signal_id=SignalId("1"), name="deep", payload=deepest)
    started = WorkflowStarted(
        workflow_type="w",
        run_id=RunId("1"),
        first_run_id=RunId("1"),
        package_version="1",
        carried_signals=(signal,),
    )
    assert WorkflowStarted.model_validate_json(started.model_dump_json()) == started


def test_brackets_in_text_are_no_depth() -> None:
    assert Payload.of("[" * 1000 + "{" * 1000).to(str) == "[" * 1000 + "{" * 1000
    assert Payload.of(["[" * 1000]).to(list[str]) == ["[" * 1000]


# ------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize(
    ("data", "declared", "told"),
    [
        (
            "x",
            int,
            "$: Input should be a valid integer, unable to parse string as an integer, got str 'x'",
        ),
        (None, int, "$: Input should be a valid integer, got NoneType None"),
        ([{"sku": "a"}, {}], list[Line], "$[1].sku: Field required, got dict {}"),
        (
            [{"sku": 1}, {}],
            list[Line],
            "$[0].sku: Input should be a valid string, got int 1 (and 1 more)",
        ),
        ({"lines": {}}, Order, "$.id: Field required, got dict {'lines': {}} (and 1 more)"),
        ({"userName": 7}, Aliased, "$.userName: Input should be a valid string, got int 7"),
        ({"raw": "?"}, Base64Blob, None),
        ({"a": {"b": "x"}}, dict[str, dict[str, int | None]], None),
        (
            {"2026-11-24": ["x"]},
            dict[date, list[bool]],
            "$['2026-11-24'][0]: Input should be a valid boolean, unable to interpret input, got str 'x'",
        ),
    ],
)
def test_recorded_data_that_does_not_fit_is_refused_where_the_mistake_is(
    data: Any, declared: Any, told: str | None
) -> None:
    with pytest.raises(PayloadError) as caught:
        Payload(data=data).to(declared, "recorded result of workflow 'checkout'")
    if told is not None:
        assert str(caught.value) == f"recorded result of workflow 'checkout', at {told}"


def test_fields_that_a_newer_program_recorded_are_ignored_as_the_model_says() -> None:
    assert Payload(data={"sku": "a", "newer": 1}).to(Line) == Line(sku="a")


def test_an_encoded_payload_is_not_taken_for_the_value() -> None:
    payload = Payload(data="H4sIAAAA", encoding=("gzip", "base64"))
    with pytest.raises(PayloadError, match="is encoded as gzip, base64; decode it first"):
        payload.to(str)


def test_data_that_is_no_json_at_all_is_refused() -> None:
    with pytest.raises(PayloadError, match=r"at \$\.a: object <object"):
        Payload(data={"a": object()}).to(dict[str, int])

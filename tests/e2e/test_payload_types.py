"""Every kind of type travels everywhere: inputs, results, signals, queries; and a misfit is named where the mistake is."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path
from typing import Annotated, Any, Final, Generic, Literal, NamedTuple, NotRequired, TypeVar
from uuid import UUID

import pytest
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from aion_es import Context, Engine, Query, Signal, activity, workflow
from aion_es.errors import PayloadError, QueryFailedError, WorkflowFailedError
from aion_es.ids import DEFAULT_NAMESPACE, WorkflowId, workflow_stream
from tests.e2e.scenario import SOON

T = TypeVar("T")


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


class Line(BaseModel):
    sku: str
    quantity: int = 1


class Order(BaseModel):
    id: UUID
    lines: list[Line]
    note: str | None = None


class Page(BaseModel, Generic[T]):
    items: list[T]


class Card(BaseModel):
    kind: Literal["card"] = "card"
    number: str


class Cash(BaseModel):
    kind: Literal["cash"] = "cash"
    cents: int


Payment = Annotated[Card | Cash, Field(discriminator="kind")]


@dataclass
class Parcel:
    weight: float
    stops: list[str] = field(default_factory=list)


class Address(TypedDict):
    street: str
    number: NotRequired[int]


class Point(NamedTuple):
    x: int
    y: int


TEXT: Final[Any] = "2"
NUMBER: Final[Any] = 1
NOON: Final = datetime(2026, 11, 24, 12, tzinfo=UTC)
ORDER: Final = Order(id=UUID(int=7), lines=[Line(sku="a"), Line(sku="b", quantity=2)])

# (id, declared type, a value, something that is none, where in it)
TYPES: Final[list[tuple[str, Any, Any, Any, str]]] = [
    ("str", str, "Ørsted ✓", 1, "$"),
    ("int", int, 2**70, "1", "$"),
    ("float", float, 0.1, "0.1", "$"),
    ("bool", bool, True, 1, "$"),
    ("bytes", bytes, b"\xff\x00", "text", "$"),
    ("Decimal", Decimal, Decimal("1.10"), "1.10", "$"),
    ("UUID", UUID, UUID(int=7), "7", "$"),
    ("datetime", datetime, NOON, "noon", "$"),
    ("date", date, date(2026, 11, 24), "today", "$"),
    ("time", time, time(9, 30), "half past nine", "$"),
    ("timedelta", timedelta, timedelta(days=3, microseconds=1), "3 days", "$"),
    ("Path", Path, Path("a/b"), 1, "$"),
    ("Enum", Colour, Colour.RED, "red", "$"),
    ("IntEnum", Level, Level.HIGH, 4, "$"),
    ("Literal", Literal["a", 1], "a", "b", "$"),
    ("Optional", int | None, None, "none", "$"),
    ("union", int | str, "1", 1.5, "$"),
    ("discriminated union", Payment, Cash(cents=5), Line(sku="a"), "$"),
    ("union of models", Line | Order, ORDER, Cash(cents=5), "$"),
    ("constrained", Annotated[int, Field(ge=1)], 1, 0, "$"),
    ("list", list[int], [3, 1, 2], [3, "1"], "$[1]"),
    ("dict", dict[str, int], {"b": 1, "a": 2}, {"b": "1"}, "$.b"),
    ("dict by date", dict[date, int], {date(2026, 11, 24): 1}, [1], "$"),
    ("set", set[str], {"a", "b"}, {1}, "$[0]"),
    ("frozenset", frozenset[int], frozenset({1}), frozenset({"a"}), "$[0]"),
    ("tuple", tuple[int, str], (1, "a"), (1, 2), "$[1]"),
    ("tuple of any length", tuple[int, ...], (1, 2, 3), (1, "2"), "$[1]"),
    ("model", Line, Line(sku="a"), Line.model_construct(sku="a", quantity=TEXT), "$.quantity"),
    (
        "nested model",
        Order,
        ORDER,
        Order.model_construct(id=UUID(int=7), lines=[Line.model_construct(sku=NUMBER, quantity=1)]),
        "$.lines[0].sku",
    ),
    (
        "generic",
        Page[int],
        Page[int](items=[1]),
        Page[int].model_construct(items=[TEXT]),
        "$.items[0]",
    ),
    ("generic of models", Page[Line], Page[Line](items=[Line(sku="a")]), Line(sku="a"), "$"),
    ("list of models", list[Line], [Line(sku="a")], [Line(sku="a"), "b"], "$[1]"),
    ("dataclass", Parcel, Parcel(1.5, ["a"]), Parcel(TEXT), "$.weight"),
    ("TypedDict", Address, {"street": "a", "number": 1}, {"number": 1}, "$.street"),
    ("NamedTuple", Point, Point(1, 2), (1, 2, 3), "$"),
    ("nothing", None, None, 1, "$"),
]
IDS: Final = [case[0] for case in TYPES]
every_type = pytest.mark.parametrize(
    ("declared", "value"), [(case[1], case[2]) for case in TYPES], ids=IDS
)
every_misfit = pytest.mark.parametrize(
    ("declared", "value", "misfit", "path"), [case[1:] for case in TYPES], ids=IDS
)


def typed(function: Callable[..., Any], declared: Any) -> Any:
    """Return the function with `declared` as the type of its input and of its result."""
    function.__annotations__ = {"value": declared, "return": declared}
    function.__qualname__ = function.__name__
    return function


def names_type(text: str, misfit: Any, path: str) -> bool:
    """Return whether the text names the type of what was found: at the top, of the misfit itself."""
    if path != "$":
        return "int" in text or "str" in text or "dict" in text  # what the misfits hold inside
    return f"got {type(misfit).__name__} " in text


class Code:
    """Workflow, activity and channels of one declared type, and what they were given.

    Args:
        declared: The type.
        activity_input: What the code gives to the activity. Default: its input.
        activity_result: What the activity returns. Default: its input.
        result: What the code returns. Default: what the activity gave.
        answer: What the query is answered with. Default: its argument.
    """

    def __init__(self, declared: Any, **instead: Any) -> None:
        self.seen: dict[str, Any] = {}
        self.signal = Signal[Any]("given", declared)
        self.query = Query[Any, Any]("asked", declared, declared)
        seen, signal, query = self.seen, self.signal, self.query

        async def echo(value: Any) -> Any:
            seen["activity"] = value
            return instead.get("activity_result", value)

        async def keep(ctx: Context, value: Any) -> Any:
            def answered(argument: Any = None) -> Any:
                seen["query"] = argument
                return instead.get("answer", argument)

            ctx.answer(query, answered)
            seen["workflow"] = value
            result = await ctx.run(self.activity, instead.get("activity_input", value))
            seen["result"] = result
            seen["signal"] = await ctx.receive(signal)
            return instead.get("result", result)

        self.activity: Any = activity(typed(echo, declared))
        self.workflow: Any = workflow(typed(keep, declared))

    def open(self, folder: Path) -> Any:
        return Engine.open(
            f"sqlite:///{folder / 'aion.db'}?durability=normal",
            workflows=[self.workflow],
            activities=[self.activity],
        )


@every_type
async def test_a_value_arrives_everywhere_as_what_it_was(
    tmp_path: Path, declared: Any, value: Any
) -> None:
    code = Code(declared)
    async with code.open(tmp_path) as engine:
        handle = await engine.start(code.workflow, value)
        answer = await handle.query(code.query, value)
        await handle.signal(code.signal, value)
        result = await handle.result(timeout=SOON)
    arrived = {"answer": answer, "handle": result, **code.seen}
    places = ["answer", "handle", "query", "workflow", "activity", "result", "signal"]
    assert arrived == dict.fromkeys(places, value)
    assert {type(got) for got in arrived.values()} == {type(value)}


@every_type
async def test_a_value_is_read_back_by_the_next_engine(
    tmp_path: Path, declared: Any, value: Any
) -> None:
    code = Code(declared)
    async with code.open(tmp_path) as engine:
        handle = await engine.start(code.workflow, value, id="w")
        await handle.signal(code.signal, value)
        await handle.result(timeout=SOON)
    again = Code(declared)
    async with again.open(tmp_path) as engine:
        handle = engine.handle("w", again.workflow)
        assert await handle.result(timeout=SOON) == value
        assert await handle.query(again.query, value) == value
    del again.seen["query"]
    assert again.seen == dict.fromkeys(["workflow", "result", "signal"], value)


@every_misfit
async def test_a_misfit_of_the_caller_is_refused_to_the_caller_and_nothing_is_recorded(
    tmp_path: Path, declared: Any, value: Any, misfit: Any, path: str
) -> None:
    code = Code(declared)
    async with code.open(tmp_path) as engine:
        handle = await engine.start(code.workflow, value, id="w")
        attempts: dict[str, Callable[[], Awaitable[Any]]] = {
            "input of workflow 'keep'": lambda: engine.start(code.workflow, misfit, id="x"),
            "payload of signal 'given'": lambda: handle.signal(code.signal, misfit),
            "argument of query 'asked'": lambda: handle.query(code.query, misfit),
        }
        for what, attempt in attempts.items():
            with pytest.raises(PayloadError) as caught:
                await attempt()
            assert caught.value.what == what
            assert caught.value.path == path
            assert names_type(caught.value.reason, misfit, path)
        assert {event.stream async for event in engine.store.read_all()} == {
            workflow_stream(DEFAULT_NAMESPACE, WorkflowId("w"))
        }
        await handle.signal(code.signal, value)
        assert await handle.result(timeout=SOON) == value


@every_misfit
@pytest.mark.parametrize(
    ("place", "type", "what"),
    [
        ("activity_input", "PayloadError", "input of activity 'echo'"),
        ("activity_result", "ActivityError", "result of activity 'echo'"),
        ("result", "PayloadError", "result of workflow 'keep'"),
    ],
)
async def test_a_misfit_of_the_code_fails_the_code_with_its_path(
    tmp_path: Path,
    declared: Any,
    value: Any,
    misfit: Any,
    path: str,
    place: str,
    type: str,
    what: str,
) -> None:
    code = Code(declared, **{place: misfit})
    async with code.open(tmp_path) as engine:
        handle = await engine.start(code.workflow, value)
        if place == "result":
            await handle.signal(code.signal, value)
        with pytest.raises(WorkflowFailedError) as caught:
            await handle.result(timeout=SOON)
    assert caught.value.type == type
    assert f"{what}, at {path}: " in caught.value.message
    assert names_type(caught.value.message, misfit, path)


@every_misfit
async def test_a_misfit_of_an_answer_fails_the_query_and_not_the_run(
    tmp_path: Path, declared: Any, value: Any, misfit: Any, path: str
) -> None:
    code = Code(declared, answer=misfit)
    async with code.open(tmp_path) as engine:
        handle = await engine.start(code.workflow, value)
        with pytest.raises(QueryFailedError) as caught:
            await handle.query(code.query, value)
        assert f"answer to query 'asked', at {path}: " in str(caught.value)
        assert names_type(str(caught.value), misfit, path)
        await handle.signal(code.signal, value)
        assert await handle.result(timeout=SOON) == value

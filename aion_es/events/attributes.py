"""Typed search attributes: their keys, and their values on the way into an event and out of it."""

import builtins
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Generic, TypeAlias, TypeVar, cast, overload

from aion_es.errors import AttributeTypeError, InvalidArgumentError
from aion_es.events.conditions import Comparable, Condition, Value, compared, is_value
from aion_es.events.values import AttributeType, AttributeValue

# `bool` stands before `int`: a checker takes the first that fits, and a bool is an int to it.
T = TypeVar("T", bool, int, float, str, datetime, list[str])

MAX_TEXT_BYTES: Final = 2048
"""Longest text of a value or of a list's element, in UTF-8."""
MAX_ELEMENTS: Final = 100
"""Longest list."""

BUILT_IN_FIELDS: Final = frozenset(
    {
        "BuildId",
        "CloseTime",
        "ExecutionDuration",
        "ExecutionStatus",
        "FailedStep",
        "FailureReason",
        "FailureType",
        "FirstRunId",
        "HistoryLength",
        "HistorySizeBytes",
        "ParentRunId",
        "ParentWorkflowId",
        "RootWorkflowId",
        "RunId",
        "ScheduleId",
        "StartTime",
        "StuckReason",
        "TaskQueue",
        "WorkflowId",
        "WorkflowType",
    }
)
"""Fields that every run has; no attribute may take their names."""

AttributeScalar: TypeAlias = str | int | float | bool | datetime | tuple[str, ...]
"""What `from_attribute` gives."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_TYPES: Final[dict[object, AttributeType]] = {
    str: "String",
    int: "Int",
    float: "Float",
    bool: "Bool",
    datetime: "Datetime",
    list[str]: "KeywordList",
}


def check_attribute_name(name: object) -> str:
    """Return `name` if it can name a search attribute.

    Raises:
        InvalidArgumentError: It is not 1–64 letters, digits and `_`, beginning with a letter, or it is the
            name of a built-in field.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidArgumentError(
            "search attribute",
            f"{name!r} must be 1–64 of A-Z, a-z, 0-9 and _, beginning with a letter",
        )
    if name in BUILT_IN_FIELDS:
        raise InvalidArgumentError("search attribute", f"{name!r} is the name of a built-in field")
    return name


@dataclass(frozen=True, init=False, slots=True, eq=False)
class SearchAttribute(Comparable[Any], Generic[T]):
    """The key of a search attribute, with the type of its values: `SearchAttribute("customer", str)`.

    Two keys with the same name and type are equal, and good for a dict. Compared with a value a key makes a
    condition for a list filter: `(customer == "ana") & (total > 100)`. Python's `str`, `int`, `float`, `bool`, `datetime` and
    `list[str]` stand for String, Int, Float, Bool, Datetime and KeywordList.

    Attributes:
        name: `[A-Za-z][A-Za-z0-9_]{0,63}`, and not the name of a built-in field.
        type: The recorded type.
    """

    name: str
    type: AttributeType

    def __init__(self, name: str, type: builtins.type[T]) -> None:
        """Make a key.

        Raises:
            InvalidArgumentError: The name cannot be one, or no attribute type stands for this Python type.
        """
        recorded = _TYPES.get(type)
        if recorded is None:
            raise InvalidArgumentError(
                f"search attribute {name!r}",
                f"takes str, int, float, bool, datetime or list[str], not {type!r}",
            )
        object.__setattr__(self, "name", check_attribute_name(name))
        object.__setattr__(self, "type", recorded)

    @overload  # type: ignore[override] # with a value it makes a condition, as every query builder does
    def __eq__(self, other: "SearchAttribute[Any]") -> bool: ...
    @overload
    def __eq__(self, other: Value) -> Condition: ...
    def __eq__(self, other: object) -> bool | Condition:  # pyright: ignore[reportIncompatibleMethodOverride] # see above
        if isinstance(other, SearchAttribute):
            return self._identity == other._identity
        return compared(self.name, "=", other) if is_value(other) else NotImplemented

    @overload  # type: ignore[override] # as __eq__
    def __ne__(self, other: "SearchAttribute[Any]") -> bool: ...
    @overload
    def __ne__(self, other: Value) -> Condition: ...
    def __ne__(self, other: object) -> bool | Condition:  # pyright: ignore[reportIncompatibleMethodOverride] # see above
        if isinstance(other, SearchAttribute):
            return self._identity != other._identity
        return compared(self.name, "!=", other) if is_value(other) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._identity)

    def to(self, value: T | None) -> "TypedAttributes":
        """Return this key with a value, to be merged with those of other types: `customer.to("ana") | total.to(3)`.

        Nothing is set by it, and the value is checked where it is given to something that sets it.

        Args:
            value: `None` removes the attribute, where one may be set already.
        """
        return TypedAttributes({self: value})

    @property
    def _identity(self) -> tuple[str, str]:
        return self.name, self.type


class TypedAttributes(Mapping[SearchAttribute[Any] | str, Any]):
    """Values of search attributes of any types, each checked against its key: what `SearchAttribute.to` makes.

    A mapping that does not change. `|` merges it with another, or with a dict, into a new one; of two values
    for one name the later wins. Nobody else makes one: a checker would learn nothing of its values.
    """

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[Any, Any]) -> None:
        self._values: Mapping[SearchAttribute[Any] | str, Any] = values

    def __getitem__(self, key: SearchAttribute[Any] | str) -> Any:
        return self._values[key]

    def __iter__(self) -> Iterator[SearchAttribute[Any] | str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __or__(self, other: "SearchAttributeValues") -> "TypedAttributes":
        if not isinstance(other, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] # not every caller has a checker
            return NotImplemented
        return _merged(self, other)

    def __ror__(self, other: "SearchAttributeValues") -> "TypedAttributes":
        if not isinstance(other, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] # see __or__
            return NotImplemented
        return _merged(other, self)

    def __repr__(self) -> str:
        return f"TypedAttributes({self._values!r})"


SearchAttributeValues: TypeAlias = (
    TypedAttributes
    | Mapping[SearchAttribute[bool], bool | None]
    | Mapping[SearchAttribute[int], int | None]
    | Mapping[SearchAttribute[float], float | None]
    | Mapping[SearchAttribute[str], str | None]
    | Mapping[SearchAttribute[datetime], datetime | None]
    | Mapping[SearchAttribute[list[str]], list[str] | tuple[str, ...] | None]
    | Mapping[str, object]
)
"""Search attributes with values, as they are given: a dict of keys of one type, or of registered names whose
values no checker knows, or what `SearchAttribute.to` makes and `|` merges. `None` removes, or leaves out."""


def name_of(key: object) -> str:
    """Return the name of an attribute that is given by key, or by name.

    Raises:
        InvalidArgumentError: It is given by neither.
    """
    if isinstance(key, str):
        return key
    if isinstance(key, SearchAttribute):
        return key.name
    raise InvalidArgumentError("attributes", f"are given by key or by name, not by {key!r}")


def _merged(first: Mapping[Any, Any], second: Mapping[Any, Any]) -> TypedAttributes:
    """Return both; of a name that is in both, by whichever key, only what `second` says."""
    names = {name_of(key) for key in second}
    kept = {key: value for key, value in first.items() if name_of(key) not in names}
    return TypedAttributes({**kept, **second})


def to_attribute(name: str, type: AttributeType, value: object) -> AttributeValue:
    """Return `value` as it is recorded.

    Args:
        name: Whose value, for the message.
        type: What it must be. An int is taken for a Float; a bool is no Int; a list or a tuple of str is a
            KeywordList.
        value: At most 64 bits, finite, aware, 2 KiB of UTF-8, 100 elements.

    Raises:
        AttributeTypeError: It does not fit; says what was found.
    """
    recorded = _WRITERS[type](value)
    if isinstance(recorded, _Refused):
        raise AttributeTypeError(name, type, recorded.found)
    return AttributeValue(type=type, value=recorded)


def from_attribute(attribute: AttributeValue) -> AttributeScalar:
    """Return the Python value: Datetime as an aware `datetime` in UTC, KeywordList as a tuple."""
    return scalar_of(attribute.type, attribute.value)


def scalar_of(type: AttributeType, value: Any) -> AttributeScalar:
    """Return the Python value of a recorded one, which may come from JSON, where a tuple is a list."""
    match type:
        case "Datetime":
            return datetime.fromisoformat(value).astimezone(UTC)
        case "Float":
            return float(value)
        case "KeywordList":
            return tuple(value)
        case _:
            scalar: AttributeScalar = value
            return scalar


def check_attribute_value(name: str, attribute: AttributeValue) -> None:
    """Check that a value that was made elsewhere is one that `to_attribute` could have made.

    Raises:
        AttributeTypeError: It is not.
    """
    try:
        value = from_attribute(attribute)
    except (TypeError, ValueError) as error:
        raise AttributeTypeError(name, attribute.type, repr(attribute.value)) from error
    to_attribute(name, attribute.type, value)


@dataclass(frozen=True, slots=True)
class _Refused:
    found: str


_Recorded: TypeAlias = bool | int | float | str | tuple[str, ...] | _Refused


def _write_text(value: object) -> str | _Refused:
    if not isinstance(value, str):
        return _unlike(value)
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        return _Refused("text with a lone surrogate")
    if size > MAX_TEXT_BYTES:
        return _Refused(f"text of {size:,} bytes, over the limit of {MAX_TEXT_BYTES:,}")
    return str.__str__(value)  # plain text, also of an enum member


def _write_int(value: object) -> int | _Refused:
    if isinstance(value, bool) or not isinstance(value, int):
        return _unlike(value)
    if not -(2**63) <= value < 2**63:
        return _Refused("an integer past 64 bits")
    return int(value)


def _write_float(value: object) -> float | _Refused:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _unlike(value)
    try:
        number = float(value)
    except OverflowError:
        return _Refused("an integer past the range of a float")
    return number if math.isfinite(number) else _Refused(repr(number))


def _write_bool(value: object) -> bool | _Refused:
    return value if isinstance(value, bool) else _unlike(value)


def _write_datetime(value: object) -> str | _Refused:
    if not isinstance(value, datetime):
        return _unlike(value)
    if value.utcoffset() is None:
        return _Refused(f"naive datetime {value.isoformat()}")
    try:
        instant = value.astimezone(UTC).replace(tzinfo=None)
    except OverflowError:
        return _Refused(f"{value.isoformat()}, outside the years 1 to 9999 in UTC")
    return instant.isoformat(timespec="microseconds") + "Z"  # fixed width: text order is time order


def _write_keywords(value: object) -> tuple[str, ...] | _Refused:
    if not isinstance(value, list | tuple):
        return _unlike(value)
    elements = list(cast("Iterable[Any]", value))
    if len(elements) > MAX_ELEMENTS:
        return _Refused(f"a list of {len(elements)}, over the limit of {MAX_ELEMENTS}")
    words: list[str] = []
    for element in elements:
        word = _write_text(element)
        if isinstance(word, _Refused):
            return _Refused(f"a list with {word.found}")
        words.append(word)
    return tuple(words)


def _unlike(value: object) -> _Refused:
    text = repr(value)
    return _Refused(f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '…'}")


_WRITERS = {
    "String": _write_text,
    "Int": _write_int,
    "Float": _write_float,
    "Bool": _write_bool,
    "Datetime": _write_datetime,
    "KeywordList": _write_keywords,
}

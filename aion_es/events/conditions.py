"""Conditions on a run, as text: what a search attribute's key and the fields of visibility make when compared.

A condition is the text of a filter that is known to be well formed: it is parsed and checked as any other,
so that both ways of asking have one meaning, one set of limits and one kind of refusal. Nothing here knows
how it is answered.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Generic, TypeAlias, TypeVar

from aion_es.errors import InvalidArgumentError

V = TypeVar("V")

_MICROSECOND: Final = timedelta(microseconds=1)
_BINDING: Final = {"OR": 0, "AND": 1, "NOT": 2}
_RESERVED: Final = frozenset(
    {"AND", "OR", "NOT", "IN", "BETWEEN", "IS", "NULL", "TRUE", "FALSE", "STARTS_WITH"}
)
"""Words that an attribute may be called, but only in quotes."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What must hold of a run; `str` gives the text of the filter.

    Attributes:
        text: As `visibility.list` takes it.
        binding: How tightly its outermost word binds: 0 is OR, 1 is AND, 2 the rest.
    """

    text: str
    binding: int = _BINDING["NOT"]

    def __and__(self, other: "Condition") -> "Condition":
        """Both hold.

        Raises:
            InvalidArgumentError: The other is no condition.
        """
        return self._linked("AND", other)

    def __or__(self, other: "Condition") -> "Condition":
        """At least one of them holds.

        Raises:
            InvalidArgumentError: The other is no condition.
        """
        return self._linked("OR", other)

    def __invert__(self) -> "Condition":
        """It does not hold."""
        return Condition(f"NOT ({self.text})")

    def __bool__(self) -> bool:
        """Refuse `and`, `or`, `not` and `if`, which would silently drop a part of the filter.

        Raises:
            InvalidArgumentError: Always.
        """
        raise InvalidArgumentError("condition", "is neither true nor false: use &, | and ~")

    def __str__(self) -> str:
        return self.text

    def _linked(self, word: str, other: object) -> "Condition":
        if not isinstance(other, Condition):
            raise InvalidArgumentError(
                "condition", f"is combined with another condition, not with {other!r}"
            )
        binding = _BINDING[word]
        parts = (one.text if one.binding >= binding else f"({one.text})" for one in (self, other))
        return Condition(f" {word} ".join(parts), binding)


@dataclass(frozen=True, slots=True)
class RelativeTime:
    """An instant that is fixed when the filter is asked: `now()`, or so long before or after it."""

    text: str = "now()"

    def __sub__(self, span: timedelta) -> "RelativeTime":
        return self._moved("-", span)

    def __add__(self, span: timedelta) -> "RelativeTime":
        return self._moved("+", span)

    def _moved(self, sign: str, span: timedelta) -> "RelativeTime":
        if self.text != "now()" or span < timedelta(0):
            raise InvalidArgumentError("now()", "takes one span of time, and none that is negative")
        return RelativeTime(f"now() {sign} {_quoted(_span(span))}")


def now() -> RelativeTime:
    """Stand for the instant of asking: for all that began lately, `StartTime` is above `now() - HOUR`."""
    return RelativeTime()


Value: TypeAlias = str | bool | int | float | datetime | timedelta | RelativeTime


def is_value(value: object) -> bool:
    """Return whether a filter can hold such a value."""
    return isinstance(value, str | bool | int | float | datetime | timedelta | RelativeTime)


def quoted_name(name: str) -> str:
    """Return a field's name as a filter writes it."""
    return f'"{name}"' if name.upper() in _RESERVED else name


def compared(name: str, operator: str, value: object) -> Condition:
    """Return the comparison of a field with a value.

    Raises:
        InvalidArgumentError: The value is of no type that a filter has.
    """
    return Condition(f"{quoted_name(name)} {operator} {_literal(value)}")


def among(name: str, operator: str, values: Iterable[object]) -> Condition:
    """Return the comparison of a field with several values.

    Raises:
        InvalidArgumentError: There are none, or one is of no type that a filter has.
    """
    return Condition(f"{quoted_name(name)} {operator} ({_listed(values)})")


class Comparable(Generic[V]):
    """Something that every run may have a value of, of type `V`.

    On a KeywordList `==` and `in_` mean *contains*. A comparison with a field that a run does not have
    is false, and its `~` is true; `is_null` asks for that.

    Attributes:
        name: As a filter names it.
    """

    __slots__ = ()
    name: str

    def __lt__(self, value: V) -> Condition:
        return compared(self.name, "<", value)

    def __le__(self, value: V) -> Condition:
        return compared(self.name, "<=", value)

    def __gt__(self, value: V) -> Condition:
        return compared(self.name, ">", value)

    def __ge__(self, value: V) -> Condition:
        return compared(self.name, ">=", value)

    def in_(self, values: Iterable[V]) -> Condition:
        """The field has one of `values`.

        Raises:
            InvalidArgumentError: There are none, or one is of no type that a filter has.
        """
        return among(self.name, "IN", values)

    def not_in(self, values: Iterable[V]) -> Condition:
        """The field has a value, and none of `values`.

        Raises:
            InvalidArgumentError: As `in_`.
        """
        return among(self.name, "NOT IN", values)

    def between(self, low: V, high: V) -> Condition:
        """The field has a value from `low` to `high`, both included."""
        return Condition(f"{quoted_name(self.name)} BETWEEN {_literal(low)} AND {_literal(high)}")

    def starts_with(self, prefix: str) -> Condition:
        """The field has text that begins with `prefix`, case and all."""
        return compared(self.name, "STARTS_WITH", prefix)

    def is_null(self) -> Condition:
        """The field has no value."""
        return Condition(f"{quoted_name(self.name)} IS NULL")

    def is_not_null(self) -> Condition:
        """The field has a value."""
        return Condition(f"{quoted_name(self.name)} IS NOT NULL")

    def asc(self) -> str:
        """Return what `order_by` takes: smallest first."""
        return f"{quoted_name(self.name)} ASC"

    def desc(self) -> str:
        """Return what `order_by` takes: largest first."""
        return f"{quoted_name(self.name)} DESC"


def _listed(values: Iterable[object]) -> str:
    literals = [_literal(value) for value in values]
    if not literals:
        raise InvalidArgumentError("values", "there must be at least one")
    return ", ".join(literals)


def _literal(value: object) -> str:
    """Return a value as a filter writes it; whether it fits the field, the filter's parser says."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return _quoted(str.__str__(value))
        case int():
            return int.__repr__(value)
        case float():
            return float.__repr__(value)
        case datetime():
            return _quoted(value.isoformat())
        case timedelta():
            return _span_literal(value)
        case RelativeTime():
            return value.text
        case _:
            raise InvalidArgumentError(
                "value", f"a filter has no {type(value).__name__}: {value!r}"
            )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _span(span: timedelta) -> str:
    return f"{span // _MICROSECOND}us"


def _span_literal(span: timedelta) -> str:
    micros = span // _MICROSECOND
    return _quoted(f"{micros}us") if micros >= 0 else f"-{-micros // 10**6}.{-micros % 10**6:06d}"

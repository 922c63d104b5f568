"""Literals of a filter: read as values of the field that they are compared with."""

import math
import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from aion_es.aggregates.status import WorkflowStatus
from aion_es.projections.instants import to_micros
from aion_es.visibility.fields import Field

_UNITS: Final = {
    "us": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
}
"""Microseconds in each."""
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:us|ms|s|m|h|d))+")
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(us|ms|s|m|h|d)")
_LONGEST: Final = 2**62
"""Microseconds; now, and as long before or after it, is a 64-bit number."""
_STATUSES: Final = tuple(str(status) for status in WorkflowStatus)


class Unfit(Exception):  # noqa: N818 - never leaves the parser, which turns it into a FilterSyntaxError
    """The literal is no value of the field; says what is expected."""


def read_literal(field: Field, literal: Any, now: datetime) -> Any:
    """Return the value of sqlglot's `literal` as the read model stores values of `field`.

    Raises:
        Unfit: It is no such value.
    """
    match field.kind:
        case "text" | "words":
            return _text(field, literal)
        case "status":
            return _status(field, literal)
        case "int":
            return _int(field, literal)
        case "float":
            return _number(field, literal)
        case "bool":
            return _bool(field, literal)
        case "time":
            return _time(field, literal, now)
        case "duration":
            return _span(field, literal)


def _string(literal: Any) -> str | None:
    from sqlglot import exp

    if isinstance(literal, exp.Literal) and literal.is_string:
        text: str = literal.this
        return text
    return None


def _digits(literal: Any) -> str | None:
    from sqlglot import exp

    if isinstance(literal, exp.Neg):
        digits = _digits(literal.this)
        return None if digits is None or digits.startswith("-") else f"-{digits}"
    if isinstance(literal, exp.Literal) and not literal.is_string:
        return str(literal.this)
    return None


def _text(field: Field, literal: Any) -> str:
    text = _string(literal)
    if text is None:
        raise Unfit(f"{field.name} is compared with text in single quotes")
    if "\0" in text:
        raise Unfit(f"{field.name} is compared with text, which holds no NUL character")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Unfit(f"{field.name} is compared with text, not with a lone surrogate") from error
    return text


def _status(field: Field, literal: Any) -> str:
    text = _string(literal)
    if text not in _STATUSES:
        raise Unfit(f"{field.name} is one of {', '.join(_STATUSES)}")
    return text


def _int(field: Field, literal: Any) -> int:
    digits = _digits(literal)
    try:
        number = int(digits or "")
    except ValueError as error:
        raise Unfit(f"{field.name} is compared with a whole number") from error
    if not -(2**63) <= number < 2**63:
        raise Unfit(f"{field.name} has 64 bits")
    return number


def _number(field: Field, literal: Any) -> float:
    digits = _digits(literal)
    try:
        number = float(digits or "")
    except ValueError as error:
        raise Unfit(f"{field.name} is compared with a number") from error
    if not math.isfinite(number):
        raise Unfit(f"{field.name} is compared with a finite number")
    return number


def _bool(field: Field, literal: Any) -> int:
    from sqlglot import exp

    if not isinstance(literal, exp.Boolean):
        raise Unfit(f"{field.name} is compared with true or false")
    return int(bool(literal.this))


def _time(field: Field, literal: Any, now: datetime) -> int:
    from sqlglot import exp

    while isinstance(literal, exp.Paren):
        literal = literal.this
    if _is_now(literal):
        return to_micros(now)
    if isinstance(literal, exp.Sub | exp.Add) and _is_now(literal.left):
        span = _micros(field, _string(literal.right))
        return to_micros(now) + (span if isinstance(literal, exp.Add) else -span)
    try:
        instant = datetime.fromisoformat(_string(literal) or "")
    except ValueError as error:
        raise Unfit(
            f"{field.name} is compared with an instant such as '2026-11-24T09:30:00Z' or now() - '1h'"
        ) from error
    if instant.utcoffset() is None:
        raise Unfit(f"{field.name}: '{instant.isoformat()}' names no instant without an offset")
    try:
        return to_micros(instant.astimezone(UTC))
    except OverflowError as error:
        raise Unfit(f"{field.name}: outside the years 1 to 9999 in UTC") from error


def _is_now(literal: Any) -> bool:
    from sqlglot import exp

    if isinstance(literal, exp.Anonymous):
        return str(literal.this).casefold() == "now" and not literal.expressions
    return isinstance(literal, exp.CurrentTimestamp) and not literal.this


def _span(field: Field, literal: Any) -> int:
    digits = _digits(literal)
    if digits is None:
        return _micros(field, _string(literal))
    try:
        micros = Decimal(digits) * _UNITS["s"]
    except ArithmeticError as error:
        raise Unfit(f"{field.name} is compared with a duration, or a number of seconds") from error
    return _bounded(field, micros)


def _micros(field: Field, text: str | None) -> int:
    if text is None or not _DURATION.fullmatch(text):
        raise Unfit(f"{field.name}: a duration is written like '90s', '1h30m' or '2d'")
    parts = (Decimal(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    return _bounded(field, sum(parts, Decimal(0)))


def _bounded(field: Field, micros: Decimal) -> int:
    if not -_LONGEST < micros < _LONGEST:
        raise Unfit(f"{field.name}: the duration is too long")
    return round(micros)

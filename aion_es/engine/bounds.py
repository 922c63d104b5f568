"""Which numbers and durations an option may be: what makes no sense is refused where it is written."""

from datetime import timedelta
from typing import Final

from aion_es.errors import InvalidArgumentError

LONGEST: Final = timedelta(days=36_525)
"""A hundred years. Clocks, threads and sums of instants can deal with it, and nobody waits longer."""


def require_count(argument: str, value: object, *, least: int) -> None:
    """Check that an option is a whole number, `least` or more.

    Raises:
        InvalidArgumentError: It is not; says which option.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InvalidArgumentError(
            argument, f"must be a whole number, {least} or more, got {value!r}"
        )


def require_span(argument: str, value: object, *, may_be_zero: bool = False) -> None:
    """Check that an option is a duration that can be waited for: positive, or zero, and at most `LONGEST`.

    Raises:
        InvalidArgumentError: It is not; says which option.
    """
    if not isinstance(value, timedelta):
        raise InvalidArgumentError(argument, f"must be a timedelta, got {value!r}")
    if value < timedelta(0) or (not value and not may_be_zero):
        least = "zero or more" if may_be_zero else "more than zero"
        raise InvalidArgumentError(argument, f"must be {least}, got {value}")
    if value > LONGEST:
        raise InvalidArgumentError(argument, f"must be {LONGEST.days:,} days or less, got {value}")

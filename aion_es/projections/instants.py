"""Instants as the read model stores them: whole microseconds since 1970, UTC; exact and ordered everywhere."""

from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def to_micros(instant: datetime) -> int:
    """Return the microseconds from 1970 to the aware `instant`."""
    return (instant - _EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    """Return the instant in UTC that `to_micros` wrote."""
    return _EPOCH + timedelta(microseconds=micros)

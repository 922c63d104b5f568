"""How large a value may be, checked where it is made, so that the mistake is told to who made it."""

from typing import Final

from pydantic_core import to_json

from aion_es.errors import PayloadTooLargeError
from aion_es.payload import Payload
from aion_es.store.port import StoreLimits

_ENVELOPE_ALLOWANCE: Final = 16_384
"""Bytes left for everything in an event that is not the value: its other fields and its metadata."""

_SCALARS: Final = (int, float, bool, type(None))


def max_payload_bytes(limits: StoreLimits) -> int:
    """Return how large a value may be so that the event around it is accepted by the store."""
    return limits.max_event_bytes - _ENVELOPE_ALLOWANCE


def require_size(payload: Payload, limit: int, what: str) -> None:
    """Check that a value is not larger than `limit` bytes of JSON.

    Raises:
        PayloadTooLargeError: It is; nothing was recorded.
    """
    data = payload.data
    if isinstance(data, _SCALARS) or (isinstance(data, str) and len(data) * 6 < limit):
        return  # six bytes a character is the most that JSON can need
    size = len(to_json(data))
    if size > limit:
        raise PayloadTooLargeError(size, limit, what)

"""Page tokens: where a page ended, bound to what was asked, opaque to who carries them."""

import base64
import binascii
import hashlib
import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pydantic_core import from_json, to_json

from aion_es.errors import InvalidPageTokenError
from aion_es.projections.instants import from_micros, to_micros
from aion_es.visibility.fields import Kind
from aion_es.visibility.filter import Filter
from aion_es.visibility.pages import is_nullable
from aion_es.visibility.walks import Place

_CHECKED: Final = 6
"""Bytes of the token's own digest: enough to notice damage; nothing depends on its being secret."""
_VALUES: Final[dict[Kind, type]] = {"text": str, "status": str, "float": float}
"""What a kind's values are in the database; the others are integers."""


@dataclass(frozen=True, slots=True)
class Started:
    """A token that was read, up to its being compared with what is asked.

    Attributes:
        now: What `now()` was for the first page, and is for all.
    """

    token: str
    mark: str
    now: datetime
    place: Place

    def place_in(self, asked: Filter) -> Place:
        """Return where the page before ended.

        Raises:
            InvalidPageTokenError: It was another filter's page, or in another order.
        """
        if self.mark != _mark(asked):
            raise InvalidPageTokenError(self.token, "it belongs to another filter or order")
        if not _fits(self.place[0], asked):
            raise InvalidPageTokenError(self.token, "it is damaged")
        return self.place


def write_token(asked: Filter, now: datetime, place: Place) -> str:
    """Return the token of the page behind `place`."""
    body = to_json([_mark(asked), to_micros(now), *place])
    return base64.urlsafe_b64encode(_digest(body) + body).decode()


def read_token(token: str) -> Started:
    """Return what `write_token` wrote.

    Raises:
        InvalidPageTokenError: It did not write this.
    """
    try:
        raw = base64.b64decode(token, altchars=b"-_", validate=True)
        fields: Any = from_json(raw[_CHECKED:], allow_inf_nan=False)
        mark, micros, value, run_id = fields
        now = from_micros(micros)
    except (binascii.Error, ValueError, TypeError, OverflowError) as error:
        raise InvalidPageTokenError(token, "it is damaged") from error
    whole = _digest(raw[_CHECKED:]) == raw[:_CHECKED]
    if not whole or not isinstance(mark, str) or not isinstance(run_id, str) or "\0" in run_id:
        raise InvalidPageTokenError(token, "it is damaged")
    return Started(token, mark, now, (value, run_id))


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()[:_CHECKED]


def _mark(asked: Filter) -> str:
    """Return what tells this filter and order from others, whichever way they were written."""
    return hashlib.sha256(repr(asked).encode()).hexdigest()[:16]


def _fits(value: object, asked: Filter) -> bool:
    """Whether a value can be one of the field that orders, so that the database can compare it."""
    if value is None:
        return is_nullable(asked.order)
    kind = _VALUES.get(asked.order.field.kind, int)
    if kind is float:
        return isinstance(value, int | float) and math.isfinite(value)
    if kind is str:
        return isinstance(value, str) and "\0" not in value
    return isinstance(value, int) and -(2**63) <= value < 2**63

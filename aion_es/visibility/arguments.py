"""The arguments of queries: refused by their names where they are of a type that no checker was asked about."""

from datetime import timedelta
from typing import Any, Final, TypeAlias

from aion_es.errors import InvalidArgumentError
from aion_es.events.conditions import Comparable, Condition
from aion_es.ids import is_storable
from aion_es.store.port import Position

Asked: TypeAlias = str | Condition
"""A filter: its text, or what the builder makes."""
Ordered: TypeAlias = str | Comparable[Any]
"""An order: its text, or a field or a key, smallest first."""

MAX_PAGE: Final = 10_000


def filter_text(filter: object) -> str:
    """Return the text of a filter.

    Raises:
        InvalidArgumentError: It is neither a text nor a condition, such as the False that comparing a key
            with what no filter can hold gives.
    """
    if isinstance(filter, str | Condition):
        return str(filter)
    raise InvalidArgumentError("filter", f"is a text or a condition, not {filter!r}")


def order_text(order_by: object) -> str:
    """Return the text of an order.

    Raises:
        InvalidArgumentError: It is neither a text, nor a field or a key.
    """
    if isinstance(order_by, Comparable):
        return order_by.asc()
    if isinstance(order_by, str):
        return order_by
    raise InvalidArgumentError("order_by", f"is a text, a field or a key, not {order_by!r}")


def check_page_size(size: object) -> None:
    """Check how many rows a page is to have.

    Raises:
        InvalidArgumentError: It is not 1–10,000.
    """
    if not isinstance(size, int) or not 1 <= size <= MAX_PAGE:
        raise InvalidArgumentError("page_size", f"must be 1–{MAX_PAGE:,}, got {size!r}")


def check_span(argument: str, span: object) -> None:
    """Check a length of time.

    Raises:
        InvalidArgumentError: It is no timedelta.
    """
    if not isinstance(span, timedelta):
        raise InvalidArgumentError(argument, f"must be a timedelta, got {span!r}")


def check_position(argument: str, position: object) -> None:
    """Check a position of the store, or none.

    Raises:
        InvalidArgumentError: It is neither.
    """
    if not isinstance(position, Position | None):
        raise InvalidArgumentError(argument, f"must be a position, got {position!r}")


def can_be_id(argument: str, text: object) -> bool:
    """Return whether a database can hold the text as an id.

    Raises:
        InvalidArgumentError: It is no text.
    """
    if not isinstance(text, str):
        raise InvalidArgumentError(argument, f"must be a text, got {text!r}")
    return is_storable(text)

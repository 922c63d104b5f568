"""What every store takes as an argument, checked before it does anything, and by every store alike.

The bounds are those of EventStoreDB's protocol, so that what one store takes, every store takes.
"""

from datetime import timedelta
from functools import lru_cache
from typing import Final, TypeGuard

from aion_es.errors import InvalidArgumentError
from aion_es.ids import is_storable
from aion_es.store.port import (
    START,
    ConsumerGroupChanges,
    ConsumerGroupSettings,
    ConsumerStrategy,
    Expected,
    Position,
    StreamMetadata,
)

MAX_REVISION: Final = 2**63 - 1
"""No revision and no position is higher."""
MAX_AGE: Final = timedelta(days=10_675_199)
"""The longest duration that a server can count, in ticks of 100 ns."""
MAX_TIMEOUT: Final = timedelta(milliseconds=2**31 - 1)
MAX_RETRIES: Final = 2**31 - 1
MAX_BUFFER: Final = 2**30 - 1
"""A server's own buffers are given twice this size."""

_MILLISECOND: Final = timedelta(milliseconds=1)


def check_expected(expected: object) -> None:
    """Return if an append or a deletion can expect this; whether it holds is another question.

    Raises:
        InvalidArgumentError: It is no revision and none of `NO_STREAM`, `EXISTS`, `ANY`.
    """
    if not isinstance(expected, Expected) and not _is_whole(expected):
        raise InvalidArgumentError(
            "expected", f"must be a revision (an int), NO_STREAM, EXISTS or ANY, not {expected!r}"
        )


def check_revision(from_revision: object) -> None:
    """Return if a read can begin there; any number will do.

    Raises:
        InvalidArgumentError: It is no number.
    """
    if from_revision is not None and not _is_whole(from_revision):
        raise InvalidArgumentError("from_revision", f"must be an int, not {from_revision!r}")


def check_limit(limit: object) -> None:
    """Return if a read can be limited to so many; none are read with 0 or less.

    Raises:
        InvalidArgumentError: It is no number.
    """
    if limit is not None and not _is_whole(limit):
        raise InvalidArgumentError("limit", f"must be an int, not {limit!r}")


def check_position(from_position: object) -> None:
    """Return if it is `START`, or may be a store's position.

    Raises:
        InvalidArgumentError: It is no position of any store.
    """
    if from_position == START:
        return
    if not isinstance(from_position, Position):
        raise InvalidArgumentError("from_position", f"must be a Position, not {from_position!r}")
    if not all(_is_whole(number) and 0 <= number <= MAX_REVISION for number in from_position):
        raise InvalidArgumentError("from_position", f"no store has the position {from_position}")


def check_name(what: str, name: str) -> None:
    """Return if a stream, a type or a group can be called so.

    Args:
        what: Which argument it is.
        name: The name.

    Raises:
        InvalidArgumentError: It is empty, or cannot be stored as text.
    """
    if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance] - it comes from users
        raise InvalidArgumentError(what, f"must be a str, not {name!r}")
    if name.isascii() and name.isprintable() and name:
        return
    if not name:
        raise InvalidArgumentError(what, "must not be empty")
    if not is_storable(name):
        raise InvalidArgumentError(what, "must not contain NUL or half of a surrogate pair")


@lru_cache(maxsize=512)  # types are few, and every event has one
def check_type(name: str) -> None:
    """Return if an event's type can be called so.

    Raises:
        InvalidArgumentError: It is empty, or cannot be stored as text.
    """
    check_name("type", name)


def check_prefix(prefix: str) -> None:
    """Return if the name of a stream can begin so; the empty prefix is that of all.

    Raises:
        InvalidArgumentError: It cannot: it has a NUL or half of a surrogate pair.
    """
    if prefix != "":
        check_name("prefix", prefix)


def check_metadata(metadata: StreamMetadata) -> None:
    """Return if a stream can have these limits.

    Raises:
        InvalidArgumentError: One is negative, out of bounds, or of another type, or `max_count` or
            `max_age` is not positive.
    """
    if metadata.max_count is not None:
        _check_whole("max_count", metadata.max_count, 1, MAX_REVISION)
    if metadata.max_age is not None:
        _check_duration("max_age", metadata.max_age, timedelta.resolution, MAX_AGE)
    if metadata.truncate_before is not None:
        # The highest revision stands for a deleted stream on a server.
        _check_whole("truncate_before", metadata.truncate_before, 0, MAX_REVISION - 1)


def check_group(name: str, settings: ConsumerGroupSettings) -> None:
    """Return if there can be a consumer group of this name, with these settings.

    Raises:
        InvalidArgumentError: There cannot; says which of them makes no sense.
    """
    check_name("name", name)
    check_prefix(settings.prefix)
    check_position(settings.from_position)
    if not isinstance(settings.strategy, ConsumerStrategy):  # pyright: ignore[reportUnnecessaryIsInstance] - it comes from users
        raise InvalidArgumentError(
            "strategy", f"must be a ConsumerStrategy, not {settings.strategy!r}"
        )
    _check_duration("message_timeout", settings.message_timeout, _MILLISECOND, MAX_TIMEOUT)
    _check_whole("max_retries", settings.max_retries, 0, MAX_RETRIES)
    _check_whole("buffer_size", settings.buffer_size, 1, MAX_BUFFER)


def check_changes(name: str, changes: ConsumerGroupChanges) -> None:
    """Return if a consumer group can be changed so.

    Raises:
        InvalidArgumentError: It cannot; says which setting makes no sense.
    """
    check_group(name, changes.applied_to(ConsumerGroupSettings()))


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_whole(argument: str, value: object, least: int, most: int) -> None:
    if not _is_whole(value):
        raise InvalidArgumentError(argument, f"must be an int, not {value!r}")
    if not least <= value <= most:
        raise InvalidArgumentError(argument, f"must be from {least} to {most}, not {value}")


def _check_duration(argument: str, value: object, least: timedelta, most: timedelta) -> None:
    if not isinstance(value, timedelta):
        raise InvalidArgumentError(argument, f"must be a timedelta, not {value!r}")
    if not least <= value <= most:
        raise InvalidArgumentError(argument, f"must be from {least} to {most}, not {value}")

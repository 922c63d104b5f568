"""The options of activities and children: checked where they are given, so that nothing unfit is ever commanded.

Type checkers refuse most of what is refused here. What they do not see (a dict from a file, code without
annotations) must not reach the engine: there it would be an error that nobody has made.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final

from aion_es.errors import DefinitionError, InvalidIdError
from aion_es.events.values import RetryPolicy
from aion_es.ids import check_id, is_storable

LONGEST: Final = timedelta(days=365_000)
"""Bound on every duration, a thousand years: what is added to an instant must stay on the calendar."""
LONGEST_SUMMARY: Final = 200
"""Characters of a summary: it is a line of a list."""

_BOUNDS: Final = ("start_to_close", "schedule_to_close", "schedule_to_start", "heartbeat")


def check_activity_options(
    where: str, options: Mapping[str, object], known: Sequence[str], cancellations: Sequence[str]
) -> None:
    """Check what is to be set for an activity; `None` takes a bound away.

    Args:
        where: What they are given to, for the message ("activity 'charge'").
        options: As they were given.
        known: The names that there are.
        cancellations: The values that `cancellation` may have.

    Raises:
        DefinitionError: A name is not known, or a value is none that this option may have.
    """
    _require_known(where, options, known)
    for name in _BOUNDS:
        _require_duration(where, name, options.get(name))
    if "retry" in options:
        _require_policy(where, options["retry"])
    if "task_queue" in options:
        check_task_queue(where, options["task_queue"])
    if "cancellation" in options:
        _require_choice(where, "cancellation", options["cancellation"], cancellations)
    if "summary" in options:
        _require_line(where, "summary", options["summary"])


def check_child_options(
    where: str,
    options: Mapping[str, object],
    known: Sequence[str],
    cancellations: Sequence[str],
    parent_closes: Sequence[str],
) -> None:
    """Check what is to be set for a child, all but its id and its attributes.

    Args:
        where: What they are given to, for the message ("child workflow 'ship'").
        options: As they were given.
        known: The names that there are.
        cancellations: The values that `cancellation` may have.
        parent_closes: The values that `parent_close` may have.

    Raises:
        DefinitionError: A name is not known, or a value is none that this option may have.
    """
    _require_known(where, options, known)
    if "parent_close" in options:
        _require_choice(where, "parent_close", options["parent_close"], parent_closes)
    if "cancellation" in options:
        _require_choice(where, "cancellation", options["cancellation"], cancellations)
    if "task_queue" in options:
        check_task_queue(where, options["task_queue"])
    if "attributes" in options and not isinstance(options["attributes"], Mapping):
        raise DefinitionError(
            where, f"attributes must be a dict, got {type(options['attributes']).__name__}"
        )


def check_task_queue(where: str, value: object) -> None:
    """Check the name of a task queue.

    Raises:
        DefinitionError: It is not 1–255 printable characters.
    """
    try:
        check_id("task_queue", value)
    except InvalidIdError as error:
        raise DefinitionError(where, str(error)) from error


def _require_known(where: str, options: Mapping[str, object], known: Sequence[str]) -> None:
    for name in options:
        if name not in known:
            raise DefinitionError(
                where, f"there is no option {name!r}; the options are {', '.join(known)}"
            )


def _require_choice(where: str, name: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        allowed = ", ".join(map(repr, choices))
        raise DefinitionError(where, f"{name} must be one of {allowed}, got {value!r}")


def _require_duration(where: str, name: str, bound: object) -> None:
    if bound is None:
        return
    if not isinstance(bound, timedelta):
        raise DefinitionError(
            where,
            f"{name} must be a timedelta, got {type(bound).__name__}; use timedelta(seconds=…)",
        )
    if bound <= timedelta(0):
        raise DefinitionError(where, f"{name} must be positive, got {bound}")
    _require_short(where, name, bound)


def _require_line(where: str, name: str, line: object) -> None:
    if not isinstance(line, str):
        raise DefinitionError(where, f"{name} must be a str, got {type(line).__name__}")
    if len(line) > LONGEST_SUMMARY or not is_storable(line) or len(line.splitlines()) > 1:
        shown = f"{line!r:.60}"
        raise DefinitionError(
            where, f"{name} must be one line of at most {LONGEST_SUMMARY} characters, got {shown}"
        )


def _require_policy(where: str, policy: object) -> None:
    if not isinstance(policy, RetryPolicy):
        raise DefinitionError(
            where,
            f"retry must be a RetryPolicy, got {type(policy).__name__}; use RetryPolicy(max_attempts=…)",
        )
    _require_short(where, "retry: max_interval", policy.max_interval)


def _require_short(where: str, name: str, duration: timedelta) -> None:
    if duration > LONGEST:
        raise DefinitionError(where, f"{name} must be at most {LONGEST.days} days, got {duration}")

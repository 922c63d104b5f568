"""Exceptions as events record them, and back; and what stands for one that a question met."""

import traceback
from typing import Any, Final

from aion_es.errors import (
    ActivityError,
    ApplicationError,
    NonRetryableError,
    PayloadError,
    PayloadTooLargeError,
    QueryFailedError,
    VersionNotLoadedError,
)
from aion_es.errors.base import shown_version
from aion_es.events.values import ActivityFailure, Failure, RetryPolicy
from aion_es.events.workflow import ActivityFailed
from aion_es.payload import Payload

_MESSAGE_LIMIT: Final = 4_096
_TRACEBACK_LIMIT: Final = 8_192
"""Characters kept of a text: an exception must never be the reason why its own event does not fit."""


def failure_of(error: BaseException, depth: int = 0) -> Failure:
    """Return what is recorded of an exception that escaped workflow code; causes down to the fourth."""
    cause = error.__cause__
    inner: Failure | None = None
    if isinstance(error, ActivityError):
        inner = Failure(type=error.type, message=_text(error.message), details=error.details)
    elif cause is not None and depth < 4:
        inner = failure_of(cause, depth + 1)
    return Failure(
        type=type(error).__name__,
        message=_message(error),
        details=_details(error),
        cause=inner,
        traceback=_text("".join(traceback.format_exception(error))[-_TRACEBACK_LIMIT:])
        if depth == 0
        else None,
    )


def activity_failure_of(error: BaseException, policy: RetryPolicy) -> ActivityFailure:
    """Return what is recorded of an attempt that raised; an error class counts with its bases."""
    names = {cls.__name__ for cls in type(error).__mro__}
    final = isinstance(
        error, NonRetryableError | PayloadError | PayloadTooLargeError
    ) or not names.isdisjoint(policy.non_retryable)
    return ActivityFailure(
        kind="terminal" if final else "retryable",
        type=type(error).__name__,
        message=_message(error),
        details=_details(error),
    )


def activity_error_of(activity_type: str, event: ActivityFailed) -> ActivityError:
    """Return what workflow code sees of an activity that failed for good."""
    error = event.error
    return ActivityError(activity_type, error.type, error.message, error.details, event.attempt)


def _message(error: BaseException) -> str:
    try:
        return _text(str(error))
    except Exception:  # noqa: BLE001 - a broken __str__ of the user's must not hide the failure
        return f"<{type(error).__name__} whose text cannot be made>"


def _text(text: str) -> str:
    return (
        text[:_MESSAGE_LIMIT].encode("utf-8", "backslashreplace").decode()
        if len(text) <= _MESSAGE_LIMIT
        else (text[: _MESSAGE_LIMIT - 1].encode("utf-8", "backslashreplace").decode() + "…")
    )


def _details(error: BaseException) -> Any:
    details = error.details if isinstance(error, ApplicationError | ActivityError) else None
    if details is None:
        return None
    try:
        return Payload.of(details, what=f"details of {type(error).__name__}").data
    except PayloadError:
        return _text(repr(details))


def led_to(cause: BaseException, error: BaseException) -> bool:
    """Return whether `error` is `cause`, was raised from it or while it was handled, or is a group that holds it."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        present = waiting.pop()
        if present is None or id(present) in seen:
            continue
        if present is cause:
            return True
        seen.add(id(present))
        waiting += (present.__cause__, present.__context__)
        members: tuple[BaseException, ...] = getattr(present, "exceptions", ())
        if isinstance(present, BaseExceptionGroup):
            waiting += members
    return False


def told_of(error: BaseException, *, is_stuck: bool) -> Exception:
    """Return what to tell who asks a run and meets `error`.

    That the code is not here fails the query, whose name the client adds, and so does what is no `Exception`:
    raised where who asks waits, it would end more than the question. All else is told as it is.
    """
    if not isinstance(error, Exception):
        return QueryFailedError("", f"{type(error).__name__}: {error}")
    if not isinstance(error, VersionNotLoadedError):
        return error
    stuck = "the run is stuck: " if is_stuck else ""
    told = QueryFailedError("", stuck + reason_without_code(error))
    told.__cause__ = error
    return told


def reason_without_code(error: VersionNotLoadedError) -> str:
    """Return why a run answers nothing here, and what to do."""
    version = shown_version(error.version)
    return f"its code is version {version!r} of {error.workflow_type!r}, {error.remedy}"

"""What a call is refused with: the status, details and trailers by which clients tell errors apart.

Texts and trailers are the real server's, letter for letter: clients look for them.
"""

from collections.abc import Mapping
from typing import Final

MAX_APPEND_SIZE: Final = 1_048_576
"""Bytes of one append, as servers through 25.0 limit it by default."""


class Refused(Exception):  # noqa: N818 - it carries a status, it is not an error of ours
    """Ends a call with a gRPC status.

    Args:
        code: Name of the status code.
        details: What clients show, and some parse.
        trailers: Trailing metadata.
    """

    def __init__(self, code: str, details: str, trailers: Mapping[str, str] | None = None) -> None:
        super().__init__(code, details)
        self.code = code
        self.details = details
        self.trailers = dict(trailers or {})


class WrongExpectedVersion(Refused):
    """The stream is not where the writer believed; -1 stands for no stream, below it for conditions."""

    def __init__(self, operation: str, stream: str, expected: int, actual: int) -> None:
        super().__init__(
            "FAILED_PRECONDITION",
            f"{operation} failed due to WrongExpectedVersion. Stream: {stream}, "
            f"Expected version: {expected}, Actual version: {actual}",
            {
                "exception": "wrong-expected-version",
                "stream-name": stream,
                "expected-version": str(expected),
                "actual-version": str(actual),
            },
        )
        self.actual = actual


class StreamDeleted(Refused):
    """The stream was tombstoned; or deleted, and the writer expected that it exists."""

    def __init__(self, stream: str) -> None:
        super().__init__(
            "FAILED_PRECONDITION",
            f"Event stream '{stream}' is deleted.",
            {"exception": "stream-deleted", "stream-name": stream},
        )


class AccessDenied(Refused):
    """The user may not do this."""

    def __init__(self) -> None:
        super().__init__("PERMISSION_DENIED", "Access Denied", {"exception": "access-denied"})


class MaximumAppendSizeExceeded(Refused):
    """The append is too large."""

    def __init__(self) -> None:
        super().__init__(
            "INVALID_ARGUMENT",
            f"Maximum Append Size of {MAX_APPEND_SIZE} Exceeded.",
            {
                "exception": "maximum-append-size-exceeded",
                "maximum-append-size": str(MAX_APPEND_SIZE),
            },
        )


def bad_request(reason: str) -> Refused:
    """Return the refusal of a request that makes no sense."""
    return Refused("INVALID_ARGUMENT", reason)


def missing_property(name: str) -> Refused:
    """Return the refusal of an event without a type or content type."""
    return Refused(
        "INVALID_ARGUMENT",
        f"Required Metadata Property '{name}' is missing",
        {
            "exception": "missing-required-metadata-property",
            "required-metadata-properties": "type,content-type",
        },
    )


def unauthenticated() -> Refused:
    """Return the refusal of a wrong user name or password."""
    return Refused("UNAUTHENTICATED", "Bad gRPC response. HTTP status code: 401")


def not_leader(host: str, port: int) -> Refused:
    """Return the refusal by a node that is not the leader, naming the one that is."""
    return Refused(
        "NOT_FOUND",
        "Leader info available",
        {
            "exception": "not-leader",
            "leader-endpoint-host": host,
            "leader-endpoint-port": str(port),
        },
    )


def consumer_too_slow() -> Refused:
    """Return how servers through 23.10 end a live subscription whose consumer cannot keep up."""
    return Refused(
        "ABORTED",
        "Operation timed out: Consumer too slow to handle event while live. "
        "Client resubscription required.",
    )


def group_not_found(stream: str, group: str) -> Refused:
    """Return the refusal of a persistent subscription that does not exist."""
    return _of_group(
        "NOT_FOUND",
        f"Subscription group {group} on stream {stream} does not exist.",
        "persistent-subscription-does-not-exist",
        stream,
        group,
    )


def group_exists(stream: str, group: str) -> Refused:
    """Return the refusal to create a persistent subscription twice."""
    return _of_group(
        "ALREADY_EXISTS",
        f"Subscription group {group} on stream {stream} exists.",
        "persistent-subscription-exists",
        stream,
        group,
    )


def group_full(stream: str, group: str) -> Refused:
    """Return the refusal of one consumer too many."""
    return _of_group(
        "FAILED_PRECONDITION",
        f"Maximum subscriptions reached for subscription group {group} on stream {stream}.",
        "maximum-subscribers-reached",
        stream,
        group,
    )


def group_failed(stream: str, group: str, reason: str) -> Refused:
    """Return the refusal of settings that a persistent subscription cannot have."""
    refused = _of_group(
        "INTERNAL",
        f"Subscription group {group} on stream {stream} failed: '{reason}'",
        "persistent-subscription-failed",
        stream,
        group,
    )
    refused.trailers["reason"] = reason
    return refused


def group_dropped(stream: str, group: str) -> Refused:
    """Return the end of a consumer whose persistent subscription was updated, or that was stopped."""
    return _of_group(
        "CANCELLED",
        f"Subscription group {group} on stream {stream} was dropped.",
        "persistent-subscription-dropped",
        stream,
        group,
    )


def _of_group(code: str, details: str, exception: str, stream: str, group: str) -> Refused:
    trailers = {"exception": exception, "stream-name": stream, "group-name": group}
    return Refused(code, details, trailers)

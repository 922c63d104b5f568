"""What goes wrong on the way to EventStoreDB, told apart by status code and trailer, never by text."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from aion_es.errors import (
    AccessDeniedError,
    AionError,
    AppendTooLargeError,
    ConsumerGroupExistsError,
    ConsumerGroupNotFoundError,
    InternalError,
    InvalidArgumentError,
    StoreUnavailableError,
    StreamDeletedError,
    UnsupportedStoreVersionError,
)

LOST: Final = "LOST"
"""Our own code: the call was ended on this side, as happens to all calls of a connection that is replaced."""

SILENT: Final = "SILENT"
"""Our own code: nothing came for longer than the server may take; the connection may be dead on one side."""

_AGAIN: Final = frozenset(
    {
        LOST,
        SILENT,
        "UNAVAILABLE",
        "DEADLINE_EXCEEDED",
        "ABORTED",
        "UNKNOWN",
        "INTERNAL",
        "CANCELLED",
        "RESOURCE_EXHAUSTED",
    }
)
_NOT_LEADER: Final = "not-leader"
_FINAL: Final = frozenset(
    {
        "access-denied",
        "stream-deleted",
        "wrong-expected-version",
        "maximum-append-size-exceeded",
        "persistent-subscription-exists",
        "persistent-subscription-does-not-exist",
    }
)
"""Values of the trailer `exception` that say more than the code, which may be UNKNOWN beside them."""


class CallFailedError(Exception):
    """A call to the server failed; never leaves the adapter.

    Attributes:
        code: Name of the gRPC status, or `LOST`.
        kind: The server's trailer `exception`; empty without one.
        details: The server's words, for people.
        trailers: All trailers.
    """

    def __init__(self, code: str, details: str, trailers: Mapping[str, str] | None = None) -> None:
        super().__init__(code, details, trailers)
        self.code, self.details, self.trailers = code, details, trailers or {}
        self.kind = self.trailers.get("exception", "")

    def __str__(self) -> str:
        return f"{self.kind or self.code}: {self.details}"

    @property
    def again(self) -> bool:
        """Whether the same call may succeed later, or elsewhere."""
        return self.kind == _NOT_LEADER or (self.code in _AGAIN and self.kind not in _FINAL)

    @property
    def leader(self) -> str | None:
        """Where the leader is, if the node that refused the call said so."""
        host = self.trailers.get("leader-endpoint-host")
        port = self.trailers.get("leader-endpoint-port")
        return f"{host}:{port}" if self.kind == _NOT_LEADER and host and port else None

    def told(self, where: str, *, stream: str = "", outcome_unknown: bool = False) -> AionError:
        """Return what the failure means to the store's user.

        Args:
            where: The server and what was asked of it.
            stream: Which stream it was about.
            outcome_unknown: An append may have happened all the same.
        """
        if self.kind == "access-denied" or self.code in {"UNAUTHENTICATED", "PERMISSION_DENIED"}:
            return access_denied(where)
        if self.kind in _FINAL:
            return self._told_kind(stream, where)
        said = f"{where}: {self.details or self.code}"
        if self.again:
            return StoreUnavailableError(said, outcome_unknown)
        if self.code == "UNIMPLEMENTED":
            return UnsupportedStoreVersionError(
                where, "none that knows this call", "EventStoreDB 22.10 or later, or KurrentDB"
            )
        if self.code == "INVALID_ARGUMENT":
            return InvalidArgumentError(where, self.details)
        return InternalError(f"{said} ({self})")

    def _told_kind(self, subject: str, where: str) -> AionError:
        match self.kind:
            case "stream-deleted":
                return StreamDeletedError(subject)
            case "maximum-append-size-exceeded":
                limit = int(self.trailers.get("maximum-append-size", "0"))
                return AppendTooLargeError(limit + 1, limit)
            case "persistent-subscription-exists":
                return ConsumerGroupExistsError(subject)
            case "persistent-subscription-does-not-exist":
                return ConsumerGroupNotFoundError(subject)
            case _:
                return InternalError(f"{where}: {self}")


def access_denied(where: str) -> AccessDeniedError:
    """Return the error of a call that the server does not let this user make."""
    return AccessDeniedError(
        f"{where}; check user and password, or certificate, and what they permit"
    )


def call_failure(error: BaseException) -> CallFailedError | None:
    """Return what `error`, raised while a call was awaited, says; `None` if it is none of the transport's.

    gRPC reports a call that was ended on this side (the connection was replaced or closed) as a
    `CancelledError`, like a cancellation of the caller's task. Only the latter is one.
    """
    if isinstance(error, CallFailedError):
        return error
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            return None
        return CallFailedError(LOST, "the connection was closed")
    code: Any = getattr(error, "code", None)
    if callable(code):  # grpc.aio.AioRpcError
        details: Any = getattr(error, "details", None)
        trailing: Any = getattr(error, "trailing_metadata", None)
        return CallFailedError(
            str(getattr(code(), "name", code())),
            str(details() or "") if callable(details) else "",
            _trailers(trailing() if callable(trailing) else None),
        )
    # UsageError: the channel was closed before the call; InvalidStateError: the call ended meanwhile.
    if type(error).__name__ in {"UsageError", "InvalidStateError"}:
        return CallFailedError(LOST, "the connection was closed")
    return None


def _trailers(metadata: Any) -> dict[str, str]:
    return {
        key: value.decode(errors="replace") if isinstance(value, bytes) else str(value)
        for key, value in metadata or ()
    }

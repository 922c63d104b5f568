"""What every call goes through: who calls, planned faults, and errors turned into gRPC statuses."""

import logging
import string
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from urllib.parse import quote

from aion_es.errors import (
    AppendTooLargeError,
    InvalidArgumentError,
    StoreClosedError,
    StoreError,
    StoreUnavailableError,
)
from aion_es.testing.eventstoredb.access import Access, User
from aion_es.testing.eventstoredb.faults import Faults
from aion_es.testing.eventstoredb.refusals import MaximumAppendSizeExceeded, Refused, bad_request
from aion_es.testing.eventstoredb.stubs import Stubs

_log: Final = logging.getLogger(__name__)
_IN_TRAILERS: Final = "".join(c for c in string.printable if c.isprintable() and c != "%")


@dataclass(frozen=True, slots=True)
class Call:
    """One call.

    Attributes:
        user: Who calls.
        headers: What came with it, names in lower case.
        peer: Where from, as gRPC writes it: `ipv4:127.0.0.1:50123`.
    """

    user: User
    headers: dict[str, str]
    peer: str

    @property
    def requires_leader(self) -> bool:
        """True if only the leader may answer."""
        return self.headers.get("requires-leader", "false").lower() == "true"


Unary: TypeAlias = Callable[[Any, Call], Awaitable[Any]]
"""Takes a request, or an iterator of requests, and returns the response."""
Send: TypeAlias = Callable[[Any], Awaitable[None]]
"""Sends a response."""
Streaming: TypeAlias = Callable[[Any, Call, Send], Awaitable[None]]
"""Takes the same, and sends any number of responses."""


class Calls:
    """Wraps handlers for gRPC."""

    def __init__(self, stubs: Stubs, access: Access, faults: Faults) -> None:
        self._grpc = stubs.grpc
        self._access = access
        self._faults = faults

    def unary(self, handler: Unary) -> Callable[[Any, Any], Awaitable[Any]]:
        """Return what gRPC calls for a method with one response."""

        async def called(request: Any, context: Any) -> Any:
            request = _watched(request)
            try:
                return await handler(request, self._call(context))
            except Exception as error:  # noqa: BLE001 - every one becomes a status
                await self._abort(context, error, request)

        return called

    def streaming(self, handler: Streaming) -> Callable[[Any, Any], Awaitable[None]]:
        """Return what gRPC calls for a method with many responses; tests can drop it."""

        async def called(request: Any, context: Any) -> None:
            request = _watched(request)
            try:
                with self._faults.droppable():
                    await handler(request, self._call(context), context.write)
            except Exception as error:  # noqa: BLE001 - every one becomes a status
                await self._abort(context, error, request)

        return called

    def _call(self, context: Any) -> Call:
        headers = {key.lower(): _text(value) for key, value in context.invocation_metadata() or ()}
        certified = [_text(name) for name in context.auth_context().get("x509_common_name", ())]
        user = self._access.user(headers, certified[0] if certified else None)
        return Call(user, headers, context.peer())

    async def _abort(self, context: Any, error: Exception, request: Any) -> None:
        refused = refusal_for(error)
        if isinstance(request, _Requests) and not request.begun:
            # A client that is still sending would learn of the end before it learns of the reason.
            await anext(request, None)
        await context.abort(
            self._grpc.StatusCode[refused.code],
            refused.details,
            tuple((key, _in_ascii(value)) for key, value in refused.trailers.items()),
        )


class _Requests:
    """The requests of a call, and whether the first was read."""

    def __init__(self, requests: AsyncIterator[Any]) -> None:
        self._requests = aiter(requests)
        self.begun = False

    def __aiter__(self) -> "_Requests":
        return self

    async def __anext__(self) -> Any:
        self.begun = True
        return await anext(self._requests)


def _watched(request: Any) -> Any:
    return _Requests(request) if hasattr(request, "__aiter__") else request


def refusal_for(error: Exception) -> Refused:
    """Return the status that tells a client of `error`."""
    match error:
        case ExceptionGroup():
            return refusal_for(error.exceptions[0])
        case Refused():
            return error
        case AppendTooLargeError():
            return MaximumAppendSizeExceeded()
        case InvalidArgumentError():
            return bad_request(str(error))
        case StoreClosedError() | StoreUnavailableError():
            return Refused("UNAVAILABLE", f"Server Is Not Ready: {error}")
        case StoreError():
            return Refused("UNKNOWN", str(error))
        case _:
            _log.exception("a call failed", exc_info=error)
            return Refused("UNKNOWN", "Exception was thrown by handler.")


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode(errors="replace")


def _in_ascii(trailer: str) -> str:
    """Return the text as a trailer can carry it: what is not printable ASCII as gRPC writes it in details."""
    if trailer.isascii() and trailer.isprintable():
        return trailer
    return quote(trailer, safe=_IN_TRAILERS)

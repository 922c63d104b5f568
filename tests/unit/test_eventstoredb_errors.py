"""What failures of calls to EventStoreDB mean: decided by status code and trailer."""

import asyncio

import pytest

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
from aion_es.store.eventstoredb.errors import CallFailedError, call_failure


class _Code:
    def __init__(self, name: str) -> None:
        self.name = name


class _RpcError(Exception):
    """Has what grpc.aio.AioRpcError has."""

    def __init__(
        self, code: str, details: str, trailers: tuple[tuple[str, str | bytes], ...]
    ) -> None:
        super().__init__(code)
        self._code, self._details, self._trailers = code, details, trailers

    def code(self) -> _Code:
        return _Code(self._code)

    def details(self) -> str:
        return self._details

    def trailing_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        return self._trailers


@pytest.mark.parametrize(
    ("code", "trailers", "meaning"),
    [
        ("UNAVAILABLE", {}, StoreUnavailableError),
        ("DEADLINE_EXCEEDED", {}, StoreUnavailableError),
        ("ABORTED", {}, StoreUnavailableError),
        ("INTERNAL", {}, StoreUnavailableError),
        ("UNKNOWN", {}, StoreUnavailableError),
        ("NOT_FOUND", {"exception": "not-leader"}, StoreUnavailableError),
        ("UNAUTHENTICATED", {}, AccessDeniedError),
        ("PERMISSION_DENIED", {}, AccessDeniedError),
        ("UNKNOWN", {"exception": "access-denied"}, AccessDeniedError),
        ("FAILED_PRECONDITION", {"exception": "stream-deleted"}, StreamDeletedError),
        (
            "INVALID_ARGUMENT",
            {"exception": "maximum-append-size-exceeded", "maximum-append-size": "1048576"},
            AppendTooLargeError,
        ),
        (
            "ALREADY_EXISTS",
            {"exception": "persistent-subscription-exists"},
            ConsumerGroupExistsError,
        ),
        (
            "NOT_FOUND",
            {"exception": "persistent-subscription-does-not-exist"},
            ConsumerGroupNotFoundError,
        ),
        ("UNIMPLEMENTED", {}, UnsupportedStoreVersionError),
        ("INVALID_ARGUMENT", {}, InvalidArgumentError),
        ("FAILED_PRECONDITION", {}, InternalError),
    ],
)
def test_a_failure_means(code: str, trailers: dict[str, str], meaning: type[AionError]) -> None:
    told = CallFailedError(code, "the server's words", trailers).told("esdb://host: reading")
    assert type(told) is meaning


def test_the_text_decides_nothing() -> None:
    failure = CallFailedError(
        "UNAVAILABLE", "Access Denied: stream is deleted, WrongExpectedVersion"
    )
    assert type(failure.told("reading")) is StoreUnavailableError
    assert failure.again


def test_what_is_refused_for_good_is_not_tried_again() -> None:
    final = [
        CallFailedError("UNAUTHENTICATED", ""),
        CallFailedError("UNKNOWN", "", {"exception": "access-denied"}),
        CallFailedError("FAILED_PRECONDITION", "", {"exception": "wrong-expected-version"}),
        CallFailedError("UNIMPLEMENTED", ""),
    ]
    assert [failure.again for failure in final] == [False] * 4


def test_an_unknown_outcome_is_told() -> None:
    told = CallFailedError("UNAVAILABLE", "gone").told("appending", outcome_unknown=True)
    assert isinstance(told, StoreUnavailableError)
    assert (told.reason, told.outcome_unknown) == ("appending: gone", True)


def test_a_node_that_is_not_the_leader_says_who_is() -> None:
    error = _RpcError(
        "NOT_FOUND",
        "Leader info available",
        (
            ("exception", "not-leader"),
            ("leader-endpoint-host", b"node-2"),
            ("leader-endpoint-port", "2113"),
        ),
    )
    failure = call_failure(error)
    assert failure is not None
    assert (failure.again, failure.leader) == (True, "node-2:2113")


def test_other_errors_are_none_of_the_transports() -> None:
    assert call_failure(ValueError("ours")) is None
    assert call_failure(StreamDeletedError("orders-1")) is None


async def test_a_call_that_was_ended_is_told_from_a_cancelled_task() -> None:
    lost = call_failure(asyncio.CancelledError())
    assert lost is not None
    assert lost.again

    async def wait() -> CallFailedError | None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            return call_failure(error)
        raise AssertionError("an event that nobody sets was set")

    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(wait())
        await asyncio.sleep(0)
        waiting.cancel()
    assert waiting.result() is None

"""Soft deletion: the call itself, and what a refusal of it says."""

from aion_es.errors import ConcurrencyConflictError, StreamDeletedError
from aion_es.ids import StreamName
from aion_es.store.eventstoredb.client import Connection
from aion_es.store.eventstoredb.errors import CallFailedError
from aion_es.store.eventstoredb.messages import Messages, has_form
from aion_es.store.eventstoredb.reader import Reader
from aion_es.store.port import ANY, EXISTS, NO_STREAM, ExpectedRevision


class Deletion:
    """Deletes streams."""

    def __init__(self, connection: Connection, messages: Messages, reader: Reader) -> None:
        self._connection = connection
        self._messages = messages
        self._reader = reader

    async def delete(self, stream: StreamName, expected: ExpectedRevision) -> None:
        """Delete the stream; see `EventStore.delete`."""
        if isinstance(expected, int) and not has_form(expected):
            raise ConcurrencyConflictError(stream, expected, await self._reader.head(stream))
        if expected in (ANY, NO_STREAM, -1) and await self._reader.head(stream) < 0:
            return  # the server would write metadata for a stream that may not even exist
        refused = await self._call(stream, expected)
        if refused is None:
            return
        head = await self._reader.head(stream)
        if head < 0 and refused.kind == "stream-deleted":
            if expected is EXISTS:
                raise StreamDeletedError(stream)
            return
        if head < 0 and expected is ANY:
            return  # somebody else was faster
        said = expected if isinstance(expected, int) else expected.value
        raise ConcurrencyConflictError(stream, said, head) from refused

    async def was_last(self, stream: StreamName, revision: int) -> bool:
        """Say whether a stream that reads as unknown is deleted, and `revision` was its last.

        Nothing but an operation that expects it tells: the stream is deleted once more, to no effect.
        """
        return await self._call(stream, revision) is None

    async def _call(self, stream: StreamName, expected: ExpectedRevision) -> CallFailedError | None:
        """Ask the server; return its refusal."""
        connection, request = self._connection, self._messages.delete(stream, expected)

        async def once() -> CallFailedError | None:
            try:
                await connection.answer(
                    lambda: connection.streams.Delete(
                        request, **connection.options(leader=True, timeout=connection.deadline)
                    )
                )
            except CallFailedError as failure:
                if failure.kind in {"wrong-expected-version", "stream-deleted"}:
                    return failure
                raise
            return None

        return await connection.persistently(once, f"deleting {stream!r}", stream=stream)

"""Reads: in pages, each a call of its own, tried again from where it stopped."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Final, TypeVar

from aion_es.errors import UnsupportedStoreVersionError
from aion_es.ids import StreamName
from aion_es.store.arguments import MAX_REVISION
from aion_es.store.eventstoredb.client import Connection
from aion_es.store.eventstoredb.errors import CallFailedError
from aion_es.store.eventstoredb.messages import Messages, recorded
from aion_es.store.port import START, Position, RecordedEvent

T = TypeVar("T")

PAGE_EVENTS: Final = 1_024
PAGE_BYTES: Final = 8 * 2**20
"""A page ends at either: memory stays constant, and no call stays open while its reader thinks."""


class Page(list[RecordedEvent]):
    """Events of one call.

    Attributes:
        full: There may be more.
    """

    full = False


class Reader:
    """Reads streams and `$all` over a connection."""

    def __init__(self, connection: Connection, messages: Messages) -> None:
        self._connection = connection
        self._messages = messages

    async def read(
        self,
        stream: StreamName,
        from_revision: int | None,
        limit: int | None,
        *,
        backwards: bool,
    ) -> AsyncIterator[RecordedEvent]:
        """Yield the stream's events; see `EventReader.read`."""
        self._connection.require_open()
        left = MAX_REVISION if limit is None else limit
        at = from_revision
        while left > 0 and not (backwards and at is not None and at < 0):
            page = await self.page(stream, at, min(left, PAGE_EVENTS), backwards=backwards)
            for event in page:
                yield event
            left -= len(page)
            if not page.full:
                return
            at = page[-1].revision + (-1 if backwards else 1)

    async def read_all(
        self, from_position: Position, prefix: str, limit: int | None, *, backwards: bool
    ) -> AsyncIterator[RecordedEvent]:
        """Yield the events of matching streams; see `EventReader.read_all`."""
        self._connection.require_open()
        left = MAX_REVISION if limit is None else limit
        at = from_position
        while left > 0:
            page = await self.page_of_all(at, prefix, min(left, PAGE_EVENTS), backwards=backwards)
            for event in page:
                yield event
            left -= len(page)
            if not page.full:
                return
            at = page[-1].position

    async def page(
        self, stream: StreamName, from_revision: int | None, count: int, *, backwards: bool
    ) -> Page:
        """Return up to `count` events of a stream, from a revision on; none if it is unknown or deleted.

        Raises:
            StoreUnavailableError: The server does not answer.
            AccessDeniedError: It does not let us read the stream.
        """
        request = self._messages.read_stream(stream, from_revision, count, backwards=backwards)

        async def once() -> Page:
            try:
                return await self._collect(request, count)
            except CallFailedError as failure:
                if failure.kind == "stream-deleted":  # for good: a tombstone
                    return Page()
                raise

        return await self._persistently(once, f"reading {stream!r}", stream)

    async def page_of_all(
        self, position: Position, prefix: str, count: int, *, backwards: bool
    ) -> Page:
        """Return up to `count` events of matching streams that lie beyond `position`, exclusive."""
        # Forwards the server begins with what lies at the position itself.
        extra = not backwards and position != START
        request = self._messages.read_all(position, prefix, count + extra, backwards=backwards)

        async def once() -> Page:
            page = await self._collect(request, count + extra, beyond=position)
            if len(page) > count:
                del page[count:]
            return page

        return await self._persistently(once, "reading all streams")

    async def head(self, stream: StreamName) -> int:
        """Return the revision of the stream's last event, -1 if it has none or was deleted.

        A stream whose events are all hidden by its limits gives none, but the server says where it ends.
        """
        request = self._messages.read_head(stream)

        async def once() -> int:
            head = -1
            async with aclosing(self._connection.answers(lambda: self._call(request))) as answers:
                try:
                    async for answer in answers:
                        match answer.WhichOneof("content"):
                            case "event":
                                head = answer.event.event.stream_revision
                            case "last_stream_position":
                                head = max(head, answer.last_stream_position)
                            case _:  # where it begins, or that it is unknown
                                pass
                except CallFailedError as failure:
                    if failure.kind != "stream-deleted":
                        raise
            return head

        return await self._persistently(once, f"reading {stream!r}", stream)

    async def end_position(self) -> Position:
        """Return the position of the last event that is none of the server's own."""
        newest = await self.page_of_all(START, "", 1, backwards=True)
        return newest[0].position if newest else START

    async def _collect(self, request: Any, count: int, *, beyond: Position | None = None) -> Page:
        """Return the events that the server gives, but for what lies at `beyond`."""
        page, size, given = Page(), 0, 0
        async with aclosing(self._connection.answers(lambda: self._call(request))) as answers:
            async for answer in answers:
                if answer.WhichOneof("content") != "event":
                    continue
                if answer.event.WhichOneof("position") == "no_position":
                    raise UnsupportedStoreVersionError(
                        self._connection.where, "no positions in reads", "22.10 or later"
                    )
                given += 1
                event = recorded(answer.event)
                if event is not None and event.position != beyond:
                    page.append(event)
                    size += len(event.data) + len(event.metadata)
                if size > PAGE_BYTES:
                    page.full = True
                    return page
        page.full = given >= count and bool(page)
        return page

    def _call(self, request: Any) -> Any:
        connection = self._connection
        return connection.streams.Read(request, **connection.options(timeout=connection.deadline))

    async def _persistently(
        self, once: Callable[[], Awaitable[T]], what: str, stream: str = ""
    ) -> T:
        return await self._connection.persistently(once, what, stream=stream)

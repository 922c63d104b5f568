"""EventStoreDB's rules for reading, over any event store: streams, `$all`, links, index streams.

`$ce-<category>`, `$et-<type>` and `$streams` are what the real server's standard projections write. Here they
are not written but found when they are read: every link of such a stream is an event that matches.
"""

import contextlib
import json
import re
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from aion_es.ids import StreamName
from aion_es.store.port import START, Position, RecordedEvent
from aion_es.testing.eventstoredb.filters import Filter
from aion_es.testing.eventstoredb.ledger import Ledger, as_seen, is_tombstone
from aion_es.testing.eventstoredb.refusals import StreamDeleted
from aion_es.testing.eventstoredb.wire import LINK, before, outer, seal

CATEGORY: Final = "$ce-"
EVENT_TYPE: Final = "$et-"
STREAMS: Final = "$streams"

_REVISION: Final = re.compile("[0-9]{1,18}")

Resolved: TypeAlias = tuple[RecordedEvent | None, RecordedEvent | None]
"""The event, and the link through which it was found; a link whose event is gone stands alone."""


class StreamNotFound(Exception):  # noqa: N818 - an answer, not an error
    """The stream was never written, or is deleted."""


@dataclass(frozen=True, slots=True)
class Index:
    """A stream of links to all events that match.

    Attributes:
        name: Of the stream of links.
        prefix: Of the streams whose events can match.
        matches: Tells which do.
    """

    name: StreamName
    prefix: str
    matches: Callable[[RecordedEvent], bool]

    def link(self, event: RecordedEvent, revision: int) -> RecordedEvent:
        """Return the link at `revision` to `event`; its id is its own, and always the same."""
        commit, prepare = outer(event.position)
        origin = {"$c": commit, "$p": prepare, "$o": event.stream, "$causedBy": str(event.event_id)}
        data = f"{event.revision}@{event.stream}".encode()
        return event._replace(
            event_id=uuid.uuid5(event.event_id, self.name),
            type=LINK,
            data=data,
            metadata=seal(data, json.dumps(origin).encode(), is_json=False),
            stream=self.name,
            revision=revision,
        )


def index_of(stream: StreamName) -> Index | None:
    """Return what the stream indexes, if it is a stream of links."""
    if stream.startswith(CATEGORY) and len(stream) > len(CATEGORY):
        category = stream.removeprefix(CATEGORY)
        return Index(
            stream,
            f"{category}-",
            lambda event: event.stream.partition("-")[0] == category and event.type != LINK,
        )
    if stream.startswith(EVENT_TYPE) and len(stream) > len(EVENT_TYPE):
        kind = stream.removeprefix(EVENT_TYPE)
        return Index(stream, "", lambda event: event.type == kind)
    if stream == STREAMS:
        return Index(stream, "", lambda event: event.revision == 0)
    return None


class Reader:
    """Reads as the real server does, as far as clients can see."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._store = ledger.store

    async def stream(
        self, stream: StreamName, *, from_revision: int | None, backwards: bool, count: int
    ) -> AsyncIterator[RecordedEvent]:
        """Yield a stream's events.

        Args:
            stream: Whose.
            from_revision: Inclusive; None for the end at which the direction begins.
            backwards: Newest first.
            count: At most so many.

        Raises:
            StreamDeleted: It was ended for good.
            StreamNotFound: It was never written, or is deleted.
        """
        self._ledger.require_readable(stream)
        if self._ledger.is_deleted(stream):
            raise StreamNotFound
        index = index_of(stream)
        if index is not None:
            async for link in self._index(index, from_revision, backwards=backwards, count=count):
                yield link
            return
        found = False
        async for event in self._store.read(
            stream, from_revision=from_revision, backwards=backwards, limit=count
        ):
            found = True
            yield event
        if not found and await self._store.head(stream) < 0:
            raise StreamNotFound

    async def _index(
        self, index: Index, from_revision: int | None, *, backwards: bool, count: int
    ) -> AsyncIterator[RecordedEvent]:
        links: list[RecordedEvent] = []
        async for event in self._store.read_all(prefix=index.prefix):
            if index.matches(event) and not is_tombstone(event):
                links.append(index.link(event, len(links)))
        if not links:
            raise StreamNotFound
        low, high = 0, len(links)
        if from_revision is not None:
            low, high = (0, from_revision + 1) if backwards else (from_revision, high)
        chosen = links[low:high]
        for link in (chosen[::-1] if backwards else chosen)[:count]:
            yield link

    async def all(
        self,
        *,
        position: Position | None,
        backwards: bool,
        count: int,
        wanted: Filter | None,
    ) -> AsyncIterator[RecordedEvent]:
        """Yield events of every stream.

        Args:
            position: Where to begin, forwards inclusive, backwards exclusive; None for the end at
                which the direction begins.
            backwards: Newest first.
            count: At most so many.
            wanted: Which events; None for all.
        """
        if backwards and position == START:
            return
        start = START if position is None else position
        left = count
        async for event in self._store.read_all(
            from_position=start if backwards else before(start), backwards=backwards
        ):
            if left <= 0:
                return
            shown = as_seen(event)
            if wanted is None or wanted.matches(shown):
                left -= 1
                yield shown

    async def last(self, stream: StreamName) -> int:
        """Return the revision of the last event that can be read, -1 if there is none."""
        async for event in self.stream(stream, from_revision=None, backwards=True, count=1):
            return event.revision
        return await self._store.head(stream)

    async def resolve(self, event: RecordedEvent) -> Resolved:
        """Return what a link points to, with the link; any other event as it is."""
        if event.type != LINK:
            return event, None
        revision, _, name = event.data.decode(errors="replace").partition("@")
        if _REVISION.fullmatch(revision) is None or not name:
            return None, event
        target = self.stream(
            StreamName(name), from_revision=int(revision), backwards=False, count=1
        )
        with contextlib.suppress(StreamNotFound, StreamDeleted):
            async for found in target:
                if found.revision == int(revision):
                    return found, event
        return None, event

"""The event store on an EventStoreDB or KurrentDB server or cluster."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Final, Self

from aion_es.errors import (
    AppendTooLargeError,
    ConcurrencyConflictError,
    ConsumerGroupNotFoundError,
    StoreClosedError,
)
from aion_es.ids import StreamName, UUIDv7Source
from aion_es.store.arguments import (
    check_changes,
    check_expected,
    check_group,
    check_limit,
    check_metadata,
    check_name,
    check_position,
    check_prefix,
    check_revision,
    check_type,
)
from aion_es.store.closing import ClosesOnExit
from aion_es.store.eventstoredb import limits
from aion_es.store.eventstoredb.appends import Appender
from aion_es.store.eventstoredb.checkpoints import Checkpointer
from aion_es.store.eventstoredb.client import Connection
from aion_es.store.eventstoredb.deletion import Deletion
from aion_es.store.eventstoredb.groups import EventStoreDBConsumer, Groups
from aion_es.store.eventstoredb.messages import Messages
from aion_es.store.eventstoredb.reader import Reader
from aion_es.store.eventstoredb.subscriptions import (
    AllSubscription,
    EventStoreDBSubscription,
    StreamSubscription,
)
from aion_es.store.eventstoredb.tasks import Tasks
from aion_es.store.port import (
    NO_STREAM,
    START,
    Appended,
    ConsumerGroupChanges,
    ConsumerGroupSettings,
    ExpectedRevision,
    NewEvent,
    Position,
    RecordedEvent,
    StoreLimits,
    StreamMetadata,
)

_IDS: Final = UUIDv7Source()


class EventStoreDBStore(ClosesOnExit):
    """Implements `EventStore`; open it with `EventStoreDBStore.open`. It belongs to one event loop.

    Reads go where the connection string's `NodePreference` says; with anything but the leader they may
    lag behind one's own appends. Appends, deletions and consumer groups always go to the leader.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._messages = Messages(connection.library)
        self._tasks = Tasks()
        self._reader = Reader(connection, self._messages)
        self._deletion = Deletion(connection, self._messages, self._reader)
        self._appender = Appender(
            connection, self._messages, self._reader, self._deletion, self._tasks
        )
        self._checkpointer = Checkpointer(connection, self._reader, self._tasks)
        self._groups = Groups(connection, self._messages)
        self._subscriptions: set[EventStoreDBSubscription] = set()
        self._consumers: set[EventStoreDBConsumer] = set()
        most = connection.version.limit
        self._limits = StoreLimits(most, most, cuts_appends=True)
        self._closing: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, url: str) -> Self:
        """Connect to the server or cluster that a connection string names.

        Args:
            url: `esdb://`, `esdb+discover://`, `kurrentdb://` or `kurrentdb+discover://`, with the
                options of the client packages (`Tls`, `TlsCaFile`, `UserCertFile`, `UserKeyFile`,
                `NodePreference`, `DefaultDeadline`, `KeepAliveInterval`, `KeepAliveTimeout`, …).

        Raises:
            UnknownStoreURLError: No client package is installed, or the connection string is wrong.
            StoreUnavailableError: Nobody answers there, or not in this language.
            AccessDeniedError: The server does not know this user and password.
            UnsupportedStoreVersionError: The server is older than 22.10, or no EventStoreDB.
        """
        return cls(await Connection.open(url))

    # ---------------------------------------------------------------- writing

    @property
    def limits(self) -> StoreLimits:
        """1 MiB for an append as a whole through version 25.0, 15 MiB for later ones."""
        return self._limits

    @property
    def server_version(self) -> str:
        """What the server says that it is."""
        return self._connection.version.text

    async def append(
        self, stream: StreamName, events: Sequence[NewEvent], expected: ExpectedRevision
    ) -> Appended:
        """Append all of `events`, or none; see `EventWriter.append`.

        Appends to one stream are made in the order of the calls. Once accepted, an append is made even
        if its caller is cancelled. With `ANY` or `EXISTS` a batch that its caller repeats is written
        again: only an exact revision or `NO_STREAM` lets the server recognise it.
        """
        return await self.submit(stream, events, expected)

    def submit(
        self, stream: StreamName, events: Sequence[NewEvent], expected: ExpectedRevision
    ) -> "asyncio.Future[Appended]":
        """Begin an append; see `EventWriter.submit`."""
        self._require_open()
        batch = tuple(events)  # a generator would be used up by the first try
        check_name("stream", stream)
        check_expected(expected)
        self._check_size(batch)
        for event in batch:
            check_type(event.type)
        return self._appender.submit(stream, batch, expected)

    def _check_size(self, batch: Sequence[NewEvent]) -> None:
        size = sum(event.size for event in batch)
        if size > self._limits.max_append_bytes:
            raise AppendTooLargeError(size, self._limits.max_append_bytes)

    async def delete(self, stream: StreamName, expected: ExpectedRevision) -> None:
        """Delete the stream softly; an unknown or deleted one stays as it is."""
        self._require_open()
        check_name("stream", stream)
        check_expected(expected)
        await self._deletion.delete(stream, expected)

    async def metadata(self, stream: StreamName) -> StreamMetadata:
        """Return the stream's metadata; without any, the empty one."""
        self._require_open()
        check_name("stream", stream)
        said, _ = await self._read_metadata(stream)
        return limits.limits(said)

    async def set_metadata(self, stream: StreamName, metadata: StreamMetadata) -> None:
        """Replace the stream's limits; an access list or anything else in its metadata is kept.

        Ages count in whole seconds on the server, rounded up.

        Raises:
            InvalidArgumentError: A limit is negative, or `max_count` or `max_age` is not positive.
        """
        self._require_open()
        check_name("stream", stream)
        check_metadata(metadata)
        while True:
            said, revision = await self._read_metadata(stream)
            event = NewEvent(
                uuid.UUID(_IDS.new()),
                limits.METADATA_TYPE,
                limits.replaced(said, metadata),
                b"",
            )
            try:
                await self.submit(
                    limits.metastream(stream),
                    (event,),
                    revision if revision >= 0 else NO_STREAM,
                )
            except ConcurrencyConflictError:
                continue  # somebody else changed it meanwhile, or the stream began a new life
            if limits.is_deleted(said):
                await self._delete_again(stream)
            return

    async def _delete_again(self, stream: StreamName) -> None:
        """Delete a stream that the server brought back, empty, because its limits were set.

        Not if it has been written since: then it lives.
        """
        said, revision = await self._read_metadata(stream)
        head = await self._reader.head(stream)
        if limits.is_deleted(said) or not limits.begins_at(said, head + 1):
            return
        event = NewEvent(uuid.UUID(_IDS.new()), limits.METADATA_TYPE, limits.deleted(said), b"")
        with suppress(ConcurrencyConflictError):  # somebody else's limits came after
            await self.submit(limits.metastream(stream), (event,), revision)

    async def _read_metadata(self, stream: StreamName) -> tuple[dict[str, object], int]:
        page = await self._reader.page(limits.metastream(stream), None, 1, backwards=True)
        return (limits.parse(page[0].data), page[0].revision) if page else ({}, -1)

    # ---------------------------------------------------------------- reading

    async def read(
        self,
        stream: StreamName,
        *,
        from_revision: int | None = None,
        backwards: bool = False,
        limit: int | None = None,
    ) -> AsyncIterator[RecordedEvent]:
        """Yield the stream's events, in pages of up to 1024; see `EventReader.read`."""
        self._require_open()
        check_name("stream", stream)
        check_revision(from_revision)
        check_limit(limit)
        async for event in self._reader.read(stream, from_revision, limit, backwards=backwards):
            yield event
            self._require_open()

    async def read_all(
        self,
        *,
        from_position: Position = START,
        prefix: str = "",
        backwards: bool = False,
        limit: int | None = None,
    ) -> AsyncIterator[RecordedEvent]:
        """Yield the events of matching streams; see `EventReader.read_all`.

        The server's own streams, whose names begin with `$`, come only if the prefix does so too. What
        deletion and limits hide is still there until the server scavenges.

        Raises:
            InvalidArgumentError: No stream's name can begin with `prefix`.
        """
        self._require_open()
        check_prefix(prefix)
        check_position(from_position)
        check_limit(limit)
        async for event in self._reader.read_all(from_position, prefix, limit, backwards=backwards):
            yield event
            self._require_open()

    async def head(self, stream: StreamName) -> int:
        """Return the revision of the stream's last event, -1 if it has none or was deleted."""
        self._require_open()
        check_name("stream", stream)
        return await self._reader.head(stream)

    async def end_position(self) -> Position:
        """Return the position of the last event that is none of the server's own, `START` if there is none."""
        self._require_open()
        position = await self._reader.end_position()
        self._checkpointer.end_was_told()
        return position

    # ---------------------------------------------------------------- subscribing

    def subscribe_all(
        self, *, from_position: Position = START, prefix: str = ""
    ) -> AllSubscription:
        """Subscribe to matching streams, after `from_position`; see `EventSubscriber`."""
        self._require_open()
        check_prefix(prefix)
        check_position(from_position)
        subscription = AllSubscription(
            self._connection,
            self._messages,
            self._reader,
            self._tasks,
            self._forget,
            prefix,
            from_position,
        )
        self._subscriptions.add(subscription)
        if prefix:  # without one every event that counts for the store's end is delivered
            self._checkpointer.follow(subscription)
        return subscription

    def subscribe(self, stream: StreamName, *, from_revision: int = 0) -> StreamSubscription:
        """Subscribe to one stream, from `from_revision` on; see `EventSubscriber`."""
        self._require_open()
        check_name("stream", stream)
        check_revision(from_revision)
        subscription = StreamSubscription(
            self._connection,
            self._messages,
            self._reader,
            self._tasks,
            self._forget,
            stream,
            from_revision,
        )
        self._subscriptions.add(subscription)
        return subscription

    def _forget(self, subscription: EventStoreDBSubscription) -> None:
        self._subscriptions.discard(subscription)
        self._checkpointer.forget(subscription)

    # ---------------------------------------------------------------- consumer groups

    async def create_consumer_group(
        self, name: str, settings: ConsumerGroupSettings | None = None
    ) -> None:
        """Create a persistent subscription to `$all`; the server asks for its administrator's rights.

        The server looks for time-outs once a second.

        Raises:
            ConsumerGroupExistsError: There is one of this name.
            InvalidArgumentError: The name or a setting makes no sense.
        """
        self._require_open()
        wanted = settings or ConsumerGroupSettings()
        check_group(name, wanted)
        await self._groups.call("Create", self._messages.create_group(name, wanted), name)

    async def update_consumer_group(self, name: str, changes: ConsumerGroupChanges) -> None:
        """Change how a group delivers; see `CompetingConsumers`. The server asks for its administrator's rights.

        The server drops the group's consumers: those of this package join again by themselves. It goes on
        after the last place that it had written down, so the last answers may have been in vain.

        Raises:
            ConsumerGroupNotFoundError: There is none.
            InvalidArgumentError: A setting makes no sense, or the group has a strategy of other tools that
                a change cannot keep; nothing was changed.
            UnsupportedStoreVersionError: The server is older than 23.10: it would forget the prefix.
        """
        self._require_open()
        check_changes(name, changes)
        await self._groups.update(name, changes)

    async def delete_consumer_group(self, name: str) -> None:
        """Delete a group and what it remembers."""
        self._require_open()
        await self._groups.call("Delete", self._messages.delete_group(name), name)
        for consumer in tuple(self._consumers):
            if consumer.name == name:
                consumer.fail(ConsumerGroupNotFoundError(name))

    async def replay_parked(self, name: str) -> int:
        """Deliver the parked events again; return how many there were when this was asked."""
        self._require_open()
        return await self._groups.replay_parked(name)

    def consume(self, name: str) -> EventStoreDBConsumer:
        """Join a group at the first delivery."""
        self._require_open()
        consumer = EventStoreDBConsumer(
            name,
            self._connection,
            self._messages,
            self._groups,
            self._tasks,
            self._consumers.discard,
        )
        self._consumers.add(consumer)
        return consumer

    # ---------------------------------------------------------------- upkeep

    async def health(self) -> None:
        """Return if the server answers a read."""
        self._require_open()
        await self._reader.end_position()

    async def aclose(self) -> None:
        """Settle what was accepted, end subscriptions and consumers, close the connection."""
        if self._closing is None:
            # A task of its own: it goes on if this call is cancelled.
            self._closing = self._tasks.start(self._close(), "aion-es-eventstoredb-close")
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        closed = StoreClosedError(self._connection.where)
        for subscription in self._subscriptions:
            subscription.fail(closed)
        for consumer in self._consumers:
            consumer.fail(closed)
        await self._appender.aclose()
        self._connection.refuse()
        await self._tasks.aclose()
        await self._connection.aclose()

    def _require_open(self) -> None:
        if self._closing is not None:
            raise StoreClosedError(self._connection.where)

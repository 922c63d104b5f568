"""The service `PersistentSubscriptions`: groups of competing consumers, and what is kept of them.

As on the real server a group's place is kept in `$persistentsubscription-<stream>::<group>-checkpoint`,
what it parked in `…-parked`, and the settings of all groups in `$persistentSubscriptionConfig`.
"""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, Final

from aion_es.ids import StreamName
from aion_es.store.port import ANY, CaughtUp, Checkpoint, NewEvent, RecordedEvent
from aion_es.testing.eventstoredb.access import READ, Access
from aion_es.testing.eventstoredb.calls import Call, Send
from aion_es.testing.eventstoredb.consumer_group import ConsumerGroup, Entry, Member
from aion_es.testing.eventstoredb.faults import Faults
from aion_es.testing.eventstoredb.filters import Filter
from aion_es.testing.eventstoredb.group_info import describe
from aion_es.testing.eventstoredb.group_settings import (
    ALL,
    GroupSettings,
    dump,
    load,
    read_position,
    show_position,
)
from aion_es.testing.eventstoredb.ledger import Ledger, fresh_id
from aion_es.testing.eventstoredb.reading import Reader
from aion_es.testing.eventstoredb.refusals import (
    bad_request,
    group_dropped,
    group_exists,
    group_full,
    group_not_found,
)
from aion_es.testing.eventstoredb.stubs import Stubs
from aion_es.testing.eventstoredb.subscriptions import Message, Subscriptions
from aion_es.testing.eventstoredb.wire import LINK, EventWriter, before, inner, read_uuid, seal

CONFIG: Final = StreamName("$persistentSubscriptionConfig")
TICK: Final = 1.0
"""Seconds between two looks at what was not answered in time, as on the real server."""


class PersistentSubscriptions:
    """Handles the calls of the service; makes every group of one store."""

    def __init__(self, stubs: Stubs, ledger: Ledger, access: Access, faults: Faults) -> None:
        self._stubs = stubs
        self._ledger = ledger
        self._access = access
        self._faults = faults
        self._reader = Reader(ledger)
        self._subscriptions = Subscriptions(ledger, self._reader)
        self._groups: dict[tuple[str, str], ConsumerGroup] = {}

    async def load(self) -> None:
        """Take up the groups that the store remembers."""
        async for event in self._ledger.store.read(CONFIG, backwards=True, limit=1):
            for settings in load(event.data):
                self._groups[settings.key] = await self._opened(settings)

    async def aclose(self) -> None:
        """Write how far every group is."""
        for group in self._groups.values():
            await self._write_checkpoint(group)

    # ---------------------------------------------------------------- managing

    async def create(self, request: Any, call: Call) -> Any:
        """Create a group."""
        await self._begin("Create", call)
        settings = GroupSettings.parse(request.options)
        if settings.key in self._groups:
            raise group_exists(*settings.key)
        self._groups[settings.key] = await self._opened(settings)
        await self._save()
        return self._stubs.persistent.CreateResp()

    async def update(self, request: Any, call: Call) -> Any:
        """Change a group's settings; its consumers are dropped, its place is kept."""
        await self._begin("Update", call)
        settings = GroupSettings.parse(request.options)
        group = self._group(*settings.key)
        await self._write_checkpoint(group)
        group.end(group_dropped(*settings.key))
        self._groups[settings.key] = await self._opened(group.settings.updated(settings))
        await self._save()
        return self._stubs.persistent.UpdateResp()

    async def delete(self, request: Any, call: Call) -> Any:
        """Delete a group and what it remembers."""
        await self._begin("Delete", call)
        group = self._named(request.options)
        del self._groups[group.settings.key]
        group.end(group_dropped(*group.settings.key))
        await self._save()
        for stream in (_checkpoint_stream(group), _parked_stream(group)):
            if await self._ledger.store.head(stream) >= 0 and not self._ledger.is_deleted(stream):
                await self._ledger.delete(stream, ANY)
        return self._stubs.persistent.DeleteResp()

    async def info(self, request: Any, call: Call) -> Any:
        """Describe one group."""
        await self._begin("GetInfo", call)
        described = await self._describe(self._named(request.options))
        return self._stubs.persistent.GetInfoResp(subscription_info=described)

    async def list_groups(self, request: Any, call: Call) -> Any:
        """Describe every group, or those of one stream."""
        await self._begin("List", call)
        options = request.options
        chosen = list(self._groups.values())
        if options.WhichOneof("list_option") == "list_for_stream":
            wanted = options.list_for_stream
            stream = ALL if wanted.WhichOneof("stream_option") == "all" else _name(wanted.stream)
            chosen = [group for group in chosen if group.settings.stream == stream]
            if not chosen:
                raise group_not_found(stream, "")
        described = [await self._describe(group) for group in chosen]
        return self._stubs.persistent.ListResp(subscriptions=described)

    async def replay_parked(self, request: Any, call: Call) -> Any:
        """Deliver parked events again, oldest first."""
        await self._begin("ReplayParked", call)
        options = request.options
        group = self._named(options)
        limited = options.WhichOneof("stop_at_option") == "stop_at"
        await self._replay(group, options.stop_at if limited else None)
        return self._stubs.persistent.ReplayParkedResp()

    async def restart(self, request: Any, call: Call) -> Any:  # noqa: ARG002 - asks nothing
        """Begin anew with what the store remembers; consumers are dropped."""
        await self._begin("RestartSubsystem", call)
        for key, group in list(self._groups.items()):
            await self._write_checkpoint(group)
            group.end(group_dropped(*key))
            self._groups[key] = await self._opened(group.settings)
        return self._stubs.shared.Empty()

    async def _begin(self, method: str, call: Call) -> None:
        await self._faults.strike(method)
        self._faults.require_leader()
        self._access.require_operator(call.user)

    async def _describe(self, group: ConsumerGroup) -> Any:
        return describe(self._stubs.persistent, group, len(await self._parked(group)))

    def _named(self, options: Any) -> ConsumerGroup:
        everything = options.WhichOneof("stream_option") == "all"
        return self._group(
            ALL if everything else _name(options.stream_identifier), options.group_name
        )

    def _group(self, stream: str, name: str) -> ConsumerGroup:
        if (stream, name) not in self._groups:
            raise group_not_found(stream, name)
        return self._groups[stream, name]

    async def _save(self) -> None:
        data = dump(group.settings for group in self._groups.values())
        event = NewEvent(fresh_id(), "$PersistentConfig", data, b"")
        await self._ledger.append(CONFIG, (event,), ANY)

    # ---------------------------------------------------------------- consuming

    async def read(self, requests: AsyncIterator[Any], call: Call, send: Send) -> None:
        """Deliver a group's events to one consumer, and take its answers."""
        options = await _first(requests)
        await self._faults.strike("ReadPersistent")
        self._faults.require_leader()
        group = self._named(options)
        stream, name = group.settings.key
        metadata = self._ledger.metadata(stream)
        self._access.require(call.user, READ, stream, metadata)
        if 0 < group.settings.max_subscriber_count <= len(group.members):
            raise group_full(stream, name)
        member = Member(
            max(options.buffer_size, 1),
            name=call.headers.get("connection-name", "<unknown>"),
            username=call.user.name,
            peer=call.peer,
        )
        response = self._stubs.persistent.ReadResp
        confirmation = response.SubscriptionConfirmation(
            subscription_id=group.settings.subscription_id
        )
        await send(response(subscription_confirmation=confirmation))
        text_ids = options.uuid_option.WhichOneof("content") == "string"
        writer = EventWriter(self._stubs, self._stubs.persistent, text_ids=text_ids)
        group.join(member)
        try:
            async with asyncio.TaskGroup() as tasks:
                helping = [
                    tasks.create_task(self._take_answers(requests, group, member)),
                    tasks.create_task(self._pump(group)),
                    tasks.create_task(self._keep_time(group)),
                ]
                await self._deliver(member, writer, send)
                for task in helping:
                    task.cancel()
        finally:
            group.leave(member)

    @staticmethod
    async def _deliver(member: Member, writer: EventWriter, send: Send) -> None:
        """Send what the group hands out, until the client has no more to say.

        Raises:
            Refused: The group ended the consumer.
        """
        while not member.left:
            member.changed.clear()
            while member.outbox:
                entry = member.outbox.popleft()
                await send(writer.response(*entry.resolved, retry_count=entry.retries))
            if member.ending is not None:
                raise member.ending
            if not member.left:
                await member.changed.wait()

    async def _take_answers(
        self, requests: AsyncIterator[Any], group: ConsumerGroup, member: Member
    ) -> None:
        actions = self._stubs.persistent.ReadReq.Nack.Action
        async for request in requests:
            kind = request.WhichOneof("content")
            if kind == "ack":
                group.ack(member, [read_uuid(event_id) for event_id in request.ack.ids])
            elif kind == "nack":
                nack = request.nack
                ids = [read_uuid(event_id) for event_id in nack.ids]
                group.nack(member, ids, actions.Name(nack.action), nack.reason)
            else:
                raise bad_request("A consumer says ack or nack")
            if group.to_park or (
                group.finished_since_checkpoint >= group.settings.max_checkpoint_count
            ):
                await self._write_checkpoint(group)
        member.leave()

    async def _keep_time(self, group: ConsumerGroup) -> None:
        while True:
            await asyncio.sleep(TICK)
            group.expire()
            late = time.monotonic() - group.checkpointed_at
            enough = group.finished_since_checkpoint >= max(group.settings.min_checkpoint_count, 1)
            if group.to_park or (enough and late >= group.settings.checkpoint_after / 1000):
                await self._write_checkpoint(group)

    async def _pump(self, group: ConsumerGroup) -> None:
        """Read for the whole group, while no other consumer's pump does."""
        async with group.pumping, aclosing(self._messages(group)) as messages:
            async for message in messages:
                if isinstance(message, RecordedEvent):
                    resolved = (
                        await self._reader.resolve(message)
                        if group.settings.resolve_links
                        else (message, None)
                    )
                    await group.room.wait()
                    group.offer(Entry(resolved, message))
                elif isinstance(message, Checkpoint):
                    group.pass_by(message.position)
                else:
                    group.live = isinstance(message, CaughtUp)

    def _messages(self, group: ConsumerGroup) -> AsyncGenerator[Message, None]:
        settings = group.settings
        if settings.stream == ALL:
            wanted = None if settings.filter is None else Filter(settings.filter)
            return self._subscriptions.to_all(after=group.passed, wanted=wanted)
        return self._subscriptions.to_stream(
            StreamName(settings.stream), from_revision=group.next_revision
        )

    # ---------------------------------------------------------------- what is kept

    async def _opened(self, settings: GroupSettings) -> ConsumerGroup:
        """Return a group at its place: the checkpoint's, or where it is to begin."""
        group = ConsumerGroup(settings)
        text = await self._checkpoint(group)
        everything = settings.stream == ALL
        if text is not None:
            group.checkpoint = text
            if everything:
                group.begin_after(read_position(text))
            else:
                group.begin_at(int(text) + 1)
        elif everything:
            start = settings.start
            group.begin_after(
                await self._ledger.store.end_position()
                if start is None
                else before(inner(start, start))
            )
        elif settings.start is None:
            group.begin_at(await self._subscriptions.end_of(StreamName(settings.stream)))
        else:
            group.begin_at(settings.start)
        return group

    async def _checkpoint(self, group: ConsumerGroup) -> str | None:
        stream = _checkpoint_stream(group)
        if self._ledger.is_deleted(stream):
            return None
        async for event in self._ledger.store.read(stream, backwards=True, limit=1):
            text: str = json.loads(event.data)
            return text
        return None

    async def _write_checkpoint(self, group: ConsumerGroup) -> None:
        """Write what was parked, then how far everything is done, if that has changed."""
        while group.to_park:
            parking = group.to_park.popleft()
            await self._ledger.append(
                _parked_stream(group), (_link(parking.entry.source, parking.reason),), ANY
            )
        if not group.finished_since_checkpoint:
            return
        group.finished_since_checkpoint = 0
        group.checkpointed_at = time.monotonic()
        everything = group.settings.stream == ALL
        text = show_position(group.done_position) if everything else str(group.done_revision)
        if text == group.checkpoint or group.settings.key not in self._groups:
            return
        group.checkpoint = text
        event = NewEvent(fresh_id(), "$SubscriptionCheckpoint", json.dumps(text).encode(), b"")
        await self._ledger.append(_checkpoint_stream(group), (event,), ANY)

    async def _parked(self, group: ConsumerGroup) -> list[RecordedEvent]:
        stream = _parked_stream(group)
        if self._ledger.is_deleted(stream):
            return []
        return [event async for event in self._ledger.store.read(stream)]

    async def _replay(self, group: ConsumerGroup, limit: int | None) -> None:
        await self._write_checkpoint(group)
        links = (await self._parked(group))[:limit]
        if not links:
            return
        entries: list[Entry] = []
        for link in links:
            event, _ = await self._reader.resolve(link)
            if event is None:
                continue  # deleted since
            resolved = (
                await self._reader.resolve(event) if group.settings.resolve_links else (event, None)
            )
            entries.append(Entry(resolved, event))
        await self._ledger.truncate(_parked_stream(group), links[-1].revision + 1)
        group.replay(entries)


def _link(event: RecordedEvent, reason: str) -> NewEvent:
    data = f"{event.revision}@{event.stream}".encode()
    metadata = seal(data, json.dumps({"reason": reason}).encode(), is_json=False)
    return NewEvent(fresh_id(), LINK, data, metadata)


def _checkpoint_stream(group: ConsumerGroup) -> StreamName:
    return StreamName(f"$persistentsubscription-{group.settings.subscription_id}-checkpoint")


def _parked_stream(group: ConsumerGroup) -> StreamName:
    return StreamName(f"$persistentsubscription-{group.settings.subscription_id}-parked")


async def _first(requests: AsyncIterator[Any]) -> Any:
    async for request in requests:
        if request.WhichOneof("content") == "options":
            return request.options
        break
    raise bad_request("A consumer begins with its options")


def _name(identifier: Any) -> str:
    name: str = identifier.stream_name.decode()
    return name

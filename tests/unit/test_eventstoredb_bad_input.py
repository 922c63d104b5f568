"""Bad input to the EventStoreDB adapter, by name: each a typed error that says what to do.

What needs certificates is in `test_eventstoredb_security.py`.
"""

import asyncio
import builtins
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aion_es import Context, Engine, workflow
from aion_es.errors import (
    AccessDeniedError,
    AppendTooLargeError,
    EventDecodeError,
    StoreUnavailableError,
    StreamDeletedError,
    UnknownEventTypeError,
    UnknownStoreURLError,
    UnsupportedStoreVersionError,
)
from aion_es.ids import DEFAULT_NAMESPACE, WorkflowId, workflow_stream
from aion_es.store.eventstoredb import EventStoreDBStore
from aion_es.store.port import (
    ANY,
    EXISTS,
    NO_STREAM,
    START,
    CaughtUp,
    ConsumerGroupChanges,
    ConsumerGroupSettings,
    RecordedEvent,
    StoreLimits,
    Subscription,
)
from aion_es.testing.store_contract.base import (
    STREAM,
    an_event,
    as_appended,
    collect,
    some_events,
)
from tests.contract.local_server import connected, installed
from tests.e2e.scenario import SOON
from tests.unit.test_eventstoredb_faults import free_port

pytest.importorskip("grpc", reason="no EventStoreDB client is installed: make test-clients")

from aion_es.testing.eventstoredb import LocalEventStoreDB

client_package = installed()


@pytest.fixture
async def server() -> AsyncIterator[LocalEventStoreDB]:
    server = LocalEventStoreDB()
    async with server:
        yield server


@pytest.fixture
async def store(server: LocalEventStoreDB) -> AsyncIterator[EventStoreDBStore]:
    async with await EventStoreDBStore.open(server.uri) as store:
        yield store


async def test_a_server_that_would_forget_a_groups_prefix_is_not_asked_to_change_it() -> None:
    async with (
        LocalEventStoreDB(version="22.10.5") as uri,
        await EventStoreDBStore.open(uri) as store,
    ):
        await store.create_consumer_group("g", ConsumerGroupSettings(prefix="orders_"))
        with pytest.raises(UnsupportedStoreVersionError) as refused:
            await store.update_consumer_group("g", ConsumerGroupChanges(max_retries=0))
    assert refused.value.found == "22.10.5"
    assert refused.value.needed == "23.10 or later for changing a consumer group"


# ------------------------------------------------------------------------------ the way to the server


@pytest.mark.parametrize("host", ["no-such-host.invalid", "127.0.0.1"], ids=["host", "port"])
async def test_a_wrong_host_or_port_is_a_typed_error_that_says_what_to_check(host: str) -> None:
    with pytest.raises(StoreUnavailableError, match="check that the server runs, host and port"):
        await EventStoreDBStore.open(f"esdb://{host}:{free_port()}?Tls=false")


async def test_no_node_of_a_cluster_is_a_typed_error_that_says_what_to_check() -> None:
    quickly = "Tls=false&MaxDiscoverAttempts=2&DiscoveryInterval=10&GossipTimeout=1"
    nodes = f"127.0.0.1:{free_port()},127.0.0.1:{free_port()}"
    with pytest.raises(StoreUnavailableError, match="check hosts and ports"):
        await EventStoreDBStore.open(f"esdb://{nodes}?{quickly}")


async def test_a_server_that_speaks_something_else_is_a_typed_error() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(64)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1") as listening:
        port = listening.sockets[0].getsockname()[1]
        with pytest.raises(StoreUnavailableError, match="check that the server runs"):
            await EventStoreDBStore.open(f"esdb://127.0.0.1:{port}?Tls=false&DefaultDeadline=2")


async def test_tls_against_an_insecure_server_is_a_typed_error_that_names_the_option(
    server: LocalEventStoreDB,
) -> None:
    secure = server.uri.replace("esdb://", "esdb://admin:changeit@").replace(
        "Tls=false", "Tls=true"
    )
    with pytest.raises(StoreUnavailableError, match="Tls=true or Tls=false") as told:
        await EventStoreDBStore.open(secure)
    assert "changeit" not in str(told.value)


@pytest.mark.parametrize(
    "options",
    ["Tls=maybe", "Tls=false&Speed=high", "Tls=true", "Tls=false&TlsCaFile=/nowhere/ca.crt"],
)
async def test_a_wrong_connection_string_is_a_typed_error(options: str) -> None:
    with pytest.raises(UnknownStoreURLError):
        await EventStoreDBStore.open(f"esdb://127.0.0.1:2113?{options}")


@pytest.mark.parametrize("port", ["99999", "65536", "0", "-1", "abc"])
@pytest.mark.parametrize("form", ["esdb://h:{}", "esdb://[::1]:2113,h:{}"])
async def test_a_number_that_is_no_port_is_a_typed_error_that_names_it(
    form: str, port: str
) -> None:
    with pytest.raises(UnknownStoreURLError) as refused:
        await EventStoreDBStore.open(form.format(port) + "?Tls=false")
    assert refused.value.reason == f"'h:{port}': a port is a number from 1 to 65535"


async def test_a_server_that_is_too_old_is_refused() -> None:
    async with LocalEventStoreDB(version="21.10.9") as uri:
        with pytest.raises(UnsupportedStoreVersionError) as refused:
            await EventStoreDBStore.open(uri)
    assert (refused.value.found, refused.value.needed) == ("21.10.9", "22.10 or later")


async def test_what_a_user_may_not_do_is_a_typed_error() -> None:
    async with LocalEventStoreDB(users={"admin": "changeit"}) as uri:
        with pytest.raises(AccessDeniedError):
            async with await EventStoreDBStore.open(uri) as store:  # as nobody
                await collect(store.read_all())


async def test_a_kurrentdb_connection_string_works_with_either_client(
    server: LocalEventStoreDB,
) -> None:
    async with await EventStoreDBStore.open(server.uri.replace("esdb://", "kurrentdb://")) as store:
        assert await store.end_position() == START
        assert store.server_version.startswith("24.10")


# ------------------------------------------------------------------------------ streams


async def test_a_deleted_stream_reads_as_unknown_and_may_be_written_again(
    store: EventStoreDBStore,
) -> None:
    await store.append(STREAM, some_events(2), NO_STREAM)
    await store.delete(STREAM, EXISTS)
    assert (await collect(store.read(STREAM)), await store.head(STREAM)) == ([], -1)
    with pytest.raises(StreamDeletedError, match=STREAM):
        await store.append(STREAM, some_events(1), EXISTS)
    assert (await store.append(STREAM, some_events(1), NO_STREAM)).revision == 2


async def test_a_stream_that_was_written_since_its_limits_brought_it_back_lives_on(
    server: LocalEventStoreDB,
) -> None:
    store = await EventStoreDBStore.open(server.uri)
    try:
        await store.append(STREAM, some_events(2), NO_STREAM)
        await store.delete(STREAM, ANY)
        await store.append(STREAM, some_events(1), NO_STREAM)
        await store._delete_again(STREAM)
        assert await store.head(STREAM) == 2
    finally:
        await store.aclose()


async def test_a_tombstoned_stream_reads_as_unknown_and_refuses_every_append(
    server: LocalEventStoreDB, store: EventStoreDBStore
) -> None:
    await store.append(STREAM, some_events(2), NO_STREAM)
    async with connected(client_package, server.uri) as client:
        await client.tombstone_stream(STREAM, current_version=1)
    assert (await collect(store.read(STREAM)), await store.head(STREAM)) == ([], -1)
    for expected in (1, NO_STREAM, ANY, EXISTS):
        with pytest.raises(StreamDeletedError) as refused:
            await store.append(STREAM, some_events(1), expected)
        assert refused.value.stream == STREAM


async def test_a_subscription_to_a_stream_that_is_tombstoned_ends_with_a_typed_error(
    server: LocalEventStoreDB, store: EventStoreDBStore
) -> None:
    batch = some_events(2)
    await store.append(STREAM, batch, NO_STREAM)
    got: list[RecordedEvent] = []
    async with store.subscribe(STREAM) as subscription:
        with pytest.raises(StreamDeletedError, match=STREAM):
            await _follow(subscription, got, server)
    assert as_appended(got) == batch


async def _follow(
    subscription: Subscription, got: list[RecordedEvent], server: LocalEventStoreDB
) -> None:
    async for message in subscription:
        if isinstance(message, RecordedEvent):
            got.append(message)
        elif isinstance(message, CaughtUp):
            async with connected(client_package, server.uri) as client:
                await client.tombstone_stream(STREAM, current_version=1)


async def test_an_append_over_the_servers_limit_is_refused_before_it_is_sent(
    store: EventStoreDBStore,
) -> None:
    most = store.limits.max_append_bytes
    with pytest.raises(AppendTooLargeError) as refused:
        await store.append(STREAM, [an_event(bytes(most + 1))], NO_STREAM)
    assert (refused.value.limit, refused.value.size > most) == (most, True)
    assert await store.head(STREAM) == -1


async def test_a_server_with_a_lower_limit_than_its_version_has_says_so_itself(
    store: EventStoreDBStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    lower = store.limits.max_append_bytes
    monkeypatch.setattr(store, "_limits", StoreLimits(2 * lower, 2 * lower))
    with pytest.raises(AppendTooLargeError) as refused:
        await store.append(STREAM, [an_event(bytes(lower + 1))], NO_STREAM)
    assert refused.value.limit == lower
    assert await store.head(STREAM) == -1


# ------------------------------------------------------------------------------ what is in our streams


@workflow
async def idle(ctx: Context) -> str:
    return "done"


@pytest.mark.parametrize(
    ("type", "data", "told"),
    [
        ("InvoiceSent", b"{}", UnknownEventTypeError),
        ("WorkflowStarted", b"not ours", EventDecodeError),
    ],
    ids=["of a type of its own", "with our type, and data of its own"],
)
async def test_a_foreign_event_in_a_workflows_stream_names_stream_and_revision(
    server: LocalEventStoreDB,
    store: EventStoreDBStore,
    tmp_path: Path,
    type: str,
    data: bytes,
    told: builtins.type[UnknownEventTypeError | EventDecodeError],
) -> None:
    stream = workflow_stream(DEFAULT_NAMESPACE, WorkflowId("order-1"))
    read_model = f"sqlite:///{tmp_path}/readmodel.db"
    async with Engine.open(server.uri, workflows=[idle], read_model=read_model) as engine:
        handle = await engine.start(idle, id="order-1")
        assert await handle.result(timeout=SOON) == "done"
        head = await store.head(stream)
        await store.append(stream, [an_event(data, type=type)], head)
        with pytest.raises(told) as refused:
            await engine.handle("order-1").history()
    assert str(refused.value).startswith(f"{stream}@{head + 1}: ")

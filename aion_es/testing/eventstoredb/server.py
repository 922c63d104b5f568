"""The local EventStoreDB server itself: its ports, its store, and the services it is made of.

For development and tests, not for production: one process in Python, one node, no scavenging, no
projections, no user management. What it does not know it answers with UNIMPLEMENTED.
"""

import logging
import socket
import uuid
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import uuid_utils

from aion_es.clock import Clock, SystemClock
from aion_es.errors import InvalidArgumentError, StoreUnavailableError
from aion_es.store.port import EventStore
from aion_es.store.sqlite import SQLiteEventStore
from aion_es.testing.eventstoredb.access import Access
from aion_es.testing.eventstoredb.batch_append import BatchAppend
from aion_es.testing.eventstoredb.calls import Calls
from aion_es.testing.eventstoredb.faults import Faults
from aion_es.testing.eventstoredb.ledger import Ledger
from aion_es.testing.eventstoredb.monitoring import Monitoring
from aion_es.testing.eventstoredb.persistent import PersistentSubscriptions
from aion_es.testing.eventstoredb.streams import StreamAccess, Streams
from aion_es.testing.eventstoredb.stubs import Stubs, load_stubs
from aion_es.testing.eventstoredb.tls import TLS

_log: Final = logging.getLogger(__name__)

SERVER_VERSION: Final = "24.10.6"
"""Whose behaviour is followed, and what the server says that it is."""

_STREAMS: Final = "event_store.client.streams.Streams"
_PERSISTENT: Final = "event_store.client.persistent_subscriptions.PersistentSubscriptions"
_GOSSIP: Final = "event_store.client.gossip.Gossip"
_FEATURES: Final = "event_store.client.server_features.ServerFeatures"

_MAX_MESSAGE: Final = 17 * 1_048_576
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", _MAX_MESSAGE),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),
    # Clients that send keep-alives often must not be cut off for it.
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_ping_strikes", 0),
)
_PORTS_TRIED: Final = 20
_LOOPBACK: Final = "127.0.0.1"
_WILDCARDS: Final = ("0.0.0.0", "::")  # noqa: S104 - compared with, not listened on
"""Addresses to listen on that nobody can connect to."""


class LocalEventStoreDB:
    """An EventStoreDB server on loopback, for development and tests; not for production.

    ::

        async with LocalEventStoreDB() as uri:  # esdb://127.0.0.1:PORT?Tls=false
            engine = await Engine.open(uri)

    `faults` breaks it on purpose.

    Args:
        store: What it keeps its events in; whoever made it closes it. Default: SQLite, in `path`.
        path: The SQLite file; None keeps it in memory.
        port: Default: a free one.
        host: The address to listen on, such as `0.0.0.0`. Default: 127.0.0.1 and, where there is IPv6, ::1.
        users: Passwords by name, such as `{"admin": "changeit"}`. Default: everybody may do everything.
        tls: Its certificate. Default: insecure.
        advertised_host: What gossip names. Default: `host`, or without one the loopback address by
            which the client came.
        version: What it says that it is; three numbers.
        clock: Tells the time. Default: the machine's.

    Raises:
        ImportError: Neither client package is installed; their messages are needed.
        InvalidArgumentError: Both `store` and `path` were given.
    """

    def __init__(
        self,
        *,
        store: EventStore | None = None,
        path: Path | str | None = None,
        port: int = 0,
        host: str | None = None,
        users: Mapping[str, str] | None = None,
        tls: TLS | None = None,
        advertised_host: str | None = None,
        version: str = SERVER_VERSION,
        clock: Clock | None = None,
    ) -> None:
        if store is not None and path is not None:
            raise InvalidArgumentError("path", "cannot be given together with a store")
        self._stubs = load_stubs()
        self._given = store
        self._path = path
        self._port = port
        self._users = users
        self._tls = tls
        self._host = host
        self._advertised = advertised_host or (None if host in _WILDCARDS else host)
        self._version = version
        self._clock = clock or SystemClock()
        self._access = Access(users)
        self._instance_id = uuid.UUID(bytes=uuid_utils.uuid7().bytes)
        self._owned = AsyncExitStack()
        self._store: EventStore | None = store
        self._ledger: Ledger | None = None
        self._groups: PersistentSubscriptions | None = None
        self._server: Any = None
        self.faults = Faults()
        """Breaks what is to be broken."""

    @property
    def port(self) -> int:
        """Where it listens; 0 before it was first started on a free port."""
        return self._port

    @property
    def uri(self) -> str:
        """What a client connects with; the first user's name and password are in it, if there are users."""
        name = next(iter(self._users), None) if self._users else None
        credentials = f"{name}:{self._users[name]}@" if self._users and name else ""
        secure = "true" if self._tls else "false"
        host = _LOOPBACK if self._host in {None, *_WILDCARDS} else _bracketed(str(self._host))
        return f"esdb://{credentials}{host}:{self._port}?Tls={secure}"

    async def __aenter__(self) -> str:
        try:
            await self.start()
        except BaseException:
            await self.aclose()
            raise
        return self.uri

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def start(self) -> None:
        """Listen; on the same port as before, if it was stopped.

        Raises:
            StoreUnavailableError: The port is taken, or the store cannot be opened.
        """
        if self._server is not None:
            return
        if self._store is None:
            store = await SQLiteEventStore.open(self._path, clock=self._clock)
            self._owned.push_async_callback(store.aclose)
            self._store = store
        if self._ledger is None:
            self._ledger = Ledger(self._store)
            await self._ledger.load()
        server, self._port = self._bind()
        calls = Calls(self._stubs, self._access, self.faults)
        self._groups = PersistentSubscriptions(self._stubs, self._ledger, self._access, self.faults)
        await self._groups.load()
        for service, methods in self._services(self._ledger, calls).items():
            handler = self._stubs.grpc.method_handlers_generic_handler(service, methods)
            server.add_generic_rpc_handlers((handler,))
        await server.start()
        self._server = server
        _log.warning(
            "local EventStoreDB server (aion-es) on %s: for development and tests, not for production",
            self.uri.rpartition("@")[2],
        )

    async def stop(self) -> None:
        """Break every connection and listen no more; what is stored stays, and `start` goes on."""
        if self._server is None:
            return
        server, self._server = self._server, None
        await server.stop(None)
        if self._groups is not None:
            await self._groups.aclose()

    async def drop_connections(self) -> None:
        """Break every connection, and listen again at once."""
        await self.stop()
        await self.start()

    async def aclose(self) -> None:
        """Stop, and close the store if it was opened here."""
        await self.stop()
        await self._owned.aclose()

    # ---------------------------------------------------------------- inside

    def _bind(self) -> tuple[Any, int]:
        """Return a server bound to the port on its address, or on both loopback ones, and the port.

        Raises:
            StoreUnavailableError: It is taken, or the address is not of this machine.
        """
        first = _bracketed(self._host or _LOOPBACK)
        also_ipv6 = self._host is None and _has_ipv6()
        for _ in range(_PORTS_TRIED):
            server = self._stubs.aio.server(options=_OPTIONS)
            port = self._listen(server, f"{first}:{self._port}")
            if port and (not also_ipv6 or self._listen(server, f"[::1]:{port}") or self._port):
                return server, port
            if self._port:
                break
        reason = "the port is taken" if self._host is None else "cannot listen there"
        raise StoreUnavailableError(f"{first}:{self._port}: {reason}")

    def _listen(self, server: Any, address: str) -> int:
        try:
            if self._tls is None:
                return int(server.add_insecure_port(address))
            tls = self._tls
            credentials = self._stubs.grpc.ssl_server_credentials(
                [(tls.key, tls.certificate)],
                root_certificates=tls.client_root,
                require_client_auth=tls.client_root is not None,
            )
            return int(server.add_secure_port(address, credentials))
        except RuntimeError:  # how gRPC says that it cannot
            return 0

    def _services(self, ledger: Ledger, calls: Calls) -> dict[str, dict[str, Any]]:
        stubs = self._stubs
        access = StreamAccess(self._access, ledger)
        streams = Streams(stubs, ledger, access, self.faults)
        batches = BatchAppend(stubs, ledger, access, self.faults, self._clock)
        assert self._groups is not None  # noqa: S101 - made before
        services = {
            _STREAMS: _streams(stubs, calls, streams, batches),
            _PERSISTENT: _persistent(stubs, calls, self._groups),
        }
        served = [(service, method) for service, methods in services.items() for method in methods]
        monitoring = Monitoring(
            stubs,
            self.faults,
            self._clock,
            port=self._port,
            advertised_host=self._advertised,
            version=self._version,
            methods=[*served, (_GOSSIP, "Read"), (_FEATURES, "GetSupportedMethods")],
            instance_id=self._instance_id,
        )
        unary = stubs.grpc.unary_unary_rpc_method_handler
        gossip = _codec(stubs.shared.Empty, stubs.gossip.ClusterInfo)
        services[_GOSSIP] = {"Read": unary(calls.unary(monitoring.gossip), **gossip)}
        services[_FEATURES] = {
            "GetSupportedMethods": unary(calls.unary(monitoring.supported_methods))
        }
        return services


def _streams(stubs: Stubs, calls: Calls, streams: Streams, batches: BatchAppend) -> dict[str, Any]:
    grpc, messages = stubs.grpc, stubs.streams
    unary, streaming = calls.unary, calls.streaming
    return {
        "Append": grpc.stream_unary_rpc_method_handler(
            unary(streams.append), **_codec(messages.AppendReq, messages.AppendResp)
        ),
        "BatchAppend": grpc.stream_stream_rpc_method_handler(
            streaming(batches.batch_append),
            **_codec(messages.BatchAppendReq, messages.BatchAppendResp),
        ),
        "Read": grpc.unary_stream_rpc_method_handler(
            streaming(streams.read), **_codec(messages.ReadReq, messages.ReadResp)
        ),
        "Delete": grpc.unary_unary_rpc_method_handler(
            unary(streams.delete), **_codec(messages.DeleteReq, messages.DeleteResp)
        ),
        "Tombstone": grpc.unary_unary_rpc_method_handler(
            unary(streams.tombstone), **_codec(messages.TombstoneReq, messages.TombstoneResp)
        ),
    }


def _persistent(stubs: Stubs, calls: Calls, groups: PersistentSubscriptions) -> dict[str, Any]:
    grpc, messages, empty = stubs.grpc, stubs.persistent, stubs.shared.Empty
    handlers = {
        "Create": (groups.create, messages.CreateReq, messages.CreateResp),
        "Update": (groups.update, messages.UpdateReq, messages.UpdateResp),
        "Delete": (groups.delete, messages.DeleteReq, messages.DeleteResp),
        "GetInfo": (groups.info, messages.GetInfoReq, messages.GetInfoResp),
        "List": (groups.list_groups, messages.ListReq, messages.ListResp),
        "ReplayParked": (groups.replay_parked, messages.ReplayParkedReq, messages.ReplayParkedResp),
        "RestartSubsystem": (groups.restart, empty, empty),
    }
    methods = {
        name: grpc.unary_unary_rpc_method_handler(calls.unary(handler), **_codec(takes, gives))
        for name, (handler, takes, gives) in handlers.items()
    }
    methods["Read"] = grpc.stream_stream_rpc_method_handler(
        calls.streaming(groups.read), **_codec(messages.ReadReq, messages.ReadResp)
    )
    return methods


def _codec(takes: Any, gives: Any) -> dict[str, Any]:
    return {
        "request_deserializer": takes.FromString,
        "response_serializer": gives.SerializeToString,
    }


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _has_ipv6() -> bool:
    if not socket.has_ipv6:
        return False
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True

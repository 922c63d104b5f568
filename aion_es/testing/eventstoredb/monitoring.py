"""What clients ask before anything else: who is in the cluster, and what the server can do."""

import uuid
from collections.abc import Iterable
from typing import Any, Final

from aion_es.clock import Clock
from aion_es.testing.eventstoredb.calls import Call
from aion_es.testing.eventstoredb.faults import Faults
from aion_es.testing.eventstoredb.stubs import Stubs

_EPOCH_TICKS: Final = 10_000_000
_FEATURES: Final = {
    ("event_store.client.streams.streams", "read"): ("position", "events"),
    ("event_store.client.streams.streams", "batchappend"): ("deadline_duration",),
}


class Monitoring:
    """Handles gossip and server features.

    Args:
        stubs: Where the messages come from.
        faults: Says whether this node leads.
        clock: Tells gossip's time.
        port: Where the server listens.
        advertised_host: The host that gossip names; None for the one by which the client came.
        version: Three parts.
        methods: Every method that is served, as `(service, method)`.
    """

    def __init__(
        self,
        stubs: Stubs,
        faults: Faults,
        clock: Clock,
        *,
        port: int,
        advertised_host: str | None,
        version: str,
        methods: Iterable[tuple[str, str]],
        instance_id: uuid.UUID,
    ) -> None:
        self._stubs = stubs
        self._faults = faults
        self._clock = clock
        self._port = port
        self._host = advertised_host
        self._instance_id = instance_id
        self._features = _supported_methods(version, methods)

    async def gossip(self, request: Any, call: Call) -> Any:  # noqa: ARG002 - asks nothing
        """Return a cluster of one."""
        await self._faults.strike("Gossip")
        messages = self._stubs.gossip
        state = messages.MemberInfo.VNodeState
        host = self._host or ("127.0.0.1" if call.peer.startswith("ipv4:") else "localhost")
        return messages.ClusterInfo(
            members=[
                messages.MemberInfo(
                    instance_id=self._stubs.shared.UUID(string=str(self._instance_id)),
                    time_stamp=int(self._clock.now().timestamp() * _EPOCH_TICKS),
                    state=state.Leader if self._faults.is_leader else state.Follower,
                    is_alive=True,
                    http_end_point=messages.EndPoint(address=host, port=self._port),
                )
            ]
        )

    async def supported_methods(self, request: bytes, call: Call) -> bytes:  # noqa: ARG002 - asks nothing
        """Return the methods that are served, in bytes: the client packages lack this message."""
        await self._faults.strike("GetSupportedMethods")
        return self._features


def _supported_methods(version: str, methods: Iterable[tuple[str, str]]) -> bytes:
    parts = [
        _field(1, _supported_method(service.lower(), method.lower())) for service, method in methods
    ]
    return b"".join(parts) + _field(2, version.encode())


def _supported_method(service: str, method: str) -> bytes:
    features: tuple[str, ...] = _FEATURES.get((service, method), ())
    if "persistentsubscriptions" in service:
        features = ("stream", "all")
    parts = [_field(1, method.encode()), _field(2, service.encode())]
    parts.extend(_field(3, feature.encode()) for feature in features)
    return b"".join(parts)


def _field(number: int, value: bytes) -> bytes:
    """Return a protobuf field of bytes: its tag, its length, and the bytes."""
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)

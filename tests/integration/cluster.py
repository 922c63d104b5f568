"""A cluster of three nodes in containers, as `docker-compose.yml` describes it: its leader is found, and killed."""

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aion_es.testing.eventstoredb.stubs import load_stubs

ROOT = Path(__file__).parents[2]
AUTHORITY = ROOT / "certs" / "ca" / "ca.crt"
NODES = {2121: "node1", 2122: "node2", 2123: "node3"}
"""Services by the port at which they can be reached from outside, which is also what gossip names."""
PROJECT = "aion-es-tests"
"""Not the name that `docker compose` takes by itself: a developer's own cluster and data stay."""

_GOSSIP = "/event_store.client.gossip.Gossip/Read"
_PATIENCE = 2.0
"""Seconds that a node may take to answer."""


def cluster_uri() -> str:
    """Return the connection string of the whole cluster."""
    nodes = ",".join(f"localhost:{port}" for port in NODES)
    return f"esdb://admin:changeit@{nodes}?Tls=true&TlsCaFile={AUTHORITY}"


@contextmanager
def running_cluster() -> Iterator["Cluster"]:
    """Run the cluster; its data go with it."""
    from testcontainers.compose import DockerCompose

    os.environ["COMPOSE_PROJECT_NAME"] = PROJECT
    compose: Any = DockerCompose(
        ROOT,
        "docker-compose.yml",
        wait=False,  # it would take the certificates' container, which ends, for a failure
        profiles=["cluster"],
        services=list(NODES.values()),
    )
    try:
        compose.start()
        yield Cluster(compose)
    finally:
        compose.services = None  # what they depend on goes too
        compose.stop()
        del os.environ["COMPOSE_PROJECT_NAME"]


class Cluster:
    """The running cluster."""

    def __init__(self, compose: Any) -> None:
        self._compose = compose

    def kill(self, port: int) -> None:
        """Kill the node that is reached at `port`, as a power cut would; it stays down."""
        container = self._compose.get_container(NODES[port])
        subprocess.run(
            ["docker", "kill", "--signal=KILL", container.ID], check=True, capture_output=True
        )


async def leader_port(ports: Sequence[int], authority: bytes | None) -> int | None:
    """Return the port of the node that gossip names as the leader.

    Args:
        ports: Of the nodes to ask, one after the other.
        authority: Their root certificate; None for nodes without TLS.

    Returns:
        The leader's port, as the first says that knows one; None if nobody does.
    """
    for port in ports:
        for member in await _members(port, authority):
            if member.is_alive and member.state == type(member).Leader:
                found: int = member.http_end_point.port
                return found
    return None


async def _members(port: int, authority: bytes | None) -> Sequence[Any]:
    """Return what a node says of the cluster; nothing if it does not answer."""
    stubs = load_stubs()
    target = f"localhost:{port}"
    channel = (
        stubs.aio.insecure_channel(target)
        if authority is None
        else stubs.aio.secure_channel(target, stubs.grpc.ssl_channel_credentials(authority))
    )
    async with channel:
        read = channel.unary_unary(
            _GOSSIP,
            request_serializer=stubs.shared.Empty.SerializeToString,
            response_deserializer=stubs.gossip.ClusterInfo.FromString,
        )
        try:
            answer = await read(stubs.shared.Empty(), timeout=_PATIENCE)
        except stubs.grpc.RpcError:
            return ()
    return tuple(answer.members)

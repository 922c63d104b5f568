"""What the test of a real cluster is made of, tried on local servers: who leads, and where the nodes are."""

import re

import pytest

from tests.integration.certificates import openssl_is_missing
from tests.unit.test_eventstoredb_faults import free_port

pytest.importorskip("grpc", reason="no EventStoreDB client is installed: make test-clients")

from aion_es.testing.eventstoredb import TLS, LocalEventStoreDB
from tests.integration.cluster import NODES, ROOT, cluster_uri, leader_port


async def test_the_leader_is_found_by_asking_the_nodes() -> None:
    follower, leader = LocalEventStoreDB(), LocalEventStoreDB()
    async with follower, leader:
        follower.faults.step_down(port=leader.port)
        nodes = [free_port(), follower.port, leader.port]
        assert await leader_port(nodes, None) == leader.port


async def test_without_a_leader_there_is_none() -> None:
    server = LocalEventStoreDB()
    async with server:
        server.faults.step_down()
        assert await leader_port([server.port, free_port()], None) is None


@pytest.mark.skipif(openssl_is_missing(), reason="openssl is not installed: it makes certificates")
async def test_over_tls_the_leader_is_asked_by_who_trusts_its_certificate() -> None:
    tls, other = TLS.self_made(), TLS.self_made()
    server = LocalEventStoreDB(tls=tls)
    async with server:
        assert await leader_port([server.port], tls.authority) == server.port
        assert await leader_port([server.port], other.authority) is None


def test_the_nodes_are_those_of_the_compose_file() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    ports = re.findall(
        r"^  (node\d):\n(?:    .*\n)*?    ports: \[\"(\d+):2113\"\]", text, re.MULTILINE
    )
    told = re.findall(r"EVENTSTORE_ADVERTISE_NODE_PORT_TO_CLIENT_AS: \"(\d+)\"", text)
    assert {int(port): node for node, port in ports} == NODES
    assert [int(port) for port in told] == list(NODES)


def test_the_clusters_connection_string_is_that_of_the_compose_file() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    shown = re.search(r"esdb://admin:\S+", text)
    assert shown is not None
    nodes, _, options = cluster_uri().partition("?")
    relative = options.replace(f"{ROOT}/", "")
    assert f"{nodes}?{relative}".lower() == shown[0].lower()

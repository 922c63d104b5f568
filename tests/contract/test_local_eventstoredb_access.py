"""The local server, through a client: TLS, users, and what `$acl` allows."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from aion_es.testing.eventstoredb import TLS, LocalEventStoreDB
from tests.contract.local_server import connected, error, installed, make_client

client_package = installed()
NewEvent: Any = client_package.NewEvent
StreamState: Any = client_package.StreamState
AccessDenied = error(client_package, "AccessDeniedError")

USERS = {"admin": "changeit", "ops": "changeit", "alice": "wonderland"}

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="openssl is not installed: it makes the certificate"
)


@pytest.fixture(scope="module")
def tls() -> TLS:
    return TLS.self_made()


def uri_for(server: LocalEventStoreDB, user: str, password: str) -> str:
    return f"esdb://{user}:{password}@localhost:{server.port}?Tls=true"


def trusting(tls: TLS) -> dict[str, str]:
    assert tls.authority is not None
    return {"root_certificates": tls.authority.decode()}


async def append(client: Any, stream: str) -> None:
    event = NewEvent(type="A", data=b"{}")
    await client.append_to_stream(stream, current_version=StreamState.ANY, events=[event])


def test_the_certificate_that_it_makes_is_signed_by_an_authority_and_is_none(
    tls: TLS, tmp_path: Path
) -> None:
    """Clients in Rust refuse a certificate that is its own authority."""
    assert tls.authority is not None
    (tmp_path / "ca.crt").write_bytes(tls.authority)
    (tmp_path / "node.crt").write_bytes(tls.certificate)
    shown = subprocess.run(
        ["openssl", "x509", "-in", "node.crt", "-noout", "-text"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert ("CA:FALSE" in shown, "CA:TRUE" in shown) == (True, False)
    verified = subprocess.run(
        ["openssl", "verify", "-CAfile", "ca.crt", "node.crt"],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
    )
    assert (verified.returncode, verified.stdout) == (0, "node.crt: OK\n")


async def test_over_tls_the_uri_carries_the_first_user(tls: TLS) -> None:
    server = LocalEventStoreDB(tls=tls, users=USERS)
    async with server as uri, connected(client_package, uri, **trusting(tls)) as client:
        assert uri == f"esdb://admin:changeit@127.0.0.1:{server.port}?Tls=true"
        await append(client, "s")
        assert len(await client.get_stream("s")) == 1


async def test_a_cluster_of_one_is_discovered_over_tls(tls: TLS) -> None:
    server = LocalEventStoreDB(tls=tls, users=USERS)
    async with server:
        node = f"localhost:{server.port}"
        uri = f"esdb://admin:changeit@{node},{node}?NodePreference=leader"
        async with connected(client_package, uri, **trusting(tls)) as client:
            await append(client, "s")
            assert len(await client.get_stream("s")) == 1


async def test_a_wrong_password_is_refused(tls: TLS) -> None:
    server = LocalEventStoreDB(tls=tls, users=USERS)
    async with server:
        client = make_client(client_package, uri_for(server, "admin", "wrong"), **trusting(tls))
        await client.connect()
        with pytest.raises(Exception, match="401"):
            await append(client, "s")
        await client.close()


async def test_a_user_may_not_touch_system_streams_or_read_all(tls: TLS) -> None:
    server = LocalEventStoreDB(tls=tls, users=USERS)
    async with server:
        uri = uri_for(server, "alice", "wonderland")
        async with connected(client_package, uri, **trusting(tls)) as alice:
            await append(alice, "s")
            with pytest.raises(AccessDenied):
                await append(alice, "$system")
            with pytest.raises(Exception, match="Access Denied"):
                [event async for event in await alice.read_all()]
            with pytest.raises(Exception, match="Access Denied"):
                await alice.create_subscription_to_stream("g", "s")


async def test_an_acl_says_who_may_read_and_write_a_stream(tls: TLS) -> None:
    server = LocalEventStoreDB(tls=tls, users=USERS)
    async with server:
        admin_uri, alice_uri = (
            uri_for(server, "admin", "changeit"),
            uri_for(server, "alice", "wonderland"),
        )
        async with (
            connected(client_package, admin_uri, **trusting(tls)) as admin,
            connected(client_package, alice_uri, **trusting(tls)) as alice,
        ):
            await append(admin, "s")
            acl = {"$acl": {"$r": "alice", "$w": ["$admins"]}}
            await admin.set_stream_metadata("s", metadata=acl)
            assert len(await alice.get_stream("s")) == 1
            with pytest.raises(AccessDenied):
                await append(alice, "s")
            await append(admin, "s")


async def test_a_client_that_does_not_trust_the_certificate_cannot_connect(tls: TLS) -> None:
    server = LocalEventStoreDB(tls=tls, users=USERS)
    async with server:
        client = make_client(client_package, uri_for(server, "admin", "changeit"))
        await client.connect()
        with pytest.raises(
            (error(client_package, "SSLError"), error(client_package, "ServiceUnavailable"))
        ):
            await append(client, "s")
        await client.close()

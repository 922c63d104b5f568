"""The EventStoreDB adapter with TLS, users and access lists: what works, and each refusal by name."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aion_es.errors import AccessDeniedError, StoreUnavailableError, UnknownStoreURLError
from aion_es.ids import StreamName
from aion_es.store.eventstoredb import EventStoreDBStore
from aion_es.store.port import ANY, NO_STREAM, NewEvent
from aion_es.testing.store_contract.base import STREAM, an_event, collect, some_events
from tests.integration.certificates import (
    Certificates,
    make_certificates,
    make_user_certificate,
    openssl_is_missing,
)

pytest.importorskip("grpc", reason="no EventStoreDB client is installed: make test-clients")

from aion_es.testing.eventstoredb import TLS, LocalEventStoreDB

pytestmark = pytest.mark.skipif(
    openssl_is_missing(), reason="openssl is not installed: it makes the certificates"
)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
async def server(certificates: Certificates) -> AsyncIterator[LocalEventStoreDB]:
    server = LocalEventStoreDB(
        tls=TLS(certificates.certificate.read_bytes(), certificates.key.read_bytes()),
        users={"admin": "changeit", "clerk": "secret"},
    )
    async with server:
        yield server


def url(server: LocalEventStoreDB, user: str, authority: Path) -> str:
    return f"esdb://{user}@127.0.0.1:{server.port}?Tls=true&TlsCaFile={authority}"


async def test_with_the_right_certificate_and_password_everything_works(
    server: LocalEventStoreDB, certificates: Certificates
) -> None:
    async with await EventStoreDBStore.open(
        url(server, "admin:changeit", certificates.authority)
    ) as store:
        await store.append(STREAM, some_events(2), NO_STREAM)
        assert len(await collect(store.read_all())) == 2


async def test_a_wrong_password_is_a_typed_error_that_does_not_show_it(
    server: LocalEventStoreDB, certificates: Certificates
) -> None:
    with pytest.raises(AccessDeniedError, match="check user and password") as refused:
        await EventStoreDBStore.open(url(server, "admin:wrongpass", certificates.authority))
    assert "wrongpass" not in str(refused.value)


async def test_a_certificate_that_is_not_trusted_is_a_typed_error(
    server: LocalEventStoreDB, tmp_path: Path
) -> None:
    other = make_certificates(tmp_path)
    with pytest.raises(StoreUnavailableError, match="authority in TlsCaFile has signed"):
        await EventStoreDBStore.open(url(server, "admin:changeit", other.authority))


async def test_no_tls_against_a_server_with_tls_is_a_typed_error(server: LocalEventStoreDB) -> None:
    with pytest.raises(StoreUnavailableError, match="Tls=true or Tls=false"):
        await EventStoreDBStore.open(f"esdb://127.0.0.1:{server.port}?Tls=false")


async def test_no_permission_on_a_stream_is_a_typed_error(
    server: LocalEventStoreDB, certificates: Certificates
) -> None:
    acl = NewEvent(
        an_event().event_id, "$metadata", b'{"$acl": {"$w": "admin", "$r": "admin"}}', b""
    )
    admin = await EventStoreDBStore.open(url(server, "admin:changeit", certificates.authority))
    clerk = await EventStoreDBStore.open(url(server, "clerk:secret", certificates.authority))
    async with admin, clerk:
        await admin.append(STREAM, some_events(1), NO_STREAM)
        await admin.append(StreamName(f"$${STREAM}"), [acl], ANY)
        with pytest.raises(AccessDeniedError, match=f"{STREAM}'; check user and password"):
            await clerk.append(STREAM, some_events(1), 0)
        with pytest.raises(AccessDeniedError, match=STREAM):
            await collect(clerk.read(STREAM))
        assert len(await collect(admin.read(STREAM))) == 1


async def test_a_user_certificate_stands_for_the_user_that_it_names(
    certificates: Certificates,
) -> None:
    admin = make_user_certificate(certificates, "admin")
    stranger = make_user_certificate(certificates, "stranger")
    tls = TLS(
        certificates.certificate.read_bytes(),
        certificates.key.read_bytes(),
        client_root=certificates.authority.read_bytes(),
    )
    server = LocalEventStoreDB(tls=tls, users={"admin": "changeit"})
    async with server:
        for shown, opens in ((admin, True), (stranger, False)):
            place = f"127.0.0.1:{server.port}?Tls=true&TlsCaFile={certificates.authority}"
            shows = f"UserCertFile={shown.certificate}&UserKeyFile={shown.key}"
            store = await EventStoreDBStore.open(f"kurrentdb://{place}&{shows}")
            async with store:
                if opens:
                    await store.append(STREAM, some_events(1), NO_STREAM)
                else:
                    with pytest.raises(AccessDeniedError):
                        await store.append(STREAM, some_events(1), ANY)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"no certificate", id="garbage"),
        pytest.param(b"\xff\xfe", id="not_text"),
        pytest.param(
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", id="damaged"
        ),
    ],
)
async def test_a_file_that_is_no_certificate_is_a_typed_error_that_names_the_option(
    server: LocalEventStoreDB, tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "ca.crt"
    file.write_bytes(content)
    with pytest.raises(UnknownStoreURLError, match="TlsCaFile holds no certificate") as refused:
        await EventStoreDBStore.open(url(server, "admin:changeit", file))
    assert "changeit" not in str(refused.value)


async def test_a_user_certificate_with_the_wrong_key_is_a_typed_error_that_names_the_options(
    server: LocalEventStoreDB, certificates: Certificates
) -> None:
    place = f"127.0.0.1:{server.port}?Tls=true&TlsCaFile={certificates.authority}"
    shows = f"UserCertFile={certificates.authority}&UserKeyFile={certificates.key}"
    with pytest.raises(UnknownStoreURLError, match="UserCertFile and UserKeyFile are no"):
        await EventStoreDBStore.open(f"esdb://{place}&{shows}")


async def test_a_host_that_the_certificate_does_not_name_is_a_typed_error(
    certificates: Certificates,
) -> None:
    tls = TLS(certificates.certificate.read_bytes(), certificates.key.read_bytes())
    server = LocalEventStoreDB(tls=tls, host="127.0.0.2")
    async with server:
        wrong = f"esdb://admin:changeit@127.0.0.2:{server.port}?TlsCaFile={certificates.authority}"
        with pytest.raises(StoreUnavailableError, match="names this host"):
            await EventStoreDBStore.open(wrong)

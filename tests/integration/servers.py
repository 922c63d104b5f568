"""Real servers in containers, one per kind and test run."""

import importlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.integration.certificates import Certificates, openssl_is_missing

PORT = 2113
EVENTSTOREDB = "eventstore/eventstore:24.10"
KURRENTDB = "kurrentplatform/kurrentdb:26.0"


@dataclass(frozen=True)
class Kind:
    """What to run.

    Attributes:
        image: Name and tag.
        variables: Prefix of its environment variables.
        scheme: Of its connection strings.
        tls: With certificate, user and password.
    """

    image: str
    variables: str
    scheme: str
    tls: bool

    def __str__(self) -> str:
        return f"{self.image} {'with TLS' if self.tls else 'insecure'}"


KINDS = [
    Kind(image, variables, scheme, tls)
    for image, variables, scheme in (
        (EVENTSTOREDB, "EVENTSTORE", "esdb"),
        (KURRENTDB, "KURRENTDB", "kurrentdb"),
    )
    for tls in (False, True)
]


def why_no_docker() -> str | None:
    """Return why no container can be run; None if one can."""
    try:
        docker = importlib.import_module("docker")
        importlib.import_module("testcontainers.core.container")
    except ModuleNotFoundError as error:
        return f"{error.name} is not installed"
    if shutil.which("docker") is None:
        return "the docker command is not installed"
    try:
        client = docker.from_env(timeout=5)
        client.ping()
        client.close()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the reason
        return f"no Docker engine answers: {error}"
    return None


def skip_without_docker() -> None:
    """Return if containers can be run; else skip the module that asks, saying why.

    Raises:
        RuntimeError: They cannot, and `AION_ES_REQUIRE_DOCKER` says that they must.
    """
    reason = why_no_docker() or (
        "openssl is not installed: it makes the certificates" if openssl_is_missing() else None
    )
    if reason is None:
        return
    if os.environ.get("AION_ES_REQUIRE_DOCKER"):
        raise RuntimeError(reason)
    pytest.skip(reason, allow_module_level=True)


@contextmanager
def running(kind: Kind, certificates: Certificates) -> Iterator[str]:
    """Run a server; yield its connection string."""
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.wait_strategies import HttpWaitStrategy

    container: Any = DockerContainer(kind.image).with_exposed_ports(PORT)
    settings = {
        "MEM_DB": "true",
        "CLUSTER_SIZE": "1",
        "NODE_IP": "0.0.0.0",
        "RUN_PROJECTIONS": "None",
    }
    waiting: Any = HttpWaitStrategy(PORT, "/health/live").for_status_code_matching(
        lambda code: code in {200, 204}
    )
    if kind.tls:
        settings |= {
            "CERTIFICATE_FILE": f"/certs/{certificates.certificate.name}",
            "CERTIFICATE_PRIVATE_KEY_FILE": f"/certs/{certificates.key.name}",
            "TRUSTED_ROOT_CERTIFICATES_PATH": "/certs/authority",
            "DEFAULT_ADMIN_PASSWORD": "changeit",
            "DEFAULT_OPS_PASSWORD": "changeit",
        }
        _make_readable(certificates)
        container = container.with_volume_mapping(str(certificates.key.parent), "/certs", "ro")
        waiting = waiting.using_tls(insecure=True)
    else:
        settings["INSECURE"] = "true"
    for name, value in settings.items():
        container = container.with_env(f"{kind.variables}_{name}", value)
    with container.waiting_for(waiting):
        place = f"{container.get_container_host_ip()}:{container.get_exposed_port(PORT)}"
        if kind.tls:
            authority = certificates.authority
            yield f"{kind.scheme}://admin:changeit@{place}?Tls=true&TlsCaFile={authority}"
        else:
            yield f"{kind.scheme}://{place}?Tls=false"


def _make_readable(certificates: Certificates) -> None:
    """Let the server, which runs as another user, read its files, and find the authority alone in a directory."""
    directory = certificates.key.parent
    authorities = directory / "authority"
    authorities.mkdir(exist_ok=True)
    (authorities / "ca.crt").write_bytes(certificates.authority.read_bytes())
    files: tuple[Path, ...] = (
        directory,
        authorities,
        authorities / "ca.crt",
        certificates.certificate,
        certificates.key,
    )
    for file in files:
        file.chmod(0o755 if file.is_dir() else 0o644)

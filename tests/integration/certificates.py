"""Certificates made for one test run with openssl: an authority, and a server's, for 127.0.0.1 and localhost."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

NODE = "eventstoredb-node"
"""The common name by which the nodes of a cluster know each other."""


@dataclass(frozen=True)
class Certificates:
    """Files in PEM."""

    authority: Path
    certificate: Path
    key: Path


def openssl_is_missing() -> bool:
    return shutil.which("openssl") is None


def make_certificates(directory: Path) -> Certificates:
    """Make an authority and a certificate that it has signed, in `directory`."""
    made = Certificates(directory / "ca.crt", directory / "node.crt", directory / "node.key")
    _openssl(
        *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
        *("-subj", "/CN=aion-es tests"),
        *("-keyout", str(directory / "ca.key"), "-out", str(made.authority)),
    )
    _sign(made.authority, made.certificate, made.key, NODE)
    return made


def make_user_certificate(certificates: Certificates, user: str) -> Certificates:
    """Make a certificate for a user, beside those of the authority that signs it."""
    directory = certificates.authority.parent
    made = Certificates(
        certificates.authority, directory / f"{user}.crt", directory / f"{user}.key"
    )
    _sign(made.authority, made.certificate, made.key, user)
    return made


def _sign(authority: Path, certificate: Path, key: Path, name: str) -> None:
    request, extensions = certificate.with_suffix(".csr"), certificate.with_suffix(".ext")
    extensions.write_text(
        "basicConstraints=CA:FALSE\n"
        "keyUsage=digitalSignature,keyEncipherment\n"
        "extendedKeyUsage=serverAuth,clientAuth\n"
        "subjectAltName=DNS:localhost,IP:127.0.0.1\n"
    )
    _openssl(
        *("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}"),
        *("-keyout", str(key), "-out", str(request)),
    )
    _openssl(
        *("x509", "-req", "-in", str(request), "-days", "2", "-extfile", str(extensions)),
        *("-CA", str(authority), "-CAkey", str(authority.with_suffix(".key")), "-CAcreateserial"),
        *("-out", str(certificate)),
    )


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)

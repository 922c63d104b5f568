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
    ca_key, request, extra = directory / "ca.key", directory / "node.csr", directory / "node.ext"
    extra.write_text(
        "basicConstraints=CA:FALSE\n"
        "keyUsage=digitalSignature,keyEncipherment\n"
        "extendedKeyUsage=serverAuth,clientAuth\n"
        "subjectAltName=DNS:localhost,IP:127.0.0.1\n"
    )
    _openssl(
        *(
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=aion-es tests",
        ),
        *("-keyout", str(ca_key), "-out", str(made.authority)),
    )
    _openssl(
        *("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={NODE}"),
        *("-keyout", str(made.key), "-out", str(request)),
    )
    _openssl(
        *("x509", "-req", "-in", str(request), "-days", "2", "-extfile", str(extra)),
        *("-CA", str(made.authority), "-CAkey", str(ca_key), "-CAcreateserial"),
        *("-out", str(made.certificate)),
    )
    return made


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)

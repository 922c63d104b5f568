"""Certificates for the local server: given ones, or one that it makes for itself, with its authority."""

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_AUTHORITY: Final = "/CN=aion-es local authority"
_SERVER: Final = "/CN=aion-es local EventStoreDB"
_EXTENSIONS: Final = (
    "basicConstraints=critical,CA:FALSE\n"
    "keyUsage=critical,digitalSignature,keyEncipherment\n"
    "extendedKeyUsage=serverAuth\n"
    "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1\n"
)
_DAYS: Final = "30"


@dataclass(frozen=True, slots=True)
class TLS:
    """A server's certificate, in PEM; it should name localhost, 127.0.0.1 and ::1.

    Attributes:
        certificate: The certificate, and those between it and the root.
        key: Its private key.
        client_root: Clients have to show a certificate of this root. It stands for the user whose
            name is its common name, unless a call brings a password. None asks nobody.
        authority: The root certificate that a client has to trust, if it is known here.
    """

    certificate: bytes
    key: bytes
    client_root: bytes | None = None
    authority: bytes | None = None

    @classmethod
    def self_made(cls) -> "TLS":
        """Return a certificate and its authority, made just now; valid for 30 days and trusted by nobody.

        A client trusts it when given `authority` as its root certificate. A certificate that is its own
        authority would be shorter, and some clients refuse it. Calls the program `openssl`, and waits
        for it.

        Raises:
            FileNotFoundError: There is no such program.
            subprocess.CalledProcessError: It failed; its words are in `stderr`.
        """
        openssl = shutil.which("openssl")
        if openssl is None:
            raise FileNotFoundError("openssl is needed to make a certificate; or give one")
        with tempfile.TemporaryDirectory() as directory:
            return _make(openssl, Path(directory))


def _make(openssl: str, directory: Path) -> TLS:
    authority, authority_key = directory / "ca.crt", directory / "ca.key"
    certificate, key = directory / "node.crt", directory / "node.key"
    request, extensions = directory / "node.csr", directory / "node.ext"
    extensions.write_text(_EXTENSIONS)
    new = ["-newkey", "rsa:2048", "-nodes"]
    signer = ["-CA", str(authority), "-CAkey", str(authority_key), "-CAcreateserial"]
    for arguments in (
        [
            *("req", "-x509", *new, "-days", _DAYS, "-subj", _AUTHORITY),
            *("-keyout", str(authority_key), "-out", str(authority)),
        ],
        ["req", *new, "-subj", _SERVER, "-keyout", str(key), "-out", str(request)],
        [
            *("x509", "-req", "-in", str(request), "-days", _DAYS, *signer),
            *("-extfile", str(extensions), "-out", str(certificate)),
        ],
    ):
        subprocess.run([openssl, *arguments], check=True, capture_output=True)  # noqa: S603 - no shell, our own words
    return TLS(certificate.read_bytes(), key.read_bytes(), authority=authority.read_bytes())

"""Certificates for the local server: given ones, or one that it makes for itself."""

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_SUBJECT: Final = "/CN=aion-es local EventStoreDB"
_NAMES: Final = "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1"
_DAYS: Final = "30"


@dataclass(frozen=True, slots=True)
class TLS:
    """A server's certificate, in PEM; it should name localhost, 127.0.0.1 and ::1.

    Attributes:
        certificate: The certificate, and those between it and the root.
        key: Its private key.
        client_root: Clients may show a certificate of this root; None asks nobody.
    """

    certificate: bytes
    key: bytes
    client_root: bytes | None = None

    @classmethod
    def self_made(cls) -> "TLS":
        """Return a certificate made just now; valid for 30 days and trusted by nobody.

        A client trusts it when given `certificate` as its root certificate. Calls the program
        `openssl`, and waits for it.

        Raises:
            FileNotFoundError: There is no such program.
            subprocess.CalledProcessError: It failed; its words are in `stderr`.
        """
        openssl = shutil.which("openssl")
        if openssl is None:
            raise FileNotFoundError("openssl is needed to make a certificate; or give one")
        with tempfile.TemporaryDirectory() as directory:
            certificate, key = Path(directory) / "certificate.pem", Path(directory) / "key.pem"
            request = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", _DAYS]
            names = ["-subj", _SUBJECT, "-addext", _NAMES]
            files = ["-keyout", str(key), "-out", str(certificate)]
            subprocess.run([*request, *names, *files], check=True, capture_output=True)  # noqa: S603 - no shell, our own words
            return cls(certificate.read_bytes(), key.read_bytes())

"""Certificates that a connection string names, looked at before gRPC takes them.

gRPC says of a file that is no certificate only that it could not connect.
"""

import ssl
from urllib.parse import parse_qs


def check_certificates(url: str) -> None:
    """Return if the files that a connection string names hold what they should.

    Args:
        url: A connection string that a client package has accepted, so its files can be read.

    Raises:
        ValueError: One does not; says which.
    """
    query = parse_qs(url.partition("?")[2])
    options = {name.lower(): values[0] for name, values in query.items()}
    if options.get("tls", "true").lower() != "true":
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if "tlscafile" in options:
        try:
            context.load_verify_locations(options["tlscafile"])
        except ssl.SSLError as error:
            raise ValueError(f"TlsCaFile holds no certificate: {error}") from error
    if "usercertfile" in options and "userkeyfile" in options:
        try:
            # gRPC takes no password, and OpenSSL would ask the terminal for one.
            context.load_cert_chain(options["usercertfile"], options["userkeyfile"], password=str)
        except (ssl.SSLError, ValueError) as error:
            reason = f"UserCertFile and UserKeyFile are no certificate with its key: {error}"
            raise ValueError(reason) from error

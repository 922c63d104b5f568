"""`aion-es dev-server`: runs the local EventStoreDB server until it is told to end."""

import asyncio
import signal
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import quote

import typer

from aion_es.errors import InvalidArgumentError
from aion_es.testing.eventstoredb import TLS, LocalEventStoreDB

CERTIFICATE: Final = "node.crt"
KEY: Final = "node.key"
AUTHORITY: Final = "ca.crt"


def dev_server(
    *,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for a free one.")] = 2113,
    host: Annotated[
        str | None,
        typer.Option(
            help="The address to listen on. Without it: this machine only, IPv4 and IPv6."
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The SQLite file to keep events in. Without it: in memory."
        ),
    ] = None,
    tls: Annotated[
        Path | None,
        typer.Option(
            metavar="DIRECTORY",
            help=f"Speak TLS with {CERTIFICATE} and {KEY} in there, made with openssl if absent.",
        ),
    ] = None,
    user: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME:PASSWORD",
            help="Who may enter, once for each; `admin` may do everything. Without it: everybody.",
        ),
    ] = None,
) -> None:
    """Serve EventStoreDB's protocol, for development and tests; not for production.

    Prints the connection string, then serves until Ctrl-C or SIGTERM.
    """
    try:
        server = LocalEventStoreDB(
            path=data, port=port, host=host, users=_users(user or ()), tls=_certificate(tls)
        )
    except ImportError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    asyncio.run(_serve(server, str(data or "memory"), _trust(tls)))


async def _serve(server: LocalEventStoreDB, place: str, trust: str) -> None:
    end = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end.set)
    async with server as uri:  # starting it logs the warning that it is not for production
        typer.echo(uri + trust)
        typer.echo(f"events are kept in {place}; Ctrl-C ends the server", err=True)
        await end.wait()


def _users(given: Iterable[str]) -> dict[str, str] | None:
    """Return passwords by name; None without any.

    Raises:
        InvalidArgumentError: One has no name or no password.
    """
    users: dict[str, str] = {}
    for text in given:
        name, _, password = text.partition(":")
        if not name or not password:
            raise InvalidArgumentError("--user", f"{name!r} needs the form NAME:PASSWORD")
        users[name] = password
    return users or None


def _certificate(directory: Path | None) -> TLS | None:
    """Return the certificate of a directory, made there if there is none.

    Raises:
        InvalidArgumentError: There is one of the two files, or they cannot be made or read.
    """
    if directory is None:
        return None
    certificate, key = directory / CERTIFICATE, directory / KEY
    try:
        if not certificate.exists() and not key.exists():
            made = TLS.self_made()
            directory.mkdir(parents=True, exist_ok=True)
            key.touch(mode=0o600)
            key.write_bytes(made.key)
            certificate.write_bytes(made.certificate)
            (directory / AUTHORITY).write_bytes(made.authority or b"")
        return TLS(certificate.read_bytes(), key.read_bytes())
    except (OSError, subprocess.CalledProcessError) as error:
        raise InvalidArgumentError("--tls", str(error)) from error


def _trust(directory: Path | None) -> str:
    """Return the option that makes a client trust the certificate, if its authority is in the directory."""
    if directory is None or not (directory / AUTHORITY).exists():
        return ""
    return f"&TlsCaFile={quote(str((directory / AUTHORITY).absolute()))}"

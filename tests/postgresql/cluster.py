"""A PostgreSQL cluster that lives as long as the tests: on loopback, in a temporary directory."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

DEBIAN: Final = Path("/usr/lib/postgresql")
"""Where Debian's packages put the programs, by major version; they are not on the PATH."""
_START_ATTEMPTS: Final = 3
_FAST: Final = ("fsync=off", "full_page_writes=off", "shared_buffers=64MB", "max_connections=60")
"""The cluster is thrown away: nothing of it needs to survive the machine."""


class NoPostgreSQLError(Exception):
    """There is none to start; the text says why."""


class Cluster:
    """A running cluster; each test gets a database of its own in it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._count = 0

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://aion@127.0.0.1:{self._port}/{database}"

    def create_database(self) -> str:
        """Return the name of a new, empty database."""
        self._count += 1
        name = f"test_{self._count}"
        self._execute(f"CREATE DATABASE {name}")
        return name

    def drop_database(self, name: str) -> None:
        self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    def _execute(self, statement: str) -> None:
        with closing(connected(self._port)) as connection:
            connection.execute(statement)


def connected(port: int) -> Any:
    import psycopg

    return psycopg.connect(
        f"host=127.0.0.1 port={port} user=aion dbname=postgres", autocommit=True, connect_timeout=5
    )


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    """Start a cluster, and take it away at the end.

    Raises:
        NoPostgreSQLError: It is not installed here, or nobody may run it.
    """
    try:
        import psycopg  # noqa: F401 - only asked whether it is there
    except ImportError as error:
        raise NoPostgreSQLError("psycopg is not installed (extra postgresql)") from error
    programs, as_user = _programs(), _as_user()
    home = Path(tempfile.mkdtemp(prefix="aion-pg-"))
    try:
        if as_user:
            shutil.chown(home, as_user.pw_uid, as_user.pw_gid)
        _run(programs / "initdb", as_user, home, *_initdb_options(home))
        with _server(programs / "postgres", as_user, home) as port:
            yield Cluster(port)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _initdb_options(home: Path) -> tuple[str, ...]:
    # A language's collation, unlike ours: what must be in the order of code points has to say so.
    collation = ("--locale-provider=icu", "--icu-locale=en-US", "--locale=C.UTF-8")
    return ("-D", str(home / "data"), "-U", "aion", "-A", "trust", "-N", "-E", "UTF8", *collation)


def _programs() -> Path:
    found = sorted(DEBIAN.glob("*/bin"), key=lambda path: float(path.parent.name), reverse=True)
    on_path = shutil.which("postgres")
    if on_path:
        found.append(Path(on_path).resolve().parent)
    for path in found:
        if (path / "initdb").exists() and (path / "postgres").exists():
            return path
    raise NoPostgreSQLError("PostgreSQL is not installed (Debian: apt-get install postgresql)")


def _as_user() -> pwd.struct_passwd | None:
    """Return whom to run it as, `None` for ourselves: it refuses to be run by root."""
    if os.geteuid() != 0:
        return None
    if shutil.which("setpriv") is None:
        raise NoPostgreSQLError("PostgreSQL refuses to be run by root, and there is no setpriv")
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise NoPostgreSQLError("PostgreSQL refuses to be run by root, and there is no other user")


def _command(program: Path, as_user: pwd.struct_passwd | None) -> list[str]:
    if as_user is None:
        return [str(program)]
    ids = f"--reuid={as_user.pw_uid}", f"--regid={as_user.pw_gid}"
    return ["setpriv", *ids, "--clear-groups", str(program)]


def _run(program: Path, as_user: pwd.struct_passwd | None, home: Path, *options: str) -> None:
    done = subprocess.run(
        [*_command(program, as_user), *options],
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise NoPostgreSQLError(f"{program.name} failed: {done.stderr.strip()[-300:]}")


@contextmanager
def _server(program: Path, as_user: pwd.struct_passwd | None, home: Path) -> Iterator[int]:
    for _ in range(_START_ATTEMPTS):  # somebody may take the port before the server does
        port = _free_port()
        settings = ("listen_addresses=127.0.0.1", f"unix_socket_directories={home}", *_FAST)
        options = [part for setting in settings for part in ("-c", setting)]
        command = _command(program, as_user)
        if as_user is not None:  # it goes with us, even if we are killed
            command[1:1] = ["--pdeathsig", "QUIT"]
        with (home / "log").open("ab") as log:
            process = subprocess.Popen(
                [*command, "-D", str(home / "data"), "-p", str(port), *options],
                cwd=home,
                stdout=log,
                stderr=log,
            )
        try:
            if _answers(process, port):
                yield port
                return
        finally:
            process.send_signal(signal.SIGINT)  # a fast shutdown: it does not wait for clients
            process.wait(20)
    raise NoPostgreSQLError(f"it did not start: {(home / 'log').read_text()[-300:]}")


def _answers(process: "subprocess.Popen[bytes]", port: int) -> bool:
    """Wait until the server takes connections; False if it ended instead."""
    import psycopg

    for _ in range(300):
        try:
            connected(port).close()
        except psycopg.OperationalError:
            try:
                process.wait(0.1)
            except subprocess.TimeoutExpired:
                continue
            return False
        return True
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

"""The files that the demo leaves behind, and the care not to take anybody else's for its own."""

import asyncio
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from aion_es.errors import AionError
from aion_es.store.url import open_store
from examples.order_fulfilment.effects import APPLICATION_ID, Ledger
from examples.order_fulfilment.worker import identity

_APPLICATION_ID_AT: Final = 68


class RefusedError(Exception):
    """The demo will not do this. The text says why, and what to do instead; nothing was changed."""


class Files(NamedTuple):
    """The events, the read model that follows from them, and the ledger of the world outside."""

    events: Path
    read_model: Path
    ledger: Path

    @classmethod
    def beside(cls, db: Path) -> "Files":
        """Return the demo's files for events in `db`.

        Raises:
            RefusedError: `db` cannot be the name of a database here.
        """
        if db.suffix != ".db" or any(c in str(db) for c in "?#%") or db.is_dir():
            raise RefusedError(f"--db {db}: choose the name of a file that ends in .db")
        if not os.access(db.parent, os.W_OK | os.X_OK):
            raise RefusedError(f"--db {db}: {db.parent} is no directory that can be written to")
        return cls(db, db.with_suffix(".readmodel.db"), db.with_suffix(".ledger.db"))

    def present(self) -> list[Path]:
        """Return those that are there, SQLite's own companions included."""
        names = [path.with_name(path.name + end) for path in self for end in ("", "-wal", "-shm")]
        return [path for path in names if path.exists() or path.is_symlink()]

    def replace(self, ledger: Path) -> list[Path]:
        """Begin anew with `ledger`; return what was removed."""
        former = self.present()
        for path in former:
            path.unlink()
        ledger.rename(self.ledger)
        return former


def require_ours(files: Files) -> None:
    """Return if no file is in the way, or if all were left behind by an earlier demo.

    Raises:
        RefusedError: One was not, or that demo is still running.
    """
    if not files.present():
        return
    if not (_is_ledger(files.ledger) and _belongs(files)):
        raise RefusedError(
            f"{files.present()[0]} was not made by this demo, so it is left as it is; "
            "choose another file with --db"
        )
    with locked(files.ledger):
        pass


def _is_ledger(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        header = file.read(_APPLICATION_ID_AT + 4)
    return header[_APPLICATION_ID_AT:] == APPLICATION_ID.to_bytes(4, "big")


def _belongs(files: Files) -> bool:
    """Whether the events are those that the ledger was kept for, and not another file of the same name."""
    ledger = Ledger(files.ledger)
    noted = ledger.noted("store")
    ledger.close()
    if noted is None or not files.events.exists():
        return True

    async def found() -> str:
        store = await open_store(f"sqlite:///{files.events}")
        try:
            return await identity(store)
        finally:
            await store.aclose()

    try:
        return asyncio.run(found()) == noted
    except AionError:
        return False


@contextmanager
def locked(ledger: Path) -> Iterator[None]:
    """Keep other demos away from a ledger.

    Raises:
        RefusedError: One is at work on it.
    """
    with ledger.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RefusedError(f"another demo is at work on {ledger}; wait for its end") from error
        yield

"""A read model as a killed engine leaves it: a copy of one moment, with nobody alive in it."""

import sqlite3
from contextlib import closing, suppress
from pathlib import Path


def copy_left_behind(source: Path, destination: Path) -> None:
    """Copy the rows as they are now; whoever is named in them as alive is known to be dead."""
    with (
        closing(sqlite3.connect(source)) as left,
        closing(sqlite3.connect(destination)) as copy,
    ):
        left.backup(copy)
        copy.execute("DELETE FROM workers")
        with suppress(sqlite3.OperationalError):  # it died before there was any
            copy.execute("DELETE FROM runner_lease")
        copy.commit()

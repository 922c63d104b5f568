"""The net change of a set of rows: what a batch did to them, less what it undid."""

from collections.abc import Iterable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Rows(Generic[K, V]):
    """One run's rows in one table: as they are now, and which of them the database has yet to learn of.

    Attributes:
        now: The rows by key.
        changed: Keys of the rows that were put or dropped since the last `settle`, each with whether the
            database has such a row.
    """

    __slots__ = ("changed", "now")

    def __init__(self, stored: Iterable[tuple[K, V]] = ()) -> None:
        """Begin with what the database holds."""
        self.now: dict[K, V] = dict(stored)
        self.changed: dict[K, bool] = {}

    def put(self, key: K, row: V) -> None:
        """Write or replace a row."""
        self.changed.setdefault(key, key in self.now)
        self.now[key] = row

    def drop(self, key: K) -> V | None:
        """Take a row away; there need not be one."""
        self.changed.setdefault(key, key in self.now)
        return self.now.pop(key, None)

    def clear(self) -> None:
        """Take every row away."""
        for key in self.now:
            self.changed.setdefault(key, True)
        self.now.clear()

    def settle(self) -> tuple[list[tuple[K, V]], list[K]]:
        """Return the rows to write and the keys to delete, and take them as done."""
        written = [(key, self.now[key]) for key in self.changed if key in self.now]
        deleted = [
            key for key, is_stored in self.changed.items() if is_stored and key not in self.now
        ]
        self.changed = {}
        return written, deleted

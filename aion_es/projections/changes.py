"""The net change of a set of rows: what a batch did to them, less what it undid."""

from collections.abc import Iterable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Rows(Generic[K, V]):
    """One run's rows in one table: as they are now, and which of them the database has yet to learn of.

    Attributes:
        now: The rows by key.
        changed: Keys of the rows that were put or dropped since the last `settle`.
    """

    __slots__ = ("_stored", "changed", "now")

    def __init__(self, stored: Iterable[tuple[K, V]] = ()) -> None:
        """Begin with what the database holds."""
        self.now: dict[K, V] = dict(stored)
        self._stored: set[K] = set(self.now)
        self.changed: set[K] = set()

    def put(self, key: K, row: V) -> None:
        """Write or replace a row."""
        self.now[key] = row
        self.changed.add(key)

    def drop(self, key: K) -> V | None:
        """Take a row away; there need not be one."""
        self.changed.add(key)
        return self.now.pop(key, None)

    def clear(self) -> None:
        """Take every row away."""
        self.changed.update(self.now)
        self.now.clear()

    def settle(self) -> tuple[list[tuple[K, V]], list[K]]:
        """Return the rows to write and the keys to delete, and take them as done."""
        written = [(key, self.now[key]) for key in self.changed if key in self.now]
        deleted = [key for key in self.changed if key in self._stored and key not in self.now]
        self._stored.update(key for key, _ in written)
        self._stored.difference_update(deleted)
        self.changed.clear()
        return written, deleted

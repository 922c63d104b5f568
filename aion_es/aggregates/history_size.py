"""How many bytes the events of one run have, up to any of them."""

from array import array
from collections.abc import Iterable


class HistorySize:
    """The sizes of a run's events, in their order: eight bytes each, summed when somebody asks."""

    __slots__ = ("_sizes", "_summed", "_total")

    def __init__(self) -> None:
        self.clear()

    def __len__(self) -> int:
        return len(self._sizes)

    def clear(self) -> None:
        """Begin with a run of no events."""
        self._sizes = array("q")
        self._summed = 0
        self._total = 0

    def add(self, sizes: Iterable[int]) -> None:
        """Take in the sizes of the next events."""
        self._sizes.extend(sizes)

    def of_first(self, length: int) -> int:
        """Return the bytes of the first `length` events. Cheap for who asks for one length after the other, rising."""
        if length < self._summed:
            self._summed = self._total = 0
        self._total += sum(self._sizes[self._summed : length])
        self._summed = length
        return self._total

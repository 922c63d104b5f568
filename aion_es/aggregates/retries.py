"""How often, and how fast, what failed for a passing reason is tried again."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from aion_es.errors import InvalidArgumentError


@dataclass(frozen=True, slots=True)
class RetrySettings:
    """How a conflicted command and an append to a store that is away are tried again.

    The first repeat comes at once; before the n-th further one lies a random time up to
    `min(initial * 2 ** n, longest)`.

    Attributes:
        attempts: In all, the first included; at least 1.
        initial: Default 5 ms.
        longest: Default 250 ms.
    """

    attempts: int = 20
    initial: timedelta = timedelta(milliseconds=5)
    longest: timedelta = timedelta(milliseconds=250)

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            InvalidArgumentError: There is not one attempt, or a time is negative.
        """
        if self.attempts < 1:
            raise InvalidArgumentError("attempts", f"must be at least 1, got {self.attempts}")
        if min(self.initial, self.longest) < timedelta(0):
            raise InvalidArgumentError("initial, longest", "must not be negative")


DEFAULT_RETRIES: Final = RetrySettings()

"""The root of the tree of errors, and its smallest family: our own bugs."""

from datetime import datetime
from typing import ClassVar, Final


class AionError(Exception):
    """The root: `except AionError` catches everything of ours and nothing else."""

    code: ClassVar[str] = "aion"


class InternalError(AionError):
    """aion-es broke a promise to itself. Please report it, with the text."""

    code = "internal"

    def __init__(self, what: str, at: datetime | None = None) -> None:
        super().__init__(what, at)
        self.what, self.at = what, at

    def __str__(self) -> str:
        return f"internal error, please report: {self.what}"


HASH_DIGITS: Final = 64
"""Length of a package's version: a SHA-256 in hexadecimal digits."""


def shown_version(version: str) -> str:
    """Return a version as people are shown it: of a content hash the beginning is enough."""
    text = str(version)  # it may be what a caller gave, and no text: that must be shown too
    return f"{text[:12]}…" if len(text) == HASH_DIGITS else text

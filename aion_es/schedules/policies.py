"""What a schedule does when actions would overlap, and about due times that nobody was there for."""

from enum import StrEnum


class Overlap(StrEnum):
    """What is done at a due time while an earlier action still runs."""

    SKIP = "skip"
    """Take no action."""
    BUFFER_ONE = "buffer_one"
    """Take it when the earlier one has ended; while one waits, take no more."""
    BUFFER_ALL = "buffer_all"
    """Take it when those before it have ended, one after the other."""
    CANCEL_PREVIOUS = "cancel_previous"
    """Ask the earlier one to end, and take this one when it has. Of several that wait the newest is taken."""
    TERMINATE_PREVIOUS = "terminate_previous"
    """End the earlier one without asking its code, and take this one."""
    ALLOW_ALL = "allow_all"
    """Take it, whatever runs."""


class CatchUp(StrEnum):
    """Which of the due times that were missed, because no engine was there, are made up for."""

    ONE = "one"
    """The last one."""
    ALL = "all"
    """All of them, in order, each by the overlap policy."""
    SKIP = "skip"
    """None."""

"""Time zones by IANA name."""

from datetime import UTC, tzinfo
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from aion_es.errors import ScheduleSpecError

_UTC_NAMES: Final = frozenset({"UTC", "Etc/UTC"})
_OF_THE_MACHINE: Final = ("localtime", "posixrules", "posix/", "right/")
"""Files beside the zones that are no zones, or that differ from one machine to the next."""


@lru_cache(maxsize=1024)
def zone_of(name: str) -> tzinfo:
    """Return the time zone of an IANA name ("Europe/Vienna").

    Raises:
        ScheduleSpecError: There is none; the position is that of the first part which no zone has.
    """
    if name in _UTC_NAMES:
        return UTC
    try:
        if not name.startswith(_OF_THE_MACHINE):
            return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        pass  # unknown, not a name at all, or a folder of zones
    raise ScheduleSpecError(name, _first_unknown(name), "is no IANA time zone")


def _first_unknown(name: str) -> int:
    """Return where the longest beginning of `name` ends that is made of whole parts of known zones."""
    known = [f"{zone}/" for zone in available_timezones()]
    position = 0
    for part in name.split("/"):
        begun = f"{name[: position + len(part)]}/"
        if not any(zone.startswith(begun) for zone in known):
            return position
        position += len(part) + 1
    return 0  # a region, and no zone in it

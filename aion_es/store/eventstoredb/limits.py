"""A stream's limits, as EventStoreDB keeps them: JSON in the newest event of the stream `$$name`.

The server itself hides the earlier lives of a deleted stream by the same `$tb` by which a user cuts a
stream short. So what the user asked for, and where the present life begins, are kept beside it under
names of our own, which the server leaves alone.
"""

import json
from datetime import timedelta
from typing import Any, Final, cast

from aion_es.ids import StreamName
from aion_es.store.port import StreamMetadata

METADATA_TYPE: Final = "$metadata"
DELETED: Final = 2**63 - 1
"""The `$tb` of a stream that is deleted and not written again."""

_MAX_COUNT: Final = "$maxCount"
_MAX_AGE: Final = "$maxAge"
_TRUNCATE_BEFORE: Final = "$tb"
_OURS: Final = "aion_truncateBefore"
_BORN: Final = "aion_bornAt"
_SECOND: Final = timedelta(seconds=1)


def metastream(stream: StreamName) -> StreamName:
    """Return the stream that holds the limits of `stream`."""
    return StreamName(f"$${stream}")


def parse(data: bytes) -> dict[str, Any]:
    """Return what a metadata event says; nothing if it is not JSON."""
    try:
        said: Any = json.loads(data)
    except ValueError:
        return {}
    return cast("dict[str, Any]", said) if isinstance(said, dict) else {}


def limits(said: dict[str, Any]) -> StreamMetadata:
    """Return the limits that somebody asked for."""
    age = _number(said, _MAX_AGE)
    cut = _number(said, _OURS) if _OURS in said else _number(said, _TRUNCATE_BEFORE)
    return StreamMetadata(
        max_count=_number(said, _MAX_COUNT),
        max_age=None if age is None else age * _SECOND,
        truncate_before=None if cut == DELETED else cut,
    )


def is_deleted(said: dict[str, Any]) -> bool:
    """Say whether the stream is deleted and was not written again."""
    return _number(said, _TRUNCATE_BEFORE) == DELETED


def begins_at(said: dict[str, Any], revision: int) -> bool:
    """Say whether the first event that can be read is that at `revision`."""
    return _number(said, _TRUNCATE_BEFORE) == revision


def deleted(said: dict[str, Any]) -> bytes:
    """Return the metadata event that deletes the stream and keeps everything else."""
    return json.dumps({**said, _TRUNCATE_BEFORE: DELETED}).encode()


def replaced(said: dict[str, Any], metadata: StreamMetadata) -> bytes:
    """Return the metadata event that replaces the limits; everything else that it said is kept.

    Ages are whole seconds on the server: rounded up.
    """
    born = _life_begins(said)
    kept = {
        key: value
        for key, value in said.items()
        if key not in {_MAX_COUNT, _MAX_AGE, _TRUNCATE_BEFORE, _OURS, _BORN}
    }
    if metadata.max_count is not None:
        kept[_MAX_COUNT] = metadata.max_count
    if metadata.max_age is not None:
        kept[_MAX_AGE] = -(-metadata.max_age // _SECOND)
    cut = max(metadata.truncate_before or 0, born)
    if cut:
        kept[_TRUNCATE_BEFORE] = cut
    kept[_OURS] = metadata.truncate_before
    kept[_BORN] = born
    return json.dumps(kept).encode()


def _life_begins(said: dict[str, Any]) -> int:
    """Return the revision with which the present life begins, `DELETED` if there is none."""
    cut = _number(said, _TRUNCATE_BEFORE) or 0
    if _OURS not in said:
        return cut  # the server's, or of a user of other tools: it stays
    born = _number(said, _BORN) or 0
    unchanged = cut == max(_number(said, _OURS) or 0, born)
    return born if unchanged else cut


def _number(said: dict[str, Any], key: str) -> int | None:
    value = said.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None

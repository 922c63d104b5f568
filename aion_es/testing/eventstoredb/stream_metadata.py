"""A stream's metadata as EventStoreDB keeps it: JSON in the stream `$$name`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, cast

from aion_es.ids import StreamName
from aion_es.store.arguments import MAX_AGE
from aion_es.store.port import StreamMetadata
from aion_es.testing.eventstoredb.wire import DELETED_REVISION

METADATA_TYPE: Final = "$metadata"
_LONGEST_AGE: Final = MAX_AGE // timedelta(seconds=1)


def metastream(stream: str) -> StreamName:
    """Return the stream that holds the metadata of `stream`."""
    return StreamName(f"$${stream}")


def is_metastream(stream: str) -> bool:
    """Say whether a stream holds metadata of another."""
    return stream.startswith("$$")


@dataclass(frozen=True, slots=True)
class Metadata:
    """What is in the newest event of a metastream; the empty one stands for none.

    Attributes:
        text: The whole of it, with what only users know.
    """

    text: Mapping[str, Any]

    @classmethod
    def parse(cls, data: bytes) -> "Metadata":
        """Return what `data` says; nothing if it is not a JSON object, as the real server takes it."""
        try:
            text: Any = json.loads(data)
        except ValueError:
            return NOTHING
        return cls(cast("dict[str, Any]", text)) if isinstance(text, dict) else NOTHING

    @property
    def is_deleted(self) -> bool:
        """True if the stream is deleted and may be written again."""
        return self.truncate_before == DELETED_REVISION

    @property
    def truncate_before(self) -> int | None:
        """The first revision that is read."""
        return self._number("$tb", 0, DELETED_REVISION)

    @property
    def limits(self) -> StreamMetadata:
        """What the store is to apply to reads."""
        age = self._number("$maxAge", 1, _LONGEST_AGE)
        before = self.truncate_before
        return StreamMetadata(
            max_count=self._number("$maxCount", 1, DELETED_REVISION),
            max_age=None if age is None else timedelta(seconds=age),
            # The highest number means that the stream is deleted; no event is that far.
            truncate_before=None if before is None else min(before, DELETED_REVISION - 1),
        )

    def readers(self, key: str) -> frozenset[str] | None:
        """Return the roles that `$acl` lets do `key` (`$r`, `$w`, `$d`, …); None if it does not say."""
        acl = self.text.get("$acl")
        if not isinstance(acl, dict) or key not in acl:
            return None
        roles: Any = cast("dict[str, Any]", acl)[key]
        return frozenset([roles] if isinstance(roles, str) else [str(role) for role in roles])

    def truncated(self, before: int) -> bytes:
        """Return the text with `$tb` set to `before`."""
        return json.dumps({**self.text, "$tb": before}).encode()

    def _number(self, key: str, low: int, high: int) -> int | None:
        value = self.text.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        return None


NOTHING: Final = Metadata({})

"""The package aggregate: the files of one package of code, kept in parts in its own stream, once and for ever."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias, assert_never

from aion_es.aggregates.aggregate import Aggregate
from aion_es.aggregates.guards import require_utc
from aion_es.errors import InvalidArgumentError
from aion_es.events.catalog import PackageEvent, PackagePartStored, PackageUploadBegan

Events: TypeAlias = tuple[PackageEvent, ...]


@dataclass(slots=True)
class UploadState:
    """What is stored of a package. Belongs to `evolve_upload`: others read it.

    Attributes:
        size: Bytes that it will have; `None` until the upload began.
        content: Its bytes so far.
    """

    size: int | None = None
    content: bytearray = field(default_factory=bytearray)

    @property
    def is_complete(self) -> bool:
        """True once all of it is stored."""
        return self.size is not None and len(self.content) >= self.size


def evolve_upload(state: UploadState, event: PackageEvent) -> UploadState:
    """Return the state after `event`. Total; changes `state` in place."""
    match event:
        case PackageUploadBegan():
            state.size, state.content = event.size, bytearray()
        case PackagePartStored():
            state.content[event.offset :] = event.data
        case _:
            assert_never(event)
    return state


class PackageUpload(Aggregate[PackageEvent]):
    """One package. Several may store it at once: what is there already adds nothing.

    Attributes:
        version: Content hash that its stream is named by; whoever reads the content checks it.
        state: What is stored.
    """

    __slots__ = ("state", "version")

    def __init__(self, version: str) -> None:
        """Begin with no history."""
        super().__init__(version)
        self.version = version
        self.state = UploadState()

    @property
    def exists(self) -> bool:
        """True once the upload began."""
        return self.state.size is not None

    def begin(self, size: int, *, at: datetime) -> Events:
        """Announce how large it is; a second time adds nothing."""
        at = require_utc("at", at)
        if self.exists:
            return ()
        return self._record((PackageUploadBegan(size=size),), at)

    def store(self, offset: int, data: bytes, *, at: datetime) -> Events:
        """Store a part; what of it is there already adds nothing.

        Raises:
            InvalidArgumentError: It would leave a gap, or go past the announced size.
        """
        at = require_utc("at", at)
        known, size = len(self.state.content), self.state.size or 0
        if offset > known or offset + len(data) > size:
            raise InvalidArgumentError(
                "offset", f"{offset} + {len(data)} does not follow {known} of {size} bytes"
            )
        new = data[known - offset :]
        return self._record((PackagePartStored(offset=known, data=new),) if new else (), at)

    def _evolve(self, event: PackageEvent, at: datetime, revision: int) -> None:  # noqa: ARG002 - the fold needs neither
        self.state = evolve_upload(self.state, event)

"""The catalog aggregate: which packages of code a namespace has loaded, and where its workflow types are routed."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NamedTuple, TypeAlias, assert_never

from aion_es.aggregates.aggregate import Aggregate
from aion_es.aggregates.guards import require_utc
from aion_es.errors import InvalidArgumentError, PackageNotFoundError
from aion_es.events.catalog import CatalogEvent, PackageLoaded, PackageUnloaded, RoutesChanged

Events: TypeAlias = tuple[CatalogEvent, ...]

_PACKAGE_VERSION: Final = re.compile(r"[0-9a-f]{64}")


def is_package_version(version: str) -> bool:
    """Return whether a version is the content hash of a package, as opposed to an author's label."""
    return _PACKAGE_VERSION.fullmatch(version) is not None


class PackageEntry(NamedTuple):
    """What the catalog knows of a package; the fields of `PackageLoaded`."""

    name: str
    workflows: tuple[str, ...]
    activities: tuple[str, ...]


@dataclass(slots=True)
class CatalogState:
    """The catalog as it is. Belongs to `evolve_catalog`: others read it.

    Attributes:
        packages: By version, in the order in which they were loaded.
        routes: Version that new runs take, by workflow type; a type without one has none here.
    """

    packages: dict[str, PackageEntry] = field(default_factory=dict[str, PackageEntry])
    routes: dict[str, str] = field(default_factory=dict[str, str])


def evolve_catalog(state: CatalogState, event: CatalogEvent) -> CatalogState:
    """Return the state after `event`. Total; changes `state` in place."""
    match event:
        case PackageLoaded():
            entry = PackageEntry(event.name, event.workflows, event.activities)
            state.packages[event.version] = entry
        case RoutesChanged():
            state.routes.update(event.routes)
        case PackageUnloaded():
            state.packages.pop(event.version, None)
            state.routes = {t: v for t, v in state.routes.items() if v != event.version}
        case _:
            assert_never(event)
    return state


class CodeCatalog(Aggregate[CatalogEvent]):
    """One namespace's catalog: its state, and the commands that may change it.

    Every command takes `at`, the present instant in UTC, and returns the events that it adds; one that
    has already had its effect returns `()`. It raises, and changes nothing, with `InvalidArgumentError`
    if `at` is naive or not in UTC.
    """

    __slots__ = ("state",)

    def __init__(self, id: str) -> None:
        """Begin with no history."""
        super().__init__(id)
        self.state = CatalogState()

    @property
    def exists(self) -> bool:
        """True once anything was recorded in it."""
        return self.revision >= 0 or bool(self.uncommitted)

    def load(
        self,
        version: str,
        name: str,
        workflows: Sequence[str],
        activities: Sequence[str],
        *,
        routed: bool,
        at: datetime,
    ) -> Events:
        """Take a package in, and with `routed` lead all its workflow types to it in the same append.

        Raises:
            InvalidArgumentError: `version` is not a content hash.
        """
        at = require_utc("at", at)
        if not is_package_version(version):
            raise InvalidArgumentError("version", "must be 64 hexadecimal digits")
        events: list[CatalogEvent] = []
        if version not in self.state.packages:
            events.append(
                PackageLoaded(
                    version=version,
                    name=name,
                    workflows=tuple(workflows),
                    activities=tuple(activities),
                )
            )
        if routed:
            events += _changed(self.state, dict.fromkeys(workflows, version))
        return self._record(tuple(events), at)

    def route(self, routes: Mapping[str, str], *, at: datetime) -> Events:
        """Lead new runs of these types to these versions, all at once.

        Raises:
            PackageNotFoundError: A version is a package that is not, or no longer, loaded.
        """
        at = require_utc("at", at)
        for version in routes.values():
            if is_package_version(version) and version not in self.state.packages:
                raise PackageNotFoundError(version, tuple(self.state.packages))
        return self._record(_changed(self.state, routes), at)

    def unload(self, version: str, *, at: datetime) -> Events:
        """Let go of a package, and of the routes that lead to it.

        Raises:
            PackageNotFoundError: It is not loaded.
        """
        at = require_utc("at", at)
        if version not in self.state.packages:
            raise PackageNotFoundError(version, tuple(self.state.packages))
        return self._record((PackageUnloaded(version=version),), at)

    def _evolve(self, event: CatalogEvent, at: datetime, revision: int) -> None:  # noqa: ARG002 - the fold needs neither
        self.state = evolve_catalog(self.state, event)


def _changed(state: CatalogState, routes: Mapping[str, str]) -> Events:
    changed = {t: version for t, version in routes.items() if state.routes.get(t) != version}
    return (RoutesChanged(routes=changed),) if changed else ()

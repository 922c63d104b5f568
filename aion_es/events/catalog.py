"""What can happen to the code that a namespace runs: packages of it, and which version new runs take.

Two kinds of streams: one per package, named by the hash of its content, that holds its files; and one per
namespace, the catalog, that says which packages are loaded and where each workflow type is routed.
"""

from typing import TypeAlias

from aion_es.events.base import Event


class PackageUploadBegan(Event):
    """A package's files are about to be kept in its stream.

    Attributes:
        size: Bytes of its canonical form; the parts that follow have so many together.
    """

    size: int


class PackagePartStored(Event):
    """A part of the package's canonical form; the parts come in order and leave no gap.

    Attributes:
        offset: Where in the canonical form it begins.
        data: Its bytes.
    """

    offset: int
    data: bytes


PackageEvent: TypeAlias = PackageUploadBegan | PackagePartStored
"""Every event of a package's stream. A `match` over it ends in `assert_never`."""


class PackageLoaded(Event):
    """A package belongs to the catalog: every engine of the namespace loads it when it opens.

    Attributes:
        version: Content hash of its files.
        name: What it was loaded from; for people.
        workflows: Types of the workflows that it holds.
        activities: Types of the activities that it holds.
    """

    version: str
    name: str
    workflows: tuple[str, ...] = ()
    activities: tuple[str, ...] = ()


class RoutesChanged(Event):
    """New runs of these types take these versions from now on; all of them at once.

    Attributes:
        routes: Version by workflow type. Types that are not named keep their route.
    """

    routes: dict[str, str]


class PackageUnloaded(Event):
    """A package no longer belongs to the catalog. Routes that led to it are gone with it."""

    version: str


CatalogEvent: TypeAlias = PackageLoaded | RoutesChanged | PackageUnloaded
"""Every event of the catalog's stream. A `match` over it ends in `assert_never`."""

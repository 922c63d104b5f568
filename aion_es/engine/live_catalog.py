"""The catalog of an open engine: what of it is recorded, kept the same in every engine of the namespace.

Packages and routes are commands on the catalog's aggregate. What was recorded, here or by another process,
is then taken over as a whole: fetch what is missing, then change the tables in one step without any await.
"""

import asyncio
import hashlib
import logging
import os
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from aion_es.aggregates.catalog_repository import CatalogRepository, PackageRepository
from aion_es.aggregates.code_catalog import CatalogState, CodeCatalog
from aion_es.authoring.definitions import workflow_definition
from aion_es.clock import Clock
from aion_es.engine.catalog import Catalog
from aion_es.engine.package_modules import LoadedPackage, load, release
from aion_es.engine.packages import PackageFiles
from aion_es.engine.patience import follow
from aion_es.errors import (
    ConcurrencyConflictError,
    EngineClosedError,
    PackageError,
    PackageNotFoundError,
    StoreCorruptError,
    VersionPinnedError,
    WorkflowTypeNotFoundError,
)
from aion_es.store.port import EventStore, RecordedEvent

if TYPE_CHECKING:
    from aion_es.engine.version_use import Use

_LOG: Final = logging.getLogger("aion_es.catalog")

_DAMAGED: Final = "its files are not what its hash says"


class PackageListing(NamedTuple):
    """One package of the catalog.

    Attributes:
        version: Content hash of its files.
        name: What it was loaded from; for people.
        workflows: Types of the workflows that it holds.
        activities: Types of the activities that it holds.
        routed: Those of its workflow types whose new runs take it.
        failure: Why it could not be loaded in this process; `None` if it is loaded.
    """

    version: str
    name: str
    workflows: tuple[str, ...]
    activities: tuple[str, ...]
    routed: tuple[str, ...]
    failure: str | None


@dataclass(frozen=True, slots=True)
class CatalogTies:
    """What a catalog needs of its engine once that is open.

    Attributes:
        store: Where the streams are.
        catalogs: Way in to the catalog's stream.
        packages: Way in to the packages' streams.
        clock: The present instant.
        use: Says what needs a version, of all that is recorded.
    """

    store: EventStore
    catalogs: CatalogRepository
    packages: PackageRepository
    clock: Clock
    use: "Callable[[str], Awaitable[Use]]"


class LiveCatalog(Catalog):
    """A catalog whose packages and routes are recorded; `Engine.catalog` is one.

    Functions are registered for this process, as long as it lives. Packages and routes belong to the
    namespace: they survive a restart, and every engine that is open takes them over.

    Attributes:
        on_arrived: Told of the workflow types whose code has just come; set by the engine.
    """

    def __init__(self, workflows: Iterable[Any] = (), activities: Iterable[Any] = ()) -> None:
        self.on_arrived: Callable[[Collection[str]], None] | None = None
        self._ties: CatalogTies | None = None
        self._revision = -1
        self._state = CatalogState()
        self._failures: dict[str, str] = {}
        self._turn = asyncio.Lock()
        super().__init__(workflows, activities)

    async def open(self, ties: CatalogTies) -> None:
        """Take over what is recorded. A package that cannot be loaded here is reported, and does not matter else.

        Raises:
            StoreError: The catalog cannot be read.
        """
        self._ties = ties
        await self._catch_up()

    def close(self) -> None:
        """Let go of the packages; their modules stay in the process, as those of other code do."""
        for version in self._packages:
            release(version, purge=False)
        self._ties = self.on_arrived = None

    async def follow(self) -> None:
        """Take over what other processes record, for ever; ends only by cancellation."""
        ties = self._tied

        async def take(events: Sequence[RecordedEvent]) -> None:
            if events[-1].revision > self._revision:
                await self._catch_up()

        await follow(
            lambda: ties.store.subscribe(ties.catalogs.stream, from_revision=self._revision + 1),
            take,
            log=_LOG,
            what="the catalog",
        )

    # --------------------------------------------------------------------------- what is there

    def list_packages(self) -> tuple[PackageListing, ...]:
        """Return the packages of the catalog, in the order in which they were loaded."""
        return tuple(
            PackageListing(
                version,
                entry.name,
                entry.workflows,
                entry.activities,
                tuple(t for t in entry.workflows if self._state.routes.get(t) == version),
                self._failures.get(version),
            )
            for version, entry in self._state.packages.items()
        )

    def package(self, version: str) -> LoadedPackage:
        """Return a package that is loaded in this process.

        Raises:
            PackageNotFoundError: It is not; lists those that are.
        """
        package = self._packages.get(version)
        if package is None:
            raise PackageNotFoundError(version, tuple(self._packages))
        return package

    def _why_not_loaded(self, version: str) -> str:
        return self._failures.get(version, "")

    # ------------------------------------------------------------------------------- commands

    def register_workflow(self, function: Any) -> None:
        """Register a function decorated with `@workflow`, in this process; see `Catalog`. Stuck runs of it go on.

        Raises:
            DefinitionError: See `Catalog`.
        """
        super().register_workflow(function)
        if self.on_arrived is not None:
            self.on_arrived((workflow_definition(function).type,))

    async def load_package(
        self, path: str | os.PathLike[str], *, route: bool = True
    ) -> LoadedPackage:
        """Load a package of code beside its other versions, and keep its files in the store.

        Its version is the content hash of all its files: the same files are the same package, wherever they
        come from. Every module but `__main__` is imported; the package holds the workflows and activities
        that its modules define.

        Args:
            path: A folder, a zip (a wheel is one) or a tar archive; see `PackageFiles.read`.
            route: Lead new runs of all its workflow types to it, at once. If not, no new run takes it until
                a route leads there.

        Raises:
            PackageError: It cannot be read, imported or used; nothing was recorded.
            StoreError: The store is away; parts of the files may have been kept, which does no harm.
        """
        ties = self._tied
        files = await asyncio.to_thread(PackageFiles.read, path)
        name = _name_of(path)
        async with self._turn:
            package = self._packages.get(files.version)
            fresh = package is None
            if package is None:
                package = await asyncio.to_thread(load, files, name)
            loaded = package
            try:
                await self._keep(files)
                catalog = await ties.catalogs.execute(
                    lambda c: c.load(
                        loaded.version,
                        name,
                        sorted(loaded.workflows),
                        sorted(loaded.activities),
                        routed=route,
                        at=ties.clock.now(),
                    )
                )
            except BaseException:
                if fresh:
                    release(loaded.version, purge=True)
                raise
            await self._take_over(catalog, {loaded.version: loaded} if fresh else {})
        return loaded

    async def route(self, workflow_type: str, version: str) -> None:
        """Let new runs of a type take this version, in every engine; runs that are open keep theirs.

        Raises:
            WorkflowTypeNotFoundError: No version of the type is loaded here.
            VersionNotLoadedError: This one is not.
            PackageNotFoundError: Another process has just unloaded it.
            StoreError: The store is away.
        """
        await self.route_group({workflow_type: version})

    async def route_group(self, routes: Mapping[str, str]) -> None:
        """Do the same for several types at once: no start sees some of them led elsewhere and others not yet.

        Args:
            routes: Version by workflow type. Types that are not named keep their route.

        Raises:
            WorkflowTypeNotFoundError, VersionNotLoadedError, PackageNotFoundError, StoreError: See `route`;
                no route was changed.
        """
        ties = self._tied
        wanted = dict(routes)
        for workflow_type, version in wanted.items():
            if workflow_type not in self._versions:
                raise WorkflowTypeNotFoundError(workflow_type, sorted(self._versions))
            self.pinned(workflow_type, version, 0)
        async with self._turn:
            catalog = await ties.catalogs.execute(lambda c: c.route(wanted, at=ties.clock.now()))
            await self._take_over(catalog, {})

    async def unload(self, version: str) -> None:
        """Let go of a package, in every engine. Routes that led to it are gone; its files stay in the store.

        A run that is being started on it at this very moment may be left without its code: lead new runs
        elsewhere first. Such a run is stuck and reported, and goes on when the package is loaded again.

        Raises:
            PackageNotFoundError: It is not in the catalog.
            VersionPinnedError: Open runs are pinned to it, or children that are about to start.
            ProjectionLagError: What needs it is not known: the rows of pending work are far behind, or stand still.
            StoreError: The store or the read model is away. In all cases nothing was changed.
        """
        ties = self._tied
        async with self._turn:
            if version not in self._state.packages:
                raise PackageNotFoundError(version, tuple(self._state.packages))
            use = await ties.use(version)
            if use.runs or use.children:
                raise VersionPinnedError(version, use.runs, use.children, use.types)
            catalog = await ties.catalogs.execute(lambda c: c.unload(version, at=ties.clock.now()))
            await self._take_over(catalog, {})

    async def _keep(self, files: PackageFiles) -> None:
        """Store a package's files, as far as they are not stored yet."""
        ties = self._tied
        content = files.content
        while True:
            upload = await ties.packages.load(files.version)
            try:
                upload.begin(len(content), at=ties.clock.now())
                while not upload.state.is_complete:
                    offset = len(upload.state.content)
                    part = content[offset : offset + ties.packages.max_part_bytes]
                    upload.store(offset, part, at=ties.clock.now())
                    await ties.packages.save(upload)
            except ConcurrencyConflictError:
                continue  # somebody stores the same package: what is there now need not be stored again
            if bytes(upload.state.content) != content:
                raise StoreCorruptError(f"package {files.version}", _DAMAGED)
            return

    # ----------------------------------------------------------------------------- taking over

    @property
    def _tied(self) -> CatalogTies:
        if self._ties is None:
            raise EngineClosedError
        return self._ties

    async def _catch_up(self) -> None:
        async with self._turn:
            await self._take_over(await self._tied.catalogs.load(), {})

    async def _take_over(self, catalog: CodeCatalog, ready: Mapping[str, LoadedPackage]) -> None:
        """Let the tables say what the catalog's aggregate says; `ready` holds what need not be fetched."""
        state = catalog.state
        missing = [v for v in state.packages if v not in self._packages and v not in ready]
        fetched = [p for v in missing if (p := await self._fetched(v, state.packages[v].name))]
        # From here on in one step: whoever starts a run finds all of it changed, or none.
        self._revision = max(self._revision, catalog.revision)
        self._state = state
        for version in [v for v in self._packages if v not in state.packages]:
            self.remove_package(version)
            release(version, purge=True)
        before = self._routes
        for package in (*fetched, *ready.values()):
            self.add_package(package)
            self._failures.pop(package.version, None)
        self.set_routes(state.routes)
        arrived = {t for package in (*fetched, *ready.values()) for t in package.workflows}
        arrived |= {t for t, version in self._routes.items() if before.get(t) != version}
        for version in self._failures.keys() - state.packages.keys():
            del self._failures[version]
        if arrived and self.on_arrived is not None:
            self.on_arrived(arrived)

    async def _fetched(self, version: str, name: str) -> LoadedPackage | None:
        """Return a package from its stream; `None`, and its failure noted, if it cannot be loaded here."""
        try:
            files = await self._stored(version)
            return await asyncio.to_thread(load, files, name)
        except (PackageError, StoreCorruptError) as error:
            if self._failures.get(version) != str(error):
                self._failures[version] = str(error)
                _LOG.error("package %s (%s) is not loaded here: %s", version[:12], name, error)
            return None

    async def _stored(self, version: str) -> PackageFiles:
        """Return the files of a package from its stream.

        Raises:
            StoreCorruptError: They are not those that its version is the hash of.
            StoreError: The stream cannot be read.
        """
        content = bytes((await self._tied.packages.load(version)).state.content)
        if hashlib.sha256(content).hexdigest() != version:
            raise StoreCorruptError(f"package {version}", _DAMAGED)
        return PackageFiles.of_content(content)


def _name_of(path: str | os.PathLike[str]) -> str:
    """Return what a package is called, for people; bytes of it that are not UTF-8 are shown."""
    return os.fsencode(Path(path).resolve().name).decode(errors="backslashreplace")

"""Loading and saving the catalog and its packages: `repository.py` does the I/O, this says what it is done with."""

from collections.abc import Callable

from aion_es.aggregates.code_catalog import CodeCatalog
from aion_es.aggregates.package_upload import PackageUpload
from aion_es.aggregates.repository import Origin, Repository
from aion_es.events.catalog import CatalogEvent, PackageEvent
from aion_es.ids import StreamName, catalog_stream, package_stream

_ORIGIN = Origin(None, None, None, None)


class CatalogRepository(Repository[CodeCatalog, CatalogEvent]):
    """The catalog of a namespace in a store. Promises and errors are those of `WorkflowRepository`."""

    _begins = ""  # no event makes what came before it irrelevant: all of the stream is read

    async def load(self) -> CodeCatalog:
        """Return the catalog; one that was never written is empty."""
        return await self._load(self._namespace)

    async def execute(self, decide: Callable[[CodeCatalog], object]) -> CodeCatalog:
        """Load, decide, append; on a conflict read only what is new, and decide anew."""
        _, catalog, _ = await self._execute(self._namespace, decide, _ORIGIN)
        return catalog

    @property
    def stream(self) -> StreamName:
        """Name of the stream that holds it."""
        return catalog_stream(self._namespace)

    def _new(self, id: str) -> CodeCatalog:
        return CodeCatalog(id)

    def _stream(self, id: str) -> StreamName:  # noqa: ARG002 - a namespace has one
        return self.stream


class PackageRepository(Repository[PackageUpload, PackageEvent]):
    """The packages in a store, each in its own stream. Promises and errors are those of `WorkflowRepository`."""

    _begins = "PackageUploadBegan"

    async def load(self, version: str) -> PackageUpload:
        """Return what is stored of a package; of an unknown one, nothing."""
        return await self._load(version)

    async def save(self, package: PackageUpload) -> None:
        """Append what the aggregate holds uncommitted."""
        await self._save(package, _ORIGIN)

    @property
    def max_part_bytes(self) -> int:
        """How many bytes of content fit into one event of this store, written as base64."""
        return min(_PART, (self._store.limits.max_event_bytes - _ENVELOPE) * 3 // 4)

    def _new(self, id: str) -> PackageUpload:
        return PackageUpload(id)

    def _stream(self, id: str) -> StreamName:
        return package_stream(self._namespace, id)


_PART = 384 * 1024
"""Half a megabyte as base64: half of what the stores accept."""
_ENVELOPE = 4_096
"""Bytes left for what is not the content: field names, metadata, type."""

"""Orphaned work: open runs whose version is not loaded here; reported wherever somebody may look."""

import logging
from collections.abc import Collection
from typing import Final

from aion_es.engine.catalog import Catalog
from aion_es.errors import StoreError, VersionNotLoadedError
from aion_es.projections.pending_index import PendingWorkIndex
from aion_es.projections.read_model import ReadModel
from aion_es.projections.runner import ProjectionRunner
from aion_es.projections.stuck_reasons import clear_stuck, set_orphaned
from aion_es.projections.visibility import VisibilityProjection
from aion_es.store.port import Position

_LOG: Final = logging.getLogger("aion_es.recovery")


class Orphans:
    """Finds orphaned work when the engine opens, and when another is gone.

    Shown in the log, in `engine.orphaned`, and in the visibility rows, which all engines share: there only
    while no other is alive, who may have the code.
    """

    def __init__(
        self,
        read_model: ReadModel,
        runner: ProjectionRunner,
        index: PendingWorkIndex,
        catalog: Catalog,
    ) -> None:
        self._read_model = read_model
        self._runner = runner
        self._index = index
        self._catalog = catalog
        self._found: tuple[VersionNotLoadedError, ...] = ()

    @property
    def current(self) -> tuple[VersionNotLoadedError, ...]:
        """The versions that open runs were pinned to when it was looked, and that are still not loaded."""
        has = self._catalog.has
        return tuple(o for o in self._found if not has(o.workflow_type, o.version))

    async def report(self, end: Position, *, alone: bool, served: Collection[str] | None) -> None:
        """Find and report what is recorded up to `end`; what was found before is not logged again.

        Args:
            end: The pending-work rows must have got so far.
            alone: No other engine is on the read model: nobody else has the code, and its rows may say so.
            served: Task queues whose runs this engine drives: others' are not its to report; `None` for all.

        Raises:
            StoreError: The read model is away.
        """
        found: list[VersionNotLoadedError] = []
        before = {(orphan.workflow_type, orphan.version) for orphan in self.current}
        for row in await self._index.open_versions():
            try:
                self._catalog.pinned(row.workflow_type, row.package_version, row.runs)
            except VersionNotLoadedError as error:
                if served is None or await self._index.has_run_of(*row[:2], served):
                    found.append(error)
                    if row[:2] not in before:
                        _LOG.error("%s", error)
        self._found = tuple(found)
        if not found or not alone:
            return
        await self._runner.wait_until(end, projection=VisibilityProjection.name, timeout=None)
        for orphan in found:
            await set_orphaned(self._read_model, orphan.workflow_type, orphan.version, str(orphan))

    async def forget_reports(self) -> None:
        """Forget what engines that are gone have said of stuck runs: nobody is there of whom it would be true.

        Raises:
            StoreError: The read model is away.
        """
        await clear_stuck(self._read_model)

    async def code_arrived(self) -> None:
        """Take back what was reported of versions that are loaded by now."""
        current = self.current
        for orphan in self._found:
            if orphan not in current:
                await self._take_back(orphan)
        self._found = current

    async def _take_back(self, orphan: VersionNotLoadedError) -> None:
        try:
            await set_orphaned(self._read_model, orphan.workflow_type, orphan.version, None)
        except StoreError as error:
            _LOG.warning(
                "runs of %s still show as stuck, though their code is loaded: %s",
                orphan.workflow_type,
                error,
            )

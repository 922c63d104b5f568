"""Orphaned work: open runs whose version is not loaded here; reported wherever somebody may look."""

import logging
from collections.abc import Collection
from typing import Final

from aion_es.engine.catalog import Catalog
from aion_es.engine.registry import Registry
from aion_es.errors import StoreError, VersionNotLoadedError
from aion_es.ids import WorkflowId
from aion_es.projections.pending_index import PendingWorkIndex
from aion_es.projections.read_model import ReadModel
from aion_es.projections.runner import ProjectionRunner
from aion_es.projections.stuck_reasons import (
    StuckRun,
    clear_stuck,
    doubt_stuck,
    set_orphaned,
    take_back,
)
from aion_es.projections.visibility import VisibilityProjection
from aion_es.projections.workers import Code
from aion_es.store.port import Position

_LOG: Final = logging.getLogger("aion_es.recovery")


class Orphans:
    """Finds orphaned work when the engine opens, and when another is gone.

    Shown in the log, in `engine.orphaned`, and in the visibility rows, which all engines share: there only
    while no other that is alive has the code.
    """

    def __init__(
        self,
        read_model: ReadModel,
        runner: ProjectionRunner,
        index: PendingWorkIndex,
        catalog: Catalog,
        registry: Registry,
    ) -> None:
        self._read_model = read_model
        self._runner = runner
        self._index = index
        self._catalog = catalog
        self._registry = registry
        self._elsewhere: frozenset[Code] = frozenset()
        self._found: tuple[VersionNotLoadedError, ...] = ()

    @property
    def current(self) -> tuple[VersionNotLoadedError, ...]:
        """The versions that open runs were pinned to when it was looked, and that are still not loaded."""
        has = self._catalog.has
        return tuple(o for o in self._found if not has(o.workflow_type, o.version))

    @property
    def loaded(self) -> list[Code]:
        """The versions that are loaded here."""
        return [(t, v) for t, versions in self._catalog.versions().items() for v in versions]

    def is_elsewhere(self, workflow_type: str, version: str) -> bool:
        """Return whether another engine that is alive has a version loaded."""
        return (workflow_type, version) in self._elsewhere

    async def hear(self, elsewhere: frozenset[Code]) -> None:
        """Hear what code the others have, and take back what was said here of runs that one of them can run now.

        Raises:
            StoreError: The read model is away; what was said stands.
        """
        new = elsewhere - self._elsewhere
        said: dict[Code, set[str]] = {}
        for orphan in self.current:
            said.setdefault((orphan.workflow_type, orphan.version), set()).add(str(orphan))
        for run in self._registry:
            if run.stuck is not None and not self._catalog.has(run.workflow_type, run.version):
                said.setdefault((run.workflow_type, run.version), set()).add(run.stuck)
        for code in sorted(new & said.keys()):
            await take_back(self._read_model, *code, said[code])
        self._elsewhere = elsewhere

    async def doubted(self, served: Collection[str] | None) -> list[WorkflowId]:
        """Forget what others have said of runs whose code is here, and return those: they may go on here.

        Args:
            served: Task queues whose runs this engine drives; `None` for all.

        Raises:
            StoreError: The read model is away.
        """

        def is_doubtful(run: StuckRun) -> bool:
            known = self._registry.newest(run.workflow_id)
            is_said_here = known is not None and known.stuck is not None
            is_driven_here = served is None or run.task_queue in served
            has_code = self._catalog.has(run.workflow_type, run.version)
            return is_driven_here and has_code and not is_said_here

        return await doubt_stuck(self._read_model, is_doubtful)

    async def report(self, end: Position, *, served: Collection[str] | None) -> None:
        """Find and report what is recorded up to `end`; what was found before is not logged again.

        Args:
            end: The pending-work rows must have got so far.
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
        nowhere = [o for o in found if not self.is_elsewhere(o.workflow_type, o.version)]
        if nowhere:
            await self._runner.wait_until(end, projection=VisibilityProjection.name, timeout=None)
        for orphan in nowhere:
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
            code = (orphan.workflow_type, orphan.version)
            await take_back(self._read_model, *code, {str(orphan)})
        except StoreError as error:
            _LOG.warning(
                "runs of %s still show as stuck, though their code is loaded: %s",
                orphan.workflow_type,
                error,
            )

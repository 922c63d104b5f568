"""Which versions of the code are needed by what is open, counted from the pending-work rows."""

from datetime import timedelta
from typing import Final, NamedTuple

from aion_es.projections.pending_index import PendingWorkIndex
from aion_es.projections.pending_work import PendingWorkProjection
from aion_es.projections.runner import ProjectionRunner
from aion_es.store.port import EventReader

PATIENCE: Final = timedelta(seconds=10)
"""How long the rows may take to say what is recorded by now. One that stands still would take for ever."""


class Use(NamedTuple):
    """What needs a version.

    Attributes:
        runs: Open runs that are pinned to it.
        children: Children that are recorded to start on it, and have not yet.
        types: Their workflow types, sorted.
    """

    runs: int
    children: int
    types: tuple[str, ...]


class VersionUse:
    """Answers for everything that is recorded at the moment of the question."""

    def __init__(
        self, store: EventReader, runner: ProjectionRunner, index: PendingWorkIndex
    ) -> None:
        self._store = store
        self._runner = runner
        self._index = index

    async def of(self, version: str) -> Use:
        """Return what needs a version.

        Raises:
            ProjectionLagError: The pending-work rows do not get so far within `PATIENCE`.
            StoreError: The store or the read model is away.
        """
        end = await self._store.end_position()
        await self._runner.wait_until(end, projection=PendingWorkProjection.name, timeout=PATIENCE)
        runs = [r for r in await self._index.open_versions() if r.package_version == version]
        owed = [c for c in await self._index.children() if c.owed == "start"]
        children = [c for c in owed if c.package_version == version]
        types = {r.workflow_type for r in runs} | {c.workflow_type for c in children}
        return Use(sum(r.runs for r in runs), len(children), tuple(sorted(types)))

"""What the visibility rows say of runs that cannot go on: the engines' reports, for many runs at once."""

from collections.abc import Callable, Collection
from typing import Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, select, update

from aion_es.ids import WorkflowId
from aion_es.projections.read_model import ReadModel
from aion_es.projections.visibility_tables import EXECUTIONS

_IS_OPEN: Final = EXECUTIONS.c.close_time.is_(None)
_CHUNK: Final = 500


class StuckRun(NamedTuple):
    """An open run of which somebody has said that it cannot go on."""

    run_key: int
    workflow_id: WorkflowId
    workflow_type: str
    version: str
    task_queue: str


async def doubt_stuck(
    read_model: ReadModel, is_doubtful: Callable[[StuckRun], bool]
) -> list[WorkflowId]:
    """Forget what was reported of some of the stuck runs, and return whose they are, oldest first.

    Args:
        read_model: Where the rows are.
        is_doubtful: Chooses them.

    Raises:
        StoreError: The read model cannot be written; nothing changed.
    """
    c = EXECUTIONS.c
    query = (
        select(c.run_key, c.workflow_id, c.workflow_type, c.package_version, c.task_queue)
        .where(c.stuck_reason.is_not(None), _IS_OPEN)
        .order_by(c.run_key)
    )

    def change(connection: Connection) -> list[WorkflowId]:
        found = [StuckRun(*row) for row in connection.execute(query)]
        doubtful = [run for run in found if is_doubtful(run)]
        keys = [run.run_key for run in doubtful]
        for at in range(0, len(keys), _CHUNK):
            chosen = c.run_key.in_(keys[at : at + _CHUNK])
            connection.execute(update(EXECUTIONS).where(chosen).values(stuck_reason=None))
        return [run.workflow_id for run in doubtful]

    return await read_model.write(change)


async def clear_stuck(read_model: ReadModel) -> None:
    """Forget what engines that are gone have reported; what still holds is found and reported anew.

    Raises:
        StoreError: The read model cannot be written; nothing changed.
    """
    await _show(read_model, None, EXECUTIONS.c.stuck_reason.is_not(None))


async def set_orphaned(
    read_model: ReadModel, workflow_type: str, version: str, reason: str
) -> None:
    """Show of every open run of a version why it cannot go on.

    Raises:
        StoreError: The read model cannot be written; nothing changed.
    """
    await _show(read_model, reason, *_of_version(workflow_type, version))


async def take_back(
    read_model: ReadModel, workflow_type: str, version: str, reasons: Collection[str]
) -> None:
    """Forget these reasons, and no others, of the open runs of a version: somebody else has their code.

    Raises:
        StoreError: The read model cannot be written; nothing changed.
    """
    said = EXECUTIONS.c.stuck_reason.in_(reasons)
    await _show(read_model, None, *_of_version(workflow_type, version), said)


def _of_version(workflow_type: str, version: str) -> tuple[ColumnElement[bool], ...]:
    c = EXECUTIONS.c
    return c.workflow_type == workflow_type, c.package_version == version


async def _show(read_model: ReadModel, reason: str | None, *which: ColumnElement[bool]) -> None:
    """Have the open runs that `which` chooses show `reason`, or nothing."""
    statement = update(EXECUTIONS).where(*which, _IS_OPEN).values(stuck_reason=reason)
    await read_model.write(lambda connection: connection.execute(statement))

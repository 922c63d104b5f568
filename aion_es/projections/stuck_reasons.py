"""What the visibility rows say of runs that cannot go on: the engines' reports, for many runs at once."""

from sqlalchemy import Connection, update

from aion_es.projections.read_model import ReadModel
from aion_es.projections.visibility_tables import EXECUTIONS

_IS_OPEN = EXECUTIONS.c.close_time.is_(None)


async def clear_stuck(read_model: ReadModel) -> None:
    """Forget what engines that are gone have reported; what still holds is found and reported anew.

    Raises:
        StoreError: The read model cannot be written; nothing changed.
    """
    statement = (
        update(EXECUTIONS)
        .where(EXECUTIONS.c.stuck_reason.is_not(None), _IS_OPEN)
        .values(stuck_reason=None)
    )
    await read_model.write(lambda connection: _run(connection, statement))


async def set_orphaned(
    read_model: ReadModel, workflow_type: str, version: str, reason: str | None
) -> None:
    """Show of every open run of a version why it cannot go on, or with `None` that its code is there again.

    Raises:
        StoreError: The read model cannot be written; nothing changed.
    """
    statement = (
        update(EXECUTIONS)
        .where(
            EXECUTIONS.c.workflow_type == workflow_type,
            EXECUTIONS.c.package_version == version,
            _IS_OPEN,
        )
        .values(stuck_reason=reason)
    )
    await read_model.write(lambda connection: _run(connection, statement))


def _run(connection: Connection, statement: object) -> None:
    connection.execute(statement)  # type: ignore[call-overload]  # an UPDATE, made above

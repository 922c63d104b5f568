"""What running activity attempts said last: rows that whoever takes a lost attempt up finds.

Operational state, not a fold of events: once an attempt's outcome is recorded, what it said is in the
history, and its row goes.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Integer,
    MetaData,
    Table,
    and_,
    delete,
    exists,
    select,
)

from aion_es.clock import Clock
from aion_es.payload import Payload
from aion_es.projections import bulk
from aion_es.projections.columns import Text
from aion_es.projections.instants import to_micros
from aion_es.projections.pending_tables import ACTIVITIES
from aion_es.projections.read_model import ReadModel

_KEPT: Final = timedelta(hours=1)
"""A row this young is not swept: the rows of pending work may be behind."""

HEARTBEATS: Final = Table(
    "activity_heartbeats",
    MetaData(),
    Column("workflow_id", Text, primary_key=True),
    Column("run_id", Text, primary_key=True),
    Column("activity_id", Integer, primary_key=True),
    Column("attempt", Integer, nullable=False),
    Column("details", Text, nullable=False),
    Column("seen_at", BigInteger, nullable=False),
)

_KEY: Final = ("workflow_id", "run_id", "activity_id")


class ActivityHeartbeats:
    """The heartbeat rows of one read model. Implements the engine's `HeartbeatRows`."""

    def __init__(self, read_model: ReadModel, clock: Clock) -> None:
        """Keep what is needed; nothing is written."""
        self._read_model = read_model
        self._clock = clock

    async def write(
        self,
        spoken: Sequence[tuple[str, str, int, int, Payload, datetime]],
        gone: Sequence[tuple[str, str, int]],
    ) -> None:
        """Store rows (workflow, run, activity, attempt, details, when), and delete others, in one transaction.

        Raises:
            StoreError: The read model does not answer; nothing was written.
        """
        rows = [
            (*key, attempt, details.model_dump_json(), to_micros(at))
            for *key, attempt, details, at in spoken
        ]

        def change(connection: Connection) -> None:
            bulk.delete(connection, HEARTBEATS, _KEY, [tuple(key) for key in gone])
            bulk.upsert(connection, HEARTBEATS, rows)

        await self._read_model.write(change)

    async def read(
        self, workflow_id: str, run_id: str, activity_id: int
    ) -> tuple[int, Payload] | None:
        """Return the attempt that spoke last, and its details; `None` if none is stored.

        Raises:
            StoreError: The read model does not answer.
        """

        def find(connection: Connection) -> tuple[int, Payload] | None:
            key = (workflow_id, run_id, activity_id)
            rows = bulk.select(connection, HEARTBEATS, _KEY, [key])
            for row in rows:
                return row[3], Payload.model_validate_json(row[4])
            return None

        return await self._read_model.read(find)

    async def sweep(self) -> None:
        """Delete rows of activities that no longer wait; ask when the rows of pending work have caught up.

        Raises:
            StoreError: The read model does not answer; nothing was deleted.
        """
        oldest = to_micros(self._clock.now() - _KEPT)
        waits = exists(
            select(ACTIVITIES.c.activity_id).where(
                and_(
                    ACTIVITIES.c.workflow_id == HEARTBEATS.c.workflow_id,
                    ACTIVITIES.c.run_id == HEARTBEATS.c.run_id,
                    ACTIVITIES.c.activity_id == HEARTBEATS.c.activity_id,
                )
            )
        )
        await self._read_model.write(
            lambda connection: connection.execute(
                delete(HEARTBEATS).where(HEARTBEATS.c.seen_at < oldest, ~waits)
            )
        )

"""Which engines are alive: a row with a heartbeat for each, so that nobody takes up what another is still doing.

Operational state, not a fold of events. It spares work; what is right is decided by the aggregates alone.
"""

from datetime import timedelta
from typing import Final

from sqlalchemy import BigInteger, Column, Connection, MetaData, Table, delete, insert, select

from aion_es.clock import Clock
from aion_es.projections.columns import Text
from aion_es.projections.instants import to_micros
from aion_es.projections.processes import is_gone, this_process
from aion_es.projections.read_model import ReadModel

HEARTBEAT: Final = timedelta(seconds=2)
"""How often an engine says that it is alive."""
EXPIRY: Final = timedelta(seconds=10)
"""An engine that was silent for so long is gone; at once, if its process is seen to have ended."""

WORKERS: Final = Table(
    "workers",
    MetaData(),
    Column("worker", Text, primary_key=True),
    Column("process", Text, nullable=False),
    Column("seen_at", BigInteger, nullable=False),
)


class Workers:
    """The engines that share one read model."""

    def __init__(self, read_model: ReadModel, clock: Clock) -> None:
        """Keep what is needed; nothing is written. The clock must be the machine's: others read it too."""
        self._read_model = read_model
        self._clock = clock
        self._process = this_process()

    async def announce(self, worker: str) -> frozenset[str]:
        """Say that `worker` is alive, and return the others that are.

        Raises:
            StoreError: The read model does not answer.
        """
        now = to_micros(self._clock.now())

        def change(connection: Connection) -> frozenset[str]:
            rows = connection.execute(select(WORKERS)).all()
            oldest = now - EXPIRY // timedelta(microseconds=1)
            gone = [
                w for w, process, seen in rows if w == worker or seen < oldest or is_gone(process)
            ]
            if gone:
                connection.execute(delete(WORKERS).where(WORKERS.c.worker.in_(gone)))
            row = {"worker": worker, "process": self._process, "seen_at": now}
            connection.execute(insert(WORKERS).values(row))
            return frozenset(row[0] for row in rows) - frozenset(gone)

        return await self._read_model.write(change)

    async def leave(self, worker: str) -> None:
        """Say that `worker` is gone; what it left is anybody's.

        Raises:
            StoreError: The read model does not answer; the row expires by itself.
        """
        await self._read_model.write(
            lambda connection: connection.execute(delete(WORKERS).where(WORKERS.c.worker == worker))
        )

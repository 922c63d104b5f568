"""Which engines are alive, and what code they have: a row with a heartbeat for each, and one for each version.

So nobody takes up what another is still doing, or says of a run that nobody can run it if another can.

Operational state, not a fold of events. It spares work; what is right is decided by the aggregates alone.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeAlias

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    MetaData,
    Table,
    delete,
    insert,
    select,
    update,
)

from aion_es.clock import Clock
from aion_es.projections.columns import Text
from aion_es.projections.instants import to_micros
from aion_es.projections.processes import is_gone, this_process
from aion_es.projections.read_model import ReadModel

HEARTBEAT: Final = timedelta(seconds=2)
"""How often an engine says that it is alive."""
EXPIRY: Final = timedelta(seconds=10)
"""An engine that was silent for so long is gone; at once, if its process is seen to have ended."""
_FORGOTTEN: Final = timedelta(minutes=1)
"""So long the row of one that is gone is kept: each of the others must have looked at it by then."""
_MICROSECOND: Final = timedelta(microseconds=1)

Code: TypeAlias = tuple[str, str]
"""A workflow type, and a version of it."""

_METADATA: Final = MetaData()

WORKERS: Final = Table(
    "workers",
    _METADATA,
    Column("worker", Text, primary_key=True),
    Column("process", Text, nullable=False),
    Column("seen_at", BigInteger, nullable=False),
)

CODE: Final = Table(
    "worker_code",
    _METADATA,
    Column("worker", Text, primary_key=True),
    Column("workflow_type", Text, primary_key=True),
    Column("package_version", Text, primary_key=True),
)


@dataclass(frozen=True, slots=True)
class Others:
    """The other engines on a read model, as they stand at one moment.

    Attributes:
        alive: Who has been heard of lately.
        gone: Who is not alive any more, and was within the last minute or so.
        code: What those that are alive have loaded.
    """

    alive: frozenset[str]
    gone: frozenset[str]
    code: frozenset[Code] = frozenset()


class Workers:
    """The engines that share one read model."""

    def __init__(self, read_model: ReadModel, clock: Clock) -> None:
        """Keep what is needed; nothing is written. The clock must be the machine's: others read it too."""
        self._read_model = read_model
        self._clock = clock
        self._process = this_process()
        self._said: dict[str, frozenset[Code]] = {}

    async def announce(self, worker: str, code: Collection[Code] = ()) -> Others:
        """Say that `worker` is alive and has `code`, and return how the others stand.

        Raises:
            StoreError: The read model does not answer.
        """
        now = to_micros(self._clock.now())
        forgotten = now - _FORGOTTEN // _MICROSECOND
        has = frozenset(code)

        def change(connection: Connection) -> Others:
            seen_at, gone = _seen(connection, now, but=worker)
            old = [name for name in gone if seen_at[name] < forgotten]
            connection.execute(delete(WORKERS).where(WORKERS.c.worker.in_([worker, *old])))
            row = {"worker": worker, "process": self._process, "seen_at": now}
            connection.execute(insert(WORKERS).values(row))
            changed = [worker] if self._said.get(worker) != has else []
            if changed or old:
                connection.execute(delete(CODE).where(CODE.c.worker.in_([*changed, *old])))
            if changed and has:
                connection.execute(insert(CODE), [_code_row(worker, one) for one in has])
            alive = frozenset(seen_at) - gone
            return Others(alive, gone, _code_of(connection, alive))

        others = await self._read_model.write(change)
        self._said[worker] = has
        return others

    async def all(self) -> Others:
        """Return how all engines stand; to ask announces nobody.

        Raises:
            StoreError: The read model does not answer.
        """
        now = to_micros(self._clock.now())

        def look(connection: Connection) -> Others:
            seen_at, gone = _seen(connection, now)
            alive = frozenset(seen_at) - gone
            return Others(alive, gone, _code_of(connection, alive))

        return await self._read_model.read(look)

    async def leave(self, worker: str) -> None:
        """Say that `worker` is gone; what it left is anybody's, and the others hear of it when they announce themselves.

        Raises:
            StoreError: The read model does not answer; the row expires by itself.
        """
        expired = to_micros(self._clock.now() - EXPIRY) - 1
        change = update(WORKERS).where(WORKERS.c.worker == worker).values(seen_at=expired)
        await self._read_model.write(lambda connection: connection.execute(change))


def _seen(
    connection: Connection, now: int, *, but: str | None = None
) -> tuple[dict[str, int], frozenset[str]]:
    """Return when each engine was heard of last, in microseconds, and which are gone."""
    rows = [row for row in connection.execute(select(WORKERS)).all() if row[0] != but]
    expired = now - EXPIRY // _MICROSECOND
    gone = frozenset(name for name, process, seen in rows if seen < expired or is_gone(process))
    return {name: seen for name, _, seen in rows}, gone


def _code_row(worker: str, code: Code) -> dict[str, str]:
    return {"worker": worker, "workflow_type": code[0], "package_version": code[1]}


def _code_of(connection: Connection, workers: Collection[str]) -> frozenset[Code]:
    if not workers:
        return frozenset()
    columns = (CODE.c.workflow_type, CODE.c.package_version)
    rows = connection.execute(select(*columns).where(CODE.c.worker.in_(workers)).distinct())
    return frozenset((row[0], row[1]) for row in rows)

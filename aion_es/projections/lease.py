"""Who feeds a read model: one runner at a time, and the next one when it is gone.

The checkpoints alone already see to it that no event counts twice; the lease spares two processes from
doing the same work. On PostgreSQL it is an advisory lock of the session that writes, which ends with it.
On SQLite it is a row with a heartbeat, taken over when that stops, or at once when its process is gone.
"""

from datetime import timedelta
from typing import Final, NamedTuple, Protocol
from weakref import WeakValueDictionary

from sqlalchemy import BigInteger, Column, Connection, Integer, MetaData, Table, select, text

from aion_es.clock import Clock
from aion_es.ids import IdSource
from aion_es.projections.columns import Text
from aion_es.projections.instants import to_micros
from aion_es.projections.processes import is_gone, this_process
from aion_es.projections.read_model import ReadModel

HEARTBEAT: Final = timedelta(seconds=1)
"""How often the holder renews."""
EXPIRY: Final = timedelta(seconds=10)
"""A row without a heartbeat for so long is anybody's."""
_LOCK: Final = 0x61657072_0002
_ID: Final = 1

LEASE: Final = Table(
    "runner_lease",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("process", Text, nullable=False),
    Column("heartbeat_at", BigInteger, nullable=False),
)


class Lease(Protocol):
    """The right to feed one read model."""

    async def acquire(self) -> bool:
        """Take it, or keep it if it is ours; False if somebody else has it.

        Raises:
            StoreError: The read model does not answer; nobody knows who has it.
        """
        ...

    async def release(self) -> None:
        """Give it back; without it nothing happens.

        Raises:
            StoreError: The read model does not answer; the others take it when it expires.
        """
        ...


def lease_for(read_model: ReadModel, clock: Clock, ids: IdSource) -> Lease:
    """Return the lease of one runner on `read_model`."""
    if read_model.is_private:
        return _NoLease()
    if read_model.dialect == "postgresql":
        return _AdvisoryLock(read_model)
    return _Row(read_model, clock, ids.new())


class _NoLease:
    """Of a database that nobody else can open."""

    async def acquire(self) -> bool:
        return True

    async def release(self) -> None:
        return


class _AdvisoryLock:
    """PostgreSQL's lock, held by the session that writes the rows."""

    def __init__(self, read_model: ReadModel) -> None:
        self._read_model = read_model

    async def acquire(self) -> bool:
        return await self._read_model.write(_try_lock)

    async def release(self) -> None:
        await self._read_model.write(
            lambda connection: connection.execute(text(f"SELECT pg_advisory_unlock({_KEY})"))
        )


_KEY: Final = f"hashtextextended(current_schema(), {_LOCK})"


def _try_lock(connection: Connection) -> bool:
    """Lock it once: the session counts how often, and only a lost one no longer has it."""
    held = f"((classid::bigint << 32) | objid::bigint) = {_KEY}"
    ours = f"SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND granted AND objsubid = 1 AND {held}"  # noqa: S608 - constants
    if connection.execute(text(ours)).first():
        return True
    return bool(connection.execute(text(f"SELECT pg_try_advisory_lock({_KEY})")).scalar_one())


class _Row:
    """SQLite's row."""

    def __init__(self, read_model: ReadModel, clock: Clock, holder: str) -> None:
        self._read_model = read_model
        self._clock = clock
        self._holder = holder

    async def acquire(self) -> bool:
        now = to_micros(self._clock.now())
        found = await self._read_model.read(_found)
        # A look first: those who wait for their turn do not disturb the one who writes.
        if found is not None and not self._may_take(found, now):
            return False
        _HOLDERS[self._holder] = self
        return await self._read_model.write(lambda connection: self._take(connection, now))

    async def release(self) -> None:
        _HOLDERS.pop(self._holder, None)
        ours = LEASE.delete().where(LEASE.c.holder == self._holder)
        await self._read_model.write(lambda connection: connection.execute(ours))

    def _take(self, connection: Connection, now: int) -> bool:
        found = _found(connection)
        if found is not None and not self._may_take(found, now):
            return False
        values = {"holder": self._holder, "process": this_process(), "heartbeat_at": now}
        if found is None:
            connection.execute(LEASE.insert().values(id=_ID, **values))
        else:
            connection.execute(LEASE.update().values(values))
        return True

    def _may_take(self, held: "_Held", now: int) -> bool:
        if held.holder == self._holder:
            return True
        age = timedelta(microseconds=now - held.heartbeat_at)
        if abs(age) >= EXPIRY:  # the clock may have been set back as well
            return True
        if held.process and held.process == this_process():
            return held.holder not in _HOLDERS  # left behind in this very process
        return is_gone(held.process)


class _Held(NamedTuple):
    """The row."""

    holder: str
    process: str
    heartbeat_at: int


def _found(connection: Connection) -> _Held | None:
    query = select(LEASE.c.holder, LEASE.c.process, LEASE.c.heartbeat_at)
    row = connection.execute(query).one_or_none()
    return None if row is None else _Held(row.holder, row.process, row.heartbeat_at)


_HOLDERS: Final[WeakValueDictionary[str, _Row]] = WeakValueDictionary()
"""The holders that live in this process."""

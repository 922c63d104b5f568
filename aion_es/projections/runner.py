"""The projection runner: feeds projections from the store, and commits rows and checkpoint together."""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Final

from sqlalchemy import Connection

from aion_es.clock import Clock, SystemClock, seconds_to_wait
from aion_es.errors import (
    InvalidArgumentError,
    ProjectionLagError,
    StoreError,
    StoreUnavailableError,
)
from aion_es.ids import IdSource, UUIDv7Source
from aion_es.projections.checkpoints import (
    CHECKPOINTS,
    REBUILDS,
    checkpoints,
    install,
    installed,
    make_anew,
)
from aion_es.projections.declarations import check_projections
from aion_es.projections.failures import (
    Skipped,
    failures,
    record_skip,
    skipped_positions,
    skips,
)
from aion_es.projections.feeding import Attention, EventSource, Feeder, FeedOptions
from aion_es.projections.lease import HEARTBEAT, Lease, lease_for
from aion_es.projections.members import Handler, Member
from aion_es.projections.metering import ProjectionMeter
from aion_es.projections.projection import Projection
from aion_es.projections.read_model import ReadModel
from aion_es.projections.status import (
    ProjectionStatus,
    StoreEnd,
    statuses,
    stored_state,
)
from aion_es.store.port import START, Position, RecordedEvent

_log = logging.getLogger("aion_es.projections")

MAX_BATCH: Final = 8_000
"""Events per transaction: enough that its own cost vanishes, few enough that a retry is cheap."""
_FIRST_DELAY: Final = timedelta(milliseconds=100)
_LAST_DELAY: Final = timedelta(seconds=30)
_TURN: Final = 0.25
"""Seconds from one look at the lease that another process holds to the next."""
_FIRST_LOOK: Final = 0.02
"""Seconds until the first look at checkpoints that another process moves; doubled up to `_TURN`."""


class _LeaseLostError(Exception):
    """Another process took the lease; this one waits for its turn again."""


class ProjectionRunner:
    """Keeps projections up to date with a store.

    Projections that stand at the same checkpoint share one subscription. One that fails goes on alone,
    retried with backoff from where it stands, while the others are not disturbed.

    Of all the runners on one read model one is active; the others wait, and one of them takes over when
    it ends or dies. So they should have the same projections. Waiting and asking works in each of them.
    """

    def __init__(
        self,
        store: EventSource,
        read_model: ReadModel,
        projections: Sequence[Projection],
        *,
        prefix: str | tuple[str, ...],
        interval: timedelta = timedelta(milliseconds=25),
        max_batch: int = MAX_BATCH,
        first_delay: timedelta = _FIRST_DELAY,
        last_delay: timedelta = _LAST_DELAY,
        clock: Clock | None = None,
        ids: IdSource | None = None,
    ) -> None:
        """Bind `projections` to a store and a read model; nothing is read yet.

        Args:
            store: Where the events come from.
            read_model: Where the rows go.
            projections: With names of their own each.
            prefix: Streams whose name begins so. Of several, the store filters by what they share.
            interval: While live, a batch at most so often: events that come meanwhile share a
                transaction, and short runs cancel out before they are written. The first event after
                a pause is not delayed, and nothing is while somebody waits in `wait_until`.
            max_batch: Events per transaction, at most.
            first_delay: Before the first retry of what failed; doubled from one retry to the next.
            last_delay: Upper bound of that.
            clock: Tells other processes that this one lives, and when what failed. Default: the system's.
            ids: Gives this runner a name. Default: UUIDv7.

        Raises:
            InvalidArgumentError: Two projections have one name, or one table; a table has a name that is
                taken; or an `apply` is async, or a generator.
        """
        check_projections(projections)
        self._members = {p.name: Member(p) for p in projections}
        self._store = store
        self._read_model = read_model
        self._options = FeedOptions(
            (prefix,) if isinstance(prefix, str) else prefix,
            interval.total_seconds(),
            max_batch,
            first_delay.total_seconds(),
            last_delay.total_seconds(),
        )
        self._clock = clock or SystemClock()
        self._ids = ids or UUIDv7Source()
        self._attention = Attention()
        self._meter = ProjectionMeter(read_model.name)
        self._twins: dict[str, Member] = {}
        self._asked = asyncio.Event()  # an operator wants something of the active runner
        self._is_active = False
        self._prepared = False

    async def prepare(self) -> None:
        """Make the projections' tables where they are missing, so that queries find them; `run` does it too.

        Raises:
            UnsupportedStoreVersionError: A newer version of one of them is in the read model.
            StoreError: The read model cannot be written.
        """
        for member in self._members.values():
            projection = member.projection
            # A look first: whoever only joins waits for no batch that another process is writing.
            standing = await self._read_model.read(partial(installed, projection=projection))
            if standing is None:
                standing = await self._read_model.insist(partial(install, projection=projection))
            member.position, member.is_beside = standing
            projection.forget()
        await self._read_model.read(self._learn_failures)
        self._prepared = True

    async def run(self) -> None:
        """Feed the projections whenever it is this runner's turn, until cancelled; one task of the app's group.

        Raises:
            StoreError: What waiting cannot mend: store or read model closed, damaged, access denied.
            UnsupportedStoreVersionError: As `prepare`.
        """
        if not self._prepared:
            await self.prepare()
        lease = lease_for(self._read_model, self._clock, self._ids)
        try:
            while True:
                await self._turn(lease)
                with suppress(_LeaseLostError):
                    await self._feed(lease)
                _log.warning("projections: another process feeds the read model now")
        finally:
            with suppress(StoreError):
                await lease.release()

    # ------------------------------------------------------------------------------- asking

    async def status(self) -> list[ProjectionStatus]:
        """Return how each projection stands, in the order in which they were given.

        Works in every process on the read model, whichever is active.

        Raises:
            StoreError: The read model does not answer.
        """
        stored = await self._read_model.read(stored_state)
        try:
            end: StoreEnd | None = StoreEnd(await self._store.end_position(), await self._last())
        except StoreError:
            end = None
        return statuses(self._members.values(), self._twins, stored, end, is_active=self._is_active)

    def position(self, projection: str) -> Position:
        """Return the position up to which `projection` has handled everything, as this runner knows it.

        Raises:
            InvalidArgumentError: The runner has no such projection.
        """
        return self._member(projection).answers_up_to

    async def wait_until(
        self,
        position: Position,
        *,
        projection: str,
        timeout: timedelta | None = None,
    ) -> None:
        """Return once the rows of `projection` that answer contain everything up to `position`.

        Raises:
            ProjectionLagError: Not within `timeout`; its cause is the projection's own error, if it has one.
            InvalidArgumentError: The runner has no such projection, or `timeout` is no timedelta.
            StoreError: What waiting cannot mend: the read model was closed, or is damaged.
        """
        member = self._member(projection)
        try:
            async with asyncio.timeout(seconds_to_wait(timeout)):
                await self._until_reached([member], position)
        except TimeoutError:
            raise ProjectionLagError(
                projection, str(position), str(member.answers_up_to)
            ) from member.error

    async def wait_until_caught_up(self) -> None:
        """Return once every projection has handled what the store held when this was called.

        Raises:
            StoreError: Store or read model do not answer.
        """
        last = await self._last()
        if last is not None:
            await self._until_reached(list(self._members.values()), last.position)

    # ------------------------------------------------------------------------------- operating

    async def skip(self, projection: str, position: Position, *, reason: str = "") -> None:
        """Have `projection` pass over the event that it cannot handle; recorded, with the error and `reason`.

        The active runner goes on at its next try, at once if it is this one. It holds for rebuilds of the
        same version too; a raised version tries the event again.

        Raises:
            InvalidArgumentError: There is no such projection here, or it does not stand still at
                `position`; nothing was recorded.
            StoreError: The read model cannot be written; nothing was recorded.
        """
        member = self._member(projection)
        record = partial(record_skip, projection=projection, position=position)
        await self._read_model.write(partial(record, reason=reason, at=self._clock.now()))
        for standing in (member, self._twins.get(projection)):
            if standing is not None:
                standing.retry.set()

    async def skipped(self, projection: str) -> list[Skipped]:
        """Return every skip that was recorded for `projection`, in the order of the events.

        Raises:
            StoreError: The read model does not answer.
        """
        return await self._read_model.read(partial(skips, projection=projection))

    async def rebuild(self, projection: str) -> None:
        """Ask for the rows of `projection` to be made anew, beside those that answer; returns at once.

        The active runner makes them, in whichever process; when they have caught up they replace the old
        ones in one transaction. One that is under way already goes on.

        Raises:
            InvalidArgumentError: The runner has no such projection.
            UnsupportedStoreVersionError: A newer version of it is in the read model; nothing was begun.
            StoreError: The read model cannot be written; nothing was begun.
        """
        made = self._member(projection).projection
        await self._read_model.write(partial(make_anew, projection=made))
        self._asked.set()

    async def wait_until_rebuilt(
        self, projection: str, *, timeout: timedelta | None = None
    ) -> None:
        """Return once no rows of `projection` are being made beside those that answer.

        Raises:
            ProjectionLagError: Not within `timeout`; it goes on.
            InvalidArgumentError: The runner has no such projection, or `timeout` is no timedelta.
            StoreError: The read model does not answer.
        """
        member = self._member(projection)
        try:
            async with asyncio.timeout(seconds_to_wait(timeout)):
                look = _FIRST_LOOK
                while projection in await self._read_model.read(
                    partial(checkpoints, table=REBUILDS)
                ):
                    await self._attention.until(lambda: False, patience=look)
                    look = min(look * 2, _TURN)
        except TimeoutError:
            raise ProjectionLagError(
                projection, "the rebuild's end", str(member.position)
            ) from None

    # ------------------------------------------------------------------------------- waiting

    def _member(self, name: str) -> Member:
        member = self._members.get(name)
        if member is None:
            raise InvalidArgumentError("projection", f"this runner has none named {name!r}")
        return member

    async def _last(self) -> RecordedEvent | None:
        """Return the last event in the store that the projections want."""
        prefix = self._options.prefix
        async for event in self._store.read_all(backwards=True, prefix=prefix, limit=1):
            return event
        return None

    async def _until_reached(self, members: Sequence[Member], position: Position) -> None:
        """Wait for this runner's own progress, and look now and then for what is not told to it."""

        def reached() -> bool:
            return all(member.answers_up_to >= position for member in members)

        look = _FIRST_LOOK
        while not await self._attention.until(reached, patience=look):
            look = min(look * 2, _TURN)
            with suppress(StoreUnavailableError):
                if not self._is_active:
                    await self._follow()
                if look == _TURN:
                    position = await self._passed_over(position)

    async def _follow(self) -> None:
        """Learn how far the active runner, in another process, has come."""
        stored = await self._read_model.read(partial(checkpoints, table=CHECKPOINTS))
        if self._is_active:
            return
        for name, member in self._members.items():
            found = stored.get(name)
            if found is not None and found.version == member.projection.version:
                member.position, member.is_beside = found.position, False
        self._attention.announce()

    async def _passed_over(self, position: Position) -> Position:
        """Return the last position up to `position` that matters: what follows it is of no projection's interest."""
        if await self._store.end_position() < position:
            return position  # it is yet to come
        last = await self._last()
        return min(position, START if last is None else last.position)

    # ------------------------------------------------------------------------------- running

    def _learn_failures(self, connection: Connection) -> None:
        noted = failures(connection)
        for member in self._members.values():
            projection = member.projection
            member.is_noted = (projection.name, member.is_beside) in noted
            member.skipped = skipped_positions(connection, projection.name, projection.version)

    async def _turn(self, lease: Lease) -> None:
        """Wait until it is this runner's turn."""
        while True:
            try:
                if await lease.acquire():
                    return
            except StoreUnavailableError as error:
                _log.warning("projections: %s; trying again", error)
            self._prepared = False  # whoever feeds them moves on
            await asyncio.sleep(_TURN)

    async def _feed(self, lease: Lease) -> None:
        """Feed the projections for as long as this runner has the lease.

        Raises:
            _LeaseLostError: It has it no longer.
        """
        while not self._prepared or any(member.is_beside for member in self._members.values()):
            try:
                await self.prepare()
                break
            except StoreUnavailableError as error:
                _log.warning("projections: %s; trying again", error)
                await asyncio.sleep(_TURN)
        try:
            with self._meter.shown():
                await self._feed_shown(lease)
        finally:
            self._is_active = False
            self._prepared = False  # a batch may have been committed after the cancellation
            self._twins.clear()
            for member in self._members.values():
                member.caught_up = False

    async def _feed_shown(self, lease: Lease) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                feeder = Feeder(
                    self._store,
                    self._read_model,
                    self._options,
                    Handler(self._read_model, self._clock),
                    self._attention,
                    group,
                )
                self._is_active = True
                feeder.begin(list(self._members.values()))
                group.create_task(self._keep(lease, feeder))
        except ExceptionGroup as failed:
            graver = [e for e in failed.exceptions if not isinstance(e, _LeaseLostError)]
            raise (graver or failed.exceptions)[0] from failed

    async def _keep(self, lease: Lease, feeder: Feeder) -> None:
        """Renew the lease, and begin the rebuilds that operators ask for, in whichever process."""
        while True:
            self._asked.clear()
            try:
                await self._begin_rebuilds(feeder)
                await self._measure()
                with suppress(TimeoutError):
                    async with asyncio.timeout(HEARTBEAT.total_seconds()):
                        await self._asked.wait()
                if not await lease.acquire():
                    raise _LeaseLostError
            except StoreUnavailableError as error:
                _log.warning("projections: %s; trying again", error)
                await asyncio.sleep(_TURN)

    async def _measure(self) -> None:
        """Look how the projections stand, if somebody collects metrics."""
        if self._meter.is_asked:
            skipped = {name: len(member.skipped) for name, member in self._members.items()}
            self._meter.take(await self.status(), skipped)

    async def _begin_rebuilds(self, feeder: Feeder) -> None:
        under_way = {name for name, twin in self._twins.items() if twin.is_beside}
        asked = await self._read_model.read(partial(checkpoints, table=REBUILDS))
        begun: list[Member] = []
        for name, made in asked.items():
            member = self._members.get(name)
            # One that was under way may have ended since it was looked up.
            if member is None or member.is_beside or name in under_way:
                continue
            if made.version == member.projection.version:
                twin = self._twins[name] = Member(
                    member.projection.twin(),
                    made.position,
                    is_beside=True,
                    is_twin=True,
                    is_noted=True,
                    skipped=member.skipped,
                )
                begun.append(twin)
        feeder.begin(begun)

"""Heartbeats: what a running attempt says of itself, kept in memory, and stored from time to time.

A heartbeat only sets fields. What was said last goes into the record of the attempt's failure. Should its
process die there is nobody to record that: so the details are stored beside the history too, throttled,
where whoever takes the attempt up finds them. They spare work; what is right does not depend on them.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final, NamedTuple, Protocol

from aion_es.authoring.activities import ActivityInfo, RunningActivity
from aion_es.clock import Clock
from aion_es.engine.limits import require_size
from aion_es.engine.timers import TimerService
from aion_es.errors import StoreError
from aion_es.ids import ActivityId, RunId, WorkflowId
from aion_es.payload import Payload

_LOG: Final = logging.getLogger("aion_es.engine")

_SHARE_OF_TIMEOUT: Final = 0.8
_LONGEST_INTERVAL: Final = timedelta(seconds=30)
"""Details are stored once in this share of the heartbeat timeout, and once in so long, at most."""


class AttemptKey(NamedTuple):
    """One activity of one run; at most one of its attempts counts at a time."""

    workflow_id: WorkflowId
    run_id: RunId
    activity_id: ActivityId


class HeartbeatRows(Protocol):
    """Where heartbeats are stored: one row per activity, of the attempt that spoke last."""

    async def write(
        self,
        spoken: Sequence[tuple[str, str, int, int, Payload, datetime]],
        gone: Sequence[tuple[str, str, int]],
    ) -> None:
        """Store rows (workflow, run, activity, attempt, details, when), and forget others, in one transaction."""
        ...

    async def read(
        self, workflow_id: str, run_id: str, activity_id: int
    ) -> tuple[int, Payload] | None:
        """Return the attempt that spoke last, and its details."""
        ...


def payload_of_details(details: object, limit: int) -> Payload | None:
    """Return the payload that records heartbeat details, of which `None` are none.

    Raises:
        PayloadError: They cannot be written.
        PayloadTooLargeError: They are larger than `limit` bytes.
    """
    if details is None:
        return None
    payload = Payload.of(details, what="heartbeat details")
    require_size(payload, limit, "heartbeat details")
    return payload


class Pulse(RunningActivity):
    """A running attempt as its code sees it, and what the engine knows of its life.

    Attributes:
        key: Whose attempt it is.
        silence: So long it may be silent; `None` without a bound.
        cancelled: Its outcome is no longer wanted, or there already. Set on the loop, read from any thread.
        beat_at: When it last said that it lives; `None` before it did.
        details: What it said last; `None` for nothing.
    """

    __slots__ = (
        "_heard",
        "_info",
        "_is_noted",
        "_limit",
        "_loop",
        "_now",
        "_written",
        "beat_at",
        "cancelled",
        "details",
        "key",
        "silence",
    )

    def __init__(
        self,
        key: AttemptKey,
        info: ActivityInfo,
        silence: timedelta | None,
        *,
        clock: Clock,
        max_details_bytes: int,
        loop: asyncio.AbstractEventLoop,
        heard: "Callable[[Pulse], None]",
    ) -> None:
        self.key = key
        self.silence = silence
        self.cancelled = False
        self.beat_at: datetime | None = None
        self.details: Payload | None = None
        self._info = info
        self._now = clock.now
        self._limit = max_details_bytes
        self._loop = loop
        self._heard = heard
        self._is_noted = False
        self._written: Payload | None = None

    @property
    def info(self) -> ActivityInfo:
        """See `RunningActivity`."""
        return self._info

    def is_cancelled(self) -> bool:
        """See `RunningActivity`."""
        return self.cancelled

    def heartbeat(self, details: object) -> None:
        """See `RunningActivity`. Wakes the loop only for the first details in an interval."""
        self.beat(payload_of_details(details, self._limit))

    def beat(self, details: Payload | None) -> None:
        """Take in a heartbeat whose details are a payload already."""
        self.beat_at = self._now()
        if details is None:
            return
        self.details = details
        if not self._is_noted and not self.cancelled:
            self._is_noted = True
            with suppress(
                RuntimeError
            ):  # a thread that outlived its engine: nobody listens any more
                self._loop.call_soon_threadsafe(self._heard, self)

    def is_news(self) -> bool:
        """Return whether the details have changed since this was last asked for; if not, the next ones wake the loop."""
        if self.details is not self._written:
            self._written = self.details
            return True
        # In this order: a thread that speaks in between either is seen here, or wakes the loop itself.
        self._is_noted = False
        if self.details is self._written:
            return False
        self._is_noted = True
        self._written = self.details
        return True


class Heartbeats:
    """Stores what running attempts say, each at most once in an interval, all that is due in one transaction.

    Attributes:
        rows: Where; `None` stores nothing.
    """

    def __init__(self, timers: TimerService, clock: Clock, group: asyncio.TaskGroup) -> None:
        self.rows: HeartbeatRows | None = None
        self._timers = timers
        self._clock = clock
        self._group = group
        self._stored: set[AttemptKey] = set()
        self._changes: dict[AttemptKey, Pulse | None] = {}
        self._is_writing = False

    @property
    def are_stored(self) -> bool:
        """Whether anything that an attempt said is stored, as far as this engine knows."""
        return bool(self._stored)

    def note(self, pulse: Pulse) -> None:
        """Store what an attempt said, now and, as long as it says something else, once in every interval."""
        if self.rows is None or pulse.cancelled or not pulse.is_news():
            return
        self.keep(pulse)
        interval = _LONGEST_INTERVAL
        if pulse.silence is not None:
            interval = min(interval, pulse.silence * _SHARE_OF_TIMEOUT)
        self._timers.add_after(_timer(pulse), interval, lambda: self.note(pulse))

    def keep(self, pulse: Pulse) -> None:
        """Store what an attempt said last, for whoever takes it up."""
        if pulse.details is not None and self.rows is not None:
            self._stored.add(pulse.key)
            self._change(pulse.key, pulse)

    def stop(self, pulse: Pulse) -> None:
        """Listen no more to an attempt; what is stored of it stays until its outcome is recorded."""
        pulse.cancelled = True
        if pulse.details is not None:
            self._timers.discard(_timer(pulse))

    def forget(self, key: AttemptKey) -> None:
        """Drop what is stored: the history has the attempt's outcome now, and what it said last."""
        if key in self._stored:
            self._stored.discard(key)
            self._change(key, None)

    async def left_by(self, key: AttemptKey, attempt: int) -> Payload | None:
        """Return what an attempt whose process is gone said last, as far as that was stored.

        Where the rows cannot be read that is nothing: the attempt's loss is recorded all the same.
        """
        if self.rows is None:
            return None
        try:
            stored = await self.rows.read(*key)
        except StoreError as error:
            _LOG.warning("workflow %s: heartbeat details are lost: %s", key.workflow_id, error)
            return None
        if stored is None:
            return None
        self._stored.add(key)
        return stored[1] if stored[0] == attempt else None

    def _change(self, key: AttemptKey, pulse: Pulse | None) -> None:
        self._changes[key] = pulse
        if not self._is_writing:
            self._is_writing = True
            self._group.create_task(self._write())

    async def _write(self) -> None:
        try:
            while self._changes and self.rows is not None:
                changes, self._changes = self._changes, {}
                now = self._clock.now()
                spoken = [
                    (
                        key[0],
                        key[1],
                        key[2],
                        pulse.info.attempt,
                        pulse.details,
                        pulse.beat_at or now,
                    )
                    for key, pulse in changes.items()
                    if pulse is not None and pulse.details is not None
                ]
                gone = [key for key, pulse in changes.items() if pulse is None]
                try:
                    await self.rows.write(spoken, gone)
                except StoreError as error:
                    _LOG.warning("heartbeats are not stored: %s", error)
        finally:
            self._is_writing = False


def _timer(pulse: Pulse) -> tuple[str, AttemptKey, int]:
    return ("heartbeat details", pulse.key, pulse.info.attempt)

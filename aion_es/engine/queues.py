"""Task queues: which of them this engine serves, how many attempts run at once, and in what order the others wait.

An attempt runs in a *place*. There are so many in the engine, in each queue that is bounded, and for each
executor that is; who finds none free waits, first come first served within a queue, and is never dropped.
"""

import itertools
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from aion_es.authoring.definitions import Executor
from aion_es.clock import Clock
from aion_es.engine.timers import TimerService
from aion_es.errors import InvalidArgumentError

_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class QueueOptions:
    """How one engine runs the activities of one task queue.

    Attributes:
        max_concurrent: Attempts that run at once in this engine; more wait in order, none is dropped.
            `None`, the default: only the engine's `max_activities` bounds them.
        rate_per_second: So many attempts begin in a second at most, evenly spaced, in this engine. `None`,
            the default, for no bound.
    """

    max_concurrent: int | None = None
    rate_per_second: float | None = None

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            InvalidArgumentError: One of them lets nothing through.
        """
        if self.max_concurrent is not None and self.max_concurrent < 1:
            raise InvalidArgumentError(
                "max_concurrent", f"must be at least 1, got {self.max_concurrent}"
            )
        if self.rate_per_second is not None and not self.rate_per_second > 0:
            raise InvalidArgumentError(
                "rate_per_second", f"must be positive, got {self.rate_per_second}"
            )


@dataclass(slots=True, eq=False)
class Ticket:
    """Somebody who waits for a place; `placed` is called once, when it has come."""

    number: int
    placed: Callable[[], None]
    withdrawn: bool = False


class _Bound:
    """What is left of one queue's places, and when the next attempt may begin."""

    __slots__ = ("free", "interval", "next_at")

    def __init__(self, options: QueueOptions) -> None:
        self.free = options.max_concurrent
        rate = options.rate_per_second
        self.interval = None if rate is None else timedelta(seconds=1 / rate)
        self.next_at = _LONG_AGO

    def occupy(self, now: datetime) -> None:
        if self.free is not None:
            self.free -= 1
        if self.interval is not None:
            self.next_at = max(now, self.next_at) + self.interval

    def give_back(self) -> None:
        if self.free is not None:
            self.free += 1


class TaskQueues:
    """The places of one engine, and who waits for one.

    Args:
        timers: Wakes a queue whose rate has let nothing through for a while.
        clock: What rates are measured with.
        max_concurrent: Places of the engine.
        queues: Bounds by queue; a queue that is not named has none of its own.
        serves: Queues whose activities run here; `None` for all.
        executors: Places by executor; one that is not named has no bound of its own.
    """

    def __init__(
        self,
        timers: TimerService,
        clock: Clock,
        *,
        max_concurrent: int,
        queues: Mapping[str, QueueOptions],
        serves: frozenset[str] | None,
        executors: Mapping[Executor, int],
    ) -> None:
        self._timers = timers
        self._clock = clock
        self._free = max_concurrent
        self._bounds = {queue: _Bound(options) for queue, options in queues.items()}
        self._serves = serves
        self._executors = dict(executors)
        self._numbers = itertools.count()
        # One line per queue and executor: who waits for a thread must not hold up who needs none.
        self._lines: dict[tuple[str, Executor], deque[Ticket]] = {}

    def serves(self, queue: str) -> bool:
        """Return whether activities of this queue run here."""
        return self._serves is None or queue in self._serves

    def take(self, queue: str, executor: Executor) -> bool:
        """Take a place if one is free and nobody has waited for it longer; say whether it was."""
        if self._free <= 0 or (self._lines and (queue, executor) in self._lines):
            return False
        if not self._has_place(queue, executor) or not self._is_time(queue):
            return False
        self._occupy(queue, executor)
        return True

    def wait(self, queue: str, executor: Executor, placed: Callable[[], None]) -> Ticket:
        """Join the line; `placed` is called when a place has come, which is then taken."""
        ticket = Ticket(next(self._numbers), placed)
        self._lines.setdefault((queue, executor), deque()).append(ticket)
        self._call_next()  # for a rate alone nobody gives a place back: its timer must be armed
        return ticket

    def give_back(self, queue: str, executor: Executor) -> None:
        """Let who has waited the longest have a place that is not needed any more."""
        self._free += 1
        if executor in self._executors:
            self._executors[executor] += 1
        bound = self._bounds.get(queue)
        if bound is not None:
            bound.give_back()
        if self._lines:
            self._call_next()

    def _call_next(self) -> None:
        while self._free > 0:
            line = self._longest_waiting()
            if line is None:
                return
            queue, executor = line
            tickets = self._lines[line]
            ticket = tickets.popleft()
            if not tickets:
                del self._lines[line]
            self._occupy(queue, executor)
            ticket.placed()

    def _longest_waiting(self) -> tuple[str, Executor] | None:
        """Return the line whose first has waited the longest of those for whom there is a place."""
        chosen: tuple[str, Executor] | None = None
        oldest = -1
        for line, tickets in list(self._lines.items()):
            while tickets and tickets[0].withdrawn:
                tickets.popleft()
            if not tickets:
                del self._lines[line]
            elif (chosen is None or tickets[0].number < oldest) and self._has_place(*line):
                if self._is_time(line[0]):
                    chosen, oldest = line, tickets[0].number
                else:
                    bound = self._bounds[line[0]]
                    self._timers.add(("queue", line[0]), bound.next_at, self._call_next)
        return chosen

    def _has_place(self, queue: str, executor: Executor) -> bool:
        if self._executors.get(executor, 1) <= 0:
            return False
        bound = self._bounds.get(queue)
        return bound is None or bound.free is None or bound.free > 0

    def _is_time(self, queue: str) -> bool:
        bound = self._bounds.get(queue)
        return bound is None or bound.interval is None or bound.next_at <= self._clock.now()

    def _occupy(self, queue: str, executor: Executor) -> None:
        self._free -= 1
        if executor in self._executors:
            self._executors[executor] -= 1
        bound = self._bounds.get(queue)
        if bound is not None:
            bound.occupy(self._clock.now())

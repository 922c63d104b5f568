"""Faults that tests inject: what networks, crashes and elections do to a client, on demand."""

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from aion_es.testing.eventstoredb.refusals import Refused, consumer_too_slow, not_leader


@dataclass(frozen=True, slots=True)
class _Plan:
    """What happens to one call."""

    delay: timedelta = timedelta(0)
    refusal: Refused | None = None
    after_commit: bool = False


class Faults:
    """What goes wrong next.

    Methods are named as in the protocol: `Append`, `BatchAppend`, `Read`, `Delete`, …; a consumer of a
    persistent subscription is `ReadPersistent`.

    A planned fault strikes the next call of its method (of `BatchAppend`: the next request of the
    call), as often as it says; several of one method strike one after the other.
    """

    def __init__(self) -> None:
        self._plans: dict[str, deque[_Plan]] = defaultdict(deque)
        self._leader: tuple[str, int] | None = None
        self._open: dict[asyncio.Task[object], Refused | None] = {}

    # ---------------------------------------------------------------- what tests say

    def delay(self, method: str, by: timedelta, *, times: int = 1) -> None:
        """Let the next calls of `method` wait before anything is done."""
        self._plan(method, _Plan(delay=by), times)

    def refuse(
        self,
        method: str,
        *,
        code: str = "UNAVAILABLE",
        details: str = "Server Is Not Ready",
        times: int = 1,
    ) -> None:
        """Refuse the next calls of `method`; nothing is done.

        Args:
            method: Which calls.
            code: Name of the gRPC status code.
            details: The status's text.
            times: How many calls.
        """
        self._plan(method, _Plan(refusal=Refused(code, details)), times)

    def lose_answer(
        self,
        method: str = "Append",
        *,
        code: str = "UNAVAILABLE",
        details: str = "Socket closed",
        times: int = 1,
    ) -> None:
        """Do what the next calls of `method` ask, then fail them as if the connection had broken."""
        plan = _Plan(refusal=Refused(code, details), after_commit=True)
        self._plan(method, plan, times)

    def step_down(self, host: str = "127.0.0.1", port: int = 1) -> None:
        """Be a follower of the node at `host` and `port` from now on.

        Calls that need the leader are refused and name that node; gossip says so too.
        """
        self._leader = (host, port)

    def step_up(self) -> None:
        """Be the leader again."""
        self._leader = None

    def drop_subscriptions(self, refusal: Refused | None = None) -> int:
        """End every open read, catch-up and persistent subscription; return how many.

        Args:
            refusal: How. Default: as servers through 23.10 end a subscription that is too slow.
        """
        reason = refusal or consumer_too_slow()
        dropped = [task for task, ending in self._open.items() if ending is None]
        for task in dropped:
            self._open[task] = reason
            task.cancel()
        return len(dropped)

    def clear(self) -> None:
        """Forget what was planned, and be the leader."""
        self._plans.clear()
        self._leader = None

    # ---------------------------------------------------------------- what the server asks

    @property
    def is_leader(self) -> bool:
        """True unless the node stepped down."""
        return self._leader is None

    def require_leader(self) -> None:
        """Return if the node is the leader.

        Raises:
            Refused: It stepped down.
        """
        if self._leader is not None:
            raise not_leader(*self._leader)

    async def strike(self, method: str) -> Callable[[], None]:
        """Let the next fault of `method` strike; return what is to be called after the commit.

        Raises:
            Refused: The fault is a refusal.
        """
        plans = self._plans.get(method)
        if not plans:
            return _nothing
        plan = plans.popleft()
        if plan.delay:
            await asyncio.sleep(plan.delay / timedelta(seconds=1))
        refusal = plan.refusal
        if refusal is None:
            return _nothing
        if not plan.after_commit:
            raise refusal

        def lose() -> None:
            raise refusal

        return lose

    @contextmanager
    def droppable(self) -> Generator[None, None, None]:
        """Let the calling task be ended by `drop_subscriptions` while the block runs.

        Raises:
            Refused: It was.
        """
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a handler runs in a task
        self._open[task] = None
        try:
            yield
        except asyncio.CancelledError:
            refusal = self._open[task]
            if refusal is None:
                raise
            task.uncancel()  # the cancellation was ours
            raise refusal from None
        finally:
            del self._open[task]

    def _plan(self, method: str, plan: _Plan, times: int) -> None:
        self._plans[method].extend([plan] * times)


def _nothing() -> None:
    return None

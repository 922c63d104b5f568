"""The signals of one run on their way to its code: kept in order, taken one by one, never lost."""

import asyncio
from collections import deque
from collections.abc import Iterable

from aion_es.engine.loop import WorkflowLoop
from aion_es.events.values import SignalMessage


class Mailboxes:
    """Unread signals and those who wait for one, by name.

    The k-th `take` of a name gives its k-th signal; a `take` that is cancelled takes none.
    """

    def __init__(self, loop: WorkflowLoop) -> None:
        self._loop = loop
        self._unread: dict[str, deque[SignalMessage]] = {}
        self._receivers: dict[str, deque[asyncio.Future[None]]] = {}

    def carry(self, signals: Iterable[SignalMessage]) -> None:
        """Put in what an earlier run of the chain received and did not read."""
        for signal in signals:
            self._unread.setdefault(signal.name, deque()).append(signal)

    def put(self, signal: SignalMessage) -> None:
        """Put in a new signal and wake who has waited for one the longest."""
        self._unread.setdefault(signal.name, deque()).append(signal)
        self._wake(signal.name)

    async def take(self, name: str) -> SignalMessage:
        """Return the oldest unread signal of this name, waiting for it."""
        unread = self._unread.setdefault(name, deque())
        while not unread:
            receivers = self._receivers.setdefault(name, deque())
            waiting = self._loop.create_future()
            receivers.append(waiting)
            try:
                await waiting
            except asyncio.CancelledError:
                if waiting in receivers:
                    receivers.remove(waiting)
                if unread and not waiting.cancelled():
                    self._wake(name)  # it was woken for a signal that somebody else may now take
                raise
        return unread.popleft()

    def clear(self) -> None:
        """Forget everything; the history keeps it."""
        self._unread.clear()
        self._receivers.clear()

    def _wake(self, name: str) -> None:
        receivers = self._receivers.get(name)
        while receivers:
            waiting = receivers.popleft()
            if not waiting.done():
                waiting.set_result(None)
                return

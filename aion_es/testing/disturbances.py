"""Faults of a store that come at random: calls that are refused, answers that are late or lost, feeds that break."""

import asyncio
import random
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final, Literal, Self, TypeAlias

from aion_es.errors import StoreUnavailableError, SubscriptionDroppedError
from aion_es.store.closing import ClosesOnExit
from aion_es.store.port import Subscription, SubscriptionMessage

Harm: TypeAlias = Literal["refused", "late", "unanswered"]
_HARMS: Final[tuple[Harm, ...]] = ("refused", "late", "unanswered")


class Disturbance:
    """Draws what happens to each call.

    Args:
        rng: Where chance comes from; print its seed.
        rate: Share of the calls that are harmed, from 0 to 1.
        longest: How long a call waits at most before it times out.
    """

    def __init__(self, rng: random.Random, rate: float, longest: timedelta) -> None:
        self._rng = rng
        self._rate = rate
        self._longest = longest.total_seconds()

    async def strike(self) -> Harm | None:
        """Let a call begin, or not: return what is to happen to it after it was made.

        Raises:
            StoreUnavailableError: It is refused at once, or times out. It was not made.
        """
        if self._rng.random() >= self._rate:
            return None
        harm = self._rng.choice(_HARMS)
        if harm == "refused":
            raise StoreUnavailableError("injected: the store is away")
        if harm == "late":
            await asyncio.sleep(self._rng.uniform(0, self._longest))
            raise StoreUnavailableError("injected: no answer in time", True)
        return harm

    def breaks(self) -> bool:
        """Return whether a subscription breaks now."""
        return self._rng.random() < self._rate


class BreakingSubscription(ClosesOnExit):
    """Passes a subscription on until it is broken: by `gone`, or by chance before a batch."""

    def __init__(
        self, inner: Subscription, gone: asyncio.Event, begin: Callable[[], Disturbance | None]
    ) -> None:
        """Wrap `inner`.

        Args:
            inner: The subscription itself.
            gone: Set when the store goes away.
            begin: Called before each batch: counts it, and says what may disturb it.
        """
        self._inner = inner
        self._gone = gone
        self._begin = begin
        self._unread: list[SubscriptionMessage] = []

    def __aiter__(self) -> Self:
        """See `Subscription`."""
        return self

    async def __anext__(self) -> SubscriptionMessage:
        """See `Subscription`."""
        if not self._unread:
            self._unread = list(await self.next_batch())
        if not self._unread:
            raise StopAsyncIteration
        return self._unread.pop(0)

    async def next_batch(self) -> Sequence[SubscriptionMessage]:
        """See `Subscription`; broken if a test said so."""
        disturbance = self._begin()
        batch = asyncio.ensure_future(self._inner.next_batch())
        gone = asyncio.ensure_future(self._gone.wait())
        try:
            await asyncio.wait({batch, gone}, return_when=asyncio.FIRST_COMPLETED)
            if self._gone.is_set():
                raise StoreUnavailableError("injected: the store is away")
            if disturbance is not None and disturbance.breaks():
                raise SubscriptionDroppedError("injected: the subscription broke")
            return batch.result()
        finally:
            for task in (batch, gone):
                task.cancel()
            await asyncio.gather(batch, gone, return_exceptions=True)

    async def aclose(self) -> None:
        """See `Subscription`."""
        await self._inner.aclose()

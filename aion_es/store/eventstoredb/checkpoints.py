"""Lets quiet subscriptions move on: whoever waits for a position that none of their events has must not wait for ever."""

import asyncio
from typing import Final

from aion_es.errors import StoreClosedError, StoreError
from aion_es.store.eventstoredb.client import Connection
from aion_es.store.eventstoredb.reader import Reader
from aion_es.store.eventstoredb.subscriptions import (
    FIRST_PROBE,
    LAST_PROBE,
    AllSubscription,
    EventStoreDBSubscription,
)
from aion_es.store.eventstoredb.tasks import Tasks
from aion_es.store.port import START, Position

_MARGIN: Final = 2.0
"""How much longer each pause is than the one before."""


class Checkpointer:
    """Gives live subscriptions with a prefix their checkpoints, when nothing that matches comes.

    The server's own come only after hundreds of events, and cannot be relied on while live. One task
    asks for the store's end, at most once in `LAST_PROBE` seconds while nothing happens, and at once
    after somebody asked for it: that is who may go on to wait for it.
    """

    def __init__(self, connection: Connection, reader: Reader, tasks: Tasks) -> None:
        self._connection = connection
        self._reader = reader
        self._tasks = tasks
        self._followed: set[AllSubscription] = set()
        self._asked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def follow(self, subscription: AllSubscription) -> None:
        """Take care of a subscription."""
        self._followed.add(subscription)
        self._asked.set()
        if self._task is None:
            self._task = self._tasks.start(self._run(), "aion-es-eventstoredb-checkpoints")

    def forget(self, subscription: EventStoreDBSubscription) -> None:
        """Leave it alone, if it was followed."""
        if isinstance(subscription, AllSubscription):
            self._followed.discard(subscription)

    def end_was_told(self) -> None:
        """Look soon: somebody learned where the store ends."""
        self._asked.set()

    async def _run(self) -> None:
        pause, known = FIRST_PROBE, START
        while True:
            try:
                async with asyncio.timeout(pause):
                    await self._asked.wait()
            except TimeoutError:
                pass
            else:
                self._asked.clear()
                pause = FIRST_PROBE
            if not self._followed:
                await self._asked.wait()
                continue
            try:
                generation = self._connection.generation
                end = await self._reader.end_position()
                moved = await self._move(end, generation)
            except StoreClosedError:
                return
            except StoreError:
                moved, end = False, known  # the subscriptions notice by themselves
            pause = FIRST_PROBE if moved or end != known else min(pause * _MARGIN, LAST_PROBE)
            known = end

    async def _move(self, end: Position, generation: int) -> bool:
        moved = False
        for subscription in tuple(self._followed):
            moved = await subscription.move_on(end, generation) or moved
        return moved

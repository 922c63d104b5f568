"""Going on while the store is away: a job that is tried until it is done, a subscription that is begun again."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

from aion_es.errors import (
    EventDecodeError,
    OperationalError,
    StoreError,
    StreamDeletedError,
    UnknownEventTypeError,
)
from aion_es.store.port import RecordedEvent, Subscription

RETRY_AFTER: Final = 1.0
"""Seconds between tries of a job."""
FIRST_RETRY: Final = 0.05
LAST_RETRY: Final = 5.0
"""Seconds between tries to go on while the store is away: they grow from the one to the other."""

UNREADABLE: Final = (UnknownEventTypeError, EventDecodeError, StreamDeletedError)
"""What a stream answers that will answer so again: these are not waited out as an absence of the store is."""

Take: TypeAlias = Callable[[Sequence[RecordedEvent]], Awaitable[object]]


async def persistently(
    job: Callable[[], Awaitable[None]], *, log: logging.Logger, what: str
) -> None:
    """Do a job, again after every `OperationalError`, until it is done.

    Raises:
        UnknownEventTypeError, EventDecodeError, StreamDeletedError: A stream cannot be read, now or later.
    """
    while True:
        try:
            await job()
        except UNREADABLE:
            raise
        except OperationalError as error:
            log.warning("%s: %s; trying again in %g s", what, error, RETRY_AFTER)
            await asyncio.sleep(RETRY_AFTER)
        else:
            return


async def follow(
    subscribe: Callable[[], Subscription], take: Take, *, log: logging.Logger, what: str
) -> None:
    """Give what is recorded to `take`, batch by batch, until that returns true; begin again when it breaks off.

    Args:
        subscribe: Called for every beginning: it knows how far `take` has come.
        take: What it raises as `StoreError` breaks the subscription off, too.
        log: Where breaks are told.
        what: What is followed, for the log.
    """
    delay = FIRST_RETRY
    while True:
        try:
            async with subscribe() as subscription:
                while batch := await subscription.next_batch():
                    events = [m for m in batch if isinstance(m, RecordedEvent)]
                    if events and await take(events):
                        return
                    delay = FIRST_RETRY
        except StoreError as error:
            log.warning("following %s: %s; again in %.2f s", what, error, delay)
        await asyncio.sleep(delay)
        delay = min(delay * 2, LAST_RETRY)

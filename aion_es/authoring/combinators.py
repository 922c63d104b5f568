"""Waiting for several things at once: bounded `map`, `race`, and `shield`; plain asyncio, so that replay repeats it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from aion_es.errors import InvalidArgumentError

I = TypeVar("I")  # noqa: E741 - the field's letter for an input
O = TypeVar("O")  # noqa: E741 - and for an output
T = TypeVar("T")


async def map_items(
    start: Callable[[I], "asyncio.Future[O]"],
    items: Iterable[I],
    *,
    concurrency: int | None,
    return_exceptions: bool,
) -> list[Any]:
    """Start one operation for each item, at most `concurrency` at once; return their results in order.

    Raises:
        InvalidArgumentError: `concurrency` is less than 1.
        Exception: The first error, after all others were cancelled, unless `return_exceptions`.
    """
    if concurrency is not None and concurrency < 1:
        raise InvalidArgumentError("concurrency", f"must be at least 1, got {concurrency}")
    inputs = list(items)
    results: list[Any] = [None] * len(inputs)
    waiting = iter(enumerate(inputs))

    async def work(share: Iterator[tuple[int, I]]) -> None:
        for index, item in share:
            try:
                results[index] = await start(item)
            except Exception as error:
                if not return_exceptions:
                    raise
                results[index] = error

    workers = [
        asyncio.ensure_future(work(waiting))
        for _ in range(min(concurrency or len(inputs), len(inputs)))
    ]
    try:
        await asyncio.gather(*workers)
    except BaseException:
        await _cancelled(workers)
        raise
    return results


async def race(operations: Sequence[Awaitable[T]]) -> T:
    """Return the result of the first that is done, or raise its error, when the others have been cancelled.

    Raises:
        InvalidArgumentError: There is none.
    """
    if not operations:
        raise InvalidArgumentError("race", "needs at least one operation")
    runners = [asyncio.ensure_future(operation) for operation in operations]
    try:
        await asyncio.wait(runners, return_when=asyncio.FIRST_COMPLETED)
    except BaseException:
        await _cancelled(runners)
        raise
    first = next(runner for runner in runners if runner.done())
    await _cancelled([runner for runner in runners if runner is not first])
    return await first


async def shield(operation: Awaitable[T]) -> T:
    """Await `operation` to its end; a cancellation that comes meanwhile is raised then."""
    work = asyncio.ensure_future(operation)
    interruption: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError as cancelled:
            interruption = cancelled
    if interruption is not None:
        _ = work.cancelled() or work.exception()  # looked at: the cancellation is what goes on
        raise interruption
    return work.result()


async def _cancelled(tasks: "Sequence[asyncio.Future[Any]]") -> None:
    """Cancel what is not done, and wait until it has ended; its errors are nobody's any more."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

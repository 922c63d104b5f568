"""Waiting for several things at once: bounded `map`, `race`, and `shield`; plain asyncio, so that replay repeats it."""

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias, TypeVar

from aion_es.errors import InvalidArgumentError

I = TypeVar("I")  # noqa: E741 - the field's letter for an input
O = TypeVar("O")  # noqa: E741 - and for an output
T = TypeVar("T")


Report: TypeAlias = Callable[[BaseException], None]
"""Takes an error that nobody awaits any more: it must not pass unseen."""


async def map_items(
    start: Callable[[I], "asyncio.Future[O]"],
    items: Iterable[I],
    report: Report,
    *,
    concurrency: int | None,
    return_exceptions: bool,
) -> list[Any]:
    """Start one operation for each item, at most `concurrency` at once; return their results in order.

    Raises:
        InvalidArgumentError: `concurrency` is less than 1.
        Exception: The first error, after all others were cancelled, unless `return_exceptions`. What those raised
            is reported, and noted on it.
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
    except BaseException as error:
        await _cancelled(workers, report, error)
        raise
    return results


async def race(operations: Sequence[Awaitable[T]], report: Report) -> T:
    """Return the result of the first that is done, or raise its error, when the others have been cancelled.

    What those raised is reported, and noted on an error that is raised.

    Raises:
        InvalidArgumentError: There is none.
    """
    if not operations:
        raise InvalidArgumentError("race", "needs at least one operation")
    runners = [asyncio.ensure_future(operation) for operation in operations]
    try:
        await asyncio.wait(runners, return_when=asyncio.FIRST_COMPLETED)
    except BaseException as error:
        await _cancelled(runners, report, error)
        raise
    first = next(runner for runner in runners if runner.done())
    lost = None if first.cancelled() else first.exception()
    await _cancelled([runner for runner in runners if runner is not first], report, lost)
    return await first


async def shield(operation: Awaitable[T], report: Report) -> T:
    """Await `operation` to its end; a cancellation that comes meanwhile is raised then, and its error reported."""
    work = asyncio.ensure_future(operation)
    interruption: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError as cancelled:
            interruption = cancelled
    if interruption is not None:
        drop(work, report, interruption)
        raise interruption
    return work.result()


async def _cancelled(
    tasks: "Sequence[asyncio.Future[Any]]", report: Report, raised: BaseException | None
) -> None:
    """Cancel what is not done, wait until it has ended, and report what it raised.

    Args:
        tasks: What nobody awaits any more.
        report: Takes its errors.
        raised: What goes on instead, and gets a note of them; `None` if nothing does.
    """
    for task in tasks:
        task.cancel()
    try:
        await asyncio.gather(*tasks, return_exceptions=True)
    finally:
        for task in tasks:
            drop(task, report, raised)


def drop(operation: "asyncio.Future[Any]", report: Report, raised: BaseException | None) -> None:
    """Report what an operation raised that has ended, if that is not what goes on anyway."""
    if not operation.done() or operation.cancelled():
        return
    error = operation.exception()
    if error is None or error is raised:
        return
    report(error)
    if raised is not None:
        shown = "".join(traceback.format_exception_only(error)).strip()
        raised.add_note(f"besides, where nobody awaits it any more: {shown}")

"""Batches: one command to every run that a filter asks for, at a bounded rate, resumable."""

import asyncio
import base64
import binascii
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from inspect import isawaitable
from math import ceil
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypedDict, TypeVar

from pydantic_core import from_json, to_json
from typing_extensions import Unpack

from aion_es.authoring.channels import Signal
from aion_es.client import WorkflowClient, WorkflowHandle
from aion_es.errors import (
    AionError,
    EngineClosedError,
    InvalidArgumentError,
    InvalidPageTokenError,
    InvalidStateError,
    RunClosedError,
    RunNotFoundError,
    StoreClosedError,
    WorkflowNotFoundError,
)
from aion_es.ids import RunId, WorkflowId

if TYPE_CHECKING:
    from aion_es.store.port import Position
    from aion_es.visibility.arguments import Asked
    from aion_es.visibility.query import Page, Visibility

T = TypeVar("T")

Operation: TypeAlias = Literal["cancel", "terminate", "signal", "pause", "resume", "reopen"]
Apply: TypeAlias = Callable[[WorkflowHandle[Any], str], Awaitable[None]]
"""Gives the command to one run; told the batch's id, the same again when it is resumed."""

RATE: Final = 100.0
"""Workflows per second, unless said otherwise: little beside what the engine does at the same time."""
_AT_ONCE: Final = 10
"""Commands under way at a time, at most; they share the store's commits."""
_TOO_LATE: Final = (WorkflowNotFoundError, RunNotFoundError, RunClosedError, InvalidStateError)
"""What a run that went on by itself refuses: there is nothing left to do."""


@dataclass(frozen=True, slots=True)
class BatchOutcome:
    """What became of the command for one run.

    Attributes:
        status: `done`: it is recorded; `skipped`: the run is closed, or in that state already; `failed`:
            try again.
        error: Why, unless it is done.
    """

    workflow_id: WorkflowId
    run_id: RunId
    status: Literal["done", "skipped", "failed"]
    error: str | None = None


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """How far a batch is.

    Attributes:
        outcome: Of the run that was handled last.
        handled: Runs so far, those before it was resumed included.
        total: Runs that the filter asked for when the batch began.
        resume_token: What goes on behind this run: give it as `resume_from`, also in another process.
    """

    outcome: BatchOutcome
    handled: int
    total: int
    resume_token: str


@dataclass(frozen=True, slots=True)
class BatchReport:
    """What a batch did, or would do.

    Attributes:
        total: Runs that the filter asked for when the batch began, before it was broken off if it was.
        outcomes: Of each run since it began or was resumed, in order; empty for a dry run.
    """

    operation: Operation
    total: int
    dry_run: bool
    outcomes: tuple[BatchOutcome, ...] = ()

    def count(self, status: Literal["done", "skipped", "failed"]) -> int:
        """Return how many runs had this outcome."""
        return sum(outcome.status == status for outcome in self.outcomes)


OnProgress: TypeAlias = Callable[[BatchProgress], object]
"""What it returns is awaited if it can be."""


class BatchOptions(TypedDict, total=False):
    """What every operation takes; see `Batches`."""

    dry_run: bool
    rate: float
    on_progress: OnProgress | None
    resume_from: str | None
    at_least: "Position | None"


class Batches:
    """Commands for many runs at once: those that a filter asks for, as it finds them page by page.

    Each run gets the command as if through a handle of its own, so what is recorded is the same. A run
    that is started while the batch runs may be met or not. Every method takes:

    - `filter`: which runs, as in `visibility.list`, in an order that stays: by a field that a run has from its
      start, such as `StartTime` or `WorkflowId`. Those that are in no state for the command are skipped:
      closed ones, but for `reopen`.
    - `dry_run`: only count them.
    - `rate`: workflows per second, at most; as many as that, but no more than ten, get the command together.
      Default 100.
    - `on_progress`: called for every run, in order, and awaited if it is `async`; what it raises ends the batch.
    - `resume_from`: the token of the last progress of a batch that was broken off, with the same operation
      and filter: no run is met twice that was reported, and a signal is not received twice by any.
    - `at_least`: first wait until the read model has seen this position.

    and raises `FilterSyntaxError`, `ProjectionLagError`, `InvalidArgumentError` for a rate that is not above
    0 and for an order that the command itself could change, `InvalidPageTokenError` for a token that is damaged or of another batch, and `EngineClosedError`
    or `StoreClosedError` when the engine closes meanwhile. What befalls a single run is its outcome, and never ends the batch.
    """

    def __init__(self, client: WorkflowClient, visibility: "Visibility") -> None:
        """Give commands through `client` to what `visibility` finds."""
        self._client = client
        self._visibility = visibility

    async def cancel(
        self,
        filter: "Asked",
        *,
        reason: str = "",
        **options: Unpack[BatchOptions],
    ) -> BatchReport:
        """Ask every run to end, as `WorkflowHandle.cancel` does."""
        return await self._run("cancel", filter, lambda handle, _: handle.cancel(reason), **options)

    async def terminate(
        self,
        filter: "Asked",
        *,
        reason: str = "",
        **options: Unpack[BatchOptions],
    ) -> BatchReport:
        """End every run at once, as `WorkflowHandle.terminate` does."""
        return await self._run(
            "terminate", filter, lambda handle, _: handle.terminate(reason), **options
        )

    async def signal(
        self,
        filter: "Asked",
        signal: Signal[T],
        value: T,
        **options: Unpack[BatchOptions],
    ) -> BatchReport:
        """Send every run a signal, as `WorkflowHandle.signal` does.

        Raises:
            PayloadError: The value is not of the channel's type; nothing was sent.
            PayloadTooLargeError: It is larger than an event may be; nothing was sent.
        """
        self._client.message(signal, value, "checked before any is sent")

        async def send(handle: WorkflowHandle[Any], batch_id: str) -> None:
            await handle.signal(signal, value, signal_id=f"{batch_id}/{handle.run_id}")

        return await self._run("signal", filter, send, **options)

    async def pause(
        self,
        filter: "Asked",
        *,
        reason: str | None = None,
        **options: Unpack[BatchOptions],
    ) -> BatchReport:
        """Hold every run, as `WorkflowHandle.pause` does."""
        return await self._run("pause", filter, lambda handle, _: handle.pause(reason), **options)

    async def resume(
        self,
        filter: "Asked",
        *,
        reason: str | None = None,
        **options: Unpack[BatchOptions],
    ) -> BatchReport:
        """Let every run that is held go on, as `WorkflowHandle.resume` does."""
        return await self._run("resume", filter, lambda handle, _: handle.resume(reason), **options)

    async def reopen(self, filter: "Asked", **options: Unpack[BatchOptions]) -> BatchReport:
        """Take every run that closed without completing back to Running, as `WorkflowHandle.reopen` does.

        Open and completed runs are skipped, and runs that a later one has replaced.
        """
        return await self._run("reopen", filter, lambda handle, _: handle.reopen(), **options)

    async def _run(
        self,
        operation: Operation,
        filter: "Asked",
        apply: Apply,
        *,
        dry_run: bool = False,
        rate: float = RATE,
        on_progress: OnProgress | None = None,
        resume_from: str | None = None,
        at_least: "Position | None" = None,
    ) -> BatchReport:
        batch = _Batch(operation, filter, apply, rate, on_progress)
        await self._require_fixed_order(filter)
        total = await self._visibility.count(batch.filter, at_least=at_least)
        if dry_run:
            return BatchReport(batch.operation, total, dry_run=True)
        place = _Place(self._client.ids.new(), total, 0, None)
        if resume_from is not None:
            place = _read(resume_from, batch.operation)
        outcomes = await batch.run(self._client, self._visibility, place)
        return BatchReport(batch.operation, place.total, False, tuple(outcomes))

    async def _require_fixed_order(self, filter: "Asked") -> None:
        field = await self._visibility.order_of(filter)
        if not field.is_fixed:
            raise InvalidArgumentError(
                "filter",
                f"{field.name} may change while the batch runs, so that in its order it would meet runs "
                "twice or not at all; order by StartTime or WorkflowId",
            )


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a batch goes on.

    Attributes:
        page_token: Behind the last run that was handled; `None` at the beginning.
    """

    batch_id: str
    total: int
    handled: int
    page_token: str | None


class _Batch:
    """One command on its way to many runs."""

    def __init__(
        self,
        operation: Operation,
        filter: "Asked",
        apply: Apply,
        rate: float,
        on_progress: OnProgress | None,
    ) -> None:
        _check_rate(rate)
        if on_progress is not None and not callable(on_progress):
            raise InvalidArgumentError("on_progress", f"cannot be called: {on_progress!r}")
        self.operation: Operation = operation
        self.filter = filter
        self._apply = apply
        self._rate = rate
        self._on_progress = on_progress

    async def run(
        self, client: WorkflowClient, visibility: "Visibility", place: _Place
    ) -> list[BatchOutcome]:
        """Handle every run behind `place`, a few at a time, and return what became of each."""
        outcomes: list[BatchOutcome] = []
        # Pages are short, so that a run is met soon after it was found.
        page_size = ceil(min(_AT_ONCE, self._rate))
        due = time.monotonic()
        token, more = place.page_token, True
        while more:
            page = await visibility.page(self.filter, page_size=page_size, page_token=token)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            due = max(due, time.monotonic()) + len(page.rows) / self._rate
            met = await self._give(client, page, place.batch_id)
            for index, outcome in enumerate(met):
                outcomes.append(outcome)
                await self._report(page, index, outcome, place, len(outcomes))
            token, more = page.next_page_token, page.next_page_token is not None
        return outcomes

    async def _give(
        self, client: WorkflowClient, page: "Page", batch_id: str
    ) -> list[BatchOutcome]:
        """Give the command to the runs of one page, all at once."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._outcome(client, row.workflow_id, row.run_id, batch_id))
                    for row in page.rows
                ]
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from failed
        return [task.result() for task in tasks]

    async def _outcome(
        self, client: WorkflowClient, workflow_id: WorkflowId, run_id: RunId, batch_id: str
    ) -> BatchOutcome:
        outcome = partial(BatchOutcome, workflow_id, run_id)
        try:
            await self._apply(client.handle(workflow_id, run_id=run_id), batch_id)
        except (EngineClosedError, StoreClosedError):
            raise
        except _TOO_LATE as error:
            return outcome("skipped", str(error))
        except AionError as error:
            return outcome("failed", f"{type(error).__name__}: {error}")
        return outcome("done")

    async def _report(
        self,
        page: "Page",
        index: int,
        outcome: BatchOutcome,
        place: _Place,
        handled: int,
    ) -> None:
        if self._on_progress is None:
            return
        total, before = place.total, place.handled
        here = _Place(place.batch_id, total, before + handled, page.token_after(index))
        token = _written(self.operation, here)
        reported = self._on_progress(BatchProgress(outcome, here.handled, total, token))
        if isawaitable(reported):
            await reported


def _check_rate(rate: object) -> None:
    if not isinstance(rate, int | float) or not rate > 0:
        raise InvalidArgumentError("rate", f"must be above 0 per second, got {rate!r}")


def _written(operation: Operation, place: _Place) -> str:
    fields = [operation, place.batch_id, place.total, place.handled, place.page_token]
    return base64.urlsafe_b64encode(to_json(fields)).decode()


def _read(token: str, operation: Operation) -> _Place:
    try:
        fields: Any = from_json(base64.b64decode(token, altchars=b"-_", validate=True))
        found, batch_id, total, handled, page_token = fields
    except (binascii.Error, ValueError, TypeError) as error:
        raise InvalidPageTokenError(token, "it is damaged") from error
    texts = all(isinstance(one, str) for one in (found, batch_id, page_token))
    if not texts or not isinstance(total, int) or not isinstance(handled, int):
        raise InvalidPageTokenError(token, "it is damaged")
    if found != operation:
        raise InvalidPageTokenError(token, f"it belongs to a batch of {found}")
    return _Place(batch_id, total, handled, page_token)

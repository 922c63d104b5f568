"""What the end-to-end tests share: looking at histories, and waiting for a condition, bounded."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import pytest

from aion_es import WorkflowHandle
from aion_es.aggregates import AttributeSchema, Workflow
from aion_es.app import Engine
from aion_es.authoring.definitions import workflow_definition
from aion_es.engine.replay import bring_back
from aion_es.engine.surroundings import Surroundings
from aion_es.errors import WorkflowCancelledError, WorkflowFailedError
from aion_es.events.metadata import Envelope
from aion_es.events.workflow import WorkflowEvent
from aion_es.ids import DEFAULT_NAMESPACE, WorkflowId, workflow_stream

E = TypeVar("E")

SOON = timedelta(seconds=10)
"""Longer than anything here takes; only a failing test waits so long."""


async def until(
    condition: Callable[[], bool] | Callable[[], Awaitable[bool]], *, seconds: float = 10.0
) -> None:
    """Return when `condition` holds; fail if it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        holds = condition()
        if inspect.isawaitable(holds):
            holds = await holds
        if holds:
            return
        assert time.monotonic() < deadline, f"never came true: {inspect.getsource(condition)}"
        await asyncio.sleep(0.002)


async def failed(handle: WorkflowHandle[Any]) -> None:
    """Return when the run has failed; any other end fails the test."""
    with pytest.raises(WorkflowFailedError):
        await handle.result(timeout=SOON)


async def cancelled(handle: WorkflowHandle[Any]) -> None:
    """Return when the run has ended as cancelled; any other end fails the test."""
    with pytest.raises(WorkflowCancelledError):
        await handle.result(timeout=SOON)


async def kinds(handle: WorkflowHandle[Any]) -> list[str]:
    """Return the type names of the run's events, in order."""
    return names(await handle.history())


def names(history: Sequence[Envelope[WorkflowEvent]]) -> list[str]:
    """Return the type names of events, in order."""
    return [type(envelope.event).__name__ for envelope in history]


async def events_of(handle: WorkflowHandle[Any], kind: type[E]) -> list[E]:
    """Return the run's events of one type, in order."""
    return [e.event for e in await handle.history() if isinstance(e.event, kind)]


async def stream_of(engine: Engine, workflow_id: str) -> list[str]:
    """Return the type names of everything in a workflow's stream, whichever run it belongs to."""
    stream = workflow_stream(DEFAULT_NAMESPACE, WorkflowId(workflow_id))
    return [event.type async for event in engine.store.read(stream)]


def replayed(history: Sequence[Envelope[WorkflowEvent]], code: Any) -> None:
    """Hold a whole history against code, strictly; a difference raises."""
    aggregate = Workflow(WorkflowId("w"), schema=AttributeSchema())
    for recorded in history:
        aggregate.replay(recorded)
    surroundings = Surroundings(AttributeSchema(), lambda _: "1", lambda *_: "1", 1_000_000)
    bring_back(workflow_definition(code), aggregate, history, surroundings).close()


async def stored(engine: Engine) -> int:
    """Return how many events the store holds."""
    return len([event async for event in engine.store.read_all()])


async def is_recorded(handle: WorkflowHandle[Any], kind: str, times: int = 1) -> bool:
    """Return whether the history holds `times` events of this type."""
    return (await kinds(handle)).count(kind) >= times

"""What waits in a process's mailbox: commands, facts and questions, with those who wait for the answer."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from aion_es.aggregates.workflow import Workflow
from aion_es.engine.execution import CodeExecution
from aion_es.errors import AionError, EngineClosedError
from aion_es.events.workflow import WorkflowEvent
from aion_es.ids import RunId
from aion_es.store.port import Position

Decide = Callable[[Workflow, datetime], object]
"""Gives one or more commands to an aggregate; may be called more than once, after a conflict."""


@dataclass(frozen=True, slots=True)
class Committed:
    """What came of a command.

    Attributes:
        events: What it added; empty if it had had its effect before.
        run_id: The run that was current when it was decided.
        position: Of the append in the store; `None` if nothing was appended.
    """

    events: tuple[WorkflowEvent, ...]
    run_id: RunId
    position: Position | None


@dataclass(slots=True, eq=False)
class Request:
    """One command that waits in a mailbox.

    Attributes:
        decide: Called with the aggregate and the present instant, perhaps more than once.
        answer: Who waits for what comes of it; `None` for a fact.
        run_id: Of a fact: dropped silently once that run is no longer current and open.
        starts: It may begin a workflow that does not exist yet.
        certain: It is never given up while the engine is open, however long the store is away. Every fact is.
        events: What it added when it was last decided.
        refusal: Why it was refused when it was last decided.
        traceparent: W3C trace context of who gave it; `None` where nobody records, and for facts.
    """

    decide: Decide
    answer: "asyncio.Future[Committed] | None" = None
    run_id: RunId | None = None
    starts: bool = False
    certain: bool = False
    events: tuple[WorkflowEvent, ...] = ()
    refusal: AionError | None = None
    traceparent: str | None = None


@dataclass(slots=True, eq=False)
class QueryRequest:
    """One question that waits in a mailbox; about the current run, or about `run_id`."""

    ask: Callable[[CodeExecution], Any]
    answer: "asyncio.Future[Any]"
    run_id: RunId | None = None


def is_given_up(item: Request | QueryRequest, error: Exception) -> bool:
    """Return whether who waits for this is told of `error` and nothing more comes of it."""
    if item.answer is None:
        return False
    if isinstance(item, Request) and item.certain:
        return isinstance(error, EngineClosedError)
    return True


def starts(item: Request | QueryRequest) -> bool:
    """Return whether this may begin a workflow that does not exist yet."""
    return isinstance(item, Request) and item.starts


def concerns(workflow: Workflow, item: Request) -> bool:
    """Return whether a fact still has a run to be recorded in."""
    return (
        workflow.exists and workflow.state.is_open and item.run_id in {None, workflow.state.run_id}
    )

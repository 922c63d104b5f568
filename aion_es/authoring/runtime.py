"""What stands behind a `Context`: the port that the engine's execution implements, and what a run knows of itself."""

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NoReturn, Protocol

from aion_es.authoring.channels import Query
from aion_es.authoring.children import ChildRequest
from aion_es.authoring.definitions import ActivityDefinition, ActivitySettings
from aion_es.events.attributes import SearchAttributeValues
from aion_es.events.values import WorkflowRef
from aion_es.ids import RunId, TimerId, WorkflowId
from aion_es.payload import Payload


@dataclass(frozen=True, slots=True)
class WorkflowInfo:
    """What a run knows about itself.

    Attributes:
        attempt: From 1; each reopening begins another. (Runs are not retried by themselves: activities are.)
        history_length: Events of this run so far.
        history_bytes: Bytes of their data, as JSON. (Visibility's `HistorySizeBytes` counts their metadata too.)
        continue_as_new_suggested: The history is long enough that a new run would be cheaper to replay: from
            10,000 events on, or from 10,000,000 bytes.
    """

    workflow_id: WorkflowId
    run_id: RunId
    first_run_id: RunId
    parent_run_id: RunId | None
    parent: WorkflowRef | None
    workflow_type: str
    version: str
    task_queue: str
    started_at: datetime
    attempt: int
    history_length: int
    history_bytes: int
    continue_as_new_suggested: bool


class WorkflowRuntime(Protocol):
    """What stands behind a `Context`; the engine's activation implements it."""

    def now(self) -> datetime:
        """Return the recorded time of the event that caused this activation."""
        ...

    def info(self) -> WorkflowInfo:
        """Return what the run knows about itself."""
        ...

    def is_replaying(self) -> bool:
        """Return whether the present step was already recorded."""
        ...

    def schedule_activity(
        self, definition: ActivityDefinition, settings: ActivitySettings, input: Payload
    ) -> "asyncio.Future[Any]":
        """Command an activity."""
        ...

    def start_child(self, request: ChildRequest) -> "tuple[WorkflowId, asyncio.Future[Any]]":
        """Command a child; return its id and its end."""
        ...

    def cancel_child(self, child_workflow_id: WorkflowId, reason: str) -> None:
        """Command that a child be asked to end."""
        ...

    def send_signal(
        self, target_workflow_id: str, name: str, payload: Payload, signal_id: str | None
    ) -> "asyncio.Future[None]":
        """Command a signal to another workflow."""
        ...

    def run_beside(self, code: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Run code beside the workflow's own; what it raises fails the run."""
        ...

    @property
    def cancel_reason(self) -> str | None:
        """Why the run was asked to end; `None` if it was not."""
        ...

    async def next_signal(self, name: str) -> Payload:
        """Return the next unread signal of this name, waiting for it."""
        ...

    def start_timer(self, timer_id: TimerId | None, delay: timedelta) -> "asyncio.Future[None]":
        """Command a durable timer."""
        ...

    def complete_with_timeout(self, timer_id: TimerId, operation_completed: bool) -> None:
        """Command that the outcome of a `with_timeout` be recorded, and its timer cancelled if it is live.

        If the timer was armed in this very step, neither it nor the outcome comes into the history.
        """
        ...

    def answer(self, query: Query[Any, Any], handler: Callable[..., Any]) -> None:
        """Take the handler of a query."""
        ...

    def set_attributes(self, attributes: SearchAttributeValues) -> None:
        """Command search attributes."""
        ...

    def continue_as_new(self, input: object) -> NoReturn:
        """End this run and begin its successor."""
        ...

    def patched(self, name: str) -> bool:
        """Return whether the code after the change is to run."""
        ...

    def side_effect(self, make: Callable[[], Payload]) -> Payload:
        """Return a value made once."""
        ...

    @property
    def random(self) -> random.Random:
        """The run's own generator."""
        ...

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """Silent in replay."""
        ...

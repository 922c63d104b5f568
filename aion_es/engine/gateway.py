"""The gateway: where the commands and questions of clients go, and the spans in which commands are given."""

from collections.abc import Callable
from typing import Any, Protocol

from opentelemetry.trace import SpanKind

from aion_es import telemetry as t
from aion_es.aggregates.lifecycle import StartWorkflow
from aion_es.engine.execution import CodeExecution
from aion_es.engine.registry import Completion
from aion_es.engine.requests import Committed, Decide
from aion_es.events.values import SignalMessage
from aion_es.events.workflow import TerminalEvent
from aion_es.ids import RunId, WorkflowId
from aion_es.payload import NOTHING


class Gateway(Protocol):
    """Where commands and questions go."""

    async def request(
        self, workflow_id: WorkflowId, decide: Decide, *, starts: bool = False
    ) -> Committed:
        """Give a command to a workflow's aggregate and return what came of it."""
        ...

    async def ask(
        self, workflow_id: WorkflowId, run_id: RunId | None, ask: Callable[[CodeExecution], Any]
    ) -> Any:
        """Ask a workflow's code and return its answer."""
        ...

    def completion(self, workflow_id: WorkflowId, run_id: RunId) -> Completion:
        """Return the completion of a run, to be held by who waits for it."""
        ...

    async def outcome(
        self, workflow_id: WorkflowId, run_id: RunId, completion: Completion
    ) -> TerminalEvent:
        """Return the terminal event of a run, waiting for it."""
        ...

    async def stuck_reason(self, workflow_id: WorkflowId, run_id: RunId) -> str | None:
        """Return why a run's code cannot go on, as far as is known here."""
        ...


async def give_traced(
    gateway: Gateway,
    what: str,
    workflow_id: WorkflowId,
    decide: Decide,
    command: StartWorkflow | SignalMessage | None,
    *,
    starts: bool,
    records: bool,
) -> Committed:
    """Give a command in a span `aion.{what}`, and return what came of it.

    Args:
        gateway: Where it goes.
        what: Its name.
        workflow_id: Whose aggregate.
        decide: The command.
        command: What is started, or sent; its name becomes part of the span's.
        starts: It may begin a workflow that does not exist yet.
        records: What is sent is put on the span.

    Raises:
        What the gateway's `request` raises.
    """
    facts: dict[str, str] = {t.WORKFLOW_ID: workflow_id}
    payload = NOTHING
    if isinstance(command, StartWorkflow):
        what, payload = f"{what} {command.workflow_type}", command.input
        facts[t.WORKFLOW_TYPE] = command.workflow_type
    elif command is not None:
        what, payload = f"{what} {command.name}", command.payload
        facts |= {t.SIGNAL_NAME: command.name, t.SIGNAL_ID: command.signal_id}
    with t.calling(f"aion.{what}", facts, SpanKind.PRODUCER) as span:
        if records and command is not None:
            span.set_attribute(t.INPUT, t.payload_text(payload.data))
        committed = await gateway.request(workflow_id, decide, starts=starts)
        span.set_attribute(t.RUN_ID, committed.run_id)
        return committed

"""Replay: fresh code is brought to where its history ends, and held against it, command by command.

Strict: every command that the code makes must be the next one that is recorded, by kind and identity.
A difference never fails the run and is never papered over; it is told with a diff, and the run waits
for code that matches.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from opentelemetry.trace import Span

from aion_es.aggregates.workflow import Workflow
from aion_es.aggregates.workflow_repository import WorkflowRepository
from aion_es.authoring.definitions import WorkflowDefinition
from aion_es.collector import paused_collector
from aion_es.engine.commands import COMMAND_EVENTS, Command, describe
from aion_es.engine.execution import FACTS, CodeExecution, Surroundings
from aion_es.engine.reopening import Cut, effective
from aion_es.errors import NonDeterminismError, PayloadError
from aion_es.events.metadata import Envelope
from aion_es.events.workflow import (
    MarkerRecorded,
    SearchAttributesUpdated,
    TimerCancelled,
    WorkflowCancelled,
    WorkflowCompleted,
    WorkflowContinuedAsNew,
    WorkflowEvent,
    WorkflowFailed,
)
from aion_es.ids import RunId, WorkflowId


def bring_back(
    definition: WorkflowDefinition,
    workflow: Workflow,
    history: Sequence[Envelope[WorkflowEvent]],
    surroundings: Surroundings,
    *,
    as_far_as_it_goes: bool = False,
    activation: Span | None = None,
) -> CodeExecution:
    """Return a run's code where its history ends; to be closed by the caller.

    Args:
        definition: The code.
        workflow: The aggregate that the history was folded into.
        history: All events of the run.
        surroundings: What the code needs of the engine.
        as_far_as_it_goes: Where code and history part, stop, and return the code as it is there: good
            enough to be asked, never to go on.
        activation: The span of what the code does beyond what it did before.

    Raises:
        NonDeterminismError: The code commands something other than what is recorded.
        PayloadError: A recorded value does not fit the type that the code declares now.
    """
    execution = CodeExecution(definition, workflow, surroundings)
    if execution.span is not None:
        execution.span.activation = activation
    try:
        with paused_collector():
            replay(execution, history)
    except (NonDeterminismError, PayloadError):
        if not as_far_as_it_goes:
            execution.close()
            raise
    except BaseException:
        execution.close()
        raise
    return execution


async def ask_history(
    repository: WorkflowRepository,
    workflow_id: WorkflowId,
    run_id: RunId,
    pinned: Callable[[str, str], WorkflowDefinition],
    surroundings: Surroundings,
    ask: Callable[[CodeExecution], Any],
) -> Any:
    """Let a run answer in code that is brought back for it and thrown away again.

    The code of a stuck run answers from where it parted from its history: its last good state.

    Args:
        repository: The way to the history.
        workflow_id: Whose.
        run_id: Which run of it.
        pinned: Gives the code of a type and version.
        surroundings: What the code needs of the engine.
        ask: What is asked.

    Raises:
        WorkflowNotFoundError, RunNotFoundError: There is no such run.
        Exception: What `pinned` and `ask` raise.
    """
    history = await repository.run_history(workflow_id, run_id)
    workflow = repository.fold(workflow_id, history)
    definition = pinned(workflow.state.workflow_type, workflow.state.package_version)
    execution = bring_back(definition, workflow, history, surroundings, as_far_as_it_goes=True)
    try:
        return ask(execution)
    finally:
        execution.close()


def replay(execution: CodeExecution, history: Sequence[Envelope[WorkflowEvent]]) -> None:
    """Deliver the facts of `history` to fresh code and match what it commands.

    What the code commands beyond the end of its history stays to be taken from it.

    Raises:
        NonDeterminismError: The code commands something other than what is recorded.
        PayloadError: A recorded value does not fit the type that the code declares now.
    """
    steps = effective(history)
    execution.expect_markers(
        s.event for s in steps if isinstance(s, Envelope) and isinstance(s.event, MarkerRecorded)
    )
    for calls in (execution.attribute_calls, execution.child_calls):
        calls.expect(s.event for s in steps if isinstance(s, Envelope))
    produced: deque[Command] = deque()
    last = len(steps) - 1
    for index, envelope in enumerate(steps):
        if isinstance(envelope, Cut):
            execution.pass_over(envelope)
            continue
        event = envelope.event
        kind = type(event)
        if kind in FACTS:
            execution.replaying = index < last
            execution.deliver(event, envelope.metadata.recorded_at, envelope.revision)
            produced.extend(execution.take_commands())
        elif kind in COMMAND_EVENTS and not _from_outside(event):
            if kind is WorkflowContinuedAsNew and not produced:
                break  # an operator's: the code was not asked
            command = produced.popleft() if produced else None
            if command is None or not command.matches(event):
                raise _divergence(execution, envelope.revision, describe(event), command)
    execution.replaying = False
    if produced and _closed_by_its_code(history):
        raise _divergence(execution, -1, "nothing more: the run is closed", produced[0])
    execution.put_back(produced)


def _divergence(
    execution: CodeExecution, revision: int, recorded: str, command: Command | None
) -> NonDeterminismError:
    state = execution.workflow.state
    commanded = str(command) if command is not None else "nothing: the code waits"
    return NonDeterminismError(state.workflow_id, state.run_id, revision, recorded, commanded)


def _from_outside(event: WorkflowEvent) -> bool:
    """Whether a record that commands also leave was left by somebody else: an operator, or a teardown."""
    if type(event) is SearchAttributesUpdated:
        return event.request_id is not None
    return type(event) is TimerCancelled and event.cause == "teardown"


def _closed_by_its_code(events: Sequence[Envelope[WorkflowEvent]]) -> bool:
    """Return whether the run that these events tell of was closed by its own code."""
    return bool(events) and type(events[-1].event) in {
        WorkflowCompleted,
        WorkflowFailed,
        WorkflowCancelled,
        WorkflowContinuedAsNew,
    }

"""Replay: fresh code is brought to where its history ends, and held against it, command by command.

Strict: every command that the code makes must be the next one that is recorded, by kind and identity.
A difference never fails the run and is never papered over; it is told with a diff, and the run waits
for code that matches. Only of a command that added nothing, because what it asks for was so already,
no record is demanded, and of a patch that is recorded no command.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from opentelemetry.trace import Span

from aion_es.aggregates.workflow import Workflow
from aion_es.aggregates.workflow_repository import WorkflowRepository
from aion_es.authoring.definitions import WorkflowDefinition
from aion_es.collector import paused_collector
from aion_es.engine.commands import COMMAND_EVENTS, Command, describe
from aion_es.engine.execution import FACTS, CodeExecution
from aion_es.engine.reopening import Cut, effective
from aion_es.engine.surroundings import Surroundings
from aion_es.errors import DomainError, NonDeterminismError, PayloadError
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
    commanded = _Commanded(execution, history)
    seen = _last_seen(history)
    shown_from = -1
    for envelope in steps:
        if isinstance(envelope, Cut):
            execution.pass_over(envelope)
            shown_from = envelope.reopened_at
            continue
        event = envelope.event
        kind = type(event)
        if kind in FACTS:
            shown_at = max(envelope.revision, shown_from)
            execution.replaying = shown_at <= seen
            execution.deliver(event, envelope.metadata.recorded_at, envelope.revision)
            commanded.extend(execution.take_commands(), shown_at)
        elif kind in COMMAND_EVENTS and not _from_outside(event):
            commanded.match(event, envelope.revision)
    execution.replaying = False
    if commanded.waiting and _closed_by_its_code(history):
        command = commanded.waiting[0][0]
        raise _divergence(execution, -1, "nothing more: the run is closed", command)
    execution.put_back(command for command, _ in commanded.waiting)


class _Commanded:
    """What the code has commanded in a replay, and what is yet to be found in the history.

    A command that adds nothing leaves no record: to cancel a timer that has fired meanwhile, or a child
    that has ended, or is asked to end already. So none is demanded of it. Whether it added anything is
    asked of the aggregate as it was when the command was made.

    Attributes:
        waiting: Commands without a record yet, each with the revision from which on the code knew what
            made it command this.
    """

    def __init__(
        self, execution: CodeExecution, history: Sequence[Envelope[WorkflowEvent]]
    ) -> None:
        self.waiting: deque[tuple[Command, int]] = deque()
        self._execution = execution
        self._history = history
        self._then: Workflow | None = None
        self._folded = 0

    def extend(self, commands: Iterable[Command], shown_at: int) -> None:
        """Take in what the code commanded when it was shown the fact at a revision."""
        self.waiting.extend((command, shown_at) for command in commands)

    def match(self, recorded: WorkflowEvent, revision: int) -> None:
        """Take out the command that `recorded` is the record of, and those before it that added nothing.

        A patch that is recorded and that the code no longer asks for is passed over: so it can be taken out
        of the code. If the code has lost the new steps with it, they are missed one by one.

        Raises:
            NonDeterminismError: The next command is another one, or there is none.
        """
        if _is_patch(recorded) and not any(c.matches(recorded) for c, _ in self.waiting):
            return
        while self.waiting:
            command, shown_at = self.waiting.popleft()
            if command.matches(recorded):
                self._execution.note_input(command, recorded)
                return
            if not self._adds_nothing(command, min(revision, self._decided_by(shown_at))):
                raise _divergence(self._execution, revision, describe(recorded), command)
        if type(recorded) is WorkflowContinuedAsNew:
            return  # an operator's: the code was not asked
        raise _divergence(self._execution, revision, describe(recorded), None)

    def _decided_by(self, shown_at: int) -> int:
        """Return the revision before which all is recorded that the code commanded at `shown_at`."""
        for envelope in self._history:
            if envelope.metadata.activated and envelope.revision >= shown_at:
                return envelope.revision + 1
        return self._history[-1].revision + 1

    def _adds_nothing(self, command: Command, revision: int) -> bool:
        """Return whether a command added nothing to what was recorded before `revision`."""
        if self._then is None:
            now = self._execution.workflow
            self._then = Workflow(now.workflow_id, schema=now.schema)
        while self._folded < len(self._history):
            envelope = self._history[self._folded]
            if envelope.revision >= revision:
                break
            self._then.replay(envelope)
            self._folded += 1
        try:
            command.apply(self._then, self._history[0].recorded_at)
        except DomainError:
            return False
        return not self._then.uncommitted


def _last_seen(history: Sequence[Envelope[WorkflowEvent]]) -> int:
    """Return the last revision up to which the code saw everything when it ran first; -1 for none."""
    for envelope in reversed(history):
        event = envelope.event
        if envelope.metadata.activated or (
            type(event) in COMMAND_EVENTS and not _from_outside(event)
        ):
            last: int = envelope.revision
            return last
    return -1


def _divergence(
    execution: CodeExecution, revision: int, recorded: str, command: Command | None
) -> NonDeterminismError:
    state = execution.workflow.state
    commanded = str(command) if command is not None else "nothing: the code waits"
    return NonDeterminismError(state.workflow_id, state.run_id, revision, recorded, commanded)


def _is_patch(event: WorkflowEvent) -> bool:
    return isinstance(event, MarkerRecorded) and event.kind == "patch"


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

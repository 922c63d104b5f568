"""One workflow's process: a mailbox of commands, its aggregate, its code; one append per activation.

Everything that changes a workflow that this engine has in memory goes through here, one turn at a time:

1. bring aggregate and code up to date with the stream;
2. let the aggregate decide each waiting command: a refusal goes back to who asked, and records nothing;
3. deliver the new facts to the code, and let the aggregate record what the code commands;
4. append it all at once, with the expected revision. On a conflict: forget, read, and derive it again;
5. only then let it have effects (run activities, arm timers, tell those who wait) and answer.

A process has a task only while it has something to do.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol

from aion_es.aggregates.aggregate import Pending
from aion_es.aggregates.repository import WorkflowRepository
from aion_es.aggregates.workflow import Workflow
from aion_es.authoring.definitions import WorkflowDefinition
from aion_es.clock import Clock
from aion_es.engine.commands import ContinueRunAsNew, ScheduleActivity
from aion_es.engine.execution import FACTS, CodeExecution, Surroundings
from aion_es.engine.replay import replay
from aion_es.errors import (
    AionError,
    ConcurrencyConflictError,
    DomainError,
    EngineClosedError,
    QueryFailedError,
)
from aion_es.events.metadata import Envelope
from aion_es.events.workflow import WorkflowEvent, WorkflowStarted
from aion_es.ids import RunId, WorkflowId
from aion_es.store.port import Position

Decide = Callable[[Workflow, datetime], object]

_CONFLICTS_BEFORE_PAUSE: Final = 3


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
        answer: Who waits for what comes of it; `None` for a fact, which is never given up.
        run_id: Of a fact: dropped silently once that run is no longer current and open.
        starts: It may begin a workflow that does not exist yet.
        events: What it added when it was last decided.
        refusal: Why it was refused when it was last decided.
    """

    decide: Decide
    answer: "asyncio.Future[Committed] | None" = None
    run_id: RunId | None = None
    starts: bool = False
    events: tuple[WorkflowEvent, ...] = ()
    refusal: AionError | None = None


@dataclass(slots=True, eq=False)
class QueryRequest:
    """One question that waits in a mailbox; about the current run, or about `run_id`."""

    ask: Callable[[CodeExecution], Any]
    answer: "asyncio.Future[Any]"
    run_id: RunId | None = None


class Host(Protocol):
    """What a process needs of its engine."""

    @property
    def repository(self) -> WorkflowRepository:
        """The only way to the store."""
        ...

    @property
    def clock(self) -> Clock:
        """The present instant."""
        ...

    @property
    def surroundings(self) -> Surroundings:
        """What code needs of the engine."""
        ...

    @property
    def worker(self) -> str:
        """Name of this engine in the history."""
        ...

    def pinned(self, workflow_type: str, version: str) -> WorkflowDefinition:
        """Return the code of a version."""
        ...

    def next_command_id(self) -> str:
        """Return an identity that no other append of any engine has."""
        ...

    def starts_at_once(self) -> bool:
        """Return whether an activity that is dispatched now begins at once."""
        ...

    def committed(self, process: "RunProcess", batch: list[Pending[WorkflowEvent]]) -> None:
        """Let what was recorded have its effects."""
        ...

    def loaded(self, process: "RunProcess", *, reclaim: bool) -> None:
        """Take up what a run that was just read from its history waits for."""
        ...

    def stuck(self, process: "RunProcess", error: Exception | None) -> None:
        """Note why a run's code cannot go on, or that it can again (`None`)."""
        ...


class RunProcess:
    """The process of one workflow id.

    Attributes:
        workflow: Its aggregate; `None` until it is read, and again after `forget`.
        execution: Its code in memory; `None` while the run is closed, stuck or suspended.
        stuck_reason: Why the code cannot go on here.
        stuck_count: How often in a row it could not.
        reclaim: What the run waits for may have been this engine's to do, and is to be taken up when it
            is read again.
    """

    def __init__(self, workflow_id: WorkflowId, host: Host) -> None:
        self.workflow_id = workflow_id
        self.workflow: Workflow | None = None
        self.execution: CodeExecution | None = None
        self.stuck_reason: str | None = None
        self.stuck_count = 0
        self.reclaim = False
        self._host = host
        self._inbox: deque[Request | QueryRequest] = deque()
        self._heard = -1  # the highest revision that is known of, from whatever source
        self._wake = False  # the code may have something to do although the mailbox is empty
        self._last_at: datetime | None = None
        self._history: list[Envelope[WorkflowEvent]] | None = (
            None  # read, and not yet replayed by the code
        )
        self._successor: Pending[WorkflowEvent] | None = (
            None  # begun by this turn, its code not yet
        )

    # ------------------------------------------------------------------------------ mailbox

    def post(self, item: Request | QueryRequest) -> None:
        """Put something into the mailbox; the engine sees to it that `run` is called."""
        self._inbox.append(item)

    def wake(self) -> None:
        """Let the code look at its history, even if the mailbox is empty; a stuck run tries again."""
        self._wake = True
        if self.stuck_reason is not None:
            self.forget()

    def heard_of(self, revision: int) -> None:
        """Note that the stream has reached `revision`."""
        self._heard = max(self._heard, revision)

    @property
    def has_work(self) -> bool:
        """Whether a turn would do anything."""
        return bool(self._inbox) or self._wake or self._is_behind

    @property
    def _is_behind(self) -> bool:
        return self.workflow is not None and self._heard > self.workflow.revision

    @property
    def is_open(self) -> bool:
        """Whether there is a run, and it is open, as far as is known in memory."""
        return self.workflow is not None and self.workflow.exists and self.workflow.state.is_open

    def forget(self) -> None:
        """Drop aggregate and code; they come back from the history."""
        self._drop_code()
        if self.workflow is not None:
            self._heard = max(self._heard, self.workflow.revision)
        self.workflow = None
        self._history = None
        self._successor = None

    def _drop_code(self) -> None:
        if self.execution is not None:
            self.execution.close()
            self.execution = None

    def refuse_all(self, error: Exception) -> None:
        """Tell everybody who waits here that nothing will come of it; facts stay in the mailbox."""
        waiting, self._inbox = list(self._inbox), deque()
        self._give_back(waiting, error)

    def _give_back(self, items: list[Request | QueryRequest], error: Exception) -> None:
        for item in reversed(items):
            if item.answer is None:
                self._inbox.appendleft(item)
            elif not item.answer.done():
                item.answer.set_exception(error)

    # --------------------------------------------------------------------------------- turns

    async def run(self) -> None:
        """Take turns until there is nothing to do.

        Raises:
            OperationalError: The store is away beyond the repository's patience. Whoever waited has been
                told; facts are back in the mailbox. The process has forgotten, and can be run again.
        """
        while self.has_work:
            self._wake = False
            items = list(self._inbox)
            self._inbox.clear()
            try:
                await self._settle(items)
            except BaseException as error:
                self.forget()
                self.reclaim = True
                self._give_back(
                    items, error if isinstance(error, Exception) else EngineClosedError()
                )
                raise

    async def _settle(self, items: list[Request | QueryRequest]) -> None:
        """Take a turn, anew after every conflict; split it if its events are refused for what they hold."""
        conflicts = 0
        while True:
            try:
                await self._turn(items)
            except ConcurrencyConflictError:
                self.forget()
                conflicts += 1
                if (
                    conflicts >= _CONFLICTS_BEFORE_PAUSE
                ):  # two engines in step would conflict for ever
                    await asyncio.sleep(random.uniform(0, 0.01) * conflicts)  # noqa: S311 - jitter
            except DomainError as error:
                self.forget()
                if len(items) > 1:
                    for item in items:
                        await self._settle([item])
                else:
                    self._cannot_record(items, error)
                return
            else:
                return

    def _cannot_record(self, items: list[Request | QueryRequest], error: DomainError) -> None:
        """Nobody but the asker, or the code itself, made what the store cannot take."""
        for item in items:
            if item.answer is not None and not item.answer.done():
                item.answer.set_exception(error)
        if not items or items[0].answer is None:
            self._is_stuck(error)

    async def _turn(self, items: list[Request | QueryRequest]) -> None:
        workflow = await self._up_to_date(items)
        at = self._now()
        self._ensure_code(workflow)
        self._record_commands(workflow, at)
        for item in items:
            if isinstance(item, Request):
                self._decide(workflow, item, at)
        batch = workflow.uncommitted.copy()
        position: Position | None = None
        if batch:
            saved = await self._host.repository.save(
                workflow,
                command_id=self._host.next_command_id(),
                activated=self.execution is not None and self._successor is None,
            )
            position = None if saved is None else saved.position
            self._last_at = at
            self._host.committed(self, batch)
        await self._answer(workflow, items, position)
        self._turn_over(workflow)

    def _now(self) -> datetime:
        """Return the present instant, never before what this run has already recorded."""
        now = self._host.clock.now()
        return now if self._last_at is None or now > self._last_at else self._last_at

    async def _up_to_date(self, items: list[Request | QueryRequest]) -> Workflow:
        """Return the aggregate, read from its stream if it is not in memory or the stream has moved."""
        repository = self._host.repository
        if self._is_behind:
            self.forget()
        if self.workflow is None and self._heard < 0 and items and _starts(items[0]):
            # A start most often finds an unknown id: begin without reading, the expected revision tells.
            self._heard = 0  # should it find a known one, the next try reads
            self.workflow = repository.new(self.workflow_id)
            return self.workflow
        if self.workflow is None:
            history = await repository.history(self.workflow_id)
            self.workflow = repository.new(self.workflow_id)
            for envelope in history:
                self.workflow.replay(envelope)
            if history:
                self._history = history
                self._last_at = max(
                    history[-1].recorded_at, self._last_at or history[-1].recorded_at
                )
                self._heard = max(self._heard, self.workflow.revision)
                self._host.loaded(self, reclaim=self.reclaim)
                self.reclaim = False
        return self.workflow

    # ---------------------------------------------------------------------------------- code

    def _ensure_code(self, workflow: Workflow) -> None:
        """Bring the code to where the history ends, if the run is open; note it as stuck if that cannot be."""
        history, self._history = self._history, None
        if history is None or not workflow.exists or not workflow.state.is_open:
            return
        try:
            self.execution = self._replayed(workflow, history)
        except Exception as error:  # noqa: BLE001 - whatever keeps the code from running makes the run stuck
            self._is_stuck(error)
        else:
            self._is_unstuck()

    def _replayed(
        self, workflow: Workflow, history: list[Envelope[WorkflowEvent]]
    ) -> CodeExecution:
        state = workflow.state
        definition = self._host.pinned(state.workflow_type, state.package_version)
        execution = CodeExecution(definition, workflow, self._host.surroundings)
        try:
            replay(execution, history)
        except BaseException:
            execution.close()
            raise
        return execution

    def _begin(
        self, workflow: Workflow, event: WorkflowStarted, at: datetime, revision: int
    ) -> None:
        """Let the code of a run that starts here take its first step."""
        self._drop_code()
        try:
            definition = self._host.pinned(event.workflow_type, event.package_version)
            execution = self.execution = CodeExecution(
                definition, workflow, self._host.surroundings
            )
            execution.deliver(event, at, revision)
        except Exception as error:  # noqa: BLE001 - see _ensure_code
            self._is_stuck(error)

    def _feed(self, workflow: Workflow, event: WorkflowEvent, at: datetime, revision: int) -> None:
        """Show the code a new fact, and have recorded what it commands."""
        if type(event) is WorkflowStarted:
            self._begin(workflow, event, at, revision)
        elif self.execution is not None and type(event) in FACTS and not self.execution.finished:
            try:
                self.execution.deliver(event, at, revision)
            except Exception as error:  # noqa: BLE001 - see _ensure_code
                self._is_stuck(error)
        self._record_commands(workflow, at)

    def _record_commands(self, workflow: Workflow, at: datetime) -> None:
        if self.execution is None:
            return
        for command in self.execution.take_commands():
            command.apply(workflow, at)
            if isinstance(command, ContinueRunAsNew):
                self._successor = workflow.uncommitted[-1]
                return
            # An attempt that may be the last is recorded before its code runs: if it takes the process
            # down with it, that must count.
            if (
                isinstance(command, ScheduleActivity)
                and command.settings.retry.max_attempts is not None
                and self._host.starts_at_once()
            ):
                workflow.start_activity(command.activity_id, 1, self._host.worker, at=at)

    def _is_stuck(self, error: Exception) -> None:
        self._drop_code()
        self.stuck_count += 1
        self.stuck_reason = (
            str(error) if isinstance(error, AionError) else f"{type(error).__name__}: {error}"
        )
        self._host.stuck(self, error)

    def _is_unstuck(self) -> None:
        if self.stuck_reason is not None:
            self.stuck_reason = None
            self.stuck_count = 0
            self._host.stuck(self, None)

    # ------------------------------------------------------------------- deciding, answering

    def _decide(self, workflow: Workflow, item: Request, at: datetime) -> None:
        item.events, item.refusal = (), None
        if item.answer is None and not _concerns(workflow, item):
            return
        first = len(workflow.uncommitted)
        try:
            item.decide(workflow, at)
        except DomainError as error:
            item.refusal = error
            return
        added = workflow.uncommitted[first:]
        item.events = tuple(pending.event for pending in added)
        for index, pending in enumerate(added):
            self._feed(workflow, pending.event, pending.at, workflow.revision + 1 + first + index)

    async def _answer(
        self, workflow: Workflow, items: list[Request | QueryRequest], position: Position | None
    ) -> None:
        for item in items:
            if item.answer is None or item.answer.done():
                continue
            if isinstance(item, QueryRequest):
                await self._answer_query(workflow, item)
            elif item.refusal is not None:
                item.answer.set_exception(item.refusal)
            else:
                item.answer.set_result(Committed(item.events, workflow.state.run_id, position))

    async def _answer_query(self, workflow: Workflow, item: QueryRequest) -> None:
        try:
            answer = await self._ask(workflow, item)
        except Exception as error:  # noqa: BLE001 - it belongs to who asked
            item.answer.set_exception(error)
        else:
            item.answer.set_result(answer)

    async def _ask(self, workflow: Workflow, item: QueryRequest) -> Any:
        current = workflow.state.run_id
        if self.execution is not None and item.run_id in {None, current}:
            return item.ask(self.execution)
        if self.stuck_reason is not None and item.run_id in {None, current}:
            raise QueryFailedError("", f"the run is stuck: {self.stuck_reason}")
        # A closed run answers from its history, in code that is thrown away again.
        history = await self._host.repository.run_history(self.workflow_id, item.run_id or current)
        past = self._host.repository.new(self.workflow_id)
        for envelope in history:
            past.replay(envelope)
        execution = self._replayed(past, history)
        try:
            return item.ask(execution)
        finally:
            execution.close()

    def _turn_over(self, workflow: Workflow) -> None:
        """Let a successor take its first step, or let go of the code of a run that has closed."""
        successor, self._successor = self._successor, None
        if successor is not None and isinstance(successor.event, WorkflowStarted):
            self._begin(workflow, successor.event, successor.at, workflow.state.started_revision)
            self._wake = True  # what it commanded is recorded by the next turn
        elif workflow.exists and not workflow.state.is_open:
            self._drop_code()


def _starts(item: Request | QueryRequest) -> bool:
    return isinstance(item, Request) and item.starts


def _concerns(workflow: Workflow, item: Request) -> bool:
    """Whether a fact still has a run to be recorded in."""
    return (
        workflow.exists and workflow.state.is_open and item.run_id in {None, workflow.state.run_id}
    )

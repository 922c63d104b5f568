"""One workflow's process: a mailbox of commands, its aggregate, its code; one append per activation.

Everything that changes a workflow that this engine has in memory goes through here, one turn at a time:

1. bring aggregate and code up to date with the stream;
2. let the aggregate decide each waiting command: a refusal goes back to who asked, and records nothing;
3. deliver the new facts to the code, and let the aggregate record what the code commands;
4. append it all at once, with the expected revision. On a conflict: forget, read, and derive it again;
5. only then let it have effects (run activities, arm timers, tell those who wait) and answer.

A run whose history is in memory takes its turns without any task: `take_turn`. What must be read first,
or tried again, is done by `drive`, in a task.
"""

import asyncio
import random
from datetime import datetime
from typing import Final

from aion_es.aggregates.aggregate import Pending
from aion_es.aggregates.repository import PreparedAppend
from aion_es.aggregates.workflow import Workflow
from aion_es.engine.execution import FACTS, CodeExecution
from aion_es.engine.failures import told_of
from aion_es.engine.host import Host
from aion_es.engine.recording import UnfitCommandError, record
from aion_es.engine.replay import ask_history, bring_back
from aion_es.engine.requests import (
    Committed,
    QueryRequest,
    Request,
    concerns,
    is_given_up,
    starts,
)
from aion_es.engine.tracing import RunTrace
from aion_es.engine.turns import Turn
from aion_es.errors import (
    AionError,
    ConcurrencyConflictError,
    DomainError,
    EngineClosedError,
    StoreUnavailableError,
)
from aion_es.events.metadata import Envelope
from aion_es.events.workflow import WorkflowEvent, WorkflowReopened, WorkflowStarted
from aion_es.ids import RunId, WorkflowId
from aion_es.store.port import Appended, Position

_CONFLICTS_BEFORE_PAUSE: Final = 3


class RunProcess:
    """The process of one workflow id.

    Attributes:
        workflow: Its aggregate; `None` until it is read, and again after `forget`.
        execution: Its code in memory; `None` while the run is closed, stuck or suspended.
        stuck_reason: Why the code cannot go on here.
        is_held: The code may not begin yet: the places of its type are taken.
        reclaim: What the run waits for may have been this engine's to do, and is to be taken up when it
            is read again.
        effects_lost: Something may have been recorded whose effects this engine has not carried out.
        end_is_news: Should the run turn out to have ended, its relatives may not have been told yet. Who
            only looks at a closed run tells nobody: parent and child would tell each other for ever.
        busy: A turn is under way, or about to be taken; set by the engine.
        put_off: Why nothing is tried until it is woken: its stream cannot be read, or the engine failed.
            What waits in the mailbox stays. `None` while all is well; set by the engine.
        trace: Its part in the trace of the run; `None` where nobody records.
    """

    def __init__(self, workflow_id: WorkflowId, host: Host) -> None:
        self.workflow_id = workflow_id
        self.workflow: Workflow | None = None
        self.execution: CodeExecution | None = None
        self.stuck_reason: str | None = None
        self.is_held = False
        self.reclaim = False
        self.effects_lost = False
        self.end_is_news = False
        self.busy = False
        self.put_off: Exception | None = None
        self.trace = None if host.tracing is None else RunTrace(host.tracing)
        self._host = host
        self._inbox: list[Request | QueryRequest] = []
        self._heard = -1  # the highest revision that is known of, from whatever source
        self._wake = False  # the code may have something to do although the mailbox is empty
        self._anew = False  # the next turn begins with reading, so that the code is tried again
        self._open: Turn | None = None  # derived, and its append not answered
        self._awaited: asyncio.Future[Appended] | None = None  # answers `take_turn`'s append
        self._without_code = False  # facts are recorded, the code is left out
        self._stepped = False  # the code has done something since the last turn's end
        self._last_at: datetime | None = None
        # Read, and not yet replayed by the code.
        self._history: list[Envelope[WorkflowEvent]] | None = None
        # Begun by this turn, its code not yet.
        self._successor: Pending[WorkflowEvent] | None = None

    # ------------------------------------------------------------------------------ mailbox

    def post(self, item: Request | QueryRequest) -> None:
        """Put something into the mailbox; the engine sees to it that a turn is taken."""
        self._inbox.append(item)

    def wake(self) -> None:
        """Let the code look at its history, even if the mailbox is empty; a stuck run tries again."""
        self._wake = self.end_is_news = True
        self.put_off = None
        self._anew = self.stuck_reason is not None or self.is_held

    def heard_of(self, revision: int) -> None:
        """Note that the stream has reached `revision`."""
        self.end_is_news |= self.workflow is None or revision > self.workflow.revision
        self._heard = max(self._heard, revision)

    @property
    def has_work(self) -> bool:
        """Whether a turn would do anything."""
        if self.put_off is not None:
            return False
        return bool(self._inbox) or self._wake or self._open is not None or self._is_behind

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
        self._open = None
        if self.workflow is not None:
            self._heard = max(self._heard, self.workflow.revision)
        self.workflow = None
        self._history = None
        self._successor = None
        if self.trace is not None:
            self.trace.forget()

    def _drop_code(self) -> None:
        if self.execution is not None:
            self.execution.close()
            self.execution = None

    def refuse_all(self, error: Exception) -> bool:
        """Tell everybody who waits here that nothing will come of it; facts stay in the mailbox.

        Returns:
            Whether anybody waited.
        """
        turn = self._open
        if turn is not None and any(is_given_up(item, error) for item in turn.items):
            # It must not be appended after all, later, when those who asked have been told otherwise.
            if turn.is_unsure and isinstance(error, StoreUnavailableError):
                error = StoreUnavailableError(error.reason, outcome_unknown=True)
            self.reclaim = self.effects_lost = True
            self._retreat(turn.items)
        before, self._inbox = self._inbox, []
        for item in before:
            if not is_given_up(item, error):
                self._inbox.append(item)
            elif item.answer is not None and not item.answer.done():
                item.answer.set_exception(error)
        return len(self._inbox) < len(before)

    # --------------------------------------------------------------------------------- turns

    def take_turn(self) -> None:
        """Take a turn for which everything is in memory; the engine hears of its end.

        No task and no coroutine: this is the way of nearly every activation, and what it costs decides
        what an engine can carry.
        """
        if not self.is_ready:  # the engine asked when it was
            self._host.turned(self)
            return
        items = self._take_items()
        is_settled = False
        try:
            turn = self._derive(self.workflow or self._begin_unread(), items)
            if not self._host.surroundings.schema.is_unsettled:
                self._append(turn)
                is_settled = True
        except Exception:  # noqa: BLE001 - whatever it is, `drive` meets it again, and deals with it
            is_settled = False
        except KeyboardInterrupt:
            self._is_interrupted()
            raise
        finally:  # who leaves the engine waits for every turn
            if not is_settled:
                self._retreat(items)
                self._host.turned(self)

    def _append(self, turn: Turn) -> None:
        if turn.appends:
            answer = self._awaited = self._submit(turn)
            answer.add_done_callback(lambda answer: self._appended(turn, answer))
        else:
            self._conclude(turn, None)
            self._host.turned(self)

    def _submit(self, turn: Turn) -> "asyncio.Future[Appended]":
        if self.trace is None:
            return self._host.repository.submit(turn.appends[0])
        with self.trace.current():
            return self._host.repository.submit(turn.appends[0])

    def abandon(self) -> None:
        """Wait no longer for the store to answer a turn that was taken by `take_turn`."""
        if self._awaited is not None:
            self._awaited.cancel()

    def _appended(self, turn: Turn, answer: "asyncio.Future[Appended]") -> None:
        self._awaited = None
        is_over = True
        try:
            appended = answer.result()
            del turn.appends[0]
            if turn.appends:
                self._append(turn)
                is_over = False
            else:
                self._conclude(turn, appended)
        except StoreUnavailableError as error:
            turn.is_unsure |= error.outcome_unknown
            self._open = turn
        except BaseException as error:  # see take_turn
            lost = not isinstance(error, ConcurrencyConflictError)
            self.reclaim |= lost
            self.effects_lost |= lost
            self._retreat(turn.items)
            if isinstance(error, KeyboardInterrupt):
                self._is_interrupted()
                raise
        finally:
            if is_over:
                self._host.turned(self)

    def _is_interrupted(self) -> None:
        """Begin nothing more after Ctrl-C: the loop may never come to it, and who leaves the engine would wait for that."""
        self.put_off = EngineClosedError()

    async def drive(self) -> None:
        """Take turns, reading what must be read, until there is nothing to do.

        Raises:
            StoreUnavailableError: The store is away. What was to be appended will be appended again, with
                the same ids, when it is driven again: the store knows it, should it have it already.
            StoreError: The history cannot be read. The process has forgotten; everything is back in its
                mailbox, and it can be driven again.
        """
        while self.has_work:
            items = self._take_items() if self._open is None else self._open.items
            try:
                await self._settle(items)
            except StoreUnavailableError as error:
                if self._open is None:
                    self._retreat(items)
                else:
                    self._open.is_unsure |= error.outcome_unknown
                raise
            except BaseException:
                self.reclaim = self.effects_lost = True
                self._retreat(items)
                raise

    def _take_items(self) -> list[Request | QueryRequest]:
        self._wake = False
        if self._begins_unread:
            # What comes after the start must not be decided on a history that was not read.
            return [self._inbox.pop(0)]
        items, self._inbox = self._inbox, []
        return items

    def _retreat(self, items: list[Request | QueryRequest]) -> None:
        """Put back what a turn has not settled, and forget: the next turn reads what is true."""
        self.forget()
        self._wake = True
        unsettled = [item for item in items if item.answer is None or not item.answer.done()]
        self._inbox = unsettled + self._inbox

    async def _settle(self, items: list[Request | QueryRequest]) -> None:
        """Take a turn, anew after every conflict; split it if its events are refused for what they hold."""
        conflicts = 0
        while True:
            try:
                await self._turn(items)
            except ConcurrencyConflictError:
                self.forget()
                conflicts += 1
                if conflicts >= _CONFLICTS_BEFORE_PAUSE:
                    # Two engines in step would conflict for ever.
                    await asyncio.sleep(random.uniform(0, 0.01) * conflicts)  # noqa: S311 - jitter
            except UnfitCommandError as unfit:
                self.forget()
                await self._settle_without_code(items, unfit.reason)
                return
            except DomainError as error:
                self.forget()
                if len(items) > 1:
                    for item in items:
                        await self._settle([item])
                else:
                    await self._settle_unrecordable(items, error)
                return
            else:
                return

    async def _settle_unrecordable(
        self, items: list[Request | QueryRequest], error: DomainError
    ) -> None:
        """Deal with events that the store cannot take, too large most often.

        Whoever asks is told. A fact is recorded without the code's reaction to it, which must be what is
        too large, and the run is stuck.
        """
        answer = items[0].answer if items else None
        if answer is not None:
            if not answer.done():
                answer.set_exception(error)
            self._wake = True  # what was forgotten is read again: the run may be open
            return
        await self._settle_without_code(items, error)

    async def _settle_without_code(
        self, items: list[Request | QueryRequest], reason: Exception
    ) -> None:
        """Record what came, and nothing of what the code makes of it: the run is stuck for `reason`."""
        self._without_code, self._stepped = True, False
        try:
            await self._settle(items)
        except BaseException:
            # When the store is back, the code meets the reason again.
            self._wake = self._anew = True
            raise
        finally:
            self._without_code = False
        if self.is_open:
            self._is_stuck(reason)

    async def _turn(self, items: list[Request | QueryRequest]) -> None:
        turn = self._open
        if turn is None:
            turn = self._open = await self._derived(items)
        appended = None
        while turn.appends:
            appended = await self._submit(turn)
            del turn.appends[0]
        self._open = None
        self._conclude(turn, appended)

    async def _derived(self, items: list[Request | QueryRequest]) -> Turn:
        """Derive the turn; anew if its code met search attributes that turned out to be other than it was told."""
        turn = self._derive(await self._up_to_date(), items)
        while self._host.surroundings.schema.is_unsettled:
            if await self._host.settle_attributes():
                self.forget()
                turn = self._derive(await self._up_to_date(), items)
        return turn

    def _derive(self, workflow: Workflow, items: list[Request | QueryRequest]) -> Turn:
        """Decide what waits, let the code react, and return the one append that records all of it."""
        if self.reclaim and workflow.revision >= 0:
            # Somebody's command had it read before this was asked for. Here nothing is under way: what was
            # recorded is running, or its outcome is in the mailbox, and only the rest is anybody's to take up.
            self.reclaim = False
            self._host.loaded(self, reclaim=True)
        at = self._now()
        if self.trace is not None:
            self.trace.turn(items)
        self._ensure_code(workflow)
        self._record_commands(workflow, at)
        if self.execution is not None:
            self._is_unstuck()
        for item in items:
            if isinstance(item, Request):
                self._decide(workflow, item, at)
        batch = workflow.uncommitted.copy()
        appends: list[PreparedAppend] = []
        traceparents = None if self.trace is None else self.trace.traceparents(len(batch))
        if batch:
            appends = self._host.repository.prepare(
                workflow,
                command_id=self._host.next_command_id(),
                activated=self.execution is not None and self._successor is None,
                traceparents=traceparents,
            )
        return Turn(items, workflow, at, batch, appends, traceparents)

    def _conclude(self, turn: Turn, appended: Appended | None) -> None:
        """Let what is recorded now have its effects, and answer those who wait."""
        if self.trace is not None:
            self.trace.recorded(turn.batch, turn.traceparents)
        if self._stepped:
            self._stepped = False
            self._host.activated(turn.workflow.state.workflow_type)
        if appended is not None:
            turn.workflow.mark_saved(appended.revision, len(turn.batch))
            self._last_at = turn.at
            self._host.committed(self, turn.batch)
        self._answer(turn, None if appended is None else appended.position)
        self._turn_over(turn.workflow, turn.batch)

    def _now(self) -> datetime:
        """Return the present instant, never before what this run has already recorded."""
        now = self._host.clock.now()
        return now if self._last_at is None or now > self._last_at else self._last_at

    @property
    def is_ready(self) -> bool:
        """Whether the next turn needs nothing that is not in memory."""
        if self.workflow is None:
            return self._begins_unread
        return self._open is None and self._history is None and not (self._is_behind or self._anew)

    @property
    def _begins_unread(self) -> bool:
        """A start most often finds an unknown id: begin without reading, the expected revision tells."""
        return (
            self.workflow is None
            and self._heard < 0
            and bool(self._inbox)
            and starts(self._inbox[0])
        )

    def _begin_unread(self) -> Workflow:
        self._heard = 0  # should the id be known after all, the next try reads
        self.workflow = self._host.repository.new(self.workflow_id)
        return self.workflow

    async def _up_to_date(self) -> Workflow:
        """Return the aggregate, read from its stream if it is not in memory or the stream has moved."""
        if self._is_behind or self._anew:
            self.forget()
        self._anew = False
        if self.workflow is not None:
            return self.workflow
        repository = self._host.repository
        heard = self._heard
        history = await repository.history(self.workflow_id)
        workflow = self.workflow = repository.fold(self.workflow_id, history)
        if not history and self._heard == heard:
            self._heard = (
                -1
            )  # a start that came to nothing: there is no more to read, again and again
        if history:
            if self.trace is not None:
                self.trace.read(history)
            self._history = history
            self._last_at = max(history[-1].recorded_at, self._last_at or history[-1].recorded_at)
            self._heard = max(self._heard, workflow.revision)
            self._host.loaded(self, reclaim=self.reclaim)
            self.reclaim = False
        return workflow

    # ---------------------------------------------------------------------------------- code

    def _ensure_code(self, workflow: Workflow) -> None:
        """Bring the code to where the history ends, if the run is open; note it as stuck if that cannot be."""
        history, self._history = self._history, None
        if (
            self._without_code
            or history is None
            or not workflow.exists
            or not workflow.state.is_open
            or not self._host.serves(workflow.state.task_queue)
        ):
            return
        begun = any(envelope.metadata.activated for envelope in history)
        if not self._is_admitted(workflow.state.workflow_type, begun=begun):
            return
        try:
            self.execution = self._replayed(workflow, history)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever keeps the code from running makes the run stuck
            self._is_stuck(error)

    def _replayed(
        self, workflow: Workflow, history: list[Envelope[WorkflowEvent]]
    ) -> CodeExecution:
        state = workflow.state
        definition = self._host.pinned(state.workflow_type, state.package_version)
        self._stepped = not history[-1].metadata.activated
        span = None if self.trace is None else self.trace.resume(state, history)
        return bring_back(definition, workflow, history, self._host.surroundings, activation=span)

    def _begin(
        self, workflow: Workflow, event: WorkflowStarted, at: datetime, revision: int
    ) -> None:
        """Let the code of a run that starts here take its first step."""
        self._drop_code()
        self._is_unstuck()  # what was stuck was another run's code
        if self._without_code or not self._host.serves(event.task_queue):
            return  # an engine that does drives it
        if not self._is_admitted(event.workflow_type, begun=False):
            return
        try:
            definition = self._host.pinned(event.workflow_type, event.package_version)
            execution = self.execution = CodeExecution(
                definition, workflow, self._host.surroundings
            )
            self._activate(execution)
            execution.deliver(event, at, revision)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - see _ensure_code
            self._is_stuck(error)

    def _is_admitted(self, workflow_type: str, *, begun: bool) -> bool:
        """Whether the code may be in memory; if not, facts are recorded without it until it is woken."""
        self.is_held = not self._host.admit(self.workflow_id, workflow_type, begun=begun)
        return not self.is_held

    def _feed(self, workflow: Workflow, event: WorkflowEvent, at: datetime, revision: int) -> None:
        """Show the code a new fact, and have recorded what it commands."""
        if type(event) is WorkflowStarted:
            self._begin(workflow, event, at, revision)
        elif type(event) is WorkflowReopened:
            self._drop_code()  # should it still be there: it knows of the end, and of what is void now
        elif self.execution is not None and type(event) in FACTS and not self.execution.finished:
            try:
                self._activate(self.execution)
                self.execution.deliver(event, at, revision)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # noqa: BLE001 - see _ensure_code
                self._is_stuck(error)
        self._record_commands(workflow, at)

    def _activate(self, execution: CodeExecution) -> None:
        """Note that the code takes a step now, which it has not taken before."""
        self._stepped = True
        if self.trace is not None:
            self.trace.activate(execution)

    def _record_commands(self, workflow: Workflow, at: datetime) -> None:
        if self.execution is None:
            return
        commands = self.execution.take_commands()
        if commands:
            self._successor = record(commands, workflow, at, self._host) or self._successor

    def _is_stuck(self, error: BaseException) -> None:
        self._drop_code()
        if self.trace is not None:
            self.trace.failed(error)
        self.stuck_reason = (
            str(error) if isinstance(error, AionError) else f"{type(error).__name__}: {error}"
        )
        self._host.stuck(self, error)

    def _is_unstuck(self) -> None:
        if self.stuck_reason is not None:
            self.stuck_reason = None
            self._host.stuck(self, None)

    # ------------------------------------------------------------------- deciding, answering

    def _decide(self, workflow: Workflow, item: Request, at: datetime) -> None:
        item.events, item.refusal = (), None
        if item.answer is None and not concerns(workflow, item):
            return
        first = len(workflow.uncommitted)
        try:
            item.decide(workflow, at)
        except DomainError as error:
            item.refusal = error
            return
        added = workflow.uncommitted[first:]
        if self.trace is not None and added:
            self.trace.decided(workflow.uncommitted, first, item)
        item.events = tuple(pending.event for pending in added)
        for index, pending in enumerate(added):
            self._feed(workflow, pending.event, pending.at, workflow.revision + 1 + first + index)

    def _answer(self, turn: Turn, position: Position | None) -> None:
        for item in turn.items:
            if item.answer is None or item.answer.done():
                continue
            if isinstance(item, QueryRequest):
                self._answer_query(turn.workflow, item)
            elif item.refusal is not None:
                item.answer.set_exception(item.refusal)
            else:
                run_id = turn.workflow.state.run_id
                item.answer.set_result(Committed(item.events, run_id, position))

    def _answer_query(self, workflow: Workflow, item: QueryRequest) -> None:
        try:
            current = workflow.state.run_id
            is_current = item.run_id is None or item.run_id == current
            if self.execution is not None and is_current:
                item.answer.set_result(item.ask(self.execution))
            else:
                is_open = is_current and workflow.state.is_open
                self._host.spawn(self._answer_from_history(item, item.run_id or current, is_open))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - it belongs to who asked
            item.answer.set_exception(told_of(error, is_stuck=False))

    async def _answer_from_history(self, item: QueryRequest, run_id: RunId, is_open: bool) -> None:
        """Let a run answer whose code is not here."""
        host = self._host
        try:
            answer = await ask_history(
                host.repository,
                self.workflow_id,
                run_id,
                host.pinned,
                host.surroundings,
                item.ask,
            )
        except (asyncio.CancelledError, KeyboardInterrupt):
            if not item.answer.done():
                item.answer.set_exception(EngineClosedError())
            raise
        except BaseException as error:  # noqa: BLE001 - it belongs to who asked
            if not item.answer.done():
                item.answer.set_exception(told_of(error, is_stuck=is_open))
        else:
            if not item.answer.done():
                item.answer.set_result(answer)

    def _turn_over(self, workflow: Workflow, batch: list[Pending[WorkflowEvent]]) -> None:
        """Let a successor take its first step, or let go of the code of a run that has closed."""
        successor, self._successor = self._successor, None
        disturbed = self.execution is not None and self.execution.disturbed
        if successor is not None and isinstance(successor.event, WorkflowStarted):
            if successor is batch[-1]:
                revision = workflow.state.started_revision
                self._begin(workflow, successor.event, successor.at, revision)
            else:
                self.forget()  # more came for it in the same append: replay shows it everything
            self._wake = True  # what it commanded is recorded by the next turn
        elif workflow.exists and not workflow.state.is_open:
            self._drop_code()
        elif disturbed or _reopens(batch):
            self.forget()
            self._wake = True


def _reopens(batch: list[Pending[WorkflowEvent]]) -> bool:
    return any(type(pending.event) is WorkflowReopened for pending in batch)

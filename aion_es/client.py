"""The client side: start workflows and talk to them, through typed handles.

This is where user code comes in. Every method here turns into one command on the workflow's aggregate,
or into a question; nothing here decides anything.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Generic, Protocol, TypeVar, overload

from aion_es.aggregates.attributes import AttributeSchema
from aion_es.aggregates.lifecycle import OnConflict, Reuse, StartWorkflow
from aion_es.aggregates.status import WorkflowStatus
from aion_es.aggregates.workflow import Workflow
from aion_es.aggregates.workflow_repository import WorkflowRepository
from aion_es.authoring.channels import Askable, Signal
from aion_es.authoring.context import Context
from aion_es.authoring.definitions import WorkflowDefinition, workflow_definition
from aion_es.clock import seconds_to_wait
from aion_es.engine.catalog import Catalog
from aion_es.engine.gateway import Gateway, give_traced
from aion_es.engine.limits import max_payload_bytes, require_size
from aion_es.engine.registry import Completion
from aion_es.engine.requests import Committed
from aion_es.errors import (
    InvalidArgumentError,
    QueryFailedError,
    WaitTimeoutError,
    WorkflowCancelledError,
    WorkflowFailedError,
    WorkflowTerminatedError,
    WorkflowTimedOutError,
)
from aion_es.events.attributes import SearchAttributeValues, from_attribute
from aion_es.events.metadata import Envelope
from aion_es.events.values import AttributeUpdate, SignalMessage
from aion_es.events.workflow import (
    TerminalEvent,
    WorkflowCancelled,
    WorkflowCompleted,
    WorkflowContinuedAsNew,
    WorkflowEvent,
    WorkflowFailed,
    WorkflowTerminated,
    WorkflowTimedOut,
)
from aion_es.ids import IdSource, RunId, SignalId, WorkflowId, check_id
from aion_es.payload import NOTHING, Payload
from aion_es.store.port import Position, StoreLimits
from aion_es.telemetry import is_recording

I = TypeVar("I")  # noqa: E741 - the field's letter for an input
O = TypeVar("O")  # noqa: E741 - and for an output
T = TypeVar("T")
R = TypeVar("R")
A = TypeVar("A")

Decide = Callable[[Workflow, datetime], object]


class KnownAttributes(Protocol):
    """The search attributes that all processes know."""

    async def typed(self, values: SearchAttributeValues) -> dict[str, AttributeUpdate]:
        """Return values as they are recorded, after registering keys that are new."""
        ...


@dataclass(frozen=True, slots=True)
class WorkflowDescription:
    """What a run's own events say about it now.

    Attributes:
        pending_activities: Ordinal and type of those without an outcome.
        live_timers: Name and due time of those that are armed.
        stuck_reason: Why its code cannot go on in this engine; `None` if it can, or is not in memory.
        history_length: Events of this run.
    """

    workflow_id: WorkflowId
    run_id: RunId
    first_run_id: RunId
    workflow_type: str
    version: str
    status: WorkflowStatus
    started_at: datetime
    attributes: Mapping[str, Any]
    pending_activities: Mapping[int, str]
    live_timers: Mapping[str, datetime]
    cancel_requested: bool
    stuck_reason: str | None
    history_length: int


class WorkflowHandle(Generic[O]):
    """One workflow; `O` is the type of its result.

    Commands and queries go to the current run of the workflow id, also after it continued as new, unless
    the handle was made for one run (`client.handle(id, run_id=…)`): then that run must be the current one.

    Attributes:
        workflow_id: Chosen by who started it.
        run_id: Of the run that was started; `None` for whichever is current.
        last_position: Of the last append made through this handle: give it to `visibility.list(at_least=…)`
            to read your own writes.
    """

    def __init__(
        self,
        client: "WorkflowClient",
        workflow_id: WorkflowId,
        run_id: RunId | None,
        definition: WorkflowDefinition | None,
        completion: Completion | None = None,
        *,
        pinned: bool = False,
    ) -> None:
        self.workflow_id = workflow_id
        self.run_id = run_id
        self.last_position: Position | None = None
        self._client = client
        self._definition = definition
        self._completion = completion
        self._pinned = run_id if pinned else None

    def __repr__(self) -> str:
        return f"WorkflowHandle({self.workflow_id!r}, run_id={self.run_id!r})"

    async def result(self, *, timeout: timedelta | None = None, follow: bool = True) -> O:
        """Return the workflow's result, waiting for it.

        Args:
            timeout: How long to wait; `None` for ever.
            follow: Go on to the end of the chain if the run continues as new. If not, that is told as
                `WorkflowFailedError` of type `ContinuedAsNew`.

        Raises:
            WorkflowFailedError: The code raised; carries type, message, details and traceback.
            WorkflowCancelledError, WorkflowTerminatedError, WorkflowTimedOutError: It ended so.
            WaitTimeoutError: Not within `timeout`; the workflow goes on.
            InvalidArgumentError: `timeout` is no timedelta.
            WorkflowNotFoundError: No such workflow.
            PayloadError: The recorded result does not fit the type that the function declares now.
            UnknownEventTypeError, EventDecodeError, StreamDeletedError: The stream holds what this program
                cannot read, so it will not learn of the end; the error says where. Another that can may go on with it.
        """
        seconds = seconds_to_wait(timeout)
        if seconds is None:
            return await self._result(follow)
        try:
            async with asyncio.timeout(seconds):
                return await self._result(follow)
        except TimeoutError as error:
            raise WaitTimeoutError(f"result of workflow {self.workflow_id!r}", seconds) from error

    async def _result(self, follow: bool) -> O:
        run_id = self.run_id or await self._client.repository.current_run(self.workflow_id)
        completion = self._completion or self._client.gateway.completion(self.workflow_id, run_id)
        while True:
            event = await self._client.gateway.outcome(self.workflow_id, run_id, completion)
            if not (follow and isinstance(event, WorkflowContinuedAsNew)):
                break
            run_id = event.new_run_id
            completion = self._client.gateway.completion(self.workflow_id, run_id)
        return self._read(event, run_id)

    def _read(self, event: TerminalEvent, run_id: RunId) -> O:
        match event:
            case WorkflowCompleted():
                definition = self._definition
                value: O = (
                    event.result.data
                    if definition is None
                    else definition.signature.read_result(event.result)
                )
                return value
            case WorkflowFailed():
                error = event.error
                raise WorkflowFailedError(
                    self.workflow_id,
                    run_id,
                    error.type,
                    error.message,
                    error.details,
                    error.traceback,
                )
            case WorkflowCancelled():
                raise WorkflowCancelledError(self.workflow_id, run_id, event.reason)
            case WorkflowTerminated():
                raise WorkflowTerminatedError(self.workflow_id, run_id, event.reason)
            case WorkflowTimedOut():
                raise WorkflowTimedOutError(self.workflow_id, run_id, event.timeout)
            case WorkflowContinuedAsNew():
                message = f"went on as run {event.new_run_id}"
                raise WorkflowFailedError(
                    self.workflow_id, run_id, "ContinuedAsNew", message, event.input.data
                )

    @overload
    async def signal(
        self: "WorkflowHandle[O]", signal: Signal[None], *, signal_id: str | None = None
    ) -> None: ...
    @overload
    async def signal(
        self, signal: Signal[T], value: T, *, signal_id: str | None = None
    ) -> None: ...
    async def signal(
        self, signal: Signal[Any], value: Any = None, *, signal_id: str | None = None
    ) -> None:
        """Send a signal; it is recorded when this returns, and read when the code gets to it.

        Args:
            signal: The channel.
            value: Of the channel's type.
            signal_id: The same id is received once, however often it is sent. Default: a new one.

        Raises:
            PayloadError: The value is not of the channel's type.
            PayloadTooLargeError: It is larger than an event may be.
            WorkflowNotFoundError, RunClosedError: There is nobody to receive it.
            In all cases nothing was recorded.
        """
        message = self._client.message(signal, value, signal_id)
        await self._do(
            "signal",
            lambda w, at: w.receive_signal(message, run_id=self._pinned, at=at),
            message,
        )

    @overload
    async def query(self, query: Askable[R, None], /) -> R: ...
    @overload
    async def query(self, query: Askable[R, A], argument: A, /) -> R: ...
    async def query(self, query: Askable[Any, Any], argument: Any = None, /) -> Any:
        """Ask the workflow's code, between two of its steps; nothing is recorded.

        A suspended run is brought back for it, a closed one answers from its history.

        Raises:
            QueryNotFoundError: The code answers no query of this name; lists those that it does.
            QueryFailedError: The handler raised, or the run's code cannot run here; says why.
            PayloadError: The argument is not of the declared type.
            WorkflowNotFoundError: No such workflow.
        """
        copied = query.copy_argument(argument)
        try:
            return await self._client.gateway.ask(
                self.workflow_id, self._pinned, lambda code: code.query(query.name, copied)
            )
        except QueryFailedError as error:
            if error.name:
                raise
            raise QueryFailedError(query.name, error.reason) from error.__cause__

    async def cancel(self, reason: str = "") -> None:
        """Ask the run to end. Its code sees `asyncio.CancelledError` at its await, and may clean up first.

        Raises:
            WorkflowNotFoundError, RunClosedError: There is nothing to cancel; nothing was recorded.
        """
        await self._do("cancel", lambda w, at: w.request_cancel(reason, run_id=self._pinned, at=at))

    async def terminate(self, reason: str = "") -> None:
        """End the run at once, without asking its code.

        Raises:
            WorkflowNotFoundError, RunClosedError: There is nothing to end; nothing was recorded.
        """
        await self._do("terminate", lambda w, at: w.terminate(reason, run_id=self._pinned, at=at))

    async def pause(self, reason: str | None = None) -> None:
        """Hold the run: its code, new activities and timers' wake-ups wait; what arrives is recorded.

        Raises:
            WorkflowNotFoundError, RunClosedError: There is nothing to hold; nothing was recorded.
            InvalidStateError: It is held already.
        """
        await self._do("pause", lambda w, at: w.pause(reason, run_id=self._pinned, at=at))

    async def resume(self, reason: str | None = None) -> None:
        """Let a held run go on.

        Raises:
            WorkflowNotFoundError, RunClosedError: There is nothing to resume; nothing was recorded.
            InvalidStateError: It is not held.
        """
        await self._do("resume", lambda w, at: w.resume(reason, run_id=self._pinned, at=at))

    async def reopen(self) -> None:
        """Take a run that closed without completing back to Running.

        Exactly the activities that failed for good are tried again, and timers that the end disarmed are due
        when they were. The code takes up where it stood before it learned of the failure, or of the request to cancel;
        what it did because of it is void.

        Raises:
            WorkflowNotFoundError, RunNotFoundError: There is no such run; nothing was recorded.
            InvalidStateError: It is neither Failed, TimedOut, Cancelled nor Terminated.
        """
        await self._do("reopen", lambda w, at: w.reopen(run_id=self._pinned, at=at))

    async def set_attributes(
        self, attributes: SearchAttributeValues, *, request_id: str | None = None
    ) -> None:
        """Set search attributes from outside; `None` removes one.

        Args:
            attributes: A dict by `SearchAttribute`s of one type, or by registered names; of several types
                `customer.to("ana") | total.to(3)`.
            request_id: The same request is recorded once. Default: a new one.

        Raises:
            UnregisteredAttributeError, ConflictingAttributeTypeError, AttributeTypeError: A name or a
                value does not fit.
            WorkflowNotFoundError, RunClosedError: There is no open run. In all cases nothing was recorded.
        """
        typed = await self._client.search_attributes.typed(attributes)
        request = request_id or self._client.ids.new()
        await self._do(
            "set_attributes",
            lambda w, at: w.update_attributes(
                typed, request_id=request, run_id=self._pinned, at=at
            ),
        )

    async def continue_as_new(self, input: object = None) -> RunId:
        """As an operator: close the run and begin its successor, on the version that is routed now.

        Returns:
            The run id of the successor.

        Raises:
            PendingWorkError: Activities or children are pending.
            WorkflowTypeNotFoundError: No version of its type is routed.
            WorkflowNotFoundError, RunClosedError: There is no open run. In all cases nothing was
                recorded, and the run goes on.
        """
        payload = (
            Payload.of(input)
            if self._definition is None
            else self._definition.signature.write_input(input)
        )
        catalog, run_id = self._client.catalog, self._pinned

        def decide(workflow: Workflow, at: datetime) -> None:
            version = catalog.routed_version(workflow.state.workflow_type)
            workflow.continue_as_new(payload, package_version=version, run_id=run_id, at=at)

        return (await self._do("continue_as_new", decide)).run_id

    async def describe(self) -> WorkflowDescription:
        """Return what the current run's own events say about it.

        Raises:
            WorkflowNotFoundError: No such workflow.
        """
        workflow = await self._client.repository.load(self.workflow_id)
        state = workflow.state
        return WorkflowDescription(
            workflow_id=state.workflow_id,
            run_id=state.run_id,
            first_run_id=state.first_run_id,
            workflow_type=state.workflow_type,
            version=state.package_version,
            status=state.status,
            started_at=state.started_at,
            attributes={name: from_attribute(value) for name, value in state.attributes.items()},
            pending_activities={
                i: a.activity_type for i, a in state.activities.items() if a.is_pending
            },
            live_timers={str(name): at for name, at in state.live_timers.items()},
            cancel_requested=state.cancel_requested is not None,
            stuck_reason=await self._client.gateway.stuck_reason(state.workflow_id, state.run_id),
            history_length=workflow.revision - state.started_revision + 1,
        )

    async def history(self) -> list[Envelope[WorkflowEvent]]:
        """Return every event of this handle's run, oldest first, each with its place and time.

        Raises:
            WorkflowNotFoundError, RunNotFoundError: No such run.
        """
        run_id = self.run_id or await self._client.repository.current_run(self.workflow_id)
        return await self._client.repository.run_history(self.workflow_id, run_id)

    async def _do(
        self, what: str, decide: Decide, message: SignalMessage | None = None
    ) -> Committed:
        committed = await self._client.give(what, self.workflow_id, decide, message)
        if committed.position is not None:
            self.last_position = committed.position
        return committed


class WorkflowClient:
    """Starts workflows and gives handles to them. An `Engine` is one.

    Attributes:
        records_payloads: What is sent is put on the spans of OpenTelemetry; see `EngineOptions.record_payloads`.
    """

    def __init__(
        self,
        gateway: Gateway,
        repository: WorkflowRepository,
        catalog: Catalog,
        schema: AttributeSchema,
        ids: IdSource,
        limits: StoreLimits,
        search_attributes: KnownAttributes,
    ) -> None:
        self.gateway = gateway
        self.repository = repository
        self.catalog = catalog
        self.schema = schema
        self.search_attributes = search_attributes
        self.ids = ids
        self.records_payloads = False
        self._traced = is_recording()
        self._max_payload = max_payload_bytes(limits)

    @overload
    async def start(
        self,
        workflow: Callable[[Context, I], Awaitable[O]],
        input: I,
        /,
        *,
        id: str | None = None,
        attributes: SearchAttributeValues | None = None,
        request_id: str | None = None,
        on_conflict: OnConflict = "fail",
        reuse: Reuse = "allow",
        run_timeout: timedelta | None = None,
        execution_timeout: timedelta | None = None,
        memo: object = None,
    ) -> WorkflowHandle[O]: ...
    @overload
    async def start(
        self,
        workflow: Callable[[Context], Awaitable[O]],
        /,
        *,
        id: str | None = None,
        attributes: SearchAttributeValues | None = None,
        request_id: str | None = None,
        on_conflict: OnConflict = "fail",
        reuse: Reuse = "allow",
        run_timeout: timedelta | None = None,
        execution_timeout: timedelta | None = None,
        memo: object = None,
    ) -> WorkflowHandle[O]: ...
    @overload
    async def start(
        self,
        workflow: str,
        input: object = None,
        /,
        *,
        id: str | None = None,
        attributes: SearchAttributeValues | None = None,
        request_id: str | None = None,
        on_conflict: OnConflict = "fail",
        reuse: Reuse = "allow",
        run_timeout: timedelta | None = None,
        execution_timeout: timedelta | None = None,
        memo: object = None,
    ) -> WorkflowHandle[Any]: ...
    async def start(
        self,
        workflow: Callable[..., Awaitable[Any]] | str,
        input: Any = None,
        /,
        *,
        id: str | None = None,
        attributes: SearchAttributeValues | None = None,
        request_id: str | None = None,
        on_conflict: OnConflict = "fail",
        reuse: Reuse = "allow",
        run_timeout: timedelta | None = None,
        execution_timeout: timedelta | None = None,
        memo: object = None,
    ) -> WorkflowHandle[Any]:
        """Start a workflow on the version of its type that is routed now; it is recorded when this returns.

        Args:
            workflow: A registered workflow function, or the name of its type.
            input: Its input, of the declared type.
            id: Workflow id, 1–255 printable characters. Default: a UUIDv7.
            attributes: Search attributes to begin with: a dict by `SearchAttribute`s of one type, or by registered
                names; of several types `customer.to("ana") | total.to(3)`. `None` leaves one out.
            request_id: The same request again gives the run that it started.
            on_conflict: While a run is open under this id: `fail`, `use_existing` or `terminate_existing`.
            reuse: After a run closed under this id: `allow`, `allow_if_failed` or `reject`.
            run_timeout: The run is timed out after this long.
            execution_timeout: The chain of runs is timed out after this long.
            memo: Anything to keep beside the run, as plain JSON.

        Raises:
            WorkflowTypeNotFoundError: The type is not registered here.
            WorkflowAlreadyStartedError: The id is taken; carries the run id that has it.
            PayloadError, PayloadTooLargeError: The input does not fit its type, or is too large.
            UnregisteredAttributeError, ConflictingAttributeTypeError, AttributeTypeError: See `attributes`.
            InvalidIdError: The id is not 1–255 printable characters. In all cases nothing was recorded.
        """
        definition, version = await self._routed(workflow)
        workflow_id = WorkflowId(check_id("workflow_id", id if id is not None else self.ids.new()))
        command = replace(
            await self._command(workflow_id, definition, version, input, attributes),
            run_timeout=run_timeout,
            execution_timeout=execution_timeout,
            request_id=request_id,
            memo=None if memo is None else Payload.of(memo, what="memo"),
            on_conflict=on_conflict,
            reuse=reuse,
        )
        return await self._start(
            workflow_id, command, definition, lambda w, at: w.start(command, at=at)
        )

    async def signal_with_start(
        self,
        workflow: Callable[[Context, I], Awaitable[O]],
        input: I,
        signal: Signal[T],
        value: T,
        /,
        *,
        id: str,
        signal_id: str | None = None,
        attributes: SearchAttributeValues | None = None,
    ) -> WorkflowHandle[O]:
        """Send a signal to the open run of `id`, or start one and send it, in one append.

        Raises:
            What `start` and `WorkflowHandle.signal` raise; nothing was recorded.
        """
        definition, version = await self._routed(workflow)
        workflow_id = WorkflowId(check_id("workflow_id", id))
        command = replace(
            await self._command(workflow_id, definition, version, input, attributes),
            on_conflict="use_existing",
        )
        message = self.message(signal, value, signal_id)

        def decide(workflow: Workflow, at: datetime) -> None:
            workflow.start(command, at=at)
            workflow.receive_signal(message, at=at)

        return await self._start(workflow_id, command, definition, decide)

    async def _command(
        self,
        workflow_id: WorkflowId,
        definition: WorkflowDefinition,
        version: str,
        input: object,
        attributes: SearchAttributeValues | None,
    ) -> StartWorkflow:
        """Return the start of a new run with what every start has, checked."""
        payload = definition.signature.write_input(input)
        require_size(payload, self._max_payload, f"input of workflow {workflow_id!r}")
        typed = {} if attributes is None else await self.search_attributes.typed(attributes)
        return StartWorkflow(
            workflow_type=definition.type,
            package_version=version,
            run_id=RunId(self.ids.new()),
            input=payload,
            task_queue=definition.task_queue,
            attributes={name: value for name, value in typed.items() if value is not None},
            code_hash=definition.code_hash,
        )

    async def _start(
        self,
        workflow_id: WorkflowId,
        command: StartWorkflow,
        definition: WorkflowDefinition,
        decide: Decide,
    ) -> WorkflowHandle[Any]:
        # Held from before the start: a run may have closed by the time its starter is told of it.
        completion = self.gateway.completion(workflow_id, command.run_id)
        committed = await self.give("start", workflow_id, decide, command, starts=True)
        if (
            committed.run_id != command.run_id
        ):  # an open run was used, or this request had started one before
            completion = self.gateway.completion(workflow_id, committed.run_id)
        handle = WorkflowHandle[Any](self, workflow_id, committed.run_id, definition, completion)
        handle.last_position = committed.position
        return handle

    def give(
        self,
        what: str,
        workflow_id: WorkflowId,
        decide: Decide,
        command: StartWorkflow | SignalMessage | None = None,
        *,
        starts: bool = False,
    ) -> Awaitable[Committed]:
        """Give a command to a workflow's aggregate, in a span where somebody records; return what came of it.

        Args:
            what: The command's name.
            workflow_id: Whose aggregate.
            decide: The command.
            command: What is started, or sent.
            starts: It may begin a workflow that does not exist yet.

        Raises:
            What the gateway's `request` raises.
        """
        if not self._traced:
            return self.gateway.request(workflow_id, decide, starts=starts)
        records = self.records_payloads
        return give_traced(
            self.gateway, what, workflow_id, decide, command, starts=starts, records=records
        )

    @overload
    def handle(
        self,
        workflow_id: str,
        workflow: Callable[[Context, Any], Awaitable[O]],
        *,
        run_id: str | None = None,
    ) -> WorkflowHandle[O]: ...
    @overload
    def handle(
        self,
        workflow_id: str,
        workflow: Callable[[Context], Awaitable[O]],
        *,
        run_id: str | None = None,
    ) -> WorkflowHandle[O]: ...
    @overload
    def handle(
        self, workflow_id: str, workflow: None = None, *, run_id: str | None = None
    ) -> WorkflowHandle[Any]: ...
    def handle(
        self,
        workflow_id: str,
        workflow: Callable[..., Awaitable[Any]] | None = None,
        *,
        run_id: str | None = None,
    ) -> WorkflowHandle[Any]:
        """Return a handle to a workflow that was started before; nothing is read yet.

        Args:
            workflow_id: Its id.
            workflow: Its function, so that the result is read as its type. Default: plain JSON values.
            run_id: One run. Default: the current one, whenever something is asked.

        Raises:
            InvalidIdError: The id is not 1–255 printable characters.
        """
        definition = None if workflow is None else workflow_definition(workflow)
        run = None if run_id is None else RunId(run_id)
        return WorkflowHandle(
            self,
            WorkflowId(check_id("workflow_id", workflow_id)),
            run,
            definition,
            pinned=run is not None,
        )

    def message(self, signal: Signal[T], value: T, signal_id: str | None) -> SignalMessage:
        """Return what a signal sends.

        Raises:
            PayloadError, PayloadTooLargeError: The value does not fit the channel, or is too large.
            InvalidIdError: The signal id is not 1–255 printable characters.
        """
        payload = signal.write(value) if value is not None or signal.type is not None else NOTHING
        require_size(payload, self._max_payload, f"payload of signal {signal.name!r}")
        chosen = self.ids.new() if signal_id is None else check_id("signal_id", signal_id)
        return SignalMessage(signal_id=SignalId(chosen), name=signal.name, payload=payload)

    async def _routed(
        self, workflow: Callable[..., Awaitable[Any]] | str
    ) -> tuple[WorkflowDefinition, str]:
        """Return the code that new runs take now, and its version."""
        if not isinstance(workflow, str) and not callable(workflow):
            raise InvalidArgumentError(
                "workflow", f"must be a workflow function or the name of its type, got {workflow!r}"
            )
        kind = workflow if isinstance(workflow, str) else workflow_definition(workflow).type
        definition = self.catalog.routed(kind)
        return definition, definition.version

"""Every error that aion-es raises.

Families never mix, so that `except` says what to do::

    AionError
    ├── DomainError              the command was refused; nothing was recorded; asking again changes nothing
    │   ├── InvalidIdError, InvalidArgumentError, DefinitionError
    │   ├── PayloadError, PayloadTooLargeError
    │   ├── WorkflowNotFoundError, RunNotFoundError, RunClosedError, InvalidStateError
    │   ├── WorkflowAlreadyStartedError, WorkflowTypeNotFoundError, ActivityTypeNotFoundError
    │   ├── ContinueAsNewError, PendingWorkError
    │   ├── ActivityNotFoundError, StaleAttemptError, TimerAlreadyStartedError, TimerNotStartedError
    │   ├── ChildAlreadyStartedError, ChildNotFoundError
    │   ├── UnregisteredAttributeError, ConflictingAttributeTypeError, AttributeTypeError
    │   ├── ScheduleAlreadyExistsError, ScheduleNotFoundError, SchedulePausedError, ScheduleSpecError
    │   ├── QueryNotFoundError, QueryFailedError, FilterSyntaxError, InvalidPageTokenError
    │   ├── PackageError, PackageNotFoundError, VersionPinnedError
    │   └── WorkflowSandboxError
    ├── OperationalError         something outside is in the way: mend it or wait, then try again
    │   ├── StoreError
    │   │   ├── ConcurrencyConflictError, StreamDeletedError, AppendTooLargeError, AccessDeniedError
    │   │   ├── StoreUnavailableError, StoreClosedError, StoreCorruptError
    │   │   ├── UnsupportedStoreVersionError, UnknownStoreURLError
    │   │   ├── SubscriptionDroppedError, ConsumerGroupNotFoundError, ConsumerGroupExistsError
    │   │   └── UnknownEventTypeError, EventDecodeError
    │   ├── ProjectionLagError
    │   ├── NonDeterminismError, VersionNotLoadedError
    │   └── EngineClosedError, WaitTimeoutError
    ├── WorkflowOutcomeError     how a run ended, told to those who wait for its result
    │   └── WorkflowFailedError, WorkflowCancelledError, WorkflowTerminatedError, WorkflowTimedOutError
    ├── ActivityError            what workflow code sees when an activity failed for good
    ├── ChildWorkflowError       the same of a child that ended without a result
    ├── SignalDeliveryError      the same of a signal that could not be delivered
    ├── ApplicationError         what user code raises to decide about retries
    │   └── RetryableError, NonRetryableError
    └── InternalError            a bug of ours: please report it

Each has a stable `code` and its facts as fields. `args` are those fields, so copying and pickling work.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, ClassVar


class AionError(Exception):
    """The root: `except AionError` catches everything of ours and nothing else."""

    code: ClassVar[str] = "aion"


# ------------------------------------------------------------------------------------ refusals


class DomainError(AionError):
    """The command was not allowed. Nothing was written, and asking again changes nothing."""

    code = "refused"


class InvalidIdError(DomainError):
    """An identifier has a form that cannot be recorded."""

    code = "invalid_id"

    def __init__(self, kind: str, value: str, reason: str) -> None:
        super().__init__(kind, value, reason)
        self.kind, self.value, self.reason = kind, value, reason

    def __str__(self) -> str:
        return f"{self.kind} {self.value} {self.reason}"


class InvalidArgumentError(DomainError):
    """An argument has a type or value that the call cannot take."""

    code = "invalid_argument"

    def __init__(self, argument: str, reason: str) -> None:
        super().__init__(argument, reason)
        self.argument, self.reason = argument, reason

    def __str__(self) -> str:
        return f"{self.argument}: {self.reason}"


class DefinitionError(DomainError):
    """A function cannot be a workflow or an activity; says which one, what is wrong and what to do."""

    code = "definition"

    def __init__(self, function: str, reason: str) -> None:
        super().__init__(function, reason)
        self.function, self.reason = function, reason

    def __str__(self) -> str:
        return f"{self.function}: {self.reason}"


class PayloadError(DomainError):
    """A value does not fit the type that was declared for it, or cannot be written as JSON."""

    code = "payload"

    def __init__(self, what: str, path: str, reason: str) -> None:
        super().__init__(what, path, reason)
        self.what, self.path, self.reason = what, path, reason

    def __str__(self) -> str:
        return f"{self.what}, at {self.path}: {self.reason}"


class PayloadTooLargeError(DomainError):
    """An event would exceed what the store accepts. Keep large data elsewhere and pass a reference."""

    code = "payload_too_large"

    def __init__(self, size: int, limit: int, what: str) -> None:
        super().__init__(size, limit, what)
        self.size, self.limit, self.what = size, limit, what

    def __str__(self) -> str:
        return (
            f"{self.what} has {self.size:,} bytes, over the limit of {self.limit:,}; "
            "keep large data elsewhere and pass a reference to it"
        )


class WorkflowNotFoundError(DomainError):
    """No run was ever started under this workflow id."""

    code = "workflow_not_found"

    def __init__(self, workflow_id: str) -> None:
        super().__init__(workflow_id)
        self.workflow_id = workflow_id

    def __str__(self) -> str:
        return f"no workflow {self.workflow_id!r}"


class RunNotFoundError(DomainError):
    """The workflow id is known, the run id is not one of its runs."""

    code = "run_not_found"

    def __init__(self, workflow_id: str, run_id: str) -> None:
        super().__init__(workflow_id, run_id)
        self.workflow_id, self.run_id = workflow_id, run_id

    def __str__(self) -> str:
        return f"workflow {self.workflow_id!r} has no current run {self.run_id}"


class RunClosedError(DomainError):
    """The run already recorded a terminal event; nothing may follow it."""

    code = "run_closed"

    def __init__(self, workflow_id: str, run_id: str, status: str) -> None:
        super().__init__(workflow_id, run_id, status)
        self.workflow_id, self.run_id, self.status = workflow_id, run_id, status

    def __str__(self) -> str:
        return f"run {self.run_id} of workflow {self.workflow_id!r} already recorded a terminal event: it is {self.status}"


class InvalidStateError(DomainError):
    """The run's status does not admit this command."""

    code = "invalid_state"

    def __init__(self, workflow_id: str, status: str, command: str) -> None:
        super().__init__(workflow_id, status, command)
        self.workflow_id, self.status, self.command = workflow_id, status, command

    def __str__(self) -> str:
        return f"cannot {self.command} workflow {self.workflow_id!r}: it is {self.status}"


class WorkflowAlreadyStartedError(DomainError):
    """The id is taken: by an open run, or by a closed one that the reuse policy does not let go."""

    code = "workflow_already_started"

    def __init__(self, workflow_id: str, run_id: str, status: str) -> None:
        super().__init__(workflow_id, run_id, status)
        self.workflow_id, self.run_id, self.status = workflow_id, run_id, status

    def __str__(self) -> str:
        return (
            f"workflow {self.workflow_id!r} was already started: run {self.run_id} is {self.status}; "
            "choose another id, or see on_conflict= and reuse="
        )


class WorkflowTypeNotFoundError(DomainError):
    """No version of this workflow type is routed here."""

    code = "workflow_type_not_found"

    def __init__(self, workflow_type: str, known: Sequence[str] = ()) -> None:
        super().__init__(workflow_type, tuple(known))
        self.workflow_type, self.known = workflow_type, tuple(known)

    def __str__(self) -> str:
        known = ", ".join(self.known) or "none"
        return f"workflow type {self.workflow_type!r} is not registered; registered: {known}"


class ActivityTypeNotFoundError(DomainError):
    """This engine has no activity of that name."""

    code = "activity_type_not_found"

    def __init__(self, activity_type: str, known: Sequence[str] = ()) -> None:
        super().__init__(activity_type, tuple(known))
        self.activity_type, self.known = activity_type, tuple(known)

    def __str__(self) -> str:
        known = ", ".join(self.known) or "none"
        return f"activity {self.activity_type!r} is not registered; registered: {known}"


class ContinueAsNewError(DomainError):
    """Continue-as-new was asked for in a way that could never be a continuation of this run."""

    code = "continue_as_new"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class PendingWorkError(DomainError):
    """The run still waits for activities or children, whose outcomes its successor could not receive."""

    code = "pending_work"

    def __init__(self, activities: Sequence[int], children: Sequence[str]) -> None:
        super().__init__(tuple(activities), tuple(children))
        self.activities, self.children = tuple(activities), tuple(children)

    def __str__(self) -> str:
        def named(noun: str, plural: str, ids: Sequence[object]) -> str:
            shown = ", ".join(str(i) for i in ids[:10]) + (", …" if len(ids) > 10 else "")
            return f"{len(ids)} pending {noun if len(ids) == 1 else plural}" + (
                f" ({shown})" if ids else ""
            )

        return (
            f"cannot continue as new with {named('activity', 'activities', self.activities)} and "
            f"{named('child', 'children', self.children)}; await or cancel them first"
        )


class ActivityNotFoundError(DomainError):
    """The run never scheduled an activity with this id."""

    code = "activity_not_found"

    def __init__(self, workflow_id: str, activity_id: int) -> None:
        super().__init__(workflow_id, activity_id)
        self.workflow_id, self.activity_id = workflow_id, activity_id

    def __str__(self) -> str:
        return f"workflow {self.workflow_id!r} has no activity {self.activity_id}"


class StaleAttemptError(DomainError):
    """The outcome belongs to an attempt that no longer counts: another came, or the activity is settled."""

    code = "stale_attempt"

    def __init__(self, activity_id: int, attempt: int, current: int) -> None:
        super().__init__(activity_id, attempt, current)
        self.activity_id, self.attempt, self.current = activity_id, attempt, current

    def __str__(self) -> str:
        return f"activity {self.activity_id}: attempt {self.attempt} is stale, the current one is {self.current}"


class TimerAlreadyStartedError(DomainError):
    """A live timer already has this name."""

    code = "timer_already_started"

    def __init__(self, timer_id: str) -> None:
        super().__init__(timer_id)
        self.timer_id = timer_id

    def __str__(self) -> str:
        return f"timer {self.timer_id!r} is already live"


class TimerNotStartedError(DomainError):
    """The run never started a timer of this name."""

    code = "timer_not_started"

    def __init__(self, timer_id: str) -> None:
        super().__init__(timer_id)
        self.timer_id = timer_id

    def __str__(self) -> str:
        return f"timer {self.timer_id!r} was never started"


class ChildAlreadyStartedError(DomainError):
    """The run already has a child with this workflow id."""

    code = "child_already_started"

    def __init__(self, child_workflow_id: str) -> None:
        super().__init__(child_workflow_id)
        self.child_workflow_id = child_workflow_id

    def __str__(self) -> str:
        return f"child workflow {self.child_workflow_id!r} was already started by this run"


class ChildNotFoundError(DomainError):
    """The run has no child with this workflow id."""

    code = "child_not_found"

    def __init__(self, child_workflow_id: str) -> None:
        super().__init__(child_workflow_id)
        self.child_workflow_id = child_workflow_id

    def __str__(self) -> str:
        return f"this run has no child workflow {self.child_workflow_id!r}"


class UnregisteredAttributeError(DomainError):
    """No search attribute of this name is registered."""

    code = "unregistered_attribute"

    def __init__(self, name: str, near: Sequence[str] = ()) -> None:
        super().__init__(name, tuple(near))
        self.name, self.near = name, tuple(near)

    def __str__(self) -> str:
        hint = f"; did you mean {', '.join(self.near)}?" if self.near else ""
        return f"search attribute {self.name!r} is not registered{hint}"


class ConflictingAttributeTypeError(DomainError):
    """The name is registered with another type; a registered type never changes."""

    code = "conflicting_attribute_type"

    def __init__(self, name: str, existing: str, requested: str) -> None:
        super().__init__(name, existing, requested)
        self.name, self.existing, self.requested = name, existing, requested

    def __str__(self) -> str:
        return (
            f"search attribute {self.name!r} is registered as {self.existing}, not {self.requested}"
        )


class AttributeTypeError(DomainError):
    """The value does not fit the attribute's type."""

    code = "attribute_type"

    def __init__(self, name: str, expected: str, actual: str) -> None:
        super().__init__(name, expected, actual)
        self.name, self.expected, self.actual = name, expected, actual

    def __str__(self) -> str:
        return f"search attribute {self.name!r} takes {self.expected}, got {self.actual}"


class ScheduleAlreadyExistsError(DomainError):
    """A schedule with this id exists."""

    code = "schedule_already_exists"

    def __init__(self, schedule_id: str) -> None:
        super().__init__(schedule_id)
        self.schedule_id = schedule_id

    def __str__(self) -> str:
        return f"schedule {self.schedule_id!r} already exists"


class ScheduleNotFoundError(DomainError):
    """No schedule has this id, or it was deleted."""

    code = "schedule_not_found"

    def __init__(self, schedule_id: str) -> None:
        super().__init__(schedule_id)
        self.schedule_id = schedule_id

    def __str__(self) -> str:
        return f"no schedule {self.schedule_id!r}"


class SchedulePausedError(DomainError):
    """The schedule is paused: it takes no action but those that a person asks for."""

    code = "schedule_paused"

    def __init__(self, schedule_id: str) -> None:
        super().__init__(schedule_id)
        self.schedule_id = schedule_id

    def __str__(self) -> str:
        return f"schedule {self.schedule_id!r} is paused"


class ScheduleSpecError(DomainError):
    """A cron expression, a calendar's field or a time zone is not understood; `position` counts characters from 0."""

    code = "schedule_spec"

    def __init__(self, spec: str, position: int, reason: str) -> None:
        super().__init__(spec, position, reason)
        self.spec, self.position, self.reason = spec, position, reason

    def __str__(self) -> str:
        return f"{self.spec!r}: {self.reason}, at character {self.position}"


class QueryNotFoundError(DomainError):
    """The workflow answers no query of this name."""

    code = "query_not_found"

    def __init__(self, name: str, known: Sequence[str] = ()) -> None:
        super().__init__(name, tuple(known))
        self.name, self.known = name, tuple(known)

    def __str__(self) -> str:
        return f"no query {self.name!r}; this workflow answers: {', '.join(self.known) or 'none'}"


class QueryFailedError(DomainError):
    """The workflow's handler for the query raised, or answered with a value of another type."""

    code = "query_failed"

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"query {self.name!r} failed: {self.reason}"


class FilterSyntaxError(DomainError):
    """A list filter cannot be understood; `position` counts characters from 0."""

    code = "filter_syntax"

    def __init__(self, filter: str, position: int, reason: str) -> None:
        super().__init__(filter, position, reason)
        self.filter, self.position, self.reason = filter, position, reason

    def __str__(self) -> str:
        return f"{self.reason}, at character {self.position}: {self.filter[self.position : self.position + 24]!r}"


class InvalidPageTokenError(DomainError):
    """A page token is damaged, or was given for another filter. Ask for the first page again."""

    code = "invalid_page_token"

    def __init__(self, token: str, reason: str) -> None:
        super().__init__(token, reason)
        self.token, self.reason = token, reason

    def __str__(self) -> str:
        return f"page token {self.token[:24]!r}: {self.reason}"


class PackageError(DomainError):
    """A package of code cannot be loaded; says from where, and what is wrong with it."""

    code = "package"

    def __init__(self, package: str, reason: str) -> None:
        super().__init__(package, reason)
        self.package, self.reason = package, reason

    def __str__(self) -> str:
        return f"package {_shown(self.package)}: {self.reason}"


class PackageNotFoundError(DomainError):
    """No package of this version is loaded; lists those that are."""

    code = "package_not_found"

    def __init__(self, version: str, loaded: Sequence[str] = ()) -> None:
        super().__init__(version, tuple(loaded))
        self.version, self.loaded = version, tuple(loaded)

    def __str__(self) -> str:
        loaded = ", ".join(map(_shown, self.loaded)) or "none"
        return f"no package {_shown(self.version)} is loaded (loaded: {loaded})"


class VersionPinnedError(DomainError):
    """A package cannot be unloaded: open runs are pinned to it, or children that are about to start.

    Attributes:
        version: Of the package.
        runs: How many open runs need it.
        children: How many children are recorded to start on it, and have not yet.
        types: The workflow types that they are of.
    """

    code = "version_pinned"

    def __init__(self, version: str, runs: int, children: int, types: Sequence[str] = ()) -> None:
        super().__init__(version, runs, children, tuple(types))
        self.version, self.runs, self.children = version, runs, children
        self.types = tuple(types)

    def __str__(self) -> str:
        return (
            f"package {_shown(self.version)} is needed by {self.runs} open run(s) and {self.children} child(ren) "
            f"about to start, of {', '.join(self.types)}"
        )


class WorkflowSandboxError(DomainError):
    """Workflow code reached for something that cannot be replayed; an activity can do it."""

    code = "workflow_sandbox"

    def __init__(self, operation: str) -> None:
        super().__init__(operation)
        self.operation = operation

    def __str__(self) -> str:
        return f"{self.operation} is not available in workflow code, because replay could not repeat it; do it in an activity"


# --------------------------------------------------------------------------- failures outside


class OperationalError(AionError):
    """Something outside is in the way. The fact that was to be recorded is not, or not surely, recorded."""

    code = "operational"


class StoreError(OperationalError):
    """The event store could not do what was asked."""

    code = "store"


class ConcurrencyConflictError(StoreError):
    """The stream moved since it was read. Nothing was written.

    Attributes:
        expected: The revision, or the word for a condition ("no_stream", "exists"), that was expected.
        actual: The head that was found; -1 when there is no such stream.
    """

    code = "concurrency_conflict"

    def __init__(self, stream: str, expected: int | str, actual: int) -> None:
        super().__init__(stream, expected, actual)
        self.stream, self.expected, self.actual = stream, expected, actual

    def __str__(self) -> str:
        return f"{self.stream}: expected revision {self.expected}, found {self.actual}"


class StreamDeletedError(StoreError):
    """The stream was deleted and does not admit this operation."""

    code = "stream_deleted"

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.stream = stream

    def __str__(self) -> str:
        return f"stream {self.stream!r} is deleted"


class AppendTooLargeError(StoreError):
    """The append exceeds the store's limit. Nothing was written."""

    code = "append_too_large"

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(size, limit)
        self.size, self.limit = size, limit

    def __str__(self) -> str:
        return f"append of {self.size:,} bytes exceeds the store's limit of {self.limit:,}"


class AccessDeniedError(StoreError):
    """The store refuses these credentials for this operation."""

    code = "access_denied"

    def __init__(self, operation: str) -> None:
        super().__init__(operation)
        self.operation = operation

    def __str__(self) -> str:
        return f"access denied: {self.operation}"


class StoreUnavailableError(StoreError):
    """The store cannot be reached, or cannot write now (disk full, locked, gone). Retryable.

    Attributes:
        outcome_unknown: True if an append may have been committed although its answer was lost.
    """

    code = "store_unavailable"

    def __init__(self, reason: str, outcome_unknown: bool = False) -> None:
        super().__init__(reason, outcome_unknown)
        self.reason, self.outcome_unknown = reason, outcome_unknown

    def __str__(self) -> str:
        return self.reason + (
            "; the append may or may not have been committed" if self.outcome_unknown else ""
        )


class StoreClosedError(StoreError):
    """The store was closed by its owner."""

    code = "store_closed"

    def __init__(self, store: str) -> None:
        super().__init__(store)
        self.store = store

    def __str__(self) -> str:
        return f"the store {self.store} is closed"


class StoreCorruptError(StoreError):
    """What is stored breaks a promise of the store: a gap, a damaged page, a foreign file."""

    code = "store_corrupt"

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(where, reason)
        self.where, self.reason = where, reason

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


class UnsupportedStoreVersionError(StoreError):
    """The store, its file or its library has a version that this program cannot work with."""

    code = "unsupported_store_version"

    def __init__(self, what: str, found: str, needed: str) -> None:
        super().__init__(what, found, needed)
        self.what, self.found, self.needed = what, found, needed

    def __str__(self) -> str:
        return f"{self.what} has version {self.found}; this program needs {self.needed}"


class UnknownStoreURLError(StoreError):
    """The URL names no store that is known or installed; says which are, and what to install."""

    code = "unknown_store_url"

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(url, reason)
        self.url, self.reason = url, reason

    def __str__(self) -> str:
        return f"{self.url!r}: {self.reason}"


class SubscriptionDroppedError(StoreError):
    """The subscription ended and cannot go on by itself; open a new one after the last handled position."""

    code = "subscription_dropped"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"subscription dropped: {self.reason}"


class ConsumerGroupNotFoundError(StoreError):
    """No consumer group has this name."""

    code = "consumer_group_not_found"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"no consumer group {self.name!r}"


class ConsumerGroupExistsError(StoreError):
    """A consumer group with this name exists."""

    code = "consumer_group_exists"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"consumer group {self.name!r} already exists"


class UnknownEventTypeError(StoreError):
    """A recorded event has a type that this program does not know: a newer program's, or a foreigner's."""

    code = "unknown_event_type"

    def __init__(self, event_type: str, stream: str, revision: int) -> None:
        super().__init__(event_type, stream, revision)
        self.event_type, self.stream, self.revision = event_type, stream, revision

    def __str__(self) -> str:
        return f"{self.stream}@{self.revision}: unknown event type {self.event_type!r}"


class EventDecodeError(StoreError):
    """A recorded event is not of the form that its type promises."""

    code = "event_decode"

    def __init__(self, event_type: str, stream: str, revision: int, reason: str) -> None:
        super().__init__(event_type, stream, revision, reason)
        self.event_type, self.stream, self.revision, self.reason = (
            event_type,
            stream,
            revision,
            reason,
        )

    def __str__(self) -> str:
        return f"{self.stream}@{self.revision}: cannot read {self.event_type}: {self.reason}"


class ProjectionLagError(OperationalError):
    """The read model did not reach the asked position in time."""

    code = "projection_lag"

    def __init__(self, projection: str, position: str, reached: str) -> None:
        super().__init__(projection, position, reached)
        self.projection, self.position, self.reached = projection, position, reached

    def __str__(self) -> str:
        return f"projection {self.projection!r} is at {self.reached}, not yet at {self.position}"


class NonDeterminismError(OperationalError):
    """The code commands something other than what its history records. The run stays Running, and stuck.

    Attributes:
        revision: Stream revision of the recorded command; -1 where the history ends.
        recorded: What the history says, readable.
        commanded: What the code asked for, readable.
    """

    code = "non_determinism"

    def __init__(
        self, workflow_id: str, run_id: str, revision: int, recorded: str, commanded: str
    ) -> None:
        super().__init__(workflow_id, run_id, revision, recorded, commanded)
        self.workflow_id, self.run_id, self.revision = workflow_id, run_id, revision
        self.recorded, self.commanded = recorded, commanded

    def __str__(self) -> str:
        return (
            f"workflow {self.workflow_id!r}, run {self.run_id}, revision {self.revision}: the code and its history differ\n"
            f"  - recorded:  {self.recorded}\n"
            f"  + commanded: {self.commanded}\n"
            "load the code that wrote this history, or guard the change with ctx.patched(...)"
        )


class VersionNotLoadedError(OperationalError):
    """Open runs are pinned to a version of their type that is not loaded here.

    Attributes:
        workflow_type: Their type.
        version: An author's label, or the content hash of a package.
        runs: How many there are, as far as is known; 0: new runs are led to it.
        loaded: The versions of the type that are loaded.
        reason: Why a package that should be here is not.
    """

    code = "version_not_loaded"

    def __init__(
        self,
        workflow_type: str,
        version: str,
        runs: int,
        loaded: Sequence[str] = (),
        reason: str = "",
    ) -> None:
        super().__init__(workflow_type, version, runs, tuple(loaded), reason)
        self.workflow_type, self.version, self.runs = workflow_type, version, runs
        self.loaded, self.reason = tuple(loaded), reason

    def __str__(self) -> str:
        who = (
            f"{self.runs} open run(s) of {self.workflow_type!r} need version {_shown(self.version)!r}"
            if self.runs
            else f"new runs of {self.workflow_type!r} take {_shown(self.version)!r}"
        )
        loaded = ", ".join(map(_shown, self.loaded)) or "none"
        is_package = len(self.version) == _HASH_DIGITS
        remedy = (
            "load its package with catalog.load_package"
            if is_package
            else f"register it with @workflow(version={self.version!r})"
        )
        reason = f"; it could not be loaded: {self.reason}" if self.reason else ""
        return f"{who}, which is not loaded (loaded: {loaded}){reason}; {remedy}"


_HASH_DIGITS = 64
"""Length of a package's version: a SHA-256 in hexadecimal digits."""


def _shown(version: str) -> str:
    """Return a version as people are shown it: of a content hash the beginning is enough."""
    return f"{version[:12]}…" if len(version) == _HASH_DIGITS else version


class EngineClosedError(OperationalError):
    """The engine is shutting down and takes no more commands; what it had accepted is safe."""

    code = "engine_closed"

    def __init__(self) -> None:
        super().__init__()

    def __str__(self) -> str:
        return "the engine is closed"


class WaitTimeoutError(OperationalError, TimeoutError):
    """What was waited for did not happen within the given time; it may still happen."""

    code = "wait_timeout"

    def __init__(self, what: str, seconds: float) -> None:
        super().__init__(what, seconds)
        self.what, self.seconds = what, seconds

    def __str__(self) -> str:
        return f"{self.what}: not within {self.seconds:g} s"


# ------------------------------------------------------------------------------ how a run ended


class WorkflowOutcomeError(AionError):
    """The run closed without a result."""

    code = "workflow_outcome"

    def __init__(self, workflow_id: str, run_id: str) -> None:
        super().__init__(workflow_id, run_id)
        self.workflow_id, self.run_id = workflow_id, run_id

    def __str__(self) -> str:
        return f"run {self.run_id} of workflow {self.workflow_id!r} closed without a result"


class WorkflowFailedError(WorkflowOutcomeError):
    """The run's code raised.

    Attributes:
        type: Class name of what was raised.
        message: Its text.
        details: What it carried, as plain JSON values.
        traceback: Where it was raised, if it was recorded.
    """

    code = "workflow_failed"

    def __init__(
        self,
        workflow_id: str,
        run_id: str,
        type: str,
        message: str,
        details: Any = None,
        traceback: str | None = None,
    ) -> None:
        super().__init__(workflow_id, run_id)
        self.args = (workflow_id, run_id, type, message, details, traceback)
        self.type, self.message, self.details, self.traceback = type, message, details, traceback

    def __str__(self) -> str:
        return f"workflow {self.workflow_id!r} failed: {self.type}: {self.message}"


class WorkflowCancelledError(WorkflowOutcomeError):
    """The run ended as Cancelled."""

    code = "workflow_cancelled"

    def __init__(self, workflow_id: str, run_id: str, reason: str) -> None:
        super().__init__(workflow_id, run_id)
        self.args = (workflow_id, run_id, reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"workflow {self.workflow_id!r} was cancelled: {self.reason}"


class WorkflowTerminatedError(WorkflowOutcomeError):
    """The run was terminated from outside, without asking its code."""

    code = "workflow_terminated"

    def __init__(self, workflow_id: str, run_id: str, reason: str) -> None:
        super().__init__(workflow_id, run_id)
        self.args = (workflow_id, run_id, reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"workflow {self.workflow_id!r} was terminated: {self.reason}"


class WorkflowTimedOutError(WorkflowOutcomeError):
    """The run, or its chain, was open for longer than allowed."""

    code = "workflow_timed_out"

    def __init__(self, workflow_id: str, run_id: str, timeout: str) -> None:
        super().__init__(workflow_id, run_id)
        self.args = (workflow_id, run_id, timeout)
        self.timeout = timeout

    def __str__(self) -> str:
        return f"workflow {self.workflow_id!r} timed out: {self.timeout} timeout"


# ------------------------------------------------------------------------------ in user's code


class ActivityError(AionError):
    """An activity failed for good: not retryable, or its attempts are used up.

    Attributes:
        type: Class name of the last attempt's error. Replay matches on this and `details`, never on text.
        message: Its text.
        details: What `RetryableError` or `NonRetryableError` carried, as plain JSON values.
        attempts: How many attempts were made, from 1.
    """

    code = "activity"

    def __init__(
        self, activity_type: str, type: str, message: str, details: Any = None, attempts: int = 1
    ) -> None:
        super().__init__(activity_type, type, message, details, attempts)
        self.activity_type, self.type, self.message = activity_type, type, message
        self.details, self.attempts = details, attempts

    def __str__(self) -> str:
        tries = "1 attempt" if self.attempts == 1 else f"{self.attempts} attempts"
        return f"activity {self.activity_type!r} failed after {tries}: {self.type}: {self.message}"


class ChildWorkflowError(AionError):
    """A child ended without a result.

    Attributes:
        workflow_type: Of the child.
        child_workflow_id: Its id.
        type: Class name of what its code raised; `WorkflowCancelled`, `WorkflowTerminated` or
            `WorkflowTimedOut` for a child that ended so; `WorkflowAlreadyStartedError` if its id is taken.
        message: The text of that.
        details: What the error carried, as plain JSON values.
    """

    code = "child_workflow"

    def __init__(
        self,
        workflow_type: str,
        child_workflow_id: str,
        type: str,
        message: str,
        details: Any = None,
    ) -> None:
        super().__init__(workflow_type, child_workflow_id, type, message, details)
        self.workflow_type, self.child_workflow_id = workflow_type, child_workflow_id
        self.type, self.message, self.details = type, message, details

    def __str__(self) -> str:
        return (
            f"child workflow {self.child_workflow_id!r} of type {self.workflow_type!r} "
            f"ended with {self.type}: {self.message}"
        )


class SignalDeliveryError(AionError):
    """A signal to another workflow could not be delivered: there is no such workflow, or it is closed.

    Attributes:
        target_workflow_id: Whom it was for.
        signal: Name of its channel.
        reason: Why it was refused.
    """

    code = "signal_delivery"

    def __init__(self, target_workflow_id: str, signal: str, reason: str) -> None:
        super().__init__(target_workflow_id, signal, reason)
        self.target_workflow_id, self.signal, self.reason = target_workflow_id, signal, reason

    def __str__(self) -> str:
        return f"signal {self.signal!r} to {self.target_workflow_id!r}: {self.reason}"


class ApplicationError(AionError):
    """Raised by user code to say how a failure is to be taken."""

    code = "application"

    def __init__(self, message: str = "", details: Any = None) -> None:
        super().__init__(message, details)
        self.message, self.details = message, details

    def __str__(self) -> str:
        return self.message


class RetryableError(ApplicationError):
    """Try the activity again, as its retry policy says."""

    code = "retryable"


class NonRetryableError(ApplicationError):
    """Do not try the activity again, whatever its retry policy says."""

    code = "non_retryable"


# ------------------------------------------------------------------------------------ our bugs


class InternalError(AionError):
    """aion-es broke a promise to itself. Please report it, with the text."""

    code = "internal"

    def __init__(self, what: str, at: datetime | None = None) -> None:
        super().__init__(what, at)
        self.what, self.at = what, at

    def __str__(self) -> str:
        return f"internal error, please report: {self.what}"

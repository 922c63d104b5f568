"""Refusals: the command was not allowed, nothing was written, and asking again changes nothing."""

from collections.abc import Sequence

from aion_es.errors.base import AionError, shown_version


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
            f"{named('child', 'children', self.children)}; await their ends first, "
            'of what is cancelled too, with cancellation="wait"'
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
        return f"page token {str(self.token)[:24]!r}: {self.reason}"


class PackageError(DomainError):
    """A package of code cannot be loaded; says from where, and what is wrong with it."""

    code = "package"

    def __init__(self, package: str, reason: str) -> None:
        super().__init__(package, reason)
        self.package, self.reason = package, reason

    def __str__(self) -> str:
        return f"package {shown_version(self.package)}: {self.reason}"


class PackageNotFoundError(DomainError):
    """No package of this version is loaded; lists those that are."""

    code = "package_not_found"

    def __init__(self, version: str, loaded: Sequence[str] = ()) -> None:
        super().__init__(version, tuple(loaded))
        self.version, self.loaded = version, tuple(loaded)

    def __str__(self) -> str:
        loaded = ", ".join(map(shown_version, self.loaded)) or "none"
        return f"no package {shown_version(self.version)} is loaded (loaded: {loaded})"


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
            f"package {shown_version(self.version)} is needed by {self.runs} open run(s) and {self.children} child(ren) "
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

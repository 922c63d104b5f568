"""Failures outside: something is in the way; mend it or wait, then try again."""

from collections.abc import Sequence

from aion_es.errors.base import HASH_DIGITS, AionError, shown_version


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
            f"{self.runs} open run(s) of {self.workflow_type!r} need version {shown_version(self.version)!r}"
            if self.runs
            else f"new runs of {self.workflow_type!r} take {shown_version(self.version)!r}"
        )
        return f"{who}, {self.remedy}"

    @property
    def remedy(self) -> str:
        """What is loaded instead, and what to do: the end of a sentence that names the version."""
        loaded = ", ".join(map(shown_version, self.loaded)) or "none"
        is_package = len(self.version) == HASH_DIGITS
        to_do = (
            "load its package with catalog.load_package"
            if is_package
            else f"register it with @workflow(version={self.version!r})"
        )
        reason = f"; it could not be loaded: {self.reason}" if self.reason else ""
        return f"which is not loaded (loaded: {loaded}){reason}; {to_do}"


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

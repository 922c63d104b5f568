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

from aion_es.errors.base import (
    AionError,
    InternalError,
)
from aion_es.errors.endings import (
    ActivityError,
    ApplicationError,
    ChildWorkflowError,
    NonRetryableError,
    RetryableError,
    SignalDeliveryError,
    WorkflowCancelledError,
    WorkflowFailedError,
    WorkflowOutcomeError,
    WorkflowTerminatedError,
    WorkflowTimedOutError,
)
from aion_es.errors.outside import (
    AccessDeniedError,
    AppendTooLargeError,
    ConcurrencyConflictError,
    ConsumerGroupExistsError,
    ConsumerGroupNotFoundError,
    EngineClosedError,
    EventDecodeError,
    NonDeterminismError,
    OperationalError,
    ProjectionLagError,
    StoreClosedError,
    StoreCorruptError,
    StoreError,
    StoreUnavailableError,
    StreamDeletedError,
    SubscriptionDroppedError,
    UnknownEventTypeError,
    UnknownStoreURLError,
    UnsupportedStoreVersionError,
    VersionNotLoadedError,
    WaitTimeoutError,
)
from aion_es.errors.refusals import (
    ActivityNotFoundError,
    ActivityTypeNotFoundError,
    AttributeTypeError,
    ChildAlreadyStartedError,
    ChildNotFoundError,
    ConflictingAttributeTypeError,
    ContinueAsNewError,
    DefinitionError,
    DomainError,
    FilterSyntaxError,
    InvalidArgumentError,
    InvalidIdError,
    InvalidPageTokenError,
    InvalidStateError,
    PackageError,
    PackageNotFoundError,
    PayloadError,
    PayloadTooLargeError,
    PendingWorkError,
    QueryFailedError,
    QueryNotFoundError,
    RunClosedError,
    RunNotFoundError,
    ScheduleAlreadyExistsError,
    ScheduleNotFoundError,
    SchedulePausedError,
    ScheduleSpecError,
    StaleAttemptError,
    TimerAlreadyStartedError,
    TimerNotStartedError,
    UnregisteredAttributeError,
    VersionPinnedError,
    WorkflowAlreadyStartedError,
    WorkflowNotFoundError,
    WorkflowSandboxError,
    WorkflowTypeNotFoundError,
)

__all__ = [
    "AccessDeniedError",
    "ActivityError",
    "ActivityNotFoundError",
    "ActivityTypeNotFoundError",
    "AionError",
    "AppendTooLargeError",
    "ApplicationError",
    "AttributeTypeError",
    "ChildAlreadyStartedError",
    "ChildNotFoundError",
    "ChildWorkflowError",
    "ConcurrencyConflictError",
    "ConflictingAttributeTypeError",
    "ConsumerGroupExistsError",
    "ConsumerGroupNotFoundError",
    "ContinueAsNewError",
    "DefinitionError",
    "DomainError",
    "EngineClosedError",
    "EventDecodeError",
    "FilterSyntaxError",
    "InternalError",
    "InvalidArgumentError",
    "InvalidIdError",
    "InvalidPageTokenError",
    "InvalidStateError",
    "NonDeterminismError",
    "NonRetryableError",
    "OperationalError",
    "PackageError",
    "PackageNotFoundError",
    "PayloadError",
    "PayloadTooLargeError",
    "PendingWorkError",
    "ProjectionLagError",
    "QueryFailedError",
    "QueryNotFoundError",
    "RetryableError",
    "RunClosedError",
    "RunNotFoundError",
    "ScheduleAlreadyExistsError",
    "ScheduleNotFoundError",
    "SchedulePausedError",
    "ScheduleSpecError",
    "SignalDeliveryError",
    "StaleAttemptError",
    "StoreClosedError",
    "StoreCorruptError",
    "StoreError",
    "StoreUnavailableError",
    "StreamDeletedError",
    "SubscriptionDroppedError",
    "TimerAlreadyStartedError",
    "TimerNotStartedError",
    "UnknownEventTypeError",
    "UnknownStoreURLError",
    "UnregisteredAttributeError",
    "UnsupportedStoreVersionError",
    "VersionNotLoadedError",
    "VersionPinnedError",
    "WaitTimeoutError",
    "WorkflowAlreadyStartedError",
    "WorkflowCancelledError",
    "WorkflowFailedError",
    "WorkflowNotFoundError",
    "WorkflowOutcomeError",
    "WorkflowSandboxError",
    "WorkflowTerminatedError",
    "WorkflowTimedOutError",
    "WorkflowTypeNotFoundError",
]

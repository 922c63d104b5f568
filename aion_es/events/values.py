"""Values that events carry: failures, retry policies, timeouts, typed search attributes, carried signals."""

import math
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field, NonNegativeInt

from aion_es.events.base import RecordedModel
from aion_es.ids import ActivityId, RunId, SignalId, TimerId, WorkflowId
from aion_es.payload import Payload

AttributeType: TypeAlias = Literal["String", "Int", "Float", "Bool", "Datetime", "KeywordList"]


class AttributeValue(RecordedModel):
    """A search attribute's value together with its type.

    Attributes:
        type: The registered type.
        value: String: text; Int: 64-bit; Float: finite; Bool; Datetime: ISO 8601 text in UTC with microseconds
            (`2026-11-24T09:30:00.000000Z`, so that text order is time order); KeywordList: list of text.
    """

    type: AttributeType
    value: bool | int | Annotated[float, Field(allow_inf_nan=False)] | str | tuple[str, ...]


AttributeUpdate: TypeAlias = AttributeValue | None
"""A new value, or `None` to remove the attribute."""


class Failure(RecordedModel):
    """Why something failed. Only `type` and `details` are ever compared, never text or traceback.

    Attributes:
        type: Class name of the exception.
        message: Its text.
        details: Plain JSON values that it carried.
        cause: What it was raised from.
        traceback: Where it was raised.
    """

    type: str
    message: str = ""
    details: Any = None
    cause: "Failure | None" = None
    traceback: str | None = None


class ActivityFailure(RecordedModel):
    """Why one attempt failed, and whether another could help.

    Attributes:
        kind: `retryable` or `terminal`, as the error itself says; the policy may still end the attempts.
    """

    kind: Literal["retryable", "terminal"]
    type: str
    message: str = ""
    details: Any = None


def _error_name(error: object) -> object:
    if not isinstance(error, type):
        return error  # a name, or something that the str behind this refuses
    if not issubclass(error, BaseException):
        raise ValueError(f"{error.__name__} is not an exception class")  # noqa: TRY004 - pydantic's
    return error.__name__


_ErrorName: TypeAlias = Annotated[str, Field(min_length=1), BeforeValidator(_error_name)]


class RetryPolicy(RecordedModel):
    """How often and when a failed activity is tried again.

    The n-th retry comes `min(initial_interval * backoff ** (n - 1), max_interval)` after the failure.

    Attributes:
        initial_interval: Before the first retry. Default 1 s.
        backoff: Factor from one retry to the next, at least 1 and finite. Default 2.
        max_interval: Upper bound. Default 100 s.
        max_attempts: In all, the first included; `None` for no bound.
        non_retryable: Names of error types that end the attempts at once. Exception classes are taken too
            and recorded by name.

    Raises:
        pydantic.ValidationError: A negative interval, a `backoff` under 1, a `max_attempts` under 1, or
            something in `non_retryable` that is neither a name nor an exception class.
    """

    initial_interval: Annotated[timedelta, Field(ge=timedelta(0))] = timedelta(seconds=1)
    backoff: Annotated[float, Field(ge=1.0, allow_inf_nan=False)] = 2.0
    max_interval: Annotated[timedelta, Field(ge=timedelta(0))] = timedelta(seconds=100)
    max_attempts: Annotated[int, Field(ge=1)] | None = None
    non_retryable: tuple[_ErrorName, ...] = ()

    if TYPE_CHECKING:
        # What may be written in code is wider than what is recorded. A real __init__ would be called
        # for every policy that is decoded, which would halve the speed of ActivityScheduled.
        def __init__(
            self,
            *,
            initial_interval: timedelta = ...,
            backoff: float = ...,
            max_interval: timedelta = ...,
            max_attempts: int | None = ...,
            non_retryable: Sequence[str | type[BaseException]] = ...,
        ) -> None: ...

    def delay_after(self, attempt: int) -> timedelta:
        """Return how long to wait after attempt number `attempt` (from 1) failed."""
        seconds = self.initial_interval.total_seconds()
        try:
            seconds *= self.backoff ** (attempt - 1)
        except OverflowError:  # past the largest float, and so past any maximum
            seconds *= math.inf if seconds else 1
        if seconds >= self.max_interval.total_seconds():
            return self.max_interval
        return timedelta(seconds=seconds)


class ActivityTimeouts(RecordedModel):
    """Bounds on an activity; `None` for none.

    Attributes:
        schedule_to_start: From scheduling to the start of an attempt.
        start_to_close: Of one attempt.
        schedule_to_close: Over all attempts.
    """

    schedule_to_start: timedelta | None = None
    start_to_close: timedelta | None = None
    schedule_to_close: timedelta | None = None


class WorkflowRef(RecordedModel):
    """One run of one workflow."""

    workflow_id: WorkflowId
    run_id: RunId


class SignalMessage(RecordedModel):
    """A message for a workflow: as it is sent, as it is received, and as it is carried into the next run unread."""

    signal_id: SignalId
    name: str
    payload: Payload
    sender: WorkflowRef | None = None


ParentClose: TypeAlias = Literal["cancel", "terminate", "abandon"]
"""What happens to a child when its parent ends."""


class TakenBack(RecordedModel):
    """What a reopening makes void: all that the run's code did from one event on.

    Attributes:
        since: How many of the run's events stand. Of the others those do that came from outside and concern
            what the code had asked for before.
        activities: Scheduled in what is void, and neither completed nor cancelled: they are not run again.
        timers: Armed in what is void, and live when the run ended: they are not armed again.
        children: Started in what is void, and without an outcome: nobody waits for them.
        awaited: Started before, and ended without a result in what is void: their end is waited for again.
    """

    since: NonNegativeInt
    activities: tuple[ActivityId, ...] = ()
    timers: tuple[TimerId, ...] = ()
    children: tuple[WorkflowId, ...] = ()
    awaited: tuple[WorkflowId, ...] = ()

"""The models that events are made of: frozen, bounded, and retry policies in particular."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from aion_es.errors import EventDecodeError
from aion_es.events.base import Event
from aion_es.events.values import (
    ActivityFailure,
    ActivityTimeouts,
    AttributeValue,
    Failure,
    RetryPolicy,
)
from aion_es.events.workflow import ActivityStarted, TimerStarted
from aion_es.ids import ActivityId, TimerId
from aion_es.payload import Payload
from tests.golden.events.samples import APPROVAL, FULL, PARENT

# -------------------------------------------------------------------------------------- models


@pytest.mark.parametrize("event", FULL, ids=lambda event: type(event).__name__)
def test_an_event_cannot_be_changed(event: Event) -> None:
    for name in type(event).model_fields:
        with pytest.raises(ValidationError, match="Instance is frozen"):
            setattr(event, name, getattr(event, name))


@pytest.mark.parametrize(
    "value",
    [
        ActivityFailure(kind="terminal", type="E"),
        ActivityTimeouts(),
        AttributeValue(type="Int", value=1),
        Failure(type="E"),
        RetryPolicy(),
        APPROVAL,
        PARENT,
        Payload(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_inside_an_event_cannot_be_changed(value: BaseModel) -> None:
    for name in type(value).model_fields:
        with pytest.raises(ValidationError, match="Instance is frozen"):
            setattr(value, name, getattr(value, name))


@pytest.mark.parametrize("attempt", [0, -1])
def test_attempts_are_counted_from_one(attempt: int) -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        ActivityStarted(activity_id=ActivityId(0), attempt=attempt)


def test_an_instant_without_an_offset_is_refused() -> None:
    with pytest.raises(ValidationError, match="should have timezone info"):
        TimerStarted(timer_id=TimerId("1"), fire_at=datetime(2026, 11, 24))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_search_attribute_that_json_cannot_write_is_refused(value: float) -> None:
    with pytest.raises(ValidationError):
        AttributeValue(type="Float", value=value)


# ------------------------------------------------------------------------------- retry policies


def test_a_retry_policy_takes_exception_classes_and_names() -> None:
    policy = RetryPolicy(non_retryable=(ValueError, "CardRefused", EventDecodeError))
    assert policy.non_retryable == ("ValueError", "CardRefused", "EventDecodeError")


@pytest.mark.parametrize("bad", [(int,), (3,), ("",), (None,), (ValueError("x"),), "ValueError"])
def test_a_retry_policy_refuses_what_is_neither_a_name_nor_an_exception_class(bad: Any) -> None:
    with pytest.raises(ValidationError, match="non_retryable"):
        RetryPolicy(non_retryable=bad)


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        ("initial_interval", timedelta(microseconds=-1)),
        ("max_interval", timedelta(microseconds=-1)),
        ("backoff", 0.99),
        ("backoff", -2.0),
        ("backoff", float("nan")),
        ("backoff", float("inf")),
        ("max_attempts", 0),
        ("max_attempts", -1),
    ],
)
def test_a_retry_policy_refuses_nonsense(field: str, bad: Any) -> None:
    with pytest.raises(ValidationError, match=field):
        RetryPolicy(**{field: bad})


def test_retries_wait_exponentially_longer_up_to_the_maximum() -> None:
    policy = RetryPolicy(
        initial_interval=timedelta(seconds=2), backoff=3, max_interval=timedelta(minutes=1)
    )
    assert [policy.delay_after(attempt).total_seconds() for attempt in (1, 2, 3, 4, 5)] == [
        2,
        6,
        18,
        54,
        60,
    ]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (RetryPolicy(), timedelta(seconds=100)),
        (RetryPolicy(backoff=1e300), timedelta(seconds=100)),
        (RetryPolicy(backoff=1e300, max_interval=timedelta.max), timedelta.max),
        (RetryPolicy(backoff=1e300, initial_interval=timedelta(0)), timedelta(0)),
        (RetryPolicy(backoff=1), timedelta(seconds=1)),
    ],
)
def test_the_wait_after_very_many_attempts_is_still_a_wait(
    policy: RetryPolicy, expected: timedelta
) -> None:
    assert policy.delay_after(100_000) == expected

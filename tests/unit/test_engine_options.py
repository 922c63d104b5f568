"""Options of an engine that make no sense are refused where they are written."""

from datetime import timedelta
from typing import Any

import pytest

from aion_es import EngineOptions
from aion_es.engine.supervision import RestartPolicy
from aion_es.errors import InvalidArgumentError

NEVER: dict[str, tuple[dict[str, Any], str, str]] = {
    "negative memory": (
        {"max_resident": -1},
        "max_resident",
        "must be a whole number, 0 or more, got -1",
    ),
    "no activity": (
        {"max_activities": 0},
        "max_activities",
        "must be a whole number, 1 or more, got 0",
    ),
    "part of an activity": (
        {"max_activities": 1.5},
        "max_activities",
        "must be a whole number, 1 or more, got 1.5",
    ),
    "no place": (
        {"max_concurrent_runs": {"order": 1, "gated": 0}},
        "max_concurrent_runs['gated']",
        "must be a whole number, 1 or more, got 0",
    ),
    "a truth for a place": (
        {"max_concurrent_runs": {"gated": True}},
        "max_concurrent_runs['gated']",
        "must be a whole number, 1 or more, got True",
    ),
    "negative threshold": (
        {"collector_threshold": -1},
        "collector_threshold",
        "must be a whole number, 0 or more, got -1",
    ),
    "negative grace": (
        {"shutdown_grace": timedelta(seconds=-1)},
        "shutdown_grace",
        "must be zero or more, got -1 day, 23:59:59",
    ),
    "negative patience": (
        {"store_patience": timedelta(seconds=-1)},
        "store_patience",
        "must be zero or more, got -1 day, 23:59:59",
    ),
    "no time for an attempt": (
        {"start_to_close": timedelta(0)},
        "start_to_close",
        "must be more than zero, got 0:00:00",
    ),
    "no time for a step": (
        {"max_step": timedelta(0)},
        "max_step",
        "must be more than zero, got 0:00:00",
    ),
    "a step of seconds": ({"max_step": 2.0}, "max_step", "must be a timedelta, got 2.0"),
    "a step of millennia": (
        {"max_step": timedelta(days=10**6)},
        "max_step",
        "must be 36,525 days or less, got 1000000 days, 0:00:00",
    ),
    "a name for queues": (
        {"serves": "mail"},
        "serves",
        "must be a set of task queues, got 'mail'",
    ),
}


@pytest.mark.parametrize(("options", "argument", "reason"), NEVER.values(), ids=NEVER)
def test_an_option_with_which_nothing_would_run_or_end_is_refused(
    options: dict[str, Any], argument: str, reason: str
) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        EngineOptions(**options)
    assert (refused.value.argument, refused.value.reason) == (argument, reason)


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"first": timedelta(0)}, "restarts.first"),
        ({"first": timedelta(seconds=-5)}, "restarts.first"),
        ({"longest": timedelta(0)}, "restarts.longest"),
        ({"longest": timedelta(days=999_999)}, "restarts.longest"),
        ({"period": timedelta(0)}, "restarts.period"),
        ({"max_restarts": -1}, "restarts.max_restarts"),
        ({"max_restarts": 0.5}, "restarts.max_restarts"),
    ],
    ids=["first 0", "first below 0", "longest 0", "longest", "period", "below 0", "half"],
)
def test_restarts_without_a_pause_are_refused(options: dict[str, Any], argument: str) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        RestartPolicy(**options)
    assert refused.value.argument == argument


def test_what_is_unusual_and_has_a_meaning_is_taken() -> None:
    nothing = timedelta(0)
    options = EngineOptions(
        max_resident=0,
        collector_threshold=0,
        shutdown_grace=nothing,
        store_patience=nothing,
        max_step=None,
        serves=frozenset(),
        restarts=RestartPolicy(max_restarts=0),
    )
    assert (options.max_resident, options.restarts.max_restarts) == (0, 0)


def test_waits_double_up_to_the_longest_however_long_the_first() -> None:
    century = timedelta(days=36_525)
    policy = RestartPolicy(first=timedelta(seconds=3), longest=timedelta(seconds=20))
    assert [policy.wait(n).total_seconds() for n in range(5)] == [3, 6, 12, 20, 20]
    assert RestartPolicy(first=century, longest=century).wait(16) == century
    assert RestartPolicy(first=timedelta(minutes=5)).wait(0) == timedelta(minutes=1)

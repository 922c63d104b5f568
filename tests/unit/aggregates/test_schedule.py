"""The schedule aggregate."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from aion_es.aggregates import Schedule
from aion_es.errors import (
    DomainError,
    InvalidArgumentError,
    InvalidIdError,
    ScheduleAlreadyExistsError,
    ScheduleNotFoundError,
    SchedulePausedError,
    ScheduleSpecError,
)
from aion_es.events import schedule as ev
from aion_es.ids import RunId, ScheduleId, WorkflowId
from aion_es.testing.aggregates import given_schedule
from tests.unit.aggregates.histories import HOUR, NOON

Command = Callable[[Schedule], object]
CONFIG: dict[str, Any] = {"spec": {"cron": "0 3 * * *"}, "action": {"workflow_type": "report"}}
DAILY: dict[str, Any] = {**CONFIG, "spec": {"cron": "@daily"}}
CREATED = ev.ScheduleCreated(config=CONFIG)
PAUSED = ev.SchedulePaused(reason="holiday")
DELETED = ev.ScheduleDeleted()
WORKFLOW = WorkflowId("nightly-20261124T120000Z")
TRIGGERED = ev.ScheduleTriggered(scheduled_for=NOON, workflow_id=WORKFLOW, run_id=RunId("r1"))
SKIPPED = ev.ScheduleSkipped(scheduled_for=NOON, reason="overlap")

COMMANDS: dict[str, Command] = {
    "update": lambda s: s.update(DAILY, at=NOON),
    "pause": lambda s: s.pause(at=NOON),
    "resume": lambda s: s.resume(at=NOON),
    "delete": lambda s: s.delete(at=NOON),
    "trigger": lambda s: s.trigger(NOON, WORKFLOW, RunId("r1"), at=NOON),
    "skip": lambda s: s.skip(NOON, "overlap", at=NOON),
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_an_unknown_or_deleted_schedule_takes_no_command_but_create(command: Command) -> None:
    given_schedule().when(command).then_refused(ScheduleNotFoundError, schedule_id="nightly")
    given_schedule(CREATED, DELETED).when(command).then_refused(ScheduleNotFoundError)


def test_a_schedule_is_created_once() -> None:
    given_schedule().when(lambda s: s.create(CONFIG, at=NOON)).then(CREATED)
    given_schedule(CREATED).when(lambda s: s.create(CONFIG, at=NOON)).then_refused(
        ScheduleAlreadyExistsError, schedule_id="nightly"
    )


def test_the_id_of_a_deleted_schedule_may_be_taken_again() -> None:
    outcome = (
        given_schedule(CREATED, TRIGGERED, DELETED)
        .when(lambda s: s.create(CONFIG, at=NOON))
        .then(CREATED)
    )
    state = outcome.aggregate.state
    assert (state.actions, state.open, state.decided_until) == (0, [], NOON)


def test_a_configuration_that_is_not_plain_json_is_refused() -> None:
    given_schedule().when(lambda s: s.create({"x": float("nan")}, at=NOON)).then_refused(
        InvalidArgumentError, argument="config"
    )
    given_schedule(CREATED).when(lambda s: s.update({"x": object()}, at=NOON)).then_refused(
        InvalidArgumentError, argument="config"
    )


@pytest.mark.parametrize(
    ("config", "error", "fields"),
    [
        pytest.param(
            {**CONFIG, "spec": {"cron": "0 25 * * *"}},
            ScheduleSpecError,
            {"spec": "0 25 * * *", "position": 2},
            id="cron",
        ),
        pytest.param(
            {**CONFIG, "spec": {"cron": "0 3 * * *", "tz": "Europe/Wien"}},
            ScheduleSpecError,
            {"spec": "Europe/Wien", "position": 7},
            id="time zone",
        ),
        pytest.param(
            {**CONFIG, "overlap": "wait"}, InvalidArgumentError, {"argument": "config"}, id="policy"
        ),
        pytest.param(
            {**CONFIG, "catch_up_window": "-PT1S"},
            InvalidArgumentError,
            {"argument": "catch_up_window"},
            id="window",
        ),
        pytest.param({"spec": {}}, InvalidArgumentError, {"argument": "config"}, id="no action"),
    ],
)
def test_a_configuration_that_is_not_understood_is_refused_at_create_and_update(
    config: dict[str, Any], error: type[DomainError], fields: dict[str, object]
) -> None:
    given_schedule().when(lambda s: s.create(config, at=NOON)).then_refused(error, **fields)
    given_schedule(CREATED).when(lambda s: s.update(config, at=NOON)).then_refused(error, **fields)


def test_an_update_replaces_the_configuration_once() -> None:
    given_schedule(CREATED).when(COMMANDS["update"]).then(ev.ScheduleUpdated(config=DAILY))
    given_schedule(CREATED).when(lambda s: s.update(CONFIG, at=NOON)).then_nothing()


def test_a_schedule_is_paused_once_and_resumed_once() -> None:
    given_schedule(CREATED).when(lambda s: s.pause("holiday", at=NOON)).then(PAUSED)
    given_schedule(CREATED, PAUSED).when(COMMANDS["pause"]).then_nothing()
    given_schedule(CREATED, PAUSED).when(COMMANDS["resume"]).then(ev.ScheduleResumed())
    given_schedule(CREATED).when(COMMANDS["resume"]).then_nothing()


def test_a_schedule_is_deleted() -> None:
    given_schedule(CREATED).when(COMMANDS["delete"]).then(DELETED)


def test_a_due_time_is_decided_once() -> None:
    given_schedule(CREATED).when(COMMANDS["trigger"]).then(TRIGGERED)
    given_schedule(CREATED).when(COMMANDS["skip"]).then(SKIPPED)
    for decided in (TRIGGERED, SKIPPED):
        given_schedule(CREATED, decided).when(COMMANDS["trigger"]).then_nothing()
        given_schedule(CREATED, decided).when(COMMANDS["skip"]).then_nothing()


def test_a_due_time_before_the_last_decided_one_is_decided() -> None:
    given_schedule(CREATED, TRIGGERED).when(
        lambda s: s.trigger(NOON - HOUR, WORKFLOW, RunId("r2"), at=NOON)
    ).then_nothing()


def test_an_action_that_is_asked_for_is_taken_once_whatever_is_decided() -> None:
    asked = TRIGGERED.model_copy(update={"manual": True})
    given_schedule(CREATED, SKIPPED).when(
        lambda s: s.trigger(NOON, WORKFLOW, RunId("r1"), True, at=NOON)
    ).then(asked)
    given_schedule(CREATED, asked).when(
        lambda s: s.trigger(NOON, WORKFLOW, RunId("r2"), True, at=NOON)
    ).then_nothing()


def test_a_paused_schedule_takes_only_the_actions_that_are_asked_for() -> None:
    given_schedule(CREATED, PAUSED).when(COMMANDS["trigger"]).then_refused(
        SchedulePausedError, schedule_id="nightly"
    )
    given_schedule(CREATED, PAUSED).when(
        lambda s: s.trigger(NOON, WORKFLOW, RunId("r1"), True, at=NOON)
    ).then(TRIGGERED.model_copy(update={"manual": True}))


@pytest.mark.parametrize("command", ["trigger", "skip"])
def test_a_due_time_is_an_instant_in_utc(command: str) -> None:
    naive = datetime(2026, 11, 24, 12, 0)
    commands: dict[str, Command] = {
        "trigger": lambda s: s.trigger(naive, WORKFLOW, RunId("r1"), at=NOON),
        "skip": lambda s: s.skip(naive, "catch_up", at=NOON),
    }
    given_schedule(CREATED).when(commands[command]).then_refused(
        InvalidArgumentError, argument="scheduled_for"
    )


def test_a_naive_present_is_refused() -> None:
    given_schedule(CREATED).when(lambda s: s.delete(at=datetime(2026, 11, 24))).then_refused(
        InvalidArgumentError, argument="at"
    )


def test_an_id_that_cannot_be_recorded_is_refused() -> None:
    with pytest.raises(InvalidIdError):
        Schedule(ScheduleId(""))
    with pytest.raises(InvalidIdError):
        Schedule(ScheduleId("x" * 231))


def test_history_without_its_beginning_is_not_refused() -> None:
    assert given_schedule(TRIGGERED, PAUSED).aggregate.state.paused

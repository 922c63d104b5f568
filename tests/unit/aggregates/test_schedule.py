"""The schedule aggregate."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from aion_es.aggregates import Schedule
from aion_es.errors import (
    InvalidArgumentError,
    InvalidIdError,
    ScheduleAlreadyExistsError,
    ScheduleNotFoundError,
    SchedulePausedError,
)
from aion_es.events import schedule as ev
from aion_es.ids import RunId, ScheduleId, WorkflowId
from aion_es.testing.aggregates import given_schedule
from tests.unit.aggregates.histories import HOUR, NOON

Command = Callable[[Schedule], object]
CONFIG: dict[str, Any] = {"cron": "0 3 * * *"}
CREATED = ev.ScheduleCreated(config=CONFIG)
PAUSED = ev.SchedulePaused(reason="holiday")
DELETED = ev.ScheduleDeleted()
WORKFLOW = WorkflowId("nightly-20261124T120000Z")
TRIGGERED = ev.ScheduleTriggered(scheduled_for=NOON, workflow_id=WORKFLOW, run_id=RunId("r1"))
SKIPPED = ev.ScheduleSkipped(scheduled_for=NOON, reason="overlap")

COMMANDS: dict[str, Command] = {
    "update": lambda s: s.update({"cron": "@daily"}, at=NOON),
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
    assert outcome.aggregate.state.decided == set()


def test_a_configuration_that_is_not_plain_json_is_refused() -> None:
    given_schedule().when(lambda s: s.create({"x": float("nan")}, at=NOON)).then_refused(
        InvalidArgumentError, argument="config"
    )
    given_schedule(CREATED).when(lambda s: s.update({"x": object()}, at=NOON)).then_refused(
        InvalidArgumentError, argument="config"
    )


def test_an_update_replaces_the_configuration_once() -> None:
    given_schedule(CREATED).when(COMMANDS["update"]).then(
        ev.ScheduleUpdated(config={"cron": "@daily"})
    )
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


def test_each_due_time_is_decided_on_its_own() -> None:
    outcome = given_schedule(CREATED, TRIGGERED).when(
        lambda s: s.trigger(NOON - HOUR, WORKFLOW, RunId("r2"), at=NOON)
    )
    assert outcome.aggregate.state.last_scheduled_for == NOON
    assert outcome.aggregate.state.actions == 2


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


def test_history_without_its_beginning_is_not_refused() -> None:
    assert given_schedule(TRIGGERED, PAUSED).aggregate.state.paused

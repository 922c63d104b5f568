"""The recorded form of a schedule's configuration: what one release writes, every later one reads."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from aion_es.events.values import AttributeValue
from aion_es.payload import Payload
from aion_es.schedules import Calendar, CatchUp, Cron, Interval, Overlap, Spec
from aion_es.schedules.config import ScheduleConfig, StartAction

FULL = ScheduleConfig(
    spec=Spec(
        [
            Cron("0 3 * * MON-FRI", tz="Europe/Vienna"),
            Interval(timedelta(hours=6), timedelta(minutes=5)),
            Calendar(month=["JAN", 7], day="1-7", day_of_week="SUN", hour=12),
        ],
        exclude=[Calendar(month=12, day=25)],
        start_at=datetime(2026, 11, 24, tzinfo=UTC),
        end_at=datetime(2036, 11, 24, tzinfo=UTC),
        jitter=timedelta(seconds=30),
        limit=1_000,
    ),
    action=StartAction(
        workflow_type="report",
        input=Payload.of({"day": "today", "pages": None}),
        task_queue="slow",
        attributes={"customer": AttributeValue(type="String", value="ada")},
        memo=Payload.of("nightly"),
        run_timeout=timedelta(hours=1),
        execution_timeout=timedelta(days=1),
    ),
    overlap=Overlap.CANCEL_PREVIOUS,
    catch_up=CatchUp.ALL,
    catch_up_window=timedelta(days=7),
)
MINIMAL = ScheduleConfig(spec=Spec(Cron("@daily")), action=StartAction(workflow_type="report"))

FULL_FORM = """
{"spec": {"times": [{"cron": "0 3 * * MON-FRI", "tz": "Europe/Vienna"},
                    {"every": "PT6H", "offset": "PT5M"},
                    {"year": null, "month": "JAN,7", "day": "1-7", "day_of_week": "SUN", "hour": "12",
                     "minute": null, "second": null, "tz": "UTC"}],
          "exclude": [{"year": null, "month": "12", "day": "25", "day_of_week": null, "hour": null,
                       "minute": null, "second": null, "tz": "UTC"}],
          "start_at": "2026-11-24T00:00:00Z", "end_at": "2036-11-24T00:00:00Z",
          "jitter": "PT30S", "limit": 1000},
 "action": {"workflow_type": "report",
            "input": {"content_type": "application/json", "data": {"day": "today", "pages": null},
                      "encoding": null},
            "task_queue": "slow",
            "attributes": {"customer": {"type": "String", "value": "ada"}},
            "memo": {"content_type": "application/json", "data": "nightly", "encoding": null},
            "run_timeout": "PT1H", "execution_timeout": "P1D"},
 "overlap": "cancel_previous", "catch_up": "all", "catch_up_window": "P7D"}
"""
MINIMAL_FORM = """
{"spec": {"times": [{"cron": "@daily", "tz": "UTC"}], "exclude": [], "start_at": null, "end_at": null,
          "jitter": "PT0S", "limit": null},
 "action": {"workflow_type": "report",
            "input": {"content_type": "application/json", "data": null, "encoding": null},
            "task_queue": null, "attributes": {}, "memo": null, "run_timeout": null,
            "execution_timeout": null},
 "overlap": "skip", "catch_up": "one", "catch_up_window": "P1Y"}
"""
both = pytest.mark.parametrize(
    ("config", "form"),
    [pytest.param(FULL, FULL_FORM, id="full"), pytest.param(MINIMAL, MINIMAL_FORM, id="minimal")],
)


@both
def test_a_configuration_is_written_in_exactly_this_form(config: ScheduleConfig, form: str) -> None:
    assert config.plain() == json.loads(form)


@both
def test_the_form_is_read_as_the_configuration(config: ScheduleConfig, form: str) -> None:
    assert ScheduleConfig.read(json.loads(form)) == config


def test_fields_of_a_newer_program_are_ignored() -> None:
    form = json.loads(MINIMAL_FORM)
    form["later"] = form["spec"]["later"] = form["spec"]["times"][0]["later"] = 1
    form["action"]["later"] = 1
    assert ScheduleConfig.read(form) == MINIMAL


def test_what_is_left_out_is_at_its_default() -> None:
    form = {"spec": {"cron": "@daily"}, "action": {"workflow_type": "report"}}
    assert ScheduleConfig.read(form) == MINIMAL

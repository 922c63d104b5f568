"""The workflow ids of scheduled actions: made of the schedule's id and the due time, so that each is started once."""

import re
from datetime import datetime
from typing import Final

from aion_es.errors import InvalidIdError
from aion_es.ids import ScheduleId, WorkflowId, check_id

LONGEST_ID: Final = 230
"""Characters that a schedule's id may have, so that the ids of its actions are ids."""

_ACTION = re.compile(r"(?P<schedule>.+)-\d{8}T\d{6}(?:\.\d{6})?Z")


def check_schedule_id(value: object) -> ScheduleId:
    """Return `value` if it can name a schedule.

    Raises:
        InvalidIdError: It is not 1–230 printable characters.
    """
    text = check_id("schedule_id", value)
    if len(text) > LONGEST_ID:
        shown = f"{text[:32]}…"
        reason = f"has {len(text)} characters; at most {LONGEST_ID} are allowed"
        raise InvalidIdError("schedule_id", shown, reason)
    return ScheduleId(text)


def action_id(schedule_id: ScheduleId, due: datetime) -> WorkflowId:
    """Return the workflow id of the action of a due time in UTC: `nightly-20261124T030000Z`.

    Due times have whole seconds. The time of an action that a person asks for has a fraction, so that it is
    never taken for one of them: `nightly-20261124T030000.000001Z`.
    """
    fraction = f".{due.microsecond:06}" if due.microsecond else ""
    # Not strftime: it pads no years before 1000, and costs more.
    day = f"{due.year:04}{due.month:02}{due.day:02}"
    return WorkflowId(f"{schedule_id}-{day}T{due.hour:02}{due.minute:02}{due.second:02}{fraction}Z")


def schedule_of(workflow_id: str) -> ScheduleId | None:
    """Return the id of the schedule whose action a workflow id looks like, if it looks like one."""
    if not workflow_id.endswith("Z"):
        return None
    found = _ACTION.fullmatch(workflow_id)
    return None if found is None else ScheduleId(found["schedule"])

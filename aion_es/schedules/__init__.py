"""When something is due, and what is to be done then: what an author of schedules writes with, all of it pure."""

from aion_es.schedules.calendar import Calendar
from aion_es.schedules.cron import Cron
from aion_es.schedules.definition import Schedule, Start
from aion_es.schedules.interval import Interval
from aion_es.schedules.policies import CatchUp, Overlap
from aion_es.schedules.spec import Spec
from aion_es.schedules.times import next_times, times_between

__all__ = [
    "Calendar",
    "CatchUp",
    "Cron",
    "Interval",
    "Overlap",
    "Schedule",
    "Spec",
    "Start",
    "next_times",
    "times_between",
]

"""The table of the `schedules` projection, and a schedule's row as a state that events change."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from pydantic import TypeAdapter
from pydantic_core import from_json, to_json
from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, MetaData, Table, text

from aion_es.aggregates.schedule_state import ScheduleState
from aion_es.events.schedule import WaitingAction
from aion_es.ids import ScheduleId
from aion_es.projections.bulk import Row
from aion_es.projections.columns import Text
from aion_es.projections.instants import from_micros, to_micros
from aion_es.schedules.config import ScheduleConfig

SCHEDULES: Final = Table(
    "schedules",
    MetaData(),
    Column("schedule_id", Text, primary_key=True),
    Column("workflow_type", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("paused", Boolean, nullable=False),
    Column("pause_reason", Text),
    Column("decided_until", BigInteger, nullable=False),
    Column("next_due_at", BigInteger),
    Column("fires_at", BigInteger),
    Column("last_scheduled_for", BigInteger),
    Column("last_workflow_id", Text),
    Column("last_run_id", Text),
    Column("actions", BigInteger, nullable=False),
    Column("skipped", BigInteger, nullable=False),
    Column("remaining", Integer),
    Column("buffered", Text),
    Column("unstarted", Text),
    Column("config", Text, nullable=False),
)
"""One row per schedule that exists; its runs are found in `visibility` by their schedule id.

`fires_at` is `next_due_at` and the jitter that falls to it. `buffered` holds what waits, `unstarted` the workflow ids
of actions that were taken and of whose start nothing was seen; both are JSON, and null when they are empty.
"""

_DUE = text("fires_at IS NOT NULL")
OWED: Final = text("(buffered IS NOT NULL OR unstarted IS NOT NULL)")

Index("schedules_paused", SCHEDULES.c.paused, SCHEDULES.c.schedule_id)
Index("schedules_type", SCHEDULES.c.workflow_type, SCHEDULES.c.schedule_id)
Index(
    "schedules_due",
    SCHEDULES.c.fires_at,
    SCHEDULES.c.schedule_id,
    sqlite_where=_DUE,
    postgresql_where=_DUE,
)
Index("schedules_owed", SCHEDULES.c.schedule_id, sqlite_where=OWED, postgresql_where=OWED)

MOST_UNSTARTED: Final = 1_000
"""So many unstarted actions are remembered: the newest."""
_WAITING: Final = TypeAdapter(list[WaitingAction])


@dataclass(slots=True)
class ScheduleRow:
    """One schedule between its row and its events.

    Attributes:
        unstarted: Workflow ids of actions that were taken and not seen started.
    """

    schedule_id: ScheduleId
    state: ScheduleState
    last_workflow_id: str | None = None
    last_run_id: str | None = None
    unstarted: list[str] = field(default_factory=list[str])

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> "ScheduleRow":
        """Return what `columns` wrote."""
        config, plan = _config(row["config"])
        last = row["last_scheduled_for"]
        buffered, unstarted = row["buffered"], row["unstarted"]
        state = ScheduleState(
            config=config,
            created_at=from_micros(row["created_at"]),
            updated_at=from_micros(row["updated_at"]),
            decided_until=from_micros(row["decided_until"]),
            paused=bool(row["paused"]),
            pause_reason=row["pause_reason"],
            buffered=[] if buffered is None else _WAITING.validate_json(buffered),
            remaining=row["remaining"],
            actions=row["actions"],
            skipped=row["skipped"],
            last_scheduled_for=None if last is None else from_micros(last),
            _read_config=(plan,),
        )
        return cls(
            ScheduleId(row["schedule_id"]),
            state,
            row["last_workflow_id"],
            row["last_run_id"],
            [] if unstarted is None else from_json(unstarted),
        )

    def columns(self) -> Row:
        """Return the row, in the table's order."""
        state = self.state
        due, fires_at = state.next_due(self.schedule_id) or (None, None)
        return (
            self.schedule_id,
            None if state.plan is None else state.plan.action.workflow_type,
            to_micros(state.created_at),
            to_micros(state.updated_at),
            state.paused,
            state.pause_reason,
            to_micros(state.decided_until),
            _micros(due),
            _micros(fires_at),
            _micros(state.last_scheduled_for),
            self.last_workflow_id,
            self.last_run_id,
            state.actions,
            state.skipped,
            state.remaining,
            _WAITING.dump_json(state.buffered).decode() if state.buffered else None,
            to_json(self.unstarted).decode() if self.unstarted else None,
            to_json(state.config).decode(),
        )


def _micros(instant: datetime | None) -> int | None:
    return None if instant is None else to_micros(instant)


@lru_cache(maxsize=256)
def _config(written: str) -> tuple[dict[str, Any], ScheduleConfig | None]:
    """Return a configuration and what it says; the rows of one batch often share it."""
    config: dict[str, Any] = from_json(written)
    return config, ScheduleState.read_config(config)

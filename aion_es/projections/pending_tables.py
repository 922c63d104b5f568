"""The tables of the `pending_work` projection: what is open, and what of it is due or owed."""

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Index,
    Integer,
    MetaData,
    Table,
    TextClause,
    text,
)

from aion_es.projections.columns import Text

METADATA: Final = MetaData()

# The conditions of the partial indexes. Queries use the very same texts: a bound parameter in place of
# a literal would hide from the database that an index answers.
UNSEEN: Final = text("unseen")
LIVE_ACTIVITY: Final = text("phase <> 'failed'")
LIVE_TIMER: Final = text("NOT torn")
OWED: Final = text("owed <> 'nothing'")


def _partial_index(name: str, condition: ColumnElement[bool] | TextClause, *columns: Any) -> None:
    Index(name, *columns, sqlite_where=condition, postgresql_where=condition)


RUNS: Final = Table(
    "pending_runs",
    METADATA,
    Column("workflow_id", Text, primary_key=True),
    Column("run_id", Text, nullable=False),
    Column("workflow_type", Text, nullable=False),
    Column("package_version", Text, nullable=False),
    Column("task_queue", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("unseen", Boolean, nullable=False),
    Column("run_deadline", BigInteger),
    Column("execution_deadline", BigInteger),
    Column("parent_workflow_id", Text),
    Column("parent_run_id", Text),
)
"""One row per open run. Its indexes are partial, so that sleeping runs cost recovery nothing."""

_partial_index("pending_runs_unseen", UNSEEN, RUNS.c.workflow_id)
for _deadline in (RUNS.c.run_deadline, RUNS.c.execution_deadline):
    _partial_index(f"pending_runs_{_deadline.name}", _deadline.is_not(None), _deadline)

ACTIVITIES: Final = Table(
    "pending_activities",
    METADATA,
    Column("workflow_id", Text, primary_key=True),
    Column("activity_id", Integer, primary_key=True),
    Column("run_id", Text, nullable=False),
    Column("activity_type", Text, nullable=False),
    Column("task_queue", Text, nullable=False),
    Column("phase", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("retry_at", BigInteger),
    Column("scheduled_at", BigInteger, nullable=False),
)
"""One row per activity of an open run that waits (`scheduled`, `started`, `backoff`), or that failed for
good or was cancelled (`failed`: no longer pending, but a reopening may name it)."""

_partial_index("pending_activities_live", LIVE_ACTIVITY, ACTIVITIES.c.workflow_id)
Index("pending_activities_queue", ACTIVITIES.c.task_queue, ACTIVITIES.c.phase)

TIMERS: Final = Table(
    "pending_timers",
    METADATA,
    Column("workflow_id", Text, primary_key=True),
    Column("timer_id", Text, primary_key=True),
    Column("run_id", Text, nullable=False),
    Column("fire_at", BigInteger, nullable=False),
    Column("torn", Boolean, nullable=False),
)
"""One row per live timer of an open run; `torn`: ended by a teardown, and live again after a reopening."""

_partial_index(
    "pending_timers_due", LIVE_TIMER, TIMERS.c.fire_at, TIMERS.c.workflow_id, TIMERS.c.timer_id
)

CHILDREN: Final = Table(
    "pending_children",
    METADATA,
    Column("workflow_id", Text, primary_key=True),
    Column("run_id", Text, primary_key=True),
    Column("child_workflow_id", Text, primary_key=True),
    Column("workflow_type", Text, nullable=False),
    Column("package_version", Text, nullable=False),
    Column("task_queue", Text, nullable=False),
    Column("parent_close", Text, nullable=False),
    Column("child_phase", Text, nullable=False),
    Column("parent_state", Text, nullable=False),
    Column("owed", Text, nullable=False),
)
"""One row per child whose outcome its parent does not have, or that did not complete. `owed` follows from the columns before it."""

_partial_index(
    "pending_children_owed",
    OWED,
    CHILDREN.c.workflow_id,
    CHILDREN.c.run_id,
    CHILDREN.c.child_workflow_id,
)

SIGNALS: Final = Table(
    "pending_signals",
    METADATA,
    Column("target_workflow_id", Text, primary_key=True),
    Column("signal_id", Text, primary_key=True),
    Column("workflow_id", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("payload", Text, nullable=False),
    Column("phase", Text, nullable=False),
)
"""One row per signal whose way is not over: it has yet to arrive, or its sender has yet to be told."""

Index("pending_signals_sender", SIGNALS.c.workflow_id, SIGNALS.c.signal_id)

CLOSED: Final = Table(
    "reopenable_runs",
    METADATA,
    Column("workflow_id", Text, primary_key=True),
    Column("run_id", Text, nullable=False),
    Column("work", Text, nullable=False),
)
"""What an unsuccessfully closed run would wait for again if it were reopened, as JSON; read only then."""

VERSIONS: Final = Table(
    "open_versions",
    METADATA,
    Column("workflow_type", Text, primary_key=True),
    Column("package_version", Text, primary_key=True),
    Column("open_runs", BigInteger, nullable=False),
)
"""How many open runs each version has: counted as they open and close, never by counting them."""

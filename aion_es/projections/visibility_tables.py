"""The tables of the `visibility` projection: one row per run, and one per search attribute's value."""

from typing import Any, Final

from sqlalchemy import BigInteger, Column, Float, Index, Integer, MetaData, Table
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from aion_es.projections.columns import Text


class SetKey(FunctionElement[Any]):
    """What an index holds of a set of attribute names: itself on SQLite, a hash of 64 bits on PostgreSQL.

    A row of an index of PostgreSQL has at most 2,704 bytes, and the names of a hundred attributes have more.
    """

    inherit_cache = True


@compiles(SetKey)
def _as_it_is(element: SetKey, compiler: Any, **options: Any) -> str:
    text: str = compiler.process(element.clauses, **options)
    return text


@compiles(SetKey, "postgresql")
def _hashed(element: SetKey, compiler: Any, **options: Any) -> str:
    return f"hashtextextended({_as_it_is(element, compiler, **options)}, 0)"


METADATA: Final = MetaData()

EXECUTIONS: Final = Table(
    "visibility",
    METADATA,
    # The position of the run's WorkflowStarted: unique, and known without asking the database.
    Column(
        "run_key",
        BigInteger().with_variant(Integer, "sqlite"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("workflow_id", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("first_run_id", Text, nullable=False),
    Column("parent_run_id", Text),
    Column("parent_workflow_id", Text),
    Column("parent_workflow_run_id", Text),
    Column("root_workflow_id", Text, nullable=False),
    Column("schedule_id", Text),
    Column("workflow_type", Text, nullable=False),
    Column("package_version", Text, nullable=False),
    Column("task_queue", Text, nullable=False),
    Column("start_time", BigInteger, nullable=False),
    Column("stuck_reason", Text),
    Column("status", Text, nullable=False),
    Column("close_time", BigInteger),
    Column("execution_duration", BigInteger),
    Column("history_length", BigInteger, nullable=False),
    Column("history_bytes", BigInteger, nullable=False),
    Column("last_failed_step", Text),
    Column("failed_step", Text),
    Column("failure_type", Text),
    Column("failure_reason", Text),
    Column("search_attributes", Text, nullable=False),
    Column("attribute_names", Text, nullable=False),
)
"""One row per run; a replaced run keeps its row. Instants and durations in microseconds.

`last_failed_step` is the fold's own: the activity that failed last, should the run fail because of it.
`attribute_names` has the search attributes that the run has values of, sorted, with a space before and
behind each. There are few such sets, however many runs: those without an attribute are found by them.
"""

FIXED: Final = frozenset(
    {
        "workflow_id",
        "run_id",
        "first_run_id",
        "parent_run_id",
        "parent_workflow_id",
        "parent_workflow_run_id",
        "root_workflow_id",
        "schedule_id",
        "workflow_type",
        "package_version",
        "task_queue",
        "start_time",
        "stuck_reason",
    }
)
"""Columns that the fold writes once, with the row. `stuck_reason` is the engine's report, no fold."""

OF_ATTRIBUTES: Final = frozenset({"search_attributes", "attribute_names"})
"""Columns that the fold writes when the run's search attributes change."""

# Each ends in the order in which runs are listed, so that a page is read off the index.
_START: Final = (EXECUTIONS.c.start_time, EXECUTIONS.c.run_id)
Index("visibility_start_time", *_START)
Index("visibility_status", EXECUTIONS.c.status, *_START)
Index("visibility_workflow_type", EXECUTIONS.c.workflow_type, *_START)
Index("visibility_workflow", EXECUTIONS.c.workflow_id, EXECUTIONS.c.run_key)
Index("visibility_run", EXECUTIONS.c.run_id)
Index("visibility_attribute_names", SetKey(EXECUTIONS.c.attribute_names), *_START)
# By status first: the few that failed lately among very many, and those that are open, which have no time.
# In the order of the time alone it is read once for each status, and merged.
Index("visibility_close_time", EXECUTIONS.c.status, EXECUTIONS.c.close_time, EXECUTIONS.c.run_id)
for _column in (EXECUTIONS.c.schedule_id, EXECUTIONS.c.parent_workflow_id):
    Index(
        f"visibility_{_column.name}",
        _column,
        *_START,
        sqlite_where=_column.is_not(None),
        postgresql_where=_column.is_not(None),
    )

ATTRIBUTES: Final = Table(
    "search_attributes",
    METADATA,
    Column("run_key", BigInteger, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("element", Integer, primary_key=True),
    Column("text_value", Text),
    Column("number_value", BigInteger),
    Column("float_value", Float),
    Column("start_time", BigInteger, nullable=False),
    Column("run_id", Text, nullable=False),
    sqlite_with_rowid=False,  # the rows are their own index: one tree less to write
)
"""One row per value, per element for a KeywordList, so that a new attribute needs no change of a table.

String and KeywordList in `text_value`; Int, Bool (0, 1) and Datetime (microseconds) in `number_value`;
Float in `float_value`. `start_time` and `run_id` are the run's: the index that ends in both gives the
runs of one value in the order in which they are listed, the one that ends in `run_id` gives all runs in
the order of their values. Either way a page costs what it holds.
"""

for _name in ("text_value", "number_value", "float_value"):
    _value = ATTRIBUTES.c[_name]
    for _suffix, _order in (
        ("", (ATTRIBUTES.c.start_time, ATTRIBUTES.c.run_id)),
        ("_order", (ATTRIBUTES.c.run_id,)),
    ):
        Index(
            f"search_attributes_{_name}{_suffix}",
            ATTRIBUTES.c.name,
            _value,
            *_order,
            ATTRIBUTES.c.run_key,
            sqlite_where=_value.is_not(None),
            postgresql_where=_value.is_not(None),
        )

SCHEMA: Final = Table(
    "attribute_schema",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("type", Text, nullable=False),
)
"""Every attribute that an event ever carried, with its type: what a process without code knows of them."""

STEPS: Final = Table(
    "visibility_steps",
    METADATA,
    Column("run_key", BigInteger, primary_key=True),
    Column("activity_id", Integer, primary_key=True),
    Column("activity_type", Text, nullable=False),
)
"""The type of each activity that has not succeeded, so that a failure, which has only its id, can be named."""

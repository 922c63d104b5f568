"""The `visibility` projection: what a list of workflows shows, one row per run, and its search attributes."""

from collections.abc import Sequence
from typing import Any, ClassVar, Final

from sqlalchemy import Connection, Table, update

from aion_es.events import workflow as ev
from aion_es.events.codec import decode, decode_metadata
from aion_es.projections import bulk
from aion_es.projections.changes import Rows
from aion_es.projections.glance import STATUS_AFTER, attempted, last_of, scheduled
from aion_es.projections.read_model import ReadModel
from aion_es.projections.visibility_fold import (
    Execution,
    attribute_rows,
    begun,
    closed,
    execution_of,
    explained,
    reopened,
    set_attributes,
)
from aion_es.projections.visibility_tables import (
    ATTRIBUTES,
    EXECUTIONS,
    FIXED,
    METADATA,
    OF_ATTRIBUTES,
    SCHEMA,
    STEPS,
)
from aion_es.projections.workflow_projection import Histories, WorkflowProjection
from aion_es.store.port import RecordedEvent

_LIFECYCLE: Final = frozenset(
    {
        "WorkflowCompleted",
        "WorkflowFailed",
        "WorkflowCancelled",
        "WorkflowTerminated",
        "WorkflowTimedOut",
        "WorkflowContinuedAsNew",
        "WorkflowPaused",
        "WorkflowResumed",
        "WorkflowReopened",
    }
)
_FINAL: Final = frozenset({"WorkflowCompleted", "WorkflowContinuedAsNew"})
"""Whatever failed before one of these did not end the run."""
_UNSUCCESSFUL: Final = frozenset(
    {"WorkflowFailed", "WorkflowCancelled", "WorkflowTerminated", "WorkflowTimedOut"}
)
_STEPS: Final = frozenset(
    {"ActivityScheduled", "ActivityCompleted", "ActivityFailed", "ActivityCancelled"}
)


class VisibilityProjection(WorkflowProjection[Execution]):
    """One row per run; read through `aion_es.visibility`."""

    name: ClassVar[str] = "visibility"
    version: ClassVar[int] = 4
    tables: ClassVar[Sequence[Table]] = tuple(METADATA.sorted_tables)

    def fold(self, connection: Connection, histories: Histories) -> dict[str, Execution]:
        """Fold the events and write the rows that they touched, each once."""
        current, missing = self.take_remembered(histories)
        current.update(_read_current(connection, missing))
        touched: list[Execution] = []
        for workflow_id, events in histories.items():
            runs = _fold(workflow_id, current.get(workflow_id), events)
            touched.extend(runs)
            if runs:
                current[workflow_id] = runs[-1]
        _write(connection, touched)
        return current


async def set_stuck(
    read_model: ReadModel, workflow_id: str, run_id: str | None, reason: str | None
) -> bool:
    """Show why an open run does not go on, or with `None` that it does again; False if it has no row yet.

    The engine's own report, not a fold of events: it is lost when the rows are made anew, and reported
    again at the next failed attempt.

    Args:
        read_model: Where the rows are.
        workflow_id: Whose run.
        run_id: Which; `None` for the open one, where nothing more is known of it.
        reason: What is shown.

    Raises:
        StoreError: The read model cannot be written; nothing changed.
    """
    which = EXECUTIONS.c.close_time.is_(None) if run_id is None else EXECUTIONS.c.run_id == run_id
    statement = (
        update(EXECUTIONS)
        .where(EXECUTIONS.c.workflow_id == workflow_id, which)
        .values(stuck_reason=reason)
    )

    def run(connection: Connection) -> bool:
        return connection.execute(statement).rowcount > 0

    return await read_model.write(run)


def _fold(
    workflow_id: str, run: Execution | None, events: Sequence[RecordedEvent]
) -> list[Execution]:
    """Return the runs of one stream that the events touch, oldest first."""
    touched = [] if run is None else [run]
    final = last_of(events, _FINAL)
    # Before that, what an earlier run failed by matters all the same.
    unsuccessful = last_of(events[: final + 1], _UNSUCCESSFUL)
    for index, event in enumerate(events):
        kind = event.type
        if kind == "WorkflowStarted":
            if run is not None:
                run.steps.clear()  # replaced: it cannot be reopened any more
            run = _started(workflow_id, event)
            touched.append(run)
        elif run is None:
            continue  # foreign history: the fold never refuses
        elif kind in _STEPS:
            if index > final or index < unsuccessful:
                _step(run, event)
        elif kind in _LIFECYCLE:
            _turned(run, event)
        elif kind == "SearchAttributesUpdated":
            _updated(run, event)
        run.history_length += 1
        run.history_bytes += len(event.data) + len(event.metadata)
    return touched


def _started(workflow_id: str, event: RecordedEvent) -> Execution:
    started: Any = decode(event)
    recorded_at = decode_metadata(event).recorded_at
    return begun(workflow_id, started, event.position.commit, recorded_at)


def _turned(run: Execution, event: RecordedEvent) -> None:
    """Fold an event of the run's life other than its start."""
    status = STATUS_AFTER[event.type]
    if event.type == "WorkflowReopened":
        reopened(run)
    elif status is not None and status.is_open:
        run.status = status
    elif status is not None:
        closed(run, status, decode_metadata(event).recorded_at)
        if event.type in _FINAL:
            run.last_failed_step = None
            run.steps.clear()
        else:
            terminal: Any = decode(event)
            explained(run, terminal)


def _updated(run: Execution, event: RecordedEvent) -> None:
    decoded = decode(event)
    if isinstance(decoded, ev.SearchAttributesUpdated):
        set_attributes(run, decoded.attributes)


def _step(run: Execution, event: RecordedEvent) -> None:
    match event.type:
        case "ActivityScheduled":
            run.steps.put(*scheduled(event))
        case "ActivityFailed":
            failed: Any = decode(event)
            if failed.retry_at is None:
                run.last_failed_step = run.steps.now.get(failed.activity_id)
        case _:
            run.steps.drop(attempted(event)[0])


# ------------------------------------------------------------------------------------ the database


def _read_current(connection: Connection, workflow_ids: Sequence[str]) -> dict[str, Execution]:
    """Return the newest run of each of `workflow_ids`, however many runs it has."""
    rows = bulk.select_newest(
        connection, EXECUTIONS, "workflow_id", "run_key", [(key,) for key in workflow_ids]
    )
    steps: dict[int, list[tuple[int, str]]] = {}
    for run_key, activity_id, activity_type in bulk.select(
        connection, STEPS, ("run_key",), [(row[0],) for row in rows]
    ):
        steps.setdefault(run_key, []).append((activity_id, activity_type))
    return {row[1]: execution_of(row, Rows(steps.get(row[0], ()))) for row in rows}


def _write(connection: Connection, runs: Sequence[Execution]) -> None:
    _find_roots(connection, runs)
    for keep, rows in (
        (FIXED, [run.row() for run in runs if run.fresh or run.changed]),
        (FIXED | OF_ATTRIBUTES, [run.row() for run in runs if not (run.fresh or run.changed)]),
    ):
        bulk.upsert(connection, EXECUTIONS, rows, keep=keep)
    stopped = [run for run in runs if not run.status.is_open and not run.fresh]
    if stopped:
        _unstick(connection, stopped)
    _write_attributes(connection, runs)
    written: list[bulk.Row] = []
    gone: list[bulk.Row] = []
    for run in runs:
        run.fresh = False
        if run.steps.changed:
            put, dropped = run.steps.settle()
            written.extend((run.run_key, activity_id, kind) for activity_id, kind in put)
            gone.extend((run.run_key, activity_id) for activity_id in dropped)
    bulk.delete(connection, STEPS, ("run_key", "activity_id"), gone)
    bulk.upsert(connection, STEPS, written)


def _find_roots(connection: Connection, runs: Sequence[Execution]) -> None:
    """Give each new child the root of its parent, whose row is older: in the batch, or in the table."""
    rootless = sorted(
        (run for run in runs if run.root_workflow_id is None), key=lambda run: run.run_key
    )
    if not rootless:
        return
    roots = {(r.workflow_id, r.run_id): r.root_workflow_id for r in runs if r.root_workflow_id}
    parents = [(r.parent_workflow_run_id, r.parent_workflow_id) for r in rootless]
    for row in bulk.select(connection, EXECUTIONS, ("run_id", "workflow_id"), parents):
        roots[row[1], row[2]] = row[7]
    for run in rootless:
        parent = (str(run.parent_workflow_id), str(run.parent_workflow_run_id))
        run.root_workflow_id = root = roots.get(parent, parent[0])
        roots[run.workflow_id, run.run_id] = root


def _unstick(connection: Connection, runs: Sequence[Execution]) -> None:
    """A run that closed is not stuck, whoever closed it."""
    for run in runs:
        run.stuck_reason = None
    keys = [run.run_key for run in runs]
    for at in range(0, len(keys), 500):
        connection.execute(
            update(EXECUTIONS)
            .where(
                EXECUTIONS.c.run_key.in_(keys[at : at + 500]),
                EXECUTIONS.c.stuck_reason.is_not(None),
            )
            .values(stuck_reason=None)
        )


def _write_attributes(connection: Connection, runs: Sequence[Execution]) -> None:
    changed = [run for run in runs if run.changed]
    if not changed:
        return
    replaced = [(run.run_key, name) for run in changed if not run.fresh for name in run.changed]
    bulk.delete(connection, ATTRIBUTES, ("run_key", "name"), replaced)
    rows = [
        row for run in changed for name in sorted(run.changed) for row in attribute_rows(run, name)
    ]
    bulk.upsert(connection, ATTRIBUTES, rows)
    types = {
        name: run.attributes[name][0]
        for run in changed
        for name in run.changed
        if name in run.attributes
    }
    bulk.upsert(connection, SCHEMA, list(types.items()), keep=frozenset({"type"}))
    for run in changed:
        run.changed = frozenset()

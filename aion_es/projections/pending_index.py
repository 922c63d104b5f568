"""Questions to the `pending_work` rows: what the engine asks when it starts and when timers fall due.

Each answer is found through an index whose size is what is due or owed, never what sleeps.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple, cast

from sqlalchemy import Connection, func, not_, select, tuple_

from aion_es.ids import RunId, SignalId, TimerId, WorkflowId
from aion_es.payload import Payload
from aion_es.projections.instants import from_micros, to_micros
from aion_es.projections.pending_tables import (
    ACTIVITIES,
    CHILDREN,
    LIVE_ACTIVITY,
    LIVE_TIMER,
    OWED,
    RUNS,
    SIGNALS,
    TIMERS,
    UNSEEN,
    VERSIONS,
)
from aion_es.projections.read_model import ReadModel


class PendingTimer(NamedTuple):
    """A live timer; `after` of `timers_due` takes one to go on behind it."""

    workflow_id: WorkflowId
    run_id: RunId
    timer_id: TimerId
    fire_at: datetime


class PendingDeadline(NamedTuple):
    """An open run that is to be timed out."""

    workflow_id: WorkflowId
    run_id: RunId
    timeout: Literal["run", "execution"]
    deadline: datetime


class OpenVersion(NamedTuple):
    """How many open runs need one version of a workflow type."""

    workflow_type: str
    package_version: str
    runs: int


@dataclass(frozen=True, slots=True)
class PendingChild:
    """A child about which something is owed.

    Attributes:
        workflow_id: The parent's.
        run_id: The parent's.
        parent_open: The parent waits for the outcome; else its parent-close policy is due.
        owed: `start`: no start of it was seen; `outcome`: it closed and the parent was not told;
            `close`: the parent closed and the policy was not seen applied, or it is open and asked the
            child to end, which was not seen to have reached it.
    """

    workflow_id: WorkflowId
    run_id: RunId
    child_workflow_id: WorkflowId
    workflow_type: str
    package_version: str
    task_queue: str
    parent_close: Literal["cancel", "terminate", "abandon"]
    parent_open: bool
    owed: Literal["start", "outcome", "close"]


@dataclass(frozen=True, slots=True)
class PendingSignal:
    """A signal whose way is not over; `workflow_id` and `run_id` are the sender's."""

    workflow_id: WorkflowId
    run_id: RunId
    signal_id: SignalId
    target_workflow_id: WorkflowId
    name: str
    payload: Payload


class PendingWorkIndex:
    """The `pending_work` rows of one read model, read only."""

    def __init__(self, read_model: ReadModel) -> None:
        """Read from `read_model`; `ProjectionRunner.prepare` must have made the tables."""
        self._read_model = read_model

    async def unseen_runs(
        self, queues: Collection[str] | None = None
    ) -> list[tuple[WorkflowId, RunId]]:
        """Return the open runs, Paused ones too, that recorded a fact which their code has not seen.

        With `queues` only those of runs that are driven from one of these task queues.
        """
        query = select(RUNS.c.workflow_id, RUNS.c.run_id).where(UNSEEN).order_by(RUNS.c.workflow_id)
        if queues is not None:
            query = query.where(RUNS.c.task_queue.in_(queues))
        return [(WorkflowId(w), RunId(r)) for w, r in await self._all(query)]

    async def runs_under_way(self, workflow_types: Sequence[str]) -> list[tuple[WorkflowId, str]]:
        """Return the open runs of these types whose code has seen all there is, each with its type."""
        if not workflow_types:
            return []
        query = (
            select(RUNS.c.workflow_id, RUNS.c.workflow_type)
            .where(RUNS.c.workflow_type.in_(workflow_types), not_(RUNS.c.unseen))
            .order_by(RUNS.c.workflow_id)
        )
        return [(WorkflowId(w), t) for w, t in await self._all(query)]

    async def runs_with_activities(self, queues: Collection[str] | None = None) -> list[WorkflowId]:
        """Return the open runs that wait for at least one activity; with `queues`, for one of these task queues."""
        query = (
            select(ACTIVITIES.c.workflow_id)
            .where(LIVE_ACTIVITY)
            .distinct()
            .order_by(ACTIVITIES.c.workflow_id)
        )
        if queues is not None:
            query = query.where(ACTIVITIES.c.task_queue.in_(queues))
        return [WorkflowId(w) for (w,) in await self._all(query)]

    async def timers_due(
        self, before: datetime, *, after: PendingTimer | None = None, limit: int = 1_000
    ) -> list[PendingTimer]:
        """Return live timers due before `before`, earliest first, at most `limit`.

        Args:
            before: Exclusive; far in the future for all.
            after: The last of the former page.
            limit: Size of a page.
        """
        columns = (TIMERS.c.fire_at, TIMERS.c.workflow_id, TIMERS.c.timer_id)
        query = (
            select(TIMERS.c.workflow_id, TIMERS.c.run_id, TIMERS.c.timer_id, TIMERS.c.fire_at)
            .where(LIVE_TIMER, TIMERS.c.fire_at < to_micros(before))
            .order_by(*columns)
            .limit(limit)
        )
        if after is not None:
            place = (to_micros(after.fire_at), after.workflow_id, after.timer_id)
            query = query.where(tuple_(*columns) > place)
        return [
            PendingTimer(WorkflowId(w), RunId(r), TimerId(t), from_micros(at))
            for w, r, t, at in await self._all(query)
        ]

    async def next_timer_at(self) -> datetime | None:
        """Return when the earliest live timer is due, `None` if there is none."""
        query = select(TIMERS.c.fire_at).where(LIVE_TIMER).order_by(TIMERS.c.fire_at).limit(1)
        rows = await self._all(query)
        return from_micros(rows[0][0]) if rows else None

    async def deadlines_due(self, before: datetime) -> list[PendingDeadline]:
        """Return the open runs with a deadline before `before`, earliest first; a run may come twice."""
        due: list[PendingDeadline] = []
        for timeout, column in (
            ("run", RUNS.c.run_deadline),
            ("execution", RUNS.c.execution_deadline),
        ):
            query = select(RUNS.c.workflow_id, RUNS.c.run_id, column).where(
                column < to_micros(before)
            )
            due.extend(
                PendingDeadline(
                    WorkflowId(w),
                    RunId(r),
                    cast("Literal['run', 'execution']", timeout),
                    from_micros(at),
                )
                for w, r, at in await self._all(query)
            )
        return sorted(due, key=lambda deadline: (deadline.deadline, deadline.workflow_id))

    async def open_versions(self) -> list[OpenVersion]:
        """Return how many open runs each version of each type has, in order of type and version."""
        query = select(VERSIONS).order_by(VERSIONS.c.workflow_type, VERSIONS.c.package_version)
        return [OpenVersion(*row) for row in await self._all(query)]

    async def has_run_of(
        self, workflow_type: str, package_version: str, queues: Collection[str]
    ) -> bool:
        """Return whether any open run of a version is driven from one of these task queues."""
        query = select(RUNS.c.workflow_id).where(
            RUNS.c.workflow_type == workflow_type,
            RUNS.c.package_version == package_version,
            RUNS.c.task_queue.in_(queues),
        )
        return bool(await self._all(query.limit(1)))

    async def open_count(self) -> int:
        """Return how many runs are open."""
        ((count,),) = await self._all(select(func.coalesce(func.sum(VERSIONS.c.open_runs), 0)))
        return int(count)

    async def children(self) -> list[PendingChild]:
        """Return the children about which something is owed."""
        query = (
            select(CHILDREN)
            .where(OWED)
            .order_by(CHILDREN.c.workflow_id, CHILDREN.c.run_id, CHILDREN.c.child_workflow_id)
        )
        return [
            PendingChild(
                WorkflowId(row.workflow_id),
                RunId(row.run_id),
                WorkflowId(row.child_workflow_id),
                row.workflow_type,
                row.package_version,
                row.task_queue,
                row.parent_close,
                row.parent_state in {"open", "unwilling"},
                row.owed,
            )
            for row in await self._all(query)
        ]

    async def signals(self) -> list[PendingSignal]:
        """Return the signals that have yet to arrive, or whose sender has yet to be told that they have."""
        query = select(SIGNALS).order_by(SIGNALS.c.workflow_id, SIGNALS.c.signal_id)
        return [
            PendingSignal(
                WorkflowId(row.workflow_id),
                RunId(row.run_id),
                SignalId(row.signal_id),
                WorkflowId(row.target_workflow_id),
                row.name,
                Payload.model_validate_json(row.payload),
            )
            for row in await self._all(query)
        ]

    async def _all(self, query: Any) -> list[Any]:
        def run(connection: Connection) -> list[Any]:
            rows: Any = connection.execute(query).all()
            return list(rows)

        return await self._read_model.read(run)

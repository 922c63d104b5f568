"""Supervision: which runs may have their code in memory, and what becomes of one that an engine's error stops.

The tree is engine, then workflow types, then runs. A run whose code cannot go on here (its version is not
loaded, its history differs, a recorded value no longer fits) is restarted, ever more slowly, from its
history; one that fails too often within a period is *parked*: it stays open, records facts, and is left
alone until something new may help it. No sibling notices.
"""

import logging
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal, NamedTuple, TypeAlias

from aion_es.clock import Clock
from aion_es.engine.bounds import require_count, require_span
from aion_es.engine.registry import Registration, Registry
from aion_es.engine.timers import TimerService
from aion_es.engine.watchdog import BlockedStep
from aion_es.ids import RunId, WorkflowId

_LOG: Final = logging.getLogger("aion_es.supervision")

_REMEMBERED: Final = 100
"""Blocked steps that are kept for who asks."""

UNREAD: Final = "(unread)"
"""What stands for a run's type, which is not the name of any, where nothing could be read of its history."""

RunState: TypeAlias = Literal["resident", "suspended", "waiting", "restarting", "parked"]
"""In memory; only in its history; begins when a place for its type is free; tries again; is left alone."""


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """How a run comes back that an error of the engine or its surroundings stopped.

    Attributes:
        first: Wait before the first restart; each further one waits twice as long.
        longest: No wait is longer; nor is a parked run tried more often, however much comes for it.
        max_restarts: Restarts within `period` after which it is parked; 0 parks it at once.
        period: How far back restarts count.
    """

    first: timedelta = timedelta(seconds=1)
    longest: timedelta = timedelta(minutes=1)
    max_restarts: int = 10
    period: timedelta = timedelta(minutes=10)

    def __post_init__(self) -> None:
        """Check each.

        Raises:
            InvalidArgumentError: A duration is not positive or longer than a century, or the number is not whole
                or negative: restarts would come without any pause, or never.
        """
        require_span("restarts.first", self.first)
        require_span("restarts.longest", self.longest)
        require_span("restarts.period", self.period)
        require_count("restarts.max_restarts", self.max_restarts, least=0)

    def wait(self, restarts: int) -> timedelta:
        """Return the wait before the next restart, after so many."""
        factor = 1 << min(restarts, 16)
        if self.first > self.longest / factor:
            return self.longest
        return self.first * factor


class RunNode(NamedTuple):
    """One run in the tree.

    Attributes:
        run_id: Empty, as is `version`, where nothing could be read of the run's history.
        state: See `RunState`.
        restarts: Of the present period.
        last_error: Why it could not go on; `None` if it can.
        restart_at: When it tries again; `None` if that is not planned.
    """

    workflow_id: WorkflowId
    run_id: RunId
    version: str
    state: RunState
    restarts: int
    last_error: str | None
    restart_at: datetime | None


class TypeNode(NamedTuple):
    """The supervisor of one workflow type.

    Attributes:
        limit: How many of its runs may be under way at once; `None` for no limit.
        under_way: How many are, where there is a limit.
        waiting: How many wait for a place.
        restarts: Of the present period, of all its runs.
        parked: How many are left alone.
        runs: Those that this engine knows, by workflow id.
    """

    workflow_type: str
    limit: int | None
    under_way: int
    waiting: int
    restarts: int
    parked: int
    runs: tuple[RunNode, ...]


class SupervisionTree(NamedTuple):
    """The engine, its types and their runs, at one moment.

    Attributes:
        worker: The engine's name in the history.
        types: By name.
        blocked: The last steps of workflow code that held up the engine.
    """

    worker: str
    types: tuple[TypeNode, ...]
    blocked: tuple[BlockedStep, ...]

    def __str__(self) -> str:
        lines = [f"engine {self.worker}"]
        for node in self.types:
            limit = "" if node.limit is None else f", {node.under_way} of {node.limit} under way"
            lines.append(f"  {node.workflow_type}: {len(node.runs)} run(s){limit}")
            for run in node.runs:
                error = "" if run.last_error is None else f": {run.last_error.splitlines()[0]}"
                again = f", {run.restarts} restart(s)" if run.restarts else ""
                lines.append(f"    {run.workflow_id} {run.state}{again}{error}")
        return "\n".join(lines)


@dataclass(slots=True)
class _Trouble:
    """What is remembered of a run that could not go on."""

    workflow_type: str
    error: str
    failures: deque[datetime] = field(default_factory=deque[datetime])
    is_over: bool = False
    is_parked: bool = False
    may_try: bool = False
    """It is parked, and tries once more."""
    nudged_at: datetime | None = None
    """When it tried last for something new that had come while it was parked."""
    restart_at: datetime | None = None


class _Places:
    """The places of one type: runs that have one, and runs that wait for one, first come first served."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken: set[WorkflowId] = set()
        self.waiting: dict[WorkflowId, None] = {}


class Supervision:
    """Supervises the runs of one engine; `engine.supervision`.

    Attributes:
        blocked_steps: How many steps of workflow code have held up the engine so far.
    """

    def __init__(
        self,
        worker: str,
        registry: Registry,
        timers: TimerService,
        clock: Clock,
        wake: Callable[[WorkflowId], None],
        is_in_memory: Callable[[WorkflowId], bool],
        *,
        policy: RestartPolicy,
        limits: Mapping[str, int],
    ) -> None:
        """Supervise no run yet.

        Args:
            worker: Name of the engine in the history.
            registry: The open runs; its `on_closed` is taken.
            timers: Where restarts wait.
            clock: The present instant.
            wake: Lets a workflow look at its history.
            is_in_memory: Whether a workflow's process is.
            policy: See `RestartPolicy`.
            limits: How many runs may be under way at once, by type; 1 or more each.
        """
        self.blocked_steps = 0
        self._blocked: deque[BlockedStep] = deque(maxlen=_REMEMBERED)
        self._worker = worker
        self._registry = registry
        self._timers = timers
        self._clock = clock
        self._wake = wake
        self._is_in_memory = is_in_memory
        self._policy = policy
        self._places = {workflow_type: _Places(limit) for workflow_type, limit in limits.items()}
        self._is_supplied = not limits
        self._closed_early: set[WorkflowId] = set()
        self._troubles: dict[WorkflowId, _Trouble] = {}
        registry.on_closed = self._closed

    # ------------------------------------------------------------------------ what people ask

    def tree(self) -> SupervisionTree:
        """Return the types and open runs that this engine knows, with their states."""
        runs: dict[str, list[RunNode]] = {t: [] for t in self._places}
        for registration in self._registry:
            runs.setdefault(registration.workflow_type, []).append(self._node(registration))
        for workflow_id, trouble in self._troubles.items():
            if not trouble.is_over and self._registry.newest(workflow_id) is None:
                unread = self._trouble_node(workflow_id, trouble)
                runs.setdefault(trouble.workflow_type, []).append(unread)
        types: list[TypeNode] = []
        for workflow_type, nodes in sorted(runs.items()):
            places = self._places.get(workflow_type)
            types.append(
                TypeNode(
                    workflow_type,
                    None if places is None else places.limit,
                    0 if places is None else len(places.taken),
                    0 if places is None else len(places.waiting),
                    sum(node.restarts for node in nodes),
                    sum(node.state == "parked" for node in nodes),
                    tuple(sorted(nodes)),
                )
            )
        return SupervisionTree(self._worker, tuple(types), tuple(self._blocked))

    def retry(self, workflow_id: str) -> None:
        """Let a run that is stuck or parked try again at once; its restarts count from none again.

        A run that is neither looks at its history, and goes on as before.
        """
        known = WorkflowId(workflow_id)
        self._troubles.pop(known, None)
        self._wake(known)

    @property
    def parked(self) -> tuple[WorkflowId, ...]:
        """The runs that are left alone, in the order in which they first failed."""
        return tuple(w for w, trouble in self._troubles.items() if trouble.is_parked)

    @property
    def stuck(self) -> int:
        """How many runs cannot go on now, parked ones too."""
        return sum(not trouble.is_over for trouble in self._troubles.values())

    @property
    def unread(self) -> int:
        """How many of these are known by nothing but that they cannot be read: their type is not known."""
        newest = self._registry.newest
        return sum(not t.is_over and newest(w) is None for w, t in self._troubles.items())

    def step_blocked(self, step: BlockedStep) -> None:
        """Remember a step that held up the engine; called from the watchdog's thread."""
        self._blocked.append(step)
        self.blocked_steps += 1

    def _node(self, registration: Registration) -> RunNode:
        workflow_id = registration.workflow_id
        places = self._places.get(registration.workflow_type)
        trouble = self._troubles.get(workflow_id)
        state: RunState = registration.residency
        if places is not None and workflow_id in places.waiting:
            state = "waiting"
        if trouble is not None and not trouble.is_over:
            state = "parked" if trouble.is_parked else "restarting"
        return RunNode(
            workflow_id,
            registration.run_id,
            registration.version,
            state,
            0 if trouble is None else len(self._recent(trouble)),
            None if trouble is None or trouble.is_over else trouble.error,
            None if trouble is None else trouble.restart_at,
        )

    def _trouble_node(self, workflow_id: WorkflowId, trouble: _Trouble) -> RunNode:
        """Return the node of a run of which no more is known than that it cannot go on."""
        return RunNode(
            workflow_id,
            RunId(""),
            "",
            "parked" if trouble.is_parked else "restarting",
            len(self._recent(trouble)),
            trouble.error,
            trouble.restart_at,
        )

    # ------------------------------------------------------------------------------- restarts

    def failed(self, workflow_id: WorkflowId, workflow_type: str, error: str) -> None:
        """Plan the restart of a run that could not go on, or park it."""
        now = self._clock.now()
        trouble = self._troubles.setdefault(workflow_id, _Trouble(workflow_type, error))
        trouble.error, trouble.is_over, trouble.may_try = error, False, False
        restarts = len(self._recent(trouble))
        trouble.failures.append(now)
        key = _again(workflow_id)
        if restarts >= self._policy.max_restarts:
            trouble.is_parked, trouble.restart_at = True, None
            self._timers.discard(key)
            self._leave_place(workflow_id)
            _LOG.error("workflow %s is parked after %d restarts: %s", workflow_id, restarts, error)
            return
        _LOG.error("workflow %s is stuck: %s", workflow_id, error)
        delay = self._policy.wait(restarts)
        trouble.is_parked, trouble.restart_at = False, now + delay
        self._timers.add_after(key, delay, lambda: self._wake(workflow_id))

    def recovered(self, workflow_id: WorkflowId) -> None:
        """Hear that a run goes on. Its restarts still count: it may fail again at the same place."""
        self._timers.discard(_again(workflow_id))
        trouble = self._troubles.get(workflow_id)
        if trouble is not None:
            trouble.is_over, trouble.is_parked, trouble.restart_at = True, False, None

    def is_parked(self, workflow_id: WorkflowId) -> bool:
        """Return whether a run is left alone: whoever has something new for it nudges it."""
        trouble = self._troubles.get(workflow_id)
        return trouble is not None and trouble.is_parked

    def nudge(self, workflow_id: WorkflowId, *, insists: bool = False) -> bool:
        """Return whether a run that cannot go on tries again, now that there is something new for it.

        Somebody may send a thousand signals to a parked run, each of which would have its whole history
        read and replayed. So it tries at once for the first, and then when `longest` has passed.

        Args:
            workflow_id: Whose.
            insists: Who asks waits for its code to answer.
        """
        trouble = self._troubles.get(workflow_id)
        if trouble is None or trouble.may_try:
            return True
        if not trouble.is_parked:
            return insists
        now = self._clock.now()
        again_at = None if trouble.nudged_at is None else trouble.nudged_at + self._policy.longest
        if insists or again_at is None or again_at <= now:
            trouble.may_try, trouble.nudged_at, trouble.restart_at = True, now, None
            return True
        trouble.restart_at = again_at
        self._timers.add(_again(workflow_id), again_at, lambda: self._try_parked(workflow_id))
        return False

    def _try_parked(self, workflow_id: WorkflowId) -> None:
        if self.nudge(workflow_id):
            self._wake(workflow_id)

    def code_arrived(self, workflow_types: Collection[str]) -> None:
        """Let the stuck and parked runs of these types try again at once: what they missed may be there."""
        for registration in self._registry:
            if registration.stuck is not None and registration.workflow_type in workflow_types:
                self.retry(registration.workflow_id)

    def _recent(self, trouble: _Trouble) -> deque[datetime]:
        """Forget what lies too far back, and return the failures that count."""
        begin = self._clock.now() - self._policy.period
        while trouble.failures and trouble.failures[0] < begin:
            trouble.failures.popleft()
        return trouble.failures

    # --------------------------------------------------------------------------------- places

    def admit(self, workflow_id: WorkflowId, workflow_type: str, *, begun: bool) -> bool:
        """Return whether a run may have its code in memory; if not, it is woken when its turn has come.

        Args:
            workflow_id: Whose run.
            workflow_type: Its type.
            begun: Its code has run before: it goes on whatever the limit, or runs that wait for each other
                would wait for ever after a restart.
        """
        if self.is_parked(workflow_id) and not self.nudge(workflow_id):
            return False
        places = self._places.get(workflow_type)
        if places is None or workflow_id in places.taken:
            return True
        if begun or (self._is_supplied and len(places.taken) < places.limit):
            places.waiting.pop(workflow_id, None)
            places.taken.add(workflow_id)
            return True
        places.waiting[workflow_id] = None
        return False

    @property
    def limited_types(self) -> tuple[str, ...]:
        """The types that have a limit."""
        return tuple(self._places)

    def supply(self, under_way: Iterable[tuple[WorkflowId, str]]) -> None:
        """Learn which runs were under way before this engine opened. Until then none that is new begins."""
        for workflow_id, workflow_type in under_way:
            if workflow_id not in self._closed_early:
                self._places[workflow_type].taken.add(workflow_id)
        self._closed_early.clear()
        self._is_supplied = True
        for places in self._places.values():
            self._fill(places)

    def gone(self, workflow_id: WorkflowId) -> None:
        """Hear that a workflow has no open run any more, and none that follows."""
        if not self._is_supplied:
            self._closed_early.add(workflow_id)
        self._troubles.pop(workflow_id, None)
        self._timers.discard(_again(workflow_id))
        self._leave_place(workflow_id)

    def _closed(self, workflow_id: WorkflowId) -> None:
        """Hear that a run has closed. One whose process is in memory is left to that: another may follow it.

        One that is known to follow has taken its place, in memory or not.
        """
        if not self._is_in_memory(workflow_id) and self._registry.newest(workflow_id) is None:
            self.gone(workflow_id)

    def _leave_place(self, workflow_id: WorkflowId) -> None:
        for places in self._places.values():
            places.waiting.pop(workflow_id, None)
            if workflow_id in places.taken:
                places.taken.remove(workflow_id)
                self._fill(places)

    def _fill(self, places: _Places) -> None:
        """Give what is free to those who have waited longest."""
        while places.waiting and len(places.taken) < places.limit:
            workflow_id = next(iter(places.waiting))
            del places.waiting[workflow_id]
            places.taken.add(workflow_id)
            self._wake(workflow_id)


def _again(workflow_id: WorkflowId) -> tuple[str, WorkflowId]:
    """Return the name of the timer that lets a stuck run try again."""
    return ("stuck", workflow_id)

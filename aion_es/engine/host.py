"""What a process needs of the engine that it runs in."""

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Protocol

from aion_es.aggregates.aggregate import Pending
from aion_es.aggregates.workflow import Workflow
from aion_es.aggregates.workflow_repository import WorkflowRepository
from aion_es.authoring.definitions import WorkflowDefinition
from aion_es.clock import Clock
from aion_es.engine.commands import ScheduleActivity
from aion_es.engine.surroundings import Surroundings
from aion_es.engine.tracing import Tracing
from aion_es.events.workflow import WorkflowEvent
from aion_es.ids import WorkflowId

if TYPE_CHECKING:
    from aion_es.engine.process import RunProcess


class Host(Protocol):
    """What a process needs of its engine."""

    @property
    def repository(self) -> WorkflowRepository:
        """The only way to the store."""
        ...

    @property
    def clock(self) -> Clock:
        """The present instant."""
        ...

    @property
    def surroundings(self) -> Surroundings:
        """What code needs of the engine."""
        ...

    @property
    def worker(self) -> str:
        """Name of this engine in the history."""
        ...

    @property
    def tracing(self) -> Tracing | None:
        """What makes spans; `None` where nobody records."""
        ...

    def pinned(self, workflow_type: str, version: str) -> WorkflowDefinition:
        """Return the code of a version."""
        ...

    def admit(self, workflow_id: WorkflowId, workflow_type: str, *, begun: bool) -> bool:
        """Return whether a run may have its code in memory; it is woken when it may."""
        ...

    def next_command_id(self) -> str:
        """Return an identity that no other append of any engine has."""
        ...

    def serves(self, task_queue: str) -> bool:
        """Return whether this engine drives the runs, and runs the activities, of a task queue."""
        ...

    def starts_at_once(self, workflow: Workflow, command: ScheduleActivity) -> bool:
        """Return whether an activity begins as soon as its scheduling is recorded; then a place is kept for it."""
        ...

    async def settle_attributes(self) -> bool:
        """Ask for all processes what of search attributes this one does not know; True if it is told otherwise."""
        ...

    def committed(self, process: "RunProcess", batch: list[Pending[WorkflowEvent]]) -> None:
        """Let what was recorded have its effects."""
        ...

    def loaded(self, process: "RunProcess", *, reclaim: bool) -> None:
        """Take up what a run that was just read from its history waits for."""
        ...

    def stuck(self, process: "RunProcess", error: BaseException | None) -> None:
        """Note why a run's code cannot go on, or that it can again (`None`)."""
        ...

    def activated(self, workflow_type: str) -> None:
        """Hear that a step of the code of a run of this type is recorded."""
        ...

    def turned(self, process: "RunProcess") -> None:
        """Hear that a turn which was taken by `take_turn` is over."""
        ...

    def spawn(self, job: Coroutine[Any, Any, None]) -> None:
        """Run something beside the turns, in a task of the engine's."""
        ...

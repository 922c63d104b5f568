"""What a run's code commands, on its way into the history: all of it, or none."""

from collections.abc import Iterable
from datetime import datetime
from typing import Protocol

from aion_es.aggregates.aggregate import Pending
from aion_es.aggregates.workflow import Workflow
from aion_es.engine.commands import Command, ContinueRunAsNew, ScheduleActivity
from aion_es.events.workflow import WorkflowEvent


class UnfitCommandError(Exception):
    """The aggregate cannot record what the code commands; the run is stuck for `reason`, and nobody else is told."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(reason)
        self.reason = reason


class Places(Protocol):
    """Where activities run."""

    @property
    def worker(self) -> str:
        """Its name in the history."""
        ...

    def starts_at_once(self, workflow: Workflow, command: ScheduleActivity) -> bool:
        """Return whether an activity begins as soon as its scheduling is recorded; then a place is kept for it."""
        ...


def record(
    commands: Iterable[Command], workflow: Workflow, at: datetime, places: Places
) -> Pending[WorkflowEvent] | None:
    """Let the aggregate record commands, in their order.

    Returns:
        The beginning of the next run, if the code goes on as a new one; `None` if not.

    Raises:
        UnfitCommandError: The aggregate refuses a command, or cannot even take it; part of them may be among
            what is not appended yet, which must be thrown away.
    """
    try:
        for command in commands:
            command.apply(workflow, at)
            if isinstance(command, ContinueRunAsNew):
                return workflow.uncommitted[-1]
            # An attempt that may be the last is recorded before its code runs: if it takes the process
            # down with it, that must count. With a place of its own that costs no append.
            if (
                isinstance(command, ScheduleActivity)
                and command.settings.is_recorded_first
                and places.starts_at_once(workflow, command)
            ):
                workflow.start_activity(command.activity_id, 1, places.worker, at=at)
    except Exception as error:
        raise UnfitCommandError(error) from error
    return None

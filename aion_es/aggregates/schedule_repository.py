"""Loading and saving schedules: `repository.py` does the I/O, this says what it is done with."""

from collections.abc import Callable
from typing import NamedTuple

from aion_es.aggregates.repository import Origin, Repository, Saved
from aion_es.aggregates.schedule import Schedule
from aion_es.events.codec import StoredEvent
from aion_es.events.schedule import ScheduleEvent
from aion_es.ids import ScheduleId, StreamName, check_id, schedule_stream
from aion_es.store.port import Position


class ExecutedSchedule(NamedTuple):
    """What a command on a schedule did; the fields of `Executed`."""

    events: tuple[ScheduleEvent, ...]
    schedule: Schedule
    revision: int
    position: Position | None


class ScheduleRepository(Repository[Schedule, ScheduleEvent]):
    """Schedules in a store, each in its own stream. Promises and errors are those of `WorkflowRepository`."""

    _begins = "ScheduleCreated"

    def stream(self, schedule_id: str) -> StreamName:
        """Return the name of the stream that holds the schedule.

        Raises:
            InvalidIdError: The id is not 1–255 printable characters.
        """
        return schedule_stream(self._namespace, ScheduleId(check_id("schedule_id", schedule_id)))

    async def load(self, schedule_id: str) -> Schedule:
        """Return the schedule; an unknown id gives an empty aggregate.

        Reads back to its last checkpoint, or to where it was created last: never much, however old it is.
        """
        return await self._load(schedule_id)

    async def save(
        self,
        schedule: Schedule,
        *,
        command_id: str | None = None,
        causation_id: str | None = None,
        correlation_id: str | None = None,
        traceparent: str | None = None,
    ) -> Saved | None:
        """Append what the aggregate holds uncommitted; `correlation_id` defaults to the schedule id."""
        origin = Origin(command_id, causation_id, correlation_id, traceparent)
        return await self._save(schedule, origin)

    async def execute(
        self,
        schedule_id: str,
        decide: Callable[[Schedule], object],
        *,
        command_id: str | None = None,
        causation_id: str | None = None,
        correlation_id: str | None = None,
        traceparent: str | None = None,
    ) -> ExecutedSchedule:
        """Load, decide, append; on a conflict read only what is new, and decide anew."""
        origin = Origin(command_id, causation_id, correlation_id, traceparent)
        events, schedule, saved = await self._execute(schedule_id, decide, origin)
        return ExecutedSchedule(
            events, schedule, schedule.revision, saved.position if saved else None
        )

    def _is_beginning(self, stored: StoredEvent) -> bool:
        return stored.type in {"ScheduleCreated", "ScheduleCheckpointed"}

    def _new(self, id: str) -> Schedule:
        return Schedule(ScheduleId(id))

    def _stream(self, id: str) -> StreamName:
        return self.stream(id)

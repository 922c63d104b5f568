"""Following the store: what others recorded reaches those whom it concerns.

What this engine recorded it knows already, and has handed on directly; the subscription is how it
learns of everybody else's: clients, operators, other engines.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final, Protocol, cast, get_args

from aion_es.engine.patience import UNREADABLE, follow
from aion_es.engine.process import RunProcess
from aion_es.engine.registry import Registry
from aion_es.events.codec import decode, decode_metadata
from aion_es.events.metadata import was_activated
from aion_es.events.workflow import ActivityScheduled, TerminalEvent
from aion_es.ids import WorkflowId
from aion_es.store.port import START, EventStore, Position, RecordedEvent

_LOG: Final = logging.getLogger("aion_es.engine")

TERMINAL_TYPES: Final = frozenset(cls.__name__ for cls in get_args(TerminalEvent))
_RECLAIMS: Final = frozenset({"WorkflowResumed", "WorkflowReopened"})
"""After these, activities that are pending are to be run, whoever recorded it."""
_CUT_FOR: Final = 0.01
"""Seconds for which the rest of an append is waited for, where a subscription may have cut it between its events.

They are sent one right behind the other."""
_OFFERED: Final = b'"offered":true'
"""Stands in every event of which it is true, and hardly in any other; looked for before anything is decoded."""


class Processes(Protocol):
    """What the follower needs of the engine's core."""

    def find(self, workflow_id: WorkflowId) -> RunProcess | None:
        """Return the process of a workflow that is in memory."""
        ...

    def schedule(self, process: RunProcess) -> None:
        """See to it that a process takes its turns."""
        ...

    def wake(self, workflow_id: WorkflowId, *, reclaim: bool = False) -> None:
        """Let a workflow look at its history."""
        ...

    def serves(self, task_queue: str) -> bool:
        """Return whether this engine runs the activities of a task queue."""
        ...


class Follower:
    """Follows one namespace of the store from where the engine opened it.

    Attributes:
        on_closed: Told of every workflow of which a run has closed, whoever recorded it.
        prefix: Of the streams that it hears of.
        position: It has heard of everything up to here.
    """

    def __init__(
        self, store: EventStore, processes: Processes, registry: Registry, prefix: str
    ) -> None:
        self._store = store
        self._processes = processes
        self._registry = registry
        self.prefix = prefix
        self.position = START
        self.on_closed: Callable[[WorkflowId], None] | None = None
        self._held: list[RecordedEvent] = []
        self._release: asyncio.TimerHandle | None = None

    async def run(self, position: Position) -> None:
        """Hear of everything that is recorded after `position`, for ever; ends only by cancellation."""
        self.position = position

        async def take(events: Sequence[RecordedEvent]) -> None:
            self._hear(events)
            self.position = events[-1].position

        try:
            await follow(
                lambda: self._store.subscribe_all(from_position=self.position, prefix=self.prefix),
                take,
                log=_LOG,
                what="the store",
            )
        finally:
            self._take_held()

    def _hear(self, events: Sequence[RecordedEvent]) -> None:
        """Bring what others recorded to those whom it concerns; what this engine recorded it knows already."""
        self._hear_ends(events)
        held, release = self._held, self._release
        self._take_held()
        events = [*held, *events]
        last, loop = events[-1], asyncio.get_running_loop()
        release_at = loop.time() + _CUT_FOR
        if release is not None and held[0].stream == last.stream:
            release_at = release.when()  # a client may record one event after the other there
        if self._may_be_cut(last) and loop.time() < release_at:
            self._held = [event for event in events if event.stream == last.stream]
            self._release = loop.call_at(release_at, lambda: self._bring(self._take_held()))
            events = [event for event in events if event.stream != last.stream]
        self._bring(events)

    def _may_be_cut(self, last: RecordedEvent) -> bool:
        """Whether more of the append may come that a batch ends with: its last event says what the code has seen.

        EventStoreDB sends event by event. Without the wait an engine would read every run of the others.
        """
        if not self._store.limits.cuts_appends or was_activated(last.metadata):
            return False
        return self._processes.find(WorkflowId(last.stream[len(self.prefix) :])) is None

    def _take_held(self) -> list[RecordedEvent]:
        """Return what was kept of the last batch, and keep it no longer."""
        if self._release is not None:
            self._release.cancel()
        held, self._held, self._release = self._held, [], None
        return held

    def _hear_ends(self, events: Sequence[RecordedEvent]) -> None:
        """Tell of the runs that have ended."""
        cut = len(self.prefix)
        for event in events:
            if event.type in TERMINAL_TYPES:
                try:
                    self._hear_terminal(WorkflowId(event.stream[cut:]), event)
                except UNREADABLE as error:
                    # Subscribed again, it would come again, and all that follows it never.
                    _LOG.error("the end of a run is passed over: %s", error)
                    self._cannot_tell(WorkflowId(event.stream[cut:]), error)
                if self.on_closed is not None:
                    self.on_closed(WorkflowId(event.stream[cut:]))

    def _bring(self, events: Sequence[RecordedEvent]) -> None:
        """Let the runs that have something new look at it, if they are ours to drive."""
        newest = {event.stream: event for event in events}
        reclaims = {event.stream for event in events if event.type in _RECLAIMS}
        offered = {event.stream for event in events if self._is_offered_to_us(event)}
        cut = len(self.prefix)
        for stream, event in newest.items():
            workflow_id = WorkflowId(stream[cut:])
            process = self._processes.find(workflow_id)
            if process is not None:
                process.heard_of(event.revision)
                process.reclaim |= stream in reclaims and process.has_work
                if process.has_work:
                    self._processes.schedule(process)
            elif stream in offered or not was_activated(event.metadata):
                # No engine's doing: an operator's or a client's, whom it is left to us to follow up.
                self._processes.wake(workflow_id, reclaim=stream in reclaims)

    def _is_offered_to_us(self, event: RecordedEvent) -> bool:
        """Whether this is an activity that another engine has scheduled for whoever serves its queue."""
        if event.type != "ActivityScheduled" or _OFFERED not in event.data:
            return False
        try:
            scheduled = cast("ActivityScheduled", decode(event))
        except UNREADABLE as error:
            _LOG.error("an activity that is offered is passed over: %s", error)
            return False
        return scheduled.offered and self._processes.serves(scheduled.task_queue)

    def _cannot_tell(self, workflow_id: WorkflowId, error: Exception) -> None:
        """Tell those who wait that the end cannot be read; a run that is known here is seen to be stuck."""
        self._registry.fail(workflow_id, error)
        if self._registry.newest(workflow_id) is not None:
            self._processes.wake(workflow_id)

    def _hear_terminal(self, workflow_id: WorkflowId, event: RecordedEvent) -> None:
        """Tell those who wait for a run how it ended, unless its process did so when it recorded or read it.

        A process that reads finds the current run only: of a run that was succeeded elsewhere those who
        wait learn here.
        """
        process = self._processes.find(workflow_id)
        known = None if process is None else process.workflow
        if (
            known is not None
            and known.exists
            and known.state.started_revision <= event.revision <= known.revision
        ):
            return
        run_id = decode_metadata(event).run_id
        if run_id is None:
            return
        open_run = self._registry.newest(workflow_id)
        if (
            open_run is not None
            and open_run.run_id == run_id
            and event.revision <= open_run.open_at
        ):
            return  # it was reopened since
        if self._registry.find_completion(workflow_id, run_id) is not None:
            self._registry.tell(workflow_id, run_id, cast("TerminalEvent", decode(event)))
        self._registry.remove(workflow_id, run_id)

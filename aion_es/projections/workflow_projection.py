"""What the projections of workflow streams share: a batch by workflow, and the open runs kept in memory."""

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final, Generic, Protocol, Self, TypeAlias, TypeVar

from sqlalchemy import Connection

from aion_es.aggregates.status import WorkflowStatus
from aion_es.ids import DEFAULT_NAMESPACE, Namespace, workflow_prefix
from aion_es.projections.projection import Projection
from aion_es.store.port import RecordedEvent

Histories: TypeAlias = Mapping[str, Sequence[RecordedEvent]]
"""The events of one batch by workflow id, each in the order of its stream."""

_REMEMBERED: Final = 4_096
"""Open runs kept in memory between batches, under 2 KiB each."""


class FoldedRun(Protocol):
    """A run as far as its projection has folded it."""

    @property
    def status(self) -> WorkflowStatus:
        """As its events tell it."""
        ...


R = TypeVar("R", bound=FoldedRun)


class WorkflowProjection(Projection, Generic[R]):
    """A fold of workflow streams that goes on, batch by batch, with the runs that are open."""

    def __init__(self, namespace: Namespace = DEFAULT_NAMESPACE) -> None:
        """Follow the workflows of `namespace`."""
        self._namespace = namespace
        self._prefix = workflow_prefix(namespace)
        self._open: OrderedDict[str, R] = OrderedDict()

    @abstractmethod
    def fold(self, connection: Connection, histories: Histories) -> Mapping[str, R]:
        """Fold the events, write what changed, and return the runs that they touched by workflow id."""

    def apply(self, connection: Connection, batch: Sequence[RecordedEvent]) -> None:
        """Fold the batch, workflow by workflow, and keep the runs that are still open."""
        streams: dict[str, list[RecordedEvent]] = {}
        for event in batch:
            streams.setdefault(event.stream, []).append(event)
        skip = len(self._prefix)
        histories = {
            stream[skip:]: events
            for stream, events in streams.items()
            if stream.startswith(self._prefix)
        }
        runs = self.fold(connection, histories)
        self._open.update((key, run) for key, run in runs.items() if run.status.is_open)
        while len(self._open) > _REMEMBERED:
            self._open.popitem(last=False)

    def forget(self) -> None:
        """Drop the open runs that are kept in memory; they are read again when needed."""
        self._open.clear()

    def twin(self) -> Self:
        """Return another instance for the same workflows."""
        return type(self)(self._namespace)

    def take_remembered(self, histories: Histories) -> tuple[dict[str, R], list[str]]:
        """Return the runs in memory that these events go on with, and the workflow ids of those to be read."""
        known: dict[str, R] = {}
        missing: list[str] = []
        for workflow_id, events in histories.items():
            run = self._open.pop(workflow_id, None)
            if run is not None:
                known[workflow_id] = run
            elif events[0].revision:
                missing.append(workflow_id)
        return known, missing

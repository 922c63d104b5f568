"""given / when / then for aggregates: what happened, what is asked, and exactly what follows.

    given(started(), scheduled(0)).when(lambda wf: wf.complete(at=NOON)).then(WorkflowCompleted())

Comparison is exact and ordered: an event too many fails as one too few does.
"""

import copy
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Generic, TypeVar

from aion_es.aggregates.attributes import AttributeSchema
from aion_es.aggregates.code_catalog import CodeCatalog
from aion_es.aggregates.package_upload import PackageUpload
from aion_es.aggregates.schedule import Schedule
from aion_es.aggregates.workflow import Workflow
from aion_es.errors import AionError
from aion_es.events.base import Event
from aion_es.events.metadata import Envelope, EventMetadata
from aion_es.events.schedule import ScheduleEvent
from aion_es.events.workflow import WorkflowEvent
from aion_es.ids import ScheduleId, StreamName, WorkflowId

A = TypeVar("A", bound=Workflow | Schedule | CodeCatalog | PackageUpload)

GIVEN_AT: Final = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
"""When everything given was recorded, unless said otherwise."""


def given(
    *events: WorkflowEvent,
    workflow_id: str = "order-42",
    schema: AttributeSchema | None = None,
    at: datetime = GIVEN_AT,
) -> "Given[Workflow]":
    """Return a workflow with this history.

    Args:
        events: Oldest first; none for a workflow that was never started.
        workflow_id: Whose.
        schema: The registered search attributes. Default: none.
        at: When all of them were recorded.
    """
    return Given(Workflow(WorkflowId(workflow_id), schema=schema), events, at)


def given_schedule(
    *events: ScheduleEvent, schedule_id: str = "nightly", at: datetime = GIVEN_AT
) -> "Given[Schedule]":
    """Return a schedule with this history; see `given`."""
    return Given(Schedule(ScheduleId(schedule_id)), events, at)


class Given(Generic[A]):
    """An aggregate with its history, before the command.

    Attributes:
        aggregate: As its history leaves it.
    """

    def __init__(self, aggregate: A, events: Sequence[Event], at: datetime) -> None:
        self.aggregate = aggregate
        metadata = EventMetadata(at)
        for revision, event in enumerate(events):
            envelope: Envelope[Any] = Envelope(
                event, StreamName("given"), revision, revision, uuid.UUID(int=revision), metadata, 0
            )
            aggregate.replay(envelope)

    def when(self, command: Callable[[A], object]) -> "Outcome[A]":
        """Give the command; what it adds, or its refusal, is the outcome. Other errors pass through."""
        before = copy.deepcopy(self.aggregate)
        try:
            returned = command(self.aggregate)
        except AionError as error:
            return Outcome(self.aggregate, before, None, error)
        return Outcome(self.aggregate, before, returned, None)


class Outcome(Generic[A]):
    """What followed.

    Attributes:
        aggregate: As the command left it.
        error: The refusal, if there was one.
    """

    def __init__(self, aggregate: A, before: A, returned: object, error: AionError | None) -> None:
        self.aggregate, self.error = aggregate, error
        self._before, self._returned = before, returned

    def then(self, *events: Event) -> "Outcome[A]":
        """Check that exactly these events were added, in this order, and returned.

        Raises:
            AssertionError: They were not.
        """
        if self.error is not None:
            raise AssertionError(f"refused: {self.error!r}\n  expected: {_listed(events)}")
        added = tuple(pending.event for pending in self.aggregate.uncommitted)
        if added != events:
            raise AssertionError(f"\n  added:    {_listed(added)}\n  expected: {_listed(events)}")
        if self._returned is not None and self._returned != events:
            raise AssertionError(f"returned {self._returned!r}, but added {_listed(added)}")
        return self

    def then_nothing(self) -> "Outcome[A]":
        """Check that the command was taken and added nothing: it had already had its effect.

        Raises:
            AssertionError: It added something, or was refused.
        """
        return self.then()

    def then_refused(self, error: type[AionError], **fields: object) -> "Outcome[A]":
        """Check that the command was refused with this error, and that nothing changed.

        Args:
            error: Its exact class.
            fields: Attributes that it must have, with these values.

        Raises:
            AssertionError: It was not, or a field differs, or the aggregate changed.
        """
        if self.error is None:
            raise AssertionError(f"expected {error.__name__}, but the command was taken")
        if type(self.error) is not error:
            raise AssertionError(f"expected {error.__name__}, got {self.error!r}")
        found = {name: getattr(self.error, name) for name in fields}
        if found != fields:
            raise AssertionError(f"{error.__name__} has {found}, expected {fields}")
        if self.aggregate.uncommitted != self._before.uncommitted:
            raise AssertionError(f"refused, but added {self.aggregate.uncommitted}")
        if _state(self.aggregate) != _state(self._before):
            raise AssertionError("refused, but the state changed")
        return self


def _state(aggregate: Workflow | Schedule | CodeCatalog | PackageUpload) -> object:
    return aggregate.state if aggregate.exists else None


def _listed(events: Sequence[Event]) -> str:
    return "".join(f"\n    {event!r}" for event in events) or "nothing"

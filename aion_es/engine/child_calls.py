"""What workflow code asks of children: as it was recorded, where it was; else as is known now.

The types and search attributes that are known grow, so the same call may be refused today and taken
tomorrow. A replay must not notice: a refusal leaves nothing else behind, so it is recorded, as a marker.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from aion_es.aggregates.attributes import AttributeSchema
from aion_es.engine.commands import RecordMarker
from aion_es.errors import UnregisteredAttributeError, WorkflowTypeNotFoundError
from aion_es.events.attributes import SearchAttributeValues
from aion_es.events.values import AttributeValue
from aion_es.events.workflow import ChildWorkflowStarted, MarkerRecorded, WorkflowEvent
from aion_es.payload import Payload

REFUSED_CHILD: Final = "refused child"
"""Name of the marker of a call that was refused."""

Refusal: TypeAlias = WorkflowTypeNotFoundError | UnregisteredAttributeError


class _Refused(NamedTuple):
    workflow_type: str
    error: Refusal


class ChildCalls:
    """The calls of `ctx.spawn` of one run, in order.

    Args:
        schema: Search attributes and their types.
        version_of: Gives the version that a child of a type takes now; `None` where there is none.
    """

    def __init__(self, schema: AttributeSchema, version_of: Callable[[str], str | None]) -> None:
        self._schema = schema
        self._version_of = version_of
        self._recorded: deque[ChildWorkflowStarted | _Refused] = deque()

    def expect(self, history: Iterable[WorkflowEvent]) -> None:
        """Learn, before a replay, how the calls ended when they were first made."""
        for event in history:
            if isinstance(event, ChildWorkflowStarted):
                self._recorded.append(event)
            elif isinstance(event, MarkerRecorded) and event.name == REFUSED_CHILD and event.value:
                self._recorded.append(_read(event.value.data))

    def decide(
        self, workflow_type: str, given: SearchAttributeValues
    ) -> tuple[str, Mapping[str, AttributeValue]]:
        """Return the version and the search attributes that a child is started with.

        Raises:
            WorkflowTypeNotFoundError: The type has no version here; to be recorded by `refusal`.
            UnregisteredAttributeError: A name is not registered; to be recorded by `refusal`.
            ConflictingAttributeTypeError: A key has another type than is registered.
            AttributeTypeError: A value does not fit its type.
        """
        recorded = self._recorded[0] if self._recorded else None
        if recorded is not None and recorded.workflow_type == workflow_type:
            self._recorded.popleft()
            if isinstance(recorded, _Refused):
                raise recorded.error
            return recorded.package_version, recorded.attributes
        version = self._version_of(workflow_type)
        if version is None:
            raise WorkflowTypeNotFoundError(workflow_type)
        typed = self._schema.typed(given) if given else {}
        return version, {name: value for name, value in typed.items() if value is not None}


def refusal(workflow_type: str, error: Refusal) -> RecordMarker:
    """Return the command that records a refusal."""
    unregistered: dict[str, Any] | None = None
    if isinstance(error, UnregisteredAttributeError):
        unregistered = {"name": error.name, "near": list(error.near)}
    value = Payload(data={"type": workflow_type, "unregistered": unregistered})
    return RecordMarker("side_effect", REFUSED_CHILD, value)


def _read(value: Any) -> _Refused:
    workflow_type: str = value["type"]
    unregistered = value["unregistered"]
    if unregistered is None:
        return _Refused(workflow_type, WorkflowTypeNotFoundError(workflow_type))
    return _Refused(workflow_type, UnregisteredAttributeError(**unregistered))

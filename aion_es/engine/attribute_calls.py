"""What workflow code sets as search attributes: as it was recorded, where it was; else as is registered now.

What is registered grows, so the same call may be refused today and taken tomorrow. A replay must not
notice: what was recorded is taken again, even if it no longer fits; and since a refusal for an unknown name
leaves nothing else behind, it is recorded too, as a marker.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

from aion_es.aggregates.attributes import AttributeSchema, is_recorded_as
from aion_es.engine.commands import RecordMarker, SetAttributes
from aion_es.errors import UnregisteredAttributeError
from aion_es.events.attributes import SearchAttributeValues
from aion_es.events.values import AttributeUpdate
from aion_es.events.workflow import MarkerRecorded, SearchAttributesUpdated, WorkflowEvent
from aion_es.payload import Payload

REFUSED: Final = "unregistered attribute"
"""Name of the marker of a call that was refused."""

_Recorded: TypeAlias = Mapping[str, AttributeUpdate] | UnregisteredAttributeError


class AttributeCalls:
    """The calls of `ctx.set_attributes` of one run, in order."""

    def __init__(self, schema: AttributeSchema) -> None:
        self._schema = schema
        self._recorded: deque[_Recorded] = deque()

    def expect(self, history: Iterable[WorkflowEvent]) -> None:
        """Learn, before a replay, how the calls ended when they were first made."""
        for event in history:
            if isinstance(event, SearchAttributesUpdated) and event.request_id is None:
                self._recorded.append(event.attributes)
            elif isinstance(event, MarkerRecorded) and event.name == REFUSED and event.value:
                self._recorded.append(UnregisteredAttributeError(**event.value.data))

    def decide(self, given: SearchAttributeValues) -> SetAttributes:
        """Return the command that a call makes.

        Raises:
            UnregisteredAttributeError: A name is not registered; to be recorded by `refusal`.
            ConflictingAttributeTypeError: A key has another type than is registered.
            AttributeTypeError: A value does not fit its type.
        """
        recorded = self._recorded[0] if self._recorded else None
        if isinstance(recorded, UnregisteredAttributeError):
            if recorded.name in given:
                self._recorded.popleft()
                raise recorded
        elif recorded is not None and is_recorded_as(given, recorded):
            self._recorded.popleft()
            return SetAttributes(recorded)
        typed = self._schema.typed(given)
        if isinstance(recorded, Mapping) and recorded.keys() == typed.keys():
            self._recorded.popleft()  # with other values, which is no difference to replay
        return SetAttributes(typed)


def refusal(error: UnregisteredAttributeError) -> RecordMarker:
    """Return the command that records a refusal."""
    value = Payload(data={"name": error.name, "near": list(error.near)})
    return RecordMarker("side_effect", REFUSED, value)

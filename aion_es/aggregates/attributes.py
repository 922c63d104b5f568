"""Which search attributes there are, and what an update of them needs."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from aion_es.aggregates.guards import require_open, require_run
from aion_es.aggregates.state import WorkflowState
from aion_es.errors import (
    AttributeTypeError,
    ConflictingAttributeTypeError,
    InvalidArgumentError,
    UnregisteredAttributeError,
)
from aion_es.events.attributes import (
    SearchAttribute,
    check_attribute_name,
    check_attribute_value,
    to_attribute,
)
from aion_es.events.values import AttributeType, AttributeUpdate, AttributeValue
from aion_es.events.workflow import SearchAttributesUpdated, WorkflowEvent


class AttributeSchema:
    """The registered search attributes, name → type. Grows only; a registered type never changes."""

    __slots__ = ("_types",)

    def __init__(self, *attributes: SearchAttribute[Any]) -> None:
        self._types: dict[str, AttributeType] = {}
        for attribute in attributes:
            self.register(attribute)

    @property
    def names(self) -> tuple[str, ...]:
        """Every registered name, in the order of registration."""
        return tuple(self._types)

    def __len__(self) -> int:
        return len(self._types)

    def __iter__(self) -> Iterator[str]:
        return iter(self._types)

    def __contains__(self, name: object) -> bool:
        return name in self._types

    def __getitem__(self, name: str) -> AttributeType:
        """Return the type of `name`.

        Raises:
            UnregisteredAttributeError: There is none; lists near names.
        """
        return self._typed(name, self._types)

    def get(self, name: str) -> AttributeType | None:
        """Return the type of `name`, `None` if it is not registered."""
        return self._types.get(name)

    def register(
        self, attribute: SearchAttribute[Any] | str, type: AttributeType | None = None
    ) -> None:
        """Make an attribute known. The same again is fine.

        Args:
            attribute: A key, or a name together with `type`.
            type: Of an attribute given by name; not taken together with a key.

        Raises:
            ConflictingAttributeTypeError: The name has another type; nothing changed.
            InvalidArgumentError: The name cannot be one, or the type is missing.
        """
        if isinstance(attribute, SearchAttribute):
            self._add(attribute.name, attribute.type, self._types)
            return
        name = check_attribute_name(attribute)
        if type is None:
            raise InvalidArgumentError("type", f"search attribute {name!r} needs a type")
        self._add(name, type, self._types)

    def typed(
        self, attributes: Mapping[SearchAttribute[Any] | str, object | None]
    ) -> dict[str, AttributeUpdate]:
        """Return the values as they are recorded; `None` stays, and removes.

        A `SearchAttribute` key registers itself; a name must be registered. All or nothing: a refused
        call registers nothing.

        Raises:
            UnregisteredAttributeError: A name is not registered; lists near names.
            ConflictingAttributeTypeError: A key has another type than is registered.
            AttributeTypeError: A value does not fit its type.
        """
        types = dict(self._types)
        updates: dict[str, AttributeUpdate] = {}
        for key, value in attributes.items():
            if isinstance(key, SearchAttribute):
                name = key.name
                self._add(name, key.type, types)
            else:
                name = key
            expected = self._typed(name, types)
            updates[name] = None if value is None else to_attribute(name, expected, value)
        self._types.update(types)
        return updates

    def check(self, attributes: Mapping[str, AttributeUpdate]) -> None:
        """Check values that are about to be recorded.

        Raises:
            UnregisteredAttributeError: A name is not registered; lists near names.
            AttributeTypeError: A value has another type than is registered, or is not of its own type.
        """
        for name, value in attributes.items():
            expected = self._typed(name, self._types)
            if value is None:
                continue
            if value.type != expected:
                raise AttributeTypeError(name, expected, value.type)
            check_attribute_value(name, value)

    @staticmethod
    def _add(name: str, type: AttributeType, types: dict[str, AttributeType]) -> None:
        existing = types.setdefault(name, type)
        if existing != type:
            raise ConflictingAttributeTypeError(name, existing, type)

    @staticmethod
    def _typed(name: str, types: Mapping[str, AttributeType]) -> AttributeType:
        try:
            return types[name]
        except KeyError:
            near = get_close_matches(name, types)
            raise UnregisteredAttributeError(name, near) from None


def update_attributes(
    state: WorkflowState,
    schema: AttributeSchema,
    attributes: Mapping[str, AttributeUpdate],
    request_id: str | None,
    run_id: str | None,
) -> tuple[WorkflowEvent, ...]:
    """Set or remove search attributes; a request that was applied to this run adds nothing."""
    require_run(state, run_id)
    if request_id is not None and request_id in state.requests:
        return ()
    require_open(state)
    schema.check(attributes)
    return (SearchAttributesUpdated(attributes=dict(attributes), request_id=request_id),)


def start_attributes(
    schema: AttributeSchema, attributes: Mapping[str, AttributeValue]
) -> dict[str, AttributeValue]:
    """Return the attributes that a new run begins with, checked."""
    schema.check(attributes)
    return dict(attributes)

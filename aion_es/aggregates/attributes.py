"""Which search attributes there are, and what an update of them needs."""

from collections.abc import Iterable, Iterator, Mapping
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
    SearchAttributeValues,
    check_attribute_name,
    check_attribute_value,
    name_of,
    to_attribute,
)
from aion_es.events.values import AttributeType, AttributeUpdate, AttributeValue
from aion_es.events.workflow import SearchAttributesUpdated, WorkflowEvent


class AttributeSchema:
    """The search attributes that one process knows, name → type. Grows only; a registered type never changes.

    Where several processes share what is registered, an attribute that a key brought along is *unclaimed*
    until it is registered for all, and a name that is not known here is *wanted* until it was looked up.
    Nothing that was decided with such may be recorded before; who shares nothing need not care.
    """

    __slots__ = ("_absent", "_types", "_unclaimed", "_wanted")

    def __init__(self, *attributes: SearchAttribute[Any]) -> None:
        self._types: dict[str, AttributeType] = {}
        self._unclaimed: dict[str, AttributeType] = {}
        self._wanted: set[str] = set()
        self._absent: set[str] = set()
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

    @property
    def is_unsettled(self) -> bool:
        """Whether something is unclaimed, or wanted."""
        return bool(self._unclaimed or self._wanted)

    def is_claimed(self, name: str) -> bool:
        """Whether `name` is known, and was not only brought along by a key."""
        return name in self._types and name not in self._unclaimed

    def take_unsettled(self) -> tuple[dict[str, AttributeType], frozenset[str]]:
        """Return what is unclaimed, which it stays until it is claimed or withdrawn, and what was wanted."""
        wanted, self._wanted = frozenset(self._wanted), set()
        return dict(self._unclaimed), wanted

    def claim(self, names: Iterable[str]) -> None:
        """Take in that these are registered for all."""
        for name in names:
            self._unclaimed.pop(name, None)

    def withdraw(self, names: Iterable[str]) -> None:
        """Forget these, if they are unclaimed: others mean another type."""
        for name in names:
            if self._unclaimed.pop(name, None) is not None:
                del self._types[name]

    def note_absent(self, names: Iterable[str]) -> None:
        """Take in that these were looked up and are registered nowhere, until they are to be looked up again."""
        self._absent.update(name for name in names if name not in self._types)

    def look_again(self, names: Iterable[str]) -> None:
        """Let these be wanted again when they are next asked for."""
        self._absent.difference_update(names)

    def settle_alone(self) -> bool:
        """Settle everything as the only process does; True if something had been wanted."""
        unclaimed, wanted = self.take_unsettled()
        self.claim(unclaimed)
        self.note_absent(wanted)
        return bool(wanted)

    def register(
        self, attribute: SearchAttribute[Any] | str, type: AttributeType | None = None
    ) -> None:
        """Make an attribute known. The same again is fine.

        Args:
            attribute: A key, or a name together with `type`.
            type: Of an attribute given by name; that of a key is its own.

        Raises:
            ConflictingAttributeTypeError: The name has another type; nothing changed.
            InvalidArgumentError: The name cannot be one, or the type is missing.
        """
        kind = attribute.type if isinstance(attribute, SearchAttribute) else type
        name = (
            attribute.name
            if isinstance(attribute, SearchAttribute)
            else check_attribute_name(attribute)
        )
        if kind is None:
            raise InvalidArgumentError("type", f"search attribute {name!r} needs a type")
        self._add(name, kind, self._types)
        self._unclaimed.pop(name, None)
        self._absent.discard(name)

    def typed(self, attributes: SearchAttributeValues) -> dict[str, AttributeUpdate]:
        """Return the values as they are recorded; `None` stays, and removes.

        A `SearchAttribute` key registers itself, and is unclaimed; a name must be registered, and is
        wanted if it is not. All or nothing: a refused call registers nothing.

        Raises:
            UnregisteredAttributeError: A name is not registered; lists near names.
            ConflictingAttributeTypeError: A key has another type than is registered.
            AttributeTypeError: A value does not fit its type.
            InvalidArgumentError: A value is given neither by key nor by name.
        """
        types = dict(self._types)
        updates: dict[str, AttributeUpdate] = {}
        for key, value in attributes.items():
            if isinstance(key, SearchAttribute):
                name = key.name
                self._add(name, key.type, types)
            else:
                name = name_of(key)
            if name not in types and name not in self._absent:
                self._wanted.add(name)
            expected = self._typed(name, types)
            updates[name] = None if value is None else to_attribute(name, expected, value)
        self._unclaimed.update((n, kind) for n, kind in types.items() if n not in self._types)
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
            folded = {known.casefold(): known for known in types}
            near = [folded[one] for one in get_close_matches(name.casefold(), folded)]
            raise UnregisteredAttributeError(name, near) from None


def is_recorded_as(
    given: SearchAttributeValues,
    recorded: Mapping[str, AttributeUpdate],
) -> bool:
    """Return whether `recorded` is what these values were recorded as, whatever is registered now."""
    values = {
        key.name if isinstance(key, SearchAttribute) else key: value for key, value in given.items()
    }
    if values.keys() != recorded.keys():
        return False
    try:
        return all(
            value is None if was is None else to_attribute(name, was.type, value) == was
            for name, was in recorded.items()
            for value in (values[name],)
        )
    except AttributeTypeError:
        return False


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

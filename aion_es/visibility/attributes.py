"""Which search attributes there are, in every process: registered ones, and those that events carried."""

import asyncio
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import Column, Connection, MetaData, Table, Text, select

from aion_es.aggregates.attributes import AttributeSchema
from aion_es.errors import ConflictingAttributeTypeError
from aion_es.events.attributes import SearchAttribute, SearchAttributeValues, name_of
from aion_es.events.values import AttributeType, AttributeUpdate
from aion_es.projections import bulk
from aion_es.projections.read_model import ReadModel
from aion_es.projections.visibility_tables import SCHEMA

_ABSENT: Final = 1.0
"""Seconds for which a name that was looked up in vain is not looked up again for workflow code."""

REGISTERED: Final = Table(
    "registered_attributes",
    MetaData(),
    Column("name", Text, primary_key=True),
    Column("type", Text, nullable=False),
)
"""What was registered, whether or not an event carries it. Made by the read model's migrations: it does not
follow from the events, so a rebuild must not drop it."""


class SearchAttributes:
    """The search attributes of a read model: grows only, and a registered type never changes.

    Registering is a row, not a change of a table: it takes no rebuild, and the attribute is indexed at
    once. Every process that shares the read model knows it from then on.
    """

    def __init__(self, read_model: ReadModel, schema: AttributeSchema) -> None:
        """Keep `schema`, what this process knows, in step with `read_model`, what all do."""
        self._read_model = read_model
        self._schema = schema
        self._settling = asyncio.Lock()

    async def register(self, *attributes: SearchAttribute[Any]) -> None:
        """Register attributes for every process, all or none. The same again is fine.

        Raises:
            ConflictingAttributeTypeError: A name is registered with another type, here, by another
                process, or by an event; nothing was registered.
            StoreError: The read model cannot be written; nothing was registered.
        """
        AttributeSchema(*attributes)  # two of them may contradict each other
        for attribute in attributes:
            _require_same(attribute, self._schema.get(attribute.name))
        types: dict[str, AttributeType] = {one.name: one.type for one in attributes}
        await self._read_model.write(partial(_register, types))
        for attribute in attributes:
            self._schema.register(attribute)

    async def all(self) -> Mapping[str, AttributeType]:
        """Return every attribute's type by name, in order of the names.

        Raises:
            StoreError: The read model cannot be read.
        """
        await self.learn()
        return MappingProxyType({name: self._schema[name] for name in sorted(self._schema)})

    async def learn(self) -> bool:
        """Take in what other processes registered, and what events carried; False if it was known.

        A name that this process knows with another type keeps the type that it has here.

        Raises:
            StoreError: The read model cannot be read.
        """
        known = len(self._schema)
        for name, kind in (await self._read_model.read(_types)).items():
            if self._schema.get(name) is None:
                self._schema.register(name, kind)
        return len(self._schema) > known

    async def publish(self) -> None:
        """Register for every process what this one knows, and take in what the others do.

        Raises:
            ConflictingAttributeTypeError: A name has another type elsewhere; nothing was registered.
            StoreError: The read model cannot be reached; nothing was registered.
        """
        await self.learn()
        known = await self._read_model.read(_types)
        own: dict[str, AttributeType] = {name: self._schema[name] for name in self._schema}
        if own != known:
            await self._read_model.insist(partial(_register, own))

    async def typed(self, values: SearchAttributeValues) -> dict[str, AttributeUpdate]:
        """Return the values as they are recorded; `None` stays, and removes.

        A key that this process has not met is registered for all, a name that it does not know looked up.

        Raises:
            ConflictingAttributeTypeError: A key has another type, here or in another process.
            UnregisteredAttributeError: A name is registered nowhere; lists near names.
            AttributeTypeError: A value does not fit.
            StoreError: The read model cannot be reached. In all cases nothing was registered.
        """
        if not all(self._schema.is_claimed(name_of(key)) for key in values):
            await self.learn()
            self._trial().typed(values)
            keys = [key for key in values if isinstance(key, SearchAttribute)]
            await self.register(*(key for key in keys if not self._schema.is_claimed(key.name)))
        return self._schema.typed(values)

    async def settle(self) -> bool:
        """Ask the read model for what workflow code used of attributes that this process does not know.

        Keys that are new here are registered for every process, names that are unknown are looked up.

        Returns:
            Whether what was decided with them must be decided again: a name was looked up, or a key has
            another type elsewhere, and is known with that from now on.

        Raises:
            StoreError: The read model cannot be reached; to be called again.
        """
        async with self._settling:
            unclaimed, wanted = self._schema.take_unsettled()
            if wanted:
                await self.learn()
                self._schema.note_absent(wanted)
                asyncio.get_running_loop().call_later(_ABSENT, self._schema.look_again, wanted)
            if not unclaimed:
                return bool(wanted)
            try:
                await self._read_model.write(partial(_register, unclaimed))
            except ConflictingAttributeTypeError:
                self._schema.withdraw(unclaimed)
                await self.learn()
                return True
            self._schema.claim(unclaimed)
            return bool(wanted)

    def _trial(self) -> AttributeSchema:
        """Return a schema to try values with, so that a refused one registers nothing."""
        trial = AttributeSchema()
        for name in self._schema:
            trial.register(name, self._schema[name])
        return trial


def _require_same(attribute: SearchAttribute[Any], existing: AttributeType | None) -> None:
    if existing is not None and existing != attribute.type:
        raise ConflictingAttributeTypeError(attribute.name, existing, attribute.type)


def _types(connection: Connection) -> dict[str, AttributeType]:
    """Return the type of every name; what an event carried stands before what was registered."""
    found: dict[str, AttributeType] = {}
    for table in (REGISTERED, SCHEMA):
        rows: Any = connection.execute(select(table.c.name, table.c.type))
        found.update((name, kind) for name, kind in rows)
    return found


def _register(types: Mapping[str, AttributeType], connection: Connection) -> None:
    bulk.upsert(connection, REGISTERED, list(types.items()), keep=frozenset({"type"}))
    # Read behind the write, which waits for another process's: what stands there now, stays.
    found = _types(connection)
    for name, requested in types.items():
        if found[name] != requested:
            raise ConflictingAttributeTypeError(name, found[name], requested)

"""The embedded event store, on SQLite: the default, and what runs without any server."""

from aion_es.store.sqlite.connections import Durability
from aion_es.store.sqlite.store import SQLiteEventStore

__all__ = ["Durability", "SQLiteEventStore"]

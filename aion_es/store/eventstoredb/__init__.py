"""The event store on EventStoreDB or KurrentDB, through the asyncio client of whichever is installed."""

from aion_es.store.eventstoredb.store import EventStoreDBStore

__all__ = ["EventStoreDBStore"]

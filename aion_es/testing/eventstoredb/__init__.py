"""A local server that speaks EventStoreDB's protocol, for development and tests; not for production."""

from aion_es.testing.eventstoredb.faults import Faults
from aion_es.testing.eventstoredb.server import LocalEventStoreDB
from aion_es.testing.eventstoredb.tls import TLS

__all__ = ["TLS", "Faults", "LocalEventStoreDB"]

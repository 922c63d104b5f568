"""The protocol's messages, taken from whichever client package is installed, and gRPC itself.

Neither is a dependency of aion-es. What comes from them is `Any`: this module is that border.
"""

import sys
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

_PLACES: Final = {
    "esdbclient": "esdbclient.protos.Grpc",
    "kurrentdbclient": "kurrentdbclient.protos.v1",
}


@dataclass(frozen=True, slots=True, eq=False)
class Stubs:
    """Modules with the messages of each service, gRPC, and protobuf's `Any`.

    Attributes:
        package: The client package that they were taken from.
    """

    package: str
    grpc: Any
    aio: Any
    streams: Any
    persistent: Any
    shared: Any
    gossip: Any
    status: Any
    any: Any


@cache
def load_stubs() -> Stubs:
    """Return the messages of the client package that is installed.

    With both installed it is the one that is already imported: their descriptors clash.

    Raises:
        ImportError: There is none; says which extra to install.
    """
    installed = [name for name in _PLACES if find_spec(name) is not None]
    if not installed:
        raise ImportError(
            "LocalEventStoreDB takes the protocol's messages from a client package; install one: "
            "pip install 'aion-es[eventstoredb]' or 'aion-es[kurrentdb]'"
        )
    package = next((name for name in installed if name in sys.modules), installed[0])
    place = _PLACES[package]
    return Stubs(
        package=package,
        grpc=import_module("grpc"),
        aio=import_module("grpc.aio"),
        streams=import_module(f"{place}.streams_pb2"),
        persistent=import_module(f"{place}.persistent_pb2"),
        shared=import_module(f"{place}.shared_pb2"),
        gossip=import_module(f"{place}.gossip_pb2"),
        status=import_module(f"{place}.status_pb2"),
        any=import_module("google.protobuf.any_pb2"),
    )

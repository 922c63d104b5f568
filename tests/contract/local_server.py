"""The local EventStoreDB server with a client of whichever package is installed, for its tests."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest

from aion_es.testing.eventstoredb import LocalEventStoreDB

PACKAGES = {
    "esdbclient": "AsyncEventStoreDBClient",
    "kurrentdbclient": "AsyncKurrentDBClient",
}


def installed() -> Any:
    """Return the client package, or skip the module that asks."""
    for name in PACKAGES:
        if find_spec(name) is not None:
            return import_module(name)
    pytest.skip("no EventStoreDB client is installed: make test-clients", allow_module_level=True)


def error(package: Any, name: str) -> type[Exception]:
    """Return an exception of the client: KurrentDB's have a suffix."""
    errors = import_module(f"{package.__name__}.exceptions")
    found: type[Exception] = getattr(errors, name, None) or getattr(errors, f"{name}Error")
    return found


def make_client(package: Any, uri: str, **options: Any) -> Any:
    return getattr(package, PACKAGES[package.__name__])(uri, **options)


@asynccontextmanager
async def connected(package: Any, uri: str, **options: Any) -> AsyncIterator[Any]:
    client = make_client(package, uri, **options)
    await client.connect()
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def serving(package: Any, **options: Any) -> AsyncIterator[tuple[LocalEventStoreDB, Any]]:
    """Start a server and connect a client."""
    server = LocalEventStoreDB(**options)
    async with server as uri, connected(package, uri) as client:
        yield server, client


async def until(subscription: Any, is_last: Callable[[Any], bool]) -> list[Any]:
    """Return what a subscription gives, up to and with the first that is the last wanted."""
    got: list[Any] = []
    async for message in subscription:
        got.append(message)
        if is_last(message):
            break
    return got

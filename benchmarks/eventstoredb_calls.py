"""Calls to a local EventStoreDB server, by our adapter or by the client package itself (P12); one in a process.

`python -m benchmarks.eventstoredb_calls JSON` runs in an environment with a client package and prints one
JSON line. The server is a process of its own.
"""

import asyncio
import importlib
import importlib.util
import json
import resource
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any, Final

from aion_es.ids import StreamName
from aion_es.store.eventstoredb import EventStoreDBStore
from aion_es.store.port import NO_STREAM, CaughtUp, NewEvent, RecordedEvent

CLIENTS: Final = {
    "esdbclient": "AsyncEventStoreDBClient",
    "kurrentdbclient": "AsyncKurrentDBClient",
}
DATA: Final = b'{"order": "0123456789", "amount": 999, "note": "' + b"x" * 150 + b'"}'
_BATCH: Final = 500


def client_package() -> str:
    """Return the client package that is installed."""
    for name in CLIENTS:
        if importlib.util.find_spec(name) is not None:
            return name
    raise ModuleNotFoundError("neither esdbclient nor kurrentdbclient is installed")


@asynccontextmanager
async def server() -> AsyncIterator[str]:
    """Run a server in a process of its own, with its events in memory; yield its connection string."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "aion_es.cli", "dev-server", "--port", "0"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        yield (await process.stdout.readline()).decode().strip()
    finally:
        process.terminate()
        await process.wait()


@asynccontextmanager
async def bare_client(uri: str) -> AsyncIterator[tuple[Any, Any]]:
    """Connect the client package's own client; yield the package and the client."""
    package: Any = importlib.import_module(client_package())
    client = getattr(package, CLIENTS[package.__name__])(uri)
    await client.connect()
    try:
        yield package, client
    finally:
        await client.close()


async def appends(*, ours: bool, count: int, at_once: int) -> Mapping[str, float]:
    """Append `count` events, each to a stream of its own, `at_once` of them under way."""
    async with server() as uri:
        if ours:
            async with await EventStoreDBStore.open(uri) as store:

                async def append(number: int) -> object:
                    event = NewEvent(uuid.uuid4(), "OrderPlaced", DATA, b"{}")
                    return await store.append(StreamName(f"order-{number}"), [event], NO_STREAM)

                return await _timed(append, count, at_once)
        async with bare_client(uri) as (package, client):

            async def append_barely(number: int) -> object:
                event = package.NewEvent(type="OrderPlaced", data=DATA, metadata=b"{}")
                return await client.append_to_stream(
                    f"order-{number}", current_version=package.StreamState.NO_STREAM, events=[event]
                )

            return await _timed(append_barely, count, at_once)


async def _timed(
    append: Callable[[int], Awaitable[object]], count: int, at_once: int
) -> Mapping[str, float]:
    numbers = iter(range(count))

    async def worker() -> None:
        for number in numbers:
            await append(number)

    for number in range(count, count + 20):
        await append(number)
    cpu, began = _cpu_seconds(), time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(at_once)))
    took = time.perf_counter() - began
    return {
        "per_s": count / took,
        "cpu_us": (_cpu_seconds() - cpu) / count * 1e6,
    }


async def subscription(*, ours: bool, count: int) -> Mapping[str, float]:
    """Read `count` stored events through a subscription to all streams."""
    async with server() as uri, await EventStoreDBStore.open(uri) as store:
        for begin in range(0, count, _BATCH):
            events = [
                NewEvent(uuid.uuid4(), "OrderPlaced", DATA, b"{}")
                for _ in range(min(_BATCH, count - begin))
            ]
            await store.append(StreamName(f"order-{begin}"), events, NO_STREAM)
        cpu, began = _cpu_seconds(), time.perf_counter()
        if ours:
            got = await _followed(store)
        else:
            got = await _followed_barely(uri, count)
        took = time.perf_counter() - began
        if got != count:
            raise ValueError(f"{got} events came, not {count}")
        return {"per_s": count / took, "cpu_us": (_cpu_seconds() - cpu) / count * 1e6}


async def _followed(store: EventStoreDBStore) -> int:
    got = 0
    async with store.subscribe_all(prefix="order-") as subscription:
        while True:
            for message in await subscription.next_batch():
                if isinstance(message, RecordedEvent):
                    got += 1
                elif isinstance(message, CaughtUp):
                    return got


async def _followed_barely(uri: str, count: int) -> int:
    got = 0
    async with bare_client(uri) as (_, client):
        subscription = await client.subscribe_to_all(
            filter_include=["order-.*"], filter_by_stream_name=True
        )
        async with subscription:
            async for _ in subscription:
                got += 1
                if got == count:
                    return got
    return got


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


MEASUREMENTS: Final[Mapping[str, Callable[..., Coroutine[Any, Any, Mapping[str, float]]]]] = {
    "appends": appends,
    "subscription": subscription,
}


def main(given: str) -> None:
    """Make the measurement that a JSON object describes, and print what it gave."""
    arguments = json.loads(given)
    values = asyncio.run(MEASUREMENTS[arguments.pop("what")](**arguments))
    package = client_package()
    settings = {"client": f"{package} {version(package)}"}
    print(json.dumps({"values": values, "settings": settings}))


if __name__ == "__main__":
    main(sys.argv[1])

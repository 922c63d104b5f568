"""A local server with a file that is killed and started again on its port, under whoever is connected."""

import asyncio
import signal
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path

import pytest

from aion_es import Context, Engine, activity, workflow
from aion_es.ids import DEFAULT_NAMESPACE, WorkflowId, workflow_prefix, workflow_stream
from aion_es.store.port import (
    ANY,
    Consumer,
    ConsumerGroupSettings,
    EventStore,
    RecordedEvent,
    Subscription,
)
from aion_es.store.url import open_store
from aion_es.testing.store_contract.base import STREAM, collect, some_events
from tests.e2e.scenario import until

pytest.importorskip("grpc", reason="no EventStoreDB client is installed: make test-clients")

COMMAND = (sys.executable, "-m", "aion_es.cli", "dev-server")
PIPE = asyncio.subprocess.PIPE
NULL = asyncio.subprocess.DEVNULL
RUNS = 8
GOAL = 15
KILLED_AT = (100, 250)
"""The server is killed when it holds so many events; in the end there are about 380."""
WRITTEN = 400
SOON = timedelta(seconds=30)
"""Longer than the server is away and clients pause; only a failing test waits so long."""
PREFIX = workflow_prefix(DEFAULT_NAMESPACE)
GROUP = "billing"


class Server:
    """A process that serves a file's events, always on the same port once that is known.

    Attributes:
        uri: Its connection string.
    """

    def __init__(self, data: Path) -> None:
        self.uri = ""
        self._data = data
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Return when it serves."""
        port = self.uri.partition("?")[0].rpartition(":")[2] or "0"
        self._process = await asyncio.create_subprocess_exec(
            *COMMAND, "--port", port, "--data", str(self._data), stdout=PIPE, stderr=NULL
        )
        assert self._process.stdout is not None
        uri = (await self._process.stdout.readline()).decode().strip()
        assert uri.startswith("esdb://127.0.0.1:")
        assert self.uri in {"", uri}
        self.uri = uri

    async def kill(self) -> None:
        """Return when it is dead; it may have been before."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        assert await self._process.wait() == -signal.SIGKILL


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    server = Server(tmp_path / "events.db")
    await server.start()
    yield server
    await server.kill()


@activity
async def add_one(number: int) -> int:
    await asyncio.sleep(0.01)
    return number + 1


@workflow
async def counting(ctx: Context, goal: int) -> int:
    number = 0
    while number < goal:
        number = await ctx.run(add_one, number)
    return number


async def _kill_and_restart_at(count: int, server: Server, store: EventStore) -> None:
    async def holds_enough() -> bool:
        return (await store.end_position()).commit >= count  # the local server counts events

    await until(holds_enough, seconds=SOON.total_seconds())
    await server.kill()
    await server.start()


async def _types(store: EventStore, number: int) -> list[str]:
    """Return what a run's history says, but for the beginnings of attempts: how many is a matter of luck."""
    stream = workflow_stream(DEFAULT_NAMESPACE, WorkflowId(f"count-{number}"))
    types = [event.type async for event in store.read(stream)]
    return [kind for kind in types if kind != "ActivityStarted"]


async def test_an_engine_goes_on_and_no_event_of_its_runs_is_missing(
    server: Server, tmp_path: Path
) -> None:
    async with (
        aclosing(await open_store(server.uri)) as store,
        Engine.open(
            server.uri,
            workflows=[counting],
            activities=[add_one],
            read_model=f"sqlite:///{tmp_path}/readmodel.db",
        ) as engine,
    ):
        handles = [
            await engine.start(counting, GOAL, id=f"count-{number}") for number in range(RUNS)
        ]
        for count in KILLED_AT:
            await _kill_and_restart_at(count, server, store)
        assert [await handle.result(timeout=SOON) for handle in handles] == [GOAL] * RUNS
        await engine.projections.wait_until_caught_up()
        assert await engine.visibility.count("ExecutionStatus='Completed'") == RUNS
        histories = [await _types(store, number) for number in range(RUNS)]
    expected = ["WorkflowStarted"]
    expected += ["ActivityScheduled", "ActivityCompleted"] * GOAL
    expected += ["WorkflowCompleted"]
    assert histories == [expected] * RUNS


async def test_a_subscription_and_a_consumer_group_go_on_and_miss_nothing(server: Server) -> None:
    received: list[RecordedEvent] = []
    handled: set[uuid.UUID] = set()

    async def receive(subscription: Subscription) -> None:
        while batch := await subscription.next_batch():
            received.extend(message for message in batch if isinstance(message, RecordedEvent))

    async def handle(consumer: Consumer) -> None:
        async for delivery in consumer:
            handled.add(delivery.event.event_id)
            await consumer.ack(delivery)

    async def write() -> None:
        for number in range(WRITTEN):
            await store.append(STREAM, some_events(1, f"{number}"), ANY)

    async with aclosing(await open_store(server.uri)) as store:
        await store.create_consumer_group(GROUP, ConsumerGroupSettings(prefix=STREAM))
        async with (
            asyncio.TaskGroup() as tasks,
            store.subscribe_all(prefix=STREAM) as subscription,
            store.consume(GROUP) as consumer,
        ):
            tasks.create_task(receive(subscription))
            tasks.create_task(handle(consumer))
            writing = tasks.create_task(write())
            for count in KILLED_AT:
                await _kill_and_restart_at(count, server, store)
            await writing
            stored = await collect(store.read(STREAM))
            await until(
                lambda: len(received) >= len(stored) == len(handled), seconds=SOON.total_seconds()
            )
        assert [event.revision for event in stored] == list(range(WRITTEN))
        assert received == stored
        assert handled == {event.event_id for event in stored}

"""The local server breaks on purpose: what a client sees of each fault."""

import asyncio
import time
from datetime import timedelta
from typing import Any

import pytest

from aion_es.testing.eventstoredb.refusals import Refused
from tests.contract.local_server import connected, error, installed, serving, until

client_package = installed()
NewEvent: Any = client_package.NewEvent
StreamState: Any = client_package.StreamState
ServiceUnavailable = error(client_package, "ServiceUnavailable")
NodeIsNotLeader = error(client_package, "NodeIsNotLeader")
GrpcError = error(client_package, "GrpcError")

CODE = "RESOURCE_EXHAUSTED"


async def append(client: Any, stream: str = "s", expected: Any = StreamState.ANY) -> Any:
    event = NewEvent(type="A", data=b"{}")
    return await client.append_to_stream(stream, current_version=expected, events=[event])


async def append_once(client: Any) -> None:
    """Append without the client's own second try."""
    event = NewEvent(type="A", data=b"{}")
    await client._connection.streams.batch_append("s", StreamState.ANY, [event])


async def count(client: Any) -> int:
    return len(await client.get_stream("s"))


async def count_once_back(client: Any) -> int:
    """Count, as soon as gRPC tries to connect again: it waits longer after each failure."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await count(client)
            except ServiceUnavailable:
                await asyncio.sleep(0.1)


async def test_a_refused_append_writes_nothing() -> None:
    async with serving(client_package) as (server, client):
        await append(client)
        server.faults.refuse("BatchAppend", code=CODE, details="as planned")
        with pytest.raises(GrpcError, match="as planned"):
            await append_once(client)
        assert await count(client) == 1


async def test_an_append_whose_answer_is_lost_was_written() -> None:
    async with serving(client_package) as (server, client):
        server.faults.lose_answer("BatchAppend", code=CODE, details="as planned")
        with pytest.raises(GrpcError, match="as planned"):
            await append_once(client)
        assert await count(client) == 1


async def test_a_lost_answer_that_the_client_asks_for_again_is_written_once() -> None:
    async with serving(client_package) as (server, client):
        server.faults.lose_answer("BatchAppend")
        await append(client, expected=StreamState.NO_STREAM)
        assert await count(client) == 1


async def test_faults_strike_as_often_as_planned_and_in_order() -> None:
    async with serving(client_package) as (server, client):
        server.faults.refuse("BatchAppend", code=CODE, details="as planned", times=2)
        server.faults.lose_answer("BatchAppend", code=CODE, details="as planned")
        for _ in range(3):
            with pytest.raises(GrpcError, match="as planned"):
                await append_once(client)
        await append(client)
        assert await count(client) == 2


async def test_cleared_faults_do_not_strike() -> None:
    async with serving(client_package) as (server, client):
        server.faults.refuse("BatchAppend", times=9)
        server.faults.step_down()
        server.faults.clear()
        await append(client)
        assert await count(client) == 1


async def test_a_delayed_call_takes_its_time() -> None:
    async with serving(client_package) as (server, client):
        server.faults.delay("BatchAppend", timedelta(milliseconds=300))
        began = time.monotonic()
        await append(client)
        assert time.monotonic() - began >= 0.3


async def test_a_node_that_stepped_down_names_the_leader_until_it_steps_up() -> None:
    async with serving(client_package) as (server, client):
        await append(client)
        server.faults.step_down("127.0.0.1", 4242)
        with pytest.raises(NodeIsNotLeader) as raised:
            await append_once(client)
        told: Any = raised.value
        leader = getattr(told, "leader_grpc_target", None) or f"{told.host}:{told.port}"
        assert leader == "127.0.0.1:4242"
        server.faults.step_up()
        await append(client)
        assert await count(client) == 2


async def test_a_client_follows_the_leader_to_another_node() -> None:
    async with serving(client_package) as (old, _), serving(client_package) as (new, _):
        node = f"127.0.0.1:{old.port}"
        async with connected(client_package, f"esdb://{node},{node}?Tls=false") as client:
            assert client.connection_target == node
            old.faults.step_down("127.0.0.1", new.port)
            await append(client)
            assert client.connection_target == f"127.0.0.1:{new.port}"


async def test_dropped_subscriptions_end_as_told() -> None:
    async with serving(client_package) as (server, client):
        await append(client)
        consumer = await client.subscribe_to_stream("s")
        await until(consumer, lambda event: event.type == "A")
        server.faults.drop_subscriptions(Refused("UNAVAILABLE", "Socket closed"))
        with pytest.raises(ServiceUnavailable):
            await until(consumer, lambda event: False)


async def test_broken_connections_end_calls_and_the_server_goes_on() -> None:
    async with serving(client_package) as (server, client):
        await append(client)
        consumer = await client.subscribe_to_stream("s")
        await until(consumer, lambda event: event.type == "A")
        await server.drop_connections()
        with pytest.raises(Exception):  # noqa: B017, PT011 - which one is the client's and gRPC's affair
            await until(consumer, lambda event: False)
        await append(client)
        assert await count(client) == 2


async def test_a_stopped_server_is_away_and_comes_back_with_what_it_had() -> None:
    async with serving(client_package) as (server, client):
        await append(client)
        await server.stop()
        with pytest.raises(ServiceUnavailable):
            await append(client)
        await server.start()
        assert await count_once_back(client) == 1

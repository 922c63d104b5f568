"""The local server, through a client: catch-up subscriptions, as the real one gives them."""

import asyncio
from typing import Any

import pytest

from tests.contract.local_server import error, installed, serving, until

client_package = installed()
NewEvent: Any = client_package.NewEvent
StreamState: Any = client_package.StreamState
StreamIsDeleted = error(client_package, "StreamIsDeleted")
ConsumerTooSlow = error(client_package, "ConsumerTooSlow")


def event(type: str = "OrderCreated") -> Any:
    return NewEvent(type=type, data=b"{}")


async def append(client: Any, stream: str, *types: str) -> int:
    position: int = await client.append_to_stream(
        stream, current_version=StreamState.ANY, events=[event(name) for name in types]
    )
    return position


def kind(message: Any) -> str:
    name = type(message).__name__
    return str(message.type) if name == "RecordedEvent" else name


def is_caught_up(message: Any) -> bool:
    return kind(message) == "CaughtUp"


def has_type(type: str) -> Any:
    return lambda message: kind(message) == type


async def test_all_comes_from_the_start_and_goes_on_live() -> None:
    async with serving(client_package) as (_, client):
        await append(client, "s", "A", "B")
        async with await client.subscribe_to_all(include_caught_up=True) as subscription:
            assert [kind(m) for m in await until(subscription, is_caught_up)] == [
                "A",
                "B",
                "CaughtUp",
            ]
            await append(client, "t", "C")
            assert [kind(m) for m in await until(subscription, has_type("C"))] == ["C"]


async def test_the_position_at_which_a_subscription_begins_is_exclusive() -> None:
    async with serving(client_package) as (_, client):
        first = await append(client, "s", "A")
        await append(client, "s", "B", "C")
        async with await client.subscribe_to_all(commit_position=first) as subscription:
            assert [kind(m) for m in await until(subscription, has_type("C"))] == ["B", "C"]
        async with await client.subscribe_to_stream("s", stream_position=1) as subscription:
            assert [kind(m) for m in await until(subscription, has_type("C"))] == ["C"]


async def test_a_subscription_from_the_end_gives_only_what_comes_later() -> None:
    async with serving(client_package) as (_, client):
        await append(client, "s", "A")
        async with (
            await client.subscribe_to_all(from_end=True) as of_all,
            await client.subscribe_to_stream("s", from_end=True) as of_stream,
        ):
            await append(client, "s", "B")
            assert [kind(m) for m in await until(of_all, has_type("B"))] == ["B"]
            assert [kind(m) for m in await until(of_stream, has_type("B"))] == ["B"]


async def test_a_stream_gives_only_its_own_events_even_before_it_is_there() -> None:
    async with serving(client_package) as (_, client):
        subscribing = client.subscribe_to_stream("s", include_caught_up=True)
        async with await subscribing as subscription:
            assert [kind(m) for m in await until(subscription, is_caught_up)] == ["CaughtUp"]
            await append(client, "other", "X")
            await append(client, "s", "A", "B")
            got = await until(subscription, has_type("B"))
        assert [(m.type, m.stream_position) for m in got] == [("A", 0), ("B", 1)]


async def test_checkpoints_come_where_nothing_matches_and_never_run_ahead() -> None:
    async with serving(client_package) as (_, client):
        await append(client, "s", *("A",) * 25)
        end = await client.get_commit_position(filter_exclude=())
        async with await client.subscribe_to_all(
            filter_include=["Nothing"],
            include_checkpoints=True,
            include_caught_up=True,
            window_size=10,
            checkpoint_interval_multiplier=1,
        ) as subscription:
            got = await until(subscription, is_caught_up)
        assert [kind(m) for m in got] == ["Checkpoint", "Checkpoint", "Checkpoint", "CaughtUp"]
        assert [m.commit_position for m in got[:-1]] == [10, 20, end]


async def test_a_live_subscription_is_told_how_far_it_is() -> None:
    async with serving(client_package) as (_, client):
        async with await client.subscribe_to_all(
            filter_include=["Wanted"],
            include_checkpoints=True,
            from_end=True,
            window_size=5,
            checkpoint_interval_multiplier=1,
        ) as subscription:
            last = await append(client, "s", *("A",) * 4, "Wanted")
            got = await until(subscription, has_type("Wanted"))
            got += await until(
                subscription, lambda m: kind(m) == "Checkpoint" and m.commit_position == last
            )
        assert [kind(m) for m in got if kind(m) != "Checkpoint"] == ["Wanted"]


async def test_subscriptions_by_stream_name_give_those_streams() -> None:
    async with serving(client_package) as (_, client):
        await append(client, "order-1", "A")
        await append(client, "invoice-1", "B")
        async with await client.subscribe_to_all(
            filter_include=["order-.*"], filter_by_stream_name=True
        ) as subscription:
            await append(client, "invoice-2", "C")
            await append(client, "order-2", "D")
            got = await until(subscription, has_type("D"))
        assert [m.stream_name for m in got] == ["order-1", "order-2"]


async def test_a_busy_writer_makes_neither_gap_nor_repeat() -> None:
    async with serving(client_package) as (_, client):

        async def write() -> None:
            for n in range(60):
                await append(client, f"s-{n % 3}", "A", "A")
            await append(client, "s-0", "Last")

        async with asyncio.TaskGroup() as group:
            group.create_task(write())
            async with await client.subscribe_to_all() as subscription:
                got = await until(subscription, has_type("Last"))
        assert len(got) == 121
        positions = [m.commit_position for m in got]
        assert positions == sorted(set(positions))


async def test_links_of_a_category_are_resolved_and_go_on_live() -> None:
    async with serving(client_package) as (_, client):
        await append(client, "order-1", "A")
        async with await client.subscribe_to_stream("$ce-order", resolve_links=True) as category:
            await append(client, "invoice-1", "X")
            await append(client, "order-2", "B")
            got = await until(category, has_type("B"))
        assert [(m.stream_name, m.link.stream_position) for m in got] == [
            ("order-1", 0),
            ("order-2", 1),
        ]


async def test_a_tombstoned_stream_admits_no_subscription() -> None:
    async with serving(client_package) as (_, client):
        await client.tombstone_stream("s", current_version=StreamState.ANY)
        with pytest.raises(StreamIsDeleted):
            async for _ in await client.subscribe_to_stream("s"):
                pass


async def test_a_live_subscription_ends_when_its_stream_is_tombstoned() -> None:
    got: list[int] = []
    async with serving(client_package) as (_, client):
        await append(client, "s", "A")
        await append(client, "other", "A")
        with pytest.raises(StreamIsDeleted):  # noqa: PT012 - raised by the loop, when it has nothing left
            async for message in await client.subscribe_to_stream("s", include_caught_up=True):
                if not is_caught_up(message):
                    got.append(message.stream_position)
                else:
                    await append(client, "s", "B")
                    await append(client, "s", "C")
                    await client.tombstone_stream("s", current_version=StreamState.ANY)
        assert [e.type for e in await client.get_stream("other")] == ["A"]
    assert got == [0, 1, 2]


async def test_a_subscriber_that_is_too_slow_is_told_so() -> None:
    async with serving(client_package) as (server, client):
        await append(client, "s", "A")
        with pytest.raises(ConsumerTooSlow):  # noqa: PT012 - one client says it again when closed
            async with await client.subscribe_to_all() as subscription:
                await until(subscription, has_type("A"))
                assert server.faults.drop_subscriptions() == 1
                await until(subscription, has_type("never"))

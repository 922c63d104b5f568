"""The local server, through a client: persistent subscriptions, as the real one gives them."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.contract.local_server import error, installed, serving, until

client_package = installed()
NewEvent: Any = client_package.NewEvent
StreamState: Any = client_package.StreamState
NotFound = error(client_package, "NotFound")
AlreadyExists = error(client_package, "AlreadyExists")
MaximumSubscriptionsReached = error(client_package, "MaximumSubscriptionsReached")


async def append(client: Any, stream: str, *types: str) -> int:
    events = [NewEvent(type=kind, data=b"{}") for kind in types]
    position: int = await client.append_to_stream(
        stream, current_version=StreamState.ANY, events=events
    )
    return position


def has_type(type: str) -> Any:
    return lambda event: event.type == type


async def take(subscription: Any, count: int, answer: str = "ack") -> list[tuple[str, int]]:
    """Take so many deliveries and answer each; return types and how often each was delivered before."""
    got: list[tuple[str, int]] = []
    async for event in subscription:
        got.append((event.type, event.retry_count))
        if answer == "ack":
            await subscription.ack(event)
        else:
            await subscription.nack(event, action=answer)
        if len(got) == count:
            break
    return got


async def info_once(client: Any, group: str, is_so: Any, **options: Any) -> Any:
    """Return the group's description as soon as it is so: answers take a moment to arrive."""
    async with asyncio.timeout(10):
        while not is_so(info := await client.get_subscription_info(group, **options)):  # noqa: ASYNC110 - the server has no event to wait for
            await asyncio.sleep(0.02)
    return info


# ---------------------------------------------------------------------------- managing


async def test_a_group_is_created_once_listed_described_and_deleted() -> None:
    async with serving(client_package) as (_, client):
        await client.create_subscription_to_stream("g", "s", consumer_strategy="RoundRobin")
        await client.create_subscription_to_all("g", from_end=True)
        with pytest.raises(AlreadyExists):
            await client.create_subscription_to_stream("g", "s")
        listed = await client.list_subscriptions()
        assert [(i.event_source, i.group_name) for i in listed] == [("s", "g"), ("$all", "g")]
        assert [i.event_source for i in await client.list_subscriptions_to_stream("s")] == ["s"]
        info = await client.get_subscription_info("g", stream_name="s")
        assert (info.consumer_strategy, info.start_from, info.parked_message_count) == (
            "RoundRobin",
            "0",
            0,
        )
        assert (await client.get_subscription_info("g")).start_from == "C:-1/P:-1"
        await client.delete_subscription("g", stream_name="s")
        for attempt in (
            client.get_subscription_info("g", stream_name="s"),
            client.delete_subscription("g", stream_name="s"),
            client.read_subscription_to_stream("g", "s"),
            client.replay_parked_events("g", stream_name="s"),
            client.update_subscription_to_stream("g", "s"),
        ):
            with pytest.raises(NotFound):
                await attempt


async def test_settings_are_changed_and_the_filter_is_kept() -> None:
    async with serving(client_package) as (_, client):
        await append(client, "s", "A", "B")
        await client.create_subscription_to_all("g", filter_include=["B"])
        await client.update_subscription_to_all("g", message_timeout=15.0, max_retry_count=3)
        info = await client.get_subscription_info("g")
        assert (info.message_timeout, info.max_retry_count, info.start_from) == (15.0, 3, "C:0/P:0")
        async with await client.read_subscription_to_all("g") as consumer:
            assert await take(consumer, 1) == [("B", 0)]


async def test_an_update_ends_the_consumers() -> None:
    async with serving(client_package) as (_, client):
        await client.create_subscription_to_stream("g", "s")
        consumer = await client.read_subscription_to_stream("g", "s")
        await client.update_subscription_to_stream("g", "s", max_retry_count=3)
        with pytest.raises(Exception, match="dropped"):
            await until(consumer, has_type("never"))


# ---------------------------------------------------------------------------- delivering


async def test_a_group_of_a_stream_delivers_what_is_there_and_what_comes() -> None:
    async with serving(client_package) as (_, client):
        await append(client, "s", "A", "B")
        await client.create_subscription_to_stream("g", "s", stream_position=1)
        async with await client.read_subscription_to_stream("g", "s") as consumer:
            assert await take(consumer, 1) == [("B", 0)]
            await append(client, "other", "X")
            await append(client, "s", "C")
            assert await take(consumer, 1) == [("C", 0)]


async def test_the_position_at_which_a_group_of_all_begins_is_inclusive() -> None:
    async with serving(client_package) as (_, client):
        await append(client, "s", "A")
        position = await append(client, "s", "B")
        await append(client, "s", "C")
        await client.create_subscription_to_all("g", commit_position=position)
        async with await client.read_subscription_to_all("g") as consumer:
            assert await take(consumer, 2) == [("B", 0), ("C", 0)]


async def test_a_group_from_the_end_of_all_matches_by_stream_name() -> None:
    async with serving(client_package) as (_, client):
        await append(client, "order-1", "A")
        await client.create_subscription_to_all(
            "g", filter_include=["order-.*"], filter_by_stream_name=True, from_end=True
        )
        await append(client, "invoice-1", "X")
        await append(client, "order-1", "B")
        async with await client.read_subscription_to_all("g") as consumer:
            assert await take(consumer, 1) == [("B", 0)]


async def test_a_group_resolves_links() -> None:
    async with serving(client_package) as (_, client):
        await append(client, "order-1", "A")
        await client.create_subscription_to_stream("g", "$ce-order", resolve_links=True)
        async with await client.read_subscription_to_stream("g", "$ce-order") as consumer:
            assert await take(consumer, 1) == [("A", 0)]
            await info_once(
                client,
                "g",
                lambda info: info.outstanding_messages_count == 0,
                stream_name="$ce-order",
            )


async def test_what_a_group_of_a_category_parked_comes_again_when_replayed() -> None:
    async with serving(client_package) as (_, client):
        await append(client, "order-1", "A")
        await append(client, "order-2", "B")
        category = {"stream_name": "$ce-order"}
        await client.create_subscription_to_stream("g", "$ce-order", resolve_links=True)
        async with await client.read_subscription_to_stream("g", "$ce-order") as consumer:
            assert await take(consumer, 2, "park") == [("A", 0), ("B", 0)]
            await info_once(client, "g", lambda info: info.parked_message_count == 2, **category)
            await client.replay_parked_events("g", **category)
            assert await take(consumer, 2) == [("A", 0), ("B", 0)]


async def test_one_consumer_too_many_is_refused() -> None:
    async with serving(client_package) as (_, client):
        await client.create_subscription_to_stream("g", "s", max_subscriber_count=1)
        async with await client.read_subscription_to_stream("g", "s"):
            with pytest.raises(MaximumSubscriptionsReached):
                await client.read_subscription_to_stream("g", "s")


# ---------------------------------------------------------------------------- answers


async def test_what_is_to_be_retried_comes_again_and_is_parked_in_the_end() -> None:
    async with serving(client_package) as (_, client):
        await append(client, "s", "A")
        await client.create_subscription_to_stream("g", "s", max_retry_count=2)
        async with await client.read_subscription_to_stream("g", "s") as consumer:
            assert await take(consumer, 3, "retry") == [("A", 0), ("A", 1), ("A", 2)]
            await info_once(
                client, "g", lambda info: info.parked_message_count == 1, stream_name="s"
            )


async def test_what_is_parked_comes_again_when_replayed() -> None:
    async with serving(client_package) as (_, client):
        await append(client, "s", "A", "B", "C")
        await client.create_subscription_to_stream("g", "s")
        async with await client.read_subscription_to_stream("g", "s") as consumer:
            assert await take(consumer, 3, "park") == [("A", 0), ("B", 0), ("C", 0)]
            await info_once(
                client, "g", lambda info: info.parked_message_count == 3, stream_name="s"
            )
            await client.replay_parked_events("g", stream_name="s")
            assert await take(consumer, 3) == [("A", 0), ("B", 0), ("C", 0)]
        info = await client.get_subscription_info("g", stream_name="s")
        assert info.parked_message_count == 0


@pytest.mark.parametrize("action", ["skip", "stop"])
async def test_what_is_skipped_does_not_come_again(action: str) -> None:
    async with serving(client_package) as (_, client):
        await append(client, "s", "A", "B")
        await client.create_subscription_to_stream("g", "s")
        async with await client.read_subscription_to_stream("g", "s") as consumer:
            assert await take(consumer, 1, action) == [("A", 0)]
            assert await take(consumer, 1) == [("B", 0)]
            info = await info_once(
                client, "g", lambda info: info.outstanding_messages_count == 0, stream_name="s"
            )
            assert info.parked_message_count == 0


async def test_what_is_not_answered_in_time_comes_again() -> None:
    async with serving(client_package) as (_, client):
        await append(client, "s", "A", "B")
        await client.create_subscription_to_stream("g", "s", message_timeout=0.5)
        reading = client.read_subscription_to_stream("g", "s", event_buffer_size=1)
        async with await reading as consumer:
            got = await until(consumer, lambda event: event.retry_count == 1)
            assert [event.type for event in got] == ["A", "A"]


async def test_what_a_consumer_left_behind_goes_to_the_next_one() -> None:
    async with serving(client_package) as (_, client):
        await append(client, "s", "A", "B")
        await client.create_subscription_to_stream("g", "s")
        async with await client.read_subscription_to_stream("g", "s") as consumer:
            await until(consumer, has_type("A"))
        async with await client.read_subscription_to_stream("g", "s") as consumer:
            assert [kind for kind, _ in await take(consumer, 2)] == ["A", "B"]


# ---------------------------------------------------------------------------- sharing


async def test_round_robin_gives_each_consumer_the_same_share() -> None:
    async with serving(client_package) as (_, client):
        await client.create_subscription_to_stream("g", "s", consumer_strategy="RoundRobin")
        async with (
            await client.read_subscription_to_stream("g", "s") as one,
            await client.read_subscription_to_stream("g", "s") as other,
        ):
            await append(client, "s", "A", "B", "C", "D")
            assert await take(one, 2) == [("A", 0), ("C", 0)]
            assert await take(other, 2) == [("B", 0), ("D", 0)]


async def test_dispatch_to_single_fills_the_first_consumer_first() -> None:
    async with serving(client_package) as (_, client):
        await client.create_subscription_to_stream("g", "s", consumer_strategy="DispatchToSingle")
        async with (
            await client.read_subscription_to_stream("g", "s", event_buffer_size=3) as one,
            await client.read_subscription_to_stream("g", "s") as other,
        ):
            await append(client, "s", "A", "B", "C", "D")
            assert await take(other, 1) == [("D", 0)]
            assert await take(one, 3) == [("A", 0), ("B", 0), ("C", 0)]


async def test_pinned_sends_one_streams_events_to_one_consumer() -> None:
    async with serving(client_package) as (_, client):
        await client.create_subscription_to_all(
            "g", filter_include=["s-.*"], filter_by_stream_name=True, consumer_strategy="Pinned"
        )
        async with (
            await client.read_subscription_to_all("g") as one,
            await client.read_subscription_to_all("g") as other,
        ):
            for n in range(8):
                await append(client, f"s-{n % 4}", "A")
            streams: list[set[str]] = []
            for consumer in (one, other):
                got: list[Any] = []
                async for event in consumer:
                    await consumer.ack(event)
                    got.append(event.stream_name)
                    if len(got) == 4:
                        break
                streams.append(set(got))
        assert streams[0] & streams[1] == set()
        assert len(streams[0]) == len(streams[1]) == 2


# ---------------------------------------------------------------------------- what survives


async def test_groups_their_place_and_what_they_parked_survive_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with serving(client_package, path=path) as (_, client):
        await append(client, "s", "A", "B", "C")
        await client.create_subscription_to_stream("g", "s", max_retry_count=4)
        await client.create_subscription_to_all("g", filter_include=["[A-Z]"])
        async with await client.read_subscription_to_stream("g", "s") as consumer:
            assert await take(consumer, 1, "park") == [("A", 0)]
            assert await take(consumer, 1) == [("B", 0)]
            await info_once(
                client, "g", lambda info: info.parked_message_count == 1, stream_name="s"
            )
        async with await client.read_subscription_to_all("g") as consumer:
            assert await take(consumer, 2) == [("A", 0), ("B", 0)]
    async with serving(client_package, path=path) as (_, client):
        info = await client.get_subscription_info("g", stream_name="s")
        assert (info.max_retry_count, info.parked_message_count) == (4, 1)
        async with await client.read_subscription_to_stream("g", "s") as consumer:
            assert await take(consumer, 1) == [("C", 0)]
            await client.replay_parked_events("g", stream_name="s")
            assert await take(consumer, 1) == [("A", 0)]
        async with await client.read_subscription_to_all("g") as consumer:
            assert await take(consumer, 1) == [("C", 0)]

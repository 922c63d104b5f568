"""One persistent subscription of the local server, without a network: who gets what, and when again."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aion_es.store.port import Position
from aion_es.testing.eventstoredb.consumer_group import ConsumerGroup, Entry, Member
from aion_es.testing.eventstoredb.group_info import measurements
from aion_es.testing.eventstoredb.group_settings import (
    DISPATCH_TO_SINGLE,
    PINNED,
    PINNED_BY_CORRELATION,
    ROUND_ROBIN,
    GroupSettings,
)
from aion_es.testing.eventstoredb.refusals import group_dropped
from tests.unit.local_server_events import event_id, recorded


def group_of(*, strategy: str = ROUND_ROBIN, **settings: Any) -> ConsumerGroup:
    return ConsumerGroup(GroupSettings("s", "g", start=0, strategy=strategy, **settings))


def member(slots: int = 10) -> Member:
    return Member(slots, name="test", username="", peer="ipv4:127.0.0.1:1")


def offer(group: ConsumerGroup, *numbers: int, stream: str = "s") -> None:
    for number in numbers:
        event = recorded(number, stream=stream)
        group.offer(Entry((event, None), event))


def fetch(one: Member) -> list[tuple[int, int]]:
    """Return revision and earlier deliveries of what was handed out and not fetched yet."""
    got = [(entry.source.revision, entry.retries) for entry in one.outbox]
    one.outbox.clear()
    return got


def test_round_robin_takes_turns_and_passes_over_the_full() -> None:
    group, one, other = group_of(), member(1), member(3)
    group.join(one)
    group.join(other)
    offer(group, 0, 1, 2, 3, 4)
    assert (fetch(one), fetch(other)) == ([(0, 0)], [(1, 0), (2, 0), (3, 0)])
    group.ack(one, [event_id(0)])
    assert fetch(one) == [(4, 0)]


def test_who_joins_a_group_that_was_ended_is_ended_too() -> None:
    group, early, late = group_of(), member(), member()
    group.join(early)
    refusal = group_dropped("s", "g")
    group.end(refusal)
    group.join(late)
    assert (early.ending, late.ending, late.changed.is_set()) == (refusal, refusal, True)


def test_dispatch_to_single_fills_the_first() -> None:
    group, one, other = group_of(strategy=DISPATCH_TO_SINGLE), member(2), member(2)
    group.join(one)
    group.join(other)
    offer(group, 0, 1, 2)
    assert (fetch(one), fetch(other)) == ([(0, 0), (1, 0)], [(2, 0)])


def test_a_pinned_stream_waits_for_its_consumer_while_others_go_on() -> None:
    group, one, other = group_of(strategy=PINNED), member(1), member(2)
    group.join(one)
    group.join(other)
    offer(group, 0, stream="a")
    offer(group, 1, stream="b")
    offer(group, 2, stream="a")
    offer(group, 3, stream="b")
    assert (fetch(one), fetch(other)) == ([(0, 0)], [(1, 0), (3, 0)])
    group.ack(one, [event_id(0)])
    assert fetch(one) == [(2, 0)]


def test_a_pinned_stream_finds_another_consumer_when_its_own_leaves() -> None:
    group, one, other = group_of(strategy=PINNED), member(), member()
    group.join(one)
    group.join(other)
    offer(group, 0, stream="a")
    group.leave(one)
    offer(group, 1, stream="a")
    assert fetch(other) == [(0, 1), (1, 0)]


@pytest.mark.parametrize(
    ("metadata", "is_pinned_to"),
    [
        pytest.param(b'{"$correlationId": "c"}', "c", id="its_correlation"),
        pytest.param(b'\xc1octets\n{"$correlationId": "c"}', "c", id="its_correlation_of_octets"),
        pytest.param(b'{"other": 1}', "s", id="its_stream_without_one"),
        pytest.param(b'{"$correlationId": 5}', "s", id="its_stream_if_it_is_no_text"),
        pytest.param(b'["$correlationId"]', "s", id="its_stream_if_it_is_no_object"),
        pytest.param(b"\xff", "s", id="its_stream_if_it_is_no_json"),
        pytest.param(b"", "s", id="its_stream_without_metadata"),
    ],
)
def test_an_event_pinned_by_correlation_follows(metadata: bytes, is_pinned_to: str) -> None:
    group, one, other = group_of(strategy=PINNED_BY_CORRELATION), member(), member()
    group.join(one)
    group.join(other)
    offer(group, 0, stream=is_pinned_to)  # without metadata, by its stream: the first consumer
    assert fetch(one) == [(0, 0)]
    offer(group, 1, stream="another")  # the second
    event = recorded(2)._replace(metadata=metadata)
    group.offer(Entry((event, None), event))
    assert (fetch(one), fetch(other)) == ([(2, 0)], [(1, 0)])


def test_measurements_are_those_of_the_real_server() -> None:
    assert measurements(list(range(1, 201))) == {
        "Mean": 100,
        "Median": 101,
        "Fastest": 1,
        "Quintile 1": 1,
        "Quintile 2": 41,
        "Quintile 3": 81,
        "Quintile 4": 121,
        "Quintile 5": 161,
        "90%": 181,
        "95%": 191,
        "99%": 199,
        "99.5%": 200,
        "99.9%": 200,
        "Highest": 200,
    }
    assert measurements([]) == {}


def test_only_the_latest_answers_are_measured() -> None:
    group, one = group_of(), member(2_000)
    group.join(one)
    for number in range(1_500):
        offer(group, number)
        group.ack(one, [event_id(number)])
    assert len(one.answer_times) == 1_000


def test_a_retry_goes_before_what_waits_and_is_parked_in_the_end() -> None:
    group, one = group_of(max_retry_count=1), member(1)
    group.join(one)
    offer(group, 0, 1)
    assert fetch(one) == [(0, 0)]
    group.nack(one, [event_id(0)], "Retry", "")
    assert fetch(one) == [(0, 1)]
    group.nack(one, [event_id(0)], "Retry", "")
    assert fetch(one) == [(1, 0)]
    assert [parking.entry.source.revision for parking in group.to_park] == [0]


def test_what_is_overdue_is_delivered_again() -> None:
    group, one = group_of(message_timeout=1), member()
    group.join(one)
    offer(group, 0)
    fetch(one)
    for entry in one.entries():
        entry.due_at = 0.0
    group.expire()
    assert fetch(one) == [(0, 1)]


def test_without_a_timeout_nothing_is_overdue() -> None:
    group, one = group_of(message_timeout=0), member()
    group.join(one)
    offer(group, 0)
    group.expire()
    assert fetch(one) == [(0, 0)]


def test_what_is_done_ends_before_the_oldest_that_is_not() -> None:
    group, one = group_of(), member()
    group.join(one)
    assert group.done_revision == -1
    offer(group, 0, 1, 2)
    group.ack(one, [event_id(1), event_id(2)])
    assert (group.done_revision, group.done_position) == (-1, Position(-1, -1))
    group.ack(one, [event_id(0)])
    assert (group.done_revision, group.done_position) == (2, Position(2, 2))


def test_two_events_of_one_id_are_two_deliveries() -> None:
    group, one = group_of(), member()
    group.join(one)
    for revision in (0, 1):
        event = recorded(revision)._replace(event_id=event_id(7))
        group.offer(Entry((event, None), event))
    group.ack(one, [event_id(7)])
    assert (one.held, group.done_revision) == (1, 0)
    group.ack(one, [event_id(7), event_id(7)])
    assert (one.held, group.done_revision) == (0, 1)


def test_there_is_room_until_the_buffer_is_full() -> None:
    group, one = group_of(history_buffer_size=2, live_buffer_size=1), member()
    offer(group, 0, 1)
    assert not group.room.is_set()
    group.join(one)
    assert group.room.is_set()


@pytest.mark.parametrize("strategy", [ROUND_ROBIN, DISPATCH_TO_SINGLE, PINNED])
@given(steps=st.lists(st.sampled_from(["offer", "ack", "retry", "skip", "leave", "join"])))
def test_no_event_is_lost_whatever_the_consumers_do(strategy: str, steps: list[str]) -> None:
    group = group_of(strategy=strategy, max_retry_count=10**6)
    offered, done = 0, set[int]()
    for step in steps:
        holder = next((one for one in group.members if one.held), None)
        if step == "offer":
            offer(group, offered, stream=f"s-{offered % 3}")
            offered += 1
        elif step == "join":
            group.join(member(2))
        elif step == "leave" and group.members:
            group.leave(group.members[0])
        elif holder is not None and step != "leave":
            revision = next(holder.entries()).source.revision
            if step == "ack":
                group.ack(holder, [event_id(revision)])
            else:
                group.nack(holder, [event_id(revision)], step.capitalize(), "")
            if step != "retry":
                done.add(revision)
    waiting = [entry.source.revision for entry in (*group.waiting, *group.retrying)]
    held = [entry.source.revision for one in group.members for entry in one.entries()]
    assert sorted([*waiting, *held, *done]) == list(range(offered))

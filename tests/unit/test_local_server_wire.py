"""What of the local EventStoreDB server needs no client: envelopes, positions, filters, metadata."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aion_es.store.port import START, Position, RecordedEvent, StreamMetadata
from aion_es.testing.eventstoredb.filters import Filter, FilterSpec
from aion_es.testing.eventstoredb.group_settings import (
    GroupSettings,
    dump,
    load,
    read_position,
    show_position,
)
from aion_es.testing.eventstoredb.refusals import Refused
from aion_es.testing.eventstoredb.stream_metadata import NOTHING, Metadata
from aion_es.testing.eventstoredb.wire import JSON, OCTETS, before, inner, outer, seal, unseal
from tests.unit.local_server_events import recorded


@given(st.binary(max_size=20), st.binary(max_size=20), st.booleans())
def test_metadata_and_content_type_come_back_whatever_the_data(
    data: bytes, metadata: bytes, is_json: bool
) -> None:
    if metadata.startswith((b"\xc1json\n", b"\xc1octets\n")):
        return  # what nobody but this server writes
    kept = seal(data, metadata, is_json=is_json)
    assert unseal(data, kept) == (metadata, JSON if is_json else OCTETS)


def test_metadata_is_kept_as_it_is_where_the_data_tells_its_type() -> None:
    assert seal(b'{"a": 1}', b"m", is_json=True) == b"m"
    assert seal(b"\x00", b"m", is_json=False) == b"m"


@given(st.integers(-1, 2**62))
def test_positions_are_one_higher_outside_and_come_back(place: int) -> None:
    assert outer(Position(place, place)) == (place + 1, place + 1)
    assert inner(*outer(Position(place, place))) == Position(place, place)


def test_an_inclusive_read_begins_after_the_position_before() -> None:
    assert before(START) == START
    assert before(Position(0, 0)) == START
    assert before(Position(5, 5)) == Position(4, 4)


def event_named(stream: str, kind: str) -> RecordedEvent:
    return recorded(0, stream=stream)._replace(type=kind)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (FilterSpec(True, "", ("order-", "invoice-"), 32), ["order-1", "invoice-1"]),
        (FilterSpec(True, r"-1$", (), 32), ["order-1", "invoice-1", "a-1"]),
        (FilterSpec(False, r"^(?!(\$.+$))", (), 32), ["order-1", "invoice-1", "a-1"]),
        (FilterSpec(False, "", ("$",), 32), ["system"]),
    ],
)
def test_a_filter_lets_through_what_matches(spec: FilterSpec, expected: list[str]) -> None:
    events = [
        event_named("order-1", "Made"),
        event_named("invoice-1", "Made"),
        event_named("a-1", "Made"),
        event_named("system", "$metadata"),
    ]
    wanted = Filter(spec)
    for _ in range(2):  # the second time from memory
        assert [event.stream for event in events if wanted.matches(event)] == expected


def test_a_broken_expression_is_refused() -> None:
    with pytest.raises(Refused, match=re.escape("'('")):
        Filter(FilterSpec(True, "(", (), 32))


def test_metadata_says_what_reads_are_limited_to() -> None:
    metadata = Metadata.parse(b'{"$maxCount": 3, "$tb": 2, "$maxAge": "soon", "mine": true}')
    assert metadata.limits == StreamMetadata(max_count=3, truncate_before=2)
    assert not metadata.is_deleted
    assert Metadata.parse(metadata.truncated(2**63 - 1)).is_deleted


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff", b"3"])
def test_metadata_that_is_no_object_says_nothing(data: bytes) -> None:
    assert Metadata.parse(data) == NOTHING


def test_an_acl_names_one_role_or_several() -> None:
    metadata = Metadata.parse(b'{"$acl": {"$r": "$all", "$w": ["alice", "$admins"]}}')
    assert metadata.readers("$r") == frozenset({"$all"})
    assert metadata.readers("$w") == frozenset({"alice", "$admins"})
    assert metadata.readers("$d") is None


def test_settings_of_groups_come_back_as_they_were_kept() -> None:
    groups = [
        GroupSettings("$all", "g", start=None, filter=FilterSpec(True, "", ("a", "b"), 5)),
        GroupSettings("s", "g", start=7, strategy="Pinned", resolve_links=True),
    ]
    assert load(dump(groups)) == groups


def test_a_position_is_shown_with_commit_and_prepare() -> None:
    assert show_position(Position(4, 4)) == "C:5/P:5"
    assert read_position("C:5/P:5") == Position(4, 4)
    assert read_position(show_position(START)) == START

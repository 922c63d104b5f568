"""A stream's limits as EventStoreDB keeps them, and how the server's own use of `$tb` is told from ours."""

import json
from datetime import timedelta
from typing import Any

import pytest

from aion_es.errors import InvalidArgumentError
from aion_es.store.arguments import check_metadata
from aion_es.store.eventstoredb.limits import (
    DELETED,
    begins_at,
    deleted,
    is_deleted,
    limits,
    parse,
    replaced,
)
from aion_es.store.port import StreamMetadata


def _after(said: dict[str, Any], metadata: StreamMetadata) -> dict[str, Any]:
    return parse(replaced(said, metadata))


def test_limits_come_back() -> None:
    metadata = StreamMetadata(max_count=3, max_age=timedelta(days=1), truncate_before=2)
    said = _after({}, metadata)
    assert limits(said) == metadata
    assert (said["$maxCount"], said["$maxAge"], said["$tb"]) == (3, 86_400, 2)


def test_ages_are_whole_seconds_rounded_up() -> None:
    said = _after({}, StreamMetadata(max_age=timedelta(milliseconds=1_001)))
    assert said["$maxAge"] == 2


def test_limits_are_replaced_whole_and_the_rest_is_kept() -> None:
    said = {"$maxCount": 5, "$acl": {"$r": "ops"}, "colour": "red"}
    after = _after(said, StreamMetadata(truncate_before=4))
    assert limits(after) == StreamMetadata(truncate_before=4)
    assert (after["$acl"], after["colour"]) == ({"$r": "ops"}, "red")


def test_what_other_tools_set_is_read() -> None:
    assert limits({"$maxCount": 5, "$tb": 7}) == StreamMetadata(max_count=5, truncate_before=7)


def test_a_deleted_stream_has_no_truncation_of_ours() -> None:
    assert limits({"$tb": DELETED}) == StreamMetadata()


def test_a_deleted_stream_stays_deleted_when_its_limits_are_set() -> None:
    after = _after({"$tb": DELETED}, StreamMetadata(max_count=5))
    assert after["$tb"] == DELETED
    assert limits(after) == StreamMetadata(max_count=5)


def test_a_stream_that_the_server_brought_back_is_deleted_again_with_its_limits() -> None:
    said = _after({"$tb": DELETED, "colour": "red"}, StreamMetadata(max_count=5))
    brought_back = {**said, "$tb": 2}
    assert begins_at(brought_back, 2)
    assert not is_deleted(brought_back)
    after = parse(deleted(brought_back))
    assert is_deleted(after)
    assert limits(after) == StreamMetadata(max_count=5)
    assert after["colour"] == "red"


def test_an_earlier_life_stays_hidden_when_limits_are_set_and_taken_back() -> None:
    recreated = {"$tb": 5}  # as the server writes it when a deleted stream is written again
    limited = _after(recreated, StreamMetadata(max_count=4))
    assert (limited["$tb"], limits(limited)) == (5, StreamMetadata(max_count=4))
    cut = _after(limited, StreamMetadata(truncate_before=8))
    assert (cut["$tb"], limits(cut)) == (8, StreamMetadata(truncate_before=8))
    free = _after(cut, StreamMetadata())
    assert (free["$tb"], limits(free)) == (5, StreamMetadata())


def test_a_new_life_is_seen_in_what_the_server_changed() -> None:
    ours = _after({}, StreamMetadata(truncate_before=2))
    recreated = {**ours, "$tb": 9}  # the server changes this and leaves the rest
    after = _after(recreated, StreamMetadata(truncate_before=1))
    assert (after["$tb"], limits(after)) == (9, StreamMetadata(truncate_before=1))


def test_what_is_not_json_is_no_limit() -> None:
    assert [parse(b"\xff"), parse(b"[1]"), parse(b"")] == [{}, {}, {}]
    assert limits(parse(json.dumps({"$maxCount": "many"}).encode())) == StreamMetadata()


@pytest.mark.parametrize(
    "metadata",
    [
        StreamMetadata(max_count=0),
        StreamMetadata(max_age=timedelta()),
        StreamMetadata(truncate_before=-1),
    ],
    ids=str,
)
def test_limits_that_make_no_sense_are_refused(metadata: StreamMetadata) -> None:
    with pytest.raises(InvalidArgumentError):
        check_metadata(metadata)

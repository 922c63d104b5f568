"""The local server, through a client: appending, reading, deleting, metadata, as the real one does."""

import json
from typing import Any

import pytest

from tests.contract.local_server import connected, error, installed, serving

client_package = installed()
NewEvent: Any = client_package.NewEvent
StreamState: Any = client_package.StreamState

NotFound = error(client_package, "NotFound")
WrongCurrentVersion = error(client_package, "WrongCurrentVersion")
StreamIsDeleted = error(client_package, "StreamIsDeleted")
TooLarge = error(client_package, "MaximumAppendSizeExceededError")

DELETED = 9_223_372_036_854_775_807


def event(type: str = "OrderCreated", data: bytes = b"{}", **more: Any) -> Any:
    return NewEvent(type=type, data=data, **more)


async def append(client: Any, stream: str, expected: Any, *events: Any) -> int:
    position: int = await client.append_to_stream(stream, current_version=expected, events=events)
    return position


async def types(client: Any, stream: str, **options: Any) -> list[str]:
    return [recorded.type for recorded in await client.get_stream(stream, **options)]


async def everything(client: Any, **options: Any) -> list[tuple[str, str, int]]:
    return [
        (recorded.stream_name, recorded.type, recorded.stream_position)
        async for recorded in await client.read_all(**options)
    ]


# ---------------------------------------------------------------------------- appending


async def test_every_field_of_an_event_comes_back() -> None:
    async with serving(client_package) as (_, client):
        binary = event("Bin", b"\x00\xff", metadata=b"m", content_type="application/octet-stream")
        text = event("Text", b"not json", metadata=b"{}")
        octets = event("Octets", b"{}", content_type="application/octet-stream")
        await append(client, "s", StreamState.NO_STREAM, binary, text, octets)
        found = await client.get_stream("s")
    assert [
        (e.id, e.type, e.data, e.metadata, e.content_type, e.stream_name, e.stream_position)
        for e in found
    ] == [
        (binary.id, "Bin", b"\x00\xff", b"m", "application/octet-stream", "s", 0),
        (text.id, "Text", b"not json", b"{}", "application/json", "s", 1),
        (octets.id, "Octets", b"{}", b"", "application/octet-stream", "s", 2),
    ]
    assert all(e.recorded_at is not None and e.link is None for e in found)


@pytest.mark.parametrize("expected", [0, 5, StreamState.EXISTS])
async def test_an_append_to_a_missing_stream_needs_no_stream_or_any(expected: Any) -> None:
    async with serving(client_package) as (_, client):
        with pytest.raises((NotFound, WrongCurrentVersion)):
            await append(client, "s", expected, event())
        with pytest.raises(NotFound):
            await client.get_stream("s")


@pytest.mark.parametrize("expected", [0, 2, StreamState.NO_STREAM])
async def test_an_append_at_the_wrong_revision_writes_nothing(expected: Any) -> None:
    async with serving(client_package) as (_, client):
        await append(client, "s", StreamState.NO_STREAM, event("A"), event("B"))
        with pytest.raises(WrongCurrentVersion):
            await append(client, "s", expected, event("C"))
        assert await types(client, "s") == ["A", "B"]


@pytest.mark.parametrize("expected", [StreamState.ANY, StreamState.EXISTS, 1])
async def test_an_append_at_the_right_revision_is_written(expected: Any) -> None:
    async with serving(client_package) as (_, client):
        first = await append(client, "s", StreamState.NO_STREAM, event("A"), event("B"))
        second = await append(client, "s", expected, event("C"))
        assert await types(client, "s") == ["A", "B", "C"]
        assert second == first + 1 == await client.get_commit_position()


@pytest.mark.parametrize("expected", [StreamState.NO_STREAM, StreamState.ANY])
async def test_the_same_events_again_are_answered_as_the_first_time(expected: Any) -> None:
    async with serving(client_package) as (_, client):
        batch = (event("A"), event("B"))
        first = await append(client, "s", expected, *batch)
        await append(client, "other", StreamState.NO_STREAM, event())
        assert await append(client, "s", expected, *batch) == first
        assert await types(client, "s") == ["A", "B"]


async def test_the_same_ids_after_an_exact_revision_are_a_repetition_even_later() -> None:
    async with serving(client_package) as (_, client):
        second = event("B")
        await append(client, "s", StreamState.NO_STREAM, event("A"))
        position = await append(client, "s", 0, second)
        await append(client, "s", 1, event("C"))
        assert await append(client, "s", 0, second) == position
        assert await types(client, "s") == ["A", "B", "C"]


async def test_the_same_id_at_the_head_is_written_again() -> None:
    async with serving(client_package) as (_, client):
        twice = event("A")
        await append(client, "s", StreamState.NO_STREAM, twice)
        await append(client, "s", 0, twice)
        assert await types(client, "s") == ["A", "A"]


async def test_a_batch_that_is_half_repeated_is_refused() -> None:
    async with serving(client_package) as (_, client):
        first = event("A")
        await append(client, "s", StreamState.ANY, first)
        for expected in (StreamState.ANY, StreamState.NO_STREAM):
            with pytest.raises(WrongCurrentVersion):
                await append(client, "s", expected, first, event("B"))
        assert await types(client, "s") == ["A"]


async def test_the_same_id_in_another_stream_is_another_event() -> None:
    async with serving(client_package) as (_, client):
        same = event("A")
        await append(client, "s", StreamState.ANY, same)
        await append(client, "t", StreamState.ANY, same)
        assert await types(client, "t") == ["A"]


async def test_an_append_of_a_mebibyte_is_refused_and_a_smaller_one_is_not() -> None:
    async with serving(client_package) as (_, client):
        with pytest.raises(TooLarge):
            await append(client, "s", StreamState.ANY, event("A", b"x" * 1_048_576))
        with pytest.raises(TooLarge):
            await append(client, "s", StreamState.ANY, *(event("A", b"x" * 400_000),) * 3)
        await append(client, "s", StreamState.ANY, event("A", b"x" * 1_000_000))
        assert [len(e.data) for e in await client.get_stream("s")] == [1_000_000]


async def test_odd_stream_names_are_names_like_others() -> None:
    async with serving(client_package) as (_, client):
        names = ("ümlaut-☃", "with space", "a/b?c", "x" * 400)
        for name in names:
            await append(client, name, StreamState.NO_STREAM, event("A"))
        for name in names:
            assert await types(client, name) == ["A"]


# ---------------------------------------------------------------------------- reading


async def test_a_stream_is_read_both_ways_from_anywhere_and_as_far_as_wanted() -> None:
    async with serving(client_package) as (_, client):
        await append(client, "s", StreamState.NO_STREAM, *(event(str(n)) for n in range(5)))
        assert await types(client, "s", stream_position=3) == ["3", "4"]
        assert await types(client, "s", limit=2) == ["0", "1"]
        assert await types(client, "s", stream_position=1, limit=2) == ["1", "2"]
        assert await types(client, "s", backwards=True) == ["4", "3", "2", "1", "0"]
        assert await types(client, "s", backwards=True, stream_position=2) == ["2", "1", "0"]
        assert await types(client, "s", backwards=True, limit=1) == ["4"]
        assert await types(client, "s", stream_position=9) == []
        assert await client.get_current_version("s") == 4
        assert await client.get_current_version("unknown") is StreamState.NO_STREAM


async def test_all_begins_inclusive_forwards_and_exclusive_backwards() -> None:
    async with serving(client_package) as (_, client):
        first = await append(client, "s", StreamState.NO_STREAM, event("A"))
        second = await append(client, "t", StreamState.NO_STREAM, event("B"), event("C"))
        assert await everything(client) == [("s", "A", 0), ("t", "B", 0), ("t", "C", 1)]
        assert (await everything(client, commit_position=first))[0] == ("s", "A", 0)
        assert await everything(client, commit_position=second) == [("t", "C", 1)]
        assert await everything(client, commit_position=second, backwards=True) == [
            ("t", "B", 0),
            ("s", "A", 0),
        ]
        assert await everything(client, backwards=True, limit=1) == [("t", "C", 1)]


async def test_a_new_server_holds_an_event_of_its_own_first() -> None:
    async with serving(client_package) as (_, client):
        await append(client, "s", StreamState.NO_STREAM, event("A"))
        assert await everything(client, filter_exclude=()) == [
            ("$epoch-information", "$EpochInformation", 0),
            ("s", "A", 0),
        ]


async def test_all_is_filtered_by_type_and_by_stream() -> None:
    async with serving(client_package) as (_, client):
        for stream in ("order-1", "order-2", "invoice-1"):
            await append(client, stream, StreamState.NO_STREAM, event("Made"), event("Sent"))
        assert await everything(client, filter_include=["Sent"]) == [
            ("order-1", "Sent", 1),
            ("order-2", "Sent", 1),
            ("invoice-1", "Sent", 1),
        ]
        by_stream = {"filter_by_stream_name": True, "limit": 3}
        assert await everything(client, filter_include=["order-.*"], **by_stream) == [
            ("order-1", "Made", 0),
            ("order-1", "Sent", 1),
            ("order-2", "Made", 0),
        ]
        assert await everything(client, filter_exclude=["order.*", r"\$.*"], **by_stream) == [
            ("invoice-1", "Made", 0),
            ("invoice-1", "Sent", 1),
        ]


# ---------------------------------------------------------------------------- deleting


async def test_a_deleted_stream_is_not_found_and_begins_again_after_its_last_event() -> None:
    async with serving(client_package) as (_, client):
        await append(client, "s", StreamState.NO_STREAM, event("A"), event("B"))
        await client.delete_stream("s", current_version=1)
        with pytest.raises(NotFound):
            await client.get_stream("s")
        assert (await client.get_stream_metadata("s"))[0] == {"$tb": DELETED}
        await append(client, "s", StreamState.NO_STREAM, event("C"))
        assert [(e.type, e.stream_position) for e in await client.get_stream("s")] == [("C", 2)]
        assert (await client.get_stream_metadata("s"))[0] == {"$tb": 2}
        assert ("s", "A", 0) in await everything(client)


@pytest.mark.parametrize("expected", [1, StreamState.ANY, StreamState.NO_STREAM])
async def test_a_deleted_stream_can_be_written_again(expected: Any) -> None:
    async with serving(client_package) as (_, client):
        await append(client, "s", StreamState.NO_STREAM, event("A"), event("B"))
        await client.delete_stream("s", current_version=StreamState.ANY)
        with pytest.raises(WrongCurrentVersion):
            await append(client, "s", 0, event("X"))
        await append(client, "s", expected, event("C"))
        assert await types(client, "s") == ["C"]


async def test_a_deleted_stream_does_not_exist() -> None:
    async with serving(client_package) as (_, client):
        await append(client, "s", StreamState.NO_STREAM, event("A"))
        await client.delete_stream("s", current_version=StreamState.EXISTS)
        with pytest.raises(StreamIsDeleted):
            await append(client, "s", StreamState.EXISTS, event("B"))
        with pytest.raises(StreamIsDeleted):
            await client.delete_stream("s", current_version=StreamState.EXISTS)
        await client.delete_stream("s", current_version=StreamState.ANY)
        await client.delete_stream("s", current_version=0)
        with pytest.raises(WrongCurrentVersion):
            await client.delete_stream("s", current_version=7)


@pytest.mark.parametrize("expected", [StreamState.ANY, StreamState.NO_STREAM, StreamState.EXISTS])
async def test_a_stream_that_never_was_cannot_be_deleted(expected: Any) -> None:
    async with serving(client_package) as (_, client):
        with pytest.raises(NotFound):
            await client.delete_stream("s", current_version=expected)


async def test_a_deletion_leaves_nothing_of_the_metadata() -> None:
    async with serving(client_package) as (_, client):
        await append(client, "s", StreamState.NO_STREAM, event("A"))
        await client.set_stream_metadata("s", metadata={"$maxCount": 5, "mine": 1})
        await client.delete_stream("s", current_version=0)
        assert await client.get_stream_metadata("s") == ({"$tb": DELETED}, 1)


async def test_a_stream_that_has_only_metadata_can_be_deleted() -> None:
    async with serving(client_package) as (_, client):
        await client.set_stream_metadata("s", metadata={"mine": 1})
        await client.delete_stream("s", current_version=StreamState.NO_STREAM)
        assert await client.get_stream_metadata("s") == ({"$tb": DELETED}, 1)


async def test_metadata_brings_a_deleted_stream_back_without_its_events() -> None:
    async with serving(client_package) as (_, client):
        await append(client, "s", StreamState.NO_STREAM, event("A"), event("B"))
        await client.delete_stream("s", current_version=1)
        await client.set_stream_metadata("s", metadata={"mine": 1}, current_version=0)
        assert await client.get_stream_metadata("s") == ({"mine": 1, "$tb": 2}, 2)
        assert await types(client, "s") == []
        await append(client, "s", 1, event("C"))
        assert await types(client, "s") == ["C"]


async def test_metadata_that_is_not_json_brings_a_deleted_stream_back_with_its_events() -> None:
    async with serving(client_package) as (_, client):
        await append(client, "s", StreamState.NO_STREAM, event("A"), event("B"))
        await client.delete_stream("s", current_version=1)
        await append(client, "$$s", 0, event("$metadata", b"no JSON"))
        assert await types(client, "s") == ["A", "B"]


async def test_old_metadata_that_is_repeated_changes_nothing() -> None:
    async with serving(client_package) as (_, client):
        await append(client, "s", StreamState.NO_STREAM, event("A"), event("B"))
        first = event("$metadata", b'{"$maxCount": 1}')
        await append(client, "$$s", StreamState.NO_STREAM, first)
        await append(client, "$$s", 0, event("$metadata", b"{}"))
        await append(client, "$$s", StreamState.NO_STREAM, first)
        assert await types(client, "s") == ["A", "B"]


async def test_a_tombstone_ends_a_stream_for_good() -> None:
    async with serving(client_package) as (_, client):
        await append(client, "s", StreamState.NO_STREAM, event("A"))
        with pytest.raises(WrongCurrentVersion):
            await client.tombstone_stream("s", current_version=5)
        await client.tombstone_stream("s", current_version=0)
        for attempt in (
            client.get_stream("s"),
            client.get_stream_metadata("s"),
            append(client, "s", StreamState.ANY, event("B")),
            client.tombstone_stream("s", current_version=StreamState.ANY),
            client.delete_stream("s", current_version=StreamState.ANY),
        ):
            with pytest.raises(StreamIsDeleted):
                await attempt
        assert (await everything(client, filter_exclude=()))[-1] == (
            "s",
            "$streamDeleted",
            DELETED,
        )


async def test_a_stream_that_never_was_can_be_tombstoned() -> None:
    async with serving(client_package) as (_, client):
        with pytest.raises(NotFound):
            await client.tombstone_stream("s", current_version=StreamState.EXISTS)
        await client.tombstone_stream("s", current_version=StreamState.ANY)
        with pytest.raises(StreamIsDeleted):
            await append(client, "s", StreamState.NO_STREAM, event("A"))


# ---------------------------------------------------------------------------- metadata


async def test_metadata_is_kept_whole_and_has_revisions() -> None:
    async with serving(client_package) as (_, client):
        assert await client.get_stream_metadata("s") == ({}, StreamState.NO_STREAM)
        await client.set_stream_metadata(
            "s", metadata={"foo": [1]}, current_version=StreamState.NO_STREAM
        )
        assert await client.get_stream_metadata("s") == ({"foo": [1]}, 0)
        with pytest.raises(WrongCurrentVersion):
            await client.set_stream_metadata("s", metadata={}, current_version=3)


async def test_a_stream_is_read_within_its_count_and_truncation() -> None:
    async with serving(client_package) as (_, client):
        await append(client, "s", StreamState.NO_STREAM, *(event(str(n)) for n in range(6)))
        await client.set_stream_metadata("s", metadata={"$maxCount": 2})
        assert await types(client, "s") == ["4", "5"]
        await client.set_stream_metadata("s", metadata={"$tb": 3})
        assert await types(client, "s") == ["3", "4", "5"]
        await client.set_stream_metadata("s", metadata={"$maxAge": 3600, "$tb": 6})
        assert await types(client, "s") == []


async def test_a_stream_that_has_only_metadata_exists_to_an_append() -> None:
    async with serving(client_package) as (_, client):
        await client.set_stream_metadata("s", metadata={"foo": 1})
        await append(client, "s", StreamState.EXISTS, event("A"))
        assert await types(client, "s") == ["A"]


# ---------------------------------------------------------------------------- links


async def test_a_link_leads_to_its_event_and_stands_alone_when_that_is_gone() -> None:
    async with serving(client_package) as (_, client):
        await append(client, "s", StreamState.NO_STREAM, event("A"), event("B"))
        await append(client, "links", StreamState.NO_STREAM, event("$>", b"1@s"))
        (resolved,) = await client.get_stream("links", resolve_links=True)
        assert (resolved.type, resolved.stream_name, resolved.stream_position) == ("B", "s", 1)
        assert (resolved.link.stream_name, resolved.link.stream_position) == ("links", 0)
        (plain,) = await client.get_stream("links")
        assert (plain.type, plain.data) == ("$>", b"1@s")
        await client.delete_stream("s", current_version=StreamState.ANY)
        assert await client.get_stream("links", resolve_links=True) == ()


@pytest.mark.parametrize(
    "target",
    ["0@tombstoned", "9@s", "99999999999999999999@s", "²@s", "0@$ce-nothing", "0@", "nothing"],
)
async def test_a_link_to_what_cannot_be_read_stands_alone(target: str) -> None:
    async with serving(client_package) as (_, client):
        await append(client, "s", StreamState.NO_STREAM, event("A"))
        await append(client, "tombstoned", StreamState.NO_STREAM, event("A"))
        await client.tombstone_stream("tombstoned", current_version=StreamState.ANY)
        await append(client, "links", StreamState.NO_STREAM, event("$>", target.encode()))
        assert (
            await client.get_stream("links", resolve_links=True) == ()
        )  # the client leaves it out
        assert len(await client.get_stream("links")) == 1


async def test_a_link_to_a_link_leads_to_that_link() -> None:
    async with serving(client_package) as (_, client):
        await append(client, "order-1", StreamState.NO_STREAM, event("Made"))
        await append(client, "links", StreamState.NO_STREAM, event("$>", b"0@$ce-order"))
        (resolved,) = await client.get_stream("links", resolve_links=True)
        assert (resolved.type, resolved.data, resolved.stream_name) == (
            "$>",
            b"0@order-1",
            "$ce-order",
        )


async def test_a_link_of_a_category_has_an_id_of_its_own_and_says_where_it_comes_from() -> None:
    async with serving(client_package) as (_, client):
        await append(client, "order-1", StreamState.NO_STREAM, event("Made"))
        (made,) = await client.get_stream("order-1")
        (link,) = await client.get_stream("$ce-order")
        (again,) = await client.get_stream("$ce-order", backwards=True)
        assert link.id == again.id != made.id
        assert link.content_type == "application/octet-stream"
        assert json.loads(link.metadata) == {
            "$c": made.commit_position,
            "$p": made.commit_position,
            "$o": "order-1",
            "$causedBy": str(made.id),
        }


async def test_categories_and_types_have_streams_of_links() -> None:
    async with serving(client_package) as (_, client):
        await append(client, "order-1", StreamState.NO_STREAM, event("Made"))
        await append(client, "orders", StreamState.NO_STREAM, event("Made"))
        await append(client, "order-2", StreamState.NO_STREAM, event("Sent"))
        linked = await client.get_stream("$ce-order", resolve_links=True)
        assert [(e.stream_name, e.link.stream_position) for e in linked] == [
            ("order-1", 0),
            ("order-2", 1),
        ]
        links = await client.get_stream("$et-Made", backwards=True)
        assert [e.data for e in links] == [b"0@orders", b"0@order-1"]
        with pytest.raises(NotFound):
            await client.get_stream("$ce-nothing")


async def test_the_stream_of_streams_links_to_the_first_event_of_each() -> None:
    async with serving(client_package) as (_, client):
        await append(client, "order-1", StreamState.NO_STREAM, event("Made"), event("Sent"))
        await append(client, "order-2", StreamState.NO_STREAM, event("Made"))
        await client.set_stream_metadata("order-2", metadata={"$maxCount": 5})
        links = await client.get_stream("$streams")
        assert [e.data for e in links] == [
            b"0@$epoch-information",
            b"0@order-1",
            b"0@order-2",
            b"0@$$order-2",
        ]


# ---------------------------------------------------------------------------- what survives


async def test_a_file_keeps_deletions_tombstones_and_limits(tmp_path: Any) -> None:
    path = tmp_path / "store.db"
    async with serving(client_package, path=path) as (_, client):
        for stream in ("deleted", "ended", "short"):
            await append(client, stream, StreamState.NO_STREAM, event("A"), event("B"))
        await client.delete_stream("deleted", current_version=1)
        await client.tombstone_stream("ended", current_version=1)
        await client.set_stream_metadata("short", metadata={"$maxCount": 1})
    async with serving(client_package, path=path) as (server, client):
        with pytest.raises(NotFound):
            await client.get_stream("deleted")
        with pytest.raises(StreamIsDeleted):
            await client.get_stream("ended")
        assert await types(client, "short") == ["B"]
        async with connected(client_package, server.uri.replace("127.0.0.1", "localhost")) as same:
            assert await types(same, "short") == ["B"]

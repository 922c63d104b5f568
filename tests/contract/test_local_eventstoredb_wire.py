"""The local server, message by message: what clients of other languages look for."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from aion_es.clock import SystemClock
from aion_es.errors import StoreUnavailableError
from aion_es.ids import UUIDv7Source
from aion_es.testing.eventstoredb import LocalEventStoreDB
from aion_es.testing.eventstoredb.consumer_group import ConsumerGroup, Entry, Member
from aion_es.testing.eventstoredb.group_info import describe, measurements
from aion_es.testing.eventstoredb.group_settings import GroupSettings
from aion_es.testing.eventstoredb.stubs import load_stubs
from tests.contract.local_server import installed
from tests.unit.local_server_events import recorded

installed()
stubs = load_stubs()
streams, shared, persistent = stubs.streams, stubs.shared, stubs.persistent

STREAMS = "/event_store.client.streams.Streams"
PERSISTENT = "/event_store.client.persistent_subscriptions.PersistentSubscriptions"
EMPTY = shared.Empty()


@asynccontextmanager
async def channel_to(server: LocalEventStoreDB) -> AsyncIterator[Any]:
    async with server, stubs.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield channel


def fresh_id() -> uuid.UUID:
    return uuid.UUID(UUIDv7Source().new())


def name(stream: str) -> Any:
    return shared.StreamIdentifier(stream_name=stream.encode())


def proposed(message: Any, type: str = "A", **metadata: str) -> Any:
    return message(
        id=shared.UUID(string=str(fresh_id())),
        metadata={"type": type, "content-type": "application/json", **metadata},
        data=b"{}",
    )


async def append(channel: Any, stream: str, *types: str, **expected: Any) -> Any:
    call = channel.stream_unary(
        f"{STREAMS}/Append",
        request_serializer=streams.AppendReq.SerializeToString,
        response_deserializer=streams.AppendResp.FromString,
    )
    options = streams.AppendReq.Options(
        stream_identifier=name(stream), **(expected or {"any": EMPTY})
    )
    requests = [streams.AppendReq(options=options)]
    requests += [
        streams.AppendReq(proposed_message=proposed(streams.AppendReq.ProposedMessage, kind))
        for kind in types
    ]
    return await call(iter(requests))


def unary(channel: Any, method: str, takes: Any, gives: Any) -> Any:
    return channel.unary_unary(
        method,
        request_serializer=takes.SerializeToString,
        response_deserializer=gives.FromString,
    )


async def read(channel: Any, **options: Any) -> list[Any]:
    call = channel.unary_stream(
        f"{STREAMS}/Read",
        request_serializer=streams.ReadReq.SerializeToString,
        response_deserializer=streams.ReadResp.FromString,
    )
    made = streams.ReadReq.Options(
        **{"no_filter": EMPTY, "count": 10, "uuid_option": _uuid("structured"), **options}
    )
    return [response async for response in call(streams.ReadReq(options=made))]


def _uuid(form: str) -> Any:
    return streams.ReadReq.Options.UUIDOption(**{form: EMPTY})


def of_stream(stream: str, **place: Any) -> Any:
    return streams.ReadReq.Options.StreamOptions(
        stream_identifier=name(stream), **(place or {"start": EMPTY})
    )


async def refused(attempt: Any) -> tuple[str, str, dict[str, str]]:
    """Return code, details and trailers with which a call ended."""
    with pytest.raises(stubs.aio.AioRpcError) as raised:
        await attempt
    failure: Any = raised.value
    trailers = {key: value for key, value in failure.trailing_metadata()}  # noqa: C416 - no mapping in every gRPC
    return failure.code().name, failure.details(), trailers


# ---------------------------------------------------------------------------- appends


async def test_an_append_answers_with_revision_and_position() -> None:
    async with channel_to(LocalEventStoreDB()) as channel:
        answer = await append(channel, "s", "A", "B", no_stream=EMPTY)
        assert answer.success.current_revision == 1
        assert answer.success.position.commit_position == 3
        assert answer.success.position.prepare_position == 3


async def test_an_empty_append_to_a_missing_stream_answers_no_stream() -> None:
    async with channel_to(LocalEventStoreDB()) as channel:
        answer = await append(channel, "s")
        assert answer.success.WhichOneof("current_revision_option") == "no_stream"
        assert answer.success.WhichOneof("position_option") == "no_position"


async def test_a_wrong_expected_version_is_an_answer_with_both_revisions() -> None:
    async with channel_to(LocalEventStoreDB()) as channel:
        missing = (await append(channel, "s", "A", revision=3)).wrong_expected_version
        assert missing.WhichOneof("current_revision_option") == "current_no_stream"
        assert missing.expected_revision == missing.expected_revision_20_6_0 == 3
        await append(channel, "s", "A")
        found = (await append(channel, "s", "B", no_stream=EMPTY)).wrong_expected_version
        assert found.current_revision == found.current_revision_20_6_0 == 0
        assert found.WhichOneof("expected_revision_option") == "expected_no_stream"


async def test_an_event_without_type_or_content_type_is_refused_by_name() -> None:
    async with channel_to(LocalEventStoreDB()) as channel:
        call = channel.stream_unary(
            f"{STREAMS}/Append",
            request_serializer=streams.AppendReq.SerializeToString,
            response_deserializer=streams.AppendResp.FromString,
        )
        options = streams.AppendReq.Options(stream_identifier=name("s"), any=EMPTY)
        message = streams.AppendReq.ProposedMessage(
            id=shared.UUID(string=str(fresh_id())), metadata={"type": "A"}
        )
        requests = [
            streams.AppendReq(options=options),
            streams.AppendReq(proposed_message=message),
        ]
        assert await refused(call(iter(requests))) == (
            "INVALID_ARGUMENT",
            "Required Metadata Property 'content-type' is missing",
            {
                "exception": "missing-required-metadata-property",
                "required-metadata-properties": "type,content-type",
            },
        )


async def test_too_large_an_append_names_the_limit() -> None:
    async with channel_to(LocalEventStoreDB()) as channel:
        code, details, trailers = await refused(append(channel, "s", "A" * 530_000))
        assert (code, details) == ("INVALID_ARGUMENT", "Maximum Append Size of 1048576 Exceeded.")
        assert trailers == {
            "exception": "maximum-append-size-exceeded",
            "maximum-append-size": "1048576",
        }


# ---------------------------------------------------------------------------- deletions


async def test_a_deletion_at_the_wrong_revision_names_stream_and_revisions() -> None:
    async with channel_to(LocalEventStoreDB()) as channel:
        await append(channel, "s", "A")
        delete = unary(channel, f"{STREAMS}/Delete", streams.DeleteReq, streams.DeleteResp)
        options = streams.DeleteReq.Options(stream_identifier=name("s"), revision=7)
        assert await refused(delete(streams.DeleteReq(options=options))) == (
            "FAILED_PRECONDITION",
            "Delete failed due to WrongExpectedVersion. Stream: s, Expected version: 7, "
            "Actual version: 0",
            {
                "exception": "wrong-expected-version",
                "stream-name": "s",
                "expected-version": "7",
                "actual-version": "0",
            },
        )


@pytest.mark.parametrize(
    ("stream", "named"),
    [
        pytest.param("50% off", "50% off", id="of_ascii"),
        pytest.param("größe 5%", "gr%C3%B6%C3%9Fe 5%25", id="of_other_letters"),
        pytest.param("a\nb", "a%0Ab", id="with_a_line_feed"),
    ],
)
async def test_a_refusal_names_a_stream_in_ascii(stream: str, named: str) -> None:
    async with channel_to(LocalEventStoreDB()) as channel:
        delete = unary(channel, f"{STREAMS}/Delete", streams.DeleteReq, streams.DeleteResp)
        options = streams.DeleteReq.Options(stream_identifier=name(stream), revision=7)
        code, details, trailers = await refused(delete(streams.DeleteReq(options=options)))
        assert code == "FAILED_PRECONDITION"
        assert details == (
            f"Delete failed due to WrongExpectedVersion. Stream: {stream}, Expected version: 7, "
            "Actual version: -1"
        )
        assert trailers["stream-name"] == named


async def test_a_tombstone_answers_with_its_position_and_the_next_one_is_refused() -> None:
    async with channel_to(LocalEventStoreDB()) as channel:
        await append(channel, "s", "A")
        tombstone = unary(
            channel, f"{STREAMS}/Tombstone", streams.TombstoneReq, streams.TombstoneResp
        )
        options = streams.TombstoneReq.Options(stream_identifier=name("s"), any=EMPTY)
        answer = await tombstone(streams.TombstoneReq(options=options))
        assert answer.position.commit_position == 3
        assert await refused(tombstone(streams.TombstoneReq(options=options))) == (
            "FAILED_PRECONDITION",
            "Event stream 's' is deleted.",
            {"exception": "stream-deleted", "stream-name": "s"},
        )


# ---------------------------------------------------------------------------- reads


async def test_ids_come_structured_or_as_text_and_mean_the_same() -> None:
    async with channel_to(LocalEventStoreDB()) as channel:
        await append(channel, "s", "A", "B", "C", "D")
        structured = await read(channel, stream=of_stream("s"))
        text = await read(channel, stream=of_stream("s"), uuid_option=_uuid("string"))
        for one, other in zip(structured, text, strict=True):
            parts = one.event.event.id.structured
            high = parts.most_significant_bits & (2**64 - 1)
            low = parts.least_significant_bits & (2**64 - 1)
            assert str(uuid.UUID(int=high << 64 | low)) == other.event.event.id.string


async def test_the_time_of_an_event_is_in_ticks_of_100_nanoseconds() -> None:
    async with channel_to(LocalEventStoreDB()) as channel:
        await append(channel, "s", "A")
        (response,) = await read(channel, stream=of_stream("s"))
        metadata = dict(response.event.event.metadata)
        assert metadata.pop("created").isdigit()
        assert metadata == {"type": "A", "content-type": "application/json"}
        seconds = int(response.event.event.metadata["created"]) / 10**7
        assert abs(seconds - SystemClock().now().timestamp()) < 60


async def test_an_unknown_stream_is_an_answer_that_names_it() -> None:
    async with channel_to(LocalEventStoreDB()) as channel:
        (response,) = await read(channel, stream=of_stream("s"))
        assert response.stream_not_found.stream_identifier.stream_name == b"s"


async def test_a_client_that_asks_for_it_learns_where_the_stream_ends() -> None:
    async with channel_to(LocalEventStoreDB()) as channel:
        await append(channel, "s", "A", "B", "C")
        control = streams.ReadReq.Options.ControlOption(compatibility=1)
        responses = await read(channel, stream=of_stream("s"), count=1, control_option=control)
        assert [r.WhichOneof("content") for r in responses] == ["event", "last_stream_position"]
        assert responses[-1].last_stream_position == 2


async def test_a_filter_by_prefixes_matches_any_of_them() -> None:
    async with channel_to(LocalEventStoreDB()) as channel:
        for stream in ("a-1", "b-1", "c-1"):
            await append(channel, stream, "A")
        options = streams.ReadReq.Options
        expression = options.FilterOptions.Expression(prefix=["a-", "c-"])
        responses = await read(
            channel,
            all=options.AllOptions(start=EMPTY),
            no_filter=None,
            filter=options.FilterOptions(stream_identifier=expression, count=EMPTY),
        )
        found = [r.event.event.stream_identifier.stream_name for r in responses]
        assert found == [b"a-1", b"c-1"]


async def test_a_broken_regular_expression_is_refused() -> None:
    async with channel_to(LocalEventStoreDB()) as channel:
        options = streams.ReadReq.Options
        expression = options.FilterOptions.Expression(regex="(")
        code, details, _ = await refused(
            read(
                channel,
                all=options.AllOptions(start=EMPTY),
                no_filter=None,
                filter=options.FilterOptions(event_type=expression, max=32),
            )
        )
        assert code == "INVALID_ARGUMENT"
        assert "'('" in details


# ---------------------------------------------------------------------------- batches


def batch_request(
    correlation_id: str, stream: str | None, *types: str, final: bool = True, **expected: Any
) -> Any:
    """Return one part of an append; only the first names the stream."""
    request = streams.BatchAppendReq(
        correlation_id=shared.UUID(string=correlation_id),
        proposed_messages=[proposed(streams.BatchAppendReq.ProposedMessage, t) for t in types],
        is_final=final,
    )
    if stream is not None:
        request.options.stream_identifier.CopyFrom(name(stream))
        request.options.deadline.seconds = 10
        if expected:
            request.options.stream_position = expected["revision"]
        else:
            request.options.any.SetInParent()
    return request


async def batch(channel: Any, *requests: Any) -> dict[str, Any]:
    """Send requests over one call; return the answers by correlation id."""
    call = channel.stream_stream(
        f"{STREAMS}/BatchAppend",
        request_serializer=streams.BatchAppendReq.SerializeToString,
        response_deserializer=streams.BatchAppendResp.FromString,
    )(iter(requests))
    return {answer.correlation_id.string: answer async for answer in call}


async def test_many_appends_go_over_one_call_each_with_its_answer() -> None:
    async with channel_to(LocalEventStoreDB()) as channel:
        ids = [str(fresh_id()) for _ in range(50)]
        answers = await batch(
            channel, *(batch_request(key, f"s-{n}", "A", "B") for n, key in enumerate(ids))
        )
        assert sorted(answers) == sorted(ids)
        assert {answer.success.current_revision for answer in answers.values()} == {1}
        assert answers[ids[7]].stream_identifier.stream_name == b"s-7"


async def test_an_append_in_parts_is_written_as_one() -> None:
    async with channel_to(LocalEventStoreDB()) as channel:
        key = str(fresh_id())
        answers = await batch(
            channel,
            batch_request(key, "s", "A", final=False),
            batch_request(key, None, "B", final=False),
            batch_request(key, None, "C"),
        )
        assert answers[key].success.current_revision == 2
        assert len(await read(channel, stream=of_stream("s"))) == 3


async def test_a_refused_append_says_why_and_the_call_goes_on() -> None:
    async with channel_to(LocalEventStoreDB()) as channel:
        await append(channel, "s", "A")
        wrong, large, fine = (str(fresh_id()) for _ in range(3))
        answers = await batch(
            channel,
            batch_request(wrong, "s", "B", revision=5),
            batch_request(large, "s", "A" * 530_000),
            batch_request(fine, "t", "B"),
        )
        details = shared.WrongExpectedVersion()
        assert answers[wrong].error.details.Unpack(details)
        assert (answers[wrong].error.code, answers[wrong].error.message) == (
            6,
            "WrongExpectedVersion",
        )
        assert (details.current_stream_revision, details.expected_stream_position) == (0, 5)
        limit = shared.MaximumAppendSizeExceeded()
        assert answers[large].error.details.Unpack(limit)
        assert limit.maxAppendSize == 1_048_576
        assert answers[fine].success.current_revision == 0


async def test_an_append_over_a_call_that_stays_open_is_answered_at_once() -> None:
    async with channel_to(LocalEventStoreDB()) as channel:
        call = channel.stream_stream(
            f"{STREAMS}/BatchAppend",
            request_serializer=streams.BatchAppendReq.SerializeToString,
            response_deserializer=streams.BatchAppendResp.FromString,
        )()
        for n in range(3):
            await call.write(batch_request(str(fresh_id()), "s", "A"))
            answer = await call.read()
            assert answer.success.current_revision == n
        await call.done_writing()
        assert await call.read() is stubs.aio.EOF


async def test_an_append_whose_time_is_over_before_it_is_written_is_not_written() -> None:
    server = LocalEventStoreDB()
    async with channel_to(server) as channel:
        server.faults.delay("BatchAppend", by=timedelta(milliseconds=100))
        late, fine = str(fresh_id()), str(fresh_id())
        request = batch_request(late, "s", "A")
        request.options.deadline.seconds, request.options.deadline.nanos = 0, 50_000_000
        answer = (await batch(channel, request))[late]
        assert (answer.error.code, answer.error.message) == (4, "Timeout")
        answer = (await batch(channel, batch_request(fine, "s", "A")))[fine]
        assert answer.success.current_revision == 0


async def test_a_deadline_may_be_an_instant() -> None:
    async with channel_to(LocalEventStoreDB()) as channel:
        now = int(SystemClock().now().timestamp())
        answers: list[Any] = []
        for instant in (now - 1, now + 60):
            request = batch_request(str(fresh_id()), "s", "A")
            request.options.deadline_21_10_0.seconds = instant
            answers.extend((await batch(channel, request)).values())
        assert answers[0].error.message == "Timeout"
        assert answers[1].success.current_revision == 0


# ---------------------------------------------------------------------------- the rest


async def test_a_missing_group_is_refused_although_the_client_goes_on_sending() -> None:
    async with channel_to(LocalEventStoreDB()) as channel:
        call = channel.stream_stream(
            f"{PERSISTENT}/Read",
            request_serializer=persistent.ReadReq.SerializeToString,
            response_deserializer=persistent.ReadResp.FromString,
        )()
        options = persistent.ReadReq.Options(
            stream_identifier=name("s"), group_name="g", buffer_size=1
        )
        await call.write(persistent.ReadReq(options=options))
        assert await refused(call.read()) == (
            "NOT_FOUND",
            "Subscription group g on stream s does not exist.",
            {
                "exception": "persistent-subscription-does-not-exist",
                "stream-name": "s",
                "group-name": "g",
            },
        )


@pytest.mark.parametrize("extra", [True, False], ids=["with", "without"])
def test_a_group_with_extra_statistics_says_how_long_answers_take(extra: bool) -> None:
    group = ConsumerGroup(GroupSettings("s", "g", start=0, extra_statistics=extra))
    member = Member(10, name="test", username="", peer="ipv4:127.0.0.1:1")
    group.join(member)
    event = recorded(0)
    group.offer(Entry((event, None), event))
    group.ack(member, [event.event_id])
    (connection,) = describe(persistent, group, 0).connections
    measured = {m.key: m.value for m in connection.observed_measurements}
    assert measured == (measurements(member.answer_times) if extra else {})
    assert len(member.answer_times) == 1


async def test_the_server_names_its_version_and_methods() -> None:
    async with channel_to(LocalEventStoreDB(version="23.10.1")) as channel:
        ask = channel.unary_unary(
            "/event_store.client.server_features.ServerFeatures/GetSupportedMethods"
        )
        answer: bytes = await ask(b"")
        assert answer.endswith(b"\x12\x0723.10.1")
        assert b"event_store.client.streams.streams" in answer
        assert b"batchappend" in answer
        assert b"deadline_duration" in answer


async def test_gossip_names_the_server_as_the_leader() -> None:
    server = LocalEventStoreDB()
    async with channel_to(server) as channel:
        ask = unary(
            channel,
            "/event_store.client.gossip.Gossip/Read",
            shared.Empty,
            stubs.gossip.ClusterInfo,
        )
        (member,) = (await ask(EMPTY)).members
        assert (member.http_end_point.address, member.http_end_point.port) == (
            "127.0.0.1",
            server.port,
        )
        assert member.is_alive
        assert member.state == stubs.gossip.MemberInfo.VNodeState.Leader


async def test_what_the_server_does_not_know_is_unimplemented() -> None:
    async with channel_to(LocalEventStoreDB()) as channel:
        for method in (
            "/event_store.client.projections.Projections/Create",
            "/event_store.client.users.Users/Create",
            f"{STREAMS}/Unheard",
        ):
            code, _, _ = await refused(channel.unary_unary(method)(b""))
            assert code == "UNIMPLEMENTED"


async def test_the_server_listens_on_both_loopback_addresses() -> None:
    server = LocalEventStoreDB()
    async with server:
        for host in ("127.0.0.1", "::1"):
            try:
                _, writer = await asyncio.open_connection(host, server.port)
            except OSError:
                if host == "127.0.0.1":
                    raise
                pytest.skip("this machine has no IPv6")
            writer.close()


async def test_a_port_that_is_taken_is_an_error() -> None:
    first = LocalEventStoreDB()
    async with first:
        with pytest.raises(StoreUnavailableError, match="taken"):
            await LocalEventStoreDB(port=first.port).start()

"""What the SQLite store promises beyond the contract: writing in groups, sharing a file, failing well."""

import asyncio
import contextlib
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import uuid
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aion_es.errors import (
    ConcurrencyConflictError,
    InvalidArgumentError,
    StoreClosedError,
    StoreUnavailableError,
)
from aion_es.ids import StreamName
from aion_es.store import feed
from aion_es.store.port import (
    ANY,
    NO_STREAM,
    Appended,
    CaughtUp,
    Checkpoint,
    ConsumerGroupSettings,
    FellBehind,
    NewEvent,
    Position,
    RecordedEvent,
    SubscriptionMessage,
)
from aion_es.store.sqlite import SQLiteEventStore, appends, reader

S = StreamName("s")
PATIENCE = 10


def events(count: int, data: bytes = b"{}") -> list[NewEvent]:
    return [NewEvent(uuid.UUID(int=next(_ids)), "Happened", data, b"{}") for _ in range(count)]


_ids = iter(range(1, 2**62))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SQLiteEventStore]:
    async with await SQLiteEventStore.open(path) as store:
        yield store


@pytest.fixture
async def other(store: SQLiteEventStore, path: Path) -> AsyncIterator[SQLiteEventStore]:
    """The same file, opened as another process would: nothing is shared but the file."""
    async with await SQLiteEventStore.open(path) as other:
        yield other


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


class Hold:
    """Keeps the writer busy, so that what comes meanwhile waits together."""

    def __init__(self, store: SQLiteEventStore) -> None:
        self._reached, self._let_go = threading.Event(), threading.Event()
        self._answer = store._writer.call(self._hold, transaction=False)

    def _hold(self, connection: sqlite3.Connection) -> None:
        self._reached.set()
        self._let_go.wait(PATIENCE)

    async def reached(self) -> None:
        await asyncio.to_thread(self._reached.wait, PATIENCE)

    async def end(self) -> None:
        self._let_go.set()
        await self._answer


async def everything(store: SQLiteEventStore) -> list[RecordedEvent]:
    return [event async for event in store.read_all()]


async def sql(store: SQLiteEventStore, statement: str) -> list[tuple[object, ...]]:
    return await store._writer.call(
        lambda connection: connection.execute(statement).fetchall(), transaction=False
    )


async def until(subscription: feed.CatchUpSubscription, count: int) -> list[SubscriptionMessage]:
    """Return the next `count` messages or more, as they come."""
    messages: list[SubscriptionMessage] = []
    async with asyncio.timeout(PATIENCE):
        while len(messages) < count:
            messages += await subscription.next_batch()
    return messages


# ------------------------------------------------------------------------------------ groups


async def test_of_one_group_each_append_gets_its_own_answer(store: SQLiteEventStore) -> None:
    first = events(2)
    outcomes = await asyncio.gather(
        store.append(S, first, NO_STREAM),
        store.append(S, events(1), 5),
        store.append(S, events(1), 1),
        store.append(S, first, NO_STREAM),
        store.append(StreamName("t"), events(1), NO_STREAM),
        store.append(S, [], 2),
        return_exceptions=True,
    )
    conflict = outcomes[1]
    assert isinstance(conflict, ConcurrencyConflictError)
    assert conflict.args == ("s", 5, 1)
    assert [*outcomes[:1], *outcomes[2:]] == [
        Appended(1, Position(1, 1)),
        Appended(2, Position(2, 2)),
        Appended(1, Position(1, 1)),
        Appended(0, Position(3, 3)),
        Appended(2, Position(3, 3)),
    ]


async def test_appends_that_wait_together_are_one_transaction(
    store: SQLiteEventStore, path: Path
) -> None:
    hold = Hold(store)
    waiting = [store.append(StreamName(f"s-{n}"), events(1), NO_STREAM) for n in range(50)]
    tasks = asyncio.gather(*waiting)
    await hold.reached()
    await hold.end()
    await tasks
    assert len({event.recorded_at for event in await everything(store)}) == 1


async def test_appends_are_written_in_the_order_of_the_calls(store: SQLiteEventStore) -> None:
    answers = await asyncio.gather(*(store.append(S, events(1), n - 1) for n in range(200)))
    assert answers == [Appended(n, Position(n, n)) for n in range(200)]


@pytest.mark.parametrize("count", [1, 2, 3, 255, 256, 257, 1000])
async def test_a_batch_of_any_size_is_stored_in_order(store: SQLiteEventStore, count: int) -> None:
    batch = events(count)
    await store.append(S, batch, NO_STREAM)
    assert [event.event_id for event in await everything(store)] == [
        event.event_id for event in batch
    ]


async def test_heads_that_were_forgotten_are_looked_up_again(
    store: SQLiteEventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appends, "MAX_HEADS", 2)
    for revision in range(5):
        for name in "abcde":
            await store.append(StreamName(name), events(1), revision - 1)
    assert [await store.head(StreamName(name)) for name in "abcde"] == [4] * 5


async def test_a_cancelled_append_is_written_whole(store: SQLiteEventStore) -> None:
    hold = Hold(store)
    append = asyncio.ensure_future(store.append(S, events(3), NO_STREAM))
    await hold.reached()
    append.cancel()
    with pytest.raises(asyncio.CancelledError):
        await append
    await hold.end()
    assert await store.append(S, events(1), 2) == Appended(3, Position(3, 3))


@pytest.mark.parametrize("name", ["", "a\0b", "half \ud800"])
async def test_a_name_that_is_no_text_is_refused_and_harms_nobody(
    store: SQLiteEventStore, name: str
) -> None:
    good = asyncio.ensure_future(store.append(S, events(1), NO_STREAM))
    with pytest.raises(InvalidArgumentError, match=r"^stream: "):
        await store.append(StreamName(name), events(1), NO_STREAM)
    with pytest.raises(InvalidArgumentError, match=r"^type: "):
        await store.append(S, [NewEvent(uuid.UUID(int=1), name, b"", b"")], ANY)
    assert await good == Appended(0, Position(0, 0))


async def test_a_prefix_that_no_name_can_have_is_refused(store: SQLiteEventStore) -> None:
    prefix = "half \ud800"
    with pytest.raises(InvalidArgumentError, match=r"^prefix: "):
        store.subscribe_all(prefix=prefix)
    with pytest.raises(InvalidArgumentError, match=r"^prefix: "):
        await anext(aiter(store.read_all(prefix=prefix)))
    with pytest.raises(InvalidArgumentError, match=r"^prefix: "):
        await store.create_consumer_group("g", ConsumerGroupSettings(prefix=prefix))


# ------------------------------------------------------------------------------------ pages


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1),
            st.binary(),
            st.binary() | st.sampled_from([b"\0", bytes(range(256)), b"'\"\xff\xfe"]),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_every_byte_comes_back_from_a_packed_page(
    written: Sequence[tuple[str, bytes, bytes]],
) -> None:
    async def example() -> None:
        async with await SQLiteEventStore.open(None) as store:
            batch = [NewEvent(uuid.UUID(int=next(_ids)), *fields) for fields in written]
            await store.append(S, batch, NO_STREAM)
            assert [event[:4] for event in await everything(store)] == batch

    asyncio.run(example())


@pytest.mark.parametrize("size", [reader.INLINE_BYTES + n for n in (-3, -2, -1, 0)])
async def test_events_about_the_size_that_leaves_the_page_come_back_among_small_ones(
    store: SQLiteEventStore, size: int
) -> None:
    batch = [*events(3), *events(1, os.urandom(size)), *events(3), *events(1, os.urandom(size))]
    await store.append(S, batch, NO_STREAM)
    assert [event[:4] for event in await everything(store)] == batch


async def test_large_events_close_a_page_early_and_all_come_in_order(
    store: SQLiteEventStore,
) -> None:
    for _ in range(3):
        await store.append(S, events(10, bytes(900_000)), ANY)
    page = await store._all_page(-1, "", reader.PAGE_EVENTS, backwards=False)
    assert len(page.events) < 15
    assert not page.complete
    assert [event.revision async for event in store.read(S)] == list(range(30))
    assert [event.revision async for event in store.read(S, backwards=True)] == [
        *reversed(range(30))
    ]
    assert [event.position.commit async for event in store.read_all(backwards=True)] == [
        *reversed(range(30))
    ]


@pytest.mark.parametrize("query", [reader._ALL_FORWARDS, reader._ALL_BACKWARDS])
async def test_a_filtered_read_walks_the_events_by_position_and_sorts_nothing(
    store: SQLiteEventStore, query: str
) -> None:
    parameters = {"low": 0, "high": 9, "prefix": b"s", "length": 1, "limit": 10}
    plan = await store._pool.run(
        lambda connection: [
            row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {query}", parameters)
        ]
    )
    assert "SEARCH e USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)" in plan
    assert [step for step in plan if "TEMP B-TREE" in step or step.startswith("SCAN e")] == []


async def test_from_beyond_every_position_there_is_nothing_and_before_it_everything(
    store: SQLiteEventStore,
) -> None:
    await store.append(S, events(2), ANY)
    beyond = Position(2**63 - 1, 2**63 - 1)
    for prefix in ("", "s"):
        after = store.read_all(from_position=beyond, prefix=prefix)
        assert [event async for event in after] == []
        before = store.read_all(from_position=beyond, prefix=prefix, backwards=True, limit=1)
        assert [event.revision async for event in before] == [1]


async def test_a_filtered_read_goes_on_past_a_long_stretch_that_does_not_match(
    store: SQLiteEventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "SCAN_POSITIONS", 10)
    await store.append(StreamName("a"), events(1), ANY)
    await store.append(StreamName("b"), events(95), ANY)
    await store.append(StreamName("a"), events(1), ANY)
    for backwards, order in ((False, [0, 96]), (True, [96, 0])):
        found = store.read_all(prefix="a", backwards=backwards)
        assert [event.position.commit async for event in found] == order


# ------------------------------------------------------------------------------------ subscriptions


async def test_a_slow_subscriber_falls_behind_and_catches_up_without_a_gap(
    store: SQLiteEventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "MAX_BUFFERED", 10)
    subscription = store.subscribe_all()
    assert await until(subscription, 1) == [CaughtUp()]
    for _ in range(5):
        await store.append(S, events(8), ANY)
    messages = await until(subscription, 42)
    assert [m.revision for m in messages if isinstance(m, RecordedEvent)] == list(range(40))
    assert [(n, m) for n, m in enumerate(messages) if not isinstance(m, RecordedEvent)] == [
        (16, FellBehind()),
        (41, CaughtUp()),
    ]
    await subscription.aclose()


async def test_live_events_come_from_memory_and_are_not_read_again(
    store: SQLiteEventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscription = store.subscribe_all()
    assert await until(subscription, 1) == [CaughtUp()]
    written = [NewEvent(uuid.UUID(int=5), "Happened", b"{}", b"{}")]
    await store.append(S, written, ANY)
    (message,) = await until(subscription, 1)
    assert isinstance(message, RecordedEvent)
    assert message.data is written[0].data
    await subscription.aclose()


async def test_a_live_event_equals_the_one_that_is_read(store: SQLiteEventStore) -> None:
    subscription = store.subscribe(S)
    assert await until(subscription, 1) == [CaughtUp()]
    await store.append(S, events(3), ANY)
    assert await until(subscription, 3) == await everything(store)
    await subscription.aclose()


async def test_a_checkpoint_tells_of_a_thousand_events_that_passed_live(
    store: SQLiteEventStore,
) -> None:
    subscription = store.subscribe_all(prefix="t")
    assert await until(subscription, 1) == [CaughtUp()]
    await store.append(S, events(999), ANY)
    await store.append(S, events(1), ANY)
    assert await until(subscription, 1) == [Checkpoint(Position(999, 999))]
    await subscription.aclose()


# ------------------------------------------------------------------------------------ one file, two stores


async def test_an_append_of_another_process_moves_the_head_for_this_one(
    store: SQLiteEventStore, other: SQLiteEventStore
) -> None:
    await store.append(S, events(1), NO_STREAM)
    await other.append(S, events(2), 0)
    await other.append(StreamName("t"), events(1), NO_STREAM)
    with pytest.raises(ConcurrencyConflictError) as conflict:
        await store.append(S, events(1), 0)
    assert conflict.value.actual == 2
    assert await store.append(S, events(1), 2) == Appended(3, Position(4, 4))
    assert await store.append(StreamName("t"), events(1), 0) == Appended(1, Position(5, 5))
    assert await other.append(StreamName("u"), events(1), NO_STREAM) == Appended(0, Position(6, 6))


async def test_subscribers_of_two_processes_that_both_write_see_the_same_without_gap_or_repeat(
    store: SQLiteEventStore, other: SQLiteEventStore
) -> None:
    async def write(to: SQLiteEventStore, name: str) -> None:
        for _ in range(60):
            await to.append(StreamName(name), events(3), ANY)

    async def watch(of: SQLiteEventStore) -> list[int]:
        seen: list[int] = []
        async with of.subscribe_all() as subscription, asyncio.timeout(PATIENCE):
            while len(seen) < 360:
                seen += [
                    message.position.commit
                    for message in await subscription.next_batch()
                    if isinstance(message, RecordedEvent)
                ]
        return seen

    first, second, *_ = await asyncio.gather(
        watch(store), watch(other), write(store, "a"), write(other, "b")
    )
    assert first == list(range(360))
    assert second == list(range(360))


async def test_a_lock_that_another_process_keeps_fails_the_append_and_nothing_else(
    path: Path,
) -> None:
    batch = events(2)
    async with await SQLiteEventStore.open(path, busy_timeout=timedelta(milliseconds=50)) as store:
        await store.append(S, events(1), NO_STREAM)
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as foreign:
            foreign.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreUnavailableError, match="database is locked") as refusal:
                await store.append(S, batch, 0)
            assert not refusal.value.outcome_unknown
            assert len(await everything(store)) == 1
        assert await store.append(S, batch, 0) == Appended(2, Position(2, 2))


# ------------------------------------------------------------------------------------ a full or failing disk


async def test_a_full_store_fails_the_append_whole_and_works_again_when_there_is_room(
    store: SQLiteEventStore,
) -> None:
    await store.append(S, events(1), NO_STREAM)
    ((pages,),) = await sql(store, "PRAGMA page_count")
    await sql(store, f"PRAGMA max_page_count = {pages}")
    batch = events(50, bytes(5000))
    refusals = await asyncio.gather(
        store.append(S, batch, 0),
        store.append(StreamName("t"), events(1), NO_STREAM),
        return_exceptions=True,
    )
    assert [type(refusal) for refusal in refusals] == [StoreUnavailableError] * 2
    assert refusals[0] is not refusals[1]
    assert [r.outcome_unknown for r in refusals if isinstance(r, StoreUnavailableError)] == [
        False,
        False,
    ]
    assert len(await everything(store)) == 1
    await sql(store, "PRAGMA max_page_count = 100000")
    assert await store.append(S, batch, 0) == Appended(50, Position(50, 50))
    assert await store.append(StreamName("t"), events(1), NO_STREAM) == Appended(
        0, Position(51, 51)
    )
    await store.integrity_check()


async def test_an_io_error_in_the_commit_leaves_the_outcome_open_and_a_repeat_settles_it(
    store: SQLiteEventStore, path: Path
) -> None:
    await store.append(S, events(1), NO_STREAM)
    log = path.with_name(f"{path.name}-wal")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    batch = events(20, bytes(5000))
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (log.stat().st_size + 8192, hard))
        with pytest.raises(StoreUnavailableError) as failure:
            await store.append(S, batch, 0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert failure.value.outcome_unknown
    assert len(await everything(store)) == 1
    assert await store.append(S, batch, 0) == Appended(20, Position(20, 20))
    assert len(await everything(store)) == 21
    await store.integrity_check()


# ------------------------------------------------------------------------------------ closing


async def test_what_was_accepted_before_closing_is_written_and_answered(path: Path) -> None:
    store = await SQLiteEventStore.open(path)
    accepted = asyncio.gather(*(store.append(S, events(1), n - 1) for n in range(100)))
    await asyncio.sleep(0)  # the calls begin
    await store.aclose()
    assert await accepted == [Appended(n, Position(n, n)) for n in range(100)]


async def test_closing_ends_every_thread_and_leaves_one_file(path: Path) -> None:
    before = set(threading.enumerate())
    store = await SQLiteEventStore.open(path)
    await store.append(S, events(1), NO_STREAM)
    await everything(store)
    await store.aclose()
    await store.aclose()
    left = {thread for thread in set(threading.enumerate()) - before if "aion" in thread.name}
    assert left == set()
    assert names_in(path.parent) == ["store.db"]


async def test_a_cancelled_close_still_closes(path: Path) -> None:
    store = await SQLiteEventStore.open(path)
    closing = asyncio.ensure_future(store.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    with pytest.raises(StoreClosedError):
        await store.head(S)
    await store.aclose()
    assert names_in(path.parent) == ["store.db"]


async def test_a_cancelled_opening_leaves_nothing_open(path: Path) -> None:
    opening = asyncio.ensure_future(SQLiteEventStore.open(path))
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    async with asyncio.timeout(PATIENCE):
        while names_in(path.parent) != ["store.db"]:  # noqa: ASYNC110 - a real thread is at it
            await asyncio.sleep(0.005)


def test_a_program_that_forgets_to_close_still_ends(path: Path) -> None:
    program = (
        "import asyncio, sys\n"
        "from aion_es.store.sqlite import SQLiteEventStore\n"
        "from aion_es.store.port import ANY, NewEvent\n"
        "import uuid\n"
        "async def main():\n"
        "    store = await SQLiteEventStore.open(sys.argv[1])\n"
        "    await store.append('s', [NewEvent(uuid.UUID(int=1), 't', b'', b'')], ANY)\n"
        "asyncio.run(main())\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, str(path)], timeout=PATIENCE, check=False
    )
    assert ended.returncode == 0
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM events").fetchone() == (1,)


async def test_the_clock_stamps_the_events() -> None:
    class Noon:
        def now(self) -> datetime:
            return datetime(2026, 1, 1, 12, tzinfo=UTC)

    async with await SQLiteEventStore.open(None, clock=Noon()) as store:
        await store.append(S, events(1), ANY)
        assert [event.recorded_at for event in await everything(store)] == [Noon().now()]

"""Loading, saving and executing: what is read, what is written, and what happens when somebody was faster."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest

from aion_es.aggregates import (
    AttributeSchema,
    RetrySettings,
    Saved,
    ScheduleRepository,
    Workflow,
    WorkflowRepository,
)
from aion_es.errors import (
    ConcurrencyConflictError,
    InvalidArgumentError,
    InvalidIdError,
    PayloadError,
    PayloadTooLargeError,
    RunClosedError,
    RunNotFoundError,
    ScheduleNotFoundError,
    StoreUnavailableError,
    WorkflowNotFoundError,
)
from aion_es.events import schedule as schedule_ev
from aion_es.events import workflow as ev
from aion_es.events.codec import encode
from aion_es.events.metadata import EventMetadata
from aion_es.ids import RunId, StreamName, WorkflowId, deterministic_event_id
from aion_es.payload import Payload
from aion_es.store.memory import MemoryEventStore
from aion_es.store.port import (
    NO_STREAM,
    START,
    Appended,
    ExpectedRevision,
    NewEvent,
    Position,
    RecordedEvent,
    StoreLimits,
    StreamMetadata,
)
from tests.unit.aggregates.histories import (
    CUSTOMER,
    FAILED,
    NEXT,
    NEXT_RUN,
    NOON,
    OOPS,
    RUN,
    TOTAL,
    act,
    armed,
    begun,
    completed,
    message,
    received,
    scheduled,
    start,
    started,
    text,
    whole,
)

AT_ONCE = RetrySettings(attempts=5, initial=timedelta(0), longest=timedelta(0))
DUE = NOON + timedelta(hours=15)
NIGHTLY: dict[str, Any] = {"spec": {"cron": "0 3 * * *"}, "action": {"workflow_type": "report"}}
STREAM = StreamName("aion_workflow-order-42")


class FakeStore:
    """A memory store that counts what is read and appended, and fails when it is told to.

    Attributes:
        reads: Events given per read.
        appends: Ids of each append that was tried.
        failures: Raised by the next appends, in order; `None` lets one through. A failure with
            `outcome_unknown` comes after the append.
        before_append: Run before each append; somebody else's turn.
    """

    def __init__(self, limits: StoreLimits | None = None) -> None:
        self.inner = MemoryEventStore()
        self.limits = limits or self.inner.limits
        self.reads: list[int] = []
        self.appends: list[tuple[ExpectedRevision, tuple[str, ...]]] = []
        self.failures: list[Exception | None] = []
        self.before_append: list[Callable[[], Awaitable[None]]] = []

    async def read(
        self,
        stream: StreamName,
        *,
        from_revision: int | None = None,
        backwards: bool = False,
        limit: int | None = None,
    ) -> AsyncIterator[RecordedEvent]:
        self.reads.append(0)
        async for event in self.inner.read(
            stream, from_revision=from_revision, backwards=backwards, limit=limit
        ):
            self.reads[-1] += 1
            yield event

    def read_all(
        self,
        *,
        from_position: Position = START,
        prefix: str = "",
        backwards: bool = False,
        limit: int | None = None,
    ) -> AsyncIterator[RecordedEvent]:
        raise NotImplementedError

    async def head(self, stream: StreamName) -> int:
        return await self.inner.head(stream)

    async def end_position(self) -> Position:
        return await self.inner.end_position()

    def submit(
        self, stream: StreamName, events: Sequence[NewEvent], expected: ExpectedRevision
    ) -> "asyncio.Future[Appended]":
        return asyncio.ensure_future(self.append(stream, events, expected))

    async def append(
        self, stream: StreamName, events: Sequence[NewEvent], expected: ExpectedRevision
    ) -> Appended:
        self.appends.append((expected, tuple(str(event.event_id) for event in events)))
        if self.before_append:
            await self.before_append.pop(0)()
        failure = self.failures.pop(0) if self.failures else None
        if failure is None:
            return await self.inner.append(stream, events, expected)
        if isinstance(failure, StoreUnavailableError) and failure.outcome_unknown:
            await self.inner.append(stream, events, expected)
        raise failure


class CountedIds:
    def __init__(self) -> None:
        self.made = 0

    def new(self) -> str:
        self.made += 1
        return f"command-{self.made}"


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def repository(store: FakeStore) -> WorkflowRepository:
    return WorkflowRepository(
        store, schema=AttributeSchema(CUSTOMER, TOTAL), ids=CountedIds(), retries=AT_ONCE
    )


async def run(repository: WorkflowRepository, workflow_id: str = "order-42") -> Workflow:
    return (await repository.execute(workflow_id, lambda wf: wf.start(start(), at=NOON))).workflow


async def marked(repository: WorkflowRepository, markers: int) -> None:
    """Save a run of its start and so many markers."""
    wf = await run(repository)
    for _ in range(markers):
        wf.record_marker("side_effect", "dice", NEXT, at=NOON)
    await repository.save(wf)


def continue_as_new(wf: Workflow) -> None:
    """Go on as `NEXT_RUN`."""
    wf.continue_as_new(NEXT, package_version="1", new_run_id=NEXT_RUN, at=NOON)


def somebody_is_faster(store: FakeStore, decide: Callable[[Workflow], object]) -> None:
    """Have another process give a command just before the next append for which nothing else is planned."""

    async def is_faster() -> None:
        await WorkflowRepository(store.inner).execute("order-42", decide)

    store.before_append.append(is_faster)


async def recorded(repository: WorkflowRepository) -> list[ev.WorkflowEvent]:
    return [envelope.event for envelope in await repository.history("order-42")]


# -------------------------------------------------------------------------------------------- load


async def test_an_unknown_id_loads_as_an_empty_aggregate(repository: WorkflowRepository) -> None:
    wf = await repository.load("order-42")
    assert (wf.exists, wf.revision, wf.uncommitted) == (False, -1, [])


async def test_what_was_saved_is_loaded(repository: WorkflowRepository) -> None:
    wf = await run(repository)
    wf.schedule_activity(act(0), "charge_card", NEXT, at=NOON)
    wf.start_timer(armed().timer_id, armed().fire_at, at=NOON)
    wf.receive_signal(message(), at=NOON)
    wf.update_attributes({"customer": text("ana"), "total": whole(7)}, at=NOON)
    await repository.save(wf)
    loaded = await repository.load("order-42")
    assert (loaded.state, loaded.revision) == (wf.state, 4)


@pytest.mark.parametrize("workflow_id", ["Bestellung-Größe-✓", "a/b c?d#e", "-", "x" * 255, "日本"])
async def test_any_printable_id_is_loaded_as_it_was_saved(
    repository: WorkflowRepository, workflow_id: str
) -> None:
    await run(repository, workflow_id)
    assert (await repository.load(workflow_id)).state.workflow_id == workflow_id
    assert not (await repository.load("other")).exists


@pytest.mark.parametrize("workflow_id", ["", "x" * 256, "a\tb", "\ud800"])
async def test_an_id_that_cannot_be_recorded_is_refused(
    repository: WorkflowRepository, workflow_id: str
) -> None:
    for call in (repository.new, repository.stream):
        with pytest.raises(InvalidIdError):
            call(workflow_id)
    with pytest.raises(InvalidIdError):
        await repository.load(workflow_id)


def test_a_namespace_of_another_form_is_refused() -> None:
    with pytest.raises(InvalidIdError):
        WorkflowRepository(MemoryEventStore(), namespace="Not OK")


async def test_namespaces_do_not_see_each_other(store: FakeStore) -> None:
    ours, theirs = (WorkflowRepository(store, namespace=name) for name in ("ours", "theirs"))
    await run(ours)
    assert ours.stream("order-42") == "ours_workflow-order-42"
    assert not (await theirs.load("order-42")).exists


async def test_the_cost_of_loading_does_not_grow_with_the_chain(
    store: FakeStore, repository: WorkflowRepository
) -> None:
    await run(repository)
    costs: list[list[int]] = []
    for length in range(1, 301):
        await repository.execute(
            "order-42", lambda wf: wf.continue_as_new(NEXT, package_version="1", at=NOON)
        )
        if length in {100, 200, 300}:
            store.reads.clear()
            wf = await repository.load("order-42")
            assert wf.state.started_revision == wf.revision == 2 * length
            costs.append(store.reads.copy())
    assert costs == [[8]] * 3


async def test_a_long_run_is_read_back_to_its_beginning_in_growing_pages(
    store: FakeStore, repository: WorkflowRepository
) -> None:
    wf = await run(repository)
    continue_as_new(wf)
    for _ in range(300):
        wf.record_marker("side_effect", "dice", NEXT, at=NOON)
    await repository.save(wf)
    store.reads.clear()
    history = await repository.history("order-42")
    assert [envelope.revision for envelope in history] == list(range(2, 303))
    assert [envelope.run_id for envelope in history] == [NEXT_RUN] * 301
    assert store.reads == [8, 64, 231]


async def test_a_history_of_exactly_one_page_is_read_once(
    store: FakeStore, repository: WorkflowRepository
) -> None:
    await marked(repository, 7)
    store.reads.clear()
    assert len(await repository.history("order-42")) == 8
    assert store.reads == [8]


async def test_nothing_is_read_before_the_first_event(
    store: FakeStore, repository: WorkflowRepository
) -> None:
    await marked(repository, 7)
    store.reads.clear()
    with pytest.raises(RunNotFoundError):
        await repository.run_history("order-42", "run-0")
    assert store.reads == [8]


async def test_a_history_whose_beginning_is_cut_off_is_read_as_far_as_it_goes(
    store: FakeStore, repository: WorkflowRepository
) -> None:
    wf = await run(repository)
    wf.pause(at=NOON)
    await repository.save(wf)
    await store.inner.set_metadata(STREAM, StreamMetadata(truncate_before=1))
    assert (await repository.load("order-42")).state.paused


async def test_every_run_of_the_stream_can_be_read(repository: WorkflowRepository) -> None:
    await run(repository)
    await repository.execute("order-42", continue_as_new)
    third = RunId("run-3")
    await repository.execute(
        "order-42",
        lambda wf: wf.start(start(run_id=third, on_conflict="terminate_existing"), at=NOON),
    )
    read: dict[str, list[tuple[int, str | None]]] = {}
    for run_id in (RUN, NEXT_RUN, third):
        history = await repository.run_history("order-42", run_id)
        read[run_id] = [(envelope.revision, envelope.run_id) for envelope in history]
    assert read == {
        RUN: [(0, RUN), (1, RUN)],
        NEXT_RUN: [(2, NEXT_RUN), (3, NEXT_RUN)],
        third: [(4, third)],
    }


async def test_the_newest_event_of_a_run_tells_whether_it_has_ended_and_nothing_older_is_read(
    store: FakeStore, repository: WorkflowRepository
) -> None:
    await marked(repository, 20)
    assert await repository.run_end("order-42", RUN) == (None, 20)
    await repository.execute("order-42", lambda wf: wf.fail(OOPS, at=NOON))
    assert await repository.run_end("order-42", RUN) == (FAILED, 21)
    await repository.execute("order-42", lambda wf: wf.reopen(at=NOON))
    store.reads.clear()
    assert await repository.run_end("order-42", RUN) == (None, 22)
    assert store.reads == [8]


async def test_each_run_of_a_chain_has_its_own_end_and_the_newest_is_the_current_one(
    store: FakeStore, repository: WorkflowRepository
) -> None:
    await run(repository)
    await repository.execute("order-42", continue_as_new)
    first, second = [await repository.run_end("order-42", each) for each in (RUN, NEXT_RUN)]
    assert isinstance(first.event, ev.WorkflowContinuedAsNew)
    assert (first.revision, second) == (1, (None, 2))
    store.reads.clear()
    assert await repository.current_run("order-42") == NEXT_RUN
    assert store.reads == [1]


async def test_a_run_that_never_was_is_not_found(repository: WorkflowRepository) -> None:
    for look in (repository.run_history, repository.run_end):
        with pytest.raises(WorkflowNotFoundError):
            await look("order-42", RUN)
    with pytest.raises(WorkflowNotFoundError):
        await repository.current_run("order-42")
    await run(repository)
    for look in (repository.run_history, repository.run_end):
        with pytest.raises(RunNotFoundError):
            await look("order-42", "run-0")


# -------------------------------------------------------------------------------------------- save


async def test_an_empty_aggregate_expects_no_stream(
    store: FakeStore, repository: WorkflowRepository
) -> None:
    wf = repository.new("order-42")
    wf.start(start(), at=NOON)
    assert await repository.save(wf) == Saved(0, Position(0, 0))
    assert store.reads == []
    assert [expected for expected, _ in store.appends] == [NO_STREAM]
    again = repository.new("order-42")
    again.start(start(run_id=NEXT_RUN), at=NOON)
    with pytest.raises(ConcurrencyConflictError):
        await repository.save(again)


async def test_an_aggregate_is_saved_at_the_revision_that_was_loaded(
    store: FakeStore, repository: WorkflowRepository
) -> None:
    wf = await run(repository)
    wf.pause(at=NOON)
    assert await repository.save(wf) == Saved(1, Position(1, 1))
    wf.resume(at=NOON)
    assert await repository.save(wf) == Saved(2, Position(2, 2))
    assert [expected for expected, _ in store.appends] == [NO_STREAM, 0, 1]
    assert (wf.revision, wf.uncommitted) == (2, [])


async def test_nothing_is_appended_where_there_is_nothing_to_append(
    store: FakeStore, repository: WorkflowRepository
) -> None:
    assert await repository.save(await run(repository)) is None
    assert len(store.appends) == 1


async def test_metadata_tell_when_in_which_run_and_because_of_what(
    store: FakeStore, repository: WorkflowRepository
) -> None:
    wf = await run(repository)
    later = NOON + timedelta(hours=1)
    wf.pause(at=NOON)
    wf.resume(at=later)
    wf.complete(at=later)
    await repository.save(
        wf, activated=True, causation_id="c", correlation_id="k", traceparent="00-ab-cd-01"
    )
    metadata = [
        EventMetadata.from_bytes(event.metadata) async for event in store.inner.read(STREAM)
    ]
    assert metadata == [
        EventMetadata(NOON, RUN, None, "order-42", None, False),
        EventMetadata(NOON, RUN, "c", "k", "00-ab-cd-01", False),
        EventMetadata(later, RUN, "c", "k", "00-ab-cd-01", False),
        EventMetadata(later, RUN, "c", "k", "00-ab-cd-01", True),
    ]


async def test_event_ids_derive_from_stream_command_and_ordinal(
    store: FakeStore, repository: WorkflowRepository
) -> None:
    wf = await run(repository)
    wf.pause(at=NOON)
    wf.resume(at=NOON)
    await repository.save(wf, command_id="mine")
    assert store.appends[-1][1] == tuple(
        str(deterministic_event_id(STREAM, "mine", ordinal)) for ordinal in (0, 1)
    )


async def test_commands_without_an_identity_never_share_event_ids(
    store: FakeStore, repository: WorkflowRepository
) -> None:
    wf = await run(repository)
    for _ in range(3):
        wf.record_marker("side_effect", "dice", at=NOON)
        await repository.save(wf)
    assert len({ids for _, ids in store.appends}) == 4


async def test_a_conflict_writes_nothing(repository: WorkflowRepository) -> None:
    await run(repository)
    first, second = await repository.load("order-42"), await repository.load("order-42")
    first.pause(at=NOON)
    await repository.save(first)
    second.complete(at=NOON)
    with pytest.raises(ConcurrencyConflictError) as conflict:
        await repository.save(second)
    assert conflict.value.args == (STREAM, 0, 1)
    assert await recorded(repository) == [started(), ev.WorkflowPaused(run_id=RUN)]


async def test_an_event_that_is_too_large_is_refused_before_the_append() -> None:
    store = FakeStore(StoreLimits(max_event_bytes=1000, max_append_bytes=2000))
    repository = WorkflowRepository(store)
    with pytest.raises(PayloadTooLargeError) as refused:
        await repository.execute(
            "order-42", lambda wf: wf.start(start(input=Payload.of("x" * 1000)), at=NOON)
        )
    assert refused.value.limit == 1000
    assert refused.value.size > 1000
    assert refused.value.what == "WorkflowStarted of 'order-42'"
    assert store.appends == []


async def test_a_batch_that_is_too_large_is_refused_before_the_append() -> None:
    store = FakeStore(StoreLimits(max_event_bytes=1000, max_append_bytes=2000))
    repository = WorkflowRepository(store)
    wf = await run(repository)
    for _ in range(4):
        wf.record_marker("side_effect", "dice", Payload.of("x" * 400), at=NOON)
    with pytest.raises(PayloadTooLargeError) as refused:
        await repository.save(wf)
    assert (refused.value.limit, refused.value.size > 2000) == (2000, True)
    assert refused.value.what == "append of 4 events (MarkerRecorded …) to 'order-42'"
    assert len(store.appends) == 1


async def test_an_event_of_exactly_the_limit_is_taken() -> None:
    event = started(input=Payload.of("x" * 100))
    metadata = EventMetadata(NOON, RUN, None, "order-42").to_bytes()
    size = NewEvent(
        deterministic_event_id(STREAM, "c", 0), "WorkflowStarted", encode(event), metadata
    ).size
    for limit, taken in ((size, True), (size - 1, False)):
        repository = WorkflowRepository(FakeStore(StoreLimits(limit, limit)))
        wf = repository.new("order-42")
        wf.start(start(input=Payload.of("x" * 100)), at=NOON)
        if taken:
            assert await repository.save(wf) is not None
        else:
            with pytest.raises(PayloadTooLargeError):
                await repository.save(wf)


async def test_text_that_cannot_be_written_as_json_is_refused(
    store: FakeStore, repository: WorkflowRepository
) -> None:
    wf = await run(repository)
    wf.terminate("\ud800", at=NOON)
    with pytest.raises(PayloadError, match="WorkflowTerminated of 'order-42'"):
        await repository.save(wf)
    assert len(store.appends) == 1


async def test_what_is_decided_during_an_append_is_saved_by_the_next(
    store: FakeStore, repository: WorkflowRepository
) -> None:
    wf = await run(repository)
    wf.pause(at=NOON)

    async def meanwhile() -> None:
        wf.resume(at=NOON)

    store.before_append = [meanwhile]
    await repository.save(wf)
    assert [pending.event for pending in wf.uncommitted] == [ev.WorkflowResumed(run_id=RUN)]
    await repository.save(wf)
    assert await recorded(repository) == [
        started(),
        ev.WorkflowPaused(run_id=RUN),
        ev.WorkflowResumed(run_id=RUN),
    ]


async def test_a_deleted_stream_is_begun_again_where_it_ended(
    store: FakeStore, repository: WorkflowRepository
) -> None:
    wf = await run(repository)
    wf.pause(at=NOON)
    await repository.save(wf)
    await store.inner.delete(STREAM, 1)
    again = await run(repository)
    assert (again.revision, again.state.started_revision) == (2, 2)
    assert (await repository.load("order-42")).state == again.state


# ---------------------------------------------------------------------------- when the store is away


async def test_a_lost_answer_is_asked_for_again_with_the_same_ids(
    store: FakeStore, repository: WorkflowRepository
) -> None:
    store.failures = [StoreUnavailableError("gone", outcome_unknown=True)]
    wf = repository.new("order-42")
    wf.start(start(), at=NOON)
    wf.pause(at=NOON)
    assert await repository.save(wf) == Saved(1, Position(1, 1))
    assert len(store.appends) == 2
    assert store.appends[0] == store.appends[1]
    assert await recorded(repository) == [started(), ev.WorkflowPaused(run_id=RUN)]


async def test_an_append_that_did_not_happen_is_repeated(
    store: FakeStore, repository: WorkflowRepository
) -> None:
    store.failures = [StoreUnavailableError("full"), StoreUnavailableError("full")]
    await run(repository)
    assert len(set(store.appends)) == 1
    assert len(store.appends) == 3
    assert await recorded(repository) == [started()]


async def test_a_store_that_stays_away_is_given_up_after_the_bound(
    store: FakeStore, repository: WorkflowRepository
) -> None:
    store.failures = [StoreUnavailableError("full") for _ in range(9)]
    with pytest.raises(StoreUnavailableError) as error:
        await run(repository)
    assert len(store.appends) == AT_ONCE.attempts
    assert not error.value.outcome_unknown


async def test_one_lost_answer_leaves_the_outcome_unknown(
    store: FakeStore, repository: WorkflowRepository
) -> None:
    store.failures = [
        StoreUnavailableError("lost", outcome_unknown=True),
        *(StoreUnavailableError("away") for _ in range(9)),
    ]
    with pytest.raises(StoreUnavailableError) as error:
        await run(repository)
    assert (error.value.reason, error.value.outcome_unknown) == ("away", True)


async def test_a_single_attempt_is_not_repeated(store: FakeStore) -> None:
    repository = WorkflowRepository(store, retries=RetrySettings(attempts=1))
    store.failures = [StoreUnavailableError("full")]
    with pytest.raises(StoreUnavailableError):
        await run(repository)
    assert len(store.appends) == 1


async def test_somebody_elses_append_after_a_lost_one_is_a_conflict(
    store: FakeStore, repository: WorkflowRepository
) -> None:
    wf = await run(repository)

    async def nobody() -> None:
        pass

    store.failures = [StoreUnavailableError("away")]
    store.before_append = [nobody]
    somebody_is_faster(store, lambda wf: wf.pause(at=NOON))
    wf.complete(at=NOON)
    with pytest.raises(ConcurrencyConflictError):
        await repository.save(wf)
    assert await recorded(repository) == [started(), ev.WorkflowPaused(run_id=RUN)]


# ----------------------------------------------------------------------------------------- execute


async def test_a_command_is_loaded_decided_and_appended(
    store: FakeStore, repository: WorkflowRepository
) -> None:
    await run(repository)
    done = await repository.execute("order-42", lambda wf: wf.receive_signal(message(), at=NOON))
    assert done.events == (received(),)
    assert (done.revision, done.position) == (1, Position(1, 1))
    assert done.workflow.uncommitted == []
    assert len(store.appends) == 2


async def test_a_command_that_had_its_effect_appends_nothing(
    store: FakeStore, repository: WorkflowRepository
) -> None:
    await run(repository)
    await repository.execute("order-42", lambda wf: wf.receive_signal(message(), at=NOON))
    done = await repository.execute("order-42", lambda wf: wf.receive_signal(message(), at=NOON))
    assert (done.events, done.revision, done.position) == ((), 1, None)
    assert len(store.appends) == 2


async def test_several_commands_go_in_one_append(repository: WorkflowRepository) -> None:
    def both(wf: Workflow) -> None:
        wf.start(start(), at=NOON)
        wf.receive_signal(message(), at=NOON)

    done = await repository.execute("order-42", both)
    assert done.events == (started(), received())
    assert done.revision == 1


async def test_a_conflict_reads_only_what_is_new_and_decides_anew(
    store: FakeStore, repository: WorkflowRepository
) -> None:
    wf = await run(repository)
    for ordinal in range(50):
        wf.schedule_activity(act(ordinal), "charge_card", at=NOON)
    await repository.save(wf)
    somebody_is_faster(store, lambda wf: wf.receive_signal(message("s9"), at=NOON))
    store.reads.clear()
    seen: list[int] = []

    def decide(wf: Workflow) -> None:
        seen.append(wf.revision)
        wf.receive_signal(message("s1"), at=NOON)

    done = await repository.execute("order-42", decide)
    assert seen == [50, 51]
    assert store.reads == [8, 43, 1]
    assert (done.events, done.revision) == ((received("s1"),), 52)
    assert list(done.workflow.state.unread_signals) == ["s9", "s1"]


async def test_a_conflict_with_the_same_command_elsewhere_ends_as_done(
    store: FakeStore, repository: WorkflowRepository
) -> None:
    await run(repository)
    somebody_is_faster(store, lambda wf: wf.receive_signal(message(), at=NOON))
    done = await repository.execute("order-42", lambda wf: wf.receive_signal(message(), at=NOON))
    assert (done.events, done.position) == ((), None)
    assert await recorded(repository) == [started(), received()]


async def test_a_refusal_after_a_conflict_is_final(
    store: FakeStore, repository: WorkflowRepository
) -> None:
    await run(repository)
    somebody_is_faster(store, lambda wf: wf.complete(at=NOON))
    with pytest.raises(RunClosedError):
        await repository.execute("order-42", lambda wf: wf.fail(OOPS, at=NOON))
    assert await recorded(repository) == [started(), ev.WorkflowCompleted()]


async def test_a_refusal_is_not_tried_again(
    store: FakeStore, repository: WorkflowRepository
) -> None:
    asked: list[int] = []

    def decide(wf: Workflow) -> None:
        asked.append(wf.revision)
        wf.complete(at=NOON)

    with pytest.raises(WorkflowNotFoundError):
        await repository.execute("order-42", decide)
    assert (asked, store.appends) == ([-1], [])


async def test_a_run_that_continued_meanwhile_is_guarded_as_the_new_one(
    store: FakeStore, repository: WorkflowRepository
) -> None:
    await run(repository)
    somebody_is_faster(store, continue_as_new)
    done = await repository.execute("order-42", lambda wf: wf.receive_signal(message(), at=NOON))
    assert done.workflow.state.run_id == NEXT_RUN
    assert (await repository.history("order-42"))[-1].run_id == NEXT_RUN


async def test_a_start_that_loses_its_race_sees_the_winner(
    store: FakeStore, repository: WorkflowRepository
) -> None:
    somebody_is_faster(store, lambda wf: wf.start(start(), at=NOON))
    command = start(run_id=NEXT_RUN, on_conflict="use_existing")
    done = await repository.execute("order-42", lambda wf: wf.start(command, at=NOON))
    assert (done.events, done.workflow.state.run_id) == ((), RUN)


async def test_conflicts_are_given_up_after_the_bound(
    store: FakeStore, repository: WorkflowRepository
) -> None:
    await run(repository)
    store.appends.clear()
    store.failures = [ConcurrencyConflictError(STREAM, 0, 1) for _ in range(9)]
    with pytest.raises(ConcurrencyConflictError):
        await repository.execute("order-42", lambda wf: wf.pause(at=NOON))
    assert len(store.appends) == AT_ONCE.attempts


@pytest.mark.parametrize(
    "settings", [{"attempts": 0}, {"initial": timedelta(-1)}, {"longest": timedelta(-1)}]
)
def test_retry_settings_that_mean_nothing_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
        RetrySettings(**settings)


async def test_a_naive_instant_is_refused_and_nothing_is_appended(
    store: FakeStore, repository: WorkflowRepository
) -> None:
    with pytest.raises(InvalidArgumentError):
        await repository.execute(
            "order-42", lambda wf: wf.start(start(), at=datetime(2026, 11, 24))
        )
    assert store.appends == []


async def test_fifty_commands_at_once_all_take_effect_once() -> None:
    store = MemoryEventStore()
    repositories = [
        WorkflowRepository(store, retries=RetrySettings(100, timedelta(0), timedelta(0)))
        for _ in range(2)
    ]
    await run(repositories[0])

    async def send(number: int) -> None:
        for repository in repositories:
            await repository.execute(
                "order-42", lambda wf: wf.receive_signal(message(f"s{number}"), at=NOON)
            )

    async with asyncio.TaskGroup() as group:
        for number in range(50):
            group.create_task(send(number))
    history = await recorded(repositories[0])
    ids = [event.signal_id for event in history if isinstance(event, ev.SignalReceived)]
    assert (len(history), sorted(ids)) == (51, sorted(f"s{n}" for n in range(50)))


async def test_an_activity_is_settled_once_whichever_worker_is_first() -> None:
    store = MemoryEventStore()
    first, second = WorkflowRepository(store), WorkflowRepository(store)
    await run(first)
    await first.execute("order-42", lambda wf: wf.schedule_activity(act(0), "charge_card", at=NOON))
    await first.execute(
        "order-42", lambda wf: wf.complete_activity(act(0), 1, worker="w1", at=NOON)
    )
    await second.execute(
        "order-42", lambda wf: wf.complete_activity(act(0), 1, worker="w2", at=NOON)
    )
    assert await recorded(first) == [started(), scheduled(0), begun(0, 1, "w1"), completed(0)]


# --------------------------------------------------------------------------------------- schedules


async def test_schedules_are_kept_in_streams_of_their_own(store: FakeStore) -> None:
    schedules = ScheduleRepository(store, retries=AT_ONCE)
    done = await schedules.execute("nightly", lambda s: s.create(NIGHTLY, at=NOON))
    assert schedules.stream("nightly") == "aion_schedule-nightly"
    assert done.events == (schedule_ev.ScheduleCreated(config=NIGHTLY),)
    assert (done.revision, done.position) == (0, Position(0, 0))
    loaded = await schedules.load("nightly")
    loaded.pause(at=NOON)
    await schedules.save(loaded)
    assert (await schedules.load("nightly")).state.paused
    stored = [event async for event in store.inner.read(schedules.stream("nightly"))]
    assert [EventMetadata.from_bytes(event.metadata) for event in stored] == [
        EventMetadata(NOON, correlation_id="nightly")
    ] * 2


async def test_two_engines_decide_a_due_time_once(store: FakeStore) -> None:
    schedules = ScheduleRepository(store, retries=AT_ONCE)
    await schedules.execute("nightly", lambda s: s.create(NIGHTLY, at=NOON))
    other = ScheduleRepository(store.inner)

    async def somebody_else() -> None:
        await other.execute("nightly", lambda s: s.skip(DUE, "overlap", at=NOON))

    store.before_append = [somebody_else]
    done = await schedules.execute(
        "nightly", lambda s: s.trigger(DUE, WorkflowId("w"), RUN, at=NOON)
    )
    assert (done.events, done.revision, done.position) == ((), 1, None)


async def test_a_schedule_that_was_deleted_and_created_again_is_read_from_there(
    store: FakeStore,
) -> None:
    schedules = ScheduleRepository(store)
    for _ in range(40):
        await schedules.execute("nightly", lambda s: s.create(NIGHTLY, at=NOON))
        await schedules.execute("nightly", lambda s: s.delete(at=NOON))
    with pytest.raises(ScheduleNotFoundError):
        await schedules.execute("nightly", lambda s: s.pause(at=NOON))
    store.reads.clear()
    assert not (await schedules.load("nightly")).exists
    assert store.reads == [8]


async def test_a_signal_that_is_sent_again_after_its_reader_continued_as_new_is_known_again(
    repository: WorkflowRepository,
) -> None:
    await run(repository)
    signal = message("s1")
    await repository.execute("order-42", lambda wf: wf.receive_signal(signal, at=NOON))

    def read_and_continue(wf: Workflow) -> None:
        wf.signal_read(signal.signal_id)
        wf.continue_as_new(NEXT, package_version="1", at=NOON)

    await repository.execute("order-42", read_and_continue)
    again = await repository.execute("order-42", lambda wf: wf.receive_signal(signal, at=NOON))
    assert again.events == ()
    assert again.workflow.state.unread_signals == {}
    assert again.workflow.state.parent_run_id is not None

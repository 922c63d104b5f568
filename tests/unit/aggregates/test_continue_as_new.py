"""The continue-as-new contract, point by point, as far as aggregate and repository hold it.

Points 8 and 9 are the engine's and the client's: their doors call the command that is tested here.
"""

import re
from typing import Any

import pytest

from aion_es.aggregates import WorkflowRepository, WorkflowStatus, successor_of
from aion_es.aggregates.continue_as_new import MAX_READ_SIGNALS
from aion_es.errors import (
    ConcurrencyConflictError,
    ContinueAsNewError,
    PendingWorkError,
    RunClosedError,
    RunNotFoundError,
    WorkflowNotFoundError,
    WorkflowTypeNotFoundError,
)
from aion_es.events import workflow as ev
from aion_es.events.values import WorkflowRef
from aion_es.ids import RunId, ScheduleId, SignalId, WorkflowId
from aion_es.store.memory import MemoryEventStore
from aion_es.testing.aggregates import GIVEN_AT, given
from tests.unit.aggregates.histories import (
    CHILD,
    HOUR,
    NEXT,
    NEXT_RUN,
    NOON,
    RUN,
    TERMINALS,
    act,
    armed,
    child_started,
    completed,
    failed,
    message,
    received,
    scheduled,
    start,
    started,
    text,
    whole,
)

CONTINUED = ev.WorkflowContinuedAsNew(
    input=NEXT, workflow_type="checkout", parent_run_id=RUN, new_run_id=NEXT_RUN
)


def successor(**changes: Any) -> ev.WorkflowStarted:
    chain: dict[str, Any] = {
        "input": NEXT,
        "run_id": NEXT_RUN,
        "first_run_id": RUN,
        "parent_run_id": RUN,
        "package_version": "2",
    }
    return started(**(chain | changes))


# ------------------------------------------------------------------------------------------ point 1


def test_point_1_a_workflow_that_was_never_started_is_not_found() -> None:
    given().when(lambda wf: wf.continue_as_new(NEXT, package_version="2", at=NOON)).then_refused(
        WorkflowNotFoundError, workflow_id="order-42"
    )


def test_point_1_a_run_that_is_not_the_current_one_is_not_found() -> None:
    given(started()).when(
        lambda wf: wf.continue_as_new(NEXT, package_version="2", run_id="run-0", at=NOON)
    ).then_refused(RunNotFoundError, run_id="run-0")


# ------------------------------------------------------------------------------------------ point 2


def test_point_2_another_workflow_type_is_refused() -> None:
    outcome = (
        given(started())
        .when(
            lambda wf: wf.continue_as_new(
                NEXT, package_version="2", workflow_type="refund", at=NOON
            )
        )
        .then_refused(ContinueAsNewError)
    )
    assert str(outcome.error) == (
        "must restart the same workflow type: current=checkout, requested=refund"
    )


def test_point_2_the_same_workflow_type_may_be_named() -> None:
    given(started()).when(
        lambda wf: wf.continue_as_new(
            NEXT, package_version="2", workflow_type="checkout", new_run_id=NEXT_RUN, at=NOON
        )
    ).then(CONTINUED, successor())


def test_point_2_is_checked_before_the_terminal_of_point_4() -> None:
    given(started(), ev.WorkflowCompleted()).when(
        lambda wf: wf.continue_as_new(NEXT, package_version="2", workflow_type="refund", at=NOON)
    ).then_refused(ContinueAsNewError)


# ------------------------------------------------------------------------------------------ point 3


def test_point_3_a_type_that_is_not_routed_is_refused() -> None:
    given(started()).when(
        lambda wf: wf.continue_as_new(NEXT, package_version=None, at=NOON)
    ).then_refused(WorkflowTypeNotFoundError, workflow_type="checkout")


# ------------------------------------------------------------------------------------------ point 4


@pytest.mark.parametrize("terminal", TERMINALS)
def test_point_4_a_closed_run_refuses_and_no_second_terminal_appears(
    terminal: ev.WorkflowEvent,
) -> None:
    outcome = (
        given(started(), terminal)
        .when(lambda wf: wf.continue_as_new(NEXT, package_version="2", at=NOON))
        .then_refused(RunClosedError, run_id=RUN)
    )
    assert re.search("already recorded a terminal event", str(outcome.error))


def test_point_4_a_run_that_has_continued_refuses_to_continue_again() -> None:
    given(started(), CONTINUED, successor()).when(
        lambda wf: wf.continue_as_new(NEXT, package_version="2", run_id=RUN, at=NOON)
    ).then_refused(RunClosedError, run_id=RUN, status="ContinuedAsNew")


async def test_point_4_the_guard_sees_the_revision_that_is_appended_to() -> None:
    repository = WorkflowRepository(MemoryEventStore())
    await repository.execute("order-42", lambda wf: wf.start(start(), at=NOON))
    early = await repository.load("order-42")
    await repository.execute("order-42", lambda wf: wf.complete(at=NOON))
    early.continue_as_new(NEXT, package_version="2", at=NOON)
    with pytest.raises(ConcurrencyConflictError):
        await repository.save(early)
    history = await repository.history("order-42")
    assert [envelope.event for envelope in history] == [started(), ev.WorkflowCompleted()]


# ------------------------------------------------------------------------------------------ point 5


def test_point_5_pending_work_refuses_and_is_counted_and_named() -> None:
    outcome = (
        given(
            started(),
            scheduled(0),
            scheduled(1),
            completed(0),
            scheduled(2),
            failed(2, retry_at=NOON),
            child_started(),
        )
        .when(lambda wf: wf.continue_as_new(NEXT, package_version="2", at=NOON))
        .then_refused(PendingWorkError, activities=(act(1), act(2)), children=(CHILD,))
    )
    assert str(outcome.error) == (
        "cannot continue as new with 2 pending activities (1, 2) and 1 pending child (child-1); "
        'await their ends first, of what is cancelled too, with cancellation="wait"'
    )
    assert outcome.aggregate.state.status is WorkflowStatus.RUNNING


def test_point_5_a_pending_activity_refuses_continue_as_new_and_records_nothing() -> None:
    given(started("checkout"), scheduled(0, "charge_card")).when(
        lambda wf: wf.continue_as_new(input=NEXT, package_version="2", at=NOON)
    ).then_refused(PendingWorkError, activities=(act(0),), children=())


def test_point_5_timers_and_unread_signals_are_not_pending_work() -> None:
    given(started(), armed()).when(
        lambda wf: wf.continue_as_new(NEXT, package_version="2", new_run_id=NEXT_RUN, at=NOON)
    ).then(CONTINUED, successor())


# ------------------------------------------------------------------------------------------ point 6


async def test_point_6_the_history_reads_started_continued_started_in_one_append() -> None:
    store = MemoryEventStore()
    repository = WorkflowRepository(store)
    await repository.execute("order-42", lambda wf: wf.start(start(), at=NOON))
    done = await repository.execute(
        "order-42",
        lambda wf: wf.continue_as_new(NEXT, package_version="2", new_run_id=NEXT_RUN, at=NOON),
    )
    assert done.revision == 2
    stored = [event async for event in store.read(repository.stream("order-42"))]
    assert [event.type for event in stored] == [
        "WorkflowStarted",
        "WorkflowContinuedAsNew",
        "WorkflowStarted",
    ]
    assert done.events == (CONTINUED, successor())
    assert done.workflow.state.run_id == NEXT_RUN


async def test_point_6_each_event_is_recorded_under_its_own_run() -> None:
    repository = WorkflowRepository(MemoryEventStore())
    await repository.execute("order-42", lambda wf: wf.start(start(), at=NOON))
    await repository.execute(
        "order-42",
        lambda wf: wf.continue_as_new(NEXT, package_version="2", new_run_id=NEXT_RUN, at=NOON),
    )
    closed = await repository.run_history("order-42", RUN)
    assert [(e.event, e.run_id) for e in closed] == [(started(), RUN), (CONTINUED, RUN)]
    current = await repository.run_history("order-42", NEXT_RUN)
    assert [(e.event, e.run_id) for e in current] == [(successor(), NEXT_RUN)]


def test_point_6_a_run_has_one_successor_whoever_asks() -> None:
    def names(*_: object) -> RunId:
        wf = given(started()).aggregate
        wf.continue_as_new(NEXT, package_version="2", at=NOON)
        return wf.state.run_id

    assert names() == names() == successor_of(RUN)
    assert successor_of(successor_of(RUN)) != successor_of(RUN) != RUN


def test_point_6_the_chain_keeps_its_first_run() -> None:
    third = RunId("run-3")
    outcome = given(started(), CONTINUED, successor()).when(
        lambda wf: wf.continue_as_new(NEXT, package_version="3", new_run_id=third, at=NOON)
    )
    outcome.then(
        ev.WorkflowContinuedAsNew(
            input=NEXT, workflow_type="checkout", parent_run_id=NEXT_RUN, new_run_id=third
        ),
        successor(run_id=third, parent_run_id=NEXT_RUN, package_version="3"),
    )


# ------------------------------------------------------------------------------------------ point 7


def test_point_7_search_attributes_go_on_without_an_update() -> None:
    update = ev.SearchAttributesUpdated(attributes={"total": whole(3), "customer": None})
    given(started(attributes={"customer": text("ana"), "city": text("Graz")}), update).when(
        lambda wf: wf.continue_as_new(NEXT, package_version="2", new_run_id=NEXT_RUN, at=NOON)
    ).then(CONTINUED, successor(attributes={"city": text("Graz"), "total": whole(3)}))


def test_point_7_unread_signals_go_on_in_the_order_of_their_arrival() -> None:
    wf = given(
        started(carried_signals=(message("s0"),)), received("s1"), received("s2"), received("s3")
    )
    wf.aggregate.signal_read(SignalId("s0"))
    wf.aggregate.signal_read(SignalId("s2"))
    wf.when(
        lambda wf: wf.continue_as_new(NEXT, package_version="2", new_run_id=NEXT_RUN, at=NOON)
    ).then(
        CONTINUED,
        successor(
            carried_signals=(message("s1"), message("s3")),
            read_signals=(SignalId("s0"), SignalId("s2")),
        ),
    )


def test_point_7_only_the_newest_ids_of_read_signals_go_on() -> None:
    ids = [SignalId(f"s{n}") for n in range(MAX_READ_SIGNALS + 5)]
    wf = given(started(), *(received(signal_id) for signal_id in ids))
    for signal_id in ids:
        wf.aggregate.signal_read(signal_id)
    wf.when(
        lambda wf: wf.continue_as_new(NEXT, package_version="2", new_run_id=NEXT_RUN, at=NOON)
    ).then(CONTINUED, successor(read_signals=tuple(ids[5:])))


def test_point_7_a_signal_that_was_read_before_and_is_sent_again_adds_nothing() -> None:
    given(started(), CONTINUED, successor(read_signals=(SignalId("s1"),))).when(
        lambda wf: wf.receive_signal(message("s1"), at=NOON)
    ).then_nothing()


async def test_point_7_a_signal_that_lands_first_is_carried_on_the_retry() -> None:
    repository = WorkflowRepository(MemoryEventStore())
    await repository.execute("order-42", lambda wf: wf.start(start(), at=NOON))
    early = await repository.load("order-42")
    await repository.execute("order-42", lambda wf: wf.receive_signal(message(), at=NOON))
    early.continue_as_new(NEXT, package_version="2", new_run_id=NEXT_RUN, at=NOON)
    with pytest.raises(ConcurrencyConflictError):
        await repository.save(early)
    done = await repository.execute(
        "order-42",
        lambda wf: wf.continue_as_new(NEXT, package_version="2", new_run_id=NEXT_RUN, at=NOON),
    )
    assert done.events == (CONTINUED, successor(carried_signals=(message(),)))


def test_point_7_a_carried_signal_that_is_delivered_again_adds_nothing() -> None:
    given(started(), CONTINUED, successor(carried_signals=(message("s1"),))).when(
        lambda wf: wf.receive_signal(message("s1"), at=NOON)
    ).then_nothing()


# -------------------------------------------------------------------------------- what else goes on


def test_a_successor_keeps_what_belongs_to_the_chain() -> None:
    parent = WorkflowRef(workflow_id=WorkflowId("boss"), run_id=RunId("b1"))
    kept: dict[str, Any] = {
        "task_queue": "slow",
        "parent": parent,
        "schedule_id": ScheduleId("nightly"),
        "request_id": "req",
        "memo": NEXT,
        "execution_deadline": NOON + 5 * HOUR,
    }
    given(started(run_deadline=GIVEN_AT + HOUR, **kept)).when(
        lambda wf: wf.continue_as_new(
            NEXT, package_version="2", new_run_id=NEXT_RUN, code_hash="abc", at=NOON
        )
    ).then(CONTINUED, successor(run_deadline=NOON + HOUR, code_hash="abc", **kept))


def test_a_repeated_start_finds_its_chain() -> None:
    given(started(request_id="req"), CONTINUED, successor(request_id="req")).when(
        lambda wf: wf.start(start(run_id=RunId("run-9"), request_id="req"), at=NOON)
    ).then_nothing()

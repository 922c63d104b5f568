"""The `pending_work` rows, event by event, as the engine's index gives them."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from aion_es.events import workflow as ev
from aion_es.events.values import ActivityFailure, Failure, TakenBack, WorkflowRef
from aion_es.ids import ActivityId, RunId, SignalId, TimerId, WorkflowId
from aion_es.projections import (
    OpenVersion,
    PendingDeadline,
    PendingTimer,
    PendingWorkIndex,
    PendingWorkProjection,
    ReadModel,
)
from aion_es.projections.checkpoints import install
from tests.unit.projections.histories import NOON, History, scheduled, started

LATER = NOON + timedelta(days=1)
W, R = WorkflowId("w"), RunId("r1")
TIMER = ev.TimerStarted(timer_id=TimerId("t"), fire_at=NOON)
DEAD = ActivityFailure(kind="terminal", type="Boom")


class Rows:
    """A read model with the projection in it."""

    def __init__(self, model: ReadModel) -> None:
        self.model = model
        self.projection = PendingWorkProjection()
        self.index = PendingWorkIndex(model)
        self._handled = 0

    async def take(self, history: History) -> None:
        """Fold what is new in the history, as one batch."""
        batch = history.events[self._handled :]
        self._handled = len(history.events)
        await self.model.write(lambda connection: self.projection.apply(connection, batch))

    async def owed(self) -> list[tuple[str, str]]:
        return [(child.child_workflow_id, child.owed) for child in await self.index.children()]


@pytest.fixture
async def rows() -> AsyncIterator[Rows]:
    async with await ReadModel.open("sqlite://") as model:
        made = Rows(model)
        await model.write(lambda connection: install(connection, made.projection))
        yield made


async def test_a_started_run_is_open_and_unseen(rows: Rows) -> None:
    await rows.take(History().add("w", started()))
    assert await rows.index.unseen_runs() == [(W, R)]
    assert await rows.index.open_versions() == [OpenVersion("checkout", "1", 1)]


async def test_an_activation_makes_everything_before_it_seen(rows: Rows) -> None:
    history = History().add("w", started()).add("w", scheduled(0), activated=True)
    await rows.take(history)
    assert await rows.index.unseen_runs() == []
    assert await rows.index.runs_with_activities() == [W]


async def test_a_signal_behind_the_activation_is_unseen_whatever_sleeping_fact_follows(
    rows: Rows,
) -> None:
    history = History().add("w", started(), scheduled(0), activated=True)
    history.add("w", ev.SignalReceived(signal_id=SignalId("s"), name="n"))
    history.add("w", ev.ActivityStarted(activity_id=ActivityId(0), attempt=1))
    await rows.take(history)
    assert await rows.index.unseen_runs() == [(W, R)]


async def test_a_failure_that_will_be_tried_again_wakes_nobody_and_one_for_good_does(
    rows: Rows,
) -> None:
    history = History().add("w", started(), scheduled(0), activated=True)
    first = ev.ActivityStarted(activity_id=ActivityId(0), attempt=1)
    again = ev.ActivityFailed(activity_id=ActivityId(0), attempt=1, error=DEAD, retry_at=LATER)
    await rows.take(history.add("w", first, again))
    assert await rows.index.unseen_runs() == []
    await rows.take(
        history.add("w", ev.ActivityFailed(activity_id=ActivityId(0), attempt=2, error=DEAD))
    )
    assert await rows.index.unseen_runs() == [(W, R)]
    assert await rows.index.runs_with_activities() == []


async def test_the_successor_of_a_continued_run_is_unseen_although_its_append_was_an_activation(
    rows: Rows,
) -> None:
    history = History().add("w", started())
    closing = ev.WorkflowContinuedAsNew(parent_run_id=R, new_run_id=RunId("r2"))
    history.add("w", closing, started("r2", parent_run_id="r1"), activated=True)
    await rows.take(history)
    assert await rows.index.unseen_runs() == [(W, RunId("r2"))]
    assert await rows.index.open_count() == 1


async def test_a_terminal_takes_every_row_of_the_run_away(rows: Rows) -> None:
    history = History().add("w", started(run_deadline=NOON), scheduled(0), TIMER)
    await rows.take(history)
    await rows.take(history.add("w", ev.WorkflowCompleted()))
    assert await rows.index.runs_with_activities() == []
    assert await rows.index.timers_due(LATER) == []
    assert await rows.index.deadlines_due(LATER) == []
    assert await rows.index.open_count() == 0


async def test_a_reopened_run_waits_again_for_what_failed_and_for_what_was_still_pending(
    rows: Rows,
) -> None:
    history = History().add("w", started(), scheduled(0), scheduled(1), scheduled(2), TIMER)
    history.add("w", ev.ActivityCompleted(activity_id=ActivityId(1), attempt=1))
    history.add("w", ev.ActivityFailed(activity_id=ActivityId(0), attempt=1, error=DEAD))
    await rows.take(history)
    await rows.take(history.add("w", ev.WorkflowFailed(error=Failure(type="Boom"))))
    assert await rows.index.runs_with_activities() == []
    await rows.take(history.add("w", ev.WorkflowReopened(run_id=R, reopened=(ActivityId(0),))))
    assert await rows.index.timers_due(LATER) == [PendingTimer(W, R, TimerId("t"), NOON)]
    found = await rows.model.read(
        lambda c: c.exec_driver_sql("SELECT activity_id, phase FROM pending_activities").all()
    )
    assert sorted(tuple(row) for row in found) == [(0, "scheduled"), (2, "scheduled")]


async def test_a_reopened_run_does_not_wait_for_what_is_void(rows: Rows) -> None:
    history = History().add("w", started(), scheduled(0), scheduled(1), scheduled(2), TIMER)
    history.add("w", ev.ActivityCancelled(activity_id=ActivityId(0), attempt=1))
    await rows.take(history.add("w", ev.WorkflowTerminated()))
    void = TakenBack(since=2, activities=(ActivityId(2),), timers=(TimerId("t"),))
    again = ev.WorkflowReopened(run_id=R, reopened=(ActivityId(0),), taken_back=void)
    await rows.take(history.add("w", again))
    assert await rows.index.timers_due(LATER) == []
    found = await rows.model.read(
        lambda c: c.exec_driver_sql("SELECT activity_id, phase FROM pending_activities").all()
    )
    assert sorted(tuple(row) for row in found) == [(0, "scheduled"), (1, "scheduled")]


@pytest.mark.parametrize(
    "end",
    [
        ev.ChildWorkflowFailed(child_workflow_id=WorkflowId("c"), error=Failure(type="Boom")),
        ev.ChildWorkflowCancelled(child_workflow_id=WorkflowId("c")),
    ],
    ids=["failed", "cancelled"],
)
async def test_a_child_that_did_not_complete_is_owed_nothing_until_it_is_waited_for_again(
    rows: Rows, end: ev.WorkflowEvent
) -> None:
    child = ev.ChildWorkflowStarted(
        child_workflow_id=WorkflowId("c"), workflow_type="ship", package_version="1"
    )
    history = History().add("w", started(), child, end)
    await rows.take(history.add("w", ev.WorkflowCancelled()))
    assert await rows.index.children() == []
    void = TakenBack(since=2, awaited=(WorkflowId("c"),))
    await rows.take(history.add("w", ev.WorkflowReopened(run_id=R, taken_back=void)))
    assert [owed.owed for owed in await rows.index.children()] == ["outcome"]


async def test_a_torn_down_timer_is_not_due_until_the_run_is_reopened(rows: Rows) -> None:
    history = History().add("w", started(), TIMER)
    await rows.take(history.add("w", ev.TimerCancelled(timer_id=TimerId("t"), cause="teardown")))
    assert await rows.index.timers_due(LATER) == []
    await rows.take(history.add("w", ev.WorkflowCancelled(), ev.WorkflowReopened(run_id=R)))
    assert [timer.timer_id for timer in await rows.index.timers_due(LATER)] == ["t"]


async def test_timers_come_by_due_time_in_pages(rows: Rows) -> None:
    history = History()
    for number in (3, 1, 2):
        at = NOON + timedelta(minutes=number)
        history.add(f"w{number}", started(), ev.TimerStarted(timer_id=TimerId("t"), fire_at=at))
    await rows.take(history)
    first = await rows.index.timers_due(LATER, limit=2)
    assert [timer.workflow_id for timer in first] == ["w1", "w2"]
    rest = await rows.index.timers_due(LATER, after=first[-1], limit=2)
    assert [timer.workflow_id for timer in rest] == ["w3"]
    assert await rows.index.next_timer_at() == NOON + timedelta(minutes=1)


async def test_deadlines_are_due_each_by_itself_and_gone_when_reopened_past_them(
    rows: Rows,
) -> None:
    history = History().add("w", started(run_deadline=NOON, execution_deadline=LATER))
    await rows.take(history)
    assert await rows.index.deadlines_due(LATER) == [PendingDeadline(W, R, "run", NOON)]
    await rows.take(history.add("w", ev.WorkflowTimedOut(timeout="run")))
    await rows.take(history.add("w", ev.WorkflowReopened(run_id=R), minute=1))
    assert [due.timeout for due in await rows.index.deadlines_due(LATER + timedelta(1))] == [
        "execution"
    ]


async def test_a_child_is_owed_its_start_then_its_outcome_then_nothing(rows: Rows) -> None:
    history = History().add("w", started())
    asked = ev.ChildWorkflowStarted(
        child_workflow_id=WorkflowId("c"), workflow_type="t", package_version="1"
    )
    await rows.take(history.add("w", asked))
    assert await rows.owed() == [("c", "start")]
    await rows.take(history.add("c", started("c1", parent=WorkflowRef(workflow_id=W, run_id=R))))
    assert await rows.owed() == []
    await rows.take(history.add("c", ev.WorkflowCompleted()))
    assert await rows.owed() == [("c", "outcome")]
    await rows.take(history.add("w", ev.ChildWorkflowCompleted(child_workflow_id=WorkflowId("c"))))
    assert await rows.owed() == []


async def test_a_parent_that_closes_first_owes_its_child_the_close_policy(rows: Rows) -> None:
    history = History().add("w", started())
    asked = ev.ChildWorkflowStarted(
        child_workflow_id=WorkflowId("c"), workflow_type="t", package_version="1"
    )
    history.add("w", asked).add("c", started("c1", parent=WorkflowRef(workflow_id=W, run_id=R)))
    await rows.take(history.add("w", ev.WorkflowCompleted()))
    assert await rows.owed() == [("c", "close")]
    await rows.take(history.add("c", ev.WorkflowCancelRequested()))
    assert await rows.owed() == []


@pytest.mark.parametrize("batches", ["one batch", "two batches"])
async def test_a_child_that_was_settled_for_good_is_owed_nothing_when_it_is_reopened(
    rows: Rows, batches: str
) -> None:
    asked = ev.ChildWorkflowStarted(
        child_workflow_id=WorkflowId("c"), workflow_type="t", package_version="1"
    )
    history = History().add("w", started(), asked)
    history.add("c", started("c1", parent=WorkflowRef(workflow_id=W, run_id=R)))
    history.add("w", ev.WorkflowCompleted()).add("c", ev.WorkflowCancelRequested())
    if batches == "two batches":
        await rows.take(history)
    reopened = ev.WorkflowReopened(run_id=RunId("c1"))
    await rows.take(history.add("c", ev.WorkflowCancelled(), reopened))
    assert await rows.owed() == []


async def test_a_signal_is_owed_until_its_target_has_it_even_if_its_sender_is_closed(
    rows: Rows,
) -> None:
    sent = ev.SignalSent(signal_id=SignalId("s"), target_workflow_id=WorkflowId("x"), name="n")
    history = History().add("w", started(), sent, ev.WorkflowCompleted()).add("x", started())
    await rows.take(history)
    assert [signal.signal_id for signal in await rows.index.signals()] == ["s"]
    await rows.take(history.add("x", ev.SignalReceived(signal_id=SignalId("s"), name="n")))
    assert await rows.index.signals() == []


@pytest.mark.parametrize("batches", ["one batch", "two batches"])
async def test_a_signal_that_has_arrived_is_owed_until_its_sender_knows(
    rows: Rows, batches: str
) -> None:
    sent = ev.SignalSent(signal_id=SignalId("s"), target_workflow_id=WorkflowId("x"), name="n")
    history = History().add("x", started()).add("w", started(), sent)
    if batches == "two batches":
        await rows.take(history)
    await rows.take(history.add("x", ev.SignalReceived(signal_id=SignalId("s"), name="n")))
    assert [signal.signal_id for signal in await rows.index.signals()] == ["s"]
    await rows.take(history.add("w", ev.SignalDelivered(signal_id=SignalId("s"))))
    assert await rows.index.signals() == []


async def test_a_signal_that_has_arrived_is_owed_no_longer_once_its_sender_has_closed(
    rows: Rows,
) -> None:
    sent = ev.SignalSent(signal_id=SignalId("s"), target_workflow_id=WorkflowId("x"), name="n")
    history = History().add("x", started()).add("w", started(), sent)
    await rows.take(history.add("x", ev.SignalReceived(signal_id=SignalId("s"), name="n")))
    await rows.take(history.add("w", ev.WorkflowCompleted()))
    assert await rows.index.signals() == []


async def test_a_child_that_is_not_wanted_is_owed_the_request_until_it_has_it(rows: Rows) -> None:
    child = ev.ChildWorkflowStarted(
        child_workflow_id=WorkflowId("c"), workflow_type="ship", package_version="1"
    )
    unwanted = ev.ChildWorkflowCancelRequested(child_workflow_id=WorkflowId("c"))
    history = History().add("w", started(), child, unwanted)
    await rows.take(history)
    assert await rows.owed() == [("c", "start")]
    await rows.take(history.add("c", started(parent=WorkflowRef(workflow_id=W, run_id=R))))
    assert await rows.owed() == [("c", "close")]
    await rows.take(history.add("c", ev.WorkflowCancelRequested()))
    assert await rows.owed() == []
    await rows.take(history.add("c", ev.WorkflowCancelled()))
    assert await rows.owed() == [("c", "outcome")]
    await rows.take(history.add("w", ev.ChildWorkflowCancelled(child_workflow_id=WorkflowId("c"))))
    assert await rows.owed() == []


async def test_a_signal_that_cannot_be_delivered_is_owed_no_longer(rows: Rows) -> None:
    sent = ev.SignalSent(signal_id=SignalId("s"), target_workflow_id=WorkflowId("x"), name="n")
    history = History().add("w", started(), sent)
    await rows.take(history)
    await rows.take(history.add("w", ev.SignalSendFailed(signal_id=SignalId("s"), reason="closed")))
    assert await rows.index.signals() == []


async def test_streams_of_another_namespace_are_none_of_its_business(rows: Rows) -> None:
    history = History().add("w", started())
    history.events = [e._replace(stream="other_workflow-w") for e in history.events]  # type: ignore[arg-type]  # plain text
    await rows.take(history)
    assert await rows.index.open_count() == 0

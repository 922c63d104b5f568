"""receive_signal, send_signal, confirm_signal, fail_signal."""

from collections.abc import Callable

import pytest

from aion_es.aggregates import Workflow
from aion_es.errors import (
    InvalidArgumentError,
    InvalidIdError,
    RunClosedError,
    RunNotFoundError,
    WorkflowNotFoundError,
)
from aion_es.events import workflow as ev
from aion_es.events.values import WorkflowRef
from aion_es.ids import RunId, SignalId, WorkflowId
from aion_es.testing.aggregates import given
from tests.unit.aggregates.histories import (
    CLOSED,
    NEXT,
    NOON,
    RUN,
    message,
    received,
    sent,
    started,
)

Command = Callable[[Workflow], object]
UNDELIVERABLE = ev.SignalSendFailed(signal_id=SignalId("s1"), reason="closed")

COMMANDS: dict[str, Command] = {
    "receive": lambda wf: wf.receive_signal(message(), at=NOON),
    "send": lambda wf: wf.send_signal(SignalId("s1"), WorkflowId("other"), "approval", at=NOON),
    "confirm": lambda wf: wf.confirm_signal(SignalId("s1"), at=NOON),
    "fail": lambda wf: wf.fail_signal(SignalId("s1"), "closed", at=NOON),
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_closed_run_takes_no_new_signal(command: Command) -> None:
    given(started(), CLOSED).when(command).then_refused(RunClosedError, status="Completed")


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_an_unknown_workflow_takes_no_signal(command: Command) -> None:
    given().when(command).then_refused(WorkflowNotFoundError)


def test_a_signal_is_recorded_as_it_was_sent() -> None:
    sender = WorkflowRef(workflow_id=WorkflowId("boss"), run_id=RunId("b1"))
    given(started()).when(
        lambda wf: wf.receive_signal(message(sender=sender), run_id=RUN, at=NOON)
    ).then(
        ev.SignalReceived(signal_id=SignalId("s1"), name="approval", payload=NEXT, sender=sender)
    )


def test_a_signal_for_another_run_is_refused() -> None:
    given(started()).when(
        lambda wf: wf.receive_signal(message(), run_id="run-0", at=NOON)
    ).then_refused(RunNotFoundError, run_id="run-0")


def test_a_signal_is_received_once_also_after_the_code_read_it() -> None:
    history = given(started(), received())
    history.aggregate.signal_read(SignalId("s1"))
    history.when(COMMANDS["receive"]).then_nothing()


def test_a_signal_that_arrived_before_the_end_is_not_refused_after_it() -> None:
    given(started(), received(), CLOSED).when(COMMANDS["receive"]).then_nothing()


def test_unread_signals_keep_the_order_of_their_arrival() -> None:
    wf = given(
        started(carried_signals=(message("c"),)), received("b"), received("a"), received("d")
    ).aggregate
    wf.signal_read(SignalId("b"))
    assert list(wf.state.unread_signals.values()) == [message("c"), message("a"), message("d")]


def test_reading_a_signal_that_is_not_there_changes_nothing() -> None:
    wf = given(started(), received("a")).aggregate
    wf.signal_read(SignalId("b"))
    assert list(wf.state.unread_signals) == ["a"]


@pytest.mark.parametrize("signal_id", ["", "a\nb", "\ud800"])
def test_a_signal_needs_an_id_that_can_be_recorded(signal_id: str) -> None:
    given(started()).when(lambda wf: wf.receive_signal(message(signal_id), at=NOON)).then_refused(
        InvalidIdError, kind="signal_id"
    )


def test_a_signal_is_sent_once() -> None:
    given(started()).when(COMMANDS["send"]).then(sent())
    given(started(), sent()).when(COMMANDS["send"]).then_nothing()


def test_a_signal_needs_a_target_that_can_exist() -> None:
    given(started()).when(
        lambda wf: wf.send_signal(SignalId("s1"), WorkflowId(""), "approval", at=NOON)
    ).then_refused(InvalidIdError, kind="target_workflow_id")


def test_a_signal_that_cannot_be_delivered_has_failed_once() -> None:
    given(started(), sent()).when(COMMANDS["fail"]).then(UNDELIVERABLE)
    given(started(), sent(), UNDELIVERABLE).when(COMMANDS["fail"]).then_nothing()


def test_a_signal_that_was_never_sent_does_not_fail() -> None:
    given(started()).when(COMMANDS["fail"]).then_refused(InvalidArgumentError, argument="signal_id")


def test_the_arrival_of_a_sent_signal_is_recorded_once() -> None:
    arrived = ev.SignalDelivered(signal_id=SignalId("s1"))
    given(started(), sent()).when(COMMANDS["confirm"]).then(arrived)
    given(started(), sent(), arrived).when(COMMANDS["confirm"]).then_nothing()


@pytest.mark.parametrize("command", ["confirm", "fail"])
def test_what_became_of_a_sent_signal_is_told_once(command: str) -> None:
    arrived = ev.SignalDelivered(signal_id=SignalId("s1"))
    given(started(), sent(), arrived).when(COMMANDS[command]).then_nothing()
    given(started(), sent(), UNDELIVERABLE).when(COMMANDS[command]).then_nothing()


def test_a_signal_that_was_never_sent_has_not_arrived() -> None:
    given(started()).when(COMMANDS["confirm"]).then_refused(InvalidArgumentError)

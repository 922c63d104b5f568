"""The shipped given / when / then finds what it is there to find."""

import re

import pytest

from aion_es.aggregates import Workflow
from aion_es.errors import RunClosedError, WorkflowNotFoundError
from aion_es.events import workflow as ev
from aion_es.testing.aggregates import given
from tests.unit.aggregates.histories import CLOSED, NOON, OOPS, RUN, TICK, started


def test_an_event_too_many_fails() -> None:
    with pytest.raises(AssertionError, match="added"):
        given(started()).when(lambda wf: wf.fail(OOPS, at=NOON)).then_nothing()


def test_an_event_too_few_fails() -> None:
    with pytest.raises(AssertionError, match=r"added: +nothing"):
        given(started()).when(lambda wf: wf.fire_timer(TICK, at=NOON)).then(CLOSED)


def test_another_order_fails() -> None:
    def both(wf: Workflow) -> None:
        wf.pause(at=NOON)
        wf.resume(at=NOON)

    paused, resumed = ev.WorkflowPaused(run_id=RUN), ev.WorkflowResumed(run_id=RUN)
    given(started()).when(both).then(paused, resumed)
    with pytest.raises(AssertionError):
        given(started()).when(both).then(resumed, paused)


def test_another_field_fails() -> None:
    with pytest.raises(AssertionError):
        given(started()).when(lambda wf: wf.time_out("run", at=NOON)).then(
            ev.WorkflowTimedOut(timeout="execution")
        )


def test_a_refusal_where_events_were_expected_fails() -> None:
    with pytest.raises(AssertionError, match="refused: RunClosedError"):
        given(started(), CLOSED).when(lambda wf: wf.complete(at=NOON)).then(CLOSED)


def test_events_where_a_refusal_was_expected_fail() -> None:
    with pytest.raises(AssertionError, match="expected RunClosedError, but the command was taken"):
        given(started()).when(lambda wf: wf.complete(at=NOON)).then_refused(RunClosedError)


def test_another_refusal_fails() -> None:
    with pytest.raises(AssertionError, match="expected RunClosedError, got WorkflowNotFoundError"):
        given().when(lambda wf: wf.complete(at=NOON)).then_refused(RunClosedError)
    given().when(lambda wf: wf.complete(at=NOON)).then_refused(WorkflowNotFoundError)


def test_another_field_of_the_refusal_fails() -> None:
    with pytest.raises(AssertionError, match=re.escape("{'status': 'Failed'}")):
        given(started(), CLOSED).when(lambda wf: wf.complete(at=NOON)).then_refused(
            RunClosedError, status="Failed"
        )


def test_a_refusal_that_left_something_behind_fails() -> None:
    def clumsy(wf: Workflow) -> None:
        wf.complete(at=NOON)
        wf.complete(at=NOON)

    with pytest.raises(AssertionError, match="refused, but added"):
        given(started()).when(clumsy).then_refused(RunClosedError)


def test_a_refusal_that_changed_the_state_fails() -> None:
    def clumsy(wf: Workflow) -> None:
        wf.state.attributes.clear()
        wf.state.requests.add("x")
        raise RunClosedError("order-42", RUN, "Completed")

    with pytest.raises(AssertionError, match="refused, but the state changed"):
        given(started()).when(clumsy).then_refused(RunClosedError)


def test_a_command_that_returns_other_events_than_it_added_fails() -> None:
    with pytest.raises(AssertionError, match="returned"):
        given(started()).when(lambda wf: (wf.complete(at=NOON), ())[1]).then(CLOSED)


def test_a_mistake_in_the_command_passes_through() -> None:
    with pytest.raises(ZeroDivisionError):
        given(started()).when(lambda wf: 1 // 0)

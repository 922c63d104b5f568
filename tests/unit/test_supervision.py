"""The supervision's own decisions: who may begin, who is given a place, what is forgotten."""

from datetime import timedelta

import pytest

from aion_es.aggregates.status import WorkflowStatus
from aion_es.engine.registry import Registration, Registry
from aion_es.engine.supervision import RestartPolicy, Supervision
from aion_es.engine.timers import TimerService
from aion_es.ids import RunId, WorkflowId
from aion_es.testing.clock import ManualClock

A, B, C, D = (WorkflowId(name) for name in "abcd")


class Engine:
    """A supervision with what it needs of an engine."""

    def __init__(self, limit: int = 1) -> None:
        self.clock = ManualClock()
        self.registry = Registry()
        self.woken: list[WorkflowId] = []
        self.in_memory: set[WorkflowId] = set()
        self.supervision = Supervision(
            "worker",
            self.registry,
            TimerService(self.clock),
            self.clock,
            self.woken.append,
            self.in_memory.__contains__,
            policy=RestartPolicy(max_restarts=1, period=timedelta(minutes=1)),
            limits={"job": limit},
        )

    def admit(self, workflow_id: WorkflowId, *, begun: bool = False) -> bool:
        return self.supervision.admit(workflow_id, "job", begun=begun)


def test_until_it_is_known_who_is_under_way_nobody_new_begins() -> None:
    engine = Engine(limit=2)
    assert not engine.admit(A)
    assert not engine.admit(B)
    engine.supervision.supply([(C, "job")])
    assert engine.woken == [A]
    assert engine.admit(A)
    assert not engine.admit(B)


def test_a_run_that_closed_before_that_is_known_has_no_place() -> None:
    engine = Engine()
    engine.admit(A)
    engine.supervision.gone(C)
    engine.supervision.supply([(C, "job")])
    assert engine.woken == [A]


def test_a_run_that_has_begun_goes_on_whatever_the_limit() -> None:
    engine = Engine()
    engine.supervision.supply([])
    assert engine.admit(A)
    assert engine.admit(B, begun=True)
    assert not engine.admit(C)
    engine.supervision.gone(A)
    assert engine.woken == []
    engine.supervision.gone(B)
    assert engine.woken == [C]


def test_a_type_without_a_limit_begins_at_once() -> None:
    assert Engine().supervision.admit(A, "other", begun=False)


def test_the_end_of_a_run_that_another_follows_gives_no_place_away_though_neither_is_in_memory() -> (
    None
):
    engine = Engine()
    engine.supervision.supply([(A, "job")])
    engine.admit(B)
    successor = Registration(
        A, RunId("next"), "job", "1", WorkflowStatus.RUNNING, "suspended", open_at=3
    )
    engine.registry.register(successor)
    engine.registry.remove(A, RunId("r"))
    assert engine.woken == []
    engine.registry.remove(A, RunId("next"))
    assert engine.woken == [B]


def test_a_run_that_another_engine_closed_gives_its_place_away_unless_its_process_is_here() -> None:
    engine = Engine()
    engine.supervision.supply([(A, "job")])
    engine.admit(B)
    engine.in_memory.add(A)
    engine.registry.remove(A, RunId("r"))
    assert engine.woken == []
    engine.in_memory.remove(A)
    engine.registry.remove(A, RunId("r"))
    assert engine.woken == [B]


def test_a_run_that_is_given_a_place_and_closes_before_it_begins_hands_it_on() -> None:
    engine = Engine()
    engine.supervision.supply([])
    for workflow_id in (A, B, C, D):
        engine.admit(workflow_id)
    engine.supervision.gone(C)
    engine.supervision.gone(A)
    engine.supervision.gone(B)
    assert engine.woken == [B, D]


@pytest.mark.parametrize("how", ["gone", "retry"])
def test_what_is_over_is_forgotten(how: str) -> None:
    engine = Engine()
    for _ in range(2):
        engine.supervision.failed(A, "job", "broken")
    assert (engine.supervision.stuck, engine.supervision.is_parked(A)) == (1, True)
    getattr(engine.supervision, how)(A)
    assert (engine.supervision.stuck, engine.supervision.is_parked(A)) == (0, False)


def test_a_run_that_goes_on_is_neither_stuck_nor_parked_though_its_restarts_count() -> None:
    engine = Engine()
    engine.supervision.failed(A, "job", "broken")
    engine.supervision.recovered(A)
    assert (engine.supervision.stuck, engine.supervision.is_parked(A)) == (0, False)
    engine.supervision.failed(A, "job", "broken again")
    assert engine.supervision.is_parked(A)
    engine.supervision.recovered(A)
    engine.clock.advance(timedelta(minutes=2))
    engine.supervision.failed(A, "job", "broken later")
    assert not engine.supervision.is_parked(A)

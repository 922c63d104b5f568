"""Task queues: places, order, rates, executors; without an engine, by a clock that stands still."""

from datetime import timedelta
from typing import Any

import pytest

from aion_es import QueueOptions
from aion_es.engine.queues import TaskQueues
from aion_es.engine.timers import TimerService
from aion_es.errors import InvalidArgumentError
from aion_es.testing.clock import ManualClock


class Line:
    """Queues, and who was placed in what order."""

    def __init__(self, **options: Any) -> None:
        self.clock = ManualClock()
        self.timers = TimerService(self.clock)
        given: dict[str, Any] = {"max_concurrent": 10, "queues": {}, "serves": None}
        given["executors"] = {}
        given.update(options)
        self.queues = TaskQueues(self.timers, self.clock, **given)
        self.placed: list[str] = []

    def ask(self, name: str, queue: str = "q", executor: Any = "async") -> Any:
        if self.queues.take(queue, executor):
            self.placed.append(name)
            return None
        return self.queues.wait(queue, executor, lambda: self.placed.append(name))

    def advance(self, by: timedelta) -> None:
        self.clock.advance(by)
        self.timers._fire_due()


def test_who_finds_no_place_waits_and_is_placed_in_order() -> None:
    line = Line(max_concurrent=2)
    for name in "abcde":
        line.ask(name)
    assert line.placed == ["a", "b"]
    line.queues.give_back("q", "async")
    line.queues.give_back("q", "async")
    assert line.placed == ["a", "b", "c", "d"]


def test_a_place_goes_to_who_has_waited_the_longest_whatever_its_queue() -> None:
    line = Line(max_concurrent=1)
    for name, queue in (("a", "x"), ("b", "y"), ("c", "x"), ("d", "z")):
        line.ask(name, queue)
    for queue in ("x", "y", "x"):
        line.queues.give_back(queue, "async")
    assert line.placed == ["a", "b", "c", "d"]


def test_a_full_queue_holds_up_only_itself() -> None:
    line = Line(queues={"narrow": QueueOptions(max_concurrent=1)})
    for name, queue in (("a", "narrow"), ("b", "narrow"), ("c", "wide"), ("d", "narrow")):
        line.ask(name, queue)
    assert line.placed == ["a", "c"]
    line.queues.give_back("wide", "async")
    assert line.placed == ["a", "c"]
    line.queues.give_back("narrow", "async")
    assert line.placed == ["a", "c", "b"]


def test_who_waits_for_a_thread_does_not_hold_up_who_needs_none() -> None:
    line = Line(executors={"thread": 1})
    line.ask("a", executor="thread")
    line.ask("b", executor="thread")
    line.ask("c", executor="async")
    assert line.placed == ["a", "c"]
    line.queues.give_back("q", "thread")
    assert line.placed == ["a", "c", "b"]


def test_who_leaves_the_line_is_passed_over() -> None:
    line = Line(max_concurrent=1)
    line.ask("a")
    leaving = line.ask("b")
    line.ask("c")
    leaving.withdrawn = True
    line.queues.give_back("q", "async")
    assert line.placed == ["a", "c"]


def test_a_line_that_all_have_left_holds_up_nobody() -> None:
    line = Line(max_concurrent=1)
    line.ask("a")
    line.ask("b").withdrawn = True
    line.queues.give_back("q", "async")
    line.ask("c")
    assert line.placed == ["a", "c"]


def test_a_rate_spaces_beginnings_evenly() -> None:
    line = Line(queues={"q": QueueOptions(rate_per_second=2)})
    for name in "abcd":
        line.ask(name)
    assert line.placed == ["a"]
    line.advance(timedelta(milliseconds=499))
    assert line.placed == ["a"]
    line.advance(timedelta(milliseconds=1))
    assert line.placed == ["a", "b"]
    line.advance(timedelta(milliseconds=500))
    line.advance(timedelta(milliseconds=500))
    assert line.placed == ["a", "b", "c", "d"]
    assert len(line.timers) == 0


def test_time_in_which_nothing_began_is_not_saved_up() -> None:
    line = Line(queues={"q": QueueOptions(rate_per_second=1)})
    line.ask("a")
    line.advance(timedelta(minutes=1))
    for name in "bc":
        line.ask(name)
    assert line.placed == ["a", "b"]


def test_only_named_queues_are_served() -> None:
    served = Line(serves=frozenset({"gpu"})).queues
    assert [served.serves(queue) for queue in ("gpu", "default")] == [True, False]
    assert Line().queues.serves("anything")


@pytest.mark.parametrize(
    "options",
    [{"max_concurrent": 0}, {"rate_per_second": 0.0}, {"rate_per_second": float("nan")}],
    ids=["no place", "no rate", "no number"],
)
def test_options_that_let_nothing_through_are_refused(options: Any) -> None:
    with pytest.raises(InvalidArgumentError):
        QueueOptions(**options)

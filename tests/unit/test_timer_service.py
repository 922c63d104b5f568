"""The timer service's heap: what was discarded does not stay in memory for as long as it would have been due."""

from datetime import timedelta
from functools import partial

from aion_es.engine.timers import TimerService
from aion_es.testing.clock import ManualClock

HOUR = timedelta(hours=1)


def test_timers_that_are_discarded_before_they_are_due_do_not_pile_up() -> None:
    timers = TimerService(ManualClock())
    for number in range(10_000):
        timers.add_after(number, HOUR, lambda: None)
        timers.discard(number)
    assert len(timers._heap) < 100


def test_what_is_live_survives_the_clearing_and_fires_in_order() -> None:
    clock, fired = ManualClock(), list[int]()
    timers = TimerService(clock)
    for number in range(1_000):
        due = HOUR * (1_000 - number)
        timers.add_after(number, due, partial(fired.append, number))
        if number % 10:
            timers.discard(number)
    clock.advance(HOUR * 1_000)
    timers._fire_due()
    assert fired == list(range(990, -1, -10))

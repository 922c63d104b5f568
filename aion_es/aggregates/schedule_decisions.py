"""Decisions on what is due: which due times are taken, skipped or buffered, by the policies of the schedule."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice, takewhile
from typing import Final, Literal, assert_never

from aion_es.aggregates.schedule_state import ScheduleState
from aion_es.events.schedule import (
    Previous,
    ScheduleBuffered,
    ScheduleEvent,
    ScheduleSkipped,
    ScheduleTriggered,
)
from aion_es.ids import RunId, ScheduleId, WorkflowId
from aion_es.schedules.config import ScheduleConfig
from aion_es.schedules.naming import action_id
from aion_es.schedules.policies import CatchUp, Overlap
from aion_es.schedules.times import due_times, fire_time, last_time

LATE: Final = timedelta(minutes=1)
"""A due time that nobody decided for longer was missed, even if an engine was there."""
MOST_AT_ONCE: Final = 250
"""Due times that one decision takes or buffers; the next one goes on."""
MOST_BUFFERED: Final = 1_000
"""Due times that wait at once; more are skipped."""
MOST_SKIPS: Final = 1_000
"""Missed due times that are recorded one by one; more are recorded as one stretch."""
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What a decision on due times is made from, besides the schedule's own state.

    Attributes:
        now: The present instant, in UTC.
        since: From when on somebody has been there to decide: what was due before was missed.
        running: The actions of the state's `open` that still run; `None` if nobody looked: then all may.
        new_run_id: Gives the run id of each action that is taken.
    """

    now: datetime
    since: datetime
    running: frozenset[WorkflowId] | None
    new_run_id: Callable[[], RunId]


def take_due(
    state: ScheduleState, schedule_id: ScheduleId, moment: Moment
) -> tuple[ScheduleEvent, ...]:
    """Decide every due time up to now that is not decided, and take what was buffered and need wait no longer.

    At most `MOST_AT_ONCE` are taken: while there are more, `state.next_due` is not after now, and the next
    decision goes on.
    """
    plan = state.plan
    if plan is None:
        return ()
    decision = _Decision(state, schedule_id, plan, moment)
    decision.release()
    if not state.paused:
        decision.take_missed()
        decision.take_live()
    return tuple(decision.events)


def backfill(
    state: ScheduleState,
    schedule_id: ScheduleId,
    times: Iterable[datetime],
    overlap: Overlap,
    moment: Moment,
) -> tuple[ScheduleEvent, ...]:
    """Take actions for due times of the past because a person asks for them, by `overlap`, also while paused.

    Those that were just taken, or wait, are left out.
    """
    plan = state.plan
    if plan is None:
        return ()
    decision = _Decision(state, schedule_id, plan, moment)
    known = {*state.open_ids, *(action.workflow_id for action in state.recent)}
    waiting = {w.scheduled_for for w in state.buffered}
    for due in times:
        if action_id(schedule_id, due) not in known and due not in waiting:
            decision.take(due, overlap, manual=True)
    return tuple(decision.events)


class _Decision:
    """The events of one decision, and what they make of running and waiting actions meanwhile."""

    def __init__(
        self, state: ScheduleState, schedule_id: ScheduleId, plan: ScheduleConfig, moment: Moment
    ) -> None:
        self.events: list[ScheduleEvent] = []
        self._schedule_id = schedule_id
        self._plan = plan
        self._moment = moment
        self._paused = state.paused
        self._decided_until = state.decided_until
        self._waiting = [(waiting.scheduled_for, waiting.manual) for waiting in state.buffered]
        self._running = [
            known for known in state.open_ids if moment.running is None or known in moment.running
        ]
        self._was_looked_at = moment.running is not None
        self._budget = state.budget
        self._room = MOST_AT_ONCE
        # What was due at an earlier instant was missed.
        self._missed_before = max(moment.since, moment.now - LATE)

    def release(self) -> None:
        """Take the first that waits, if nothing runs; while paused only one that a person asked for."""
        if self._waiting and not self._running:
            due, manual = self._waiting[0]
            if manual or not self._paused:
                del self._waiting[0]
                self._trigger(due, manual)  # the limit has counted it when it was buffered

    def take_missed(self) -> None:
        """Make up for missed due times, as far as the policy says, and record the others as skipped."""
        first = self._first_due(lambda fires_at: fires_at < self._missed_before)
        if first is None:
            return
        oldest = self._moment.now - self._plan.catch_up_window
        match self._plan.catch_up:
            case CatchUp.SKIP:
                self._skip_through(self._last_missed())
            case CatchUp.ONE:
                last = self._last_missed()
                if last <= oldest:
                    self._skip_through(last)
                else:
                    self._skip_through(last - _MICROSECOND)
                    self._take_each(lambda fires_at: fires_at < self._missed_before)
            case CatchUp.ALL:
                if first <= oldest:
                    self._skip_through(min(oldest, self._last_missed()))
                self._take_each(lambda fires_at: fires_at < self._missed_before)
            case _:
                assert_never(self._plan.catch_up)

    def take_live(self) -> None:
        """Take what is due now, by the overlap policy."""
        if self._first_due(lambda fires_at: fires_at < self._missed_before) is None:
            self._take_each(lambda fires_at: fires_at <= self._moment.now)

    def take(self, due: datetime, overlap: Overlap, *, manual: bool = False) -> None:
        """Take, skip or buffer one due time, by `overlap`."""
        if overlap is Overlap.ALLOW_ALL or not (self._running or self._waiting):
            self._trigger(due, manual)
            self._spend(manual)
            return
        match overlap:
            case Overlap.SKIP:
                self._skip(due, "overlap")
            case Overlap.BUFFER_ONE:
                if self._waiting:
                    self._skip(due, "overlap")
                else:
                    self._buffer(due, manual, "wait")
            case Overlap.BUFFER_ALL:
                if len(self._waiting) >= MOST_BUFFERED:
                    self._skip(due, "overlap")
                else:
                    self._buffer(due, manual, "wait")
            case Overlap.CANCEL_PREVIOUS:
                self._replace(due, manual, "cancel")
            case Overlap.TERMINATE_PREVIOUS:
                self._replace(due, manual, "terminate")
            case _:
                assert_never(overlap)

    def _take_each(self, concerns: Callable[[datetime], bool]) -> None:
        """Take due times as long as they concern, there is room, and the limit is not reached."""
        for due in self._due(concerns):
            if self._room == 0 or self._budget == 0:
                return
            self._room -= 1
            self._decided_until = due
            self.take(due, self._plan.overlap)

    def _due(self, concerns: Callable[[datetime], bool]) -> Iterable[datetime]:
        spec, schedule_id = self._plan.spec, self._schedule_id
        return takewhile(
            lambda due: concerns(fire_time(spec, schedule_id, due)),
            due_times(spec, self._decided_until),
        )

    def _first_due(self, concerns: Callable[[datetime], bool]) -> datetime | None:
        if self._budget == 0:
            return None
        return next(iter(self._due(concerns)), None)

    def _last_missed(self) -> datetime:
        """Return the last due time whose action should have been taken before anybody was there; there is one."""
        spec, boundary = self._plan.spec, self._missed_before
        last = last_time(spec, self._decided_until, boundary)
        while last is not None and fire_time(spec, self._schedule_id, last) >= boundary:
            last = last_time(spec, self._decided_until, last - _MICROSECOND)
        return self._decided_until if last is None else last

    def _skip_through(self, until: datetime) -> None:
        """Record every due time up to `until` as missed: one by one, or as one stretch if there are too many."""
        due = due_times(self._plan.spec, self._decided_until)
        missed = list(islice(takewhile(lambda d: d <= until, due), MOST_SKIPS + 1))
        self._decided_until = max(self._decided_until, until)
        if len(missed) > MOST_SKIPS:
            self.events.append(
                ScheduleSkipped(scheduled_for=missed[0], reason="catch_up", until=until)
            )
            return
        for each in missed:
            self._skip(each, "catch_up")

    def _trigger(self, due: datetime, manual: bool) -> None:
        workflow_id = action_id(self._schedule_id, due)
        # Said once: nothing has ended between two actions of one decision.
        beside = tuple(self._running) if self._was_looked_at else None
        self._was_looked_at = False
        self.events.append(
            ScheduleTriggered(
                scheduled_for=due,
                workflow_id=workflow_id,
                run_id=self._moment.new_run_id(),
                manual=manual,
                beside=beside,
            )
        )
        self._running.append(workflow_id)

    def _buffer(self, due: datetime, manual: bool, previous: Previous) -> None:
        self.events.append(ScheduleBuffered(scheduled_for=due, manual=manual, previous=previous))
        self._waiting.append((due, manual))
        self._spend(manual)

    def _replace(self, due: datetime, manual: bool, previous: Previous) -> None:
        """Let this one wait in the place of those that do."""
        for waiting, was_manual in self._waiting:
            self._skip(waiting, "overlap")
            if self._budget is not None and not was_manual:
                self._budget += 1
        self._waiting.clear()
        self._buffer(due, manual, previous)

    def _spend(self, manual: bool) -> None:
        if self._budget is not None and not manual:
            self._budget -= 1

    def _skip(self, due: datetime, reason: Literal["overlap", "catch_up"]) -> None:
        self.events.append(ScheduleSkipped(scheduled_for=due, reason=reason))

"""What replay makes of a reopened run: the history without what the reopening took back.

A run that failed because activity 3 failed is reopened to try activity 3 again. Its code must then stand
where it stood before it learned of that failure: the failure, what the code commanded because of it, and
the end of the run are *void*. What came from outside meanwhile (signals, timers, outcomes of work that
had been asked for before) is not.

Where the code takes up again, the *cut*, is the first of: the final failure of an activity that led to the
run's failure; the request to cancel the run. A run that was terminated, that timed out, or whose own code
failed has no cut: only its end is taken back.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, TypeAlias, get_args

from aion_es.events import workflow as ev
from aion_es.events.metadata import Envelope
from aion_es.ids import ActivityId, TimerId

Recorded: TypeAlias = Envelope[ev.WorkflowEvent]
_TERMINAL: Final = get_args(ev.TerminalEvent)


@dataclass(frozen=True, slots=True)
class Cut:
    """Stands in the history where something void was.

    Attributes:
        next_activity: Ordinals from here on; those below are taken by what is void. So are the others.
        patches: Names of patches that were recorded there: they are not recorded again.
        timers: Timers that were disarmed there, and are to be armed again at their original time.
    """

    next_activity: int = 0
    next_timer: int = 0
    next_child: int = 0
    next_signal: int = 0
    patches: frozenset[str] = frozenset()
    timers: dict[TimerId, datetime] = field(default_factory=dict[TimerId, datetime])


Step: TypeAlias = Recorded | Cut


def effective(history: Sequence[Recorded]) -> Sequence[Step]:
    """Return the history of one run as its code is to see it."""
    if not any(type(recorded.event) is ev.WorkflowReopened for recorded in history):
        return history
    steps: list[Step] = []
    for recorded in history:
        if isinstance(recorded.event, ev.WorkflowReopened):
            steps = _taken_back(steps, recorded.event)
        steps.append(recorded)
    return steps


def _taken_back(steps: list[Step], reopened: ev.WorkflowReopened) -> list[Step]:
    """Return the steps before a reopening, without what it makes void."""
    end = max((i for i, s in enumerate(steps) if _is(s, *_TERMINAL)), default=None)
    if end is None:
        return steps  # foreign history: nothing had closed
    start = max((i for i, s in enumerate(steps) if _is(s, ev.WorkflowReopened)), default=0)
    cut = _cut(steps, start, end, reopened)
    if cut is None:
        return steps[:end] + steps[end + 1 :]
    before, region = steps[:cut], [s for s in steps[cut:end] if isinstance(s, Envelope)]
    asked = _Asked(before)
    kept = [recorded for recorded in region if asked.concerns(recorded.event, reopened)]
    return [*before, _cut_of(region, asked), *kept, *steps[end + 1 :]]


def _cut(steps: Sequence[Step], start: int, end: int, reopened: ev.WorkflowReopened) -> int | None:
    """Return the index of the first step that is void, `None` if only the end is."""
    terminal = steps[end]
    roots = (
        _roots(terminal.event, steps[start:end], reopened) if isinstance(terminal, Envelope) else ()
    )
    for index in range(start, end):
        step = steps[index]
        if not isinstance(step, Envelope):
            continue
        event = step.event
        if isinstance(event, ev.WorkflowCancelRequested) or (
            isinstance(event, ev.ActivityFailed)
            and event.retry_at is None
            and event.activity_id in roots
        ):
            return index
    return None


def _roots(
    terminal: ev.WorkflowEvent, lease: Sequence[Step], reopened: ev.WorkflowReopened
) -> frozenset[ActivityId]:
    """Return the activities whose failure led to the run's, and that are tried again."""
    if not isinstance(terminal, ev.WorkflowFailed):
        return frozenset()
    led = terminal.failed_activities
    if not led and terminal.error.type == "ActivityError":  # recorded by hand, without saying which
        failed = [s.event for s in lease if isinstance(s, Envelope)]
        led = tuple(e.activity_id for e in failed if isinstance(e, ev.ActivityFailed))[-1:]
    return frozenset(led) & frozenset(reopened.reopened)


class _Asked:
    """What the code had asked for before the cut: outcomes of that are not void."""

    def __init__(self, before: Iterable[Step]) -> None:
        self.activities: set[ActivityId] = set()
        self.timers: dict[TimerId, datetime] = {}
        self._others: set[str] = set()
        for step in before:
            if isinstance(step, Cut):
                self.timers.update(step.timers)
                continue
            match step.event:
                case ev.ActivityScheduled(activity_id=activity_id):
                    self.activities.add(activity_id)
                case ev.TimerStarted(timer_id=timer_id, fire_at=fire_at):
                    self.timers[timer_id] = fire_at
                case ev.TimerFired(timer_id=timer_id):
                    self.timers.pop(timer_id, None)
                case ev.TimerCancelled(timer_id=timer_id, cause="workflow"):
                    self.timers.pop(timer_id, None)
                case ev.ChildWorkflowStarted(child_workflow_id=child_id):
                    self._others.add(child_id)
                case ev.SignalSent(signal_id=signal_id):
                    self._others.add(signal_id)
                case _:
                    pass
        self._live = set(self.timers)

    def concerns(self, event: ev.WorkflowEvent, reopened: ev.WorkflowReopened) -> bool:
        """Return whether an event behind the cut is still a fact for the code. Asked once each, in order."""
        match event:
            case ev.SignalReceived() | ev.WorkflowPaused() | ev.WorkflowResumed():
                return True
            case ev.ActivityFailed():
                return (
                    event.activity_id in self.activities
                    and event.activity_id not in reopened.reopened
                )
            case ev.ActivityCompleted() | ev.ActivityCancelled():
                return event.activity_id in self.activities
            case ev.TimerFired():
                fired = event.timer_id in self._live
                self._live.discard(event.timer_id)
                return fired
            case ev.TimerStarted():
                self._live.discard(event.timer_id)  # the name is used anew, by what is void
                return False
            case (
                ev.ChildWorkflowCompleted() | ev.ChildWorkflowFailed() | ev.ChildWorkflowCancelled()
            ):
                return event.child_workflow_id in self._others
            case ev.SignalDelivered() | ev.SignalSendFailed():
                return event.signal_id in self._others
            case _:
                return False


def _cut_of(region: Sequence[Recorded], asked: _Asked) -> Cut:
    events = [recorded.event for recorded in region]
    disarmed = {
        e.timer_id for e in events if isinstance(e, ev.TimerCancelled) and e.cause == "workflow"
    }
    scheduled = [e.activity_id for e in events if isinstance(e, ev.ActivityScheduled)]
    return Cut(
        next_activity=max(scheduled, default=-1) + 1,
        next_timer=_next(e.timer_id for e in events if isinstance(e, ev.TimerStarted)),
        next_child=_next(
            e.child_workflow_id.rpartition("/")[2]
            for e in events
            if isinstance(e, ev.ChildWorkflowStarted)
        ),
        next_signal=_next(
            e.signal_id.rpartition("/")[2] for e in events if isinstance(e, ev.SignalSent)
        ),
        patches=frozenset(
            e.name for e in events if isinstance(e, ev.MarkerRecorded) and e.kind == "patch"
        ),
        timers={t: fire_at for t, fire_at in asked.timers.items() if t in disarmed},
    )


def _next(ordinals: Iterable[str]) -> int:
    """Return the ordinal behind those that are numbers; names of the author's are none."""
    return max((int(o) for o in ordinals if o.isdecimal() and o.isascii()), default=-1) + 1


def _is(step: Step, *kinds: type[Any]) -> bool:
    return isinstance(step, Envelope) and isinstance(step.event, kinds)

"""What replay makes of a reopened run: the history without what the reopening took back.

A run that failed because activity 3 failed is reopened to try activity 3 again. Its code must then stand
where it stood before it learned of that failure: the failure, what the code commanded because of it, and
the end of the run are *void*. What came from outside meanwhile (signals, timers, outcomes of work that
had been asked for before) is not.

Where the code takes up again, the *cut*, is recorded in the WorkflowReopened (`taken_back`), as
`aion_es/aggregates/reopening.py` decided it. In histories of a time when it was not, it is the first of: the
final failure of an activity that led to the run's failure; the request to cancel the run. A run that was
terminated, that timed out, or whose own code failed has no cut: only its end is taken back.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, TypeAlias, get_args

from aion_es.events import workflow as ev
from aion_es.events.metadata import Envelope
from aion_es.ids import ActivityId, SignalId, TimerId, WorkflowId

Recorded: TypeAlias = Envelope[ev.WorkflowEvent]
Sent: TypeAlias = tuple[ev.SignalSent, ev.SignalDelivered | ev.SignalSendFailed | None]
"""A signal, and what became of it as far as is known."""
_TERMINAL: Final = get_args(ev.TerminalEvent)


@dataclass(frozen=True, slots=True)
class Cut:
    """Stands in the history where something void was.

    Attributes:
        reopened_at: Revision of the WorkflowReopened: only from there on the code acts on what is kept.
        redraws: What the code draws at random from here on depends on this; `None`: it goes on drawing as before.
        next_activity: Ordinals from here on; those below are taken by what is void. So are the others.
        patches: Names of patches that were recorded there: they are not recorded again.
        timers: Timers that were disarmed there, and are to be armed again at their original time.
        children: Ids of children that were started there: a run has one child of an id.
        signals: What was sent there, and what came of it: one signal is sent under an id.
        reopenings: How many earlier reopenings are void with it.
    """

    reopened_at: int = -1
    redraws: str | None = None
    next_activity: int = 0
    next_timer: int = 0
    next_child: int = 0
    next_signal: int = 0
    patches: frozenset[str] = frozenset()
    timers: dict[TimerId, datetime] = field(default_factory=dict[TimerId, datetime])
    children: frozenset[WorkflowId] = frozenset()
    signals: dict[SignalId, Sent] = field(default_factory=dict[SignalId, Sent])
    reopenings: int = 0


Step: TypeAlias = Recorded | Cut


def effective(history: Sequence[Recorded]) -> Sequence[Step]:
    """Return the history of one run as its code is to see it."""
    if not any(type(recorded.event) is ev.WorkflowReopened for recorded in history):
        return history
    steps: list[Step] = []
    for recorded in history:
        if isinstance(recorded.event, ev.WorkflowReopened):
            place = recorded.revision - history[0].revision
            steps = _taken_back(steps, recorded.event, recorded.revision, place)
        steps.append(recorded)
    return steps


def _taken_back(
    steps: list[Step], reopened: ev.WorkflowReopened, revision: int, place: int
) -> list[Step]:
    """Return the steps before a reopening, without what it makes void.

    Args:
        steps: All that the code was to see before it.
        reopened: The reopening.
        revision: Its revision.
        place: How many of the run's events were before it.
    """
    end = max((i for i, s in enumerate(steps) if _is(s, *_TERMINAL)), default=None)
    if end is None:
        return steps  # foreign history: nothing had closed
    if reopened.taken_back is not None:
        redraws: str | None = f"{reopened.run_id}/{place}"
        stands = revision - place + reopened.taken_back.since
        cut = next(
            i for i, s in enumerate(steps) if isinstance(s, Envelope) and s.revision >= stands
        )
    else:
        redraws = None
        start = max((i for i, s in enumerate(steps) if _is(s, ev.WorkflowReopened)), default=0)
        cut = _derived_cut(steps, start, end, reopened)
    if cut >= end:
        return steps[:end] + steps[end + 1 :]
    before, region = steps[:cut], steps[cut:end]
    asked = _Asked(before)
    kept = [s for s in region if isinstance(s, Envelope) and asked.concerns(s.event, reopened)]
    void = replace(_cut_of(region, asked, reopened), reopened_at=revision, redraws=redraws)
    return [*before, void, *kept, *steps[end + 1 :]]


def _derived_cut(steps: Sequence[Step], start: int, end: int, reopened: ev.WorkflowReopened) -> int:
    """Return the index of the first step that is void in a history that does not say it; `end` for none."""
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
    return end


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
                self._others.update(step.signals)
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
            case ev.ActivityCompleted() | ev.ActivityFailed() | ev.ActivityCancelled():
                return (
                    event.activity_id in self.activities
                    and event.activity_id not in reopened.reopened
                )
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
                void = reopened.taken_back
                is_awaited = void is not None and event.child_workflow_id in void.awaited
                return event.child_workflow_id in self._others and not is_awaited
            case ev.SignalDelivered() | ev.SignalSendFailed():
                return event.signal_id in self._others
            case _:
                return False


def _cut_of(region: Sequence[Step], asked: _Asked, reopened: ev.WorkflowReopened) -> Cut:
    events = [step.event for step in region if isinstance(step, Envelope)]
    former = [step for step in region if isinstance(step, Cut)]
    children = [e.child_workflow_id for e in events if isinstance(e, ev.ChildWorkflowStarted)]
    signals = _signals(events, former)
    scheduled = [e.activity_id for e in events if isinstance(e, ev.ActivityScheduled)]
    armed = [e.timer_id for e in events if isinstance(e, ev.TimerStarted)]
    disarmed = {
        e.timer_id for e in events if isinstance(e, ev.TimerCancelled) and e.cause == "workflow"
    }
    if reopened.taken_back is not None:
        disarmed.update(armed)  # the name is used anew by what is void, and that is not armed again
    patches = [e.name for e in events if isinstance(e, ev.MarkerRecorded) and e.kind == "patch"]
    return Cut(
        next_activity=max([*scheduled, *(c.next_activity - 1 for c in former)], default=-1) + 1,
        next_timer=max([_next(armed), *(c.next_timer for c in former)]),
        next_child=max([_next(map(_ordinal, children)), *(c.next_child for c in former)]),
        next_signal=max([_next(map(_ordinal, signals)), *(c.next_signal for c in former)]),
        patches=frozenset(patches).union(*(c.patches for c in former)),
        timers={t: fire_at for t, fire_at in asked.timers.items() if t in disarmed},
        children=frozenset(children).union(*(c.children for c in former)),
        signals=signals,
        reopenings=sum(isinstance(e, ev.WorkflowReopened) for e in events)
        + sum(c.reopenings for c in former),
    )


def _signals(events: Iterable[ev.WorkflowEvent], former: Iterable[Cut]) -> dict[SignalId, Sent]:
    """Return what was sent in what is void, and what came of it there."""
    sent = {signal_id: known for cut in former for signal_id, known in cut.signals.items()}
    for event in events:
        if isinstance(event, ev.SignalSent):
            sent[event.signal_id] = (event, None)
        elif isinstance(event, ev.SignalDelivered | ev.SignalSendFailed):
            known = sent.get(event.signal_id)
            if known is not None:
                sent[event.signal_id] = (known[0], event)
    return sent


def _ordinal(made: str) -> str:
    """Return the last part of an id that was made of the run's id and an ordinal."""
    return made.rpartition("/")[2]


def _next(ordinals: Iterable[str]) -> int:
    """Return the ordinal behind those that are numbers; names of the author's are none."""
    return max((int(o) for o in ordinals if o.isdecimal() and o.isascii()), default=-1) + 1


def _is(step: Step, *kinds: type[Any]) -> bool:
    return isinstance(step, Envelope) and isinstance(step.event, kinds)

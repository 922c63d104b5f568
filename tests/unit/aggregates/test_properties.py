"""Random sequences of commands against a naive reading of the history that they make."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from aion_es.aggregates import Workflow, pending_work
from aion_es.errors import DomainError
from aion_es.events import workflow as ev
from aion_es.events.codec import decode_envelope, encode
from aion_es.events.metadata import EventMetadata
from aion_es.events.values import RetryPolicy
from aion_es.ids import RunId, SignalId, StreamName, TimerId, WorkflowId, deterministic_event_id
from aion_es.store.port import Position, RecordedEvent
from tests.unit.aggregates.histories import (
    NEXT,
    NOON,
    OOPS,
    act,
    error,
    message,
    schema,
    start,
    whole,
)

Command = Callable[[Workflow], tuple[ev.WorkflowEvent, ...]]
TERMINAL = (
    ev.WorkflowCompleted,
    ev.WorkflowFailed,
    ev.WorkflowCancelled,
    ev.WorkflowTerminated,
    ev.WorkflowTimedOut,
    ev.WorkflowContinuedAsNew,
)
STATUS = {
    ev.WorkflowStarted: "Running",
    ev.WorkflowReopened: "Running",
    ev.WorkflowResumed: "Running",
    ev.WorkflowPaused: "Paused",
    ev.WorkflowCompleted: "Completed",
    ev.WorkflowFailed: "Failed",
    ev.WorkflowCancelled: "Cancelled",
    ev.WorkflowTerminated: "Terminated",
    ev.WorkflowTimedOut: "TimedOut",
    ev.WorkflowContinuedAsNew: "ContinuedAsNew",
}
SMALL = st.integers(0, 2)
ATTEMPT = st.integers(1, 3)
KIND = st.sampled_from(["retryable", "terminal"])


def _started(number: int, conflict: str, reuse: str) -> Command:
    command = start(
        run_id=RunId(f"run-{number}"),
        request_id=f"req-{number}",
        on_conflict=conflict,
        reuse=reuse,
    )
    return lambda wf: wf.start(command, at=NOON)


def _activity(which: str, ordinal: int, attempt: int, kind: str) -> Command:
    a = act(ordinal)
    commands: dict[str, Command] = {
        "schedule": lambda wf: wf.schedule_activity(
            a, "charge", retry=RetryPolicy(max_attempts=2), at=NOON
        ),
        "start": lambda wf: wf.start_activity(a, attempt, at=NOON),
        "complete": lambda wf: wf.complete_activity(a, attempt, at=NOON),
        "fail": lambda wf: wf.fail_activity(a, attempt, error(kind), at=NOON),  # type: ignore[arg-type] # one of two words
        "cancel": lambda wf: wf.cancel_activity(a, attempt, at=NOON),
        "request_cancel": lambda wf: wf.request_cancel_activity(a, at=NOON),
        "heartbeat": lambda wf: wf.heartbeat_timeout(a, attempt, at=NOON),
        "start_to_close": lambda wf: wf.start_to_close_timeout(a, attempt, at=NOON),
        "schedule_to_start": lambda wf: wf.schedule_to_start_timeout(a, attempt, at=NOON),
        "schedule_to_close": lambda wf: wf.schedule_to_close_timeout(a, attempt, at=NOON),
    }
    return commands[which]


def _child(which: str, number: int) -> Command:
    child = WorkflowId(f"child-{number}")
    commands: dict[str, Command] = {
        "start": lambda wf: wf.start_child(child, "ship", package_version="1", at=NOON),
        "complete": lambda wf: wf.complete_child(child, at=NOON),
        "fail": lambda wf: wf.fail_child(child, OOPS, at=NOON),
        "cancel": lambda wf: wf.cancel_child(child, at=NOON),
    }
    return commands[which]


def _timer(which: str, number: int) -> Command:
    timer = TimerId(f"timer-{number}")
    commands: dict[str, Command] = {
        "start": lambda wf: wf.start_timer(timer, NOON + timedelta(seconds=number), at=NOON),
        "fire": lambda wf: wf.fire_timer(timer, at=NOON),
        "cancel": lambda wf: wf.cancel_timer(timer, at=NOON),
        "decide": lambda wf: wf.complete_with_timeout(timer, "timed_out", at=NOON),
    }
    return commands[which]


def _signal(which: str, number: int) -> Command:
    signal = SignalId(f"s{number}")
    commands: dict[str, Command] = {
        "receive": lambda wf: wf.receive_signal(message(signal), at=NOON),
        "send": lambda wf: wf.send_signal(signal, WorkflowId("other"), "hi", at=NOON),
        "fail": lambda wf: wf.fail_signal(signal, "closed", at=NOON),
    }
    return commands[which]


def _lifecycle(which: str, number: int) -> Command:
    commands: dict[str, Command] = {
        "complete": lambda wf: wf.complete(at=NOON),
        "fail": lambda wf: wf.fail(OOPS, at=NOON),
        "time_out": lambda wf: wf.time_out("run", at=NOON),
        "request_cancel": lambda wf: wf.request_cancel(at=NOON),
        "cancel": lambda wf: wf.cancel(at=NOON),
        "terminate": lambda wf: wf.terminate(at=NOON),
        "pause": lambda wf: wf.pause(at=NOON),
        "resume": lambda wf: wf.resume(at=NOON),
        "reopen": lambda wf: wf.reopen(at=NOON),
        "patch": lambda wf: wf.record_marker("patch", f"p{number}", at=NOON),
        "update": lambda wf: wf.update_attributes(
            {"total": whole(number)}, request_id=f"r{number}", at=NOON
        ),
    }
    return commands[which]


LIFECYCLE = [
    "complete",
    "fail",
    "time_out",
    "request_cancel",
    "cancel",
    "terminate",
    "pause",
    "resume",
    "reopen",
    "patch",
    "update",
]
ACTIVITY = [
    "schedule",
    "start",
    "complete",
    "fail",
    "cancel",
    "request_cancel",
    "heartbeat",
    "start_to_close",
    "schedule_to_start",
    "schedule_to_close",
]
REPEATABLE = st.one_of(
    st.builds(
        _started,
        SMALL,
        st.sampled_from(["fail", "use_existing", "terminate_existing"]),
        st.sampled_from(["allow", "allow_if_failed", "reject"]),
    ),
    st.builds(_activity, st.sampled_from(ACTIVITY), SMALL, ATTEMPT, KIND),
    st.builds(_activity, st.sampled_from(["schedule", "complete", "fail"]), SMALL, ATTEMPT, KIND),
    st.builds(_child, st.sampled_from(["start", "complete", "fail", "cancel"]), SMALL),
    st.builds(_timer, st.sampled_from(["start", "fire", "cancel", "decide"]), SMALL),
    st.builds(_signal, st.sampled_from(["receive", "send", "fail"]), SMALL),
    st.builds(_lifecycle, st.sampled_from(LIFECYCLE), SMALL),
    st.builds(_lifecycle, st.sampled_from(["fail", "reopen"]), SMALL),
)


def _continued(wf: Workflow) -> tuple[ev.WorkflowEvent, ...]:
    return wf.continue_as_new(NEXT, package_version="1", at=NOON)


COMMANDS = st.lists(st.one_of(REPEATABLE, st.just(_continued)), max_size=40)
OPENING: Command = lambda wf: wf.start(start(run_id=RunId("run-0"), request_id="req-0"), at=NOON)  # noqa: E731 - one of the commands


def history_of(wf: Workflow) -> list[ev.WorkflowEvent]:
    return [pending.event for pending in wf.uncommitted]


def played(commands: list[Command]) -> Workflow:
    wf = Workflow(WorkflowId("order-42"), schema=schema())
    for command in (OPENING, *commands):
        attempted(wf, command)
    return wf


def attempted(wf: Workflow, command: Command) -> tuple[ev.WorkflowEvent, ...] | DomainError:
    try:
        return command(wf)
    except DomainError as refusal:
        return refusal


@given(COMMANDS)
def test_a_lease_has_one_terminal_and_only_a_reopening_or_a_new_run_follows_it(
    commands: list[Command],
) -> None:
    closed = True
    for event in history_of(played(commands)):
        opens = isinstance(event, ev.WorkflowStarted | ev.WorkflowReopened)
        assert opens == closed, event
        closed = isinstance(event, TERMINAL)


@given(COMMANDS)
def test_the_status_is_that_of_the_last_lifecycle_event(commands: list[Command]) -> None:
    wf = played(commands)
    statuses = [STATUS[type(event)] for event in history_of(wf) if type(event) in STATUS]
    assert wf.state.status == statuses[-1]
    assert wf.state.is_open == wf.state.status.is_open


@dataclass
class Recount:
    """Pending work, counted the slow way: everything that began and did not end."""

    begun: list[object] = field(default_factory=list)
    over: set[object] = field(default_factory=set)

    def take(self, event: ev.WorkflowEvent) -> None:
        if isinstance(event, ev.WorkflowStarted):
            self.begun, self.over = [], set()
        if isinstance(event, ev.ActivityScheduled):
            self.begun.append(event.activity_id)
        if isinstance(event, ev.ChildWorkflowStarted):
            self.begun.append(event.child_workflow_id)
        if isinstance(event, ev.ActivityCompleted | ev.ActivityCancelled) or (
            isinstance(event, ev.ActivityFailed) and not event.retry_at
        ):
            self.over.add(event.activity_id)
        if isinstance(
            event, ev.ChildWorkflowCompleted | ev.ChildWorkflowFailed | ev.ChildWorkflowCancelled
        ):
            self.over.add(event.child_workflow_id)
        if isinstance(event, ev.WorkflowReopened):
            self.over -= set(event.reopened)


@given(COMMANDS)
def test_pending_work_is_what_a_naive_recount_gives(commands: list[Command]) -> None:
    wf = played(commands)
    history = history_of(wf)
    recount = Recount()
    for event in history:
        recount.take(event)
    open_ids = [item for item in recount.begun if item not in recount.over]
    activities = sorted(item for item in open_ids if isinstance(item, int))
    assert sorted(wf.state.pending.activities) == activities
    assert list(wf.state.pending.children) == [i for i in open_ids if isinstance(i, str)]
    beginning = max(i for i, e in enumerate(history) if isinstance(e, ev.WorkflowStarted))
    assert pending_work(history[beginning:]) == wf.state.pending
    pending = [i for i, activity in wf.state.activities.items() if activity.is_pending]
    assert sorted(pending) == activities


@given(COMMANDS, REPEATABLE)
def test_a_command_repeated_at_once_adds_nothing_or_is_refused_as_before(
    commands: list[Command], command: Command
) -> None:
    wf = played(commands)
    first = attempted(wf, command)
    added = len(wf.uncommitted)
    second = attempted(wf, command)
    assert len(wf.uncommitted) == added
    if isinstance(first, DomainError):
        assert isinstance(second, DomainError)
        assert (type(first), first.args) == (type(second), second.args)
    else:
        assert second == () or isinstance(second, DomainError)


@given(COMMANDS, REPEATABLE)
def test_a_refused_command_changes_nothing(commands: list[Command], command: Command) -> None:
    wf = played(commands)
    history = history_of(wf)
    if isinstance(attempted(wf, command), DomainError):
        assert history_of(wf) == history
        assert wf.state == replayed(wf).state


@settings(max_examples=50)
@given(COMMANDS)
def test_the_state_is_the_fold_of_what_was_recorded(commands: list[Command]) -> None:
    wf = played(commands)
    again = replayed(wf)
    assert again.state == wf.state
    assert again.revision == len(wf.uncommitted) - 1


def replayed(wf: Workflow) -> Workflow:
    """Return the workflow as its history on the wire gives it."""
    again = Workflow(WorkflowId("order-42"), schema=schema())
    stream = StreamName("s")
    for revision, (event, at, run_id) in enumerate(wf.uncommitted):
        stored = RecordedEvent(
            deterministic_event_id(stream, "c", revision),
            type(event).__name__,
            encode(event),
            EventMetadata(at, run_id).to_bytes(),
            stream,
            revision,
            Position(revision, revision),
            at,
        )
        again.replay(decode_envelope(stored))
    return again

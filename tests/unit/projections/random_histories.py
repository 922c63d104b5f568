"""Random histories that keep to the guards: what an aggregate could have recorded, in many streams at once."""

from datetime import timedelta

from hypothesis import strategies as st

from aion_es.events import workflow as ev
from aion_es.events.base import Event
from aion_es.events.values import (
    ActivityFailure,
    AttributeValue,
    Failure,
    TakenBack,
    WorkflowRef,
)
from aion_es.ids import ActivityId, RunId, SignalId, TimerId, WorkflowId
from tests.unit.projections.histories import NOON, History, scheduled, started

BOOM = ActivityFailure(kind="terminal", type="Boom")


class _Run:
    """What a random run may do next."""

    def __init__(self, workflow_id: str, number: int, parent: WorkflowRef | None) -> None:
        self.workflow_id = workflow_id
        self.number = number
        self.parent = parent
        self.run_id = RunId(f"{workflow_id}-{number}")
        self.activities: dict[ActivityId, str] = {}
        self.timers: list[TimerId] = []
        self.children: list[WorkflowId] = []
        self.sent = 0
        self.status = "open"

    def _void(self, choice: int) -> TakenBack | None:
        """Return some of what waits, or nothing, as it was before it was recorded."""
        if choice % 3 == 0:
            return None
        waits = [key for key, phase in self.activities.items() if phase == "scheduled"]
        void = TakenBack(
            since=1,
            activities=tuple(waits[choice % 3 :]),
            timers=tuple(self.timers[choice % 3 :]),
            awaited=tuple(self.children[: choice % 3]),
        )
        self.activities.update(dict.fromkeys(void.activities, "completed"))
        del self.timers[choice % 3 :]
        return void

    def next(self, choice: int) -> list[Event]:
        if self.status == "failed":
            self.status = "open"
            failed = tuple(key for key, phase in self.activities.items() if phase == "failed")
            for key in failed:
                self.activities[key] = "scheduled"
            return [
                ev.WorkflowReopened(
                    run_id=self.run_id, reopened=failed, taken_back=self._void(choice)
                )
            ]
        pending = [
            key for key, phase in self.activities.items() if phase in {"scheduled", "backoff"}
        ]
        running = [key for key, phase in self.activities.items() if phase == "started"]
        match choice:
            case 0 | 1:
                key = ActivityId(len(self.activities))
                self.activities[key] = "scheduled"
                return [scheduled(key, f"kind{key % 2}")]
            case 2 | 3 if pending:
                self.activities[pending[0]] = "started"
                return [ev.ActivityStarted(activity_id=pending[0], attempt=1)]
            case 4 | 5 if running:
                self.activities[running[0]] = "completed"
                return [ev.ActivityCompleted(activity_id=running[0], attempt=1)]
            case 6 if running:
                self.activities[running[0]] = "failed"
                return [ev.ActivityFailed(activity_id=running[0], attempt=1, error=BOOM)]
            case 7 if running:
                self.activities[running[0]] = "backoff"
                at = NOON + timedelta(minutes=1)
                return [
                    ev.ActivityFailed(activity_id=running[0], attempt=1, error=BOOM, retry_at=at)
                ]
            case 8:
                name = TimerId(f"t{len(self.timers)}")
                self.timers.append(name)
                return [ev.TimerStarted(timer_id=name, fire_at=NOON)]
            case 9 if self.timers:
                return [ev.TimerFired(timer_id=self.timers.pop())]
            case 10:
                value = AttributeValue(type="KeywordList", value=("a", "b", "a"))
                return [ev.SearchAttributesUpdated(attributes={"tags": value, "gone": None})]
            case 11:
                self.sent += 1
                return [
                    ev.SignalSent(
                        signal_id=self._signal(), target_workflow_id=WorkflowId("w1"), name="n"
                    )
                ]
            case 12 if self.sent:
                return [ev.SignalSendFailed(signal_id=self._signal(), reason="gone")]
            case 13 if "w3" not in self.children:
                child = WorkflowId("w3")
                self.children.append(child)
                return [
                    ev.ChildWorkflowStarted(
                        child_workflow_id=child, workflow_type="c", package_version="1"
                    )
                ]
            case 14 if self.children:
                return [ev.ChildWorkflowCompleted(child_workflow_id=self.children.pop())]
            case 15:
                self.status = "failed"
                return [ev.WorkflowFailed(error=Failure(type="Boom"))]
            case 16:
                self.status = "failed"
                torn = [
                    ev.TimerCancelled(timer_id=name, cause="teardown")
                    for name in sorted(self.timers)
                ]
                return [*torn, ev.WorkflowCancelled(reason="asked")]
            case 17:
                self.status = "done"
                return [ev.WorkflowCompleted()]
            case _:
                return [ev.SignalReceived(signal_id=SignalId("w0-1/1"), name="n")]

    def _signal(self) -> SignalId:
        return SignalId(f"{self.run_id}/{self.sent}")


@st.composite
def histories(draw: st.DrawFn) -> History:
    """Draw a history of a few workflows, their events interleaved."""
    history = History()
    runs: dict[str, _Run] = {}
    for _ in range(draw(st.integers(1, 30))):
        workflow_id = f"w{draw(st.integers(0, 3))}"
        run = runs.get(workflow_id)
        renewed = run is not None and run.status == "failed" and draw(st.booleans())
        if run is None or run.status == "done" or renewed:
            parent = None
            if workflow_id == "w3" and "w0" in runs:
                parent = WorkflowRef(workflow_id=WorkflowId("w0"), run_id=runs["w0"].run_id)
            run = runs[workflow_id] = _Run(workflow_id, run.number + 1 if run else 1, parent)
            history.add(workflow_id, started(run.run_id, parent=parent))
            continue
        events = run.next(draw(st.integers(0, 18)))
        history.add(workflow_id, *events, activated=draw(st.booleans()), minute=len(history.events))
    return history


@st.composite
def split_histories(draw: st.DrawFn) -> tuple[History, list[int]]:
    """Draw a history, and where it is cut into batches."""
    history = draw(histories())
    cuts = draw(st.lists(st.integers(0, len(history.events)), max_size=8))
    return history, sorted({0, *cuts, len(history.events)})

"""What runs owe each other: children to be started, told of and closed; signals to be delivered."""

from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any, Final, Literal, TypeAlias

from sqlalchemy import Connection

from aion_es.events import workflow as ev
from aion_es.projections import bulk
from aion_es.projections.pending_tables import CHILDREN, SIGNALS
from aion_es.store.port import START, Position

ChildPhase: TypeAlias = Literal["requested", "started", "cancel_requested", "closed"]
Owed: TypeAlias = Literal["nothing", "start", "outcome", "close"]
ParentState: TypeAlias = Literal["open", "closed", "final"]
ChildKey: TypeAlias = tuple[str, str, str]
"""Workflow id and run id of the parent, workflow id of the child."""


@dataclass(frozen=True, slots=True)
class Child:
    """One child's row.

    Attributes:
        child_phase: What the child's own stream shows.
        parent_state: `closed`: the parent recorded a terminal before the child's outcome, and might be
            reopened; `final`: it never will be.
    """

    workflow_type: str
    package_version: str
    task_queue: str
    parent_close: str
    child_phase: ChildPhase = "requested"
    parent_state: ParentState = "open"

    @property
    def owed(self) -> Owed:
        """What somebody has yet to do about it."""
        if self.parent_state == "open":
            if self.child_phase == "requested":
                return "start"
            return "outcome" if self.child_phase == "closed" else "nothing"
        if self.parent_close == "abandon":
            return "start" if self.child_phase == "requested" else "nothing"
        done = self.child_phase == "closed" or (
            self.parent_close == "cancel" and self.child_phase == "cancel_requested"
        )
        return "nothing" if done else "close"


_Change: TypeAlias = tuple[Position, Literal["put", "drop", "phase"], ChildKey, Any]
_by_position = itemgetter(0)
_KEY: Final = ("workflow_id", "run_id", "child_workflow_id")


class Children:
    """The changes of one batch to `pending_children`.

    A child's events concern its parent's row, and streams are folded one after the other: so the changes
    are gathered, and played in the order of the events when all the rows that they concern are read.

    Attributes:
        at: Position of the event that is being folded.
    """

    def __init__(self) -> None:
        self.at = START
        self._changes: list[_Change] = []
        self._parents: dict[tuple[str, str], ParentState] = {}
        self._newest: dict[str, str] = {}

    def requested(self, workflow_id: str, run_id: str, event: ev.ChildWorkflowStarted) -> None:
        """The parent asked for a child."""
        child = Child(
            event.workflow_type, event.package_version, event.task_queue, event.parent_close
        )
        self._changes.append(
            (self.at, "put", (workflow_id, run_id, event.child_workflow_id), child)
        )

    def told(self, workflow_id: str, run_id: str, child_workflow_id: str) -> None:
        """The parent has the child's outcome."""
        self._changes.append((self.at, "drop", (workflow_id, run_id, child_workflow_id), None))

    def child_is(self, key: ChildKey, phase: ChildPhase) -> None:
        """The child's own stream shows that it came so far."""
        self._changes.append((self.at, "phase", key, phase))

    def parent_is(self, workflow_id: str, run_id: str, state: ParentState) -> None:
        """The parent closed, or was reopened."""
        self._parents[workflow_id, run_id] = state

    def renewed(self, workflow_id: str, run_id: str) -> None:
        """A new run took the workflow id: its earlier runs cannot be reopened any more."""
        self._newest[workflow_id] = run_id

    def write(self, connection: Connection) -> None:
        """Play the changes onto the rows."""
        if not (self._changes or self._parents or self._newest):
            return
        stored = self._read(connection)
        rows = self._played(stored)
        for key in list(rows):
            child = rows[key] = self._with_parent(key, rows[key])
            if child.parent_state == "final" and child.owed == "nothing":
                del rows[key]
        changed = [
            (*key, *_columns(child)) for key, child in rows.items() if stored.get(key) != child
        ]
        bulk.upsert(connection, CHILDREN, changed)
        bulk.delete(connection, CHILDREN, _KEY, [key for key in stored if key not in rows])

    def _read(self, connection: Connection) -> dict[ChildKey, Child]:
        found = (
            *bulk.select(connection, CHILDREN, _KEY, [key for _, _, key, _ in self._changes]),
            *bulk.select(connection, CHILDREN, _KEY[:2], list(self._parents)),
            *bulk.select(connection, CHILDREN, _KEY[:1], [(key,) for key in self._newest]),
        )
        return {(row[0], row[1], row[2]): Child(*row[3:9]) for row in found}

    def _played(self, stored: dict[ChildKey, Child]) -> dict[ChildKey, Child]:
        rows = dict(stored)
        for _, kind, key, value in sorted(self._changes, key=_by_position):
            if kind == "put":
                rows[key] = value
            elif kind == "drop":
                rows.pop(key, None)
            elif key in rows:
                rows[key] = replace(rows[key], child_phase=value)
        return rows

    def _with_parent(self, key: ChildKey, child: Child) -> Child:
        workflow_id, run_id, _ = key
        state = self._parents.get((workflow_id, run_id), child.parent_state)
        if self._newest.get(workflow_id, run_id) != run_id:
            state = "final"
        return child if state == child.parent_state else replace(child, parent_state=state)


def _columns(child: Child) -> tuple[Any, ...]:
    return (
        child.workflow_type,
        child.package_version,
        child.task_queue,
        child.parent_close,
        child.child_phase,
        child.parent_state,
        child.owed,
    )


_SignalChange: TypeAlias = tuple[Position, Literal["sent", "arrived", "failed"], str, str, Any]


class Signals:
    """The changes of one batch to `pending_signals`: gathered, and played in order, as with `Children`.

    Attributes:
        at: Position of the event that is being folded.
    """

    def __init__(self) -> None:
        self.at = START
        self._changes: list[_SignalChange] = []

    def sent(self, workflow_id: str, run_id: str, event: ev.SignalSent) -> None:
        """A run sends a signal."""
        key = (event.target_workflow_id, event.signal_id)
        row = (*key, workflow_id, run_id, event.name, event.payload.model_dump_json())
        self._changes.append((self.at, "sent", *key, row))

    def arrived(self, target_workflow_id: str, signal_id: str) -> None:
        """The target has it, from whomever: a second one with its id would change nothing."""
        self._changes.append((self.at, "arrived", target_workflow_id, signal_id, None))

    def failed(self, workflow_id: str, signal_id: str) -> None:
        """The sender knows that it cannot be delivered."""
        self._changes.append((self.at, "failed", workflow_id, signal_id, None))

    def write(self, connection: Connection) -> None:
        """Play the changes onto the rows."""
        sent: dict[tuple[str, str], tuple[Any, ...]] = {}
        targets: dict[tuple[str, str], tuple[str, str]] = {}
        arrived: list[tuple[str, str]] = []
        failed: list[tuple[str, str]] = []
        for _, kind, workflow_id, signal_id, row in sorted(self._changes, key=_by_position):
            key = (workflow_id, signal_id)
            if kind == "sent":
                sent[key] = row
                targets[row[2], signal_id] = key
            elif kind == "arrived":
                if sent.pop(key, None) is None:
                    arrived.append(key)
            elif sent.pop(targets.get(key, key), None) is None:
                failed.append(key)
        bulk.delete(connection, SIGNALS, ("target_workflow_id", "signal_id"), arrived)
        bulk.delete(connection, SIGNALS, ("workflow_id", "signal_id"), failed)
        bulk.upsert(connection, SIGNALS, list(sent.values()))

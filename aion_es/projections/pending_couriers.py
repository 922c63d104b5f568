"""What runs owe each other: children to be started, told of and closed; signals to be delivered."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any, Final, Literal, TypeAlias

from sqlalchemy import Connection

from aion_es.events import workflow as ev
from aion_es.projections import bulk
from aion_es.projections.pending_tables import CHILDREN, SIGNALS
from aion_es.store.port import START, Position

ChildPhase: TypeAlias = Literal["requested", "started", "cancel_requested", "closed", "told"]
Owed: TypeAlias = Literal["nothing", "start", "outcome", "close"]
ParentState: TypeAlias = Literal["open", "unwilling", "closed", "final"]
ChildKey: TypeAlias = tuple[str, str, str]
"""Workflow id and run id of the parent, workflow id of the child."""


@dataclass(frozen=True, slots=True)
class Child:
    """One child's row.

    Attributes:
        child_phase: What the child's own stream shows; `told`: the parent knows that it ended without
            completing, and may wait for it again when it is reopened.
        parent_state: `unwilling`: the parent is open and has asked the child to end; `closed`: it recorded a
            terminal before the child's outcome, and might be reopened; `final`: it never will be.
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
        if self.child_phase == "told":
            return "nothing"
        if self.parent_state in {"open", "unwilling"}:
            if self.child_phase == "requested":
                return "start"
            if self.child_phase == "closed":
                return "outcome"
            asked = self.parent_state == "open" or self.child_phase == "cancel_requested"
            return "nothing" if asked else "close"
        if self.parent_close == "abandon":
            return "start" if self.child_phase == "requested" else "nothing"
        done = self.child_phase == "closed" or (
            self.parent_close == "cancel" and self.child_phase == "cancel_requested"
        )
        return "nothing" if done else "close"


_Kind: TypeAlias = Literal[
    "put", "drop", "phase", "told", "awaited", "unwanted", "parent", "renewed"
]
_Change: TypeAlias = tuple[Position, _Kind, ChildKey, Any]
"""When, what, of which child, and what is told; the last two kinds are of all children of a run, or of a workflow's
earlier runs, and name no child."""
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

    def requested(self, workflow_id: str, run_id: str, event: ev.ChildWorkflowStarted) -> None:
        """The parent asked for a child."""
        child = Child(
            event.workflow_type, event.package_version, event.task_queue, event.parent_close
        )
        self._changes.append(
            (self.at, "put", (workflow_id, run_id, event.child_workflow_id), child)
        )

    def unwanted(self, workflow_id: str, run_id: str, child_workflow_id: str) -> None:
        """The parent asks the child to end."""
        self._changes.append((self.at, "unwanted", (workflow_id, run_id, child_workflow_id), None))

    def completed(self, workflow_id: str, run_id: str, child_workflow_id: str) -> None:
        """The parent has the child's result."""
        self._changes.append((self.at, "drop", (workflow_id, run_id, child_workflow_id), None))

    def told(self, workflow_id: str, run_id: str, child_workflow_id: str) -> None:
        """The parent knows that the child ended without completing."""
        self._changes.append((self.at, "told", (workflow_id, run_id, child_workflow_id), None))

    def awaited(self, workflow_id: str, run_id: str, child_workflow_id: str) -> None:
        """The parent waits again for the end of a child that it knew of."""
        self._changes.append((self.at, "awaited", (workflow_id, run_id, child_workflow_id), None))

    def child_is(self, key: ChildKey, phase: ChildPhase) -> None:
        """The child's own stream shows that it came so far."""
        self._changes.append((self.at, "phase", key, phase))

    def parent_is(self, workflow_id: str, run_id: str, state: ParentState) -> None:
        """The parent closed, or was reopened."""
        self._changes.append((self.at, "parent", (workflow_id, run_id, ""), state))

    def renewed(self, workflow_id: str, run_id: str) -> None:
        """A new run took the workflow id: its earlier runs cannot be reopened any more."""
        self._changes.append((self.at, "renewed", (workflow_id, run_id, ""), None))

    def write(self, connection: Connection) -> None:
        """Play the changes onto the rows."""
        if not self._changes:
            return
        stored = self._read(connection)
        rows = self._played(stored)
        changed = [
            (*key, *_columns(child)) for key, child in rows.items() if stored.get(key) != child
        ]
        bulk.upsert(connection, CHILDREN, changed)
        bulk.delete(connection, CHILDREN, _KEY, [key for key in stored if key not in rows])

    def _read(self, connection: Connection) -> dict[ChildKey, Child]:
        keys: dict[int, set[tuple[str, ...]]] = {1: set(), 2: set(), 3: set()}
        for _, kind, key, _ in self._changes:
            known = 1 if kind == "renewed" else 2 if kind == "parent" else 3
            keys[known].add(key[:known])
        found = (
            row
            for known, wanted in keys.items()
            for row in bulk.select(connection, CHILDREN, _KEY[:known], list(wanted))
        )
        return {(row[0], row[1], row[2]): Child(*row[3:9]) for row in found}

    def _played(self, stored: dict[ChildKey, Child]) -> dict[ChildKey, Child]:
        rows = _Rows(stored)
        if not stored and all(kind != "put" for _, kind, _, _ in self._changes):
            return rows.now  # nearly always: nobody has children
        for _, kind, key, value in sorted(self._changes, key=_by_position):
            if kind == "put":
                rows.put(key, value)
            elif kind == "drop":
                rows.drop(key)
            elif kind == "parent":
                rows.parent_is(value, [k for k in rows.of(key[0]) if k[1] == key[1]])
            elif kind == "renewed":
                rows.parent_is("final", [k for k in rows.of(key[0]) if k[1] != key[1]])
            elif kind == "unwanted":
                rows.parent_is("unwilling", [key])
            elif kind == "told":
                rows.child_is("told", key)
            elif kind == "awaited":  # it may have been reopened since: who asks it will see
                rows.child_is("closed", key)
            elif key in rows.now and rows.now[key].child_phase != "told":
                rows.child_is(value, key)
        return rows.now


class _Rows:
    """The rows while a batch is played; one of which nothing will ever be owed again is gone at once.

    It must not wait for the end of the batch: what comes later in the child's stream would bring it back.
    """

    def __init__(self, stored: dict[ChildKey, Child]) -> None:
        self.now = dict(stored)
        self._of: dict[str, list[ChildKey]] = {}
        for key in stored:
            self._of.setdefault(key[0], []).append(key)

    def of(self, workflow_id: str) -> list[ChildKey]:
        """Return the keys of a workflow's children."""
        return [key for key in self._of.get(workflow_id, ()) if key in self.now]

    def put(self, key: ChildKey, child: Child) -> None:
        """Write or replace a row."""
        self.now[key] = child
        self._of.setdefault(key[0], []).append(key)

    def drop(self, key: ChildKey) -> None:
        """Take a row away; there need not be one."""
        self.now.pop(key, None)

    def parent_is(self, state: ParentState, keys: Iterable[ChildKey]) -> None:
        """Note how far the parent of these is."""
        for key in keys:
            if key in self.now:
                self._replace(key, replace(self.now[key], parent_state=state))

    def child_is(self, phase: ChildPhase, key: ChildKey) -> None:
        """Note how far a child is, if there is a row of it."""
        if key in self.now:
            self._replace(key, replace(self.now[key], child_phase=phase))

    def _replace(self, key: ChildKey, child: Child) -> None:
        if child.parent_state == "final" and child.owed == "nothing":
            del self.now[key]
        else:
            self.now[key] = child


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


SignalPhase: TypeAlias = Literal["sent", "arrived", "left"]
_SignalKey: TypeAlias = tuple[str, str]
_SignalChange: TypeAlias = tuple[Position, Literal["sent", "arrived", "settled", "closed"], Any]


@dataclass(frozen=True, slots=True)
class SentSignal:
    """One signal's row.

    Attributes:
        phase: `sent`; `arrived`: the target has it, its sender is yet to be told; `left`: the sender's run
            has closed and needs to be told nothing, the target is yet to have it.
    """

    workflow_id: str
    run_id: str
    name: str
    payload: str
    phase: SignalPhase = "sent"


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
        row = SentSignal(workflow_id, run_id, event.name, event.payload.model_dump_json())
        key = (event.target_workflow_id, event.signal_id)
        self._changes.append((self.at, "sent", (key, row)))

    def arrived(self, target_workflow_id: str, signal_id: str) -> None:
        """The target has it, from whomever: a second one with its id would change nothing."""
        self._changes.append((self.at, "arrived", (target_workflow_id, signal_id)))

    def settled(self, workflow_id: str, signal_id: str) -> None:
        """The sender knows that it has arrived, or cannot be delivered."""
        self._changes.append((self.at, "settled", (workflow_id, signal_id)))

    def sender_closed(self, workflow_id: str, run_id: str) -> None:
        """The run that sent it has closed."""
        self._changes.append((self.at, "closed", (workflow_id, run_id)))

    def write(self, connection: Connection) -> None:
        """Play the changes onto the rows."""
        if not self._changes:
            return
        sends = any(kind == "sent" for _, kind, _ in self._changes)
        if not sends and connection.execute(SIGNALS.select().limit(1)).first() is None:
            return  # nothing is on its way, so what arrived or closed concerns none: nearly always
        stored = self._read(connection)
        ways = _Ways(stored)
        for _, kind, what in sorted(self._changes, key=_by_position):
            ways.play(kind, what)
        changed = [
            (*key, s.workflow_id, s.run_id, s.name, s.payload, s.phase)
            for key, s in ways.rows.items()
            if stored.get(key) != s
        ]
        bulk.upsert(connection, SIGNALS, changed)
        gone = [key for key in stored if key not in ways.rows]
        bulk.delete(connection, SIGNALS, ("target_workflow_id", "signal_id"), gone)

    def _read(self, connection: Connection) -> dict[_SignalKey, SentSignal]:
        names = {
            "arrived": ("target_workflow_id", "signal_id"),
            "settled": ("workflow_id", "signal_id"),
            "closed": ("workflow_id", "run_id"),
        }
        return {
            (row[0], row[1]): SentSignal(*row[2:7])
            for kind, columns in names.items()
            for row in bulk.select(
                connection, SIGNALS, columns, [w for _, k, w in self._changes if k == kind]
            )
        }


class _Ways:
    """The rows of one batch while its changes are played, found by target and by sender."""

    def __init__(self, rows: dict[_SignalKey, SentSignal]) -> None:
        self.rows = dict(rows)
        self._by_sender: dict[str, set[_SignalKey]] = {}
        for key, row in rows.items():
            self._by_sender.setdefault(row.workflow_id, set()).add(key)

    def play(self, kind: str, what: Any) -> None:
        """Take in one change."""
        if kind == "sent":
            key, row = what
            self.rows[key] = row
            self._by_sender.setdefault(row.workflow_id, set()).add(key)
        elif kind == "arrived":
            self._turn(what, "left", "arrived")
        elif kind == "settled":
            workflow_id, signal_id = what
            for key in self._sent_by(workflow_id):
                if key[1] == signal_id:
                    self._drop(key)
        else:
            workflow_id, run_id = what
            for key in self._sent_by(workflow_id):
                if self.rows[key].run_id == run_id:
                    self._turn(key, "arrived", "left")

    def _turn(self, key: _SignalKey, over: SignalPhase, phase: SignalPhase) -> None:
        """Give a row its phase; one that was in phase `over` already has come to its end."""
        row = self.rows.get(key)
        if row is not None and row.phase == over:
            self._drop(key)
        elif row is not None:
            self.rows[key] = replace(row, phase=phase)

    def _sent_by(self, workflow_id: str) -> list[_SignalKey]:
        return list(self._by_sender.get(workflow_id, ()))

    def _drop(self, key: _SignalKey) -> None:
        self._by_sender[self.rows.pop(key).workflow_id].discard(key)

"""Filters evaluated the plain way, run by run in Python; and random runs and filters to compare with."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from aion_es.events import workflow as ev
from aion_es.events.attributes import to_attribute
from aion_es.events.values import AttributeType, Failure
from aion_es.visibility.fields import BUILT_IN, Field, find_field
from aion_es.visibility.filter import Both, Comparison, Either, Filter, Negation, Node
from tests.unit.projections.histories import NOON, NOON_MICROS, History, started

ATTRIBUTES: dict[str, AttributeType] = {
    "customer": "String",
    "total": "Int",
    "ratio": "Float",
    "paid": "Bool",
    "due": "Datetime",
    "tags": "KeywordList",
    "order": "Int",
    "in": "String",
}
WORDS = ("", "a", "A", "ab", "b", "é", "z'z", "\U0010ffff", "\ud7ff", "\ue000", "%", "_", "💥")
NUMBERS = (-(2**63), -1, 0, 1, 2, 2**63 - 1)
FLOATS = (-1e300, -0.5, 0.0, 0.1, 0.5, 1e-9)
MINUTE = 60_000_000


@dataclass
class Run:
    """One run as the naive evaluator knows it.

    Attributes:
        fields: By name, the values as a filter compares them; KeywordLists as tuples.
    """

    run_id: str
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What a random run is made of."""

    run_id: str
    workflow_type: str
    task_queue: str
    minute: int
    attributes: dict[str, Any]
    ending: str
    lasts: int


_VALUES: dict[AttributeType, st.SearchStrategy[Any]] = {
    "String": st.sampled_from(WORDS),
    "Int": st.sampled_from(NUMBERS),
    "Float": st.sampled_from(FLOATS),
    "Bool": st.booleans(),
    "Datetime": st.integers(0, 3).map(lambda n: NOON + timedelta(minutes=n)),
    "KeywordList": st.lists(st.sampled_from(WORDS), max_size=3),
}


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Draw a run: some attributes, often with the same values as others, closed or not."""
    names = draw(st.sets(st.sampled_from(sorted(ATTRIBUTES)), max_size=5))
    return Plan(
        run_id="".join(draw(st.lists(st.sampled_from("aBcé"), min_size=1, max_size=3))),
        workflow_type=draw(st.sampled_from(["checkout", "ship", "Ship"])),
        task_queue=draw(st.sampled_from(["default", "q"])),
        minute=draw(st.integers(0, 4)),
        attributes={name: draw(_VALUES[ATTRIBUTES[name]]) for name in sorted(names)},
        ending=draw(st.sampled_from(["open", "done", "failed"])),
        lasts=draw(st.integers(0, 2)),
    )


def add(history: History, plan: Plan, number: int) -> Run:
    """Add the run's events to a history, as workflow `w<number>`; return what is to be known of it."""
    workflow_id, run_id = f"w{number}", f"{plan.run_id}{number}"
    begin_at = len(history.events)
    attributes = {n: to_attribute(n, ATTRIBUTES[n], v) for n, v in plan.attributes.items()}
    start = started(
        run_id,
        workflow_type=plan.workflow_type,
        task_queue=plan.task_queue,
        attributes=attributes,
    )
    history.add(workflow_id, start, minute=plan.minute)
    fields: dict[str, Any] = {
        "WorkflowId": workflow_id,
        "RunId": run_id,
        "FirstRunId": run_id,
        "RootWorkflowId": workflow_id,
        "BuildId": "1",
        "WorkflowType": plan.workflow_type,
        "TaskQueue": plan.task_queue,
        "ExecutionStatus": "Running",
        "StartTime": NOON_MICROS + plan.minute * MINUTE,
        "HistoryLength": 1,
    }
    if plan.ending != "open":
        failed = plan.ending == "failed"
        error = Failure(type="Boom", message=f"because of {plan.lasts}")
        end = ev.WorkflowFailed(error=error) if failed else ev.WorkflowCompleted()
        history.add(workflow_id, end, minute=plan.minute + plan.lasts)
        fields["ExecutionStatus"] = "Failed" if failed else "Completed"
        fields["CloseTime"] = NOON_MICROS + (plan.minute + plan.lasts) * MINUTE
        fields["ExecutionDuration"] = plan.lasts * MINUTE
        fields["HistoryLength"] = 2
        if failed:
            fields["FailureType"], fields["FailureReason"] = "Boom", f"because of {plan.lasts}"
    events = history.events[begin_at:]
    fields["HistorySizeBytes"] = sum(len(e.data) + len(e.metadata) for e in events)
    for name, value in plan.attributes.items():
        fields[name] = _stored(ATTRIBUTES[name], value)
    return Run(run_id, {name: value for name, value in fields.items() if value != ()})


def _stored(kind: AttributeType, value: Any) -> Any:
    if kind == "Datetime":
        return round((value - NOON) / timedelta(microseconds=1)) + NOON_MICROS
    return tuple(value) if kind == "KeywordList" else value


# ------------------------------------------------------------------------------------ evaluating


def asked_for(runs: list[Run], asked: Filter) -> list[str]:
    """Return the run ids of those that satisfy the filter, in its order."""
    found = [run for run in runs if asked.condition is None or holds(asked.condition, run)]
    name, descending = asked.order.field.name, asked.order.descending
    valued = [run for run in found if run.fields.get(name) is not None]
    others = [run for run in found if run.fields.get(name) is None]
    valued.sort(key=lambda run: (run.fields[name], run.run_id), reverse=descending)
    others.sort(key=lambda run: run.run_id, reverse=descending)
    return [run.run_id for run in (*valued, *others)]


def holds(node: Node, run: Run) -> bool:
    """Return whether the run satisfies the condition."""
    match node:
        case Both(parts):
            return all(holds(part, run) for part in parts)
        case Either(parts):
            return any(holds(part, run) for part in parts)
        case Negation(part):
            return not holds(part, run)
        case Comparison():
            return _compared(node, run.fields.get(node.field.name))


def _compared(node: Comparison, value: Any) -> bool:
    if node.operator == "is_null":
        return value is None
    if value is None:
        return False
    if node.operator in {"!=", "not_in"}:
        return not _among(value, node.values)
    every = value if isinstance(value, tuple) else (value,)
    return any(_single(node, one) for one in every)


def _among(value: Any, values: tuple[Any, ...]) -> bool:
    return bool(set(value) & set(values)) if isinstance(value, tuple) else value in values


def _single(node: Comparison, value: Any) -> bool:
    first = node.values[0]
    last = node.values[-1]
    holds: dict[str, Callable[[], bool]] = {
        "=": lambda: bool(value == first),
        "in": lambda: bool(value in node.values),
        "<": lambda: bool(value < first),
        "<=": lambda: bool(value <= first),
        ">": lambda: bool(value > first),
        ">=": lambda: bool(value >= first),
        "between": lambda: bool(first <= value <= last),
        "not_between": lambda: not first <= value <= last,
        "starts_with": lambda: bool(value.startswith(first)),
    }
    return holds[node.operator]()


# ------------------------------------------------------------------------------------ the grammar

FIELDS = (
    "WorkflowId",
    "WorkflowType",
    "ExecutionStatus",
    "StartTime",
    "CloseTime",
    "ExecutionDuration",
    "HistoryLength",
    "TaskQueue",
    "RunId",
    "FailureType",
    "FailureReason",
    "BuildId",
    "ParentWorkflowId",
)


@st.composite
def conditions(draw: st.DrawFn, depth: int = 3) -> str:
    """Draw the text of a condition, spelt one way or another."""
    kind = draw(st.integers(0, 5 if depth else 0))
    if kind <= 2:
        return draw(comparisons())
    inner = conditions(depth - 1)
    if kind == 3:
        return f"{draw(st.sampled_from(['NOT', 'not']))} ({draw(inner)})"
    word = draw(st.sampled_from([" AND ", " and\n", " OR ", "\tor "]))
    return f"({draw(inner)}{word}{draw(inner)})"


@st.composite
def comparisons(draw: st.DrawFn) -> str:
    """Draw the text of one comparison."""
    field = draw(st.sampled_from([known(name) for name in (*FIELDS, *ATTRIBUTES)]))
    name = f'"{field.name}"' if field.name == "in" or draw(st.booleans()) else field.name
    operators = ["=", "!=", "<>", "IN", "NOT IN", "IS NULL", "IS NOT NULL"]
    if field.kind not in {"words", "bool", "status"}:
        operators += ["<", "<=", ">", ">=", "BETWEEN", "NOT BETWEEN"]
    if field.kind in {"text", "words"}:
        operators += ["STARTS_WITH"]
    operator = draw(st.sampled_from(operators))
    literal = literals(field)
    if operator.endswith("NULL"):
        return f"{name} {operator}"
    if operator.endswith("IN"):
        values = draw(st.lists(literal, min_size=1, max_size=3))
        return f"{name} {operator} ({', '.join(values)})"
    if operator.endswith("BETWEEN"):
        return f"{name} {operator} {draw(literal)} AND {draw(literal)}"
    return f"{name} {operator} {draw(literal)}"


def known(name: str) -> Field:
    found = find_field(name, ATTRIBUTES)
    assert found is not None
    return found


def literals(field: Field) -> st.SearchStrategy[str]:
    """Return literals that a field may be compared with, most of them values that runs have."""
    match field.kind:
        case "text" | "words":
            texts = (*WORDS, "checkout", "Ship", "w1", "Boom", "because of 1", "default")
            return st.sampled_from(texts).map(quoted)
        case "status":
            return st.sampled_from(["'Running'", "'Failed'", "'Completed'", "'TimedOut'"])
        case "int":
            return st.sampled_from(NUMBERS).map(str)
        case "float":
            return st.sampled_from(FLOATS).map(repr)
        case "bool":
            return st.sampled_from(["true", "FALSE"])
        case "time":
            instants = st.integers(-1, 5).map(
                lambda n: quoted((NOON + timedelta(minutes=n)).isoformat())
            )
            return st.one_of(instants, st.sampled_from(["now()", "now() + '2m'", "(now() - '1s')"]))
        case "duration":
            return st.sampled_from(["'1m'", "60", "'0.5m30s'", "0", "-1", "'2m'"])


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


ORDERING = tuple(name for name in ATTRIBUTES if name not in {"tags", "in"})


@st.composite
def filters(draw: st.DrawFn) -> str:
    """Draw the text of a whole filter."""
    text = draw(st.one_of(st.just(""), conditions()))
    name = draw(st.sampled_from(["", *BUILT_IN, *ORDERING]))
    return f"{text} ORDER BY {name} {draw(st.sampled_from(['ASC', 'desc', '']))}" if name else text


def noon() -> datetime:
    return NOON.astimezone(UTC)

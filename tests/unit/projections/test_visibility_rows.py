"""The `visibility` rows, event by event."""

from datetime import timedelta
from typing import Any

from aion_es.events import workflow as ev
from aion_es.events.values import ActivityFailure, AttributeValue, Failure, WorkflowRef
from aion_es.ids import ActivityId, RunId, WorkflowId
from aion_es.projections import VisibilityProjection
from aion_es.projections.visibility_tables import EXECUTIONS
from tests.unit.projections.histories import NOON_MICROS, History, rows_after, scheduled, started

MINUTE = timedelta(minutes=1) // timedelta(microseconds=1)
DEAD = ActivityFailure(kind="terminal", type="Boom")


def shown(history: History) -> list[dict[str, Any]]:
    rows = rows_after(VisibilityProjection(), [history.events])["visibility"]
    return [dict(zip(EXECUTIONS.c.keys(), row, strict=True)) for row in rows]


def test_a_completed_run_shows_its_times_and_counts() -> None:
    history = History().add("w", started(), scheduled(0)).add("w", ev.WorkflowCompleted(), minute=1)
    (row,) = shown(history)
    assert (row["status"], row["start_time"], row["close_time"], row["execution_duration"]) == (
        "Completed",
        NOON_MICROS,
        NOON_MICROS + MINUTE,
        MINUTE,
    )
    assert row["history_length"] == 3
    assert row["history_bytes"] == sum(len(e.data) + len(e.metadata) for e in history.events)


def test_a_failed_run_names_the_activity_the_error_and_the_reason() -> None:
    history = History().add("w", started(), scheduled(0, "reserve"), scheduled(1, "charge"))
    history.add("w", ev.ActivityCompleted(activity_id=ActivityId(0), attempt=1))
    history.add("w", ev.ActivityFailed(activity_id=ActivityId(1), attempt=1, error=DEAD))
    history.add("w", ev.WorkflowFailed(error=Failure(type="ActivityError", message="no money")))
    (row,) = shown(history)
    assert (row["failed_step"], row["failure_type"], row["failure_reason"]) == (
        "charge",
        "ActivityError",
        "no money",
    )


def test_a_failed_run_keeps_its_reason_when_another_of_its_id_completes_in_the_same_batch() -> None:
    history = History().add("w", started("r1"), scheduled(0, "charge"))
    history.add("w", ev.ActivityFailed(activity_id=ActivityId(0), attempt=1, error=DEAD))
    history.add("w", ev.WorkflowFailed(error=Failure(type="ActivityError", message="no money")))
    history.add("w", started("r2"), ev.WorkflowCompleted())
    assert [(row["run_id"], row["failed_step"]) for row in shown(history)] == [
        ("r1", "charge"),
        ("r2", None),
    ]


def test_a_reopened_run_is_running_and_no_longer_failed() -> None:
    history = History().add("w", started(), ev.WorkflowFailed(error=Failure(type="Boom")))
    history.add("w", ev.WorkflowReopened(run_id=RunId("r1")))
    (row,) = shown(history)
    assert (row["status"], row["close_time"], row["failure_type"], row["history_length"]) == (
        "Running",
        None,
        None,
        3,
    )


def test_a_continued_run_keeps_its_row_beside_its_successors() -> None:
    closing = ev.WorkflowContinuedAsNew(parent_run_id=RunId("r1"), new_run_id=RunId("r2"))
    successor = started("r2", first_run_id="r1", parent_run_id="r1")
    rows = shown(History().add("w", started(), closing, successor))
    assert [
        (r["run_id"], r["first_run_id"], r["parent_run_id"], r["status"], r["history_length"])
        for r in rows
    ] == [
        ("r1", "r1", None, "ContinuedAsNew", 2),
        ("r2", "r1", "r1", "Running", 1),
    ]


def test_a_grandchild_knows_the_root_of_its_tree() -> None:
    history = History().add("top", started("t"))
    history.add(
        "mid", started("m", parent=WorkflowRef(workflow_id=WorkflowId("top"), run_id=RunId("t")))
    )
    history.add(
        "low", started("l", parent=WorkflowRef(workflow_id=WorkflowId("mid"), run_id=RunId("m")))
    )
    assert [row["root_workflow_id"] for row in shown(history)] == ["top", "top", "top"]


def test_each_attribute_value_has_a_row_in_the_column_of_its_type() -> None:
    attributes = {
        "customer": AttributeValue(type="String", value="ana"),
        "total": AttributeValue(type="Int", value=7),
        "ratio": AttributeValue(type="Float", value=0.1),
        "paid": AttributeValue(type="Bool", value=True),
        "due": AttributeValue(type="Datetime", value="2026-11-24T12:00:00.000000Z"),
        "tags": AttributeValue(type="KeywordList", value=("b", "a", "b")),
    }
    rows = rows_after(
        VisibilityProjection(), [History().add("w", started(attributes=attributes)).events]
    )
    assert [row[1:6] for row in rows["search_attributes"]] == [
        ("customer", 0, "ana", None, None),
        ("due", 0, None, NOON_MICROS, None),
        ("paid", 0, None, 1, None),
        ("ratio", 0, None, None, 0.1),
        ("tags", 0, "b", None, None),
        ("tags", 1, "a", None, None),
        ("total", 0, None, 7, None),
    ]
    assert rows["attribute_schema"] == sorted(
        (name, value.type) for name, value in attributes.items()
    )


def test_a_later_value_wins_and_null_removes() -> None:
    history = History().add(
        "w",
        started(
            attributes={
                "a": AttributeValue(type="Int", value=1),
                "b": AttributeValue(type="Int", value=2),
            }
        ),
    )
    history.add(
        "w",
        ev.SearchAttributesUpdated(
            attributes={"a": AttributeValue(type="Int", value=9), "b": None}
        ),
    )
    rows = rows_after(VisibilityProjection(), [history.events[:1], history.events[1:]])
    assert [row[1:5] for row in rows["search_attributes"]] == [("a", 0, None, 9)]
    assert rows["visibility"][0][-2:] == ('{"a":["Int",9]}', " a ")

"""However a history is cut into batches, the rows are the same; and pending work is what the aggregate says."""

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings

from aion_es.aggregates.pending_work import pending_work
from aion_es.events.codec import decode
from aion_es.projections import PendingWorkProjection, VisibilityProjection
from aion_es.projections.projection import Projection
from tests.unit.projections.histories import History, rows_after
from tests.unit.projections.random_histories import histories, split_histories


@pytest.mark.parametrize("make", [PendingWorkProjection, VisibilityProjection])
@settings(max_examples=60, deadline=None)
@given(drawn=split_histories())
def test_the_rows_do_not_depend_on_how_the_history_is_cut_into_batches(
    make: Callable[[], Projection], drawn: tuple[History, list[int]]
) -> None:
    history, cuts = drawn
    batches = [history.events[a:b] for a, b in pairwise(cuts)]
    whole = rows_after(make(), [history.events])
    assert rows_after(make(), batches) == whole
    assert rows_after(make(), [[event] for event in history.events]) == whole


@settings(max_examples=60, deadline=None)
@given(history=histories())
def test_the_pending_activities_of_open_runs_are_those_that_the_aggregate_counts(
    history: History,
) -> None:
    rows = rows_after(PendingWorkProjection(), [history.events])
    expected: list[tuple[str, int]] = []
    for workflow_id, *_rest in rows["pending_runs"]:
        events = [e for e in history.events if e.stream == f"aion_workflow-{workflow_id}"]
        first = max(i for i, event in enumerate(events) if event.type == "WorkflowStarted")
        work = pending_work(decode(event) for event in events[first:])  # type: ignore[misc]  # only workflow events here
        expected.extend((workflow_id, activity_id) for activity_id in work.activities)
    live = [(row[0], row[1]) for row in rows["pending_activities"] if row[5] != "failed"]
    assert live == sorted(expected)

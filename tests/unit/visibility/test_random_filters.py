"""Random filters over random runs: the databases answer as a plain evaluation in Python does."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection

from aion_es.aggregates.attributes import AttributeSchema
from aion_es.clock import Clock
from aion_es.projections import ProjectionRunner, ReadModel, VisibilityProjection
from aion_es.projections.checkpoints import install
from aion_es.store.memory import MemoryEventStore
from aion_es.visibility import Visibility
from aion_es.visibility.filter import parse_filter
from tests.unit.projections.histories import History
from tests.unit.visibility.naive import ATTRIBUTES, Plan, Run, add, asked_for, filters, noon, plans

SHARED = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
"""One database for all examples of a test: each begins by emptying its tables."""


class _Noon(Clock):
    def now(self) -> datetime:
        return noon()


class Rows:
    """A read model with the rows of random runs, and what it is asked through."""

    def __init__(self, model: ReadModel, visibility: Visibility) -> None:
        self.model = model
        self.visibility = visibility
        self.runs: list[Run] = []
        self._history = History()

    async def clear(self) -> None:
        """Remove every run."""
        self.runs, self._history = [], History()

        def emptied(connection: Connection) -> None:
            for table in VisibilityProjection.tables:
                connection.execute(table.delete())

        await self.model.write(emptied)

    async def insert(self, drawn: list[Plan]) -> None:
        """Add runs."""
        begin = len(self._history.events)
        for plan in drawn:
            self.runs.append(add(self._history, plan, len(self.runs)))
        new = self._history.events[begin:]
        await self.model.write(lambda c: VisibilityProjection().apply(c, new))


@pytest.fixture
async def rows(read_model_url: str) -> AsyncIterator[Rows]:
    async with await ReadModel.open(read_model_url) as model:
        await model.write(lambda c: install(c, VisibilityProjection()))
        schema = AttributeSchema()
        for name, kind in ATTRIBUTES.items():
            schema.register(name, kind)
        store = MemoryEventStore()
        runner = ProjectionRunner(store, model, [VisibilityProjection()], prefix="aion_")
        yield Rows(model, Visibility(model, runner, schema, clock=_Noon()))
        await store.aclose()


@settings(SHARED, max_examples=30)
@given(
    first=st.lists(plans(), max_size=14),
    later=st.lists(plans(), max_size=6),
    asked=st.lists(filters(), min_size=1, max_size=3),
    size=st.integers(1, 5),
)
async def test_pages_of_any_filter_hold_what_a_plain_evaluation_gives_while_runs_are_added(
    rows: Rows, first: list[Plan], later: list[Plan], asked: list[str], size: int
) -> None:
    await rows.clear()
    await rows.insert(first)
    for text in asked:
        before = list(rows.runs)
        tree = parse_filter(text, ATTRIBUTES, noon)
        expected = asked_for(before, tree)
        assert await rows.visibility.count(text) == len(expected)
        seen: list[Any] = []
        token: str | None = None
        waiting = list(later)
        while True:
            page = await rows.visibility.page(text, page_size=size, page_token=token)
            assert len(page.rows) <= size
            seen.extend(run.run_id for run in page.rows)
            token = page.next_page_token
            assert len(seen) <= len(rows.runs), "a run came twice"
            if token is None:
                break
            await rows.insert([waiting.pop()] if waiting else [])
        there = {run.run_id for run in before}
        assert [run_id for run_id in seen if run_id in there] == expected
        # What was added meanwhile may come or not, but in its place, and once.
        everything = asked_for(rows.runs, tree)
        assert [run_id for run_id in everything if run_id in set(seen)] == seen


@settings(SHARED, max_examples=40)
@given(
    drawn=st.lists(plans(), max_size=14),
    text=filters(),
    by=st.sampled_from(["status", "type", "customer", "tags", "TaskQueue", "FailureReason"]),
)
async def test_groups_of_any_filter_hold_what_a_plain_count_gives(
    rows: Rows, drawn: list[Plan], text: str, by: str
) -> None:
    await rows.clear()
    await rows.insert(drawn)
    found = set(asked_for(rows.runs, parse_filter(text, ATTRIBUTES, noon)))
    name = {"status": "ExecutionStatus", "type": "WorkflowType"}.get(by, by)
    expected: dict[str, int] = {}
    for run in rows.runs:
        value = run.fields.get(name)
        if run.run_id in found and value is not None:
            for one in set(value) if isinstance(value, tuple) else {value}:
                expected[one] = expected.get(one, 0) + 1
    counted = await rows.visibility.count(text, group_by=by)
    assert list(counted.items()) == sorted(expected.items())

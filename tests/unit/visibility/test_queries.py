"""Lists, counts and pages over the read model."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from aion_es.aggregates.attributes import AttributeSchema
from aion_es.errors import (
    FilterSyntaxError,
    InvalidArgumentError,
    InvalidPageTokenError,
    ProjectionLagError,
    RunNotFoundError,
    WorkflowNotFoundError,
)
from aion_es.events import workflow as ev
from aion_es.events.values import AttributeValue, Failure
from aion_es.ids import RunId, StreamName
from aion_es.projections import ProjectionRunner, ReadModel, VisibilityProjection, set_stuck
from aion_es.projections.checkpoints import install
from aion_es.store.memory import MemoryEventStore
from aion_es.store.port import NO_STREAM, Position
from aion_es.visibility import Visibility
from aion_es.visibility.filter import parse_filter
from aion_es.visibility.pages import page_query
from tests.unit.projections.histories import NOON, History, new_event, started


def attribute(kind: Any, value: Any) -> AttributeValue:
    return AttributeValue(type=kind, value=value)


def sample() -> History:
    """Four runs, a minute apart: a (closed), b (failed), c, d; with different attributes."""
    history = History()
    ana = {
        "customer": attribute("String", "ana"),
        "total": attribute("Int", 10),
        "tags": attribute("KeywordList", ("vip", "new")),
    }
    bob = {
        "customer": attribute("String", "bob"),
        "total": attribute("Int", 20),
        "ratio": attribute("Float", 0.1),
    }
    history.add("a", started("ra", attributes=ana)).add("a", ev.WorkflowCompleted(), minute=5)
    history.add("b", started("rb", attributes=bob), minute=1)
    history.add("b", ev.WorkflowFailed(error=Failure(type="Boom", message="no")), minute=3)
    history.add(
        "c",
        started(
            "rc", workflow_type="ship", attributes={"tags": attribute("KeywordList", ("old",))}
        ),
        minute=2,
    )
    history.add("d", started("rd", attributes={"customer": attribute("String", "anna")}), minute=3)
    return history


@pytest.fixture
async def model() -> AsyncIterator[ReadModel]:
    async with await ReadModel.open("sqlite://") as made:
        await fold(made, sample())
        yield made


async def fold(model: ReadModel, history: History) -> None:
    projection = VisibilityProjection()
    await model.write(lambda c: install(c, projection))
    await model.write(lambda c: projection.apply(c, history.events))


@pytest.fixture
async def visibility(model: ReadModel) -> AsyncIterator[Visibility]:
    store = MemoryEventStore()
    runner = ProjectionRunner(store, model, [VisibilityProjection()], prefix="aion_")
    yield Visibility(model, runner, AttributeSchema())
    await store.aclose()


async def ids(visibility: Visibility, filter: str = "", page_size: int = 100) -> str:
    return "".join([run.workflow_id async for run in visibility.list(filter, page_size=page_size)])


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        ("", "dcba"),
        ("WorkflowType = 'ship'", "c"),
        ("WorkflowType != 'ship'", "dba"),
        ("ExecutionStatus IN ('Running', 'Failed')", "dcb"),
        ("customer = 'ana'", "a"),
        ("customer != 'ana'", "db"),
        ("NOT customer = 'ana'", "dcb"),
        ("customer NOT IN ('ana')", "db"),
        ("customer IN ('ana', 'bob')", "ba"),
        ("customer STARTS_WITH 'an'", "da"),
        ("customer IS NULL", "c"),
        ("customer IS NOT NULL", "dba"),
        ("tags = 'vip'", "a"),
        ("tags != 'vip'", "c"),
        ("tags IN ('new', 'old')", "ca"),
        ("total > 10", "b"),
        ("total BETWEEN 10 AND 20", "ba"),
        ("total NOT BETWEEN 10 AND 15", "b"),
        ("ratio = 0.1", "b"),
        ("customer = 'ana' AND total = 10 AND tags = 'new'", "a"),
        ("customer = 'ana' OR WorkflowType = 'ship'", "ca"),
        ("(customer = 'ana' OR total = 20) AND ExecutionStatus = 'Failed'", "b"),
        ("CloseTime IS NULL", "dc"),
        ("NOT CloseTime > '2026-11-24T12:04:00Z'", "dcb"),
        ("StartTime BETWEEN '2026-11-24T12:01:00Z' AND '2026-11-24T12:02:00Z'", "cb"),
        ("ExecutionDuration >= '5m'", "a"),
        ("HistoryLength = 1", "dc"),
        ("FailureType = 'Boom' AND FailureReason = 'no'", "b"),
        ("RootWorkflowId = 'c' AND RunId = 'rc' AND BuildId = '1' AND TaskQueue = 'default'", "c"),
        ("ORDER BY StartTime ASC", "abcd"),
        ("ORDER BY CloseTime DESC", "abdc"),
        ("ORDER BY CloseTime ASC", "bacd"),
        ("ORDER BY total DESC", "badc"),
        ("ORDER BY customer ASC", "adbc"),
        ("WorkflowId = 'x'' OR 1=1 --'", ""),
    ],
)
async def test_a_filter_gives_its_runs_in_its_order_whatever_the_page_size(
    visibility: Visibility, filter: str, expected: str
) -> None:
    assert await ids(visibility, filter) == expected
    assert await ids(visibility, filter, page_size=1) == expected
    assert await visibility.count(filter) == len(expected)


@pytest.mark.parametrize(
    "evil",
    [
        "'; DROP TABLE visibility; --",
        "1 OR 1=1",
        "customer = 'a' UNION SELECT * FROM visibility",
        "customer = char(97)",
        "name = 'x'",
        "run_key = 1",
        '"run_key" = 1',
    ],
)
async def test_an_injection_is_a_syntax_error_and_the_rows_are_still_there(
    visibility: Visibility, evil: str
) -> None:
    with pytest.raises(FilterSyntaxError):
        await visibility.count(evil)
    assert await visibility.count() == 4


def test_no_text_of_a_filter_stands_in_the_sql() -> None:
    parsed = parse_filter(
        "customer = 'ZZZ' AND WorkflowId STARTS_WITH 'ZZZ' AND tags IN ('ZZZ')",
        {"customer": "String", "tags": "KeywordList"},
        lambda: NOON,
    )
    assert "ZZZ" not in str(page_query(parsed, None, 10))
    assert "customer" not in str(page_query(parsed, None, 10))


async def test_pages_stay_whole_while_runs_come_and_close(
    model: ReadModel, visibility: Visibility
) -> None:
    first = await visibility.page(page_size=2)
    history = sample().add("e", started("re"), minute=9).add("c", ev.WorkflowCompleted(), minute=9)
    await model.write(lambda c: VisibilityProjection().apply(c, history.events[-2:]))
    second = await visibility.page(page_size=2, page_token=first.next_page_token)
    assert [run.workflow_id for run in (*first.rows, *second.rows)] == ["d", "c", "b", "a"]
    assert second.next_page_token is None


async def test_a_damaged_or_foreign_page_token_is_refused(visibility: Visibility) -> None:
    token = (await visibility.page(page_size=1)).next_page_token
    assert token is not None
    for bad in ("", "x", token[:-4], token + "!", "bnVsbA=="):
        with pytest.raises(InvalidPageTokenError):
            await visibility.page(page_token=bad)
    with pytest.raises(InvalidPageTokenError, match="another filter"):
        await visibility.page("WorkflowType = 'ship'", page_token=token)


@pytest.mark.parametrize("size", [0, -1, 10_001])
async def test_a_page_has_at_least_one_row_and_at_most_ten_thousand(
    visibility: Visibility, size: int
) -> None:
    with pytest.raises(InvalidArgumentError):
        await visibility.page(page_size=size)


async def test_counts_are_grouped_by_status_or_type(visibility: Visibility) -> None:
    assert await visibility.count("", group_by="status") == {
        "Completed": 1,
        "Failed": 1,
        "Running": 2,
    }
    assert await visibility.count("customer IS NOT NULL", group_by="type") == {"checkout": 3}


async def test_a_row_has_typed_values(visibility: Visibility) -> None:
    run = await visibility.get("b")
    assert run.start_time == NOON + timedelta(minutes=1)
    assert run.execution_duration == timedelta(minutes=2)
    assert dict(run.search_attributes) == {"customer": "bob", "total": 20, "ratio": 0.1}


async def test_an_unknown_workflow_and_an_unknown_run_are_told_apart(
    visibility: Visibility,
) -> None:
    with pytest.raises(WorkflowNotFoundError):
        await visibility.get("nobody")
    with pytest.raises(RunNotFoundError):
        await visibility.get("a", "other")


async def test_a_chain_lists_its_own_runs_oldest_first(
    model: ReadModel, visibility: Visibility
) -> None:
    history = History()
    history.events = list(sample().events)
    closing = ev.WorkflowContinuedAsNew(parent_run_id=RunId("r1"), new_run_id=RunId("r2"))
    history.add("z", started("r1"), closing, started("r2", first_run_id="r1", parent_run_id="r1"))
    history.add("z", ev.WorkflowCompleted(), started("r3"))
    await model.write(
        lambda c: VisibilityProjection().apply(c, history.events[len(sample().events) :])
    )
    assert [run.run_id for run in await visibility.run_chain("z", "r2")] == ["r1", "r2"]
    assert [run.run_id for run in await visibility.run_chain("z")] == ["r3"]


async def test_a_stuck_run_shows_its_reason_until_it_closes(
    model: ReadModel, visibility: Visibility
) -> None:
    assert await set_stuck(model, "c", "rc", "no such version")
    assert not await set_stuck(model, "nobody", "r", "x")
    assert await ids(visibility, "StuckReason = 'no such version'") == "c"
    history = sample().add("c", ev.WorkflowTerminated())
    await model.write(lambda c: VisibilityProjection().apply(c, history.events[-1:]))
    assert (await visibility.get("c")).stuck_reason is None


async def test_the_schema_is_learnt_from_the_events(model: ReadModel) -> None:
    schema = AttributeSchema()
    await Visibility(model, None, schema).attributes.learn()  # type: ignore[arg-type]  # the runner is not asked
    assert {name: schema[name] for name in schema.names} == {
        "customer": "String",
        "ratio": "Float",
        "tags": "KeywordList",
        "total": "Int",
    }


async def test_at_least_reads_ones_own_write_or_says_that_it_lags() -> None:
    store = MemoryEventStore()
    async with await ReadModel.open("sqlite://") as model, asyncio.TaskGroup() as group:
        runner = ProjectionRunner(store, model, [VisibilityProjection()], prefix="aion_")
        await runner.prepare()
        task = group.create_task(runner.run())
        visibility = Visibility(model, runner, AttributeSchema())
        done = await store.append(StreamName("aion_workflow-w"), [new_event(started())], NO_STREAM)
        assert [run.workflow_id async for run in visibility.list(at_least=done.position)] == ["w"]
        beyond = Position(done.position.commit + 1, done.position.prepare + 1)
        with pytest.raises(ProjectionLagError):
            await visibility.page(at_least=beyond, timeout=timedelta(milliseconds=10))
        task.cancel()
    await store.aclose()


@pytest.mark.parametrize(
    ("filter", "index"),
    [
        ("customer = 'ana'", "search_attributes_text_value"),
        ("tags = 'vip' AND ExecutionStatus = 'Running'", "search_attributes_text_value"),
        ("", "visibility_start_time"),
        ("ExecutionStatus = 'Running'", "visibility_status"),
        ("ORDER BY CloseTime DESC", "visibility_close_time"),
    ],
)
async def test_a_page_is_read_off_an_index_without_sorting(
    model: ReadModel, filter: str, index: str
) -> None:
    parsed = parse_filter(filter, {"customer": "String", "tags": "KeywordList"}, lambda: NOON)
    sql = page_query(parsed, None, 100)

    def plan(connection: Any) -> str:
        compiled = sql.compile(connection, compile_kwargs={"literal_binds": True})
        return "\n".join(
            row[3] for row in connection.execute(text(f"EXPLAIN QUERY PLAN {compiled}"))
        )

    found = await model.read(plan)
    assert index in found
    assert "B-TREE" not in found

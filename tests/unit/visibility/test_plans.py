"""Every search attribute is indexed, and a page is read off one index: what the databases say of it."""

from datetime import datetime

import pytest
from sqlalchemy import Connection, Select, text

from aion_es.projections import ReadModel
from aion_es.visibility.compile import candidates, conjuncts, count_query
from aion_es.visibility.filter import Filter, parse_filter
from aion_es.visibility.name_sets import read_sets
from aion_es.visibility.pages import page_query, unvalued_query
from aion_es.visibility.walks import Place, find_walk, unvalued_walk
from tests.unit.projections.histories import NOON
from tests.unit.visibility.naive import ATTRIBUTES


def noon() -> datetime:
    return NOON


async def plan_of(model: ReadModel, query: Select[tuple[object, ...]]) -> str:
    """Return what the database would do, on PostgreSQL as if the tables were large."""

    def explain(connection: Connection) -> str:
        sql = str(query.compile(connection, compile_kwargs={"literal_binds": True}))
        if connection.dialect.name == "postgresql":
            for off in ("enable_seqscan", "enable_sort", "enable_bitmapscan", "enable_hashjoin"):
                connection.execute(text(f"SET LOCAL {off} = off"))
            rows = connection.exec_driver_sql(f"EXPLAIN {sql}".replace("%", "%%"))
            return "\n".join(row[0] for row in rows)
        return "\n".join(row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}"))

    return await model.read(explain)


@pytest.mark.parametrize(
    ("filter", "index"),
    [
        ("customer = 'ana'", "search_attributes_text_value"),
        ("customer > 'a'", "search_attributes_text_value"),
        ("customer STARTS_WITH 'a'", "search_attributes_text_value"),
        ("customer IN ('ana', 'bo')", "search_attributes_text_value"),
        ("tags = 'vip'", "search_attributes_text_value"),
        ("total = 1", "search_attributes_number_value"),
        ("total BETWEEN 1 AND 5", "search_attributes_number_value"),
        ("paid = true", "search_attributes_number_value"),
        ("due < now()", "search_attributes_number_value"),
        ("ratio >= 0.5", "search_attributes_float_value"),
    ],
)
async def test_the_matches_of_any_attribute_are_read_off_an_index(
    model: ReadModel, filter: str, index: str
) -> None:
    asked = parse_filter(filter, ATTRIBUTES, noon)
    assert asked.condition is not None
    matches = candidates(asked.condition)
    assert matches is not None
    for query in (matches, count_query(asked)):
        plan = await plan_of(model, query)
        assert index in plan
        assert "SCAN search_attributes" not in plan
        assert "Seq Scan" not in plan


async def page_plan(model: ReadModel, asked: Filter, after: Place | None = None) -> str:
    """Return what the database would do for a page of very many matches."""

    def query(connection: Connection) -> Select[tuple[object, ...]]:
        sets = read_sets(connection, conjuncts(asked.condition))
        return page_query(asked, after, 100, find_walk(asked, sets, after, connection))

    return await plan_of(model, await model.read(query))


@pytest.mark.parametrize(
    ("filter", "index"),
    [
        ("customer = 'ana'", "search_attributes_text_value"),
        ("tags = 'vip' AND BuildId = '1'", "search_attributes_text_value"),
        ("total = 1 AND NOT customer = 'ana'", "search_attributes_number_value"),
        ("ORDER BY customer", "search_attributes_text_value_order"),
        ("WorkflowType = 'ship' ORDER BY total DESC", "search_attributes_number_value_order"),
        ("ratio > 0.5 ORDER BY ratio", "search_attributes_float_value_order"),
        ("", "visibility_start_time"),
        ("StartTime > now() - '1h'", "visibility_start_time"),
        ("ExecutionStatus = 'Running'", "visibility_status"),
        ("WorkflowType = 'ship'", "visibility_workflow_type"),
        ("ratio IS NOT NULL", "visibility_attribute_names"),
        ("ExecutionStatus = 'Failed' ORDER BY CloseTime DESC", "visibility_close_time"),
        ("ExecutionStatus = 'Failed' ORDER BY CloseTime ASC", "visibility_close_time"),
    ],
)
async def test_a_page_is_read_off_an_index_without_sorting(
    model: ReadModel, filter: str, index: str
) -> None:
    asked = parse_filter(filter, ATTRIBUTES, noon)
    value: dict[str, object] = {"text": "m", "float": 0.7}
    place = (value.get(asked.order.field.kind, 10**15), "run")
    for after in (None, place):
        plan = await page_plan(model, asked, after)
        assert index in plan
        assert "B-TREE" not in plan
        assert "Sort" not in plan


@pytest.mark.parametrize(
    ("filter", "index", "walks"),
    [
        ("customer IN ('ana', 'bo') AND total > 5", "search_attributes_text_value", 2),
        ("ExecutionStatus != 'Completed'", "visibility_status", 7),
        ("customer IS NULL", "visibility_attribute_names", 1),
        ("ORDER BY CloseTime", "visibility_close_time", 6),
    ],
)
async def test_a_page_of_several_values_is_merged_from_the_index_of_each(
    model: ReadModel, filter: str, index: str, walks: int
) -> None:
    plan = await page_plan(model, parse_filter(filter, ATTRIBUTES, noon))
    assert plan.count(index) == walks
    assert "Seq Scan" not in plan
    assert "SCAN visibility" not in plan


async def test_the_open_runs_are_read_off_the_index_of_the_times_that_they_do_not_have(
    model: ReadModel,
) -> None:
    asked = parse_filter("ExecutionStatus = 'Running' ORDER BY CloseTime", ATTRIBUTES, noon)
    plan = await plan_of(model, unvalued_query(asked, None, 100, unvalued_walk(asked)))
    assert "visibility_close_time" in plan
    assert "B-TREE" not in plan
    assert "Sort" not in plan


@pytest.mark.parametrize(
    "filter",
    [
        "customer != 'ana'",
        "customer NOT IN ('ana', 'bo')",
        "total NOT BETWEEN 1 AND 5",
        "NOT total > 5",
        "due IS NULL",
        "NOT due IS NULL",
        "WorkflowType != 'ship'",
        "WorkflowId STARTS_WITH 'a'",
    ],
)
async def test_what_is_not_or_lacks_something_is_found_by_an_index_too(
    model: ReadModel, filter: str
) -> None:
    asked = parse_filter(filter, ATTRIBUTES, noon)
    sets = await model.read(lambda c: read_sets(c, conjuncts(asked.condition)))
    assert asked.condition is not None
    matches = candidates(asked.condition, sets)
    assert matches is not None
    plan = await plan_of(model, matches)
    assert "SCAN visibility" not in plan
    assert "SCAN search_attributes" not in plan
    assert "Seq Scan" not in plan

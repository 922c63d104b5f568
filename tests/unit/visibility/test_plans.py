"""Every search attribute is indexed, and a page is read off one index: what the databases say of it."""

from datetime import datetime

import pytest
from sqlalchemy import Connection, Select, text

from aion_es.projections import ReadModel
from aion_es.visibility.compile import candidates, count_query
from aion_es.visibility.filter import parse_filter
from aion_es.visibility.pages import page_query
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


@pytest.mark.parametrize(
    ("filter", "index"),
    [
        ("customer = 'ana'", "search_attributes_text_value"),
        ("tags = 'vip' AND ExecutionStatus = 'Running'", "search_attributes_text_value"),
        ("total = 1 AND NOT customer = 'ana'", "search_attributes_number_value"),
        ("ORDER BY customer", "search_attributes_text_value_order"),
        ("WorkflowType = 'ship' ORDER BY total DESC", "search_attributes_number_value_order"),
        ("ratio > 0.5 ORDER BY ratio", "search_attributes_float_value_order"),
        ("", "visibility_start_time"),
        ("StartTime > now() - '1h'", "visibility_start_time"),
        ("ExecutionStatus = 'Running'", "visibility_status"),
        ("WorkflowType = 'ship'", "visibility_workflow_type"),
        ("ORDER BY CloseTime DESC", "visibility_close_time"),
        ("ORDER BY CloseTime ASC", "visibility_close_time"),
    ],
)
async def test_a_page_is_read_off_an_index_without_sorting(
    model: ReadModel, filter: str, index: str
) -> None:
    asked = parse_filter(filter, ATTRIBUTES, noon)
    value: dict[str, object] = {"text": "m", "float": 0.7}
    place = (value.get(asked.order.field.kind, 10**15), "run")
    for after in (None, place):
        plan = await plan_of(model, page_query(asked, after, 100))
        assert index in plan
        assert "B-TREE" not in plan
        assert "Sort" not in plan


async def test_the_pages_of_several_values_are_read_off_the_index_of_each(model: ReadModel) -> None:
    asked = parse_filter("customer IN ('ana', 'bo') AND total > 5", ATTRIBUTES, noon)
    plan = await plan_of(model, page_query(asked, None, 100))
    assert plan.count("search_attributes_text_value") == 2
    assert "Seq Scan" not in plan

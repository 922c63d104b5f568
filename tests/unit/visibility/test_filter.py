"""The list filter: what it understands, and that nothing else gets through."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aion_es.errors import FilterSyntaxError
from aion_es.events.values import AttributeType
from aion_es.visibility.fields import BUILT_IN, Field
from aion_es.visibility.filter import Both, Comparison, Filter, Negation, Order, parse_filter
from tests.unit.projections.histories import NOON, NOON_MICROS

ATTRIBUTES: dict[str, AttributeType] = {
    "customer": "String",
    "total": "Int",
    "ratio": "Float",
    "paid": "Bool",
    "due": "Datetime",
    "tags": "KeywordList",
}
CUSTOMER = Field("customer", "text")
HOUR = 3_600_000_000


def parse(text: str) -> Filter:
    return parse_filter(text, ATTRIBUTES, lambda: NOON)


def test_empty_text_asks_for_everything_newest_first() -> None:
    assert parse("  ") == Filter(None, Order(BUILT_IN["StartTime"], descending=True))


def test_conditions_and_order_become_a_tree_of_fields_and_values() -> None:
    assert parse(
        "WorkflowType = 'checkout' AND NOT customer IN ('ana', 'o''neil') ORDER BY total ASC"
    ) == Filter(
        Both(
            (
                Comparison(BUILT_IN["WorkflowType"], "=", ("checkout",)),
                Negation(Comparison(CUSTOMER, "in", ("ana", "o'neil"))),
            )
        ),
        Order(Field("total", "int"), descending=False),
    )


def test_not_in_is_false_where_there_is_no_value_unlike_not_before_in() -> None:
    among = Comparison(CUSTOMER, "in", ("ana",))
    assert parse("customer NOT IN ('ana')").condition == Both(
        (Negation(among), Negation(Comparison(CUSTOMER, "is_null")))
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("StartTime > '2026-11-24T13:00:00+01:00'", NOON_MICROS),
        ("StartTime > now() - '1h'", NOON_MICROS - HOUR),
        ("StartTime > now()", NOON_MICROS),
        ("ExecutionDuration > '1h30m'", 90 * 60_000_000),
        ("ExecutionDuration > 1.5", 1_500_000),
        ("total > -5", -5),
        ("ratio > 1", 1.0),
        ("paid = true", 1),
        ("ExecutionStatus = 'TimedOut'", "TimedOut"),
        ("customer STARTS_WITH 'an'", "an"),
    ],
)
def test_a_literal_is_read_as_its_fields_type(text: str, value: object) -> None:
    condition = parse(text).condition
    assert isinstance(condition, Comparison)
    assert condition.values == (value,)
    assert type(condition.values[0]) is type(value)


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        ("Custumer = 'x'", 0, "no field or search attribute 'Custumer'; did you mean customer?"),
        (
            "paid = true AND Workflowtype = 'x'",
            16,
            "no field or search attribute 'Workflowtype'; did you mean WorkflowType",
        ),
        ("total = 'five'", 8, "total is compared with a whole number"),
        ("customer = 5", 11, "customer is compared with text"),
        ("StartTime > '2026-11-24T09:30:00'", 12, "names no instant without an offset"),
        ("ExecutionStatus = 'running'", 18, "ExecutionStatus is one of Running"),
        ("tags > 'a'", 0, "tags has no order"),
        ("total STARTS_WITH '1'", 0, "STARTS_WITH needs text"),
        ("total = 1 GROUP BY customer", 19, "no GROUP clause"),
        ("total = 1; DROP TABLE visibility", 9, "more than one filter"),
        ("total", 0, "expected a comparison"),
        ("total = 99999999999999999999", 8, "total has 64 bits"),
        ("customer = total", 11, "customer is compared with text"),
        ("x.customer = 'a'", 0, "expected the name of a field"),
        ("total = (SELECT 1)", 16, "total is compared with a whole number"),
        ("customer IN (SELECT 'a')", 0, "expected a comparison"),
        ("ORDER BY tags", 9, "cannot order by the list tags"),
        ("ORDER BY total, customer", 9, "ORDER BY takes one field"),
        ("total = 1 UNION SELECT 1", 0, ""),
        ("total =", 0, ""),
        ("(total = 1", 0, ""),
    ],
)
def test_a_filter_that_cannot_be_understood_says_what_and_where(
    text: str, position: int, reason: str
) -> None:
    with pytest.raises(FilterSyntaxError) as refused:
        parse(text)
    assert reason in refused.value.reason
    if reason:
        assert refused.value.position == position
    assert refused.value.filter == text


def test_a_filter_has_a_greatest_length_and_a_greatest_number_of_conditions() -> None:
    with pytest.raises(FilterSyntaxError, match="longer than"):
        parse("total = 1 OR " * 1_000 + "total = 1")
    with pytest.raises(FilterSyntaxError, match="more than 64"):
        parse(" OR ".join(["total = 1"] * 65))
    with pytest.raises(FilterSyntaxError):
        parse("(" * 4_000)


WORDS = st.sampled_from(
    [
        "customer",
        "total",
        "tags",
        "StartTime",
        "=",
        "!=",
        "<",
        ">=",
        "IN",
        "NOT",
        "AND",
        "OR",
        "(",
        ")",
        ",",
        "'a'",
        "1",
        "-",
        "now()",
        "'1h'",
        "BETWEEN",
        "IS",
        "NULL",
        "STARTS_WITH",
        "ORDER BY",
        "DESC",
        ";",
        "--",
        "/*",
        "SELECT",
        "UNION",
        "'",
        '"',
        "*",
        "::",
        "LIMIT",
    ]
)


@settings(max_examples=250, deadline=None)
@given(text=st.one_of(st.text(max_size=60), st.lists(WORDS, max_size=14).map(" ".join)))
def test_any_text_is_a_filter_or_a_filter_syntax_error(text: str) -> None:
    try:
        parse(text)
    except FilterSyntaxError as error:
        refused = error
    else:
        return
    assert 0 <= refused.position <= len(text)
    assert str(refused)

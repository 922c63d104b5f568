"""The list filter: what it understands, and that nothing else gets through."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aion_es.errors import FilterSyntaxError
from aion_es.events.values import AttributeType
from aion_es.visibility.fields import BUILT_IN, Field
from aion_es.visibility.filter import (
    Both,
    Comparison,
    Either,
    Filter,
    Negation,
    Order,
    parse_filter,
)
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


def test_not_behind_the_field_needs_a_value_unlike_not_before_it() -> None:
    assert parse("customer NOT IN ('ana')").condition == Comparison(CUSTOMER, "not_in", ("ana",))
    assert parse("NOT customer IN ('ana')").condition == Negation(
        Comparison(CUSTOMER, "in", ("ana",))
    )
    assert parse("NOT customer NOT IN ('ana')").condition == Negation(
        Comparison(CUSTOMER, "not_in", ("ana",))
    )
    assert parse("total NOT BETWEEN 1 AND 2").condition == Comparison(
        Field("total", "int"), "not_between", (1, 2)
    )


def test_a_chain_of_one_connective_is_one_node_however_it_is_put_in_parentheses() -> None:
    one, two, three = (Comparison(Field("total", "int"), "=", (n,)) for n in (1, 2, 3))
    assert parse("total = 1 AND (total = 2 AND total = 3)").condition == Both((one, two, three))
    assert parse("total = 1 OR total = 2 AND total = 3").condition == Either(
        (one, Both((two, three)))
    )


@pytest.mark.parametrize(
    "name", ["and", "or", "not", "in", "is", "null", "true", "between", "starts_with", "order"]
)
def test_a_word_of_the_grammar_in_quotes_is_a_name(name: str) -> None:
    parsed = parse_filter(f'"{name}" = 1 ORDER BY "{name}"', {name: "Int"}, lambda: NOON)
    assert parsed == Filter(
        Comparison(Field(name, "int"), "=", (1,)), Order(Field(name, "int"), descending=False)
    )


@pytest.mark.parametrize(
    "name", ["date", "end", "if", "case", "select", "now", "any", "group", "desc", "interval"]
)
def test_a_word_of_sql_that_no_filter_has_is_a_name(name: str) -> None:
    parsed = parse_filter(f"{name} = 1 AND NOT {name} IS NULL", {name: "Int"}, lambda: NOON)
    field = Field(name, "int")
    assert parsed.condition == Both(
        (Comparison(field, "=", (1,)), Negation(Comparison(field, "is_null")))
    )


def test_the_order_may_be_given_beside_the_filter_but_not_twice() -> None:
    ordered = parse_filter("paid = true", ATTRIBUTES, lambda: NOON, "total DESC")
    assert ordered == parse("paid = true ORDER BY total DESC")
    for text, order_by in (("ORDER BY total", "total"), ("", "ORDER BY total"), ("", "totl")):
        with pytest.raises(FilterSyntaxError):
            parse_filter(text, ATTRIBUTES, lambda: NOON, order_by)


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
        ("paid = true AND\n  custmer = 'x'", 18, "did you mean customer"),
        ("total > 3 AND total < 'x' AND paid = true", 22, "total is compared with a whole number"),
        ("customer IN ('a', 5)", 18, "customer is compared with text"),
        ("total = 1 GROUP BY customer", 10, "unexpected 'GROUP'"),
        ("total = 1; DROP TABLE visibility", 9, "unexpected ';'"),
        ("total", 0, "expected a comparison"),
        ("total = 99999999999999999999", 8, "total has 64 bits"),
        ("total = 1.0", 8, "total is compared with a whole number"),
        ("ratio = 1e400", 8, "ratio is compared with a finite number"),
        ("paid = 1", 7, "paid is compared with true or false"),
        ("ExecutionDuration > 1e300", 20, "the duration is too long"),
        ("ExecutionDuration > 1e999999999999999999999", 20, "ExecutionDuration is compared"),
        ("ExecutionDuration > '1x'", 20, "a duration is written like '90s'"),
        ("StartTime > now() - '99999999999d'", 12, "the duration is too long"),
        ("customer = 'a\0'", 11, "holds no NUL"),
        ("customer = '\ud800'", 11, "not with a lone surrogate"),
        ("customer = total", 11, "customer is compared with text"),
        ("paid = true AND customer = NULL", 27, "customer is compared with text"),
        ("customer IN ('a', NULL) OR total IS NULL", 18, "customer is compared with text"),
        ("paid IN (true, -(NULL))", 17, "paid is compared with true or false"),
        ("total IN (1, false)", 13, "total is compared with a whole number"),
        ("customer = now()", 11, "customer is compared with text"),
        ("customer NOT NULL", 9, "unexpected 'NOT'"),
        ("paid = true AND customer NOT STARTS_WITH 'a'", 25, "unexpected 'NOT'"),
        ("x.customer = 'a'", 1, "unexpected '.'"),
        ("total = (SELECT 1)", 16, "unexpected '1'"),
        ("customer IN (SELECT 'a')", 20, "unexpected"),
        ("customer LIKE 'a%'", 9, "unexpected 'LIKE'"),
        ("customer = 'a' -- AND total = 1", 18, "unexpected 'AND'"),
        ("customer = 'a' /* x */", 15, "unexpected '/'"),
        ("customer = 'it", 11, "this quote is not closed"),
        ("customer = 'it''s' AND \"tot", 23, "this quote is not closed"),
        ("= 1", 0, "unexpected '='"),
        ("total = 1 AND AND paid = true", 14, "unexpected 'AND'"),
        ("total IN ()", 10, "unexpected ')'"),
        ("total =", 7, "ends too early"),
        ("(total = 1", 10, "ends too early"),
        ("total = 1)", 9, "unexpected ')'"),
        ("total = 1 UNION SELECT 1", 10, "unexpected 'UNION'"),
        ("ORDER BY tags", 9, "cannot order by the list tags"),
        ("ORDER BY total, customer", 14, "ORDER BY takes one field"),
        ("ORDER BY total DESC NULLS FIRST", 20, "ORDER BY takes one field"),
        ("ORDER BY total SIDEWAYS", 15, "expected ASC or DESC"),
        ("ORDER BY 1", 9, "expected the name of a field"),
        ("ORDER BY total ORDER BY total", 15, "ORDER BY stands once"),
        ("total = 1 ORDER BY", 18, "ORDER BY needs a field"),
    ],
)
def test_a_filter_that_cannot_be_understood_says_what_and_where(
    text: str, position: int, reason: str
) -> None:
    with pytest.raises(FilterSyntaxError) as refused:
        parse(text)
    assert reason in refused.value.reason
    assert refused.value.position == position
    assert refused.value.filter == text


@pytest.mark.parametrize(
    "text",
    [
        "total BETWEEN SYMMETRIC 1 AND 2",
        "total BETWEEN ASYMMETRIC 1 AND 2",
        "total IS DISTINCT FROM 1",
        "customer STARTS_WITH 'a' ESCAPE 'b'",
        "StartTime > now() AT TIME ZONE 'UTC'",
        "customer = 'a' 'b'",
    ],
)
def test_sql_that_a_parser_may_know_is_no_filter(text: str) -> None:
    with pytest.raises(FilterSyntaxError):
        parse(text)


def test_a_filter_has_a_greatest_length_and_a_greatest_number_of_conditions() -> None:
    with pytest.raises(FilterSyntaxError, match="longer than"):
        parse("total = 1 OR " * 1_000 + "total = 1")
    assert parse(" OR ".join(["total = 1"] * 63)).condition is not None
    with pytest.raises(FilterSyntaxError, match="more than 64"):
        parse(" OR ".join(["total = 1"] * 64))
    assert parse("(" * 32 + "total = 1" + ")" * 32).condition is not None
    for deep in ("(" * 33 + "total = 1" + ")" * 33, "NOT " * 2_000, "total = " + "-" * 8_000):
        with pytest.raises(FilterSyntaxError, match="nested deeper than 32"):
            parse(deep)


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
        "SYMMETRIC",
        "ESCAPE",
        "COLLATE",
        "INTERVAL",
        "CASE",
        "WHEN",
        "EXISTS",
        "OVER",
        "[",
        "{",
        "@",
        "?",
        ".",
        "1e999",
        "0x1",
        "N'a'",
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


@settings(max_examples=500, deadline=None)
@given(
    text=st.one_of(
        st.text(max_size=60),
        st.binary(max_size=60).map(lambda raw: raw.decode("latin-1")),
        st.binary(max_size=60).map(lambda raw: raw.decode("utf-8", "surrogateescape")),
        st.lists(WORDS, max_size=14).map(" ".join),
    )
)
def test_any_text_is_a_filter_or_a_filter_syntax_error(text: str) -> None:
    try:
        parse(text)
    except FilterSyntaxError as error:
        refused = error
    else:
        return
    assert 0 <= refused.position <= len(text)
    assert str(refused)

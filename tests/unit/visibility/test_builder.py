"""Filters written in Python mean what their text means."""

import copy
import pickle
from datetime import datetime, timedelta
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aion_es import SearchAttribute
from aion_es.errors import FilterSyntaxError, InvalidArgumentError
from aion_es.events.values import AttributeType
from aion_es.visibility import (
    Condition,
    ExecutionDuration,
    ExecutionStatus,
    HistoryLength,
    StartTime,
    WorkflowId,
    WorkflowType,
    attribute,
    builder,
    now,
)
from aion_es.visibility.fields import BUILT_IN
from aion_es.visibility.filter import Comparison, parse_filter
from tests.unit.projections.histories import NOON

CUSTOMER = SearchAttribute("customer", str)
TYPES: dict[str, AttributeType] = {
    "customer": "String",
    "total": "Int",
    "ratio": "Float",
    "paid": "Bool",
    "due": "Datetime",
    "tags": "KeywordList",
    "in": "String",
}
customer = attribute(CUSTOMER)
total = attribute(SearchAttribute("total", int))
ratio = attribute(SearchAttribute("ratio", float))
paid = attribute(SearchAttribute("paid", bool))
due = attribute(SearchAttribute("due", datetime))
tags = attribute(SearchAttribute("tags", list[str]))


@pytest.mark.parametrize(
    ("condition", "text"),
    [
        (WorkflowType == "checkout", "WorkflowType = 'checkout'"),
        (customer != "o'neil", "customer != 'o''neil'"),
        ((total > 1) & (total <= 5), "total > 1 AND total <= 5"),
        ((total >= -1) | (total < -5), "total >= -1 OR total < -5"),
        (~(paid == True), "NOT paid = true"),  # noqa: E712 - makes a condition
        (customer.in_(["ana", "bo"]), "customer IN ('ana', 'bo')"),
        (customer.not_in(("ana",)), "customer NOT IN ('ana')"),
        (ratio.between(0.1, 1e-9), "ratio BETWEEN 0.1 AND 1e-09"),
        (WorkflowId.starts_with("order-"), "WorkflowId STARTS_WITH 'order-'"),
        (due.is_null(), "due IS NULL"),
        (due.is_not_null(), "due IS NOT NULL"),
        (tags == "vip", "tags = 'vip'"),
        (attribute("in") == "x", "\"in\" = 'x'"),
        (StartTime > NOON, "StartTime > '2026-11-24T12:00:00Z'"),
        (StartTime > now() - timedelta(hours=1), "StartTime > now() - '1h'"),
        (due < now() + timedelta(days=1), "due < now() + '1d'"),
        (ExecutionDuration > timedelta(microseconds=1), "ExecutionDuration > '1us'"),
        (ExecutionDuration > timedelta(microseconds=-1), "ExecutionDuration > -0.000001"),
        (
            (total == 1) & (total == 2) & ((total == 3) & (total == 4)),
            "total = 1 AND total = 2 AND total = 3 AND total = 4",
        ),
        (
            ((total == 1) | (total == 2)) & ~((total == 3) & (total == 4)),
            "(total = 1 OR total = 2) AND NOT (total = 3 AND total = 4)",
        ),
        (
            (total == 1) | (total == 2) & (total == 3) | (total == 4),
            "total = 1 OR total = 2 AND total = 3 OR total = 4",
        ),
    ],
)
def test_a_condition_compiles_to_the_same_tree_as_its_text(condition: Condition, text: str) -> None:
    built = parse_filter(str(condition), TYPES, lambda: NOON)
    assert built == parse_filter(text, TYPES, lambda: NOON)


@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_any_text_goes_through_unchanged(text: str) -> None:
    parsed = parse_filter(str(customer == text), TYPES, lambda: NOON)
    assert isinstance(parsed.condition, Comparison)
    assert parsed.condition.values == (text,)


@given(
    number=st.integers(-(2**63), 2**63 - 1),
    fraction=st.floats(allow_nan=False, allow_infinity=False),
)
def test_any_number_goes_through_unchanged(number: int, fraction: float) -> None:
    for condition, value in ((total == number, number), (ratio == fraction, fraction)):
        parsed = parse_filter(str(condition), TYPES, lambda: NOON)
        assert isinstance(parsed.condition, Comparison)
        assert parsed.condition.values == (value,)


@given(span=st.timedeltas(timedelta(days=-30_000), timedelta(days=30_000)))
def test_any_duration_goes_through_to_the_microsecond(span: timedelta) -> None:
    parsed = parse_filter(str(ExecutionDuration == span), TYPES, lambda: NOON)
    assert isinstance(parsed.condition, Comparison)
    assert parsed.condition.values == (span // timedelta(microseconds=1),)


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_every_field_of_a_run_is_there_under_its_name(name: str) -> None:
    assert getattr(builder, name).name == name


def test_orders_are_made_from_fields() -> None:
    assert HistoryLength.desc() == "HistoryLength DESC"
    assert attribute("in").asc() == '"in" ASC'


def test_a_condition_is_neither_true_nor_false() -> None:
    with pytest.raises(InvalidArgumentError, match="use &"):
        bool((total > 1) and (total < 5))


def test_a_key_stays_equal_to_its_like() -> None:
    assert SearchAttribute("customer", str) == CUSTOMER
    assert {CUSTOMER: 1}[SearchAttribute("customer", str)] == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: customer.in_([]),
        lambda: customer == None,  # noqa: E711 - makes a condition
        lambda: customer == b"bytes",
        lambda: now() - timedelta(1) - timedelta(1),
        lambda: now() + timedelta(-1),
        lambda: attribute("no name"),
        lambda: (total > 1) & cast("Any", "total < 5"),
        lambda: (total > 1) | cast("Any", None),
        lambda: attribute("StartTime"),
    ],
)
def test_what_no_filter_can_say_is_refused_at_once(make: object) -> None:
    assert callable(make)
    with pytest.raises(InvalidArgumentError):
        make()


@pytest.mark.parametrize(
    "condition",
    [
        attribute("total") == "one",
        attribute("ratio") == float("inf"),
        StartTime > datetime(2026, 1, 1),
        ExecutionStatus == "Asleep",
        attribute("unknown") == 1,
    ],
)
def test_what_does_not_fit_the_field_is_refused_by_the_parser(condition: Condition) -> None:
    with pytest.raises(FilterSyntaxError):
        parse_filter(str(condition), TYPES, lambda: NOON)


KEY = SearchAttribute("customer", str)
OTHERS: dict[str, SearchAttribute[Any]] = {
    "total": SearchAttribute("total", int),
    "due": SearchAttribute("due", datetime),
    "tags": SearchAttribute("tags", list[str]),
    "in": SearchAttribute("in", str),
}


@pytest.mark.parametrize(
    ("condition", "text"),
    [
        (KEY == "ana", "customer = 'ana'"),
        (KEY != "ana", "customer != 'ana'"),
        (KEY.in_(["ana", "bo"]), "customer IN ('ana', 'bo')"),
        (KEY.starts_with("a") & (OTHERS["total"] >= 5), "customer STARTS_WITH 'a' AND total >= 5"),
        (OTHERS["due"] < now() - timedelta(hours=1), "due < now() - '3600000000us'"),
        (OTHERS["tags"] == "vip", "tags = 'vip'"),
        (~OTHERS["in"].is_null(), 'NOT ("in" IS NULL)'),
    ],
)
def test_a_key_that_is_compared_with_a_value_makes_a_condition(
    condition: Condition, text: str
) -> None:
    assert condition.text == text
    parse_filter(text, TYPES, lambda: NOON)


def test_a_key_is_equal_to_its_like_and_finds_itself_in_a_dict_beside_names() -> None:
    given: dict[object, int] = {KEY: 1, "customer": 2, SearchAttribute("customer", int): 3}
    assert given[SearchAttribute("customer", str)] == 1
    assert (SearchAttribute("customer", str) == KEY) is True
    assert (SearchAttribute("customer", str) != KEY) is False
    assert (SearchAttribute("customer", int) == KEY) is False
    assert hash(KEY) == hash(SearchAttribute("customer", str))


def test_a_key_is_unlike_whatever_no_filter_can_hold() -> None:
    assert (KEY == None, KEY != None) == (False, True)  # noqa: E711 - what is asked


def test_a_key_survives_copying_and_pickling() -> None:
    for made in (copy.copy(KEY), copy.deepcopy(KEY), pickle.loads(pickle.dumps(KEY))):
        assert made == KEY
        assert (made == "ana").text == "customer = 'ana'"


def test_a_key_orders_and_groups_by_its_name() -> None:
    assert (KEY.asc(), OTHERS["total"].desc()) == ("customer ASC", "total DESC")

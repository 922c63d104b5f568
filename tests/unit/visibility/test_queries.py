"""Lists, counts and pages over the read model."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, cast

import pytest

from aion_es import SearchAttribute
from aion_es.aggregates.attributes import AttributeSchema
from aion_es.errors import (
    FilterSyntaxError,
    InvalidArgumentError,
    ProjectionLagError,
    RunNotFoundError,
    WorkflowNotFoundError,
)
from aion_es.events import workflow as ev
from aion_es.ids import RunId, StreamName
from aion_es.projections import ProjectionRunner, ReadModel, VisibilityProjection, set_stuck
from aion_es.store.memory import MemoryEventStore
from aion_es.store.port import NO_STREAM, Position
from aion_es.visibility import (
    FailureType,
    Visibility,
    WorkflowType,
    attribute,
    name_sets,
    pages,
    query,
    walks,
)
from aion_es.visibility.filter import Comparison, parse_filter
from aion_es.visibility.pages import page_query
from tests.unit.projections.histories import NOON, History, new_event, started
from tests.unit.visibility.sample import attribute as attribute_value
from tests.unit.visibility.sample import sample


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


EVIL = "x' OR 1=1; DROP TABLE visibility; --"


@pytest.mark.parametrize(
    "text",
    [
        *(
            f"{name} {operator}"
            for name in ("WorkflowId", "WorkflowType", "RunId", "customer", "tags", "FailureType")
            for operator in ("= {}", "IN ('zz', {})", "STARTS_WITH {}", "!= {} AND RunId = 'no'")
        ),
        "customer BETWEEN {} AND {}",
        "customer IS NOT NULL AND NOT customer NOT IN ({}) ORDER BY customer",
    ],
)
async def test_an_injection_in_a_literal_is_a_value_like_any_other(
    visibility: Visibility, text: str
) -> None:
    injected = text.replace("{}", "'" + EVIL.replace("'", "''") + "'")
    assert (await visibility.page(injected)).rows == ()
    assert await visibility.count(injected) == 0
    assert await visibility.count() == 4


@pytest.mark.parametrize("operator", ["= 'x'", "IN ('x')", "IS NULL", "BETWEEN 'a' AND 'b'"])
@pytest.mark.parametrize(
    "name", [f'"{EVIL}"', '"visibility.run_key"', '"customer""x"', "run_key", "name"]
)
async def test_an_injection_in_a_name_is_a_field_that_is_not_there(
    visibility: Visibility, name: str, operator: str
) -> None:
    for injected in (f"{name} {operator}", f"WorkflowId = 'a' ORDER BY {name}"):
        with pytest.raises(FilterSyntaxError, match="no field or search attribute"):
            await visibility.page(injected)
    with pytest.raises(InvalidArgumentError, match="no field or search attribute"):
        await visibility.count("", group_by=name)
    assert await visibility.count() == 4


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


async def test_counts_are_grouped_by_any_attribute_of_text(visibility: Visibility) -> None:
    by_customer = await visibility.count("", group_by="customer")
    assert list(by_customer.items()) == [("ana", 1), ("anna", 1), ("bob", 1)]
    assert await visibility.count("", group_by=attribute("tags")) == {"new": 1, "old": 1, "vip": 1}
    closed = "CloseTime IS NOT NULL AND total > 5"
    assert await visibility.count(closed, group_by="tags") == {"new": 1, "vip": 1}
    assert await visibility.count("", group_by=FailureType) == {"Boom": 1}


@pytest.mark.parametrize(
    ("by", "reason"), [("total", "needs text, total is int"), ("custmer", "mean customer")]
)
async def test_what_has_no_groups_is_refused(visibility: Visibility, by: str, reason: str) -> None:
    with pytest.raises(InvalidArgumentError, match=reason):
        await visibility.count("", group_by=by)


@pytest.mark.parametrize(
    ("short", "long"), [("status", "ExecutionStatus"), ("type", "WorkflowType")]
)
async def test_a_short_name_that_an_attribute_has_too_is_refused_and_both_have_a_name_left(
    model: ReadModel, visibility: Visibility, short: str, long: str
) -> None:
    key = SearchAttribute(short, str)
    rows = sample()
    rows.add("x", started("rx", attributes={short: attribute_value("String", "mine")}))
    await model.write(lambda c: VisibilityProjection().apply(c, rows.events[-1:]))
    with pytest.raises(InvalidArgumentError, match=f"{short}' is short for {long}, and") as refused:
        await visibility.count("", group_by=short)
    assert refused.value.argument == "group_by"
    assert await visibility.count("WorkflowId = 'x'", group_by=key) == {"mine": 1}
    assert sum((await visibility.count("", group_by=long)).values()) == 5


async def test_more_groups_than_a_person_reads_are_refused(
    visibility: Visibility, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query, "MAX_GROUPS", 2)
    with pytest.raises(InvalidArgumentError, match="customer has more than 2 values"):
        await visibility.count("", group_by="customer")


async def test_the_order_may_be_given_beside_the_filter(visibility: Visibility) -> None:
    page = await visibility.page("customer IS NOT NULL", order_by=attribute("customer").desc())
    assert [run.workflow_id for run in page.rows] == ["b", "d", "a"]


@pytest.mark.parametrize("order", [attribute("customer"), SearchAttribute("customer", str)])
async def test_a_field_or_a_key_is_an_order_smallest_first(
    visibility: Visibility, order: Any
) -> None:
    found = visibility.list("customer IS NOT NULL", order_by=order)
    assert [run.workflow_id async for run in found] == ["a", "d", "b"]


WRONG: list[tuple[str, Callable[[Visibility], Awaitable[object]]]] = [
    ("page_size", lambda v: v.page(page_size=cast("Any", "5"))),
    ("page_size", lambda v: v.page(page_size=cast("Any", 1.5))),
    ("order_by", lambda v: v.page(order_by=cast("Any", 5))),
    ("timeout", lambda v: v.page(timeout=cast("Any", 5))),
    ("at_least", lambda v: v.page(at_least=cast("Any", 5))),
    ("group_by", lambda v: v.count("", group_by=cast("Any", 5))),
    ("group_by", lambda v: v.count("", group_by=cast("Any", ["status"]))),
    ("timeout", lambda v: v.count("", timeout=cast("Any", 5))),
    ("interval", lambda v: anext(v.watch(interval=cast("Any", 5)))),
    ("timeout", lambda v: anext(v.watch(timeout=cast("Any", 5)))),
    ("workflow_id", lambda v: v.get(cast("Any", 5))),
    ("run_id", lambda v: v.get("a", cast("Any", 5))),
    ("workflow_id", lambda v: v.run_chain(cast("Any", None))),
]


@pytest.mark.parametrize(("argument", "call"), WRONG, ids=[argument for argument, _ in WRONG])
async def test_an_argument_of_another_type_is_refused_by_its_name(
    visibility: Visibility, argument: str, call: Callable[[Visibility], Awaitable[object]]
) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        await call(visibility)
    assert refused.value.argument == argument


@pytest.mark.parametrize("id", ["w\ud800", "w\0"])
async def test_what_no_database_can_hold_is_the_id_of_nothing(
    visibility: Visibility, id: str
) -> None:
    for call in (visibility.get, visibility.run_chain):
        with pytest.raises(WorkflowNotFoundError):
            await call(id)
        with pytest.raises(RunNotFoundError):
            await call("a", id)


async def test_a_condition_of_python_is_a_filter(visibility: Visibility) -> None:
    condition = (attribute("customer").in_(["ana", "bob"])) & ~(WorkflowType == "ship")
    assert [run.workflow_id async for run in visibility.list(condition)] == ["b", "a"]
    assert await visibility.count(condition) == 2


async def test_what_is_no_filter_is_refused_such_as_a_key_that_was_compared_with_another(
    visibility: Visibility,
) -> None:
    key: Any = SearchAttribute("customer", str)
    with pytest.raises(InvalidArgumentError, match="not False"):
        await visibility.page(key == SearchAttribute("total", int))


async def test_a_list_goes_on_where_a_page_ended(visibility: Visibility) -> None:
    token = (await visibility.page(page_size=2)).next_page_token
    assert [run.workflow_id async for run in visibility.list(page_token=token)] == ["b", "a"]


@pytest.mark.parametrize(
    "filter",
    [
        "customer IN ('ana', 'bob', 'ana')",
        "tags IN ('vip', 'new', 'old')",
        "ExecutionStatus IN ('Running', 'Failed')",
        "customer = 'ana' OR WorkflowId = 'b'",
        "total > 1",
        "total > 1 ORDER BY total",
        "customer = 'ana' ORDER BY total DESC",
        "WorkflowId = 'c' ORDER BY total",
        "WorkflowType = 'checkout' ORDER BY CloseTime",
        "customer = 'ana' AND StartTime > '2026-11-24T11:00:00Z'",
    ],
)
async def test_every_way_to_a_page_gives_the_same_rows(
    visibility: Visibility, filter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_few_matches = await ids(visibility, filter, page_size=1)
    monkeypatch.setattr(pages, "NARROW", -1)
    monkeypatch.setattr(pages, "WIDE", -1)
    by_the_order = await ids(visibility, filter, page_size=1)
    monkeypatch.setattr(walks, "MERGED", 0)
    unmerged = await ids(visibility, filter, page_size=1)
    assert by_few_matches
    assert by_few_matches == by_the_order == unmerged


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
    "filter",
    [
        "customer IS NULL AND NOT customer IS NULL",
        "NOT total IS NULL AND customer IS NULL",
        "ExecutionStatus != 'Running' AND ExecutionStatus = 'Running' ORDER BY CloseTime",
        "CloseTime IS NULL AND CloseTime IS NOT NULL ORDER BY CloseTime",
    ],
)
async def test_a_filter_that_nothing_can_satisfy_gives_an_empty_page(
    visibility: Visibility, filter: str
) -> None:
    assert (await visibility.page(filter)).rows == ()
    assert await visibility.count(filter.partition(" ORDER")[0]) == 0


@pytest.mark.parametrize(
    ("filter", "followed"),
    [
        ("WorkflowType = 'checkout' AND customer = 'ana'", "customer"),
        ("ExecutionStatus IN ('Running', 'Failed') AND WorkflowType = 'ship'", "WorkflowType"),
    ],
)
async def test_of_several_indexes_the_one_with_fewer_runs_hereabouts_is_followed(
    model: ReadModel, filter: str, followed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walks, "_SAMPLE", 1)
    asked = parse_filter(filter, {"customer": "String"}, lambda: NOON)
    walk = await model.read(lambda c: walks.find_walk(asked, None, None, c))
    assert walk is not None
    (met,) = walk.met
    assert isinstance(met, Comparison)
    assert met.field.name == followed


async def test_a_filter_may_have_more_indexes_to_choose_from_than_a_query_has_columns(
    visibility: Visibility,
) -> None:
    part = f"total IN ({', '.join(map(str, range(32)))})"  # as many values as are walked along
    expected = await ids(visibility, part)
    assert expected
    assert await ids(visibility, " AND ".join([part] * 60)) == expected


async def test_the_names_of_attributes_are_matched_whole_and_in_their_case(
    model: ReadModel, visibility: Visibility
) -> None:
    rows = sample()
    already = len(rows.events)
    rows.add("x", started("rx", attributes={"Total": attribute_value("Int", 1)}))
    rows.add("y", started("ry", attributes={"subtotal": attribute_value("Int", 1)}))
    await model.write(lambda c: VisibilityProjection().apply(c, rows.events[already:]))
    for name in ("Total", "subtotal"):
        await visibility.attributes.register(SearchAttribute(name, int))
    assert await ids(visibility, "NOT Total IS NULL") == "x"
    assert await ids(visibility, "NOT subtotal IS NULL") == "y"
    assert await visibility.count("total IS NULL AND (WorkflowId = 'x' OR WorkflowId = 'y')") == 2


async def test_a_run_may_have_more_names_of_attributes_than_an_index_of_postgresql_holds(
    model: ReadModel, visibility: Visibility
) -> None:
    # As long as a name may be, and such that no compression makes them shorter.
    names = [f"a{hashlib.sha256(bytes([n])).hexdigest()[1:]}" for n in range(100)]
    rows = sample()
    already = len(rows.events)
    most = {name: attribute_value("Int", 1) for name in names[1:]}
    rows.add("x", started("rx", attributes={names[0]: attribute_value("Int", 1), **most}))
    rows.add("y", started("ry", attributes=most))
    await model.write(lambda c: VisibilityProjection().apply(c, rows.events[already:]))
    for name in names:
        await visibility.attributes.register(SearchAttribute(name, int))
    assert await ids(visibility, f"{names[0]} IS NOT NULL") == "x"
    assert await ids(visibility, f"{names[0]} IS NULL AND {names[1]} IS NOT NULL") == "y"
    assert await ids(visibility, f"{names[1]} IS NULL") == "dcba"
    assert await visibility.count(f"{names[1]} IS NULL") == 4


async def test_runs_with_too_many_sets_of_attributes_are_looked_through_one_by_one(
    visibility: Visibility, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = [await ids(visibility, f"{field} IS NULL") for field in ("customer", "total", "tags")]
    monkeypatch.setattr(name_sets, "MAX_SETS", 1)
    assert known == [
        await ids(visibility, f"{field} IS NULL") for field in ("customer", "total", "tags")
    ]
    assert known == ["c", "dc", "db"]
    assert await visibility.count("customer IS NULL") == 1

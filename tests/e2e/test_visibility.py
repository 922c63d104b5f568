"""What an engine's runs look like from the query side: filters in both forms, groups, watching, attributes."""

import asyncio
from datetime import timedelta

import pytest

from aion_es import Context, SearchAttribute, Signal, workflow
from aion_es.errors import ConflictingAttributeTypeError, FilterSyntaxError
from aion_es.visibility import ExecutionStatus, StartTime, WorkflowType, attribute, now
from tests.e2e.conftest import EngineOpener

SOON = timedelta(seconds=10)
customer = SearchAttribute("customer", str)
total = SearchAttribute("total", int)
tags = SearchAttribute("tags", list[str])
go = Signal("go")


@workflow
async def order(ctx: Context, fails: bool) -> str:
    await ctx.receive(go)
    if fails:
        raise ValueError("refused")
    return "shipped"


async def test_a_filter_gives_the_same_runs_as_text_and_as_an_expression(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([order]) as engine:
        last = None
        for number, name in enumerate(["ana", "bo", "ana", "cy"]):
            attributes = customer.to(name) | total.to(number * 100) | tags.to(["vip", name])
            last = await engine.start(order, False, id=f"o{number}", attributes=attributes)
        assert last is not None
        built = (
            (WorkflowType == "order")
            & attribute(customer).in_(["ana", "cy"])
            & (attribute(total) >= 200)
            & (attribute(tags) == "vip")
            & ~(ExecutionStatus == "Failed")
            & (StartTime > now() - timedelta(hours=1))
        )
        text = (
            "WorkflowType = 'order' AND customer IN ('ana', 'cy') AND total >= 200 AND tags = 'vip'"
            " AND NOT ExecutionStatus = 'Failed' AND StartTime > now() - '1h' ORDER BY WorkflowId ASC"
        )
        at_least = last.last_position
        asked = [
            sorted([r.workflow_id async for r in engine.visibility.list(each, at_least=at_least)])
            for each in (built, text)
        ]
        assert asked == [["o2", "o3"], ["o2", "o3"]]
        assert await engine.visibility.count(group_by="customer") == {"ana": 2, "bo": 1, "cy": 1}


async def test_a_watcher_sees_runs_come_change_and_go(open_engine: EngineOpener) -> None:
    async with open_engine([order]) as engine:
        handle = await engine.start(order, False, id="o1")
        seen: list[tuple[str, str]] = []
        async with asyncio.timeout(SOON.total_seconds()):
            async for change in engine.visibility.watch(
                "ExecutionStatus = 'Running'",
                interval=timedelta(milliseconds=20),
                at_least=handle.last_position,
            ):
                seen.append((change.kind, change.run.workflow_id))
                if change.kind == "leave":
                    break
                await handle.signal(go)
        assert seen[0] == ("enter", "o1")
        assert seen[-1] == ("leave", "o1")
        assert {kind for kind, _ in seen[1:-1]} <= {"update"}


async def test_an_attribute_is_registered_on_a_live_engine_and_keeps_its_type(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([order]) as engine:
        with pytest.raises(FilterSyntaxError, match="customer"):
            await engine.visibility.count("customer = 'ana'")
        await engine.visibility.attributes.register(customer)
        assert await engine.visibility.count("customer = 'ana'") == 0
        with pytest.raises(ConflictingAttributeTypeError):
            await engine.visibility.attributes.register(SearchAttribute("customer", int))
    async with open_engine([order]) as engine:
        assert (await engine.visibility.attributes.all())["customer"] == "String"


async def test_a_failed_run_shows_what_failed(open_engine: EngineOpener) -> None:
    async with open_engine([order]) as engine:
        handle = await engine.start(order, True, id="o1")
        await handle.signal(go)
        with pytest.raises(Exception, match="refused"):
            await handle.result(timeout=SOON)
        await engine.projections.wait_until_caught_up()
        row = await engine.visibility.get("o1")
        assert (row.status.value, row.failure_type, row.failure_reason) == (
            "Failed",
            "ValueError",
            "refused",
        )

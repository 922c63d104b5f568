"""Watching a filter: what enters, changes and leaves."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import timedelta

import pytest

from aion_es import SearchAttribute
from aion_es.aggregates.attributes import AttributeSchema
from aion_es.errors import FilterSyntaxError, InvalidArgumentError
from aion_es.events import workflow as ev
from aion_es.ids import DEFAULT_NAMESPACE, SignalId, WorkflowId, workflow_stream
from aion_es.projections import ReadModel, VisibilityProjection, set_stuck
from aion_es.store.memory import MemoryEventStore
from aion_es.store.port import ANY, Position
from aion_es.visibility import ExecutionStatus, Visibility, VisibilityChange, watching
from tests.unit.projections.histories import History, new_event, started
from tests.unit.projections.logs import PATIENCE, runner_of, running
from tests.unit.visibility.sample import sample

OFTEN = timedelta(milliseconds=1)


async def taken(changes: AsyncIterator[VisibilityChange], number: int) -> list[tuple[str, str]]:
    """Return the kinds and workflow ids of the next changes."""
    found = [await anext(changes) for _ in range(number)]
    return [(change.kind, change.run.workflow_id) for change in found]


async def write(model: ReadModel, history: History, *, behind: int) -> None:
    """Write what was added to the history behind its first `behind` events."""
    new = history.events[behind:]
    await model.write(lambda c: VisibilityProjection().apply(c, new))


async def test_runs_enter_change_and_leave(model: ReadModel, visibility: Visibility) -> None:
    history = sample()
    begin = len(history.events)
    async with aclosing(visibility.watch(ExecutionStatus == "Running", interval=OFTEN)) as changes:
        assert await taken(changes, 2) == [("enter", "c"), ("enter", "d")]
        history.add("c", ev.SignalReceived(signal_id=SignalId("s"), name="n"))
        await write(model, history, behind=begin)
        assert await taken(changes, 1) == [("update", "c")]
        await set_stuck(model, "d", "rd", "no such version")
        stuck = await anext(changes)
        assert (stuck.kind, stuck.run.stuck_reason) == ("update", "no such version")
        history.add("c", ev.WorkflowCompleted()).add("e", started("re"))
        await write(model, history, behind=begin + 1)
        assert await taken(changes, 2) == [("leave", "c"), ("enter", "e")]


async def test_a_run_that_left_is_shown_as_it_is_now(
    model: ReadModel, visibility: Visibility
) -> None:
    history = sample()
    async with aclosing(
        visibility.watch("ExecutionStatus = 'Running' AND WorkflowId = 'c'", interval=OFTEN)
    ) as changes:
        await anext(changes)
        history.add("c", ev.WorkflowTerminated(reason="enough"))
        await write(model, history, behind=len(history.events) - 1)
        left = await anext(changes)
    assert (left.kind, left.run.status, left.run.failure_reason) == (
        "leave",
        "Terminated",
        "enough",
    )


@pytest.mark.parametrize("filter", ["", "customer IS NULL"])
async def test_a_watch_goes_on_over_rows_that_are_made_anew_and_tells_nothing_of_it(
    read_model_url: str, filter: str
) -> None:
    store = MemoryEventStore()

    async def start(workflow_id: str) -> Position:
        stream = workflow_stream(DEFAULT_NAMESPACE, WorkflowId(workflow_id))
        return (await store.append(stream, [new_event(started(f"r{workflow_id}"))], ANY)).position

    await start("a")
    last = await start("b")
    async with await ReadModel.open(read_model_url) as model:
        runner = runner_of(store, model, VisibilityProjection())
        schema = AttributeSchema(SearchAttribute("customer", str))
        watch = Visibility(model, runner, schema).watch(filter, interval=OFTEN, at_least=last)
        async with running(runner), aclosing(watch) as changes:
            assert await taken(changes, 2) == [("enter", "a"), ("enter", "b")]
            following = asyncio.ensure_future(taken(changes, 1))
            for _ in range(3):
                await runner.rebuild("visibility")
                await runner.wait_until_rebuilt("visibility", timeout=PATIENCE)
            await start("c")
            assert await following == [("enter", "c")]


async def test_a_filter_that_matches_too_many_runs_is_not_watched(
    visibility: Visibility, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "MAX_WATCHED", 3)
    async with aclosing(visibility.watch()) as changes:
        with pytest.raises(InvalidArgumentError, match="more than 3 runs"):
            await anext(changes)


async def test_a_filter_that_cannot_be_understood_is_refused_at_the_first_look(
    visibility: Visibility,
) -> None:
    async with aclosing(visibility.watch("custmer = 'x'")) as changes:
        with pytest.raises(FilterSyntaxError):
            await anext(changes)

"""Reopening where children are what failed: the child first, then the parent, which waits for it again."""

import asyncio
from typing import Any

import pytest

from aion_es import (
    ChildWorkflowError,
    Context,
    Engine,
    RetryPolicy,
    Signal,
    WorkflowHandle,
    activity,
    workflow,
)
from aion_es.errors import WorkflowFailedError, WorkflowNotFoundError, WorkflowOutcomeError
from aion_es.events.workflow import WorkflowFailed, WorkflowReopened, WorkflowStarted
from aion_es.ids import WorkflowId
from tests.e2e.conftest import EngineOpener
from tests.e2e.scenario import SOON, events_of, is_recorded, replayed, until

go = Signal("go")
CHILD = WorkflowId("child")


class Outside:
    """The world: what does not work there, and what was done."""

    def __init__(self) -> None:
        self.broken: set[str] = set()
        self.done: list[str] = []


outside = Outside()


@pytest.fixture(autouse=True)
def _fresh_outside() -> None:
    outside.__init__()  # type: ignore[misc]  # the activities hold on to it


@activity(retry=RetryPolicy(max_attempts=1))
async def do(what: str) -> str:
    if what in outside.broken:
        raise ConnectionError(what)
    outside.done.append(what)
    return what


@workflow
async def child(ctx: Context) -> str:
    return await ctx.run(do, "work of the child")


@workflow
async def parent(ctx: Context) -> str:
    await ctx.run(do, "before")
    result = await ctx.spawn(child, id=CHILD)
    return f"{result}, {await ctx.run(do, 'after')}"


@workflow
async def grandparent(ctx: Context) -> str:
    return await ctx.spawn(parent, id="parent")


@workflow
async def compensates(ctx: Context) -> str:
    try:
        return await ctx.spawn(child, id=CHILD)
    except ChildWorkflowError:
        await ctx.run(do, "undo")
        raise


@workflow
async def deals_with_it(ctx: Context) -> str:
    (outcome,) = await asyncio.gather(ctx.spawn(child, id=CHILD), return_exceptions=True)
    return f"{await ctx.run(do, 'something else')} than {type(outcome).__name__}"


@workflow
async def waits(ctx: Context) -> str:
    await ctx.receive(go)
    return "went"


@workflow
async def needs_the_id(ctx: Context) -> str:
    return await ctx.spawn(waits, id=CHILD)


@workflow
async def prepares(ctx: Context) -> str:
    await ctx.run(do, "prepare")
    await ctx.receive(go)
    return "went"


@workflow
async def waits_for_preparations(ctx: Context) -> str:
    return await ctx.spawn(prepares, id=CHILD)


WORKFLOWS: list[Any] = [
    prepares,
    waits_for_preparations,
    child,
    parent,
    grandparent,
    compensates,
    deals_with_it,
    waits,
    needs_the_id,
]
ACTIVITIES: list[Any] = [do]


async def ended(handle: WorkflowHandle[Any]) -> None:
    with pytest.raises(WorkflowOutcomeError):
        await handle.result(timeout=SOON)


async def replays(handle: WorkflowHandle[Any], code: Any) -> None:
    replayed(await handle.history(), code)


async def began(engine: Engine) -> bool:
    """Return whether the newest run under the child's id is a child's."""
    try:
        history = await engine.handle(CHILD).history()
    except WorkflowNotFoundError:
        return False
    return isinstance(history[0].event, WorkflowStarted) and history[0].event.parent is not None


async def test_a_parent_names_the_child_whose_failure_it_failed_of(
    open_engine: EngineOpener,
) -> None:
    outside.broken.add("work of the child")
    async with open_engine(WORKFLOWS, ACTIVITIES) as engine:
        handle = await engine.start(parent, id="parent")
        await ended(handle)
        (failed,) = await events_of(handle, WorkflowFailed)
        assert (failed.failed_activities, failed.failed_children) == ((), (CHILD,))


async def test_a_reopened_child_brings_its_reopened_parent_past_its_failure(
    open_engine: EngineOpener,
) -> None:
    outside.broken.add("work of the child")
    async with open_engine(WORKFLOWS, ACTIVITIES) as engine:
        await ended(await engine.start(parent, id="parent"))
    outside.broken.clear()
    async with open_engine(WORKFLOWS, ACTIVITIES) as engine:
        await engine.handle(CHILD).reopen()
        handle = engine.handle("parent", parent)
        await handle.reopen()
        assert await handle.result(timeout=SOON) == "work of the child, after"
        assert outside.done == ["before", "work of the child", "after"]
        await replays(handle, parent)


async def test_a_child_that_was_reopened_and_has_completed_is_what_the_parent_gets(
    open_engine: EngineOpener,
) -> None:
    outside.broken.add("work of the child")
    async with open_engine(WORKFLOWS, ACTIVITIES) as engine:
        handle = await engine.start(parent, id="parent")
        await ended(handle)
        outside.broken.clear()
        again = engine.handle(CHILD, child)
        await again.reopen()
        assert await again.result(timeout=SOON) == "work of the child"
        await handle.reopen()
        assert await handle.result(timeout=SOON) == "work of the child, after"
        await replays(handle, parent)


async def test_a_reopened_parent_waits_again_in_the_next_engine_too(
    open_engine: EngineOpener,
) -> None:
    outside.broken.add("prepare")
    async with open_engine(WORKFLOWS, ACTIVITIES) as engine:
        handle = await engine.start(waits_for_preparations, id="parent")
        await ended(handle)
        outside.broken.clear()
        await engine.handle(CHILD).reopen()
        await handle.reopen()
        # The one attempt that it has must not be under way when the engine is left.
        await until(lambda: is_recorded(engine.handle(CHILD), "ActivityCompleted"))
    async with open_engine(WORKFLOWS, ACTIVITIES) as engine:
        handle = engine.handle("parent", waits_for_preparations)
        await engine.handle(CHILD).signal(go)
        assert await handle.result(timeout=SOON) == "went"
        await replays(handle, waits_for_preparations)


async def test_a_parent_whose_child_stays_failed_is_told_so_again_and_can_be_reopened_again(
    open_engine: EngineOpener,
) -> None:
    outside.broken.add("work of the child")
    async with open_engine(WORKFLOWS, ACTIVITIES) as engine:
        handle = await engine.start(parent, id="parent")
        await ended(handle)
        for _ in range(2):
            await handle.reopen()
            with pytest.raises(WorkflowFailedError) as caught:
                await handle.result(timeout=SOON)
            assert caught.value.type == "ChildWorkflowError"
        outside.broken.clear()
        await engine.handle(CHILD).reopen()
        await handle.reopen()
        assert await handle.result(timeout=SOON) == "work of the child, after"
        assert outside.done == ["before", "work of the child", "after"]
        await replays(handle, parent)


async def test_three_generations_are_reopened_from_the_youngest_on(
    open_engine: EngineOpener,
) -> None:
    outside.broken.add("work of the child")
    async with open_engine(WORKFLOWS, ACTIVITIES) as engine:
        oldest = await engine.start(grandparent, id="grandparent")
        await ended(oldest)
        outside.broken.clear()
        for generation in (CHILD, "parent", "grandparent"):
            await engine.handle(generation).reopen()
        assert await oldest.result(timeout=SOON) == "work of the child, after"
        await replays(oldest, grandparent)


async def test_what_the_code_did_because_a_child_failed_is_void(open_engine: EngineOpener) -> None:
    outside.broken.add("work of the child")
    async with open_engine(WORKFLOWS, ACTIVITIES) as engine:
        handle = await engine.start(compensates)
        await ended(handle)
        outside.broken.clear()
        await engine.handle(CHILD).reopen()
        await handle.reopen()
        assert await handle.result(timeout=SOON) == "work of the child"
        assert outside.done == ["undo", "work of the child"]
        await replays(handle, compensates)


async def test_a_child_s_failure_that_the_code_dealt_with_stays_dealt_with(
    open_engine: EngineOpener,
) -> None:
    outside.broken.update({"work of the child", "something else"})
    async with open_engine(WORKFLOWS, ACTIVITIES) as engine:
        handle = await engine.start(deals_with_it)
        await ended(handle)
        outside.broken.clear()
        await engine.handle(CHILD).reopen()
        await handle.reopen()
        assert await handle.result(timeout=SOON) == "something else than ChildWorkflowError"
        (reopened,) = await events_of(handle, WorkflowReopened)
        assert reopened.taken_back is not None
        assert reopened.taken_back.awaited == ()
        await replays(handle, deals_with_it)


async def test_a_child_that_somebody_cancelled_and_reopened_is_waited_for_again(
    open_engine: EngineOpener,
) -> None:
    async with open_engine(WORKFLOWS) as engine:
        handle = await engine.start(needs_the_id)
        await until(lambda: is_recorded(handle, "ChildWorkflowStarted"))
        await until(lambda: began(engine))
        await engine.handle(CHILD).cancel("by an operator")
        await ended(handle)
        await engine.handle(CHILD).reopen()
        await handle.reopen()
        await engine.handle(CHILD).signal(go)
        assert await handle.result(timeout=SOON) == "went"
        await replays(handle, needs_the_id)


@pytest.mark.parametrize("restarts", [False, True], ids=["live", "restarted"])
async def test_a_child_that_could_not_be_begun_is_begun_once_its_id_is_free(
    open_engine: EngineOpener, *, restarts: bool
) -> None:
    async with open_engine(WORKFLOWS) as engine:
        other = await engine.start(waits, id=CHILD)
        handle = await engine.start(needs_the_id, id="parent")
        await ended(handle)
        await other.signal(go)
        assert await other.result(timeout=SOON) == "went"
        await handle.reopen()
        if not restarts:
            await until(lambda: began(engine))
            await engine.handle(CHILD).signal(go)
            assert await handle.result(timeout=SOON) == "went"
    async with open_engine(WORKFLOWS) as engine:
        handle = engine.handle("parent", needs_the_id)
        if restarts:
            await until(lambda: began(engine))
            await engine.handle(CHILD).signal(go)
        assert await handle.result(timeout=SOON) == "went"
        await replays(handle, needs_the_id)


async def test_a_child_whose_id_stays_taken_is_refused_again(open_engine: EngineOpener) -> None:
    async with open_engine(WORKFLOWS) as engine:
        await engine.start(waits, id=CHILD)
        handle = await engine.start(needs_the_id)
        await ended(handle)
        await handle.reopen()
        with pytest.raises(WorkflowFailedError, match="child"):
            await handle.result(timeout=SOON)
        assert len(await events_of(handle, WorkflowReopened)) == 1
        await replays(handle, needs_the_id)

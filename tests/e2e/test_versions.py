"""Code changes under running workflows: labels side by side, versions that are missing, strict replay, patches."""

import asyncio
from typing import Any

import pytest

from aion_es import Context, Query, Signal, activity, workflow
from aion_es.app import Engine
from aion_es.errors import QueryFailedError, VersionNotLoadedError
from tests.e2e.conftest import EngineOpener
from tests.e2e.scenario import SOON, kinds, stored, until

go = Signal("go")
where = Query("where", str)


@activity
async def first() -> str:
    return "first"


@activity
async def second() -> str:
    return "second"


@workflow(name="job", version="1")
async def job_1(ctx: Context) -> str:
    ctx.answer(where, lambda: "one")
    await ctx.run(first)
    await ctx.receive(go)
    return "one"


@workflow(name="job", version="2")
async def job_2(ctx: Context) -> str:
    ctx.answer(where, lambda: "two")
    await ctx.receive(go)
    return "two"


def job(*steps: Any, name: str = "edited") -> Any:
    """Return a workflow of one label that runs `steps`; a signal is waited for where one says `go`."""

    @workflow(name=name)
    async def edited(ctx: Context) -> str:
        done = [await (ctx.receive(go) if step is go else ctx.run(step)) for step in steps]
        return " ".join(name or "go" for name in done)

    return edited


async def reached_signal(handle: Any) -> None:
    async def waits() -> bool:
        recorded = await kinds(handle)
        return recorded[-1] == "ActivityCompleted"

    await until(waits)


async def test_new_runs_take_the_version_that_was_registered_last(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([job_1, job_2]) as engine:
        handle = await engine.start("job")
        assert (await handle.describe()).version == "2"
        await handle.signal(go)
        assert await handle.result(timeout=SOON) == "two"


async def test_new_runs_take_the_version_that_is_routed(open_engine: EngineOpener) -> None:
    async with open_engine([job_1, job_2], [first]) as engine:
        await engine.catalog.route("job", "1")
        handle = await engine.start(job_2)
        assert (await handle.describe()).version == "1"
        await handle.signal(go)
        assert await handle.result(timeout=SOON) == "one"


async def test_two_versions_of_a_type_run_side_by_side_each_run_with_its_own(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([job_1], [first]) as engine:
        old = await engine.start(job_1, id="old")
        await reached_signal(old)
    async with open_engine([job_1, job_2], [first]) as engine:
        await engine.start(job_2, id="new")
        handles = {name: engine.handle(name) for name in ("old", "new")}
        assert {n: await h.query(where) for n, h in handles.items()} == {
            "old": "one",
            "new": "two",
        }
        for handle in handles.values():
            await handle.signal(go)
        results = {n: await h.result(timeout=SOON) for n, h in handles.items()}
        assert results == {"old": "one", "new": "two"}


async def test_a_version_that_is_not_loaded_is_reported_when_the_engine_opens(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([job_1], [first]) as engine:
        for index in range(3):
            await engine.start(job_1, id=f"old-{index}")
    async with open_engine([job_2], [first]) as engine:
        await engine.wait_recovered(SOON)
        (orphan,) = engine.orphaned
        assert isinstance(orphan, VersionNotLoadedError)
        assert (orphan.workflow_type, orphan.version, orphan.runs, orphan.loaded) == (
            "job",
            "1",
            3,
            ("2",),
        )
        assert "register it with @workflow(version='1')" in str(orphan)


async def _reason_in_visibility(engine: Engine, workflow_id: str) -> str | None:
    rows = [row async for row in engine.visibility.list(f"WorkflowId = '{workflow_id}'")]
    return rows[0].stuck_reason if rows else "the read model does not know it yet"


async def test_a_closed_run_whose_version_is_missing_is_not_called_stuck(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([job_1], [first]) as engine:
        old = await engine.start(job_1, id="old")
        await reached_signal(old)
        await old.terminate()
    async with open_engine([job_2], [first]) as engine:
        with pytest.raises(QueryFailedError) as caught:
            await engine.handle("old").query(where)
        assert caught.value.reason == (
            "its code is version '1' of 'job', which is not loaded (loaded: 2); "
            "register it with @workflow(version='1')"
        )
        assert isinstance(caught.value.__cause__, VersionNotLoadedError)


async def test_a_run_whose_version_is_missing_is_stuck_with_its_reason_and_goes_on_when_it_is_there(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([job_1], [first]) as engine:
        old = await engine.start(job_1, id="old")
        await reached_signal(old)
    async with open_engine([job_2], [first]) as engine:
        handle = engine.handle("old")
        await handle.signal(go)  # facts are recorded all the same
        description = await handle.describe()
        assert description.status == "Running"
        assert description.stuck_reason is not None
        assert "need version '1', which is not loaded" in description.stuck_reason
        with pytest.raises(QueryFailedError) as caught:
            await handle.query(where)
        assert str(caught.value) == (
            "query 'where' failed: the run is stuck: its code is version '1' of 'job', which is not loaded "
            "(loaded: 2); register it with @workflow(version='1')"
        )

        async def noted() -> bool:
            return await _reason_in_visibility(engine, "old") == description.stuck_reason

        await until(noted)
        healthy = await engine.start(job_2, id="new")
        await healthy.signal(go)
        assert await healthy.result(timeout=SOON) == "two"
    async with open_engine([job_1, job_2], [first]) as engine:
        assert await engine.handle("old").result(timeout=SOON) == "one"
        assert engine.orphaned == ()

        async def unstuck() -> bool:
            return await _reason_in_visibility(engine, "old") is None

        await until(unstuck)


async def test_an_edit_under_the_same_label_that_fits_the_history_goes_on(
    open_engine: EngineOpener,
) -> None:
    before, after = job(first, go), job(first, go, second)
    async with open_engine([before], [first, second]) as engine:
        await reached_signal(await engine.start(before, id="w"))
    async with open_engine([after], [first, second]) as engine:
        handle = engine.handle("w")
        await handle.signal(go)
        assert await handle.result(timeout=SOON) == "first go second"


async def test_an_edit_that_does_not_fit_makes_the_run_stuck_and_shows_the_difference(
    open_engine: EngineOpener,
) -> None:
    before, after, sibling = job(first, go), job(second, go), job(first, go, name="sibling")
    async with open_engine([before, sibling], [first, second]) as engine:
        await reached_signal(await engine.start(before, id="w"))
        await reached_signal(await engine.start(sibling, id="s"))
    async with open_engine([after, sibling], [first, second]) as engine:
        handle, other = engine.handle("w"), engine.handle("s")
        await handle.signal(go)
        description = await handle.describe()
        reason = description.stuck_reason
        assert description.status == "Running"
        assert reason is not None
        assert "  - recorded:  activity 0 'first'\n  + commanded: activity 0 'second'" in reason
        assert "revision 1: the code and its history differ" in reason
        assert (await kinds(handle))[-1] == "SignalReceived"

        async def noted() -> bool:
            return await _reason_in_visibility(engine, "w") == reason

        await until(noted)
        await other.signal(go)
        assert await other.result(timeout=SOON) == "first go"
    async with open_engine([before, sibling], [first, second]) as engine:
        assert await engine.handle("w").result(timeout=SOON) == "first go"


async def test_stuck_runs_can_be_listed(open_engine: EngineOpener) -> None:
    before, after = job(first, go), job(second, go)
    async with open_engine([before], [first]) as engine:
        await reached_signal(await engine.start(before, id="w"))
    async with open_engine([after], [second]) as engine:
        handle = engine.handle("w")
        await handle.signal(go)

        async def listed() -> bool:
            rows = [row async for row in engine.visibility.list("WorkflowType = 'edited'")]
            return [(r.workflow_id, r.status, r.stuck_reason is None) for r in rows] == [
                ("w", "Running", False)
            ]

        await until(listed)


@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        ((go,), "  - recorded:  activity 0 'first'\n  + commanded: nothing: the code waits"),
        ((), "  - recorded:  activity 0 'first'\n  + commanded: complete the run"),
    ],
    ids=["a step is missing", "the code ends early"],
)
async def test_code_that_leaves_a_recorded_step_out_is_not_deterministic(
    open_engine: EngineOpener, changed: tuple[Any, ...], difference: str
) -> None:
    before, after = job(first, go), job(*changed)
    async with open_engine([before], [first]) as engine:
        await reached_signal(await engine.start(before, id="w"))
    async with open_engine([after], [first]) as engine:
        handle = engine.handle("w")
        await handle.signal(go)
        reason = (await handle.describe()).stuck_reason
        assert reason is not None
        assert difference in reason


async def test_a_stuck_run_records_nothing_but_facts_and_can_be_terminated(
    open_engine: EngineOpener,
) -> None:
    before, after = job(first, go), job(second, go)
    async with open_engine([before], [first]) as engine:
        await reached_signal(await engine.start(before, id="w"))
    async with open_engine([after], [second]) as engine:
        handle = engine.handle("w")
        await handle.signal(go)
        count = await stored(engine)
        await asyncio.sleep(0.02)
        assert await stored(engine) == count
        await handle.terminate("cannot go on")
        assert (await kinds(handle))[-2:] == ["SignalReceived", "WorkflowTerminated"]
        assert (await handle.describe()).stuck_reason is None


def patched(*, before: bool) -> Any:
    if before:
        return job(first, go, name="patchable")

    @workflow(name="patchable")
    async def patchable(ctx: Context) -> str:
        done = await ctx.run(second) if ctx.patched("second") else await ctx.run(first)
        await ctx.receive(go)
        return f"{done} go"

    return patchable


async def test_patched_lets_old_runs_keep_the_old_path_and_new_runs_take_the_new_one(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([patched(before=True)], [first, second]) as engine:
        await reached_signal(await engine.start("patchable", id="old"))
    after = patched(before=False)
    async with open_engine([after], [first, second]) as engine:
        await reached_signal(await engine.start(after, id="new"))
    async with open_engine([after], [first, second]) as engine:  # both are replayed
        for name in ("old", "new"):
            await engine.handle(name).signal(go)
        assert await engine.handle("old").result(timeout=SOON) == "first go"
        assert await engine.handle("new").result(timeout=SOON) == "second go"
        assert await kinds(engine.handle("old")) == [
            "WorkflowStarted",
            "ActivityScheduled",
            "ActivityStarted",
            "ActivityCompleted",
            "SignalReceived",
            "WorkflowCompleted",
        ]
        assert await kinds(engine.handle("new")) == [
            "WorkflowStarted",
            "MarkerRecorded",
            "ActivityScheduled",
            "ActivityStarted",
            "ActivityCompleted",
            "SignalReceived",
            "WorkflowCompleted",
        ]


async def test_a_side_effect_is_made_once_and_remembered(open_engine: EngineOpener) -> None:
    made: list[int] = []

    def make() -> int:
        made.append(1)
        return len(made) * 100

    @workflow
    async def remembers(ctx: Context) -> int:
        value = ctx.side_effect(make, int)
        await ctx.receive(go)
        return value

    async with open_engine([remembers]) as engine:
        await engine.start(remembers, id="w")
    async with open_engine([remembers]) as engine:
        handle = engine.handle("w", remembers)
        await handle.signal(go)
        assert await handle.result(timeout=SOON) == 100
        assert made == [1]

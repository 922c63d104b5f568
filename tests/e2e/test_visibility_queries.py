"""The query side through a running engine: every status, read your writes, watching, registering, batches."""

import asyncio
from contextlib import aclosing
from datetime import timedelta
from typing import Any

import pytest

from aion_es import Context, NonRetryableError, SearchAttribute, Signal, activity, workflow
from aion_es.app import Engine
from aion_es.batch import BatchProgress
from aion_es.errors import (
    ConflictingAttributeTypeError,
    FilterSyntaxError,
    InvalidArgumentError,
    InvalidPageTokenError,
    PayloadError,
    StoreClosedError,
    UnregisteredAttributeError,
    WorkflowCancelledError,
    WorkflowFailedError,
)
from aion_es.visibility import ExecutionStatus, WorkflowType, attribute
from tests.e2e.conftest import EngineOpener
from tests.e2e.scenario import SOON

customer = SearchAttribute("customer", str)
go = Signal("go", str)
NOT_SLOWER: Any = 1e6
"""A rate that holds nothing back."""


@activity
async def charge(cents: int) -> int:
    if cents < 0:
        raise NonRetryableError("no such sum")
    return cents


@workflow
async def waits(ctx: Context, name: str) -> str:
    return await ctx.receive(go)


@workflow
async def pays(ctx: Context, cents: int) -> int:
    return await ctx.run(charge, cents)


@workflow
async def turns_over(ctx: Context, left: int) -> str:
    if left:
        ctx.continue_as_new(left - 1)
    return "done"


async def started(engine: Engine, number: int) -> None:
    """Start workflows that wait, of two customers in turn, and return when the read model shows them."""
    for n in range(number):
        await engine.start(waits, "x", id=f"w{n}", attributes={customer: f"c{n % 2}"})
    end = await engine.store.end_position()
    assert await engine.visibility.count(at_least=end) == number


async def ids(engine: Engine, filter: Any = "", order_by: str = "WorkflowId") -> list[str]:
    """Return the workflow ids that a filter gives now."""
    end = await engine.store.end_position()
    runs = engine.visibility.list(filter, order_by=order_by, at_least=end)
    return [run.workflow_id async for run in runs]


# ------------------------------------------------------------------------------------ queries


async def test_every_way_to_end_is_found_by_its_status(open_engine: EngineOpener) -> None:
    async with open_engine([waits, pays, turns_over], [charge]) as engine:
        await (await engine.start(pays, 5, id="completed")).result(timeout=SOON)
        with pytest.raises(WorkflowFailedError):
            await (await engine.start(pays, -5, id="failed")).result(timeout=SOON)
        await (await engine.start(turns_over, 1, id="continued")).result(timeout=SOON)
        for name in ("cancelled", "terminated", "paused", "running"):
            await engine.start(waits, "x", id=name)
        await engine.handle("cancelled").cancel("no need")
        with pytest.raises(WorkflowCancelledError):
            await engine.handle("cancelled").result(timeout=SOON)
        await engine.handle("terminated").terminate("enough")
        await engine.handle("paused").pause("wait")
        end = await engine.store.end_position()
        assert await engine.visibility.count("", "status", at_least=end) == {
            "Cancelled": 1,
            "Completed": 2,
            "ContinuedAsNew": 1,
            "Failed": 1,
            "Paused": 1,
            "Running": 1,
            "Terminated": 1,
        }
        assert await ids(engine, "FailedStep = 'charge'") == ["failed"]
        assert await ids(engine, "FailureReason = 'enough'") == ["terminated"]
        chain = await engine.visibility.run_chain("continued")
        assert [run.status for run in chain] == ["ContinuedAsNew", "Completed"]


async def test_a_write_is_read_back_at_its_position(open_engine: EngineOpener) -> None:
    async with open_engine([waits]) as engine:
        handle = await engine.start(waits, "x", id="w", attributes={customer: "ana"})
        for name in ("bo", "cy"):
            await handle.set_attributes({customer: name})
            position = handle.last_position
            assert (
                await engine.visibility.count(attribute(customer) == name, at_least=position) == 1
            )


async def test_a_watched_filter_tells_what_enters_and_leaves(open_engine: EngineOpener) -> None:
    async with open_engine([waits]) as engine:
        await started(engine, 2)
        seen: list[tuple[str, str]] = []
        watched = engine.visibility.watch(
            ExecutionStatus == "Running", interval=timedelta(milliseconds=5)
        )
        async with asyncio.timeout(SOON.total_seconds()), aclosing(watched) as changes:
            async for change in changes:
                seen.append((change.kind, change.run.workflow_id))
                if len(seen) == 2:
                    await engine.handle("w0").terminate()
                    await engine.start(waits, "x", id="w9")
                if ("leave", "w0") in seen and ("enter", "w9") in seen:
                    break
        assert seen[:2] == [("enter", "w0"), ("enter", "w1")]


async def test_an_attribute_registered_in_one_engine_is_known_to_the_other_at_once(
    open_engine: EngineOpener,
) -> None:
    region = SearchAttribute("region", str)
    async with open_engine([waits]) as one, open_engine([waits]) as other:
        with pytest.raises(UnregisteredAttributeError):
            await other.start(waits, "x", id="early", attributes={"region": "eu"})
        await one.search_attributes.register(region)
        assert await other.visibility.count("region = 'eu'") == 0
        handle = await other.start(waits, "x", id="w", attributes={"region": "eu"})
        position = handle.last_position
        assert await other.visibility.count("region = 'eu'", at_least=position) == 1
        with pytest.raises(ConflictingAttributeTypeError):
            await other.start(
                waits, "x", id="wrong", attributes={SearchAttribute("region", int): 1}
            )
        with pytest.raises(ConflictingAttributeTypeError):
            await one.search_attributes.register(SearchAttribute("region", bool))
    async with open_engine([waits]) as later:
        assert await later.search_attributes.all() == {"region": "String"}


async def test_a_declared_attribute_that_contradicts_a_registered_one_opens_no_engine(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([waits], search_attributes=[customer]):
        pass
    with pytest.raises(ConflictingAttributeTypeError):
        async with open_engine([waits], search_attributes=[SearchAttribute("customer", int)]):
            pass


# ------------------------------------------------------------------------------------ batches


async def test_a_dry_run_counts_and_does_nothing(open_engine: EngineOpener) -> None:
    async with open_engine([waits]) as engine:
        await started(engine, 3)
        report = await engine.batch.terminate("customer = 'c0'", dry_run=True)
        assert (report.total, report.dry_run, report.outcomes) == (2, True, ())
        assert await ids(engine, "ExecutionStatus = 'Running'") == ["w0", "w1", "w2"]


async def test_a_batch_reaches_every_run_that_the_filter_asks_for_and_no_other(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([waits]) as engine:
        await started(engine, 25)
        await engine.handle("w4").terminate()
        told: list[BatchProgress] = []
        report = await engine.batch.terminate(
            (attribute(customer) == "c0") & (WorkflowType == "waits"),
            reason="sold out",
            rate=NOT_SLOWER,
            on_progress=told.append,
            at_least=await engine.store.end_position(),
        )
        assert (report.count("done"), report.count("skipped"), report.total) == (12, 1, 13)
        assert [one.outcome for one in told] == list(report.outcomes)
        assert [one.handled for one in told] == list(range(1, 14))
        assert await ids(engine, "ExecutionStatus = 'Running'") == sorted(
            f"w{n}" for n in range(1, 25, 2)
        )
        assert await engine.visibility.count("FailureReason = 'sold out'") == 12


async def test_a_batch_cancels_pauses_resumes_and_signals(open_engine: EngineOpener) -> None:
    async with open_engine([waits]) as engine:
        await started(engine, 4)
        end = await engine.store.end_position()
        await engine.batch.pause("customer = 'c0'", rate=NOT_SLOWER, at_least=end)
        assert await ids(engine, "ExecutionStatus = 'Paused'") == ["w0", "w2"]
        again = await engine.batch.pause("customer = 'c0'", rate=NOT_SLOWER)
        assert [outcome.status for outcome in again.outcomes] == ["skipped", "skipped"]
        await engine.batch.resume("ExecutionStatus = 'Paused'", rate=NOT_SLOWER)
        assert await ids(engine, "ExecutionStatus = 'Paused'") == []
        await engine.batch.signal("customer = 'c0'", go, "now", rate=NOT_SLOWER)
        for name in ("w0", "w2"):
            assert await engine.handle(name).result(timeout=SOON) == "now"
        await engine.batch.cancel("customer = 'c1'", rate=NOT_SLOWER)
        for name in ("w1", "w3"):
            with pytest.raises(WorkflowCancelledError):
                await engine.handle(name).result(timeout=SOON)


class _BrokenOffError(Exception):
    """What a batch's owner raises in the middle."""


async def test_a_batch_that_was_broken_off_goes_on_where_it_was_and_signals_nobody_twice(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([waits]) as engine:
        await started(engine, 25)
        end = await engine.store.end_position()
        told: list[BatchProgress] = []

        def break_off(progress: BatchProgress) -> None:
            told.append(progress)
            if progress.handled == 13:
                raise _BrokenOffError

        with pytest.raises(_BrokenOffError):
            await engine.batch.signal(
                "", go, "x", rate=NOT_SLOWER, on_progress=break_off, at_least=end
            )
        token = told[-1].resume_token
    async with open_engine([waits]) as engine:
        report = await engine.batch.signal("", go, "x", rate=NOT_SLOWER, resume_from=token)
        handled = [one.outcome.workflow_id for one in told]
        rest = [outcome.workflow_id for outcome in report.outcomes]
        assert sorted(handled + rest) == sorted(f"w{n}" for n in range(25))
        assert report.total == 25
        for name in handled + rest:
            assert await engine.handle(name).result(timeout=SOON) == "x"
            events = await engine.handle(name).history()
            received = [e for e in events if type(e.event).__name__ == "SignalReceived"]
            assert len(received) == 1, name


@pytest.mark.parametrize(("rate", "runs", "together"), [(100.0, 21, 10), (5.0, 6, 5), (2.5, 4, 3)])
async def test_a_batch_keeps_its_rate_from_its_first_run_on(
    open_engine: EngineOpener, rate: float, runs: int, together: int
) -> None:
    async with open_engine([waits]) as engine:
        await started(engine, runs)
        end = await engine.store.end_position()
        loop = asyncio.get_running_loop()
        began = loop.time()
        told: list[float] = []
        await engine.batch.pause(
            "", rate=rate, at_least=end, on_progress=lambda _: told.append(loop.time() - began)
        )
        # So many are given the command together, and the next wait for their turn.
        assert len(told) == runs
        for number, at in enumerate(told):
            assert at >= number // together * together / rate - 0.01


async def test_what_a_progress_returns_is_awaited_before_the_next_is_told(
    open_engine: EngineOpener,
) -> None:
    told: list[tuple[str, int]] = []

    async def slowly(progress: BatchProgress) -> None:
        told.append(("begins", progress.handled))
        await asyncio.sleep(0)
        told.append(("ends", progress.handled))

    async with open_engine([waits]) as engine:
        await started(engine, 2)
        end = await engine.store.end_position()
        await engine.batch.pause("", on_progress=slowly, at_least=end)
    assert told == [("begins", 1), ("ends", 1), ("begins", 2), ("ends", 2)]


@pytest.mark.parametrize(
    "field",
    ["HistoryLength", "HistorySizeBytes", "ExecutionStatus", "CloseTime", "StuckReason", "amount"],
)
async def test_a_batch_goes_in_no_order_that_may_change_while_it_runs(
    open_engine: EngineOpener, field: str
) -> None:
    async with open_engine([waits], search_attributes=[SearchAttribute("amount", int)]) as engine:
        await started(engine, 1)
        end = await engine.store.end_position()
        for dry_run in (True, False):
            with pytest.raises(InvalidArgumentError, match=f"{field} may change") as refused:
                await engine.batch.signal(
                    f"ORDER BY {field} ASC", go, "x", dry_run=dry_run, at_least=end
                )
            assert refused.value.argument == "filter"
        for fixed in ("WorkflowId", "RunId", "WorkflowType", "TaskQueue", "ScheduleId"):
            report = await engine.batch.pause(f"ORDER BY {fixed} DESC", dry_run=True)
            assert report.total == 1


async def test_what_a_batch_cannot_do_is_refused_before_anything_is_done(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([waits]) as engine:
        await started(engine, 1)
        told: list[BatchProgress] = []
        await engine.batch.pause("", on_progress=told.append)
        token = told[0].resume_token
        with pytest.raises(InvalidPageTokenError, match="batch of pause"):
            await engine.batch.terminate("", resume_from=token)
        with pytest.raises(InvalidPageTokenError, match="another filter"):
            await engine.batch.pause("WorkflowId = 'w0'", resume_from=token)
        for damaged in ("", "x", token[:-3], "bnVsbA=="):
            with pytest.raises(InvalidPageTokenError):
                await engine.batch.pause("", resume_from=damaged)
        with pytest.raises(FilterSyntaxError):
            await engine.batch.terminate("custmer = 'x'")
        wrong: Any
        for wrong in (0.0, -1.0, float("nan"), "5", None):
            with pytest.raises(InvalidArgumentError, match="rate"):
                await engine.batch.terminate("", rate=wrong)
        wrong = 7
        with pytest.raises(InvalidArgumentError, match="on_progress"):
            await engine.batch.terminate("", on_progress=wrong)
        with pytest.raises(InvalidPageTokenError, match="page token '7'"):
            await engine.batch.terminate("", resume_from=wrong)
        with pytest.raises(PayloadError):
            await engine.batch.signal("", go, wrong)
        assert await ids(engine, "ExecutionStatus = 'Paused'") == ["w0"]


async def test_a_batch_that_outlives_its_engine_says_so(open_engine: EngineOpener) -> None:
    async with open_engine([waits]) as engine:
        await started(engine, 1)
    with pytest.raises(StoreClosedError):
        await engine.batch.terminate("")

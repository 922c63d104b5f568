"""One command for every run that a filter asks for: counted first, given at a bounded rate, resumable."""

from datetime import timedelta
from typing import Any

import pytest

from aion_es import Context, Engine, RetryPolicy, Signal, activity, workflow
from aion_es.batch import BatchProgress
from aion_es.errors import FilterSyntaxError, InvalidArgumentError, WorkflowFailedError
from tests.e2e.conftest import EngineOpener

SOON = timedelta(seconds=20)
RUNNING = "ExecutionStatus = 'Running'"
go = Signal("go")


@workflow
async def waits(ctx: Context, number: int) -> int:
    await ctx.receive(go)
    return number


async def started(engine: Engine, count: int) -> Any:
    handles = [await engine.start(waits, number, id=f"w{number}") for number in range(count)]
    return handles, handles[-1].last_position


async def test_a_dry_run_counts_and_a_batch_then_signals_every_run(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([waits]) as engine:
        handles, position = await started(engine, 12)
        dry = await engine.batch.signal(RUNNING, go, None, dry_run=True, at_least=position)
        assert (dry.total, dry.outcomes) == (12, ())
        assert (await handles[0].describe()).history_length == 1
        done = await engine.batch.signal(RUNNING, go, None, rate=1_000)
        assert (done.total, done.count("done")) == (12, 12)
        assert [await handle.result(timeout=SOON) for handle in handles] == list(range(12))


async def test_a_batch_that_was_broken_off_goes_on_behind_the_last_run_that_it_reported(
    open_engine: EngineOpener,
) -> None:
    class StopError(Exception):
        pass

    tokens: list[str] = []

    def stop_at_five(progress: BatchProgress) -> None:
        tokens.append(progress.resume_token)
        if progress.handled == 5:
            raise StopError

    async with open_engine([waits]) as engine:
        handles, position = await started(engine, 12)
        with pytest.raises(StopError):
            await engine.batch.terminate(
                "WorkflowType = 'waits'", on_progress=stop_at_five, at_least=position, rate=1_000
            )
        rest = await engine.batch.terminate(
            "WorkflowType = 'waits'", resume_from=tokens[-1], rate=1_000
        )
        assert len(rest.outcomes) == 7
        statuses = [(await handle.describe()).status.value for handle in handles]
        assert statuses == ["Terminated"] * 12


async def test_a_batch_reopens_what_failed_and_skips_what_did_not(
    open_engine: EngineOpener,
) -> None:
    repaired = False

    @activity(retry=RetryPolicy(max_attempts=1))
    async def charge(number: int) -> int:
        if number % 2 and not repaired:
            raise ValueError("the till is broken")
        return number

    @workflow
    async def pays(ctx: Context, number: int) -> int:
        return await ctx.run(charge, number)

    async with open_engine([pays, waits], [charge]) as engine:
        handles = [await engine.start(pays, number, id=f"p{number}") for number in range(4)]
        open_one = await engine.start(waits, 0, id="w")
        for handle in handles[1::2]:
            with pytest.raises(WorkflowFailedError):
                await handle.result(timeout=SOON)
        for handle in handles[::2]:
            await handle.result(timeout=SOON)
        end = await engine.store.end_position()
        failed = "ExecutionStatus = 'Failed'"
        dry = await engine.batch.reopen(failed, dry_run=True, at_least=end)
        assert (dry.total, dry.outcomes) == (2, ())
        repaired = True
        report = await engine.batch.reopen("ORDER BY WorkflowId ASC", rate=1_000)
        assert [(one.workflow_id, one.status) for one in report.outcomes] == [
            ("p0", "skipped"),
            ("p1", "done"),
            ("p2", "skipped"),
            ("p3", "done"),
            ("w", "skipped"),
        ]
        assert [await engine.handle(f"p{n}").result(timeout=SOON) for n in range(4)] == [0, 1, 2, 3]
        end = await engine.store.end_position()
        assert await engine.visibility.count(failed, at_least=end) == 0
        await open_one.terminate()


async def test_a_bad_filter_or_rate_is_refused_and_nothing_is_given(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([waits]) as engine:
        (handle,), position = await started(engine, 1)
        with pytest.raises(FilterSyntaxError):
            await engine.batch.cancel("Nonsense =", at_least=position)
        with pytest.raises(InvalidArgumentError, match="rate"):
            await engine.batch.cancel(RUNNING, rate=0)
        assert not (await handle.describe()).cancel_requested

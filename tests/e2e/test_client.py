"""A process that runs no workflow code starts workflows, talks to them and learns how they end."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import BaseModel

from aion_es import Client, Context, Engine, Query, SearchAttribute, Signal, activity, workflow
from aion_es.errors import (
    PayloadError,
    QueryFailedError,
    RunClosedError,
    WaitTimeoutError,
    WorkflowAlreadyStartedError,
    WorkflowCancelledError,
    WorkflowFailedError,
    WorkflowNotFoundError,
    WorkflowTerminatedError,
    WorkflowTypeNotFoundError,
)
from tests.e2e.scenario import SOON, until

note = Signal("note", str)
seen = Query("seen", list[str])
customer = SearchAttribute("customer", str)


class Order(BaseModel):
    id: str


@activity
async def shout(text: str) -> str:
    return text.upper()


@workflow
async def collects(ctx: Context, order: Order) -> str:
    notes: list[str] = []
    ctx.answer(seen, lambda: list(notes))
    while len(notes) < 2:
        notes.append(await ctx.run(shout, await ctx.receive(note)))
    return f"{order.id}: {' '.join(notes)}"


@workflow
async def continues(ctx: Context, number: int) -> str:
    if number:
        ctx.continue_as_new(number - 1)
    return await ctx.receive(note)


@workflow
async def fails(ctx: Context) -> None:
    raise ValueError("no")


URL = "sqlite:///{}?durability=normal"


@pytest.fixture
def url(tmp_path: Path) -> str:
    return URL.format(tmp_path / "aion.db")


@pytest.fixture
async def engine(url: str) -> AsyncIterator[Engine]:
    async with Engine.open(url, workflows=[collects, continues, fails], activities=[shout]) as made:
        yield made


async def test_a_client_starts_signals_and_gets_the_result(engine: Engine, url: str) -> None:
    async with Client.open(url) as client:
        handle = await client.start(collects, Order(id="o-1"), id="w")
        await handle.signal(note, "a")
        await handle.signal(note, "b")
        assert await handle.result(timeout=SOON) == "o-1: A B"


async def test_what_a_client_starts_before_any_engine_is_open_runs_when_one_is(url: str) -> None:
    async with Client.open(url) as client:
        handle = await client.start(collects, Order(id="o-1"))
        await handle.signal(note, "a")
        await handle.signal(note, "b")
        with pytest.raises(WaitTimeoutError):
            await handle.result(timeout=timedelta(milliseconds=50))
        async with Engine.open(url, workflows=[collects], activities=[shout]):
            assert await handle.result(timeout=SOON) == "o-1: A B"


async def test_ends_of_every_kind_reach_a_client(engine: Engine, url: str) -> None:
    async with Client.open(url) as client:
        with pytest.raises(WorkflowFailedError, match="ValueError: no"):
            await (await client.start(fails)).result(timeout=SOON)
        cancelled = await client.start(continues, 0)
        await cancelled.cancel("stop")
        with pytest.raises(WorkflowCancelledError):
            await cancelled.result(timeout=SOON)
        terminated = await client.start(continues, 0)
        await terminated.terminate("stop")
        with pytest.raises(WorkflowTerminatedError):
            await terminated.result(timeout=SOON)


async def test_a_client_follows_a_chain_to_its_end(engine: Engine, url: str) -> None:
    async with Client.open(url) as client:
        handle = await client.start(continues, 3)
        waiting = asyncio.ensure_future(handle.result(timeout=SOON))
        await handle.signal(note, "end")
        assert await waiting == "end"


async def test_a_client_answers_queries_from_the_history_if_it_has_the_code(
    engine: Engine, url: str
) -> None:
    async with Client.open(url, workflows=[collects]) as client:
        handle = await client.start(collects, Order(id="o-1"))
        await handle.signal(note, "a")

        async def has_seen() -> bool:
            return await handle.query(seen) == ["A"]

        await until(has_seen)
        await handle.signal(note, "b")
        await handle.result(timeout=SOON)
        assert await handle.query(seen) == ["A", "B"]


async def test_without_the_code_a_query_says_what_is_missing(engine: Engine, url: str) -> None:
    async with Client.open(url) as client:
        handle = await client.start(collects, Order(id="o-1"))
        with pytest.raises(QueryFailedError, match=r"workflows=\[…\]"):
            await handle.query(seen)


async def test_pause_and_resume_from_a_client_hold_and_release_the_run(
    engine: Engine, url: str
) -> None:
    async with Client.open(url) as client:
        handle = await client.start(collects, Order(id="o-1"))
        await handle.pause()
        await handle.signal(note, "a")
        await handle.signal(note, "b")
        with pytest.raises(WaitTimeoutError):
            await handle.result(timeout=timedelta(milliseconds=100))
        await handle.resume()
        assert await handle.result(timeout=SOON) == "o-1: A B"


async def test_a_terminated_run_is_reopened_from_a_client(engine: Engine, url: str) -> None:
    async with Client.open(url) as client:
        handle = await client.start(collects, Order(id="o-1"))
        await handle.signal(note, "a")
        await handle.terminate()
        await handle.reopen()
        await handle.signal(note, "b")
        assert await handle.result(timeout=SOON) == "o-1: A B"


async def test_attributes_and_lists_are_those_of_the_engine(engine: Engine, url: str) -> None:
    async with Client.open(url) as client:
        handle = await client.start(collects, Order(id="o-1"), id="w", attributes={customer: "ana"})
        assert handle.last_position is not None
        found = [
            run.workflow_id
            async for run in client.visibility.list(
                "customer = 'ana'", at_least=handle.last_position, timeout=SOON
            )
        ]
        assert found == ["w"]


async def test_refusals_are_those_of_the_engine(engine: Engine, url: str) -> None:
    async with Client.open(url) as client:
        handle = await client.start(continues, 0, id="w")
        with pytest.raises(WorkflowAlreadyStartedError):
            await client.start(continues, 0, id="w")
        with pytest.raises(PayloadError):
            await client.start(collects, "nonsense", id="x")  # type: ignore[arg-type]
        with pytest.raises(WorkflowTypeNotFoundError):
            await client.start("collects", {}, id="x")
        with pytest.raises(WorkflowNotFoundError):
            await client.handle("x").signal(note, "a")
        await handle.terminate()
        with pytest.raises(RunClosedError):
            await handle.signal(note, "a")

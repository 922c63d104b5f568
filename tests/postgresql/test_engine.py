"""Engines whose read model is in PostgreSQL: they list, recover, and take over from one another."""

import asyncio
from datetime import timedelta
from pathlib import Path

from sqlalchemy import text

from aion_es import Context, Engine, SearchAttribute, Signal, activity, workflow
from aion_es.app import OpeningEngine

PATIENCE = timedelta(seconds=20)
go_on = Signal("go_on", str)
customer = SearchAttribute("customer", str)


@activity
async def greet(name: str) -> str:
    return f"hello {name}"


@workflow
async def greeting(ctx: Context, name: str) -> str:
    greeted = await ctx.run(greet, name)
    return f"{greeted}, {await ctx.receive(go_on)}"


def engine(path: Path, read_model: str) -> OpeningEngine:
    return Engine.open(
        f"sqlite:///{path}/aion.db",
        workflows=[greeting],
        activities=[greet],
        search_attributes=[customer],
        read_model=read_model,
    )


async def test_a_run_is_listed_recovered_and_listed_again(
    tmp_path: Path, postgresql_url: str
) -> None:
    async with engine(tmp_path, postgresql_url) as first:
        handle = await first.start(greeting, "Ana", id="w", attributes={customer: "ana"})
        position = handle.last_position
        found = first.visibility.list("customer = 'ana'", at_least=position, timeout=PATIENCE)
        assert [(run.workflow_id, str(run.status)) async for run in found] == [("w", "Running")]
    async with engine(tmp_path, postgresql_url) as second:
        await second.wait_recovered(PATIENCE)
        again = second.handle("w", greeting)
        await again.signal(go_on, "welcome")
        assert await again.result() == "hello Ana, welcome"
        await second.projections.wait_until_caught_up()
        assert await second.visibility.count("ExecutionStatus = 'Completed'") == 1


async def test_the_engine_that_waits_recovers_too_and_takes_over(
    tmp_path: Path, postgresql_url: str
) -> None:
    async with engine(tmp_path, postgresql_url) as second:
        async with engine(tmp_path, postgresql_url) as first:
            await first.wait_recovered(PATIENCE)
            active = [
                [status.is_active for status in await one.projections.status()]
                for one in (second, first)
            ]
            assert sorted(active) == [[False] * 3, [True] * 3]
        handle = await second.start(greeting, "Bo", id="w")
        await second.projections.wait_until_caught_up()
        assert await second.visibility.count() == 1
        await handle.terminate()


async def test_an_engine_outlives_the_servers_loss_of_its_connections(
    tmp_path: Path, postgresql_url: str
) -> None:
    async with engine(tmp_path, postgresql_url) as opened:
        kill = text(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await opened.projections.wait_until_caught_up()
        await opened.read_model.write(lambda c: c.execute(kill))
        kill_writer = text("SELECT pg_terminate_backend(pg_backend_pid())")
        results = await asyncio.gather(
            opened.read_model.write(lambda c: c.execute(kill_writer)), return_exceptions=True
        )
        assert [type(result).__name__ for result in results] == ["StoreUnavailableError"]
        handle = await opened.start(greeting, "Cy", id="w")
        async with asyncio.timeout(PATIENCE.total_seconds()):
            await opened.projections.wait_until_caught_up()
        assert await opened.visibility.count() == 1
        await handle.terminate()

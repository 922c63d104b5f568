"""`aion-es doctor` says what keeps workflows from going on, and of what goes on nothing."""

import asyncio
import uuid
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aion_es import Context, Engine, Signal, workflow
from aion_es.cli.doctor import FOUND
from aion_es.cli.main import app
from aion_es.errors import UnknownStoreURLError
from aion_es.events.metadata import EventMetadata
from aion_es.ids import DEFAULT_NAMESPACE, WorkflowId, workflow_stream
from aion_es.projections import VisibilityProjection
from aion_es.store.port import Expected, NewEvent
from tests.e2e.scenario import is_recorded, until

bell = Signal("bell")
UP_TO_DATE = [
    f"projection {name}: up to date" for name in ("pending_work", "visibility", "schedules")
]


@workflow(version="1")
async def waits(ctx: Context) -> None:
    """Wait a moment, and then for the bell."""
    await ctx.sleep(0.001)
    await ctx.receive(bell)


@workflow(name="waits", version="2")
async def waits_otherwise(ctx: Context) -> None:
    """Do the same, in another version."""
    await ctx.receive(bell)


@workflow(name="waits", version="1")
async def waits_no_moment(ctx: Context) -> None:
    """Do other than the history tells, under the version that it names."""
    await ctx.receive(bell)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/shop.db"


def examined(url: str) -> tuple[int, list[str]]:
    """Return the exit code and the lines of the command."""
    done = CliRunner().invoke(app, ["doctor", url], prog_name="aion-es", catch_exceptions=False)
    return done.exit_code, done.output.splitlines()


async def begin(engine: Engine) -> None:
    """Begin a run, and return when it waits for the bell and the rows know of it."""
    handle = await engine.start(waits, id="w")
    await until(lambda: is_recorded(handle, "TimerFired"))
    await engine.projections.wait_until_caught_up()


async def leave_behind(url: str) -> None:
    """Leave such a run behind."""
    async with Engine.open(url, workflows=[waits]) as engine:
        await begin(engine)


async def test_a_run_that_waits_for_a_signal_is_well(url: str) -> None:
    async with Engine.open(url, workflows=[waits]) as engine:
        await begin(engine)
        code, lines = await asyncio.to_thread(examined, url)
    assert (code, lines) == (
        0,
        ["engines: 1 alive", *UP_TO_DATE, "nothing keeps a workflow from going on"],
    )


async def test_without_an_engine_open_runs_wait_for_one(url: str) -> None:
    await leave_behind(url)
    assert await asyncio.to_thread(examined, url) == (
        FOUND,
        [
            "engines: 0 alive",
            *UP_TO_DATE,
            "waiting: 1 open runs of 'waits' need version '1': no engine is alive",
        ],
    )


async def test_runs_whose_version_no_engine_has_are_orphaned_and_stuck(url: str) -> None:
    await leave_behind(url)
    async with Engine.open(url, workflows=[waits_otherwise]) as engine:
        await engine.wait_recovered()
        code, lines = await asyncio.to_thread(examined, url)
    assert (code, lines[4]) == (
        FOUND,
        "orphaned: 1 open runs of 'waits' need version '1': no engine that is alive has it",
    )
    (stuck,) = lines[5:]
    assert stuck.startswith("stuck: w (waits): ")


async def test_a_run_whose_code_does_otherwise_is_stuck_with_the_difference(url: str) -> None:
    await leave_behind(url)
    async with Engine.open(url, workflows=[waits_no_moment]) as engine:
        await engine.wait_recovered()
        await engine.handle("w").signal(bell)

        async def is_shown() -> bool:
            return (await engine.visibility.get("w")).stuck_reason is not None

        await until(is_shown)
        code, lines = await asyncio.to_thread(examined, url)
    assert code == FOUND
    assert lines[4].startswith("stuck: w (waits): ")
    assert all(line.startswith("    ") for line in lines[5:])


async def test_a_projection_that_stands_still_is_named_with_the_event(url: str) -> None:
    async with Engine.open(url, workflows=[waits]) as engine:
        stream = workflow_stream(DEFAULT_NAMESPACE, WorkflowId("damaged"))
        metadata = EventMetadata(datetime(2030, 1, 1, tzinfo=UTC)).to_bytes()
        event = NewEvent(uuid.UUID(int=1), "WorkflowStarted", b"{}", metadata)
        await engine.store.append(stream, [event], Expected.NO_STREAM)

        async def stands_still() -> bool:
            statuses = {status.name: status for status in await engine.projections.status()}
            return statuses[VisibilityProjection.name].error is not None

        await until(stands_still)
        code, lines = await asyncio.to_thread(examined, url)
    assert code == FOUND
    (told,) = (line for line in lines if line.startswith("projection visibility: "))
    assert told.startswith("projection visibility: stands still at WorkflowStarted")


@pytest.mark.parametrize("place", ["sqlite:///{}/none.db", "sqlite://", "memory://"])
def test_a_store_that_is_not_there_is_not_made(place: str, tmp_path: Path) -> None:
    with pytest.raises(UnknownStoreURLError):
        examined(place.format(tmp_path))
    assert list(tmp_path.iterdir()) == []

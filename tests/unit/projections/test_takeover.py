"""One active runner per read model; the next takes over when it ends, dies or loses its place."""

import asyncio
import gc
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from aion_es.clock import Clock
from aion_es.errors import StoreUnavailableError
from aion_es.ids import UUIDv7Source
from aion_es.projections import ProjectionRunner, ReadModel
from aion_es.projections.lease import EXPIRY, LEASE, lease_for
from aion_es.projections.processes import is_gone, this_process
from aion_es.store.memory import MemoryEventStore
from tests.unit.projections.logs import (
    Log,
    append,
    handled,
    places,
    runner_of,
    running,
    stored_places,
)


class SetClock:
    """A clock that shows what it is told."""

    def __init__(self) -> None:
        self.time = datetime(2026, 11, 24, 12, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time


def clock_of(time: SetClock) -> Clock:
    return time


def a_process_that_is_gone() -> str:
    code = "from aion_es.projections.processes import *; print(this_process())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


async def is_active(runner: ProjectionRunner) -> bool:
    (status,) = await runner.status()
    return status.is_active


async def test_a_second_runner_waits_and_takes_over_when_the_first_ends(
    store: MemoryEventStore, two_models: tuple[ReadModel, ReadModel]
) -> None:
    await append(store, 3)
    one, other = two_models
    first, second = runner_of(store, one, Log()), runner_of(store, other, Log())
    async with asyncio.TaskGroup() as group:
        running_first = group.create_task(first.run())
        await first.wait_until_caught_up()
        running_second = group.create_task(second.run())
        await second.wait_until_caught_up()
        assert (await is_active(first), await is_active(second)) == (True, False)
        running_first.cancel()
        last = await append(store, 3)
        await handled(second, last, "log")
        assert await is_active(second)
        running_second.cancel()
    assert await places(other) == await stored_places(store)


async def test_a_runner_that_does_not_run_sees_what_another_process_has_done(
    store: MemoryEventStore, two_models: tuple[ReadModel, ReadModel]
) -> None:
    active, asking = two_models
    runner, reader = runner_of(store, active, Log()), runner_of(store, asking, Log())
    await reader.prepare()
    async with running(runner):
        last = await append(store, 3)
        await handled(reader, last, "log")
        assert await places(asking) == await stored_places(store)
        (status,) = await reader.status()
        assert (status.lag, status.caught_up, status.is_active) == (0, True, False)


async def test_a_lease_is_held_by_one_until_it_is_released(
    two_models: tuple[ReadModel, ReadModel],
) -> None:
    clock, ids = clock_of(SetClock()), UUIDv7Source()
    one, other = two_models
    mine, theirs = lease_for(one, clock, ids), lease_for(other, clock, ids)
    assert [await mine.acquire(), await theirs.acquire(), await mine.acquire()] == [
        True,
        False,
        True,
    ]
    await mine.release()
    assert [await theirs.acquire(), await mine.acquire()] == [True, False]


async def test_a_lease_without_a_heartbeat_expires_and_its_holder_learns_of_it(
    read_model_url: str,
) -> None:
    if not read_model_url.startswith("sqlite"):
        pytest.skip("PostgreSQL's lock ends with its session and needs no heartbeat")
    time, ids = SetClock(), UUIDv7Source()
    async with await ReadModel.open(read_model_url) as model:
        mine, theirs = lease_for(model, time, ids), lease_for(model, time, ids)
        assert await mine.acquire()
        time.time += EXPIRY - timedelta(microseconds=1)
        assert not await theirs.acquire()
        time.time += timedelta(microseconds=1)
        assert [await theirs.acquire(), await mine.acquire()] == [True, False]


async def test_the_lease_of_a_process_that_is_gone_is_taken_at_once(read_model_url: str) -> None:
    if not read_model_url.startswith("sqlite"):
        pytest.skip("PostgreSQL's lock ends with its session and asks for no process")
    gone = await asyncio.to_thread(a_process_that_is_gone)
    if not gone:
        pytest.skip("processes cannot be told apart here")
    time = SetClock()
    async with await ReadModel.open(read_model_url) as model:
        left = lease_for(model, time, UUIDv7Source())
        await left.acquire()
        await model.write(lambda c: c.execute(LEASE.update().values(process=gone, holder="x")))
        assert await lease_for(model, time, UUIDv7Source()).acquire()


async def test_a_lease_that_was_left_behind_in_this_process_is_taken_at_once(
    read_model_url: str,
) -> None:
    if not read_model_url.startswith("sqlite") or not this_process():
        pytest.skip(
            "PostgreSQL's lock ends with its session; or processes cannot be told apart here"
        )
    time = SetClock()
    async with await ReadModel.open(read_model_url) as model:
        await lease_for(model, time, UUIDv7Source()).acquire()  # and forgotten
        await model.write(lambda c: None)  # the writer's thread forgets it too
        gc.collect()
        assert await lease_for(model, time, UUIDv7Source()).acquire()


async def test_a_lease_ends_with_the_connection_that_holds_it(postgresql_url: str) -> None:
    time = SetClock()
    async with await ReadModel.open(postgresql_url) as model:
        await lease_for(model, time, UUIDv7Source()).acquire()
        async with await ReadModel.open(postgresql_url) as other:
            assert not await lease_for(other, time, UUIDv7Source()).acquire()
            await other.write(
                lambda c: c.exec_driver_sql(
                    "SELECT pg_terminate_backend(pid, 20000) FROM pg_locks"  # ms: waits for its end
                    " WHERE locktype = 'advisory' AND granted AND pid <> pg_backend_pid()"
                )
            )
            assert await lease_for(other, time, UUIDv7Source()).acquire()
            mine = lease_for(model, time, UUIDv7Source())
            with pytest.raises(StoreUnavailableError):
                await mine.acquire()
            assert not await mine.acquire()


async def test_a_runner_whose_lease_was_taken_waits_for_its_turn_again(
    store: MemoryEventStore, read_model_url: str
) -> None:
    if not read_model_url.startswith("sqlite"):
        pytest.skip("nobody can take PostgreSQL's lock from its session")
    async with await ReadModel.open(read_model_url) as model:
        runner = runner_of(store, model, Log())
        await append(store, 2)
        async with running(runner):
            await runner.wait_until_caught_up()
            await model.write(lambda c: c.execute(LEASE.update().values(holder="x", process="")))
            while await is_active(runner):
                pass
            await model.write(lambda c: c.execute(LEASE.delete()))
            last = await append(store, 2)
            await handled(runner, last, "log")
        assert await places(model) == await stored_places(store)


def test_a_process_knows_itself_and_one_with_its_number_but_another_start() -> None:
    here = this_process()
    if not here:
        pytest.skip("processes cannot be told apart here")
    boot, namespace, pid, started = here.split()
    assert int(pid) == os.getpid()
    assert not is_gone(here)
    assert is_gone(f"{boot} {namespace} {pid} {int(started) + 1}")
    assert is_gone(f"of-another-boot {namespace} {pid} {started}")
    assert not is_gone(f"{boot} pid:[of-another-container] {pid} {started}")
    assert not is_gone("")

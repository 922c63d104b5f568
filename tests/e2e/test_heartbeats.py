"""Heartbeats: details reach the next attempt, also past the death of a process; silence is a failure."""

import asyncio
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from aion_es import Context, EngineOptions, RetryPolicy, Signal, activity, workflow
from aion_es.app import Engine
from aion_es.errors import InvalidArgumentError, PayloadError, PayloadTooLargeError
from aion_es.events.workflow import ActivityFailed
from aion_es.payload import Payload
from aion_es.projections.heartbeats import ActivityHeartbeats
from aion_es.testing.clock import ManualClock
from tests.e2e.conftest import EngineOpener
from tests.e2e.scenario import SOON, events_of, is_recorded, kinds, until

AT_ONCE = RetryPolicy(initial_interval=timedelta(0))
IMPATIENT = EngineOptions(shutdown_grace=timedelta(0))


@activity(retry=AT_ONCE)
async def copies() -> list[Any]:
    """Two attempts say how far they are, the third says nothing, the fourth tells what it was told."""
    info = activity.info()
    if info.attempt < 3:
        activity.heartbeat({"copied": info.attempt})
        activity.heartbeat()
        raise ConnectionError("lost")
    if info.attempt == 3:
        raise ConnectionError("lost")
    return [info.attempt, info.heartbeat_details]


@activity(retry=AT_ONCE)
def copies_in_a_thread() -> Any:
    info = activity.info()
    if info.attempt == 1:
        for line in range(1_000):
            activity.heartbeat({"line": line})
        raise ConnectionError("lost")
    return info.heartbeat_details


@activity(retry=AT_ONCE, executor="process")
def copies_in_a_process() -> Any:
    info = activity.info()
    if info.attempt == 1:
        for line in range(1_000):
            activity.heartbeat({"line": line})
        raise ConnectionError("lost")
    return info.heartbeat_details


@workflow
async def copying(ctx: Context) -> list[Any]:
    return await ctx.run(copies)


@workflow
async def copying_elsewhere(ctx: Context) -> list[Any]:
    return [await ctx.run(copies_in_a_thread), await ctx.run(copies_in_a_process)]


async def test_what_an_attempt_said_last_is_recorded_with_its_failure_and_told_to_the_next(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([copying], [copies]) as engine:
        handle = await engine.start(copying)
        assert await handle.result(timeout=SOON) == [4, {"copied": 2}]
        failed = await events_of(handle, ActivityFailed)
        assert [(e.attempt, e.heartbeat_details) for e in failed] == [
            (1, Payload.of({"copied": 1})),
            (2, Payload.of({"copied": 2})),
            (3, None),
        ]


async def test_threads_and_processes_speak_as_well(open_engine: EngineOpener) -> None:
    activities = [copies_in_a_thread, copies_in_a_process]
    async with open_engine([copying_elsewhere], activities) as engine:
        handle = await engine.start(copying_elsewhere)
        assert await handle.result(timeout=SOON) == [{"line": 999}, {"line": 999}]


class Talker:
    """An activity that speaks when the test says so, and fails or returns what it was told before."""

    def __init__(self, **options: Any) -> None:
        self.attempts: list[tuple[int, Any]] = []
        self.words: asyncio.Queue[Any] = asyncio.Queue()
        self.heard = 0
        self.cancelled = 0

        @activity(name="talks", **options)
        async def talks() -> str:
            info = activity.info()
            self.attempts.append((info.attempt, info.heartbeat_details))
            try:
                while (word := await self.words.get()) != "end":
                    activity.heartbeat(word)
                    self.heard += 1
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            return "ended"

        @workflow(name="listens")
        async def listens(ctx: Context) -> str:
            return await ctx.run(talks)

        self.activity, self.workflow = talks, listens

    def open(self, open_engine: EngineOpener, **options: Any) -> Any:
        return open_engine([self.workflow], [self.activity], **options)

    async def say(self, word: Any) -> None:
        heard = self.heard
        self.words.put_nowait(word)
        await until(lambda: self.heard > heard)


async def test_an_attempt_that_is_silent_for_too_long_is_stopped_and_retried(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    talker = Talker(heartbeat=timedelta(minutes=1), retry=AT_ONCE)
    async with talker.open(open_engine, clock=clock) as engine:
        handle = await engine.start(talker.workflow)
        await until(lambda: len(talker.attempts) == 1)
        for word in ("one", "two", "three"):
            clock.advance(timedelta(seconds=59))
            await talker.say(word)
        clock.advance(timedelta(seconds=59))
        await _settle()
        assert talker.cancelled == 0
        clock.advance(timedelta(seconds=1))
        await until(lambda: len(talker.attempts) == 2)
        assert talker.attempts == [(1, None), (2, "three")]
        assert talker.cancelled == 1
        talker.words.put_nowait("end")
        assert await handle.result(timeout=SOON) == "ended"
        (failed,) = await events_of(handle, ActivityFailed)
        assert (failed.error.type, failed.heartbeat_details) == (
            "HeartbeatTimeout",
            Payload.of("three"),
        )


async def test_an_attempt_that_never_speaks_is_silent_from_its_beginning(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    talker = Talker(heartbeat=timedelta(minutes=1), retry=AT_ONCE)
    async with talker.open(open_engine, clock=clock) as engine:
        handle = await engine.start(talker.workflow)
        await until(lambda: len(talker.attempts) == 1)
        clock.advance(timedelta(minutes=1))
        await until(lambda: len(talker.attempts) == 2)
        talker.words.put_nowait("end")
        assert await handle.result(timeout=SOON) == "ended"


async def test_what_an_attempt_said_reaches_the_next_one_although_its_engine_is_gone(
    open_engine: EngineOpener,
) -> None:
    talker = Talker(retry=AT_ONCE)
    async with talker.open(open_engine, options=IMPATIENT) as engine:
        handle = await engine.start(talker.workflow, id="w")
        await until(lambda: len(talker.attempts) == 1)
        for page in range(50):
            await talker.say({"page": page})
        await until(lambda: is_recorded(handle, "ActivityStarted"))
    async with talker.open(open_engine) as engine:
        handle = engine.handle("w", talker.workflow)
        await until(lambda: len(talker.attempts) == 2)
        assert talker.attempts == [(1, None), (2, {"page": 49})]
        talker.words.put_nowait("end")
        await handle.result(timeout=SOON)
        assert await kinds(handle) == [
            "WorkflowStarted",
            "ActivityScheduled",
            "ActivityStarted",
            "ActivityFailed",
            "ActivityStarted",
            "ActivityCompleted",
            "WorkflowCompleted",
        ]
        (lost,) = await events_of(handle, ActivityFailed)
        assert (lost.error.type, lost.heartbeat_details) == (
            "WorkerLost",
            Payload.of({"page": 49}),
        )
        await until(lambda: _nothing_is_stored(engine))


async def _stored(engine: Engine) -> list[Any]:
    def read(connection: Any) -> list[Any]:
        rows = connection.exec_driver_sql("SELECT attempt, details FROM activity_heartbeats")
        return [tuple(row) for row in rows]

    return await engine.read_model.read(read)


async def _nothing_is_stored(engine: Engine) -> bool:
    return await _stored(engine) == []


class CountingRows:
    """The real rows, with what was written."""

    def __init__(self, rows: Any) -> None:
        self._rows = rows
        self.written: list[tuple[list[Any], int]] = []

    async def write(self, spoken: Any, gone: Any) -> None:
        await self._rows.write(spoken, gone)
        self.written.append(([row[4].data for row in spoken], len(gone)))

    async def read(self, *key: Any) -> Any:
        return await self._rows.read(*key)


async def test_details_are_stored_once_in_an_interval_and_only_if_they_changed(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    talker = Talker(heartbeat=timedelta(seconds=20))
    async with talker.open(open_engine, clock=clock) as engine:
        rows = engine._core.heartbeats.rows = CountingRows(engine._core.heartbeats.rows)
        handle = await engine.start(talker.workflow)
        await until(lambda: len(talker.attempts) == 1)
        for number in range(100):
            await talker.say(number)
        await until(lambda: len(rows.written) >= 1)
        assert rows.written[0][1] == 0
        first = len(rows.written)
        clock.advance(timedelta(seconds=16))  # four fifths of the heartbeat timeout
        await until(lambda: rows.written[-1] == ([99], 0))
        assert len(rows.written) <= first + 1
        count = len(rows.written)
        await talker.say(None)
        clock.advance(timedelta(seconds=16))
        await _settle()
        assert len(rows.written) == count
        await talker.say("more")
        await until(lambda: rows.written[count:] == [(["more"], 0)])
        talker.words.put_nowait("end")
        await handle.result(timeout=SOON)
        await until(lambda: rows.written[count + 1 :] == [([], 1)])
        assert await _stored(engine) == []


async def test_an_attempt_without_details_stores_nothing(open_engine: EngineOpener) -> None:
    talker = Talker()
    async with talker.open(open_engine) as engine:
        rows = engine._core.heartbeats.rows = CountingRows(engine._core.heartbeats.rows)
        handle = await engine.start(talker.workflow)
        for _ in range(10):
            await talker.say(None)
        talker.words.put_nowait("end")
        await handle.result(timeout=SOON)
        assert rows.written == []
        assert len(engine._core.timers) == 0


async def test_rows_of_activities_that_no_longer_wait_are_swept_at_the_next_start(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    talker = Talker()
    async with talker.open(open_engine) as engine:
        handle = await engine.start(talker.workflow, id="waits")
        await until(lambda: len(talker.attempts) == 1)
        long_ago = clock.now() - timedelta(days=1)
        rows = ActivityHeartbeats(engine.read_model, clock)
        waiting = ("waits", handle.run_id, 0, 1, Payload.of("kept"), long_ago)
        await rows.write([waiting, ("gone", "r", 0, 1, Payload.of("old"), long_ago)], [])
        await engine.projections.wait_until(
            await engine.store.end_position(), projection="pending_work", timeout=SOON
        )
        await rows.sweep()
        assert await _stored(engine) == [(1, Payload.of("kept").model_dump_json())]
        talker.words.put_nowait("end")
        await handle.result(timeout=SOON)


async def test_details_that_cannot_be_written_are_refused_where_they_are_said(
    open_engine: EngineOpener,
) -> None:
    refused: list[type[Exception]] = []

    @activity
    async def mumbles() -> None:
        for details in (object(), "x" * 2_000_000):
            try:
                activity.heartbeat(details)
            except (PayloadError, PayloadTooLargeError) as error:
                refused.append(type(error))

    @workflow
    async def listens(ctx: Context) -> None:
        await ctx.run(mumbles)

    async with open_engine([listens], [mumbles]) as engine:
        await (await engine.start(listens)).result(timeout=SOON)
        assert refused == [PayloadError, PayloadTooLargeError]


def test_a_heartbeat_outside_an_attempt_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="no attempt is running here"):
        activity.heartbeat()


async def test_a_thread_that_beats_after_its_engine_is_gone_disturbs_nobody(
    open_engine: EngineOpener,
) -> None:
    began, go_on, over = threading.Event(), threading.Event(), threading.Event()

    @activity
    def outlives() -> None:
        began.set()
        go_on.wait(20)
        activity.heartbeat("still here")
        over.set()

    @workflow
    async def waits(ctx: Context) -> None:
        await ctx.run(outlives)

    async with open_engine([waits], [outlives], options=IMPATIENT) as engine:
        await engine.start(waits)
        await asyncio.to_thread(began.wait, 10)
    go_on.set()
    assert await asyncio.to_thread(over.wait, 10)


@activity(executor="process")
def works_until_cancelled(path: str) -> str:
    Path(path).touch()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        activity.heartbeat()
        if activity.is_cancelled():
            return "stopped by itself"
        time.sleep(0.005)
    return "never told"


enough = Signal("enough")


@workflow
async def cancels_a_process(ctx: Context, path: str) -> str:
    working = ctx.run(works_until_cancelled, path, cancellation="wait")
    await ctx.receive(enough)
    working.cancel()
    return await working


async def test_an_activity_in_a_process_sees_that_it_is_cancelled(
    open_engine: EngineOpener, tmp_path: Path
) -> None:
    begun = tmp_path / "begun"
    async with open_engine([cancels_a_process], [works_until_cancelled]) as engine:
        handle = await engine.start(cancels_a_process, str(begun))
        await until(begun.exists, seconds=30)
        await handle.signal(enough)
        assert await handle.result(timeout=timedelta(seconds=30)) == "stopped by itself"


async def _settle() -> None:
    for _ in range(100):
        await asyncio.sleep(0)

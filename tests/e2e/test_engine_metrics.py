"""What a program with an OpenTelemetry SDK is told of its engine: each metric, in a scenario that moves it."""

import asyncio
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from opentelemetry.metrics import Counter, Histogram

from aion_es import (
    Client,
    Context,
    Engine,
    EngineOptions,
    NonRetryableError,
    Query,
    QueueOptions,
    RetryPolicy,
    Signal,
    activity,
    telemetry,
    workflow,
)
from aion_es import metrics as instruments
from aion_es.engine import metering
from aion_es.engine.metering import EngineMeter
from aion_es.errors import QueryNotFoundError, UnknownEventTypeError, WorkflowFailedError
from aion_es.ids import Namespace, WorkflowId, workflow_stream
from aion_es.schedules import Interval, Schedule, Start
from aion_es.store import observed
from aion_es.store.memory import MemoryEventStore
from aion_es.store.port import NewEvent
from aion_es.testing.clock import ManualClock
from aion_es.testing.faults import FaultyStore
from tests.docs.pages import ROOT
from tests.e2e.scenario import SOON, until
from tests.unit.recorded_metrics import RecordedMetrics, measured

__all__ = ["measured"]

GUIDE = ROOT / "docs" / "guides" / "observability.md"
go = Signal("go", str)


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aion_es.engine.metering.LOOK_EVERY", timedelta(milliseconds=5))


@pytest.fixture
def namespace(request: pytest.FixtureRequest) -> str:
    """One of the test's own: the metrics of the whole process are in one place."""
    return re.sub(r"[^a-z0-9]", "_", request.node.name.lower())[:64]


async def becomes(there: Callable[[], Any], expected: Any) -> None:
    """Return when what is exported is this; what differs is shown if it never is."""
    for _ in range(1_000):
        if there() == expected:
            return
        await asyncio.sleep(0.005)
    assert there() == expected


def waiter(name: str, signals: int = 1) -> Any:
    """Return a workflow that takes signals, of a type that no other test has."""

    @workflow(name=name)
    async def waits(ctx: Context) -> list[str]:
        return [await ctx.receive(go) for _ in range(signals)]

    return waits


# ------------------------------------------------------------------------------ counted, timed


async def test_each_step_of_workflow_code_is_an_activation_and_a_replayed_one_is_not(
    measured: RecordedMetrics, namespace: str
) -> None:
    waiting = waiter("metrics_activations")
    store = MemoryEventStore()

    def counted() -> dict[Any, Any]:
        return measured.values("aion.activations", workflow_type="metrics_activations")

    async with Engine.open(store, workflows=[waiting], namespace=namespace) as engine:
        for n in range(3):
            await engine.start(waiting, id=f"w{n}")
        assert counted() == {None: 3}
    async with Engine.open(store, workflows=[waiting], namespace=namespace) as engine:
        with pytest.raises(QueryNotFoundError):
            await engine.handle("w1").query(Query("none", str))  # replays it, and no more
        assert counted() == {None: 3}
        await engine.handle("w0").signal(go, "x")
        await engine.handle("w0").result(timeout=SOON)
        assert counted() == {None: 4}


async def test_what_a_client_gave_is_counted_when_the_code_sees_it(
    measured: RecordedMetrics, namespace: str, tmp_path: Path
) -> None:
    waiting = waiter("metrics_from_a_client")
    url = f"sqlite:///{tmp_path}/aion.db"
    async with Client.open(url, namespace=namespace) as client:
        handle = await client.start(waiting, id="w")
        await handle.signal(go, "x")
    async with Engine.open(url, workflows=[waiting], namespace=namespace) as engine:
        await engine.handle("w").result(timeout=SOON)
    counted = measured.values("aion.activations", workflow_type="metrics_from_a_client")
    assert counted == {None: 1}


async def test_attempts_are_timed_by_type_queue_and_outcome(
    measured: RecordedMetrics, namespace: str
) -> None:
    @activity(name="metrics_flaky")
    async def flaky(how: str) -> str:
        if how == "hangs":
            await asyncio.get_running_loop().create_future()
        if how == "fails":
            raise NonRetryableError("no")
        return how

    @workflow(name="metrics_attempts")
    async def tries(ctx: Context, how: str) -> str:
        limit = timedelta(milliseconds=1) if how == "hangs" else timedelta(minutes=1)
        once = RetryPolicy(max_attempts=1)
        return await ctx.run(flaky, how, start_to_close=limit, retry=once, task_queue="slow")

    def timed() -> dict[str, tuple[str, int]]:
        return {
            attributes["aion.outcome"]: (attributes["aion.task_queue"], point.count)
            for attributes, point in measured.points(
                "aion.activity.duration", activity_type="metrics_flaky"
            )
        }

    async with Engine.open(
        MemoryEventStore(), workflows=[tries], activities=[flaky], namespace=namespace
    ) as engine:
        for how in ("works", "fails", "hangs"):
            handle = await engine.start(tries, how)
            try:
                await handle.result(timeout=SOON)
            except WorkflowFailedError:
                assert how != "works"
        await becomes(
            timed, {"completed": ("slow", 1), "failed": ("slow", 1), "timed_out": ("slow", 1)}
        )


async def test_a_duration_s_buckets_suit_seconds(measured: RecordedMetrics, namespace: str) -> None:
    waiting = waiter("metrics_buckets")
    async with Engine.open(MemoryEventStore(), workflows=[waiting], namespace=namespace) as engine:
        await engine.start(waiting, id="w")
    (_, point) = measured.points("aion.append.duration")[0]
    assert point.explicit_bounds[:3] == (0.0005, 0.001, 0.0025)
    assert point.explicit_bounds[-1] == 600.0


async def test_appends_are_timed_and_conflicts_counted(
    measured: RecordedMetrics, namespace: str
) -> None:
    waiting = waiter("metrics_appends", signals=2)
    inner = MemoryEventStore()
    store = FaultyStore(inner)

    def appends() -> dict[Any, int]:
        return {
            attributes.get("error.type"): point.count
            for attributes, point in measured.points("aion.append.duration")
        }

    def conflicts() -> int:
        return int(measured.values("aion.append.conflicts").get(None, 0))

    async with (
        Engine.open(store, workflows=[waiting], namespace=namespace) as engine,
        Client.open(inner, namespace=namespace) as client,
    ):
        before, conflicts_before = appends(), conflicts()
        handle = await engine.start(waiting, id="w")
        calls = store.calls
        store.hang(times=1)
        async with asyncio.TaskGroup() as group:
            group.create_task(handle.signal(go, "second"))
            await until(lambda: store.calls > calls)
            await client.handle("w").signal(go, "first")
            store.heal()
        await handle.result(timeout=SOON)
        after = appends()
    assert conflicts() - conflicts_before == 1
    missed = "concurrency_conflict"
    assert after[missed] - before.get(missed, 0) == 1
    assert after[None] - before.get(None, 0) == 3


# ---------------------------------------------------------------------------- looked up: in memory


async def test_runs_are_resident_until_they_are_evicted(
    measured: RecordedMetrics, namespace: str
) -> None:
    waiting = waiter("metrics_resident")
    async with Engine.open(
        MemoryEventStore(),
        workflows=[waiting],
        namespace=namespace,
        options=EngineOptions(max_resident=2),
    ) as engine:
        for n in range(5):
            await engine.start(waiting, id=f"w{n}")
        assert measured.values("aion.runs.resident", "workflow_type", namespace=namespace) == {
            "metrics_resident": 2
        }
    assert measured.values("aion.runs.resident", namespace=namespace) == {}


async def test_a_pinned_version_that_is_not_loaded_shows_as_orphaned_and_its_runs_as_stuck(
    measured: RecordedMetrics, namespace: str
) -> None:
    old = waiter("metrics_orphaned")
    store = MemoryEventStore()
    async with Engine.open(store, workflows=[old], namespace=namespace) as engine:
        for n in range(3):
            await engine.start(old, id=f"w{n}")

    @workflow(name="metrics_orphaned", version="2")
    async def new(ctx: Context) -> str:
        return "new"

    def seen(name: str) -> dict[Any, Any]:
        return measured.values(name, "workflow_version", namespace=namespace)

    async with Engine.open(store, workflows=[new], namespace=namespace) as engine:
        await engine.wait_recovered()
        assert seen("aion.runs.orphaned") == {"1": 3}
        await engine.handle("w0").signal(go, "x")
        assert seen("aion.runs.stuck") == {"1": 1}
        engine.catalog.register_workflow(old)
        await engine.handle("w0").result(timeout=SOON)
        assert seen("aion.runs.orphaned") == {}
        assert seen("aion.runs.stuck") == {}


async def test_a_run_of_which_nothing_could_be_read_shows_as_stuck_under_no_type(
    measured: RecordedMetrics, namespace: str
) -> None:
    waiting = waiter("metrics_unread")
    store = MemoryEventStore()
    async with Engine.open(store, workflows=[waiting], namespace=namespace) as engine:
        await engine.start(waiting, id="bad")
    stream = workflow_stream(Namespace(namespace), WorkflowId("bad"))
    (last,) = [event async for event in store.read(stream)]
    unknown = NewEvent(UUID(int=1), "FromTheFuture", b"{}", last.metadata)
    await store.append(stream, [unknown], expected=0)
    async with Engine.open(store, workflows=[waiting], namespace=namespace) as engine:
        with pytest.raises(UnknownEventTypeError):
            await engine.handle("bad").signal(go, "x")
        assert measured.values(
            "aion.runs.stuck", workflow_type="(unread)", namespace=namespace
        ) == {None: 1}

        def standing() -> tuple[Any, Any]:
            ready = measured.values("aion.engine.ready", namespace=namespace)
            stopped = [point.value for _, point in measured.points("aion.projection.stopped")]
            return ready.get(None), sum(stopped)

        await becomes(standing, (0, 1))


async def test_activities_wait_and_run_by_queue(measured: RecordedMetrics, namespace: str) -> None:
    release = asyncio.Event()

    @activity(name="metrics_held")
    async def held(n: int) -> int:
        await release.wait()
        return n

    @workflow(name="metrics_pending")
    async def many(ctx: Context) -> int:
        return sum(await asyncio.gather(*[ctx.run(held, n, task_queue="narrow") for n in range(5)]))

    def seen() -> dict[Any, Any]:
        return measured.values("aion.activities.pending", "state", namespace=namespace)

    async with Engine.open(
        MemoryEventStore(),
        workflows=[many],
        activities=[held],
        namespace=namespace,
        options=EngineOptions(queues={"narrow": QueueOptions(max_concurrent=2)}),
    ) as engine:
        handle = await engine.start(many, id="w")
        await becomes(seen, {"running": 2, "waiting": 3})
        ((of, _), _) = measured.points("aion.activities.pending", namespace=namespace)
        assert of["aion.task_queue"] == "narrow"
        release.set()
        await handle.result(timeout=SOON)
        assert seen() == {}


async def test_timers_are_armed_and_overdue(
    measured: RecordedMetrics, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @workflow(name="metrics_timers")
    async def sleeps(ctx: Context) -> None:
        await ctx.sleep(timedelta(minutes=1))

    clock = ManualClock()

    def seen() -> tuple[int, int]:
        armed = measured.values("aion.timers.armed", namespace=namespace)[None]
        overdue = measured.values("aion.timers.overdue", namespace=namespace)[None]
        return armed, overdue

    async with Engine.open(
        MemoryEventStore(), workflows=[sleeps], namespace=namespace, clock=clock
    ) as engine:
        await engine.wait_recovered()
        handles = [await engine.start(sleeps, id=f"w{n}") for n in range(3)]
        assert seen() == (3, 0)
        clock.advance(timedelta(minutes=1))
        assert seen() == (3, 3)  # the engine has had no turn yet
        for handle in handles:
            await handle.result(timeout=SOON)
        assert seen() == (0, 0)


# ------------------------------------------------------------------ asked for once a second


async def test_an_engine_is_ready_and_its_follower_is_not_behind(
    measured: RecordedMetrics, namespace: str
) -> None:
    waiting = waiter("metrics_ready")
    async with Engine.open(MemoryEventStore(), workflows=[waiting], namespace=namespace) as engine:
        await engine.start(waiting, id="w")
        await becomes(lambda: measured.values("aion.engine.ready", namespace=namespace), {None: 1})
        await becomes(lambda: measured.values("aion.follower.lag", namespace=namespace), {None: 0})


async def test_a_follower_is_not_behind_in_what_it_does_not_follow(
    measured: RecordedMetrics, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, looked = 0, EngineMeter._look

    async def look(meter: EngineMeter) -> None:
        nonlocal looks
        await looked(meter)
        looks += 1

    monkeypatch.setattr(EngineMeter, "_look", look)
    waiting = waiter("metrics_beside")
    measured.collect()
    async with Engine.open(MemoryEventStore(), workflows=[waiting], namespace=namespace) as engine:
        hourly = Schedule(id="s", spec=Interval(timedelta(hours=1)), action=Start(waiting))
        await engine.start(waiting, id="w")
        await engine.schedules.create(hourly)  # a later event, in another stream
        wanted = looks + 2
        await until(lambda: looks >= wanted)
        assert measured.values("aion.follower.lag", namespace=namespace) == {None: 0}


async def test_an_engine_whose_store_is_away_is_not_ready(
    measured: RecordedMetrics, namespace: str
) -> None:
    store = FaultyStore(MemoryEventStore())
    async with Engine.open(store, namespace=namespace) as engine:
        await engine.wait_recovered()
        await becomes(lambda: measured.values("aion.engine.ready", namespace=namespace), {None: 1})
        store.go_away()
        await becomes(lambda: measured.values("aion.engine.ready", namespace=namespace), {None: 0})
        assert measured.values("aion.follower.lag", namespace=namespace) == {}
        store.heal()
        await becomes(lambda: measured.values("aion.engine.ready", namespace=namespace), {None: 1})


async def test_a_follower_that_hears_nothing_falls_behind(
    measured: RecordedMetrics, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = waiter("metrics_behind")
    inner = MemoryEventStore()
    async with (
        Engine.open(inner, workflows=[waiting], namespace=namespace) as engine,
        Client.open(inner, namespace=namespace) as client,
    ):
        await engine.wait_recovered()
        await becomes(lambda: measured.values("aion.follower.lag", namespace=namespace), {None: 0})
        monkeypatch.setattr("aion_es.engine.follower.Follower._hear", never_hears)
        await client.start(waiting, id="w")
        await becomes(lambda: measured.values("aion.follower.lag", namespace=namespace), {None: 1})


def never_hears(_follower: Any, _events: Any) -> None:
    from aion_es.errors import StoreUnavailableError

    raise StoreUnavailableError("injected")


async def test_a_schedule_that_nobody_can_start_shows_how_long_it_has_been_due(
    measured: RecordedMetrics, namespace: str
) -> None:
    waiting = waiter("metrics_schedules")
    store, clock = MemoryEventStore(), ManualClock()

    def seen() -> dict[Any, Any]:
        return measured.values("aion.schedule.lag", namespace=namespace)

    async with Engine.open(store, workflows=[waiting], namespace=namespace, clock=clock) as engine:
        hourly = Schedule(id="s", spec=Interval(timedelta(hours=1)), action=Start(waiting))
        await engine.schedules.create(hourly)
        await becomes(seen, {None: 0.0})
    async with Engine.open(store, namespace=namespace, clock=clock) as engine:
        await engine.wait_recovered()
        (summary,) = await engine.schedules.list()
        assert summary.next_due_at is not None
        clock.advance(summary.next_due_at - clock.now() + timedelta(minutes=5))
        await becomes(seen, {None: 300.0})


# ------------------------------------------------------------------------------------ the list


def declared() -> dict[str, tuple[str, str]]:
    """Return unit and kind of every instrument in `aion_es.metrics`, by name."""
    found: dict[str, tuple[str, str]] = {}
    for instrument in vars(instruments).values():
        made: Any = instrument
        if isinstance(instrument, instruments.Gauge):
            found[instrument.name] = (instrument.unit, "gauge")
        elif isinstance(instrument, Histogram):
            found[made._name] = (made._unit, "histogram")
        elif isinstance(instrument, Counter):
            found[made._name] = (made._unit, "counter")
    return found


def listed() -> dict[str, tuple[str, str]]:
    """Return unit and kind of every metric in the guide's table, by name."""
    row = re.compile(
        r"^\| `(aion\.[a-z._]+)` \| (gauge|counter|histogram), `([^`]+)` \|", re.MULTILINE
    )
    return {name: (unit, kind) for name, kind, unit in row.findall(GUIDE.read_text())}


def test_the_guide_lists_every_metric_with_kind_and_unit() -> None:
    assert listed() == declared()


def test_the_guide_lists_every_attribute_and_no_other() -> None:
    modules = (telemetry, observed, metering)
    known = {
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, str) and value.startswith("aion.")
    }
    words = set(re.findall(r"`(aion\.[a-z_]+)`", GUIDE.read_text()))
    commands = {f"aion.{command}" for command in COMMANDS}
    assert words - commands - set(declared()) == known - UNUSUAL


COMMANDS = {
    "cancel", "terminate", "pause", "resume", "reopen", "set_attributes", "continue_as_new",
}  # fmt: skip
UNUSUAL = {observed.ACTION}
"""Of consumers, which no engine has."""


def test_every_metric_is_in_the_package_s_name() -> None:
    assert all(name.startswith("aion.") for name in declared())


# --------------------------------------------------------------------------------- nobody measures


async def test_without_an_sdk_nothing_is_counted_timed_or_looked_up(
    monkeypatch: pytest.MonkeyPatch, namespace: str
) -> None:
    asked: list[str] = []
    for module in (
        "aion_es.engine.core",
        "aion_es.engine.dispatcher",
        "aion_es.aggregates.repository",
    ):
        monkeypatch.setattr(f"{module}.is_measuring", lambda: False)
    for name in ("FOLLOWER_LAG", "SCHEDULE_LAG", "ENGINE_READY"):
        gauge = instruments.Gauge(f"test.{name.lower()}", "1", "")
        monkeypatch.setattr(f"aion_es.engine.metering.{name}", gauge)
    for name in ("ACTIVATIONS", "ACTIVITY_DURATION", "APPEND_DURATION", "APPEND_CONFLICTS"):
        for module in ("metrics", "engine.core", "engine.dispatcher"):
            monkeypatch.setattr(f"aion_es.{module}.{name}", Refusing(asked), raising=False)
    monkeypatch.setattr(EngineMeter, "_look", lambda _: asked.append("look"))
    waiting = waiter("metrics_nobody")
    async with Engine.open(MemoryEventStore(), workflows=[waiting], namespace=namespace) as engine:
        handle = await engine.start(waiting, id="w")
        await handle.signal(go, "x")
        await handle.result(timeout=SOON)
        await asyncio.sleep(0)
    assert asked == []


class Refusing:
    """An instrument that notes that it was used."""

    def __init__(self, asked: list[str]) -> None:
        self._asked = asked

    def add(self, *_: Any) -> None:
        self._asked.append("add")

    def record(self, *_: Any) -> None:
        self._asked.append("record")

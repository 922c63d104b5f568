"""What a program with an OpenTelemetry SDK is told of its projections."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from aion_es.metrics import PROJECTION_LAG, Gauge
from aion_es.projections import ReadModel
from aion_es.store.memory import MemoryEventStore
from tests.unit.projections.logs import Breaking, Log, append, append_poison, runner_of, running
from tests.unit.recorded_metrics import installed_reader

Values = dict[tuple[str, bool], float]
"""By projection, and whether it is the making of its rows anew."""


@pytest.fixture(scope="session")
def sdk() -> InMemoryMetricReader:
    """The program's SDK: there can be one in a process, and it stays."""
    return installed_reader()


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aion_es.projections.runner.HEARTBEAT", timedelta(milliseconds=5))


def collected(sdk: InMemoryMetricReader, name: str, model: ReadModel) -> Values:
    """Return a metric's values of one read model, as they are exported now."""
    data = sdk.get_metrics_data()
    values: Values = {}
    for resource in [] if data is None else data.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                for point in metric.data.data_points:
                    of: Any = point.attributes
                    if metric.name == name and of["aion.read_model"] == model.name:
                        exported: Any = point
                        key = (of["aion.projection"], of["aion.rebuild"])
                        values[key] = exported.value
    return values


async def until(there: Callable[[], Values], expected: Values) -> None:
    """Return when the exported values are these; what differs is shown if they never are."""
    for _ in range(1_000):
        if there() == expected:
            return
        await asyncio.sleep(0.005)
    assert there() == expected


async def test_a_projection_that_stands_still_shows_how_far_and_that_it_does(
    store: MemoryEventStore, model: ReadModel, sdk: InMemoryMetricReader
) -> None:
    await append(store, 3)
    await append_poison(store)
    await append(store, 2)
    runner = runner_of(store, model, Log(), Breaking())
    async with running(runner):
        await until(
            lambda: collected(sdk, "aion.projection.lag", model),
            {("log", False): 0, ("breaking", False): 3},
        )
        await until(
            lambda: collected(sdk, "aion.projection.stopped", model),
            {("log", False): 0, ("breaking", False): 1},
        )
        lag_time = collected(sdk, "aion.projection.lag_time", model)
        assert lag_time["log", False] == 0.0
        assert lag_time["breaking", False] >= 0.0
        (failed,) = collected(sdk, "aion.projection.failures", model).items()
        assert failed[0] == ("breaking", False)
        assert failed[1] >= 1


async def test_an_event_that_was_skipped_is_counted_and_the_projection_goes_on(
    store: MemoryEventStore, model: ReadModel, sdk: InMemoryMetricReader
) -> None:
    await append(store, 3)
    poison = await append_poison(store)
    runner = runner_of(store, model, Breaking())
    async with running(runner):
        await until(
            lambda: collected(sdk, "aion.projection.stopped", model), {("breaking", False): 1}
        )
        await runner.skip("breaking", poison.position)
        await until(
            lambda: collected(sdk, "aion.projection.skipped", model), {("breaking", False): 1}
        )
        await until(
            lambda: collected(sdk, "aion.projection.stopped", model), {("breaking", False): 0}
        )


async def test_every_event_that_was_handled_is_counted_once(
    store: MemoryEventStore, model: ReadModel, sdk: InMemoryMetricReader
) -> None:
    await append(store, 7)
    runner = runner_of(store, model, Log(), max_batch=2)
    async with running(runner):
        await runner.wait_until_caught_up()
        assert collected(sdk, "aion.projection.events", model) == {("log", False): 7}


async def test_a_runner_that_ended_shows_nothing_any_more(
    store: MemoryEventStore, model: ReadModel, sdk: InMemoryMetricReader
) -> None:
    await append(store, 1)
    async with running(runner_of(store, model, Log())):
        await until(lambda: collected(sdk, "aion.projection.lag", model), {("log", False): 0})
    assert collected(sdk, "aion.projection.lag", model) == {}


async def test_nobody_looks_how_projections_stand_while_nobody_collects(
    store: MemoryEventStore, model: ReadModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(
        "aion_es.projections.metering._GAUGES", tuple(Gauge(f"test.{n}", "1", "") for n in range(4))
    )
    runner = runner_of(store, model, Log())
    looked = runner.status

    async def status() -> Any:
        asked.append("status")
        return await looked()

    monkeypatch.setattr(runner, "status", status)
    await append(store, 3)
    async with running(runner):
        await runner.wait_until_caught_up()
        await runner.rebuild("log")
        await runner.wait_until_rebuilt("log")
    assert asked == []


def test_a_gauge_knows_that_it_was_asked_for(sdk: InMemoryMetricReader) -> None:
    sdk.get_metrics_data()
    assert PROJECTION_LAG.is_asked

"""The adapter on a real cluster of three nodes whose leader is killed while an engine is at work."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from aion_es import Context, Engine, activity, workflow
from aion_es.ids import DEFAULT_NAMESPACE, WorkflowId, workflow_stream
from aion_es.store.url import open_store
from tests.e2e.scenario import until
from tests.integration.cluster import (
    AUTHORITY,
    NODES,
    Cluster,
    cluster_uri,
    leader_port,
    running_cluster,
)
from tests.integration.servers import skip_without_docker

pytest.importorskip("grpc", reason="no EventStoreDB client is installed: make test-clients")
skip_without_docker()

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]

RUNS = 20
GOAL = 100
STARTING = 180.0
"""Seconds that three nodes may take to make their certificates, start and elect a leader."""
ELECTION = 60.0


@activity
async def add_one(number: int) -> int:
    await asyncio.sleep(0.05)  # so that a run lasts for seconds, and the leader dies in its middle
    return number + 1


@workflow
async def counting(ctx: Context, goal: int) -> int:
    number = 0
    while number < goal:
        number = await ctx.run(add_one, number)
    return number


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with running_cluster() as cluster:
        yield cluster


async def _leader(ports: list[int]) -> int | None:
    return await leader_port(ports, AUTHORITY.read_bytes()) if AUTHORITY.exists() else None


async def _has_leader(ports: list[int]) -> bool:
    return await _leader(ports) in ports


async def test_workflows_go_on_when_the_leader_is_killed_and_no_history_shows_it(
    cluster: Cluster, tmp_path: Path
) -> None:
    await until(lambda: _has_leader(list(NODES)), seconds=STARTING)
    read_model = f"sqlite:///{tmp_path}/readmodel.db"
    async with Engine.open(
        cluster_uri(), workflows=[counting], activities=[add_one], read_model=read_model
    ) as engine:
        handles = [
            await engine.start(counting, GOAL, id=f"count-{number}") for number in range(RUNS)
        ]
        waiting = [
            asyncio.ensure_future(handle.result(timeout=timedelta(minutes=3))) for handle in handles
        ]
        leader = await _leader(list(NODES))
        assert leader is not None
        cluster.kill(leader)
        assert [result.done() for result in waiting] == [False] * RUNS
        others = [port for port in NODES if port != leader]
        await until(lambda: _has_leader(others), seconds=ELECTION)
        results = await asyncio.gather(*waiting)
    assert results == [GOAL] * RUNS
    store = await open_store(cluster_uri())
    histories = []
    for number in range(RUNS):
        stream = workflow_stream(DEFAULT_NAMESPACE, WorkflowId(f"count-{number}"))
        histories.append([event.type async for event in store.read(stream)])
    await store.aclose()
    # That an attempt began is recorded as often as one was made, which a killed leader may add to.
    settled = [[kind for kind in types if kind != "ActivityStarted"] for types in histories]
    expected = ["WorkflowStarted"]
    expected += ["ActivityScheduled", "ActivityCompleted"] * GOAL
    expected += ["WorkflowCompleted"]
    assert settled == [expected] * RUNS

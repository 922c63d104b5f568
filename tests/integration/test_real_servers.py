"""The adapter on real servers, through testcontainers: the store contract, and a workflow from start to end."""

import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

import pytest

from aion_es import Context, Engine, activity, workflow
from aion_es.ids import UUIDv7Source
from aion_es.store.eventstoredb import EventStoreDBStore
from aion_es.store.port import EventStore
from aion_es.testing.store_contract import StoreContract
from tests.integration.certificates import make_certificates
from tests.integration.confined import Confined
from tests.integration.servers import KINDS, Kind, running, skip_without_docker

pytest.importorskip("grpc", reason="no EventStoreDB client is installed: make test-clients")
skip_without_docker()

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

_CORNERS = itertools.count()


@pytest.fixture(scope="module", params=KINDS, ids=str)
def uri(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The connection string of a server that runs for this module."""
    kind: Kind = request.param
    with running(kind, make_certificates(tmp_path_factory.mktemp("certificates"))) as uri:
        yield uri


class TestEventStoreDBStoreOnARealServer(StoreContract):
    """Each test has a corner of its own on the one server: streams and groups with a prefix."""

    patience: ClassVar[float] = 60.0
    examples: ClassVar[int] = 10
    message_timeout: ClassVar[timedelta] = timedelta(seconds=1)

    _uri: ClassVar[str] = ""

    @pytest.fixture(autouse=True)
    def _server(self, uri: str) -> None:
        type(self)._uri = uri

    @asynccontextmanager
    async def open_store(self) -> AsyncIterator[EventStore]:
        corner = f"{UUIDv7Source().new()}.{next(_CORNERS)}."
        store = Confined(await EventStoreDBStore.open(self._uri), corner)
        try:
            yield store
        finally:
            await store.aclose()

    async def reopen(self, store: EventStore) -> EventStore:
        assert isinstance(store, Confined)
        await store.aclose()
        return Confined(await EventStoreDBStore.open(self._uri), store.corner)

    async def test_a_consumer_holds_no_more_than_its_buffer(self, store: EventStore) -> None:
        pytest.skip("a server gives a consumer what fits its buffer before it asks for it")


@activity
async def double(number: int) -> int:
    return 2 * number


@workflow
async def doubling(ctx: Context, number: int) -> int:
    await ctx.sleep(timedelta(milliseconds=10))
    return await ctx.run(double, number)


async def test_workflows_run_and_are_taken_up_again(uri: str, tmp_path: Path) -> None:
    namespace = f"it_{UUIDv7Source().new().replace('-', '')}"
    for opening in range(2):
        async with Engine.open(
            uri,
            workflows=[doubling],
            activities=[double],
            namespace=namespace,
            read_model=f"sqlite:///{tmp_path}/readmodel.db",
        ) as engine:
            await engine.wait_recovered(timedelta(seconds=30))
            handles = [
                await engine.start(doubling, number, id=f"{opening}-{number}")
                for number in range(50)
            ]
            results = [await handle.result(timeout=timedelta(seconds=60)) for handle in handles]
            assert results == [2 * number for number in range(50)]
            await engine.projections.wait_until_caught_up()
            assert await engine.visibility.count() == 50 * (opening + 1)

"""Packages of code in an engine: loaded, routed, kept across a restart, heard of by others, unloaded."""

import asyncio
import sys
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from aion_es import Context, Engine, Signal, activity, workflow
from aion_es.aggregates.catalog_repository import CatalogRepository, PackageRepository
from aion_es.engine import version_use
from aion_es.engine.package_modules import LoadedPackage, release
from aion_es.errors import (
    PackageError,
    PackageNotFoundError,
    ProjectionLagError,
    VersionNotLoadedError,
    VersionPinnedError,
    WorkflowTypeNotFoundError,
)
from aion_es.ids import (
    DEFAULT_NAMESPACE,
    WorkflowId,
    catalog_stream,
    package_stream,
    workflow_stream,
)
from aion_es.store.port import NewEvent
from aion_es.testing.clock import ManualClock
from tests.e2e.conftest import EngineOpener
from tests.e2e.scenario import SOON, kinds, stream_of, until
from tests.unit.aggregates.histories import NOON

go = Signal("go")

CODE = """
from aion_es import Context, Signal, activity, workflow
from shop.rates import RATE

go = Signal("go")

@activity
async def price(amount: int) -> int:
    from shop import rates
    return amount * rates.RATE

@workflow
async def checkout(ctx: Context, amount: int) -> int:
    await ctx.receive(go)
    return await ctx.run(price, amount)

@workflow
async def quote(ctx: Context, amount: int) -> int:
    return await ctx.run(price, amount)

@workflow
async def again(ctx: Context, left: int) -> int:
    if left:
        await ctx.receive(go)
        return ctx.continue_as_new(left - 1)
    return RATE
"""


def package(folder: Path, rate: int, code: str = CODE, **more: str) -> Path:
    place = folder / f"shop-{rate}" / "shop"
    place.mkdir(parents=True, exist_ok=True)
    for name, text in {"__init__": "", "rates": f"RATE = {rate}\n", "flows": code, **more}.items():
        (place / f"{name}.py").write_text(text)
    return place.parent


async def version_of(handle: Any) -> str:
    description = await handle.describe()
    assert isinstance(description.version, str)
    return description.version


async def records(engine: Engine, stream: str) -> list[str]:
    return [event.type async for event in engine.store.read(stream)]  # type: ignore[arg-type]  # any stream's name


async def test_two_versions_of_a_package_run_side_by_side_each_with_its_own_activities(
    open_engine: EngineOpener, tmp_path: Path
) -> None:
    async with open_engine() as engine:
        one = await engine.catalog.load_package(package(tmp_path, 1))
        old = await engine.start("checkout", 10)
        two = await engine.catalog.load_package(package(tmp_path, 2))
        new = await engine.start("checkout", 10)
        assert [await version_of(h) for h in (old, new)] == [one.version, two.version]
        for handle in (old, new):
            await handle.signal(go)
        assert [await h.result(timeout=SOON) for h in (old, new)] == [10, 20]


async def test_packages_routes_and_pinned_runs_come_back_with_the_next_engine(
    open_engine: EngineOpener, tmp_path: Path
) -> None:
    async with open_engine() as engine:
        one = await engine.catalog.load_package(package(tmp_path, 1))
        await engine.start("checkout", 10, id="old")
        two = await engine.catalog.load_package(package(tmp_path, 2))
        await engine.start("checkout", 10, id="new")
        await engine.catalog.route("quote", one.version)
    async with open_engine() as engine:
        listed = engine.catalog.list_packages()
        assert [(p.version, p.name, p.routed, p.failure) for p in listed] == [
            (one.version, "shop-1", ("quote",), None),
            (two.version, "shop-2", ("again", "checkout"), None),
        ]
        assert [(p.workflows, p.activities) for p in listed] == [
            (("again", "checkout", "quote"), ("price",))
        ] * 2
        assert await (await engine.start("quote", 5)).result(timeout=SOON) == 5
        for name in ("old", "new"):
            await engine.handle(name).signal(go)
        results = [await engine.handle(n).result(timeout=SOON) for n in ("old", "new")]
        assert results == [10, 20]
        assert engine.orphaned == ()


async def test_a_package_larger_than_an_event_is_kept_in_parts_and_read_whole(
    open_engine: EngineOpener, tmp_path: Path
) -> None:
    folder = package(tmp_path, 3)
    (folder / "shop" / "large.txt").write_bytes(bytes(range(256)) * 8_000)
    async with open_engine() as engine:
        loaded = await engine.catalog.load_package(folder)
        stream = package_stream(DEFAULT_NAMESPACE, loaded.version)
        assert await records(engine, stream) == ["PackageUploadBegan"] + ["PackagePartStored"] * 6
        await engine.catalog.load_package(folder)  # nothing is stored twice
        assert len(await records(engine, stream)) == 7
        assert await records(engine, catalog_stream(DEFAULT_NAMESPACE)) == [
            "PackageLoaded",
            "RoutesChanged",
        ]
    async with open_engine() as engine:
        assert await (await engine.start("quote", 2)).result(timeout=SOON) == 6


async def test_a_package_that_cannot_be_used_is_refused_and_nothing_is_recorded(
    open_engine: EngineOpener, tmp_path: Path
) -> None:
    async with open_engine() as engine:
        with pytest.raises(PackageError, match=r"importing 'shop\.flows' raised"):
            await engine.catalog.load_package(package(tmp_path, 1, "import nowhere"))
        assert engine.catalog.list_packages() == ()
        assert [event async for event in engine.store.read_all()] == []


async def test_a_package_that_is_loaded_without_a_route_is_taken_by_no_new_run_until_one_leads_there(
    open_engine: EngineOpener, tmp_path: Path
) -> None:
    async with open_engine() as engine:
        one = await engine.catalog.load_package(package(tmp_path, 1), route=False)
        with pytest.raises(WorkflowTypeNotFoundError):
            await engine.start("quote", 1)
        await engine.catalog.route("quote", one.version)
        assert await (await engine.start("quote", 7)).result(timeout=SOON) == 7


FAMILY = """
from aion_es import Context, Signal, workflow
from shop.rates import RATE

go = Signal("go")

@workflow
async def parent(ctx: Context) -> list[int]:
    await ctx.receive(go)
    return [await ctx.spawn("child"), await ctx.spawn("outsider")]

@workflow
async def child(ctx: Context) -> int:
    return RATE
"""


@workflow(version="label")
async def outsider(ctx: Context) -> int:
    return -1


async def test_a_child_takes_its_parents_package_where_that_holds_its_type(
    open_engine: EngineOpener, tmp_path: Path
) -> None:
    async with open_engine([outsider]) as engine:
        await engine.catalog.load_package(package(tmp_path, 1, FAMILY))
        handle = await engine.start("parent")
        await engine.catalog.load_package(package(tmp_path, 2, FAMILY))
        await handle.signal(go)
        assert await handle.result(timeout=SOON) == [1, -1]


@workflow(name="quote", version="by hand")
async def labelled(ctx: Context, amount: int) -> int:
    return await ctx.run(price, amount)


@activity
async def price(amount: int) -> int:
    return -amount


async def test_a_label_and_a_package_are_versions_of_one_type_each_with_its_own_activities(
    open_engine: EngineOpener, tmp_path: Path
) -> None:
    async with open_engine([labelled], [price]) as engine:
        assert await (await engine.start("quote", 5)).result(timeout=SOON) == -5
        one = await engine.catalog.load_package(package(tmp_path, 1))
        assert engine.catalog.versions()["quote"] == ("by hand", one.version)
        assert await (await engine.start(labelled, 5)).result(timeout=SOON) == 5
        await engine.catalog.route("quote", "by hand")
        assert await (await engine.start(labelled, 5)).result(timeout=SOON) == -5
    async with open_engine([labelled], [price]) as engine:
        assert await version_of(await engine.start("quote", 5)) == "by hand"


async def test_a_start_is_refused_where_the_routed_version_is_not_loaded(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([labelled], [price]) as engine:
        await engine.catalog.route("quote", "by hand")
    async with open_engine([], [price]) as engine:
        with pytest.raises(VersionNotLoadedError, match="new runs of 'quote' take 'by hand'"):
            await engine.start("quote", 5)
        engine.catalog.register_workflow(labelled)
        assert await (await engine.start("quote", 5)).result(timeout=SOON) == -5


async def test_what_is_not_loaded_cannot_be_routed_and_changes_nothing(
    open_engine: EngineOpener, tmp_path: Path
) -> None:
    async with open_engine() as engine:
        one = await engine.catalog.load_package(package(tmp_path, 1))
        with pytest.raises(WorkflowTypeNotFoundError):
            await engine.catalog.route_group({"quote": one.version, "nothing": one.version})
        with pytest.raises(VersionNotLoadedError):
            await engine.catalog.route("quote", "0" * 64)
        assert len(await records(engine, catalog_stream(DEFAULT_NAMESPACE))) == 2


async def test_continue_as_new_takes_the_version_that_is_routed_by_then(
    open_engine: EngineOpener, tmp_path: Path
) -> None:
    async with open_engine() as engine:
        await engine.catalog.load_package(package(tmp_path, 1))
        handle = await engine.start("again", 1)
        two = await engine.catalog.load_package(package(tmp_path, 2))
        await handle.signal(go)
        assert await handle.result(timeout=SOON) == 2
        assert await version_of(engine.handle(handle.workflow_id)) == two.version


async def test_continue_as_new_keeps_the_runs_version_where_no_route_is_left(
    open_engine: EngineOpener, tmp_path: Path
) -> None:
    async with open_engine() as engine:
        one = await engine.catalog.load_package(package(tmp_path, 1))
        handle = await engine.start("again", 1)
        two = await engine.catalog.load_package(package(tmp_path, 2))
        await engine.catalog.unload(two.version)
        assert engine.catalog.routed_version("again") is None
        await handle.signal(go)
        assert await handle.result(timeout=SOON) == 1
        assert await version_of(engine.handle(handle.workflow_id)) == one.version
        assert await stream_of(engine, handle.workflow_id) == [
            "WorkflowStarted",
            "SignalReceived",
            "WorkflowContinuedAsNew",
            "WorkflowStarted",
            "WorkflowCompleted",
        ]


async def flipping(engine: Engine, one: LoadedPackage, two: LoadedPackage, flips: int) -> int:
    """Flip two types to and fro; return how often a start saw a route that was not there any more."""
    wrong = 0
    for turn in range(flips):
        target = (one, two)[turn % 2]
        await engine.catalog.route_group({"quote": target.version, "checkout": target.version})
        starts = await asyncio.gather(*(engine.start("quote", turn) for _ in range(3)))
        wrong += [await version_of(h) for h in starts] != [target.version] * 3
    return wrong


async def test_a_flip_is_atomic_under_eight_concurrent_starters(
    open_engine: EngineOpener, tmp_path: Path
) -> None:
    async with open_engine() as engine:
        one = await engine.catalog.load_package(package(tmp_path, 1))
        two = await engine.catalog.load_package(package(tmp_path, 2))
        stop = asyncio.Event()
        seen: list[tuple[str | None, str | None]] = []
        started: list[Any] = []

        async def starter() -> None:
            while not stop.is_set():
                seen.append(
                    (
                        engine.catalog.routed_version("quote"),
                        engine.catalog.routed_version("checkout"),
                    )
                )
                started.append(await engine.start("quote", 1))

        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(starter())
            wrong = await flipping(engine, one, two, flips=20)
            stop.set()
        versions = {await version_of(handle) for handle in started}
        assert wrong == 0
        assert versions == {one.version, two.version}
        assert {a == b for a, b in seen} == {True}
        results = {await h.result(timeout=SOON) for h in started}
        assert results == {1, 2}


async def test_a_flip_is_atomic_for_eight_starters_in_another_process(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'aion.db'}"
    async with Engine.open(url) as engine:
        one = await engine.catalog.load_package(package(tmp_path, 1))
        two = await engine.catalog.load_package(package(tmp_path, 2))
        other = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.e2e.other_starter",
            url,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert other.stdout is not None
        assert await other.stdout.readline() == b"open\n"
        rates = {one.version: 1, two.version: 2}
        assert await flipping(engine, one, two, flips=20) == 0
        said, _ = await other.communicate(b"")
        started, *halves = said.decode().split()
        assert (other.returncode, halves) == (0, [])
        await engine.projections.wait_until_caught_up()
        versions: list[str] = []
        async for row in engine.visibility.list("WorkflowId STARTS_WITH '0-'"):
            version = row.package_version
            versions.append(version)
            assert await engine.handle(row.workflow_id).result(timeout=SOON) == rates[version]
        assert set(versions) == set(rates)
        assert int(started) > len(versions)


async def test_another_engine_hears_of_packages_and_routes(
    open_engine: EngineOpener, tmp_path: Path
) -> None:
    async with open_engine() as here, open_engine() as there:
        one = await here.catalog.load_package(package(tmp_path, 1))
        await until(lambda: there.catalog.routed_version("quote") == one.version)
        assert await (await there.start("quote", 3)).result(timeout=SOON) == 3
        two = await there.catalog.load_package(package(tmp_path, 2))
        await until(lambda: here.catalog.routed_version("quote") == two.version)
        await here.catalog.unload(one.version)
        await until(lambda: [p.version for p in there.catalog.list_packages()] == [two.version])
        with pytest.raises(PackageNotFoundError):
            there.catalog.package(one.version)


async def test_a_package_is_not_unloaded_while_an_open_run_needs_it(
    open_engine: EngineOpener, tmp_path: Path
) -> None:
    async with open_engine() as engine:
        one = await engine.catalog.load_package(package(tmp_path, 1))
        handles = [await engine.start("checkout", n) for n in range(3)]
        with pytest.raises(VersionPinnedError) as refused:
            await engine.catalog.unload(one.version)
        error = refused.value
        assert (error.version, error.runs, error.children, error.types) == (
            one.version,
            3,
            0,
            ("checkout",),
        )
        for handle in handles:
            await handle.signal(go)
            await handle.result(timeout=SOON)
        await engine.catalog.unload(one.version)
        assert engine.catalog.list_packages() == ()
        with pytest.raises(WorkflowTypeNotFoundError):
            await engine.start("quote", 1)
        with pytest.raises(PackageNotFoundError):
            await engine.catalog.unload(one.version)
        again = await engine.catalog.load_package(package(tmp_path, 1))
        assert again.version == one.version
        assert await (await engine.start("quote", 4)).result(timeout=SOON) == 4


async def test_a_package_is_not_unloaded_while_it_is_not_known_who_needs_it(
    open_engine: EngineOpener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(version_use, "PATIENCE", timedelta(milliseconds=50))
    async with open_engine() as engine:
        one = await engine.catalog.load_package(package(tmp_path, 1))
        handle = await engine.start("checkout", 1)
        stream = workflow_stream(DEFAULT_NAMESPACE, WorkflowId(handle.workflow_id))
        (started,) = [event async for event in engine.store.read(stream)]
        unread = NewEvent(
            uuid.uuid5(started.event_id, "next"), "FromTheFuture", b"{}", started.metadata
        )
        await engine.store.append(stream, [unread], expected=started.revision)
        with pytest.raises(ProjectionLagError, match="pending_work"):
            await engine.catalog.unload(one.version)
        await engine.catalog.route("quote", one.version)  # nobody waits for that unloading
        assert [p.name for p in engine.catalog.list_packages()] == ["shop-1"]


async def test_unloading_drops_the_routes_that_led_there_and_no_others(
    open_engine: EngineOpener, tmp_path: Path
) -> None:
    async with open_engine([labelled], [price]) as engine:
        one = await engine.catalog.load_package(package(tmp_path, 1))
        two = await engine.catalog.load_package(package(tmp_path, 2))
        await engine.catalog.route("again", one.version)
        await engine.catalog.unload(two.version)
        assert engine.catalog.routed_version("again") == one.version
        assert engine.catalog.routed_version("quote") == "by hand"
        assert engine.catalog.routed_version("checkout") is None


async def test_a_package_that_does_not_load_here_is_reported_and_its_runs_go_on_when_it_does(
    open_engine: EngineOpener,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    clock: ManualClock,  # stands still: no restart comes of itself
) -> None:
    needs = CODE + "\nimport only_on_some_machines\n"
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "only_on_some_machines.py").write_text("")
    async with open_engine(clock=clock) as engine:
        one = await engine.catalog.load_package(package(tmp_path, 1, needs))
        await engine.start("checkout", 10, id="waits")
    # As in a new process, on a machine that has no such module.
    (tmp_path / "lib" / "only_on_some_machines.py").unlink()
    monkeypatch.delitem(sys.modules, "only_on_some_machines")
    release(one.version, purge=True)
    async with open_engine(clock=clock) as engine:
        await engine.wait_recovered(SOON)
        (listed,) = engine.catalog.list_packages()
        assert listed.failure is not None
        assert "No module named 'only_on_some_machines'" in listed.failure
        (orphan,) = engine.orphaned
        assert (orphan.workflow_type, orphan.version, orphan.runs) == ("checkout", one.version, 1)
        assert orphan.reason == listed.failure
        handle = engine.handle("waits")
        await handle.signal(go)
        reason = (await handle.describe()).stuck_reason
        assert reason is not None
        assert "load its package with catalog.load_package" in reason
        (tmp_path / "lib" / "only_on_some_machines.py").write_text("")
        await engine.catalog.load_package(package(tmp_path, 1, needs))
        assert await handle.result(timeout=SOON) == 10
        assert engine.orphaned == ()


async def test_damaged_files_are_noticed_by_their_hash_and_reported(
    open_engine: EngineOpener, tmp_path: Path
) -> None:
    version = "ab" * 32
    store = open_engine.store
    uploads, catalogs = PackageRepository(store), CatalogRepository(store)
    upload = await uploads.load(version)
    upload.begin(3, at=NOON)
    upload.store(0, b"abc", at=NOON)
    await uploads.save(upload)
    await catalogs.execute(lambda c: c.load(version, "bad", ["quote"], [], routed=True, at=NOON))
    async with open_engine() as engine:
        (listed,) = engine.catalog.list_packages()
        assert listed.failure == f"package {version}: its files are not what its hash says"
        with pytest.raises(VersionNotLoadedError, match="its files are not what its hash says"):
            await engine.start("quote", 1)
        one = await engine.catalog.load_package(package(tmp_path, 1))
        assert await (await engine.start("quote", 2)).result(timeout=SOON) == 2
        assert one.version != version


async def test_nothing_of_packages_shows_in_the_history_of_a_workflow(
    open_engine: EngineOpener, tmp_path: Path
) -> None:
    async with open_engine() as engine:
        await engine.catalog.load_package(package(tmp_path, 1))
        handle = await engine.start("quote", 2)
        await handle.result(timeout=SOON)
        assert await stream_of(engine, handle.workflow_id) == await kinds(handle)

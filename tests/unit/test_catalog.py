"""The catalog's tables: routes, versions of packages beside labels, what children and activities take."""

from collections.abc import Iterator

import pytest

from aion_es import Context, activity, workflow
from aion_es.engine.catalog import Catalog
from aion_es.engine.package_modules import LoadedPackage, load, release
from aion_es.engine.packages import PackageFiles
from aion_es.errors import (
    ActivityTypeNotFoundError,
    VersionNotLoadedError,
    WorkflowTypeNotFoundError,
)

CODE = """
from aion_es import Context, activity, workflow

@workflow
async def parent(ctx: Context) -> int: return {0}
@workflow
async def child(ctx: Context) -> int: return {0}
@activity
async def price() -> int: return {0}
"""


@workflow(version="1")
async def parent(ctx: Context) -> int:
    return -1


@workflow(version="1")
async def child(ctx: Context) -> int:
    return -1


@workflow(version="1")
async def alone(ctx: Context) -> int:
    return -1


@activity
async def price() -> int:
    return -1


@pytest.fixture
def packages() -> Iterator[list[LoadedPackage]]:
    made = [load(PackageFiles({"m.py": CODE.format(n).encode()}), f"p{n}") for n in (1, 2)]
    yield made
    for package in made:
        release(package.version, purge=True)


def test_a_package_is_beside_a_label_and_takes_no_run_until_a_route_leads_there(
    packages: list[LoadedPackage],
) -> None:
    catalog = Catalog([parent])
    one = packages[0]
    catalog.add_package(one)
    assert catalog.versions() == {"parent": ("1", one.version), "child": (one.version,)}
    assert catalog.routed("parent").version == "1"
    with pytest.raises(WorkflowTypeNotFoundError):
        catalog.routed("child")
    catalog.set_routes({"parent": one.version, "child": one.version})
    assert catalog.routed("parent").version == catalog.routed("child").version == one.version
    catalog.set_routes({})
    assert catalog.routed_version("parent") == "1"
    assert catalog.routed_version("child") is None


def test_a_recorded_route_comes_before_a_label_that_is_registered_later() -> None:
    catalog = Catalog()
    catalog.set_routes({"parent": "0"})
    catalog.register_workflow(parent)
    assert catalog.routed_version("parent") == "0"
    with pytest.raises(VersionNotLoadedError) as refused:
        catalog.routed("parent")
    assert (refused.value.version, refused.value.runs, refused.value.loaded) == ("0", 0, ("1",))


def test_a_child_takes_its_parents_package_if_that_holds_its_type_else_the_route(
    packages: list[LoadedPackage],
) -> None:
    one, two = packages
    catalog = Catalog([parent, child, alone])
    for package in packages:
        catalog.add_package(package)
    catalog.set_routes({"child": two.version})
    assert catalog.child_version("parent", one.version, "child") == one.version
    assert catalog.child_version("parent", one.version, "alone") == "1"
    assert catalog.child_version("parent", "1", "child") == two.version
    assert catalog.child_version("alone", one.version, "child") == two.version
    assert catalog.child_version("parent", one.version, "nothing") is None


def test_an_activity_is_that_of_the_runs_own_package_else_the_registered_one(
    packages: list[LoadedPackage],
) -> None:
    one, two = packages
    catalog = Catalog((), [price])
    catalog.add_package(one)
    assert catalog.activity("price", one.version) is one.activities["price"]
    for version in (None, "1", two.version):
        assert catalog.activity("price", version).function is price
    with pytest.raises(ActivityTypeNotFoundError) as refused:
        catalog.activity("ship", one.version)
    assert refused.value.known == ("price",)


def test_a_package_that_is_taken_out_leaves_nothing_behind(packages: list[LoadedPackage]) -> None:
    catalog = Catalog([parent])
    catalog.add_package(packages[0])
    catalog.remove_package(packages[0].version)
    catalog.remove_package(packages[0].version)
    assert catalog.versions() == {"parent": ("1",)}
    assert not catalog.has("child", packages[0].version)

"""The catalog aggregate and the upload of packages."""

import random
from datetime import datetime
from typing import Any

import pytest

from aion_es.aggregates.catalog_repository import CatalogRepository, PackageRepository
from aion_es.aggregates.code_catalog import CodeCatalog, PackageEntry, is_package_version
from aion_es.aggregates.package_upload import PackageUpload
from aion_es.errors import (
    ConcurrencyConflictError,
    InvalidArgumentError,
    PackageNotFoundError,
)
from aion_es.events import catalog as ev
from aion_es.events.base import Event
from aion_es.store.memory import MemoryEventStore
from aion_es.testing.aggregates import Given
from tests.unit.aggregates.histories import NOON

ONE, TWO = "1a" * 32, "2b" * 32
LOADED = ev.PackageLoaded(
    version=ONE, name="shop.zip", workflows=("checkout", "quote"), activities=("price",)
)
ROUTED = ev.RoutesChanged(routes={"checkout": ONE, "quote": ONE})


def given_catalog(*events: Event) -> Given[CodeCatalog]:
    return Given(CodeCatalog("aion"), events, NOON)


def load(catalog: CodeCatalog, *, routed: bool) -> Any:
    types = ["checkout", "quote"], ["price"]
    return catalog.load(ONE, "shop.zip", *types, routed=routed, at=NOON)


def test_a_package_is_loaded_and_all_its_types_are_led_to_it_in_one_append() -> None:
    given_catalog().when(lambda c: load(c, routed=True)).then(LOADED, ROUTED)
    given_catalog().when(lambda c: load(c, routed=False)).then(LOADED)


def test_a_package_that_is_loaded_already_adds_only_routes_that_are_new() -> None:
    given_catalog(LOADED, ROUTED).when(lambda c: load(c, routed=True)).then()
    half = ev.RoutesChanged(routes={"checkout": ONE, "quote": "2"})
    given_catalog(LOADED, half).when(lambda c: load(c, routed=True)).then(
        ev.RoutesChanged(routes={"quote": ONE})
    )


def test_a_group_of_routes_changes_in_one_event_with_what_is_new_in_it() -> None:
    given_catalog(LOADED, ROUTED).when(
        lambda c: c.route({"checkout": "1", "quote": ONE, "other": "7"}, at=NOON)
    ).then(ev.RoutesChanged(routes={"checkout": "1", "other": "7"}))


def test_a_package_that_is_not_loaded_cannot_be_routed_nor_unloaded() -> None:
    given_catalog(LOADED).when(lambda c: c.route({"quote": TWO}, at=NOON)).then_refused(
        PackageNotFoundError, version=TWO, loaded=(ONE,)
    )
    given_catalog(LOADED).when(lambda c: c.unload(TWO, at=NOON)).then_refused(
        PackageNotFoundError, version=TWO, loaded=(ONE,)
    )


def test_unloading_takes_the_routes_along_that_led_there() -> None:
    catalog = given_catalog(LOADED, ROUTED, ev.RoutesChanged(routes={"quote": "label"}))
    catalog.when(lambda c: c.unload(ONE, at=NOON)).then(ev.PackageUnloaded(version=ONE))
    assert catalog.aggregate.state.packages == {}
    assert catalog.aggregate.state.routes == {"quote": "label"}


def test_the_state_says_what_was_loaded_and_where_types_lead() -> None:
    state = given_catalog(LOADED, ROUTED).aggregate.state
    assert state.packages == {ONE: PackageEntry("shop.zip", ("checkout", "quote"), ("price",))}
    assert state.routes == {"checkout": ONE, "quote": ONE}


@pytest.mark.parametrize("version", ["", "1", ONE[:-1], ONE.upper(), ONE + "0"])
def test_a_label_is_no_package(version: str) -> None:
    assert not is_package_version(version)
    given_catalog().when(
        lambda c: c.load(version, "x", ["a"], [], routed=True, at=NOON)
    ).then_refused(InvalidArgumentError, argument="version")


def given_upload(*events: Event) -> Given[PackageUpload]:
    return Given(PackageUpload(ONE), events, NOON)


BEGAN = ev.PackageUploadBegan(size=5)
ABC = ev.PackagePartStored(offset=0, data=b"abc")
DE = ev.PackagePartStored(offset=3, data=b"de")


def test_parts_follow_each_other_and_what_is_there_is_not_stored_again() -> None:
    given_upload().when(lambda p: p.begin(5, at=NOON)).then(BEGAN)
    given_upload(BEGAN).when(lambda p: p.begin(5, at=NOON)).then()
    given_upload(BEGAN).when(lambda p: p.store(0, b"abc", at=NOON)).then(ABC)
    given_upload(BEGAN, ABC).when(lambda p: p.store(0, b"abc", at=NOON)).then()
    given_upload(BEGAN, ABC).when(lambda p: p.store(2, b"cde", at=NOON)).then(DE)


def test_a_gap_and_what_goes_past_the_end_are_refused() -> None:
    given_upload(BEGAN, ABC).when(lambda p: p.store(4, b"e", at=NOON)).then_refused(
        InvalidArgumentError, argument="offset"
    )
    given_upload(BEGAN, ABC).when(lambda p: p.store(3, b"def", at=NOON)).then_refused(
        InvalidArgumentError, argument="offset"
    )
    given_upload().when(lambda p: p.store(0, b"a", at=NOON)).then_refused(
        InvalidArgumentError, argument="offset"
    )


def test_an_upload_is_complete_with_its_last_byte() -> None:
    steps = [(), (BEGAN,), (BEGAN, ABC), (BEGAN, ABC, DE)]
    uploads = [given_upload(*events).aggregate for events in steps]
    assert [upload.state.is_complete for upload in uploads] == [False, False, False, True]
    assert bytes(uploads[-1].state.content) == b"abcde"


@pytest.mark.parametrize(
    "command",
    [
        lambda at: CodeCatalog("aion").route({}, at=at),
        lambda at: CodeCatalog("aion").unload(ONE, at=at),
        lambda at: CodeCatalog("aion").load(ONE, "x", [], [], routed=True, at=at),
        lambda at: PackageUpload(ONE).begin(1, at=at),
        lambda at: PackageUpload(ONE).store(0, b"", at=at),
    ],
    ids=["route", "unload", "load", "begin", "store"],
)
def test_an_instant_without_an_offset_is_refused(command: Any) -> None:
    with pytest.raises(InvalidArgumentError):
        command(datetime(2026, 1, 1))


async def test_the_catalog_is_read_as_it_was_written() -> None:
    repository = CatalogRepository(MemoryEventStore())
    assert (await repository.load()).state.packages == {}
    await repository.execute(lambda c: load(c, routed=True))
    await repository.execute(lambda c: c.route({"quote": "label"}, at=NOON))
    state = (await repository.load()).state
    assert (list(state.packages), state.routes) == ([ONE], {"checkout": ONE, "quote": "label"})


async def test_two_who_store_the_same_package_at_once_store_it_once() -> None:
    repository = PackageRepository(MemoryEventStore())
    content = random.Random(6).randbytes(5)
    one, two = await repository.load(ONE), await repository.load(ONE)
    for upload in (one, two):
        upload.begin(5, at=NOON)
        upload.store(0, content[:3], at=NOON)
    await repository.save(one)
    with pytest.raises(ConcurrencyConflictError):
        await repository.save(two)
    two = await repository.load(ONE)
    assert two.begin(5, at=NOON) == two.store(0, content[:3], at=NOON) == ()
    two.store(3, content[3:], at=NOON)
    await repository.save(two)
    assert bytes((await repository.load(ONE)).state.content) == content

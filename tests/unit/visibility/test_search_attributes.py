"""Registering search attributes while everything runs, for every process."""

import asyncio
from typing import Any

import pytest

from aion_es import SearchAttribute
from aion_es.aggregates.attributes import AttributeSchema
from aion_es.errors import (
    AttributeTypeError,
    ConflictingAttributeTypeError,
    InvalidArgumentError,
    UnregisteredAttributeError,
)
from aion_es.events.values import AttributeValue
from aion_es.projections import ReadModel, VisibilityProjection
from aion_es.visibility import SearchAttributes, Visibility
from tests.unit.visibility.sample import fold, sample

REGION = SearchAttribute("region", str)
FROM_EVENTS = {"customer": "String", "ratio": "Float", "tags": "KeywordList", "total": "Int"}


async def test_what_events_carried_is_known(model: ReadModel) -> None:
    assert dict(await SearchAttributes(model, AttributeSchema()).all()) == FROM_EVENTS


async def test_a_registered_attribute_is_known_to_another_process_at_once(
    model: ReadModel, visibility: Visibility
) -> None:
    await SearchAttributes(model, AttributeSchema()).register(REGION, SearchAttribute("age", int))
    assert await visibility.count("region IS NULL AND age IS NULL") == 4
    assert await visibility.attributes.all() == {**FROM_EVENTS, "age": "Int", "region": "String"}


async def test_what_is_registered_outlives_the_rows(model: ReadModel) -> None:
    await SearchAttributes(model, AttributeSchema()).register(REGION)

    class Raised(VisibilityProjection):
        version = VisibilityProjection.version + 1

    await fold(model, sample(), Raised())
    assert (await SearchAttributes(model, AttributeSchema()).all())["region"] == "String"


async def test_the_same_again_is_fine_and_another_type_is_refused_wherever_it_came_from(
    model: ReadModel,
) -> None:
    here = SearchAttributes(model, AttributeSchema())
    await here.register(REGION)
    await here.register(REGION)
    elsewhere = SearchAttributes(model, AttributeSchema())
    for name in ("region", "total"):  # one was registered, the other came with an event
        with pytest.raises(ConflictingAttributeTypeError) as refused:
            await elsewhere.register(SearchAttribute("new", int), SearchAttribute(name, bool))
        assert refused.value.requested == "Bool"
    with pytest.raises(ConflictingAttributeTypeError):
        await elsewhere.register(SearchAttribute("new", int), SearchAttribute("new", str))
    assert "new" not in await elsewhere.all()


async def test_of_two_who_register_at_once_with_different_types_one_is_refused(
    model: ReadModel,
) -> None:
    kinds = (SearchAttribute("age", int), SearchAttribute("age", str))
    outcomes = await asyncio.gather(
        *(SearchAttributes(model, AttributeSchema()).register(kind) for kind in kinds),
        return_exceptions=True,
    )
    refused = [one for one in outcomes if one is not None]
    assert [type(one) for one in refused] == [ConflictingAttributeTypeError]


async def test_what_code_declares_is_published_and_must_agree(model: ReadModel) -> None:
    declared = AttributeSchema(REGION)
    await SearchAttributes(model, declared).publish()
    assert declared.get("total") == "Int"
    assert (await SearchAttributes(model, AttributeSchema()).all())["region"] == "String"
    with pytest.raises(ConflictingAttributeTypeError):
        await SearchAttributes(model, AttributeSchema(SearchAttribute("region", int))).publish()


async def test_values_for_a_workflow_register_their_keys_or_register_nothing(
    model: ReadModel,
) -> None:
    schema = AttributeSchema()
    attributes = SearchAttributes(model, schema)
    misfit: dict[SearchAttribute[Any], Any] = {SearchAttribute("age", int): "old", REGION: "eu"}
    with pytest.raises(AttributeTypeError):
        await attributes.typed(misfit)
    with pytest.raises(UnregisteredAttributeError) as unknown:
        await attributes.typed(REGION.to("eu") | {"custmer": "ana"})
    assert unknown.value.near == ("customer",)
    neither: Any = {5: 1}
    with pytest.raises(InvalidArgumentError, match="not by 5"):
        await attributes.typed(neither)
    with pytest.raises(InvalidArgumentError, match="not by 5"):
        schema.typed(neither)
    with pytest.raises(ConflictingAttributeTypeError):
        await attributes.typed({SearchAttribute("total", str): "1"})
    assert dict(await attributes.all()) == FROM_EVENTS
    assert await attributes.typed(REGION.to("eu") | {"customer": None}) == {
        "region": AttributeValue(type="String", value="eu"),
        "customer": None,
    }
    assert (await SearchAttributes(model, AttributeSchema()).all())["region"] == "String"

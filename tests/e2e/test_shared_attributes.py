"""Search attributes that only workflow code knows of: one type in every process, and the same again in replay."""

from typing import Any

import pytest

from aion_es import Context, SearchAttribute, Signal, workflow
from aion_es.aggregates.attributes import AttributeSchema
from aion_es.errors import AionError, ConflictingAttributeTypeError, StoreUnavailableError
from aion_es.events.values import AttributeValue
from aion_es.events.workflow import MarkerRecorded, SearchAttributesUpdated
from aion_es.projections import ReadModel
from tests.e2e.conftest import EngineOpener
from tests.e2e.scenario import SOON, events_of, kinds, stored, until

customer = SearchAttribute("customer", str)
as_number = SearchAttribute("customer", int)
go = Signal("go", str)


@workflow
async def sets_key(ctx: Context, name: str) -> str:
    try:
        ctx.set_attributes({customer: name})
    except AionError as error:
        return type(error).__name__
    return "set"


@workflow
async def sets_key_and_waits(ctx: Context, name: str) -> str:
    ctx.set_attributes({customer: name})
    return await ctx.receive(go)


@workflow
async def sets_name(ctx: Context, name: str) -> str:
    ctx.set_attributes({"customer": name})
    return "set"


@workflow
async def tries_twice(ctx: Context, name: str) -> list[str]:
    """Set an attribute by its name, wait, and set it again."""
    outcomes: list[str] = []
    for _ in range(2):
        try:
            ctx.set_attributes({"customer": name})
            outcomes.append("set")
        except AionError as error:
            outcomes.append(type(error).__name__)
        await ctx.receive(go)
    return outcomes


@workflow
async def tries_much(ctx: Context) -> int:
    refused = 0
    for _ in range(3):
        for name in ("unheard", "unseen"):
            try:
                ctx.set_attributes({name: 1})
            except AionError:
                refused += 1
    return refused


async def test_a_key_that_another_process_registered_with_another_type_is_refused_in_the_code(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([sets_key]) as one, open_engine([sets_key]) as other:
        await other.search_attributes.register(as_number)
        handle = await one.start(sets_key, "ana")
        assert await handle.result(timeout=SOON) == "ConflictingAttributeTypeError"
        assert await kinds(handle) == ["WorkflowStarted", "WorkflowCompleted"]
        assert await one.search_attributes.all() == {"customer": "Int"}


async def test_a_key_that_code_was_the_first_to_use_is_refused_with_another_type_everywhere(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([sets_key]) as one, open_engine([sets_key]) as other:
        assert await (await one.start(sets_key, "ana")).result(timeout=SOON) == "set"
        with pytest.raises(ConflictingAttributeTypeError):
            await other.search_attributes.register(as_number)
        with pytest.raises(ConflictingAttributeTypeError):
            await other.start(sets_key, "bo", attributes={as_number: 1})


async def test_of_two_engines_whose_code_disagrees_the_second_is_refused(
    open_engine: EngineOpener,
) -> None:
    @workflow(name="sets_number")
    async def sets_number(ctx: Context) -> str:
        try:
            ctx.set_attributes({as_number: 5})
        except AionError as error:
            return type(error).__name__
        return "set"

    async with open_engine([sets_key, sets_number]) as one, open_engine([sets_number]) as other:
        ended = [
            await (await one.start(sets_key, "ana")).result(timeout=SOON),
            await (await other.start(sets_number)).result(timeout=SOON),
        ]
        assert ended == ["set", "ConflictingAttributeTypeError"]
        assert await other.search_attributes.all() == {"customer": "String"}


async def test_a_name_that_another_process_registered_is_known_to_code_at_once(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([sets_name]) as one, open_engine([sets_name]) as other:
        await other.search_attributes.register(customer)
        handle = await one.start(sets_name, "ana")
        assert await handle.result(timeout=SOON) == "set"
        (updated,) = await events_of(handle, SearchAttributesUpdated)
        assert updated.attributes == {"customer": AttributeValue(type="String", value="ana")}


async def test_a_step_that_asks_often_for_names_that_nobody_registered_comes_to_an_end(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([tries_much]) as engine:
        handles = [await engine.start(tries_much) for _ in range(5)]
        assert [await handle.result(timeout=SOON) for handle in handles] == [6] * 5


async def test_a_refusal_is_the_same_in_replay_though_the_name_was_registered_meanwhile(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([tries_twice]) as engine:
        handle = await engine.start(tries_twice, "ana", id="w")
        await until(lambda: _has(handle, "MarkerRecorded"))
        await engine.search_attributes.register(customer)
    async with open_engine([tries_twice]) as engine:
        handle = engine.handle("w", tries_twice)
        await handle.signal(go, "on")
        await handle.signal(go, "on")
        assert await handle.result(timeout=SOON) == ["UnregisteredAttributeError", "set"]
        (marker,) = await events_of(handle, MarkerRecorded)
        assert marker.name == "unregistered attribute"


async def test_what_was_recorded_is_taken_again_in_replay_though_it_no_longer_fits(
    open_engine: EngineOpener,
) -> None:
    # As if recorded by a process that shared another read model, in which the name was free.
    async with open_engine([sets_key_and_waits]) as engine:
        handle = await engine.start(sets_key_and_waits, "ana", id="w")
        await until(lambda: _has(handle, "SearchAttributesUpdated"))
    async with open_engine([sets_key_and_waits]) as engine:
        schema = engine.schema
        schema._types["customer"] = "Int"
        handle = engine.handle("w", sets_key_and_waits)
        await handle.signal(go, "on")
        assert await handle.result(timeout=SOON) == "on"
        assert (await handle.describe()).attributes == {"customer": "ana"}


async def test_a_step_waits_while_its_key_cannot_be_registered_and_then_goes_on(
    open_engine: EngineOpener, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = ReadModel.write
    recorded_meanwhile: list[int] = []

    async with open_engine([sets_key]) as engine:

        async def twice_away(model: ReadModel, change: Any) -> Any:
            if "_register" in repr(change) and len(recorded_meanwhile) < 2:
                recorded_meanwhile.append(await stored(engine))
                raise StoreUnavailableError("away")
            return await write(model, change)

        monkeypatch.setattr(ReadModel, "write", twice_away)
        handle = await engine.start(sets_key, "ana")
        assert await handle.result(timeout=SOON) == "set"
        assert recorded_meanwhile == [0, 0]


async def test_an_aggregate_without_an_engine_registers_a_key_by_its_use() -> None:
    schema = AttributeSchema()
    assert schema.typed({customer: "ana"}) == {
        "customer": AttributeValue(type="String", value="ana")
    }
    assert schema["customer"] == "String"


async def _has(handle: Any, kind: str) -> bool:
    return kind in await kinds(handle)

"""`ctx.side_effect` is made once: what it returned, and what it raised, is the same in replay."""

import pytest

from aion_es import Context, Query, Signal, workflow
from aion_es.errors import InvalidArgumentError, PayloadTooLargeError
from aion_es.events.workflow import MarkerRecorded
from tests.e2e.conftest import EngineOpener
from tests.e2e.scenario import SOON, events_of, replayed

go = Signal("go")
state = Query("state", str)


class SettingMissingError(LookupError):
    def __init__(self, name: str, line: int) -> None:
        super().__init__(name, line)
        self.name, self.line = name, line


class KeywordsOnlyError(LookupError):
    def __init__(self, *, name: str) -> None:
        super().__init__(name)
        self.name = name


def errors() -> dict[str, Exception]:
    class OfTheFunctionError(LookupError):
        pass

    return {
        "builtin": FileNotFoundError(2, "no such file"),
        "own": SettingMissingError("rate", 7),
        "keywords": KeywordsOnlyError(name="rate"),
        "local": OfTheFunctionError("rate"),
        "ours": InvalidArgumentError("rate", "missing"),
        "odd": ValueError(object),
    }


@workflow
async def reads_settings(ctx: Context, broken: str) -> str:
    seen: list[str] = []
    ctx.answer(state, lambda: "; ".join(seen))

    def first() -> str:
        raise errors()[broken]

    try:
        ctx.side_effect(first, str)
    except SettingMissingError as error:
        seen.append(f"own {error.name} {error.line}")
    except LookupError as error:
        seen.append(f"lookup {error}")
    except FileNotFoundError as error:
        seen.append(f"file {error.errno} {error.strerror}")
    except InvalidArgumentError as error:
        seen.append(f"argument {error.argument}: {error.reason}")
    except ValueError as error:
        seen.append(f"value {error}")
    seen.append(ctx.side_effect(lambda: "second", str))
    await ctx.receive(go)
    seen.append(ctx.side_effect(lambda: "third", str))
    return "; ".join(seen)


@pytest.mark.parametrize(
    ("broken", "first"),
    [
        ("builtin", "file 2 no such file"),
        ("own", "own rate 7"),
        ("keywords", "lookup rate"),
        ("local", "lookup rate"),
        ("ours", "argument rate: missing"),
        ("odd", "value <class 'object'>"),
    ],
    ids=lambda value: value.split()[0],
)
async def test_an_error_is_raised_again_in_replay_and_shifts_nothing(
    open_engine: EngineOpener, broken: str, first: str
) -> None:
    async with open_engine([reads_settings]) as engine:
        handle = await engine.start(reads_settings, broken, id="w")
        assert await handle.query(state) == f"{first}; second"
    async with open_engine([reads_settings]) as engine:
        handle = engine.handle("w", reads_settings)
        assert await handle.query(state) == f"{first}; second"
        await handle.signal(go)
        assert await handle.result(timeout=SOON) == f"{first}; second; third"
        replayed(await handle.history(), reads_settings)


async def test_an_error_is_made_once(open_engine: EngineOpener) -> None:
    made: list[int] = []

    @workflow
    async def fails_once(ctx: Context) -> str:
        def make() -> str:
            made.append(1)
            raise OSError("away")

        with pytest.raises(OSError, match="away"):
            ctx.side_effect(make, str)
        await ctx.receive(go)
        return "done"

    async with open_engine([fails_once]) as engine:
        await engine.start(fails_once, id="w")
    async with open_engine([fails_once]) as engine:
        handle = engine.handle("w")
        await handle.signal(go)
        assert await handle.result(timeout=SOON) == "done"
    assert made == [1]


async def test_a_value_that_is_too_large_is_refused_again_in_replay(
    open_engine: EngineOpener,
) -> None:
    @workflow
    async def makes_much(ctx: Context) -> str:
        with pytest.raises(PayloadTooLargeError):
            ctx.side_effect(lambda: "x" * 2_000_000, str)
        small = ctx.side_effect(lambda: "small", str)
        await ctx.receive(go)
        return small

    async with open_engine([makes_much]) as engine:
        handle = await engine.start(makes_much)
        await handle.signal(go)
        assert await handle.result(timeout=SOON) == "small"
        replayed(await handle.history(), makes_much)


async def test_a_history_that_does_not_know_of_the_error_is_replayed_as_it_was(
    open_engine: EngineOpener,
) -> None:
    def rate() -> str:
        raise LookupError("no rate")

    @workflow(name="asks")
    async def asks(ctx: Context) -> str:
        with pytest.raises(LookupError):
            ctx.side_effect(rate, str)
        await ctx.receive(go)
        return "default"

    @workflow(name="asks")
    async def asks_unrecorded(ctx: Context) -> str:
        with pytest.raises(LookupError):
            rate()
        await ctx.receive(go)
        return "default"

    async with open_engine([asks_unrecorded]) as engine:
        handle = await engine.start(asks_unrecorded)
        await handle.signal(go)
        assert await handle.result(timeout=SOON) == "default"
        assert await events_of(handle, MarkerRecorded) == []
        replayed(await handle.history(), asks)

"""A query that draws random numbers takes none from the code."""

from collections.abc import Callable

import pytest

from aion_es import Context, Query, Signal, workflow
from tests.e2e.conftest import EngineOpener
from tests.e2e.scenario import SOON, replayed

go = Signal("go")
lot = Query("lot", str)


@pytest.mark.parametrize("draws_before", [0, 1], ids=["first draw", "later draw"])
@pytest.mark.parametrize(
    "draw",
    [lambda ctx: str(ctx.uuid4()), lambda ctx: str(ctx.random.random())],
    ids=["uuid4", "random"],
)
async def test_the_code_draws_what_it_would_have_drawn_unasked(
    open_engine: EngineOpener, draws_before: int, draw: Callable[[Context], str]
) -> None:
    @workflow
    async def draws(ctx: Context) -> list[float]:
        ctx.answer(lot, lambda: draw(ctx))
        numbers = [ctx.random.random() for _ in range(draws_before)]
        await ctx.receive(go)
        numbers.append(ctx.random.random())
        # A command that depends on the numbers: what is drawn in replay must be the same.
        await ctx.start_timer(f"{numbers[-1]}", ctx.now() - ctx.now())
        return numbers

    async with open_engine([draws]) as engine:
        handle = await engine.start(draws)
        answers = {await handle.query(lot) for _ in range(3)}
        assert len(answers) == 1
        await handle.signal(go)
        await handle.result(timeout=SOON)
        replayed(await handle.history(), draws)

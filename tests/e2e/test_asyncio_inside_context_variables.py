"""Context variables in workflow code: the code's own, never those of who started the run."""

import asyncio
import decimal
from contextvars import ContextVar

from aion_es import Context, Query, Signal, workflow
from tests.e2e.conftest import EngineOpener
from tests.e2e.scenario import SOON

tenant: ContextVar[str] = ContextVar("tenant", default="nobody's")
go = Signal("go")
seen = Query("seen", list[str])


@workflow
async def looks(ctx: Context) -> list[str]:
    found = [tenant.get(), str(decimal.Decimal(1) / 3)]
    ctx.answer(seen, lambda: found)
    tenant.set("the code's")
    await asyncio.gather(_notes(found), ctx.receive(go))
    return [*found, tenant.get()]


async def _notes(found: list[str]) -> None:
    found.append(tenant.get())


async def test_what_the_starter_has_set_is_not_seen_by_the_code(open_engine: EngineOpener) -> None:
    third = "0.3333333333333333333333333333"
    async with open_engine([looks]) as engine:
        token = tenant.set("ana's")
        with decimal.localcontext(prec=3):
            handle = await engine.start(looks, id="w")
        tenant.reset(token)
        assert await handle.query(seen) == ["nobody's", third, "the code's"]
    async with open_engine([looks]) as engine:
        handle = engine.handle("w")
        assert await handle.query(seen) == ["nobody's", third, "the code's"]
        await handle.signal(go)
        assert await handle.result(timeout=SOON) == ["nobody's", third, "the code's", "the code's"]

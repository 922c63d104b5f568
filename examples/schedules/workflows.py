"""The workflow that the schedules start, and one schedule for each overlap policy."""

import asyncio
from datetime import timedelta

from aion_es import Context, workflow
from aion_es.schedules import CatchUp, Interval, Overlap, Schedule, Start

EVERY = timedelta(seconds=1)
TAKES = timedelta(seconds=1.5)
"""Longer than the distance of two due times: so the policies have something to decide."""


@workflow
async def backup(ctx: Context, what: str) -> str:
    """Pretend to back something up."""
    await asyncio.sleep(TAKES.total_seconds())
    return f"{what} is safe, says {ctx.info.workflow_id}"


SCHEDULES = [
    Schedule(
        id=f"backup-{overlap.value.replace('_', '-')}",
        spec=Interval(EVERY),
        action=Start(backup, overlap.value),
        overlap=overlap,
        catch_up=CatchUp.ONE,
    )
    for overlap in Overlap
]

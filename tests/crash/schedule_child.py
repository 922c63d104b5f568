"""The child of `test_schedules_sigkill`: an engine with schedules that are due every second, until it is killed."""

import asyncio
import sys
from datetime import timedelta

from aion_es import Context, Engine, workflow
from aion_es.errors import ScheduleAlreadyExistsError
from aion_es.schedules import CatchUp, Interval, Overlap, Schedule, Start

SCHEDULES = {"all": Overlap.ALLOW_ALL, "buffered": Overlap.BUFFER_ALL, "skipped": Overlap.SKIP}


@workflow
async def naps(ctx: Context) -> str:
    await asyncio.sleep(0.3)
    return "rested"


async def main(url: str) -> None:
    async with Engine.open(url, workflows=[naps]) as engine:
        for schedule_id, overlap in SCHEDULES.items():
            schedule = Schedule(
                id=schedule_id,
                spec=Interval(timedelta(seconds=1)),
                action=Start(naps),
                overlap=overlap,
                catch_up=CatchUp.ALL,
            )
            try:
                await engine.schedules.create(schedule)
            except ScheduleAlreadyExistsError:
                continue
        print("open", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))

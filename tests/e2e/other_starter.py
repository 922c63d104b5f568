"""The other process of `test_packages`: starts runs with eight starters while somebody else flips routes.

`URL` says `open`, starts until its input ends, and says how many it started; then, if it is so, that it saw one type
led to one version and the other to another.
"""

import asyncio
import sys

from aion_es import Engine

TYPES = ("quote", "checkout")


async def start(url: str) -> None:
    async with Engine.open(url) as engine:
        stop = asyncio.Event()
        seen: set[tuple[str | None, ...]] = set()
        started = 0

        async def starter(number: int) -> None:
            nonlocal started
            while not stop.is_set():
                seen.add(tuple(map(engine.catalog.routed_version, TYPES)))
                await engine.start("quote", 1, id=f"{number}-{started}")
                started += 1

        async with asyncio.TaskGroup() as group:
            for number in range(8):
                group.create_task(starter(number))
            print("open", flush=True)
            await asyncio.to_thread(sys.stdin.read)
            stop.set()
        print(started, "halves" if any(len(set(pair)) > 1 for pair in seen) else "", flush=True)


if __name__ == "__main__":
    asyncio.run(start(sys.argv[1]))

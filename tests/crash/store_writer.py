"""The child of `test_store_sigkill`: forks writers that are killed.

Reads lines `<round> <path>`, each for a writer. That says `ack <stream> <revision> <position> <batch>` after every acknowledged append.
"""

import asyncio
import json
import random
import uuid

from aion_es.ids import StreamName
from aion_es.store.port import ANY, NewEvent
from aion_es.store.sqlite import SQLiteEventStore
from tests.crash.forking import fork_for_each_line, say

WRITERS = 16
SHARED_STREAMS = 5


def batch_of(batch: str, size: int, rng: random.Random) -> list[NewEvent]:
    return [
        NewEvent(
            uuid.UUID(int=rng.getrandbits(128), version=4),
            "Written",
            json.dumps([batch, index, size]).encode() + b" " * rng.choice((0, 100, 5_000)),
            b"{}",
        )
        for index in range(size)
    ]


async def write(store: SQLiteEventStore, round_: str, writer: int) -> None:
    rng = random.Random(f"{round_}-{writer}")
    count = 0
    while True:
        name = rng.choice((f"round-{round_}-{writer}", f"shared-{rng.randrange(SHARED_STREAMS)}"))
        batch = f"{round_}-{writer}-{count}"
        done = await store.append(StreamName(name), batch_of(batch, rng.randint(1, 5), rng), ANY)
        say(f"ack {name} {done.revision} {done.position} {batch}")
        count += 1


async def work(round_: str, path: str) -> None:
    store = await SQLiteEventStore.open(path)
    async with asyncio.TaskGroup() as tasks:
        for writer in range(WRITERS):
            tasks.create_task(write(store, round_, writer))


def writers(line: str) -> None:
    round_, path = line.split(maxsplit=1)
    asyncio.run(work(round_, path))


if __name__ == "__main__":
    fork_for_each_line(writers)

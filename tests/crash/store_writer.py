"""The child of `test_store_sigkill`: forks writers that are killed, so that each starts at once.

Reads lines `<round> <path>`; for each it forks a writer, says `pid <pid>`, and once that is dead `dead`.
A writer says `ack <stream> <revision> <position> <batch>` after every acknowledged append.
"""

import asyncio
import json
import os
import random
import sys
import uuid

from aion_es.ids import StreamName
from aion_es.store.port import ANY, NewEvent
from aion_es.store.sqlite import SQLiteEventStore

WRITERS = 16
SHARED_STREAMS = 5


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())  # at most PIPE_BUF: whole, or not at all


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


def main() -> None:
    for line in sys.stdin:
        round_, path = line.split(maxsplit=1)
        pid = os.fork()
        if pid == 0:
            asyncio.run(work(round_, path.strip()))
        say(f"pid {pid}")
        os.waitpid(pid, 0)
        say("dead")


if __name__ == "__main__":
    main()

"""Records the golden histories that are missing: `python -m tests.replay.record`. One that is there is never touched.

Real runs of the code in `workflows.py`, with a clock that stands still and ids that are counted, so that
recording again gives the same bytes but for the order in which activities happen to end.
"""

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from aion_es import Engine, WorkflowHandle, __version__
from aion_es.errors import WorkflowOutcomeError
from aion_es.store.memory import MemoryEventStore
from aion_es.store.port import RecordedEvent
from aion_es.testing.clock import ManualClock
from tests.replay.workflows import ACTIVITIES, WORKFLOWS, Order, bell, customer, number

HISTORIES = Path(__file__).with_name("histories")
RELEASE = __version__.rpartition(".")[0]


class CountedIds:
    """Ids that are numbers in the form of a UUID."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def new(self) -> str:
        """Return the next one."""
        return f"00000000-0000-7000-8000-{next(self._numbers):012d}"


Handle = WorkflowHandle[Any]
Drive = Callable[[Engine, Handle, ManualClock], Awaitable[None]]


async def _nothing(engine: Engine, handle: Handle, clock: ManualClock) -> None:
    """The code ends by itself."""


async def _a_minute_at_a_time(engine: Engine, handle: Handle, clock: ManualClock) -> None:
    for _ in range(5):
        await asyncio.sleep(0.05)
        clock.advance(timedelta(minutes=1))


async def _seconds(engine: Engine, handle: Handle, clock: ManualClock) -> None:
    for _ in range(20):
        await asyncio.sleep(0.03)
        clock.advance(timedelta(seconds=1))


async def _numbers_and_a_bell(engine: Engine, handle: Handle, clock: ManualClock) -> None:
    await handle.signal(number, 1, signal_id="one")
    await handle.signal(bell, signal_id="bell")
    await handle.signal(number, 2, signal_id="two")


async def _bells(engine: Engine, handle: Handle, clock: ManualClock) -> None:
    for ring in range(3):
        await asyncio.sleep(0.05)
        await handle.signal(bell, signal_id=f"bell-{ring}")


async def _one_bell(engine: Engine, handle: Handle, clock: ManualClock) -> None:
    await asyncio.sleep(0.05)
    await handle.signal(bell, signal_id="bell")


async def _cancel(engine: Engine, handle: Handle, clock: ManualClock) -> None:
    clock.advance(timedelta(seconds=1))
    await handle.cancel("no more")


async def _pause_between(engine: Engine, handle: Handle, clock: ManualClock) -> None:
    await handle.signal(number, 1, signal_id="one")
    await handle.pause("audit")
    await handle.signal(number, 2, signal_id="two")
    await handle.resume("audited")


async def _reopen(engine: Engine, handle: Handle, clock: ManualClock) -> None:
    while (await handle.describe()).status.is_open:  # noqa: ASYNC110 - the history is what tells
        await asyncio.sleep(0.01)
    clock.advance(timedelta(seconds=1))
    await handle.reopen()
    await handle.signal(number, 1, signal_id="one")


async def _reopen_and_wait(engine: Engine, handle: Handle, clock: ManualClock) -> None:
    while (await handle.describe()).status.is_open:  # noqa: ASYNC110 - the history is what tells
        await asyncio.sleep(0.01)
    clock.advance(timedelta(seconds=1))
    await handle.reopen()
    while (await handle.describe()).status.is_open:
        await asyncio.sleep(0.05)
        clock.advance(timedelta(seconds=1))


async def _terminate(engine: Engine, handle: Handle, clock: ManualClock) -> None:
    await _until_it_waits(handle)
    await handle.terminate("no more")


async def _let_time_out(engine: Engine, handle: Handle, clock: ManualClock) -> None:
    await _until_it_waits(handle)
    clock.advance(timedelta(hours=1))


async def _until_it_waits(handle: Handle) -> None:
    while (await handle.describe()).history_length < 4:  # noqa: ASYNC110 - the history is what tells
        await asyncio.sleep(0.01)


async def _hand_over(engine: Engine, handle: Handle, clock: ManualClock) -> None:
    for value in (1, 2, 3):
        await handle.signal(number, value, signal_id=f"number-{value}")
    await handle.signal(bell, signal_id="bell")


async def _reopen_the_child_first(engine: Engine, handle: Handle, clock: ManualClock) -> None:
    while (await handle.describe()).status.is_open:  # noqa: ASYNC110 - the history is what tells
        await asyncio.sleep(0.01)
    clock.advance(timedelta(seconds=1))
    await engine.handle("fails-at-first").reopen()
    await handle.reopen()


async def _three_numbers_then_a_bell(engine: Engine, handle: Handle, clock: ManualClock) -> None:
    for value in (1, 2, 3):
        await handle.signal(number, value, signal_id=f"number-{value}")
        await asyncio.sleep(0.05)
    await handle.signal(bell, signal_id="bell")


DRIVES: dict[str, tuple[Drive, tuple[Any, ...]]] = {
    "one_activity": (_nothing, (Order(id="42", amount_cents=999),)),
    "fan_out": (_nothing, ()),
    "retries": (_a_minute_at_a_time, ()),
    "timers": (_a_minute_at_a_time, ()),
    "signals": (_numbers_and_a_bell, ()),
    "chain": (_bells, (1,)),
    "cleans_up": (_cancel, ()),
    "cancels_activity": (_one_bell, ()),
    "markers": (_seconds, ()),
    "fails": (_nothing, ()),
    "paused": (_pause_between, ()),
    "primitives": (_seconds, ()),
    "waits_for_bell": (_one_bell, ()),
    "children": (_nothing, ()),
    "sends": (_nothing, ()),
    "reopened": (_reopen, ()),
    "taken_back": (_reopen_and_wait, ()),
    "heartbeats": (_seconds, ()),
    "handlers": (_three_numbers_then_a_bell, ()),
    "combines": (_nothing, ()),
    "waits": (_nothing, ()),
    "terminated": (_terminate, ()),
    "timed_out": (_let_time_out, ()),
    "hands_over": (_hand_over, (1,)),
    "small_things": (_seconds, ()),
    "fails_at_first": (_reopen_and_wait, ()),
    "brought_past": (_reopen_the_child_first, ()),
}
TIMEOUTS: dict[str, timedelta] = {"timed_out": timedelta(hours=1)}
"""Run timeouts of those that have one."""


async def record(name: str) -> str:
    """Run one workflow and return its history as it is kept: a JSON list, one event a line."""
    drive, arguments = DRIVES[name]
    clock = ManualClock()
    store = MemoryEventStore(clock)
    async with Engine.open(
        store,
        workflows=WORKFLOWS,
        activities=ACTIVITIES,
        search_attributes=[customer],
        clock=clock,
        ids=CountedIds(),
    ) as engine:
        started = await engine.start(name, *arguments, id=name, run_timeout=TIMEOUTS.get(name))
        try:
            await drive(engine, engine.handle(name), clock)
            await started.result(timeout=timedelta(seconds=10))
        except WorkflowOutcomeError:
            pass  # it was to end so
        stream = [event async for event in store.read(engine.repository.stream(name))]
    await store.aclose()
    return "[\n" + ",\n".join(_line(event) for event in stream) + "\n]\n"


def _line(event: RecordedEvent) -> str:
    here = str(Path(__file__).parents[2])
    entry = {
        "type": event.type,
        "data": json.loads(event.data.replace(f"{here}/".encode(), b"")),
        "metadata": json.loads(event.metadata),
    }
    return json.dumps(entry, ensure_ascii=False)


async def main() -> None:
    directory = HISTORIES / RELEASE
    directory.mkdir(parents=True, exist_ok=True)
    for name in DRIVES:
        path = directory / f"{name}.json"
        if not path.exists():
            path.write_text(await record(name), encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(main())

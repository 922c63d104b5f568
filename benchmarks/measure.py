"""One measurement of ours, in this process: `python -m benchmarks.measure NAME JSON`; prints one JSON line.

Every measurement gets a process of its own, so that none inherits another's memory, caches or threads.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from benchmarks import replay, schedules, visibility, waking, workloads

MEASUREMENTS: Final[Mapping[str, Callable[..., Awaitable[workloads.Measured]]]] = {
    function.__name__: function
    for function in (
        workloads.parallel,
        workloads.raw_inserts,
        workloads.sequential,
        workloads.steps,
        workloads.crash,
        workloads.recover,
        replay.histories,
        replay.chains,
        schedules.due_at_once,
        schedules.idle,
        visibility.catch_up,
        visibility.fill,
        visibility.pages,
        waking.sleepers,
        waking.wake_up,
        waking.timers_at_once,
        waking.signal_latency,
        waking.signal_from_a_client,
    )
}


async def measure(name: str, arguments: Mapping[str, Any]) -> workloads.Measured:
    """Return what the measurement of this name gives."""
    return await MEASUREMENTS[name](**arguments)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(sys.argv[1], json.loads(sys.argv[2])))))

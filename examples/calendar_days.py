"""Days that pass in a moment: a clock that is turned by hand, no faster than the workflows follow."""

import asyncio
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from aion_es import WorkflowHandle
from aion_es.testing import ManualClock


async def pass_days(
    clock: ManualClock, days: int, workflows: Iterable[WorkflowHandle[Any]]
) -> None:
    """Turn the clock, and return when each workflow has done what had become due."""
    clock.advance(timedelta(days=days))
    for handle in workflows:
        while not await _is_at_rest(handle, clock):  # noqa: ASYNC110 - the history is all there is to ask
            await asyncio.sleep(0.002)


async def _is_at_rest(handle: WorkflowHandle[Any], clock: ManualClock) -> bool:
    run = await handle.describe()
    if not run.status.is_open:
        return True
    has_begun = run.history_length > 1  # these workflows all do something in their first step
    overdue = any(due_at <= clock.now() for due_at in run.live_timers.values())
    return has_begun and not overdue and not run.pending_activities

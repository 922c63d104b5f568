"""Decisions on durable timers, and on what decided a `with_timeout`."""

from datetime import datetime
from typing import Literal

from aion_es.aggregates.guards import require_open, require_utc
from aion_es.aggregates.state import WorkflowState
from aion_es.errors import TimerAlreadyStartedError, TimerNotStartedError
from aion_es.events.workflow import (
    TimerCancelled,
    TimerFired,
    TimerStarted,
    WithTimeoutCompleted,
    WorkflowEvent,
)
from aion_es.ids import TimerId, check_id
from aion_es.payload import Payload


def start_timer(
    state: WorkflowState, timer_id: TimerId, fire_at: datetime
) -> tuple[WorkflowEvent, ...]:
    """Arm a timer; a name may be used again once its timer fired or was cancelled."""
    check_id("timer_id", timer_id)
    fire_at = require_utc("fire_at", fire_at)
    require_open(state)
    if timer_id in state.live_timers:
        raise TimerAlreadyStartedError(timer_id)
    return (TimerStarted(timer_id=timer_id, fire_at=fire_at),)


def fire_timer(state: WorkflowState, timer_id: TimerId) -> tuple[WorkflowEvent, ...]:
    """Fire a live timer, once."""
    require_open(state)
    if timer_id not in state.live_timers:
        return ()  # fired or cancelled by an earlier delivery: the fact is already in the stream
    return (TimerFired(timer_id=timer_id),)


def cancel_timer(state: WorkflowState, timer_id: TimerId) -> tuple[WorkflowEvent, ...]:
    """Disarm a live timer that the code no longer needs."""
    require_open(state)
    if timer_id not in state.live_timers:
        return ()
    return (TimerCancelled(timer_id=timer_id, cause="workflow"),)


def complete_with_timeout(
    state: WorkflowState,
    timer_id: TimerId,
    outcome: Literal["operation_completed", "timed_out"],
    result: Payload | None,
) -> tuple[WorkflowEvent, ...]:
    """Record what decided a `with_timeout`; what is decided stays."""
    require_open(state)
    if timer_id not in state.timers_started:
        raise TimerNotStartedError(timer_id)
    if timer_id in state.timeouts_decided:
        return ()
    return (WithTimeoutCompleted(timer_id=timer_id, outcome=outcome, result=result),)

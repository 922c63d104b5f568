"""Decisions on signals, received and sent; the signal's id makes each of them idempotent."""

from aion_es.aggregates.guards import require_open, require_run
from aion_es.aggregates.state import WorkflowState
from aion_es.errors import InvalidArgumentError
from aion_es.events.values import SignalMessage
from aion_es.events.workflow import (
    SignalDelivered,
    SignalReceived,
    SignalSendFailed,
    SignalSent,
    WorkflowEvent,
)
from aion_es.ids import SignalId, WorkflowId, check_id
from aion_es.payload import Payload


def receive_signal(
    state: WorkflowState, signal: SignalMessage, run_id: str | None
) -> tuple[WorkflowEvent, ...]:
    """Take in a message, once.

    A repeated delivery adds nothing even after the run closed: the first one did arrive, and its sender
    must not be told otherwise.
    """
    check_id("signal_id", signal.signal_id)
    require_run(state, run_id)
    if signal.signal_id in state.signal_ids:
        return ()
    require_open(state)
    return (
        SignalReceived(
            signal_id=signal.signal_id,
            name=signal.name,
            payload=signal.payload,
            sender=signal.sender,
        ),
    )


def send_signal(
    state: WorkflowState,
    signal_id: SignalId,
    target_workflow_id: WorkflowId,
    name: str,
    payload: Payload,
) -> tuple[WorkflowEvent, ...]:
    """Send a message to another workflow, once."""
    check_id("signal_id", signal_id)
    check_id("target_workflow_id", target_workflow_id)
    require_open(state)
    if signal_id in state.sent_signals:
        return ()
    return (
        SignalSent(
            signal_id=signal_id, target_workflow_id=target_workflow_id, name=name, payload=payload
        ),
    )


def confirm_signal(state: WorkflowState, signal_id: SignalId) -> tuple[WorkflowEvent, ...]:
    """Record that a message that this run sent has arrived, once."""
    if _is_settled(state, signal_id):
        return ()
    return (SignalDelivered(signal_id=signal_id),)


def fail_signal(
    state: WorkflowState, signal_id: SignalId, reason: str
) -> tuple[WorkflowEvent, ...]:
    """Record that a message that this run sent cannot be delivered, once."""
    if _is_settled(state, signal_id):
        return ()
    return (SignalSendFailed(signal_id=signal_id, reason=reason),)


def _is_settled(state: WorkflowState, signal_id: SignalId) -> bool:
    require_open(state)
    known = state.sent_signals.get(signal_id)
    if known is None:
        raise InvalidArgumentError("signal_id", f"this run sent no signal {signal_id!r}")
    return isinstance(known, str)

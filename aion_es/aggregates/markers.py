"""Decisions on markers: what the code learned once and must learn again in replay."""

from typing import Literal

from aion_es.aggregates.guards import require_open
from aion_es.aggregates.state import WorkflowState
from aion_es.events.workflow import MarkerRecorded, WorkflowEvent
from aion_es.payload import Payload


def record_marker(
    state: WorkflowState, kind: Literal["patch", "side_effect"], name: str, value: Payload | None
) -> tuple[WorkflowEvent, ...]:
    """Record a marker; a patch is recorded once per run, side effects may share a name."""
    require_open(state)
    if kind == "patch" and name in state.patches:
        return ()
    return (MarkerRecorded(kind=kind, name=name, value=value),)

"""Inputs that workflow code computes differently in replay: told in the log, once for each run.

Commands are matched by identity, so what was recorded stands and the run goes on. It may have been meant, a
correction for example. But code that walks over a set of texts, or reads a setting, gets its results
swapped without any other sign.
"""

import logging
from typing import Any, Final

from pydantic_core import to_json

from aion_es.engine.commands import Command, ScheduleActivity, StartChild
from aion_es.events.workflow import ActivityScheduled, ChildWorkflowStarted, WorkflowEvent
from aion_es.ids import RunId, WorkflowId

_LOG: Final = logging.getLogger("aion_es.replay")
_RUNS: Final = 1_000
"""So many runs are remembered; then the oldest may be told of again."""
_SHOWN: Final = 200
"""Characters shown of an input."""


class InputDrift:
    """Which runs of an engine have been told of."""

    __slots__ = ("_told",)

    def __init__(self) -> None:
        self._told: dict[RunId, None] = {}

    def compare(
        self, workflow_id: WorkflowId, run_id: RunId, command: Command, recorded: WorkflowEvent
    ) -> None:
        """Hold the input of a command against that of the event which records it."""
        if not isinstance(command, ScheduleActivity | StartChild):
            return
        if not isinstance(recorded, ActivityScheduled | ChildWorkflowStarted):
            return
        given, kept = command.input.data, recorded.input.data
        if given == kept or run_id in self._told:
            return
        given_text, kept_text = _text(given), _text(kept)
        if given_text == kept_text:  # the same JSON, only held in another form
            return
        if len(self._told) >= _RUNS:
            del self._told[next(iter(self._told))]
        self._told[run_id] = None
        _LOG.warning(
            "workflow %s: %s was recorded with the input %s, and in replay the code gives %s; what was recorded "
            "stands. Code that computes it from a set, the clock or the surroundings computes it anew",
            workflow_id,
            command,
            kept_text[:_SHOWN],
            given_text[:_SHOWN],
        )


def _text(data: Any) -> str:
    return to_json(data).decode()

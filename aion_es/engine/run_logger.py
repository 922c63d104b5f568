"""`ctx.logger`: with the run's ids, and silent while code does again what it did, or leaves memory."""

import logging
from collections.abc import Callable

from aion_es.aggregates.state import WorkflowState


class RunLogger(logging.LoggerAdapter[logging.Logger]):
    """Logs under the run's ids."""

    def __init__(self, state: WorkflowState, is_silent: Callable[[], bool]) -> None:
        """Log for a run.

        Args:
            state: Of the run.
            is_silent: Says whether the code is not to be heard now.
        """
        super().__init__(
            logging.getLogger(f"aion_es.workflow.{state.workflow_type}"),
            {
                "workflow_id": state.workflow_id,
                "run_id": state.run_id,
                "workflow_type": state.workflow_type,
            },
        )
        self._is_silent = is_silent

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - logging's name
        """Return whether a message would be written."""
        return not self._is_silent() and super().isEnabledFor(level)

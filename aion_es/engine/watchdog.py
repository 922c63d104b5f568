"""The watchdog: notices workflow code that holds up the engine in one step, and says where it stands.

Workflow code shares the engine's thread: a step that computes for seconds, or blocks, keeps everybody
waiting. Another thread looks now and then which step is being taken. It reads no clock in the step's way:
entering and leaving a step costs two assignments.
"""

import logging
import sys
import threading
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any, Final, NamedTuple, Protocol

from aion_es.errors import InvalidArgumentError
from aion_es.ids import RunId, WorkflowId

_LOG: Final = logging.getLogger("aion_es.watchdog")

_LOOKS: Final = 4
"""Looks per `max_step`: a step is reported at the latest after five quarters of it."""
_FRAMES: Final = 20
"""Innermost frames of the stack that are kept."""


class BlockedStep(NamedTuple):
    """A step of workflow code that took too long.

    Attributes:
        seconds: How long it had taken at least when it was noticed; it may have gone on.
        stack: Where it stood, innermost call last, as a traceback shows it.
    """

    workflow_id: WorkflowId
    run_id: RunId
    workflow_type: str
    seconds: float
    stack: str


class Step(Protocol):
    """What the watchdog must know of the code whose step is being taken."""

    @property
    def workflow(self) -> Any:
        """The run's aggregate."""
        ...


class StepWatch:
    """Which step is being taken. Written by the engine's thread, read by the watchdog's.

    Attributes:
        step: The code whose step it is; `None` between steps.
        count: Of all steps so far: tells two steps of the same code apart.
    """

    __slots__ = ("count", "step")

    def __init__(self) -> None:
        self.step: Step | None = None
        self.count = 0


class Watchdog:
    """A thread that looks after the steps of the thread that it was made in."""

    def __init__(
        self, watch: StepWatch, max_step: float, report: Callable[[BlockedStep], None]
    ) -> None:
        """Keep what is needed; `start` begins.

        Args:
            watch: Which step is being taken.
            max_step: Seconds that a step may take.
            report: Told of a step that takes longer, once, in the watchdog's thread.

        Raises:
            InvalidArgumentError: `max_step` is not positive.
        """
        if max_step <= 0:
            raise InvalidArgumentError("max_step", f"must be positive or None, got {max_step:g} s")
        self._watch = watch
        self._max_step = max_step
        self._report = report
        self._watched = threading.get_ident()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="aion-watchdog", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more; returns when the thread has ended."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        interval = self._max_step / _LOOKS
        seen, looks = -1, 0
        while not self._stop.wait(interval):
            step, count = self._watch.step, self._watch.count
            if step is None:
                seen, looks = -1, 0
            elif count != seen:
                seen, looks = count, 0
            else:
                looks += 1
                if looks == _LOOKS:
                    self._tell(step, count)

    def _tell(self, step: Step, count: int) -> None:
        # The only way to another thread's stack.
        frame = sys._current_frames().get(self._watched)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
        stack = "" if frame is None else _stack(frame)
        if self._watch.count != count or self._watch.step is not step:
            return  # it has just ended: the stack may be somebody else's
        state = step.workflow.state
        blocked = BlockedStep(
            state.workflow_id, state.run_id, state.workflow_type, self._max_step, stack
        )
        _LOG.warning(
            "workflow %s of type %s has held up the engine for %g s in one step; move the work into an activity:\n%s",
            blocked.workflow_id,
            blocked.workflow_type,
            blocked.seconds,
            blocked.stack,
        )
        self._report(blocked)


def _stack(frame: FrameType) -> str:
    return "".join(traceback.format_stack(frame)[-_FRAMES:])

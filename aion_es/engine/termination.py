"""SIGTERM: an engine that is told to end leaves its block as after Ctrl-C, drains, and then ends the program.

Ctrl-C needs nothing of ours: `asyncio.run` cancels the main task, and the block is left. SIGTERM would kill
the process on the spot; here it cancels the task that opened the engine.
"""

import asyncio
import signal
import threading
from types import FrameType
from typing import Final

EXIT_STATUS: Final = 128 + signal.SIGTERM
"""What a shell reports of a program that SIGTERM ended."""

_told: list["Termination"] = []
"""The open engines that a SIGTERM is for; the first to come installs the handler, the last to go removes it."""


class Termination:
    """One engine's part in it: from `watch` to `close` a SIGTERM cancels the task that called `watch`.

    Attributes:
        has_come: It has.
        is_leaving: The engine's block is being left.
        left: Set when it has been.
        ends_program: It has come, and this engine was the last of those that it was for to be left.
    """

    def __init__(self) -> None:
        self.has_come = False
        self.is_leaving = False
        self.ends_program = False
        self.left = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[object] | None = None

    def watch(self) -> None:
        """Begin. Does nothing outside the main thread, or where somebody else handles the signal."""
        if threading.current_thread() is not threading.main_thread():
            return
        if not _told:
            if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
                return
            try:
                signal.signal(signal.SIGTERM, _on_sigterm)
            except ValueError:  # a subinterpreter has no signals
                return
        elif signal.getsignal(signal.SIGTERM) is not _on_sigterm:
            return
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        _told.append(self)

    def close(self) -> None:
        """End; the last one gives the signal back, unless somebody else has taken it meanwhile."""
        if self not in _told:
            return
        _told.remove(self)
        self.left.set()
        self.ends_program = self.has_come and not _told
        if not _told and signal.getsignal(signal.SIGTERM) is _on_sigterm:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    async def others_left(self) -> None:
        """Return when no engine is being left any more; at once if the signal has not come.

        The end of this engine's task may well be the end of all tasks, and would cut the drains of others. One
        whose block is not being left yet may wait for this very task, so it is not waited for.
        """
        if self.has_come:
            for other in [told for told in _told if told.is_leaving]:
                await other.left.wait()

    def come(self) -> None:
        """Cancel the task, in its own loop."""
        self.has_come = True
        if self._loop is not None and self._task is not None:
            self._loop.call_soon_threadsafe(self._task.cancel)


def _on_sigterm(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # who cannot wait for the drain sends it again
    for termination in _told:
        termination.come()

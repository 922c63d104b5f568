"""Keeps a worker at work: starts it, kills it in mid-flight as often as was asked, and starts another."""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import IO, Final

from examples.order_fulfilment.effects import Ledger, Progress
from examples.order_fulfilment.files import Files

_STALLED_AFTER: Final = 120.0
"""Seconds without progress after which the demo gives up."""


class WorkerFailedError(Exception):
    """A worker ended by itself before its work was done, or got nowhere. The text has its last words."""


@dataclass(frozen=True)
class Plan:
    """How the work is done, and interrupted.

    Attributes:
        orders: How many there are.
        kills: How often a worker is killed.
        seconds_between_kills: A worker lives no longer, unless it is the last; it may be killed earlier, so
            that the kills fall evenly on the orders.
        latency: Seconds that the world takes to answer a call.
    """

    orders: int
    kills: int
    seconds_between_kills: float
    latency: float = 0.08

    @property
    def at_once(self) -> int:
        """Orders in work at the same time: few enough that a kill falls among them, enough to be quick."""
        return max(12, min(self.orders // 30, 500))

    @property
    def kills_due(self) -> bool:
        """Whether one kill must have been: a handful of orders may be done before there was a moment for it."""
        return self.kills > 0 and self.orders >= 20

    def kill_is_due(self, kill: int, done: int, seconds: float) -> bool:
        """Return whether kill number `kill` (from 1) is due at the latest now."""
        share = self.orders * kill // (self.kills + 1)
        return kill <= self.kills and (done >= share or seconds >= self.seconds_between_kills)


class Supervisor:
    """Sees the orders through, over as many workers as it takes.

    Args:
        files: What the workers work on.
        ledger: Theirs, open here as well.
        plan: See `Plan`.
        show: Told how many orders are done, many times a second.
        say: Told of every kill.
    """

    def __init__(
        self,
        files: Files,
        ledger: Ledger,
        plan: Plan,
        show: Callable[[int], None],
        say: Callable[[str], None],
    ) -> None:
        self.kills = 0
        self._command = _command(files, plan)
        self._ledger = ledger
        self._plan = plan
        self._show = show
        self._say = say

    def run(self) -> None:
        """Return when a worker has ended with everything done.

        Raises:
            WorkerFailedError: One failed, or nothing moves any more.
        """
        while True:
            with TemporaryFile("w+", errors="replace") as log, self._worker(log) as worker:
                try:
                    if self._watch(worker, log):
                        return
                finally:
                    worker.kill()

    def _worker(self, log: IO[str]) -> "subprocess.Popen[bytes]":
        # Its standard input is a pipe that nobody writes to: when we are gone it closes, and the worker ends.
        return subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=log
        )

    def _watch(self, worker: "subprocess.Popen[bytes]", log: IO[str]) -> bool:
        """Return true when the worker is done, false when it was killed."""
        before = last = self._ledger.progress()
        at_work_since: float | None = None
        moved_at = time.monotonic()
        while (status := worker.poll()) is None:
            asked_at = time.monotonic()
            progress = self._ledger.progress()
            self._show(progress.done)
            if progress != last:
                last, moved_at = progress, asked_at
            if at_work_since is None and progress.begun > before.begun:
                at_work_since = asked_at
            if at_work_since is not None and self._kill_is_due(progress, asked_at - at_work_since):
                self._kill(worker)
                return False
            if asked_at - moved_at > _STALLED_AFTER:
                raise WorkerFailedError(f"no progress for {_STALLED_AFTER:g} s{_last_words(log)}")
            # A look costs more the more orders there are; it must not take the worker's processor.
            time.sleep(max(0.02, 10 * (time.monotonic() - asked_at)))
        if status != 0:
            raise WorkerFailedError(f"a worker ended with status {status}{_last_words(log)}")
        self._show(self._ledger.progress().done)
        return True

    def _kill_is_due(self, progress: Progress, seconds: float) -> bool:
        return (
            self._plan.kill_is_due(self.kills + 1, progress.done, seconds)
            and self._ledger.half_done() > 0
        )

    def _kill(self, worker: "subprocess.Popen[bytes]") -> None:
        worker.kill()
        worker.wait()
        self.kills += 1
        done, half = self._ledger.progress().done, self._ledger.half_done()
        self._say(
            f"kill -9 of worker {worker.pid}: {done:,} orders done, {half:,} half done; starting another"
        )


def _command(files: Files, plan: Plan) -> Sequence[str]:
    return (
        *(sys.executable, "-m", "examples.order_fulfilment.worker"),
        *("--db", str(files.events), "--ledger", str(files.ledger)),
        *("--at-once", str(plan.at_once), "--latency", str(plan.latency)),
    )


def _last_words(log: IO[str]) -> str:
    log.seek(0)
    text = log.read()[-4_000:].strip()
    return f"; its last words:\n{text}" if text else ", without a word"

"""Process workers: activities in processes of their own, with a line to each for heartbeats and cancellation.

None of them is a fork of the engine, and none outlives it. Every process has a pipe of its own: a process that is
killed while it speaks then garbles nobody else's words and holds no lock that others need.

A terminal sends Ctrl-C to a program and all its processes at once, and so do some service managers with SIGTERM.
The engine's own process answers by draining; these go on meanwhile, and end with it.
"""

import asyncio
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any, Final, TypeAlias

from aion_es.authoring.activities import RUNNING, ActivityInfo, RunningActivity
from aion_es.engine.failures import activity_failure_of
from aion_es.engine.heartbeats import Pulse, payload_of_details
from aion_es.events.values import ActivityFailure, RetryPolicy
from aion_es.payload import Payload
from aion_es.telemetry import following, traceparent

BEAT_INTERVAL: Final = 0.05
"""Seconds; heartbeats within so short a time after one that was passed on are not."""

_DRAINING: Final = (signal.SIGINT, signal.SIGTERM)
"""At these the engine drains, in its own process."""

_Line: TypeAlias = "Connection[Any, Any]"


class FailedElsewhereError(Exception):
    """The code raised in its process, or thread; its exception stays there, for it may not survive the way.

    Attributes:
        failure: What is recorded of it.
    """

    def __init__(self, failure: ActivityFailure) -> None:
        super().__init__(failure.type, failure.message)
        self.failure = failure


class ProcessWorkers:
    """A pool of processes; one that dies takes the attempts of all with it, and the next call starts a new pool."""

    def __init__(self, max_workers: int, max_details_bytes: int) -> None:
        self._max_workers = max_workers
        self._max_details_bytes = max_details_bytes
        self._pool: _Pool | None = None

    async def call(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        pulse: Pulse,
        policy: RetryPolicy,
    ) -> Any:
        """Run a function in a process and return its result.

        Raises:
            FailedElsewhereError: It raised.
            BrokenProcessPool: A process of the pool died; what ran in the others is lost as well.
        """
        pool = self._pool
        if pool is None:
            pool = self._pool = _Pool(self._max_workers, self._max_details_bytes)
        try:
            return await pool.call(function, arguments, pulse, policy)
        except BrokenProcessPool:
            if self._pool is pool:
                self._pool = None
                pool.close()
            raise

    def tell_cancelled(self, pulse: Pulse) -> None:
        """Let an attempt see that it is no longer wanted."""
        if self._pool is not None:
            self._pool.tell_cancelled(pulse)

    def close(self) -> None:
        """Start nothing more."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None


class _Pool:
    """One pool, its lines, and the thread that listens to them."""

    def __init__(self, max_workers: int, max_details_bytes: int) -> None:
        # Not by a fork, which copies the locks that the engine's threads hold at that moment, and nobody in the copy
        # ever releases them; nor by a fork server, which a signal to the whole group ends, and the pool with it.
        context = multiprocessing.get_context("spawn")
        self._loop = asyncio.get_running_loop()
        self._calls: dict[int, Pulse] = {}
        self._lines_of: dict[int, _Line] = {}
        self._numbers = 0
        pipes = [context.Pipe() for _ in range(max_workers)]
        self._lines = [ours for ours, _ in pipes]
        self._theirs = [theirs for _, theirs in pipes]
        self._hang_up, self._hung_up = context.Pipe()
        self._pool = ProcessPoolExecutor(
            max_workers,
            mp_context=context,
            initializer=_begin_worker,
            initargs=(self._theirs, context.Value("i", 0), max_details_bytes),
        )
        threading.Thread(target=self._listen, name="aion-process-lines", daemon=True).start()

    async def call(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        pulse: Pulse,
        policy: RetryPolicy,
    ) -> Any:
        self._numbers += 1
        number = self._numbers
        self._calls[number] = pulse
        try:
            with _held_signals():  # it may begin a process
                answer = self._loop.run_in_executor(
                    self._pool,
                    _call,
                    function,
                    arguments,
                    pulse.info,
                    policy,
                    number,
                    traceparent(),
                )
            outcome = await answer
        finally:
            del self._calls[number]
            self._lines_of.pop(number, None)
        if isinstance(outcome, _Raised):
            # What was throttled is said now, before the failure is recorded.
            pulse.beat(outcome.details)
            raise FailedElsewhereError(outcome.failure)
        return outcome

    def tell_cancelled(self, pulse: Pulse) -> None:
        for number, line in self._lines_of.items():
            if self._calls[number] is pulse:
                _send(line, number)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        _send(self._hang_up, None)

    def _listen(self) -> None:
        """Hand on what the processes say; in a thread of its own, until somebody hangs up."""
        while True:
            for ready in connection.wait([*self._lines, self._hung_up]):
                if ready is self._hung_up:
                    for line in (*self._lines, *self._theirs, self._hang_up, self._hung_up):
                        line.close()
                    return
                for line in self._lines:
                    if ready is line:
                        self._hear(line)

    def _hear(self, line: _Line) -> None:
        try:
            number, details = line.recv()
        except (EOFError, OSError):
            self._lines.remove(line)
            return
        with suppress(RuntimeError):  # the engine's loop may have ended before its processes
            self._loop.call_soon_threadsafe(self._heard, line, number, details)

    def _heard(self, line: _Line, number: int, details: Payload | None) -> None:
        pulse = self._calls.get(number)
        if pulse is None:
            return
        if number not in self._lines_of:
            self._lines_of[number] = line
            if pulse.cancelled:
                _send(line, number)
        pulse.beat(details)


@contextmanager
def _held_signals() -> Generator[None]:
    """Hold signals back from processes that are begun here, until `_begin_worker` has handlers for them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _DRAINING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _send(line: _Line, message: object) -> None:
    with suppress(OSError):  # nobody may be there any more
        line.send(message)


# ------------------------------------------------------------------------------- in the process


@dataclass(frozen=True, slots=True)
class _Raised:
    """What a call came to that raised."""

    failure: ActivityFailure
    details: Payload | None


class _Worker:
    """This process's end of its line."""

    line: _Line
    max_details_bytes: int


class _CalledHere(RunningActivity):
    """The attempt that runs in this process."""

    def __init__(self, info: ActivityInfo, number: int) -> None:
        self.unsaid: Payload | None = None
        self._info = info
        self._number = number
        self._cancelled = False
        self._spoke_at = 0.0
        self._speaking = threading.Lock()
        _send(_Worker.line, (number, None))  # the other end learns by which line to answer

    @property
    def info(self) -> ActivityInfo:
        """See `RunningActivity`."""
        return self._info

    def is_cancelled(self) -> bool:
        """See `RunningActivity`."""
        with self._speaking:
            while not self._cancelled and _Worker.line.poll():
                self._cancelled = _Worker.line.recv() == self._number
            return self._cancelled

    def heartbeat(self, details: object) -> None:
        """See `RunningActivity`."""
        payload = payload_of_details(details, _Worker.max_details_bytes)
        with self._speaking:
            if payload is not None:
                self.unsaid = payload
            now = time.monotonic()
            if now - self._spoke_at >= BEAT_INTERVAL:
                self._spoke_at = now
                _send(_Worker.line, (self._number, self.unsaid))
                self.unsaid = None


def _begin_worker(lines: Sequence[_Line], taken: Any, max_details_bytes: int) -> None:
    """Take one of the lines; runs once in each new process."""
    for number in _DRAINING:
        # A handler, not SIG_IGN, which programs that an activity begins would inherit.
        signal.signal(number, _go_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _DRAINING)
    threading.Thread(target=_end_with_engine, name="aion-process-end", daemon=True).start()
    with taken.get_lock():
        index = taken.value
        taken.value += 1
    _Worker.line = lines[index]
    _Worker.max_details_bytes = max_details_bytes


def _go_on(_number: int, _frame: FrameType | None) -> None:
    """Leave it to the engine what becomes of the activity."""


def _end_with_engine() -> None:
    """End this process when the engine's has ended: its attempt is lost, and is made again elsewhere."""
    engine = multiprocessing.parent_process()
    if engine is not None:
        engine.join()
        os._exit(1)


def _call(
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    info: ActivityInfo,
    policy: RetryPolicy,
    number: int,
    context: str | None,
) -> Any:
    running = _CalledHere(info, number)
    token = RUNNING.set(running)
    try:
        with following(context):
            return function(*arguments)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - whatever it raises is its outcome
        return _Raised(activity_failure_of(error, policy), running.unsaid)
    finally:
        RUNNING.reset(token)

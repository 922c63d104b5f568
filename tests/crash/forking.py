"""Both ends of a process that forks another for each line it is told, so that each starts at once and can be killed."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Forking:
    """The process that forks, as the test sees it."""

    def __init__(self, module: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, line: str) -> None:
        """Have a process forked that does the work of this line."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def line(self) -> str:
        """Return the next line that it, or what it forked, says."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        assert line, "the forking process died"
        return line

    def answer(self, word: str) -> int:
        """Return the number after `word`, with which the next line has to begin."""
        said, _, number = self.line().partition(" ")
        assert said == word, f"the forking process said {said!r}"
        return int(number)

    def close(self) -> None:
        self._process.communicate()


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())  # at most PIPE_BUF: whole, or not at all


def fork_for_each_line(work: Callable[[str], None]) -> None:
    """Fork a process to do the work of each line of the standard input, one after the other.

    Says `pid <pid>` when it is there, and `dead <exit code>` when it is dead; killed, the code is negative.
    """
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            work(line.strip())
            os._exit(0)
        say(f"pid {pid}")
        _, status = os.waitpid(pid, 0)
        say(f"dead {os.waitstatus_to_exitcode(status)}")

"""The harness: measurements in processes of their own, rounds, medians, and a guard for a quiet machine."""

import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeVar

T = TypeVar("T")

MAX_FOREIGN: Final = 0.25
"""Cores that others may use during a measurement; above it figures come out 30–50 % lower."""
ROOT: Final = Path(__file__).resolve().parent.parent

_CHILD_TIMEOUT: Final = 600.0
_QUIET_WINDOW: Final = 1.0


class Sizes(NamedTuple):
    """How much work each benchmark does."""

    parallel: int = 1_000
    sequential: int = 300
    steps: int = 1_000
    pending: int = 1_000
    histories: tuple[int, ...] = (100, 1_000, 10_000, 50_000)
    chains: tuple[int, ...] = (1, 100, 10_000)
    loads: int = 200
    stored: int = 50_000
    rows: int = 50_000
    schedules: int = 2_000
    idle_schedules: int = 10_000
    sleepers: int = 10_000
    timers: int = 10_000
    signals: int = 100
    rounds: int = 5


FULL: Final = Sizes(
    stored=500_000,
    rows=1_000_000,
    schedules=10_000,
    idle_schedules=100_000,
    sleepers=100_000,
)
"""The sizes that would take `all` beyond ten minutes; `--full` asks for them."""


@dataclass(frozen=True, slots=True)
class Reach:
    """What a figure is to reach; `bound` is in the row's unit."""

    relation: Literal["≥", "≤"]
    bound: float
    unit: str

    def __str__(self) -> str:
        return f"{self.relation} {self.bound:,g} {self.unit}"

    def holds(self, value: float) -> bool:
        """Return whether `value` reaches it."""
        return value >= self.bound if self.relation == "≥" else value <= self.bound


@dataclass(frozen=True, slots=True)
class Row:
    """One figure: the median of its rounds, and the settings that decide its meaning.

    Attributes:
        foreign_cores: Cores that other processes used, in the worst round; `None` where it cannot be told.
        peer: What it was measured against, if it needs a peer.
    """

    id: str
    what: str
    unit: str
    median: float
    min: float
    max: float
    reach: str | None
    reached: bool | None
    sizes: Mapping[str, int]
    rounds: int
    foreign_cores: float | None
    settings: Mapping[str, str]
    peer: str | None = None


class Sample(NamedTuple):
    """What one measurement gave."""

    values: Mapping[str, float]
    settings: Mapping[str, str]
    foreign_cores: float | None


def row(
    id: str,
    what: str,
    unit: str,
    values: Sequence[float],
    samples: Iterable[Sample],
    sizes: Mapping[str, int],
    reach: Reach | None = None,
    peer: str | None = None,
) -> Row:
    """Return the figure that `values`, one a round, make; `samples` are all that went into it."""
    median = statistics.median(values)
    known = list(samples)
    loads = [sample.foreign_cores for sample in known if sample.foreign_cores is not None]
    settings: dict[str, str] = {}
    for sample in known:
        settings.update(sample.settings)
    return Row(
        id,
        what,
        unit,
        _rounded(median),
        _rounded(min(values)),
        _rounded(max(values)),
        None if reach is None else str(reach),
        None if reach is None else reach.holds(median),
        dict(sizes),
        len(values),
        max(loads) if loads else None,
        settings,
        peer,
    )


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


# ------------------------------------------------------------------------------ the machine


def busy_seconds() -> float | None:
    """Return the CPU time that all processes have used, in seconds; `None` where it cannot be told."""
    try:
        first = Path("/proc/stat").read_text(encoding="ascii").partition("\n")[0]
    except OSError:
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, first.split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def own_seconds() -> float:
    """Return the CPU time of this process and of the children that it has waited for, in seconds."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


@dataclass(slots=True)
class Guard:
    """Waits for a quiet machine, tells how quiet it was, and repeats a measurement that was disturbed.

    Attributes:
        patience: Seconds that may still be spent on waiting and repeating, over all measurements.
        tries: How often one measurement is made at most.
    """

    patience: float
    tries: int = 3

    def measured(self, measure: Callable[[], T]) -> tuple[T, float | None]:
        """Return what `measure` gave in its quietest try, and the cores that others used meanwhile."""
        best: tuple[T, float | None] | None = None
        for _ in range(self.tries):
            self._wait_until_quiet()
            began = time.monotonic()
            busy, own = busy_seconds(), own_seconds()
            result = measure()
            now, took = busy_seconds(), time.monotonic() - began
            if busy is None or now is None:
                return result, None
            foreign = max(0.0, round((now - busy - (own_seconds() - own)) / took, 2))
            if best is None or best[1] is None or foreign < best[1]:
                best = result, foreign
            if foreign <= MAX_FOREIGN or self.patience <= 0:
                break
            self.patience -= took
        if best is None:
            raise ValueError(f"a measurement is made at least once, tries={self.tries}")
        return best

    def _wait_until_quiet(self) -> None:
        while self.patience > 0:
            before = busy_seconds()
            if before is None:
                return
            time.sleep(_QUIET_WINDOW)
            self.patience -= _QUIET_WINDOW
            after = busy_seconds()
            if after is None or (after - before) / _QUIET_WINDOW < MAX_FOREIGN:
                return


# -------------------------------------------------------------------------------- children


class MeasurementError(Exception):
    """A measuring process ended without a result."""


@dataclass(slots=True)
class Bench:
    """What every benchmark gets: sizes, the guard, and ways to measure in fresh processes."""

    sizes: Sizes = field(default_factory=Sizes)
    guard: Guard = field(default_factory=lambda: Guard(patience=90.0, tries=2))
    progress: Callable[[str], None] = print

    def measure(self, name: str, directory: Path | None = None, **sizes: Any) -> Sample:
        """Run one of our own measurements in a fresh process, in `directory` or a fresh one."""
        if directory is not None:
            return self.sample(lambda: run_child(own_command(name, directory, **sizes)))
        with fresh_directory() as made:
            return self.sample(lambda: run_child(own_command(name, made, **sizes)))

    def sample(self, measure: Callable[[], Mapping[str, Any]]) -> Sample:
        """Make one guarded measurement; `measure` gives `values` and `settings`."""
        result, foreign = self.guard.measured(measure)
        return Sample(result["values"], result["settings"], foreign)

    def rounds(self, what: str, once: Callable[[], T]) -> list[T]:
        """Return what `once` gave in each round."""
        results: list[T] = []
        for number in range(1, self.sizes.rounds + 1):
            self.progress(f"{what}: round {number} of {self.sizes.rounds}")
            results.append(once())
        return results


@contextmanager
def fresh_directory() -> Iterator[Path]:
    """Lend an empty directory, on the disk where the temporary files are."""
    with tempfile.TemporaryDirectory(prefix="aion-bench-") as made:
        yield Path(made)


def own_command(name: str, directory: Path, **sizes: Any) -> list[str]:
    """Return the command that makes one of our own measurements; see `measure.py`."""
    given = json.dumps({"directory": str(directory), **sizes})
    return [sys.executable, "-m", "benchmarks.measure", name, given]


def run_child(command: Sequence[str], **environment: str) -> Mapping[str, Any]:
    """Run a measuring process and return the JSON object in the last line that it prints.

    Raises:
        MeasurementError: It failed, was silent, or took too long.
    """
    with _child(command, environment) as child:
        try:
            output, _ = child.communicate(timeout=_CHILD_TIMEOUT)
        except subprocess.TimeoutExpired as error:
            raise MeasurementError(
                f"{' '.join(command)}: nothing after {_CHILD_TIMEOUT:g} s"
            ) from error
    return _result(command, child.returncode, output)


def kill_and_run_again(
    before: Sequence[str], after: Sequence[str], **environment: str
) -> Mapping[str, Any]:
    """Run `before` until it prints a line, `kill -9` it, and return what `after` prints.

    `after` finds the moment of its own start, in seconds since 1970, in `BENCH_STARTED_AT`.

    Raises:
        MeasurementError: One of them failed, was silent, or took too long.
    """
    with _child(before, environment) as child:
        line = child.stdout.readline() if child.stdout is not None else ""
        if not line:
            raise MeasurementError(
                f"{' '.join(before)}: ended with {child.wait()} before it was killed"
            )
        child.send_signal(signal.SIGKILL)
        child.communicate()
    return run_child(after, **environment, BENCH_STARTED_AT=repr(time.time()))


@contextmanager
def _child(
    command: Sequence[str], environment: Mapping[str, str]
) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, **environment}
    ) as child:
        try:
            yield child
        finally:
            if child.poll() is None:
                child.kill()


def _result(command: Sequence[str], status: int, output: str) -> Mapping[str, Any]:
    lines = output.strip().splitlines()
    if status or not lines:
        raise MeasurementError(f"{' '.join(command)}: ended with {status}; see its output above")
    result: Mapping[str, Any] = json.loads(lines[-1])
    return result

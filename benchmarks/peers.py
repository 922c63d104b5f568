"""Ours against a peer, DBOS Transact on SQLite: both measured in turn, round by round (P1, P3, P4, P5)."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from benchmarks.harness import (
    ROOT,
    Bench,
    Reach,
    Row,
    Sample,
    fresh_directory,
    kill_and_run_again,
    row,
    run_child,
)
from benchmarks.recovery import killed_and_recovered

VERSION: Final = "3.4.0"
PEER: Final = f"dbos {VERSION}"

Database = Literal["default", "tuned"]
_DATABASES: Final[tuple[Database, ...]] = ("default", "tuned")
_NAMES: Final[Mapping[Database, str]] = {
    "default": f"{PEER} by default",
    "tuned": f"{PEER} tuned to WAL + FULL",
}
_ENVIRONMENT: Final = ROOT / ".venvs" / "peer"
_SCRIPT: Final = Path(__file__).with_name("peer_dbos.py")
_TRIAL: Final = 100


@dataclass(frozen=True, slots=True)
class Comparison:
    """One workload on both sides.

    Attributes:
        peer: Name of the peer's measurement.
        figures: Of ours, each with what it is compared in and how far it is to reach, by the peer's database.
        size: How much of it.
        higher_is_better: False for a time.
    """

    id: str
    what: str
    peer: str
    size: Callable[[Bench], int]
    ours: Callable[[Bench], Sample]
    theirs: str
    unit: str
    figures: tuple[tuple[str, str, Mapping[Database, float]], ...]
    higher_is_better: bool = True


_COMPARISONS: Final = (
    Comparison(
        "P1",
        "workflows at once, 3 activities each",
        "parallel",
        lambda bench: bench.sizes.parallel,
        lambda bench: bench.measure("parallel", workflows=bench.sizes.parallel),
        "workflows_per_s",
        "workflows/s",
        (
            ("workflows_per_s", "until every result is in", {"default": 40, "tuned": 30}),
            ("workflows_per_s_caught_up", "until visibility has caught up too", {"default": 25}),
        ),
    ),
    Comparison(
        "P3",
        "workflows one after the other, 1 activity each",
        "sequential",
        lambda bench: bench.sizes.sequential,
        lambda bench: bench.measure("sequential", workflows=bench.sizes.sequential),
        "workflows_per_s",
        "workflows/s",
        (("workflows_per_s", "all done", {"default": 5, "tuned": 3}),),
    ),
    Comparison(
        "P4",
        "activities in a row in one workflow",
        "steps",
        lambda bench: bench.sizes.steps,
        lambda bench: bench.measure("steps", activities=bench.sizes.steps),
        "activities_per_s",
        "activities/s",
        (("activities_per_s", "all done", {"default": 5, "tuned": 3}),),
    ),
    Comparison(
        "P5",
        "workflows pending at kill -9",
        "recover",
        lambda bench: bench.sizes.pending,
        killed_and_recovered,
        "seconds",
        "s",
        (("seconds", "process start to all complete", {"default": 15}),),
        higher_is_better=False,
    ),
)


def against_dbos(bench: Bench) -> list[Row]:
    """Measure both sides in turn, and return the ratios beside the peer's own figures."""
    python = _installed(bench)
    return [row for comparison in _COMPARISONS for row in _compared(bench, python, comparison)]


def _installed(bench: Bench) -> str:
    """Return the interpreter of the peer's environment, made where it is missing."""
    python = _ENVIRONMENT / "bin" / "python"
    probe = f"import importlib.metadata as m; assert m.version('dbos') == '{VERSION}'"
    if python.exists() and not subprocess.run([python, "-c", probe], check=False).returncode:
        return str(python)
    bench.progress(f"installing {PEER} into {_ENVIRONMENT.relative_to(ROOT)}")
    subprocess.run([sys.executable, "-m", "venv", _ENVIRONMENT], check=True)
    quiet = ["--quiet", "--disable-pip-version-check"]
    subprocess.run([python, "-m", "pip", "install", *quiet, f"dbos=={VERSION}"], check=True)
    return str(python)


def _compared(bench: Bench, python: str, comparison: Comparison) -> list[Row]:
    style = {
        database: _faster_style(bench, python, comparison, database) for database in _DATABASES
    }

    def once() -> tuple[Sample, dict[Database, Sample]]:
        ours = comparison.ours(bench)
        count = comparison.size(bench)
        return ours, {
            database: _theirs(bench, python, comparison.peer, database, style[database], count)
            for database in _DATABASES
        }

    rounds = bench.rounds(f"{comparison.id} against {PEER}", once)
    rows: list[Row] = []
    for database in _DATABASES:
        pairs = [(ours, theirs[database]) for ours, theirs in rounds]
        rows += _rows_against(comparison, database, pairs, comparison.size(bench))
    return rows


def _rows_against(
    comparison: Comparison, database: Database, pairs: list[tuple[Sample, Sample]], count: int
) -> list[Row]:
    samples = [_named(theirs) for _, theirs in pairs]
    sizes = {"n": count}
    what = f"{count:,} {comparison.what}"
    own = [theirs.values[comparison.theirs] for _, theirs in pairs]
    name = _NAMES[database]
    rows = [
        row(comparison.id, f"{what}: {name}", comparison.unit, own, samples, sizes, peer=PEER),
    ]
    both = [ours for ours, _ in pairs] + samples
    for figure, told, reaches in comparison.figures:
        ratios = [
            ours.values[figure] / theirs.values[comparison.theirs]
            if comparison.higher_is_better
            else theirs.values[comparison.theirs] / ours.values[figure]
            for ours, theirs in pairs
        ]
        bound = reaches.get(database)
        reach = None if bound is None else Reach("≥", bound, "×")
        against = f"{what}, {told}: against {name}"
        rows.append(row(comparison.id, against, "×", ratios, both, sizes, reach, PEER))
    return rows


def _named(theirs: Sample) -> Sample:
    """Say of the settings whose they are."""
    settings = {f"peer {name}": value for name, value in theirs.settings.items()}
    return theirs._replace(settings=settings)


def _faster_style(bench: Bench, python: str, comparison: Comparison, database: Database) -> str:
    """Return the style in which the peer does this best, so that it is compared at its best."""
    speeds: dict[str, float] = {}
    for style in ("sync", "async"):
        bench.progress(f"{comparison.id}: trying {_NAMES[database]}, {style}")
        count = min(_TRIAL, comparison.size(bench))
        sample = _theirs(bench, python, comparison.peer, database, style, count)
        speeds[style] = sample.values[comparison.theirs]
    choose = max if comparison.higher_is_better else min
    return choose(speeds, key=lambda style: speeds[style])


def _theirs(
    bench: Bench, python: str, measurement: str, database: Database, style: str, count: int
) -> Sample:
    with fresh_directory() as directory:

        def command(phase: str) -> list[str]:
            fixed = [python, str(_SCRIPT), phase, "-n", str(count), "--directory", str(directory)]
            return [*fixed, "--database", database, "--style", style]

        if measurement == "recover":
            return bench.sample(lambda: kill_and_run_again(command("crash"), command("recover")))
        return bench.sample(lambda: run_child(command(measurement)))

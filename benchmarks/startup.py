"""What it costs to be there at all: the import, and an engine on an empty store (P13)."""

import sys
from pathlib import Path

from benchmarks.harness import Bench, Reach, Row, Sample, fresh_directory, row, run_child

PROBE = Path(__file__).with_name("startup_probe.py")


def started(bench: Bench) -> Sample:
    """Import and open once, in a fresh interpreter."""
    with fresh_directory() as directory:
        return bench.sample(lambda: run_child([sys.executable, str(PROBE), str(directory)]))


def p13(bench: Bench) -> list[Row]:
    """Time and resident memory of both."""
    started(bench)  # the first one compiles, and reads from the disk what the others find in memory
    samples = bench.rounds("P13", lambda: started(bench))
    figures = (
        ("import_ms", "import of aion_es", "ms", 250),
        ("open_ms", "engine open on an empty store, after the import", "ms", 250),
        ("import_mib", "resident memory after the import", "MiB", 60),
        ("open_mib", "resident memory with the engine open", "MiB", 60),
    )
    return [
        row(
            "P13",
            what,
            unit,
            [sample.values[name] for sample in samples],
            samples,
            {},
            Reach("≤", bound, unit),
        )
        for name, what, unit, bound in figures
    ]

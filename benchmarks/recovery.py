"""Coming back after `kill -9` with much work pending (P5)."""

from benchmarks.harness import (
    Bench,
    Row,
    Sample,
    fresh_directory,
    kill_and_run_again,
    own_command,
    row,
)


def killed_and_recovered(bench: Bench) -> Sample:
    """Leave workflows pending in a process, kill it, and measure a new one until all are complete."""
    count = bench.sizes.pending
    with fresh_directory() as directory:
        return bench.sample(
            lambda: kill_and_run_again(
                own_command("crash", directory, workflows=count),
                own_command("recover", directory, workflows=count),
            )
        )


def p5(bench: Bench) -> list[Row]:
    """From the start of the new process to the last workflow's completion."""
    count = bench.sizes.pending
    samples = bench.rounds("P5", lambda: killed_and_recovered(bench))
    what = f"kill -9 with {count:,} workflows pending: process start to all complete"
    sizes = {"workflows": count, "activities": 2 * count}
    seconds = [sample.values["seconds"] for sample in samples]
    return [row("P5", what, "s", seconds, samples, sizes)]

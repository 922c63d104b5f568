"""Polling: a job outside is asked again and again, and the history stays short however long it takes.

`python -m examples.polling` starts another process that looks for primes and writes how far it is into a
file. The workflow reads that file every few milliseconds. After ten looks it goes on as a new run.
"""

import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Final

from pydantic import BaseModel

from aion_es import Context, Engine, NonRetryableError, activity, workflow
from examples.command_line import run

LOOKS_PER_RUN: Final = 10

JOB: Final = """
import json, pathlib, sys, time
report, found = pathlib.Path(sys.argv[1]), 0
for number in range(2, 3_001):
    found += all(number % divisor for divisor in range(2, int(number**0.5) + 1))
    if number % 100 == 0:
        time.sleep(0.02)
        news = report.with_suffix(".new")
        news.write_text(json.dumps({"done": number // 30, "primes": found}))
        news.replace(report)
"""
"""The program outside; it knows nothing of workflows."""


class Report(BaseModel):
    """How far the job is, as it says itself.

    Attributes:
        done: In percent.
        primes: Found until now.
    """

    done: int
    primes: int


class Watch(BaseModel):
    """A job that is looked at until it is done.

    Attributes:
        report: The file that the job writes.
        every: From one look to the next.
        looks: Until now, over all runs.
    """

    report: Path
    every: timedelta
    looks: int = 0


@activity
def start_job(report: Path) -> None:
    """Start the job, unless an attempt before this one has."""
    if not report.exists():
        report.write_text(Report(done=0, primes=0).model_dump_json())
        job = [sys.executable, "-c", JOB, str(report)]
        # Through a shell that ends at once, the job belongs to nobody and outlives this process.
        subprocess.run(["/bin/sh", "-c", '"$@" &', "sh", *job], check=True)


@activity
def look(report: Path) -> Report:
    """Return how far the job is."""
    try:
        return Report.model_validate_json(report.read_text())
    except FileNotFoundError as error:
        raise NonRetryableError(f"there is no job that writes {report.name}") from error


@workflow
async def watch_job(ctx: Context, watch: Watch) -> Report:
    """Start the job and look at it until it is done; a new run takes over where this one stopped looking."""
    if watch.looks == 0:
        await ctx.run(start_job, watch.report)
    for _ in range(LOOKS_PER_RUN):
        report = await ctx.run(look, watch.report)
        watch.looks += 1
        if report.done == 100:
            return report
        await ctx.sleep(watch.every)
    return ctx.continue_as_new(watch)


# ------------------------------------------------------------------------------------- the program


async def example(folder: Path) -> None:
    """Watch a job that takes most of a second."""
    url = f"sqlite:///{folder / 'aion.db'}"
    async with Engine.open(url, workflows=[watch_job], activities=[start_job, look]) as engine:
        watch = Watch(report=folder / "report.json", every=timedelta(milliseconds=25))
        handle = await engine.start(watch_job, watch, id="primes")
        report = await handle.result()
        last = await handle.describe()
        print(f"{report.primes} primes below 3,000")
        most = 4 * LOOKS_PER_RUN * 2  # a look is three events, a sleep two
        print("the last of its runs made at most ten looks:", last.history_length <= most)
        print("and it was not the only one:", last.run_id != last.first_run_id)


if __name__ == "__main__":
    sys.exit(run(example, __doc__))

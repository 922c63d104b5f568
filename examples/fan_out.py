"""Fan-out: one activity for each of 500 files, twenty at once, and a report on those that could not be read.

`python -m examples.fan_out` writes the readings of 500 meters, a few of them damaged, and adds them up.
"""

import sys
from pathlib import Path
from typing import Final

from pydantic import BaseModel

from aion_es import ActivityError, Context, Engine, NonRetryableError, activity, workflow
from examples.command_line import run

METERS: Final = 500
AT_ONCE: Final = 20


class Reading(BaseModel):
    """What a meter's file says."""

    meter: str
    watt_hours: int


class Report(BaseModel):
    """What came of all the files.

    Attributes:
        failed: Why a file could not be read, by its name.
    """

    read: int
    watt_hours: int
    failed: dict[str, str]


@activity
def list_files(folder: Path) -> list[Path]:
    """Return the files of a folder. Their order is recorded with the result, and so the same in every replay."""
    return sorted(folder.glob("*.json"))


@activity
def read_meter(file: Path) -> Reading:
    """Return what a file says. A damaged one is not read again."""
    try:
        return Reading.model_validate_json(file.read_text())
    except ValueError as error:
        raise NonRetryableError("damaged") from error


@workflow
async def add_up(ctx: Context, folder: Path) -> Report:
    """Read every file, whatever becomes of the others, and add up what could be read."""
    files = await ctx.run(list_files, folder)
    outcomes = await ctx.map(read_meter, files, concurrency=AT_ONCE, return_exceptions=True)
    readings = [outcome for outcome in outcomes if isinstance(outcome, Reading)]
    return Report(
        read=len(readings),
        watt_hours=sum(reading.watt_hours for reading in readings),
        failed={
            file.name: outcome.message
            for file, outcome in zip(files, outcomes, strict=True)
            if isinstance(outcome, ActivityError)
        },
    )


# ------------------------------------------------------------------------------------- the program


def write_readings(folder: Path) -> Path:
    """Write the files of all meters, every hundredth damaged, and return their folder."""
    folder.mkdir()
    for number in range(METERS):
        reading = Reading(meter=f"m{number:03}", watt_hours=1_000 + number)
        text = reading.model_dump_json()
        (folder / f"m{number:03}.json").write_text(text[:-5] if number % 100 == 50 else text)
    return folder


async def example(folder: Path) -> None:
    """Add up the readings of 500 meters."""
    meters = write_readings(folder / "meters")
    url = f"sqlite:///{folder / 'aion.db'}"
    async with Engine.open(url, workflows=[add_up], activities=[list_files, read_meter]) as engine:
        report = await (await engine.start(add_up, meters, id="november")).result()
        print(f"{report.read} meters, {report.watt_hours:,} Wh")
        for name, why in report.failed.items():
            print(f"{name}: {why}")


if __name__ == "__main__":
    sys.exit(run(example, __doc__))

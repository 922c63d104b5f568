"""A saga: a trip is booked in three steps; if one fails, those before it are undone, in reverse order.

`python -m examples.saga` books three trips. The offices are folders, a booking is a file in one. The second
trip finds no seat and is undone. The third is undone too, but the hotel does not answer: the run fails in
the middle of its clean-up, and is reopened when the hotel is back. What had been undone is not undone again.
"""

import sys
from datetime import timedelta
from pathlib import Path
from typing import Final, Literal, TypeAlias

from pydantic import BaseModel

from aion_es import (
    ActivityError,
    Context,
    Engine,
    NonRetryableError,
    RetryPolicy,
    activity,
    workflow,
)
from aion_es.errors import WorkflowFailedError
from examples.command_line import run

Office: TypeAlias = Literal["car", "hotel", "flight"]
ORDER: Final[tuple[Office, ...]] = ("car", "hotel", "flight")
BRIEFLY: Final = RetryPolicy(max_attempts=3, initial_interval=timedelta(milliseconds=20))


class Trip(BaseModel):
    """What is to be booked.

    Attributes:
        offices: The folder of the world outside.
    """

    id: str
    offices: Path


class Booking(BaseModel):
    """One step of a trip, for those who do it and those who undo it."""

    trip: Trip
    office: Office

    @property
    def file(self) -> Path:
        """Where it is noted; the name makes booking and cancelling twice harmless."""
        return self.trip.offices / self.office / self.trip.id


@activity(retry=BRIEFLY)
def book(booking: Booking) -> None:
    """Book. An office that has nothing left says so for good."""
    if (booking.file.parent / "sold out").exists():
        raise NonRetryableError(f"no {booking.office} is left")
    booking.file.touch()


@activity(retry=BRIEFLY)
def cancel(booking: Booking) -> None:
    """Give a booking back. An office that is closed does not answer."""
    if (booking.file.parent / "closed").exists():
        raise ConnectionError(f"the {booking.office} office does not answer")
    booking.file.unlink(missing_ok=True)


@workflow
async def book_trip(ctx: Context, trip: Trip) -> str:
    """Book car, hotel and flight, or nothing."""
    booked: list[Booking] = []
    reason = ""
    try:
        for office in ORDER:
            booking = Booking(trip=trip, office=office)
            await ctx.run(book, booking)
            booked.append(booking)
    except ActivityError as error:
        reason = error.message
    else:
        return "booked"
    # Outside of the `except`: a failure in here is then a failure of its own, and reopening the run tries
    # just that step again, not the booking that has been given up.
    for booking in reversed(booked):
        await ctx.run(cancel, booking)
    return f"not booked: {reason}"


# ------------------------------------------------------------------------------------- the program


def open_offices(folder: Path) -> Path:
    """Make the world outside, and return its folder."""
    for office in ORDER:
        (folder / office).mkdir(parents=True)
    return folder


def bookings(offices: Path) -> list[str]:
    """Return what is booked, as `office/trip`."""
    return sorted(f"{file.parent.name}/{file.name}" for file in offices.glob("*/trip-*"))


async def example(folder: Path) -> None:
    """Book three trips."""
    offices = open_offices(folder / "offices")
    async with Engine.open(
        f"sqlite:///{folder / 'aion.db'}", workflows=[book_trip], activities=[book, cancel]
    ) as engine:
        first = await engine.start(book_trip, Trip(id="trip-1", offices=offices), id="trip-1")
        print("trip-1:", await first.result())

        (offices / "flight" / "sold out").touch()
        second = await engine.start(book_trip, Trip(id="trip-2", offices=offices), id="trip-2")
        print("trip-2:", await second.result())

        (offices / "hotel" / "closed").touch()
        third = await engine.start(book_trip, Trip(id="trip-3", offices=offices), id="trip-3")
        try:
            await third.result()
        except WorkflowFailedError as error:
            print("trip-3: failed:", error.message)
        print("booked:", *bookings(offices))

        (offices / "hotel" / "closed").unlink()
        await third.reopen()
        print("trip-3, reopened:", await third.result())
        print("booked:", *bookings(offices))


if __name__ == "__main__":
    sys.exit(run(example, __doc__))

"""What every event shares: frozen, readable as JSON, and lenient towards fields of a newer program."""

from typing import Annotated, ClassVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field


class RecordedModel(BaseModel):
    """A value inside an event. Unknown fields are ignored: an older program reads what a newer one wrote."""

    # defer_build: a program that never meets an event type never pays for its validator.
    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        defer_build=True,
        ser_json_bytes="base64",
        val_json_bytes="base64",
    )


class Event(RecordedModel):
    """A fact. Its class name is its type on the wire, so it is never renamed once recorded.

    Attributes:
        LATER: Fields that were added when events of the type had already been recorded. They are left out
            while they are at their default: the same event is written as the same bytes for ever.
    """

    LATER: ClassVar[tuple[str, ...]] = ()


Instant = AwareDatetime
"""A point in time, aware; written in ISO 8601."""

Attempt = Annotated[int, Field(ge=1)]
"""Which try of an activity, from 1."""
